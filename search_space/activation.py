"""Expressions as PyTorch modules: `Activation`, and the program of operations that it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from search_space.expression import Expression, as_expression
from search_space.kernels import OPERATIONS, with_kernels
from search_space.primitives import EPS, FUNCTIONS, SpaceError, Value

MAX_CHANNELS = 1_000_000

Step = tuple[str, tuple[int, ...]]  # the name of an operation, and the indices of its operands


class Program(NamedTuple):
    """An expression as a list of operations, in the order in which they are run.

    Steps refer to values by index. The values are x, the constants, the parameters, and the result of each step.
    The result of the last step is the value of the expression.
    """

    constants: tuple[float, ...]
    steps: tuple[Step, ...]


class Activation(nn.Module):
    """Apply an expression to every element of a tensor, and train its parameters.

    A parameter is a vector with one value per channel. Its start value is 1. It is called `beta`; if the expression
    has several, they are called `beta1`, `beta2`, ... in the order in which `str(expression)` first names them.

    Args:
        expression: a tree, or its text.
        channels: the size of dimension `dim` of the input; with 1, all channels share each parameter.
        dim: the dimension of the channels: 1 for `(batch, channels, ...)`, -1 for `(batch, ..., channels)`. An input
            of one dimension is read as `(channels,)`.
        inplace: accepted, because timm and others pass it, and ignored.
        native: if True, use torch's own kernels for the forms that have one (search_space/kernels.py); if False, run
            each operation of the expression. The results differ by rounding, and in the slopes at kinks.

    Attributes:
        compiled: if True, torch.compile runs the expression as one kernel (search_space/compiled.py).

    Shapes: input and output have the same shape, dtype and device; each parameter is `(channels,)`.

    Raises:
        ParseError: the text is not an expression.
        SpaceError: `channels` is not a whole number from 1 to a million, or `dim` is not a whole number. A call raises
            it if the input has another number of channels, or is not of a floating-point type.
    """

    def __init__(
        self,
        expression: Expression | str,
        channels: int = 1,
        *,
        dim: int = 1,
        inplace: bool = False,  # noqa: ARG002
        native: bool = True,
    ) -> None:
        super().__init__()
        self.expression = as_expression(expression).normal()
        self.channels, self.dim, self.compiled = checked_channels(channels), checked_dim(dim), False
        self.program = lower(self.expression, native)
        self._names = beta_names(len(self.expression.betas))
        for name in self._names:
            self.register_parameter(name, nn.Parameter(torch.ones(channels)))

    @property
    def betas(self) -> tuple[nn.Parameter, ...]:
        """The parameters, in the order in which `str(expression)` first names them."""
        return tuple(getattr(self, name) for name in self._names)

    def reset_parameters(self) -> None:
        """Set every parameter to 1, its start value."""
        for beta in self.betas:
            nn.init.ones_(beta)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (as torch's own activations call it)
        """Return the function's value for each element of the input."""
        x = input
        if not x.is_floating_point():
            raise SpaceError(f"{self.expression} needs a floating-point input, not {x.dtype}; convert it: x.float()")
        betas: tuple[Tensor, ...] = ()
        if self._names:
            shape = self._broadcast_shape(x) if self.channels > 1 else ()
            betas = tuple(beta.to(x.dtype).reshape(shape) for beta in self.betas)
        if self.compiled and not torch.compiler.is_compiling():
            return fused(self.program)(x, betas)
        return run(self.program, x, betas)

    def _broadcast_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape in which a parameter broadcasts with x, such as (channels, 1, 1) for images."""
        dims = x.dim()
        dim = self.dim if dims != 1 else 0
        if not -dims <= dim < dims or x.shape[dim] != self.channels:
            raise SpaceError(
                f"{self.expression} has {self.channels} channels, its input {tuple(x.shape)}: dimension {self.dim} "
                "must be the channels; for inputs (batch, ..., channels) use dim=-1; with channels=1 all share the "
                "parameters"
            )
        return (self.channels, *(1,) * ((dims - 1 - dim) % dims))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Also load states of earlier versions, which had all parameters in one `beta` (parameters, channels)."""
        old = state_dict.get(f"{prefix}beta")
        if isinstance(old, Tensor) and old.dim() == 2 and len(old) == len(self._names):
            del state_dict[f"{prefix}beta"]
            state_dict |= {f"{prefix}{name}": row for name, row in zip(self._names, old, strict=True)}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        dim = f", dim={self.dim}" if self.dim != 1 else ""
        return f"{str(self.expression)!r}, channels={self.channels}{dim}"


def beta_names(count: int) -> tuple[str, ...]:
    """Return the names of an activation's parameters: `beta`, or `beta1`, `beta2`, ... if there are several."""
    return ("beta",) if count == 1 else tuple(f"beta{i}" for i in range(1, count + 1))


def checked_channels(channels: int) -> int:
    """Check a number of channels, and return it.

    Raises:
        SpaceError: `channels` is not a whole number from 1 to a million.
    """
    if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= MAX_CHANNELS:
        raise SpaceError(f"channels must be a whole number from 1 to {MAX_CHANNELS}, not {channels!r}")
    return channels


def checked_dim(dim: int) -> int:
    """Check the dimension of the channels, and return it.

    Raises:
        SpaceError: `dim` is not a whole number.
    """
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise SpaceError(f"dim must be a whole number, 1 for (batch, channels, ...) or -1 for the last, not {dim!r}")
    return dim


