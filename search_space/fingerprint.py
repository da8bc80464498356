"""Functions compared by their values: on a few points to many digits, and on thousands of points to few.

Where max, min, abs or a saturated part hides a difference between two functions, it can show on a narrow interval only.
So the dense points lie closer together than such intervals usually are; docs/search-space.md states the limits, and
`python -m benchmarks.keys` measures them. Slopes are not compared: they overflow in branches that are not selected.

Values are rounded before they are compared, to steps far above the rounding errors of float64. The step at a point
depends on the value there and on the scale of the function, so two ways of computing one function are rounded alike.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice, permutations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_space.activation import default_modes
from search_space.expression import Expression
from search_space.primitives import EPS, FUNCTIONS

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Absolute steps. Larger numbers have the relative step of float32, 2^-24. At the dense points, numbers from `LARGE` on
# have one of 2^-12: many are quotients with a small denominator, whose rounding errors are large.
FINE_STEP, DENSE_STEP, LARGE = 2.0**-30, 2.0**-13, 2.0**11
# A function that is nowhere larger than the first, or half of the time larger than the second, is scaled by a power of
# two before the steps are applied.
SMALL_SCALE, LARGE_SCALE = 2.0**-10, 2.0**64
REACH = 6.1  # the dense points lie within [-REACH, REACH]
# Larger values are not compared where parameters are not 1, or x lies beyond `REACH`. There, values of `a` above 710
# are common: exp(a) overflows, so log(1 + exp(a)) is infinite although softplus(a) is not.
LIMIT = 600.0
MAX_ORDERS = 24  # in which parameters are tried that have the same effect, each changed alone

_HALF = np.uint32(1 << 10)  # of the relative step of large numbers, in the bits of a float32
_MOVES = 1e-6  # of 1 + |f|: a parameter that changes the value nowhere by more is idle
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101)


def _spread(count: int, prime: int) -> Array:
    """Return `count` numbers that fill (0, 1) evenly (a Kronecker sequence); different primes give unrelated orders."""
    return np.arange(1, count + 1, dtype=np.float64) * np.float64(math.sqrt(prime)) % np.float64(1)


def _sweep(count: int) -> Array:
    """Return points from -`REACH` to `REACH` at equal distances, none of them a round number."""
    return REACH * ((np.arange(count) + 0.4871) / count * 2 - 1)


@dataclass(frozen=True, eq=False)
class _Points:
    """The points at which functions are evaluated.

    Attributes:
        x: of shape (points,), float64.
        fine: how many of them, the first ones, are compared to many digits.
        free: of shape (points,). Where it is true, each parameter has another value at each point; elsewhere every
            parameter is 1, the value at which training starts.
        limited: of shape (points,). Where it is true, values beyond `LIMIT` count as undefined.
    """

    x: Tensor
    fine: int
    free: Mask
    limited: Mask

    @lru_cache(maxsize=64)  # noqa: B019 (there are three objects, and they live as long as the process)
    def betas(self, slot: int) -> Tensor:
        """Return the values of a parameter at the points, in [-2, 3]. Each slot, 0 and up, has its own values."""
        values = _spread(len(self.free), _PRIMES[slot % len(_PRIMES)]) * 5 - 2 + slot // len(_PRIMES) * 0.01
        return torch.from_numpy(np.where(self.free, values, 1.0))


def _points(*parts: tuple[Array, bool], fine: int) -> _Points:
    x = np.concatenate([part for part, _ in parts])
    free = np.concatenate([np.full(len(part), varied) for part, varied in parts])
    return _Points(torch.from_numpy(x), fine, free, free | (np.abs(x) > REACH))


_FINE, _FAR, _ROUND = 4 * (2 * _spread(64, 61) - 1), 9.3 * (2 * _spread(24, 67) - 1), np.arange(-6.0, 7.0)
_FEW = _points((_FINE, True), fine=64)
_PLAIN = _points((_FINE, False), (_FAR, False), (_ROUND, False), (_sweep(8_192), False), fine=64)
_VARIED = _points(
    *((_FINE, True), (_FAR, True), (_ROUND, True), (_ROUND, False), (_sweep(4_096), False), (_sweep(6_144), True)),
    fine=64,
)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch's operations in this thread alone: for arrays as short as these, more threads are slower, and far
    slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@default_modes()
@_one_thread()
def fingerprint(expression: Expression) -> str:
    """Return 64 hexadecimal digits that stand for the function, whatever its parameters are called. Parameters that
    never change its value do not count."""
    with torch.no_grad():
        moving = _moving(expression)
        points = _VARIED if moving else _PLAIN
        slots = _slots(expression, moving)
        scaled, exponent = _scaled(expression, points, {beta: points.betas(slot) for beta, slot in slots.items()})
    about = f"{exponent} {len(moving)}".encode()
    return hashlib.sha256(_rounded(scaled, points.fine) + about).hexdigest()


def _moving(expression: Expression) -> list[tuple[int, bytes]]:
    """Return the parameters that change the function's value, each with its effect: the rounded values of the function
    where this parameter alone differs from the others. They are sorted by effect, so names do not matter. Values of any
    size count here, because a function may be larger than `LIMIT` everywhere."""
    names = expression.betas
    if not names:
        return []
    same, other = _FEW.betas(0), _FEW.betas(1)
    rows = {name: torch.stack([same, *(other if changed == name else same for changed in names)]) for name in names}
    (base, *changed), _ = _scaled(expression, _FEW, rows, limit=math.inf)
    effects = sorted(zip([_rounded(row, _FEW.fine) for row in changed], names, strict=True))
    seen = {name for name, row in zip(names, changed, strict=True) if _differ(base, row)}
    order = [name for _, name in effects]
    return [(name, effect) for effect, name in effects if name in seen or _moves_somewhere(expression, name, order)]


def _moves_somewhere(expression: Expression, name: int, names: Sequence[int]) -> bool:
    """Return True if a parameter changes the value at any of the dense points, at which the others have their own
    values. Every second point compares a value far from the start, from -32 to 48: `sign(beta - 10) * x` is not -x."""
    rows = {beta: _VARIED.betas(slot).repeat(2, 1) for slot, beta in enumerate(names)}
    rows[name][1] = _VARIED.betas(len(names))
    rows[name][1, ::2] *= 16
    (one, other), _ = _scaled(expression, _VARIED, rows, limit=math.inf)
    return _differ(one, other)


def _slots(expression: Expression, moving: Sequence[tuple[int, bytes]]) -> dict[int, int]:
    """Return the slot of each parameter, which decides its values. Parameters with the same effect are tried in every
    order, up to `MAX_ORDERS`; the order with the smallest rounded values is taken."""
    tied = [[name for name, _ in group] for _, group in groupby(moving, key=lambda pair: pair[1])]
    orders = [sum(order, ()) for order in islice(product(*map(permutations, tied)), MAX_ORDERS)]
    idle = dict.fromkeys(expression.betas, len(moving))
    candidates = [idle | {name: slot for slot, name in enumerate(order)} for order in orders]
    if len(candidates) == 1:
        return candidates[0]
    rows = {name: torch.stack([_FEW.betas(slots[name]) for slots in candidates]) for name in expression.betas}
    scaled, _ = _scaled(expression, _FEW, rows, limit=math.inf)
    found = [_rounded(row, _FEW.fine) for row in scaled]
    return candidates[min(range(len(candidates)), key=found.__getitem__)]


def _evaluate(expression: Expression, x: Tensor, betas: Mapping[int, Tensor]) -> Array:
    """Return the values at `x`, of shape (points,), or (rows, points) if the parameters have that shape."""
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

    rows = next(iter(betas.values()), x).shape[:-1]
    return np.broadcast_to(compute(expression).numpy(), (*rows, len(x)))


def _scaled(
    expression: Expression, points: _Points, betas: Mapping[int, Tensor], limit: float = LIMIT
) -> tuple[Array, int]:
    """Return the values divided by a power of two, and its exponent: 0 unless the function is very small or large.
    Values beyond `limit` at the limited points are not a number, unless most of the function's values are so large."""
    values = _evaluate(expression, points.x, betas)
    large = np.abs(values) > limit
    if 2 * np.sum(large[..., : points.fine]) < np.sum(~np.isnan(values[..., : points.fine])):
        values = np.where(points.limited & large, np.nan, values)
    sizes = np.abs(values)
    finite = np.isfinite(sizes)
    scale = float(sizes.max(where=finite, initial=0.0))
    if scale == 0 or SMALL_SCALE <= scale <= LARGE_SCALE:
        return values, 0
    if scale > LARGE_SCALE:
        scale = float(np.median(sizes[finite]))
        if scale <= LARGE_SCALE:
            return values, 0
    elif _is_noise(values, _evaluate(expression, points.x * (1 + 2.0**-43), betas)):
        return values, 0
    exponent = math.frexp(float(f"{scale:.6g}"))[1]  # six digits: rounding errors do not matter
    return np.ldexp(values, -exponent), exponent


