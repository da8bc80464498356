"""Expressions as PyTorch modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from search_space.expression import Expression, parse
from search_space.primitives import EPS, FUNCTIONS, SpaceError, Value

Step = tuple[str, tuple[int, ...]]  # a function's name and which earlier values it takes


class Activation(nn.Module):
    """`expression` applied element by element; every parameter is trained, one value a channel, starting at 1.

    Args:
        expression: a tree, or its text.
        channels: the size of dimension 1 of the input; 1 shares each parameter among all channels.

    Shapes: input and output `(batch, channels, ...)`, same dtype and device. `beta`: `(parameters, channels)`.

    Raises:
        ParseError: text that is no expression.
        SpaceError: fewer than one channel.
    """

    beta: nn.Parameter | None

    def __init__(self, expression: Expression | str, channels: int = 1) -> None:
        super().__init__()
        if channels < 1:
            raise SpaceError(f"channels must be at least 1, not {channels!r}")
        self.expression = (parse(expression) if isinstance(expression, str) else expression).normal()
        self.channels = channels
        self._values, self._steps = _compile(self.expression)
        count = len(self.expression.betas)
        self.beta = nn.Parameter(torch.ones(count, channels)) if count else None

    def forward(self, x: Tensor) -> Tensor:
        values: list[Value] = [x, *self._values]
        if self.beta is not None:
            shape = (self.channels,) + (1,) * max(0, x.dim() - 2) if self.channels > 1 else ()
            values += [row.reshape(shape) for row in self.beta.to(x.dtype).unbind()]
        for name, inputs in self._steps:
            values.append(FUNCTIONS[name].apply(*(values[i] for i in inputs)))
        result = values[-1] if self._steps or self.beta is not None or self._values else x
        if isinstance(result, Tensor) and result.shape == x.shape:
            return result
        # A constant function: its one number, or one a channel, for every element.
        return torch.as_tensor(result, dtype=x.dtype, device=x.device).expand_as(x)

    def extra_repr(self) -> str:
        return f"{str(self.expression)!r}, channels={self.channels}"


def _compile(expression: Expression) -> tuple[tuple[float, ...], tuple[Step, ...]]:
    """The constants, and the steps in order: each distinct subtree once, constants folded.

    A forward pass has the values `x, constants..., parameters..., one value a step`; steps refer to them by index.
    """
    folded = expression.fold(fold_constants)
    leaves = dict.fromkeys(leaf for leaf in folded.leaves() if leaf.op == "number")
    betas = dict.fromkeys(leaf for leaf in folded.leaves() if leaf.op == "beta")
    index = {node: i for i, node in enumerate([Expression("x"), *leaves, *betas])}
    steps: list[Step] = []

    def place(node: Expression, args: tuple[int, ...]) -> int:
        if node not in index:
            index[node] = len(index)
            steps.append((node.op, args))
        return index[node]

    folded.fold(place)
    return tuple(leaf.value for leaf in leaves), tuple(steps)


def fold_constants(node: Expression, args: tuple[Expression, ...]) -> Expression:
    """Subtrees without x or a parameter become one number (here alone it may be negative or not finite)."""
    if node.op == "eps":
        return Expression("number", value=EPS)
    if node.args and all(arg.op == "number" for arg in args):
        operands = (torch.tensor(arg.value, dtype=torch.float64) for arg in args)
        return Expression("number", value=float(FUNCTIONS[node.op].apply(*operands)))
    return Expression(node.op, args, node.value)


def gradients(y: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The slope of each element of y by the element of each input in its place; 0 where y does not depend on it."""
    if not y.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    return torch.autograd.grad(y, inputs, torch.ones_like(y), allow_unused=True, materialize_grads=True)


class Maxout(nn.Module):
    """The greatest of every `pieces` neighbouring channels (Goodfellow et al. 2013): the layer before it makes `pieces`
    times the channels. Not an expression: it is a function of several inputs.

    Shapes: `(batch, pieces * channels, ...)` to `(batch, channels, ...)`.

    Raises:
        SpaceError: fewer than two pieces; channels that are no multiple of them.
    """

    def __init__(self, pieces: int = 2) -> None:
        super().__init__()
        if pieces < 2:
            raise SpaceError(f"maxout takes the greatest of at least 2 pieces, not {pieces!r}")
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % self.pieces:
            raise SpaceError(f"an input of {x.shape[1]} channels; maxout needs a multiple of {self.pieces}")
        pieces: Tensor = x.unflatten(1, (-1, self.pieces))
        return pieces.amax(2)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


def undecayed(model: nn.Module) -> set[nn.Parameter]:
    """The parameters of all activations in a model: weight decay would pull them to 0, which is no neutral value."""
    return {p for module in model.modules() if isinstance(module, Activation) for p in module.parameters()}
