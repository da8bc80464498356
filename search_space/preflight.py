"""Whether a candidate is worth training at all: a look at its numbers before any network is built."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from search_space.activation import Activation, gradients, undisturbed
from search_space.expression import Expression, as_expression
from search_space.profile import EXACT, Array


@undisturbed()
def preflight(expression: Expression | str) -> str | None:
    """Why a candidate should not be trained; None if nothing speaks against it. A millisecond, or ten if it has a pole.

    Looks at multiples of 1/128 within [-10, 10], in float32, the type that training has: f, f' and the slopes by
    parameters must be finite, f no constant, and f' other than 0 at 1 % of the points; f must have no pole, though none
    of the points may meet it. Large numbers are no reason.

    Raises:
        ParseError: text that is no expression.
    """
    tree = as_expression(expression)
    x = torch.tensor(EXACT, dtype=torch.float32).reshape(1, -1).requires_grad_()
    module = Activation(tree, x.numel())  # a channel a point: the slope by a parameter at each x of its own
    y = module(x)
    slope, *by_beta = gradients(y, [x, *module.parameters()])
    y = y.detach()
    rows = [y, slope, *by_beta]
    names = ["value", "slope", *(f"slope by beta{i}" for i in range(1, len(rows) - 1))]
    for name, row in zip(names, rows, strict=True):
        broken = (~torch.isfinite(row.flatten())).numpy()
        if broken.any():
            at = float(min(EXACT[broken], key=abs))
            return f"its {name} is {float(row.flatten()[at == EXACT])} at x = {at:g}"
    if pole := _pole(tree):
        return pole
    if float(y.max() - y.min()) <= 4 * torch.finfo(y.dtype).eps * float(y.abs().max()):
        return f"it is constant: {float(y[0, 0]):g}"
    if float((slope != 0).float().mean()) < 0.01:
        return "it has no gradient: its slope is 0 nearly everywhere"
    return None


def _pole(tree: Expression) -> str | None:
    """The pole nearest to 0 within [-10, 10]: a denominator (or base of a negative power) is 0, and f grows there. In
    x^2 / (x + eps) the numerator is 0 in the same place, to within what float32 can tell."""
    denominators: dict[Expression, None] = {}

    def collect(node: Expression, _: tuple[None, ...]) -> None:
        if node.op == "/":
            denominators[node.args[1]] = None
        elif node.op == "^" and node.args[1].op == "neg":
            denominators[node.args[0]] = None

    tree.fold(collect)
    f, found = _function(tree), []
    for denominator in denominators:
        bottom = _function(denominator)
        with np.errstate(all="ignore"):
            crossed, touched = _sign_changes(bottom), _touches(bottom)
            far, close = (np.abs(f(crossed + d) - f(crossed - d)) for d in (1e-4, 1e-5))
            low, high = (np.fmax(np.abs(f(touched + d)), np.abs(f(touched - d))) for d in (1e-4, 1e-5))
        zeros = [*crossed[close > far], *touched[high > 2 * low]]  # 1 / |x|^0.5 becomes 3.2 times as large
        found += [(abs(x), x, denominator) for x in zeros]
    if not found:
        return None
    _, x, denominator = min(found, key=lambda pole: pole[0])
    return f"it has a pole at x = {x:.6g}, where {denominator} is 0"


def _function(tree: Expression) -> Callable[[Array], Array]:
    """The values of `tree` at an array of points, in float64."""
    module = Activation(tree).double().requires_grad_(False)
    return lambda x: np.asarray(module(torch.from_numpy(x)))


def _touches(f: Callable[[Array], Array]) -> Array:
    """Where |f| comes down to 0 within [-10, 10], as (x - 0.3)^2 does, by thirds of the two cells around."""
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
    with np.errstate(all="ignore"):
        sign = np.sign(f(EXACT))
        crossed = np.flatnonzero(sign[1:] * sign[:-1] < 0)
        low, width = EXACT[crossed], 1 / 128
        for _ in range(36 if low.size else 0):
            width /= 2
            low = np.where(np.sign(f(low + width)) == sign[crossed], low + width, low)
    return low
