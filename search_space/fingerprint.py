"""Functions compared by their values: on a few points to many digits, and on thousands of points to few.

Two expressions with equal fingerprints are one function on [-6.1, 6.1], however narrow the interval on which max, min,
abs or a saturated part could have made them differ: the dense points lie closer together than such intervals are, up to
the limits that docs/search-space.md states and `python -m benchmarks.keys` measures. Slopes are not compared: they
overflow in branches that are not selected, and they follow from the values.

Rounding decides what counts as equal. Values are rounded to a step that depends on the value alone, far above the noise
of float64, so that two ways of computing one function give the same rounded numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice, permutations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_space.activation import undisturbed
from search_space.expression import Expression
from search_space.primitives import EPS, FUNCTIONS

Array = NDArray[np.float64]

# Absolute steps. Larger numbers have the relative step of float32, 2^-24, and from `LARGE` on one of 2^-12: there, the
# rounding errors of quotients with a small denominator become visible.
FINE_STEP, DENSE_STEP, LARGE = 2.0**-30, 2.0**-13, 2.0**11
MAX_ORDERS = 24  # of parameters that one at a time have the same effect

_HALF = np.uint32(1 << 10)  # of the relative step of large numbers, in the bits of a float32
_MOVES = 1e-6  # of 1 + |f|: a parameter that nowhere changes the value by more is idle
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101)


def _spread(count: int, prime: int) -> Array:
    """`count` numbers that fill (0, 1) evenly, in an order that is unrelated for different primes (Kronecker)."""
    return (np.arange(1, count + 1) * math.sqrt(prime)) % 1.0


def _sweep(count: int, end: float = 6.1) -> Array:
    """Points from -end to end at equal distances, none of them a round number."""
    return end * ((np.arange(count) + 0.4871) / count * 2 - 1)


def _betas(count: int, slot: int) -> Array:
    """Values of a parameter, one for each point, in [-2, 3]. Slots from 0 on; each has values of its own."""
    return _spread(count, _PRIMES[slot % len(_PRIMES)]) * 5 - 2 + slot // len(_PRIMES) * 0.01


@dataclass(frozen=True, eq=False)
class _Points:
    """Where functions are evaluated. The first `fine` points are compared to many digits. At the points of `free`, each
    parameter has another value at each point; elsewhere it is 1, the value at which training starts."""

    x: Tensor
    fine: int
    free: NDArray[np.bool_]

    @lru_cache(maxsize=64)  # noqa: B019 (there are three of these, and they live as long as the process)
    def betas(self, slot: int) -> Tensor:
        return torch.from_numpy(np.where(self.free, _betas(len(self.free), slot), 1.0))


def _points(*parts: tuple[Array, bool], fine: int) -> _Points:
    x = np.concatenate([part for part, _ in parts])
    free = np.concatenate([np.full(len(part), varied) for part, varied in parts])
    return _Points(torch.from_numpy(x), fine, free)


_FINE = 4 * (2 * _spread(64, 61) - 1)
_FAR = 9.3 * (2 * _spread(24, 67) - 1)
_FEW = _points((_FINE, True), fine=64)
_ROUND = np.arange(-6.0, 7.0)
_PLAIN = _points((_FINE, False), (_FAR, False), (_ROUND, False), (_sweep(8_192), False), fine=64)
_VARIED = _points((_FINE, True), (_FAR, True), (_ROUND, False), (_sweep(4_096), False), (_sweep(6_144), True), fine=64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """For arrays as short as these, several threads take longer than one, and far longer on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@undisturbed()
@_one_thread()
def fingerprint(expression: Expression) -> str:
    """64 hexadecimal digits for the function, whatever its parameters are called. A parameter that never changes its
    value does not count."""
    with torch.no_grad():
        moving = _moving(expression)
        points = _VARIED if moving else _PLAIN
        slots = _slots(expression, moving)
        values = _evaluate(expression, points.x, {beta: points.betas(slot) for beta, slot in slots.items()})
    return hashlib.sha256(_rounded(values, points.fine) + bytes([len(moving)])).hexdigest()


