"""Functions compared by their numbers: value and derivative on a fixed grid, with generic parameters, rounded.

Two expressions get the same fingerprint if, on the grid, both agree to within rounding; they get different ones if
value or derivative differ anywhere on it by more than 1e-6 of themselves. In between, a number that lies within an
arithmetic error (about 1e-15) of a rounding boundary can fall on either side: one function then has two fingerprints,
with a chance of some 1e-6, and is at worst trained twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_space.activation import gradients
from search_space.expression import Expression
from search_space.primitives import EPS, FUNCTIONS

# Generic points: no kink, zero or pole of a primitive, no symmetry. Up to 4 even exp(x) written as sinh(x) + cosh(x)
# keeps 12 digits; the outer points tell min(x, 6) from x.
GRID = (
    *(-8.713, -6.291, -3.907, -3.119, -2.573, -2.036, -1.618, -1.273, -0.941, -0.677, -0.412, -0.1837),
    *(0.0719, 0.2683, 0.4931, 0.7457, 1.0573, 1.3817, 1.7711, 2.2391, 2.7889, 3.4513, 5.3147, 9.1063),
)  # fmt: skip
# What parameters are while functions are compared: drawn at random once, so that no number that people write, and no
# sum or product of others, is one of them.
GENERIC = (
    *(0.7324168304915827, 1.6183491275533804, 0.4193827716249315, 2.2361702943385671, 1.1732850913346672),
    *(0.8796134427190338, 1.9314270155236904, 0.6125743188350726, 1.3748391907264517, 0.5380916624471893),
)  # fmt: skip
MAX_EXCHANGED = 4  # parameters that are tried in every order: 24 evaluations

_BITS = 21  # of a mantissa: steps of 4.8e-7 to 9.5e-7 of the number
_TINY = 1e-280  # below, arithmetic loses digits
_IDLE = 1e-12  # of the function: a parameter that moves it by no more does not count


def fingerprint(expression: Expression) -> str:
    """64 hexadecimal digits for the function, whatever its parameters are called; one that never moves it is none."""
    betas = expression.betas
    found = [evaluate(expression, dict(zip(betas, order, strict=True))) for order in _orders(len(betas))]
    moving = [beta for i, beta in enumerate(betas) if any(evaluation.moves[i] for evaluation in found)]
    if len(moving) < len(betas):
        idle = dict(zip(betas, _generic(len(betas)), strict=True))
        found = [evaluate(expression, idle | dict(zip(moving, o, strict=True))) for o in _orders(len(moving))]
    # In some orders the function may be no number anywhere: those tell nothing.
    _, numbers = min((int(np.isnan(one.numbers).sum()), _rounded(one.numbers)) for one in found)
    return hashlib.sha256(numbers).hexdigest()


def _orders(count: int) -> list[tuple[float, ...]]:
    """Values for so many parameters, in every order while there are few."""
    values = _generic(count)
    return list(permutations(values)) if count <= MAX_EXCHANGED else [values]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`numbers`: value and derivative by x on the grid, float64, of shape (2, points). `moves`: for each parameter, in
    order of appearance, whether the function depends on it."""

    numbers: NDArray[np.float64]
    moves: tuple[bool, ...]


def evaluate(expression: Expression, betas: dict[int, float]) -> Evaluation:
    """The function of `expression` with its parameters at `betas`."""
    x = torch.tensor(GRID, dtype=torch.float64, requires_grad=True)
    free = {beta: torch.full_like(x, value, requires_grad=True) for beta, value in betas.items()}

    def compute(node: Expression, args: tuple[Tensor, ...]) -> Tensor:
        if node.args:
            result: Tensor = FUNCTIONS[node.op].apply(*args)
            return result
        if node.op == "beta":
            return free[int(node.value)]
        return x if node.op == "x" else torch.tensor(EPS if node.op == "eps" else node.value, dtype=torch.float64)

    value = expression.fold(compute)
    slope, *by_beta = gradients(value, [x, *free.values()])
    value = value.detach().expand_as(x)
    defined = value.isfinite()
    slope = slope.masked_fill(~defined, torch.nan)  # where there is no value, autograd's slope is an accident
    scale = value[defined].abs().max() if defined.any() else torch.tensor(0.0)
    moves = tuple(bool((g[defined].abs() > _IDLE * scale).any()) for g in by_beta)
    return Evaluation(torch.stack([value, slope]).numpy(), moves)


def _generic(count: int) -> tuple[float, ...]:
    return tuple(GENERIC[i % len(GENERIC)] + i // len(GENERIC) for i in range(count))


def _rounded(numbers: NDArray[np.float64]) -> bytes:
    mantissas, exponents = np.frexp(numbers)
    rounded = np.ldexp(np.rint(mantissas * 2.0**_BITS), exponents - _BITS)
    rounded[np.abs(rounded) < _TINY] = 0.0  # and no -0
    rounded[np.isnan(rounded)] = np.nan  # one of the many
    encoded: bytes = rounded.astype("<f8").tobytes()
    return encoded
