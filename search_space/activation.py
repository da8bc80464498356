"""Expressions as PyTorch modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import FunctionType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from search_space.expression import Expression, as_expression
from search_space.kernels import OPERATIONS, with_kernels
from search_space.primitives import EPS, FUNCTIONS, SpaceError, Value

MAX_CHANNELS = 1_000_000

Step = tuple[str, tuple[int, ...]]  # an operation's name and which earlier values it takes


class Program(NamedTuple):
    """An expression in the order of its evaluation. Steps refer to values by index: `x, constants..., parameters...`,
    then one value a step."""

    constants: tuple[float, ...]
    steps: tuple[Step, ...]


class Activation(nn.Module):
    """`expression` applied element by element; every parameter is trained, one value a channel, starting at 1.

    Args:
        expression: a tree, or its text.
        channels: the size of dimension 1 of the input; 1 shares each parameter among all channels.
        inplace: accepted, because timm and others pass it, and ignored.
        native: torch's own kernels for the forms that have one (search_space/kernels.py); without, each operation on
            its own, as exported files have it. They differ by rounding and in the slopes at kinks.

    Attributes:
        compiled: whether torch.compile makes one kernel of it (search_space/compiled.py).

    Shapes: input and output `(batch, channels, ...)`, same dtype and device. `beta`: `(parameters, channels)`.

    Raises:
        ParseError: text that is no expression.
        SpaceError: channels that are no number from 1 to a million; an input of others.
    """

    beta: nn.Parameter | None

    def __init__(
        self,
        expression: Expression | str,
        channels: int = 1,
        *,
        inplace: bool = False,  # noqa: ARG002
        native: bool = True,
    ) -> None:
        super().__init__()
        self.expression = as_expression(expression).normal()
        self.channels, self.compiled = checked_channels(channels), False
        self.program = lower(self.expression, native)
        count = len(self.expression.betas)
        self.beta = nn.Parameter(torch.ones(count, channels)) if count else None

    def reset_parameters(self) -> None:
        """Every parameter at its start again."""
        if self.beta is not None:
            nn.init.ones_(self.beta)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (as torch's own activations call it)
        x = input
        betas: tuple[Tensor, ...] = ()
        if self.beta is not None:
            if self.channels > 1 and x.shape[:2][-1:] != (self.channels,):  # a vector has channels alone
                raise SpaceError(
                    f"{self.expression} has {self.channels} channels, its input {tuple(x.shape)}: dimension 1 must be "
                    "the channels; with channels=1 all share the parameters"
                )
            shape = (self.channels,) + (1,) * max(0, x.dim() - 2) if self.channels > 1 else ()
            beta = self.beta.to(x.dtype)
            betas = (beta.reshape(shape),) if len(beta) == 1 else beta.reshape(-1, *shape).unbind()
        if self.compiled and not torch.compiler.is_compiling():
            return fused(self.program)(x, betas)
        return run(self.program, x, betas)

    def extra_repr(self) -> str:
        return f"{str(self.expression)!r}, channels={self.channels}"


def checked_channels(channels: int) -> int:
    """Raises SpaceError unless it is a number of channels."""
    if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= MAX_CHANNELS:
        raise SpaceError(f"channels must be a whole number from 1 to {MAX_CHANNELS}, not {channels!r}")
    return channels


def run(program: Program, x: Tensor, betas: tuple[Tensor, ...]) -> Tensor:
    """The value of a program for each element of x, with parameters that broadcast with x."""
    values: list[Value] = [x, *program.constants, *betas]
    for name, inputs in program.steps:
        values.append(OPERATIONS[name](*[values[i] for i in inputs]))
    result = values[-1]
    if isinstance(result, Tensor) and result.shape == x.shape:
        return result
    # A constant function: its one number, or one a channel, for every element.
    return torch.zeros_like(x) + torch.as_tensor(result, dtype=x.dtype, device=x.device)


@lru_cache(maxsize=1_024)
def fused(program: Program) -> Callable[[Tensor, tuple[Tensor, ...]], Tensor]:
    """`run` of one program through torch.compile, for inputs of every size; compiled when first called.

    All activations of one expression share it. It has a code object of its own: torch keeps, and limits, what it has
    compiled by code object.
    """

    def call(x: Tensor, betas: tuple[Tensor, ...]) -> Tensor:
        return run(program, x, betas)

    own = FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)
    compiled: Callable[[Tensor, tuple[Tensor, ...]], Tensor] = torch.compile(own, dynamic=True, fullgraph=True)
    return compiled


@lru_cache(maxsize=1_024)
def lower(expression: Expression, native: bool = True) -> Program:
    """The constants, and the steps in order: each distinct subtree once, constants folded, with torch's own kernels."""
    folded = expression.fold(fold_constants)
    tree = with_kernels(folded) if native else folded
    leaves = dict.fromkeys(leaf for leaf in tree.leaves() if leaf.op == "number")
    betas = dict.fromkeys(leaf for leaf in folded.leaves() if leaf.op == "beta")
    index = {node: i for i, node in enumerate([Expression("x"), *leaves, *betas])}
    steps: list[Step] = []

    def place(node: Expression, args: tuple[int, ...]) -> int:
        if node not in index:
            index[node] = len(index)
            steps.append((node.op, args))
        return index[node]

    tree.fold(place)
    return Program(tuple(leaf.value for leaf in leaves), tuple(steps))


def fold_constants(node: Expression, args: tuple[Expression, ...]) -> Expression:
    """Subtrees without x or a parameter become one number (here alone it may be negative or not finite)."""
    if node.op == "eps":
        return Expression("number", value=EPS)
    if node.args and all(arg.op == "number" for arg in args):
        operands = (torch.tensor(arg.value, dtype=torch.float64, device="cpu") for arg in args)
        return Expression("number", value=float(FUNCTIONS[node.op].apply(*operands)))
    return Expression(node.op, args, node.value)


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is measured of a function does not depend on what its user has set for other things: with gradients, on the
    CPU, in whatever mode."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.is_anomaly_enabled():  # it takes the slope of sqrt(x) below 0 for an error
            stack.enter_context(torch.autograd.set_detect_anomaly(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def gradients(y: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The slope of each element of y by the element of each input in its place; 0 where y does not depend on it."""
    if not y.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    # The slope of a sum, for with a gradient given torch would import sympy first: a second in each new process.
    return torch.autograd.grad(y.sum(), inputs, allow_unused=True, materialize_grads=True)


class Maxout(nn.Module):
    """The greatest of every `pieces` neighbouring channels (Goodfellow et al. 2013): the layer before it makes `pieces`
    times the channels. Not an expression: it is a function of several inputs.

    Shapes: `(batch, pieces * channels, ...)` to `(batch, channels, ...)`.

    Raises:
        SpaceError: fewer than two pieces; channels that are no multiple of them.
    """

    def __init__(self, pieces: int = 2) -> None:
        super().__init__()
        if isinstance(pieces, bool) or not isinstance(pieces, int) or pieces < 2:
            raise SpaceError(f"maxout takes the greatest of at least 2 pieces, not {pieces!r}")
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[1] % self.pieces:
            raise SpaceError(f"an input {tuple(x.shape)}; maxout needs a multiple of {self.pieces} as its dimension 1")
        pieces: Tensor = x.unflatten(1, (-1, self.pieces))
        return pieces.amax(2)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


def undecayed(model: nn.Module) -> set[nn.Parameter]:
    """The parameters of all activations in a model: weight decay would pull them to 0, which is no neutral value."""
    return {p for module in model.modules() if isinstance(module, Activation) for p in module.parameters()}