def _moving(expression: Expression) -> list[tuple[int, bytes]]:
    """The parameters that change the function's value, each with its effect: the rounded values with that parameter
    alone different from the others. Sorted by effect, so that the order does not depend on names."""
    names = expression.betas
    if not names:
        return []
    same, other = _FEW.betas(0), _FEW.betas(1)
    rows = {
        name: torch.stack([same, *(other if changed == name else same for changed in names)]) for name in names
    }
    base, *changed = _evaluate(expression, _FEW.x, rows)
    effects = sorted((_rounded(row, _FEW.fine), name, _differ(base, row)) for name, row in zip(names, changed, strict=True))
    idle = [name for _, name, moves in effects if not moves]
    idle = [name for name in idle if not _moves_somewhere(expression, name, [found for _, found, _ in effects])]
    return [(name, effect) for effect, name, _ in effects if name not in idle]


def _moves_somewhere(expression: Expression, name: int, names: Sequence[int]) -> bool:
    """Whether a parameter changes the value anywhere on the dense points, each other parameter at values of its own."""
    free = {beta: _VARIED.betas(slot) for slot, beta in enumerate(names)}
    rows = {beta: values.repeat(2, 1) for beta, values in free.items()}
    rows[name][1] = _VARIED.betas(len(names))
    # At the points where parameters are 1 the two rows are equal; they cost less than a layout of their own.
    one, other = _evaluate(expression, _VARIED.x, rows)
    return _differ(one, other)


def _slots(expression: Expression, moving: Sequence[tuple[int, bytes]]) -> dict[int, int]:
    """Which values each parameter takes. Parameters with the same effect are tried in every order, up to `MAX_ORDERS`;
    the order with the smallest rounded values counts."""
    tied = [[name for name, _ in group] for _, group in groupby(moving, key=lambda pair: pair[1])]
    orders = [sum(order, ()) for order in islice(product(*map(permutations, tied)), MAX_ORDERS)]
    idle = {name: len(moving) for name in expression.betas}
    candidates = [{**idle, **{name: slot for slot, name in enumerate(order)}} for order in orders]
    if len(candidates) == 1:
        return candidates[0]
    rows = {name: torch.stack([_FEW.betas(slots[name]) for slots in candidates]) for name in expression.betas}
    found = [_rounded(row, _FEW.fine) for row in _evaluate(expression, _FEW.x, rows)]
    return candidates[min(range(len(candidates)), key=found.__getitem__)]


def _evaluate(expression: Expression, x: Tensor, betas: dict[int, Tensor]) -> Array:
    """The values (float64), of the shape to which x and the parameters broadcast."""
    done: dict[Expression, Tensor] = {}

    def compute(node: Expression) -> Tensor:
        if node not in done:
            if node.args:
                done[node] = FUNCTIONS[node.op].apply(*[compute(arg) for arg in node.args])
            elif node.op == "beta":
                done[node] = betas[int(node.value)]
            else:
                number = EPS if node.op == "eps" else node.value
                done[node] = x if node.op == "x" else torch.tensor(number, dtype=torch.float64)
        return done[node]

    value = compute(expression)
    return np.broadcast_to(value.numpy(), (*next(iter(betas.values()), x).shape[:-1], len(x)))


def _differ(one: Array, other: Array) -> bool:
    with np.errstate(all="ignore"):
        allowed = _MOVES * (1 + np.maximum(np.abs(one), np.abs(other)))
        return bool((~(np.abs(one - other) <= allowed) & ~(_undefined(one) & _undefined(other))).any())


def _undefined(values: Array) -> NDArray[np.bool_]:
    """Where a function has no number that can be compared: overflow is no reason to tell two functions apart."""
    return ~(np.abs(values) <= np.finfo(np.float32).max)


def _rounded(values: Array, fine: int) -> bytes:
    with np.errstate(all="ignore"):
        parts = [_to_step(values[:fine], FINE_STEP), _to_step(values[fine:], DENSE_STEP)]
        numbers = np.concatenate(parts).astype("<f4")
        bits = numbers.view("<u4")
        bits[np.abs(numbers) >= LARGE] += _HALF  # to the nearest, away from 0
        bits[np.abs(numbers) >= LARGE] &= ~np.uint32(2 * _HALF - 1)
        numbers[_undefined(numbers)] = np.nan
    return numbers.tobytes()


def _to_step(values: Array, step: float) -> Array:
    magic = 1.5 * 2**52 * step  # numbers of this size have the step as their unit in the last place
    return (values + magic) - magic
