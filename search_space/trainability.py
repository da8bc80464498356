"""Whether a candidate is worth training at all: a look at its numbers before any network is built."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from search_space.activation import Activation, default_modes, gradients
from search_space.expression import Expression, as_expression
from search_space.properties import EXACT, Array

_LARGEST = float(np.finfo(np.float32).max)


@default_modes()
def preflight(expression: Expression | str) -> str | None:
    """Return why a function should not be trained, or None if nothing speaks against it. Takes about a millisecond.

    The verdict depends on the function's values alone, so all ways of writing one function get the same. They are
    computed in float64 at multiples of 1/128 within [-10, 10], with every parameter at 1. It must be finite in float32,
    must not be constant, must change at 1 % of the points, and must not grow without bound towards any point, even one
    that lies between these. Large numbers are no reason.

    Raises:
        ParseError: text that is no expression.
    """
    tree = as_expression(expression)
    f = _function(tree)
    with np.errstate(all="ignore"):
        y = f(EXACT)
        broken = ~(np.abs(y) <= _LARGEST)
        if broken.any():
            at = float(min(EXACT[broken], key=abs))
            return f"its value is {float(np.float32(y[at == EXACT][0]))} at x = {at:g}"
        if pole := _pole(tree, f):
            return pole
        if float(np.ptp(y)) <= 4 * float(np.finfo(np.float32).eps) * float(np.abs(y).max()):
            return f"it is constant: {float(y[0]):g}"
        if float(_changes(y).mean()) < 0.01:
            return "it has no gradient: its slope is 0 nearly everywhere"
    return None


@default_modes()
def breakdown(expression: Expression | str) -> str | None:
    """Return where this way of writing a function breaks in training, or None if nothing is seen. Takes about a
    millisecond.

    Training computes in float32, with the slopes that autograd finds. `min(x, exp(exp(x)))` is x, yet its slope is not
    a number at 5, for there an infinite slope is multiplied by 0. Looks at the points of `preflight`. Such a verdict
    says nothing about the function: another way of writing it may do.

    Raises:
        ParseError: text that is no expression.
    """
    tree = as_expression(expression)
    x = torch.tensor(EXACT, dtype=torch.float32).reshape(1, -1).requires_grad_()
    module = Activation(tree, x.numel())  # a channel a point: the slope by a parameter at each x of its own
    y = module(x)
    slope, *by_beta = gradients(y, [x, *module.parameters()])
    rows = [y.detach(), slope, *by_beta]
    names = ["value", "slope", *(f"slope by beta{i}" for i in range(1, len(rows) - 1))]
    for name, row in zip(names, rows, strict=True):
        broken = (~torch.isfinite(row.flatten())).numpy()
        if broken.any():
            at = float(min(EXACT[broken], key=abs))
            return f"as it is written, its {name} is {float(row.flatten()[at == EXACT])} at x = {at:g}"
    return None


def _changes(y: Array) -> NDArray[np.bool_]:
    """Return where a function changes from one point to the next by more than rounding does."""
    size = np.maximum(np.abs(y[1:]), np.abs(y[:-1]))
    changes: NDArray[np.bool_] = np.abs(np.diff(y)) > 1e-12 * size + 1e-15 * min(1.0, float(np.abs(y).max()))
    return changes


def _pole(tree: Expression, f: Callable[[Array], Array]) -> str | None:
    """Return a sentence about the point nearest to 0, within [-10, 10], towards which f grows without bound; None if
    there is none. At such a point a denominator, the base of a power or the argument of a logarithm is 0. In
    x^2 / (x + eps) the numerator is 0 in the same place, to within what float32 can tell, and f does not grow."""
    found: list[tuple[float, float, Expression]] = []
    for node in _may_be_zero(tree):
        g = _function(node)
        zeros = np.concatenate([_sign_changes(g), _touching_zeros(g)])
        found += [(abs(x), x, node) for x in zeros[_grows(f, zeros)]]
    if not found:
        return None
    _, x, node = min(found, key=lambda pole: pole[0])
    return f"it has a pole at x = {x:.6g}, where {node} is 0"


def _may_be_zero(tree: Expression) -> list[Expression]:
    """Return the subtrees at whose zeros a function can be infinite. Nothing else in the language makes it infinite."""
    found: dict[Expression, None] = {}

    def collect(node: Expression, _: tuple[None, ...]) -> None:
        if node.op == "/":
            found[node.args[1]] = None
        elif node.op == "log" or (node.op == "^" and node.args[1].op != "number"):
            found[node.args[0]] = None

    tree.fold(collect)
    return [node for node in found if any(leaf.op == "x" for leaf in node.leaves())]


def _grows(f: Callable[[Array], Array], x: Array) -> NDArray[np.bool_]:
    """Return, for each x, whether f grows without bound towards it: in absolute value, or from minus to plus infinity.

    From a distance of 1e-4 to one of 1e-5, a pole of order 0.5 grows by a factor of 3.2. A logarithm grows by the same
    amount from 1e-4 to 1e-8 as from 1e-8 to 1e-12.
    """
    (far, close), (far_apart, close_apart) = np.stack([_beside(f, x, d) for d in (1e-4, 1e-5)], axis=1)
    poles = (close > 2 * far) | (close_apart > 2 * far_apart) & (close_apart > 1e-6 * (1 + close))
    steps = np.diff([_beside(f, x, d)[0] for d in (1e-4, 1e-8, 1e-12)], axis=0)
    logarithms = (steps[0] > 1e-3) & (steps[1] > 0.8 * steps[0])
    return np.asarray(poles | logarithms)


def _beside(f: Callable[[Array], Array], x: Array, distance: float) -> tuple[Array, Array]:
    """Return the larger |f| on the two sides of each x at a distance, and how far apart the two values are."""
    right, left = f(x + distance), f(x - distance)
    return np.fmax(np.abs(right), np.abs(left)), np.abs(right - left)


def _function(tree: Expression) -> Callable[[Array], Array]:
    """The values of `tree` at an array of points, in float64."""
    module = Activation(tree, native=False).double().requires_grad_(False)
    return lambda x: np.asarray(module(torch.from_numpy(x)))


def _touching_zeros(f: Callable[[Array], Array]) -> Array:
    """Where |f| comes down to 0 within [-10, 10] without a change of sign, as (x - 0.3)^2 does, by thirds of the two
    cells around."""
    size = np.abs(f(EXACT))
    here, beside, beyond = size[2:-2], np.fmin(size[1:-3], size[3:-1]), np.fmin(size[:-4], size[4:])
    lowest = 2 + np.flatnonzero((here <= beside) & (here < 0.6 * beyond))  # |x|^0.5, half a cell off: 0.58
    low, high = EXACT[lowest - 1], EXACT[lowest + 1]
    for _ in range(80 if lowest.size else 0):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        first = np.abs(f(left)) <= np.abs(f(right))
        low, high = np.where(first, low, left), np.where(first, right, high)
    x = np.asarray((low + high) / 2)
    return x[np.abs(f(x)) < 1e-3 * np.fmin(np.abs(f(x - 1e-5)), np.abs(f(x + 1e-5)))]  # and not to eps only


def _sign_changes(f: Callable[[Array], Array]) -> Array:
    """Where f changes its sign within [-10, 10], by bisection between multiples of 1/128."""
    sign = np.sign(f(EXACT))
    crossed = np.flatnonzero(sign[1:] * sign[:-1] < 0)
    low, width = EXACT[crossed], 1 / 128
    for _ in range(50 if low.size else 0):
        width /= 2
        low = np.where(np.sign(f(low + width)) == sign[crossed], low + width, low)
    return low
