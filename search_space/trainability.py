"""Decide from a function's values whether it can be trained, before any network is built."""

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
    """Return why a function should not be trained, or None if there is no such reason. Takes about a millisecond.

    The values are computed in float64 at the multiples of 1/128 within [-10, 10], with every parameter at 1. They must
    be finite in float32, and must differ from each other by more than rounding errors. They must change between at
    least 1 % of neighbouring points. The function must not grow without bound towards any point, even between these
    points. Large finite values are accepted.

    Only values are used, so all ways of writing one function get the same result.

    Args:
        expression: a tree, or its text.

    Raises:
        ParseError: the text is not an expression.
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
    """Return where this way of writing a function fails in training, or None. Takes about a millisecond.

    Values and autograd's slopes are computed in float32, at the points of `preflight`, and must be finite. For example,
    `min(x, exp(exp(x)))` is x, but its slope at 5 is NaN, because an infinite slope is multiplied by 0. Another way of
    writing the same function may succeed.

    Args:
        expression: a tree, or its text.

    Raises:
        ParseError: the text is not an expression.
    """
    tree = as_expression(expression)
    x = torch.tensor(EXACT, dtype=torch.float32).reshape(1, -1).requires_grad_()
    module = Activation(tree, x.numel())  # one channel per point, to get the slope by a parameter at each point
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
    """Return, for each pair of neighbouring values, True if they differ by more than rounding errors."""
    size = np.maximum(np.abs(y[1:]), np.abs(y[:-1]))
    changes: NDArray[np.bool_] = np.abs(np.diff(y)) > 1e-12 * size + 1e-15 * min(1.0, float(np.abs(y).max()))
    return changes


def _pole(tree: Expression, f: Callable[[Array], Array]) -> str | None:
    """Return a sentence about the pole of f nearest to 0, within [-10, 10]; None if there is no pole.

    A pole is a point towards which f grows without bound. A denominator, the base of a power or the argument of a
    logarithm is 0 there. Such a zero need not be a pole: in x^2 / (x + eps) the numerator is 0 at nearly the same
    point, and f does not grow.
    """
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
    """Return the subtrees at whose zeros a function can have a pole. No other part of an expression makes poles."""
    found: dict[Expression, None] = {}

    def collect(node: Expression, _: tuple[None, ...]) -> None:
        if node.op == "/":
            found[node.args[1]] = None
        elif node.op == "log" or (node.op == "^" and node.args[1].op != "number"):
            found[node.args[0]] = None

    tree.fold(collect)
    return [node for node in found if any(leaf.op == "x" for leaf in node.leaves())]


def _grows(f: Callable[[Array], Array], x: Array) -> NDArray[np.bool_]:
    """Return, for each x, True if |f| grows without bound towards it, or if f jumps there from -inf to inf.

    Between the distances 1e-4 and 1e-5, a pole of order 0.5 grows by a factor of 3.2. A logarithm grows by the same
    amount between 1e-4 and 1e-8 as between 1e-8 and 1e-12.
    """
    (far, close), (far_apart, close_apart) = np.stack([_beside(f, x, d) for d in (1e-4, 1e-5)], axis=1)
    poles = (close > 2 * far) | (close_apart > 2 * far_apart) & (close_apart > 1e-6 * (1 + close))
    steps = np.diff([_beside(f, x, d)[0] for d in (1e-4, 1e-8, 1e-12)], axis=0)
    logarithms = (steps[0] > 1e-3) & (steps[1] > 0.8 * steps[0])
    return np.asarray(poles | logarithms)


def _beside(f: Callable[[Array], Array], x: Array, distance: float) -> tuple[Array, Array]:
    """Return the larger |f| of the two points at a distance from each x, and the difference of the two values."""
    right, left = f(x + distance), f(x - distance)
    return np.fmax(np.abs(right), np.abs(left)), np.abs(right - left)


def _function(tree: Expression) -> Callable[[Array], Array]:
    """Return a function that computes the values of a tree at an array of points, in float64."""
    module = Activation(tree, native=False).double().requires_grad_(False)
    return lambda x: np.asarray(module(torch.from_numpy(x)))


def _touching_zeros(f: Callable[[Array], Array]) -> Array:
    """Return the zeros of f within [-10, 10] at which the sign does not change, as in (x - 0.3)^2.

    They are minima of |f|, found by ternary search in the two cells around the lowest points.
    """
    size = np.abs(f(EXACT))
    here, beside, beyond = size[2:-2], np.fmin(size[1:-3], size[3:-1]), np.fmin(size[:-4], size[4:])
    lowest = 2 + np.flatnonzero((here <= beside) & (here < 0.6 * beyond))  # 0.58 for |x|^0.5 half a cell off
    low, high = EXACT[lowest - 1], EXACT[lowest + 1]
    for _ in range(80 if lowest.size else 0):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        first = np.abs(f(left)) <= np.abs(f(right))
        low, high = np.where(first, low, left), np.where(first, right, high)
    x = np.asarray((low + high) / 2)
    return x[np.abs(f(x)) < 1e-3 * np.fmin(np.abs(f(x - 1e-5)), np.abs(f(x + 1e-5)))]  # it is 0, and not only eps


def _sign_changes(f: Callable[[Array], Array]) -> Array:
    """Return the points of [-10, 10] at which f changes its sign, by bisection between multiples of 1/128."""
    sign = np.sign(f(EXACT))
    crossed = np.flatnonzero(sign[1:] * sign[:-1] < 0)
    low, width = EXACT[crossed], 1 / 128
    for _ in range(50 if low.size else 0):
        width /= 2
        low = np.where(np.sign(f(low + width)) == sign[crossed], low + width, low)
    return low