def run(program: Program, x: Tensor, betas: tuple[Tensor, ...]) -> Tensor:
    """Return the value of the program for each element of x.

    Args:
        program: from `lower`.
        x: a floating-point tensor of any shape.
        betas: the parameters in order; each must broadcast with x.

    Returns:
        A tensor with the shape and dtype of x.
    """
    values: list[Value] = [x, *program.constants, *betas]
    for name, inputs in program.steps:
        values.append(OPERATIONS[name](*[values[i] for i in inputs]))
    result = values[-1]
    if isinstance(result, Tensor) and result.shape == x.shape:
        return result
    # The function is constant: the result is one number, or one number per channel.
    return torch.zeros_like(x) + torch.as_tensor(result, dtype=x.dtype, device=x.device)


@lru_cache(maxsize=1_024)
def fused(program: Program) -> Callable[[Tensor, tuple[Tensor, ...]], Tensor]:
    """Return `run` for one program as a function compiled by torch.compile, for inputs of every size.

    Torch compiles it at its first call. All activations with the same expression share it. Each program gets a code
    object of its own, because torch limits how often it compiles the same code object.
    """

    def call(x: Tensor, betas: tuple[Tensor, ...]) -> Tensor:
        return run(program, x, betas)

    own = FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)
    compiled: Callable[[Tensor, tuple[Tensor, ...]], Tensor] = torch.compile(own, dynamic=True, fullgraph=True)
    return compiled


@lru_cache(maxsize=1_024)
def lower(expression: Expression, native: bool = True) -> Program:
    """Return the program of an expression. Constants are folded, and equal subtrees become one step.

    Args:
        native: use torch's own kernels for the forms that have one.
    """
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
    """Return the node with these arguments, or one number if it contains neither x nor a parameter.

    Only numbers made here may be negative or not finite.
    """
    if node.op == "eps":
        return Expression("number", value=EPS)
    if node.args and all(arg.op == "number" for arg in args):
        operands = (torch.tensor(arg.value, dtype=torch.float64, device="cpu") for arg in args)
        return Expression("number", value=float(FUNCTIONS[node.op].apply(*operands)))
    return Expression(node.op, args, node.value)


@contextmanager
def default_modes() -> Iterator[None]:
    """Turn gradients on, anomaly detection off, and put new tensors on the CPU, whatever the caller has set.

    Measurements of a function run in this context, so that they do not depend on settings made for other purposes.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.is_anomaly_enabled():  # anomaly detection would report the slope of sqrt(x) below 0 as an error
            stack.enter_context(torch.autograd.set_detect_anomaly(False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def gradients(y: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the derivative of sum(y) by each input, in the input's shape; 0 for an input that y does not depend on.

    If y is computed element by element, this is the slope dy/dx of each element.
    """
    if not y.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    # We differentiate the sum: with `grad_outputs`, torch would import sympy, which takes a second in each process.
    return torch.autograd.grad(y.sum(), inputs, allow_unused=True, materialize_grads=True)


class Maxout(nn.Module):
    """Return the maximum of every `pieces` neighbouring channels (Goodfellow et al. 2013).

    The layer before it must make `pieces` times as many channels as the layer after it takes. Maxout is a function of
    several inputs, so no expression can describe it.

    Args:
        pieces: the number of channels that become one; at least 2.
        dim: the dimension of the channels, as in `Activation`.

    Shapes: `(batch, pieces * channels, ...)` to `(batch, channels, ...)`.

    Raises:
        SpaceError: `pieces` is less than 2, or the number of an input's channels is not a multiple of `pieces`.
    """

    def __init__(self, pieces: int = 2, *, dim: int = 1) -> None:
        super().__init__()
        if isinstance(pieces, bool) or not isinstance(pieces, int) or pieces < 2:
            raise SpaceError(f"maxout takes the greatest of at least 2 pieces, not {pieces!r}")
        self.pieces, self.dim = pieces, checked_dim(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maximum of each group of channels."""
        if x.dim() < 2 or not -x.dim() <= self.dim < x.dim() or x.shape[self.dim] % self.pieces:
            raise SpaceError(
                f"the input is {tuple(x.shape)}; maxout needs a multiple of {self.pieces} as its dimension {self.dim}"
            )
        dim = self.dim % x.dim()
        pieces: Tensor = x.unflatten(dim, (-1, self.pieces))
        return pieces.amax(dim + 1)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}" + (f", dim={self.dim}" if self.dim != 1 else "")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model's parameters into groups for a torch optimizer, so that no `Activation` gets weight decay.

    Weight decay would pull the parameters of an `Activation` towards 0, although they start at 1. They get a group of
    their own, with `weight_decay` 0.

    Args:
        model: any module.
        weight_decay: the value for all other parameters.

    Returns:
        One or two dictionaries with the keys `params` and `weight_decay`; empty groups are left out.

    >>> model = nn.Sequential(nn.Linear(3, 4), Activation("x * sigmoid(beta * x)", 4))
    >>> optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.1), lr=1e-3)
    >>> [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
    [(2, 0.1), (1, 0.0)]
    """
    own = {p for module in model.modules() if isinstance(module, Activation) for p in module.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p not in own], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p in own], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
