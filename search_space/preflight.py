"""Whether a candidate is worth training at all: a look at its numbers before any network is built."""

from __future__ import annotations

import numpy as np
import torch

from search_space.activation import Activation, gradients
from search_space.expression import Expression, parse
from search_space.profile import EXACT


def preflight(expression: Expression | str) -> str | None:
    """Why a candidate should not be trained; None if nothing speaks against it. A millisecond.

    Looks at multiples of 1/128 within [-10, 10], in float32, the type that training has: f, f' and the slopes by
    parameters must be finite, f no constant, and f' other than 0 at 1 % of the points. A denominator that changes its
    sign is a pole, though none of the points may meet it. Large numbers are no reason.

    Raises:
        ParseError: text that is no expression.
    """
    tree = parse(expression) if isinstance(expression, str) else expression
    x = torch.tensor(EXACT, dtype=torch.float32).reshape(1, -1).requires_grad_()
    module = Activation(tree, x.numel())  # a channel a point: the slope by a parameter at each x of its own
    y = module(x)
    slope, *by_beta = gradients(y, [x, *module.parameters()])
    y = y.detach()
    rows = [y, slope, *(row for gradient in by_beta for row in gradient)]
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
    """The first denominator (or base of a negative power) that changes its sign within [-10, 10]."""
    denominators: dict[Expression, None] = {}

    def collect(node: Expression, _: tuple[None, ...]) -> None:
        if node.op == "/":
            denominators[node.args[1]] = None
        elif node.op == "^" and node.args[1].op == "neg":
            denominators[node.args[0]] = None

    tree.fold(collect)
    for denominator in denominators:
        with torch.no_grad():
            sign = Activation(denominator)(torch.tensor(EXACT, dtype=torch.float32)).sign().numpy()
        crossings = np.flatnonzero(sign[1:] * sign[:-1] < 0)
        if crossings.size:
            at = min(crossings, key=lambda i: abs(EXACT[i]))
            return f"it has a pole between x = {EXACT[at]:g} and {EXACT[at + 1]:g}, where {denominator} is 0"
    return None