def _is_noise(values: Array, beside: Array) -> bool:
    """Return True if small values are rounding errors of a function that is 0: they change at the next points."""
    both = np.isfinite(values) & np.isfinite(beside)
    apart = np.abs(values[both] - beside[both])
    return bool(apart.max(initial=0.0) > 1e-3 * np.abs(values[both]).max(initial=0.0))


def _differ(one: Array, other: Array) -> bool:
    """Return True if the values differ anywhere by more than `_MOVES` allows."""
    with np.errstate(all="ignore"):
        allowed = _MOVES * (1 + np.minimum(np.abs(one), np.abs(other)))  # finite where either is
        return bool((~(np.abs(one - other) <= allowed) & ~(_undefined(one) & _undefined(other))).any())


def _undefined(values: Array | NDArray[np.float32]) -> Mask:
    """Return where a value is infinite, beyond float32 or not a number. Such values count as equal, because one way of
    computing a function overflows earlier than another."""
    return np.asarray(~(np.abs(values) <= np.finfo(np.float32).max))


def _rounded(values: Array, fine: int) -> bytes:
    """Return the values, of shape (points,), rounded to their steps, as bytes that are the same on every machine."""
    with np.errstate(all="ignore"):
        few = _to_step(values[:fine], FINE_STEP).astype("<f4")
        many = _to_step(values[fine:], DENSE_STEP).astype("<f4")
        large, bits = np.abs(many) >= LARGE, many.view("<u4")
        bits[large] = (bits[large] + _HALF) & ~np.uint32(2 * _HALF - 1)
        numbers = np.concatenate([few, many])
        numbers[_undefined(numbers)] = np.nan
    return numbers.tobytes()


def _to_step(values: Array, step: float) -> Array:
    magic = 1.5 * 2**52 * step  # numbers of this size have the step as their unit in the last place
    return (values + magic) - magic
