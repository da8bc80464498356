"""Functions compared by their numbers: value and derivative on a fixed grid, with some generic parameters, rounded.

Two expressions get the same fingerprint if, on the grid, both agree to within rounding; they get different ones if
value or derivative differ anywhere on it by more than 1e-6 of themselves. In between, a number that lies within an
arithmetic error (about 1e-15) of a rounding boundary can fall on either side: one function then has two fingerprints,
with a chance of some 1e-6, and is at worst trained twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search_space.activation import gradients, undisturbed
from search_space.expression import Expression
from search_space.primitives import EPS, FUNCTIONS

# Generic points: no kink, zero or pole of a primitive, no symmetry. Up to 4 even exp(x) written as sinh(x) + cosh(x)
# keeps 12 digits; the outer points tell min(x, 6) from x.
GRID = (
    *(-8.713, -6.291, -3.907, -3.119, -2.573, -2.036, -1.618, -1.273, -0.941, -0.677, -0.412, -0.1837),
    *(0.0719, 0.2683, 0.4931, 0.7457, 1.0573, 1.3817, 1.7711, 2.2391, 2.7889, 3.4513, 5.3147, 9.1063),
)  # fmt: skip
# What parameters are while functions are compared, one row after the other: each has a value near its start, 1, a
# smaller, a negative and a large one. Drawn at random once, so that no number that people write, and no sum or product
# of others, is one of them.
GENERIC = (
    (
        *(0.7324168304915827, 1.6183491275533804, 0.4193827716249315, 2.2361702943385671, 1.1732850913346672),
        *(0.8796134427190338, 1.9314270155236904, 0.6125743188350726, 1.3748391907264517, 0.5380916624471893),
    ),
    (
        *(0.6895069187153664, 3.7097783221357123, -0.8799464449297618, 0.5784121097020858, 3.6824422438809723),
        *(-0.6131408600417636, 0.4515595350471799, 3.808524524002409, -1.1843801496406958, 0.2314531002789383),
    ),
    (
        *(-1.0118844879590534, 0.5207359697447829, 2.535456285519531, -1.604104166310297, 0.3058477846524002),
        *(2.860924461259898, -0.2278973704654201, 0.4841565628131855, 3.0118513384218515, -0.4577574562148468),
    ),
    (
        *(3.683782731552305, -1.3528740514077597, 0.6535067839279478, 3.761256078748173, -0.5833268536095846),
        *(0.4312223531829845, 3.1554138150782114, -0.6904462551366668, 0.1715396448012091, 2.9098898885611932),
    ),
)  # fmt: skip
MAX_EXCHANGED = 4  # parameters that are tried in every order

_BITS = 21  # of a mantissa: steps of 4.8e-7 to 9.5e-7 of the number
_TINY = 1e-280  # below, arithmetic loses digits
_IDLE = 1e-12  # of the function: a parameter that nowhere moves it by more does not count


def fingerprint(expression: Expression) -> str:
    """64 hexadecimal digits for the function, whatever its parameters are called; one that never moves it is none."""
    rows, moving = compared(expression)
    return hashlib.sha256(min(map(_rounded, rows)) + moving.to_bytes(2) * bool(moving)).hexdigest()


def compared(expression: Expression) -> tuple[NDArray[np.float64], int]:
    """The numbers that stand for a function, a row for each order of its parameters (those in which it is defined
    most often), and how many parameters move it."""
    betas = expression.betas
    found = evaluate(expression, _draws(betas, betas))
    moving = tuple(beta for beta, moves in zip(betas, found.moves, strict=True) if moves)
    if len(moving) < len(betas):
        found = evaluate(expression, _draws(betas, moving))
    draws = len(GENERIC) if moving else 1
    numbers = found.numbers.reshape(-1, draws * 2 * len(GRID))  # a row for each order of the parameters
    undefined = np.isnan(numbers).sum(axis=1)  # orders in which the function is no number tell nothing
    return numbers[undefined == undefined.min()], len(moving)


def _draws(betas: tuple[int, ...], moving: tuple[int, ...]) -> dict[int, list[float]]:
    """Values for the parameters: every row of `GENERIC` for every order of those that move the function, while there
    are few of them."""
    orders = list(permutations(moving)) if len(moving) <= MAX_EXCHANGED else [moving]
    idle = tuple(beta for beta in betas if beta not in moving)
    places = [{beta: place for place, beta in enumerate((*order, *idle))} for order in orders]
    rows = GENERIC if moving else GENERIC[:1]
    return {beta: [_generic(row, place[beta]) for place in places for row in rows] for beta in betas}


def _generic(row: tuple[float, ...], place: int) -> float:
    return row[place % len(row)] + place // len(row)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`numbers`: value and derivative by x on the grid, float64, of shape (draws, 2, points). `moves`: for each
    parameter, in order of appearance, whether the function depends on it."""

    numbers: NDArray[np.float64]
    moves: tuple[bool, ...]


@undisturbed()
def evaluate(expression: Expression, betas: Mapping[int, Sequence[float]]) -> Evaluation:
    """The function of `expression` with its parameters at each of their `betas`, which are equally many."""
    draws = max(map(len, betas.values()), default=1)
    x = torch.tensor(GRID, dtype=torch.float64).repeat(draws, 1).requires_grad_()
    free = {
        beta: torch.tensor(values, dtype=torch.float64)[:, None].repeat(1, len(GRID)).requires_grad_()
        for beta, values in betas.items()
    }

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
    moves = tuple(bool((defined & (g.abs() > _IDLE * value.abs())).any()) for g in by_beta)
    return Evaluation(torch.stack([value, slope], 1).numpy(), moves)


def _rounded(numbers: NDArray[np.float64]) -> bytes:
    mantissas, exponents = np.frexp(numbers)
    rounded = np.ldexp(np.rint(mantissas * 2.0**_BITS), exponents - _BITS)
    rounded[np.abs(rounded) < _TINY] = 0.0  # and no -0
    rounded[np.isnan(rounded)] = np.nan  # one of the many
    encoded: bytes = rounded.astype("<f8").tobytes()
    return encoded
