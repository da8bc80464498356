"""Find out which modules are activation functions: torch's own by their class, others by what they compute.

A module is an activation if it has no parameters, buffers or other state, draws no random numbers, and maps every
element of its input by the same function, and this function is not a straight line. Calls with small random tensors
test this.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from search_space.activation import Activation

# Torch's activations are recognised by class, because some have parameters or draw random numbers, and because it is
# faster. Softmax, GLU and MultiheadAttention are not here: torch calls them activations, but they mix elements.
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Softshrink, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Tanhshrink, nn.Sigmoid, nn.LogSigmoid, Activation),
)
# The names of the corresponding functions (relu, relu_, leaky_relu, log_sigmoid, ...) without underscores.
CALLS = {cls.__name__.lower() for cls in ACTIVATIONS} | {"specialexpit", "logsigmoidforward"}
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # they hold modules, and compute nothing themselves
_SHAPES = ((32, 6), (8, 4, 6), (4, 4, 6, 6))  # a module may accept only one number of dimensions

Function = Callable[[Tensor], Tensor]


def is_activation(module: nn.Module) -> bool:
    """Return True if the module is one of `ACTIVATIONS`, or computes an activation function and has no state."""
    if isinstance(module, ACTIVATIONS):
        return True
    return not _has_state(module) and maps_alike(module)


@lru_cache(maxsize=4_096)
def is_pointwise(name: str) -> bool:
    """Return True if a torch operation computes each element of its output from the same element of its inputs.

    Torch marks most of these operations with a tag, but not all.

    Args:
        name: the name of the operation in torch.ops.aten, without a last underscore.
    """
    operator: Any = getattr(torch.ops.aten, name, None)
    overloads = operator.overloads() if hasattr(operator, "overloads") else ()
    tagged = any(torch.Tag.pointwise in getattr(operator, overload).tags for overload in overloads)
    return tagged or name.replace("_", "") in CALLS or name in ("rsub", "_to_copy", "clone", "_prelu_kernel")


def has_own_parameters(module: nn.Module) -> bool:
    """Return True if the module is an elementwise function whose parameters and buffers are single numbers.

    A Swish with one trained beta is an example.
    """
    held = [*module.parameters(), *module.buffers()]
    if isinstance(module, ACTIVATIONS) or not held or any(is_lazy(value) or value.numel() != 1 for value in held):
        return False
    return maps_alike(module)


def _has_state(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def maps_alike(module: nn.Module) -> bool:
    """Return True if the module maps every element by the same function, in training mode and in eval mode.

    A copy of the module is called; the module itself does not change.
    """
    if isinstance(module, _CONTAINERS):
        return False
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        stack.enter_context(torch.no_grad())
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        try:
            tried = copy.deepcopy(module)
        except Exception:
            return False
        answers: set[bool | None] = set()
        for shape in _SHAPES:
            for mode in (True, False):
                answers.add(_on(tried.train(mode), shape))
                if False in answers:
                    return False
    return True in answers


def _on(module: nn.Module, shape: tuple[int, ...]) -> bool | None:
    """Test the module, in its present mode, on inputs of one shape.

    Returns:
        True if it maps every element by the same function, False if not, None if it raises an exception.
    """
    draw = torch.Generator("cpu").manual_seed(0)
    x = 3 * torch.randn(shape, generator=draw, device="cpu")
    order = torch.randperm(x.numel(), generator=draw, device="cpu")
    changed = torch.rand(shape, generator=draw, device="cpu") < 0.5
    try:
        y = module(x.clone())
        if not isinstance(y, Tensor) or y.shape != x.shape or y.dtype != x.dtype:
            return False
        again = module(x.clone())
        moved = module(x.flatten()[order].reshape(shape))
        others = module(torch.where(changed, 10 * x + 1, x))
    except Exception:
        return None
    if not (_same(y, again) and _same(y.flatten()[order], moved.flatten()) and _same(y[~changed], others[~changed])):
        return False
    return not _straight(x.flatten().double(), y.flatten().double())


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)


def _straight(x: Tensor, y: Tensor) -> bool:
    """Return True if all points (x, y) lie on one straight line, as for the identity, a scaling or a constant."""
    finite = y.isfinite()
    x, y = x[finite], y[finite]
    if len(x) < 3:
        return True
    x, y = x - x.mean(), y - y.mean()
    return bool((y - (x * y).sum() / (x * x).sum() * x).abs().max() <= 1e-4 * y.abs().max())


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a function takes.

    Attributes:
        bounded: True if they stay between two numbers, as the values of a sigmoid do.
        signed: True if some are negative and some are positive.
        zero: True if 0 is one of them or lies between two of them. A softplus comes close to 0, but never reaches it.
    """

    bounded: bool = False
    signed: bool = True
    zero: bool = True


_RANGES = {
    nn.Sigmoid: Range(bounded=True, signed=False, zero=False),
    nn.Hardsigmoid: Range(bounded=True, signed=False),
    nn.ReLU6: Range(bounded=True, signed=False),  # must come before its base class, Hardtanh
    nn.Hardtanh: Range(bounded=True),
    nn.Tanh: Range(bounded=True),
    nn.Softsign: Range(bounded=True),
    nn.Softplus: Range(signed=False, zero=False),
    nn.LogSigmoid: Range(signed=False, zero=False),
}


def range_of(function: Function) -> Range:
    """Return the range of an elementwise function, or `Range()` if it cannot be called with a plain tensor."""
    if isinstance(function, ACTIVATIONS) and not isinstance(function, Activation):
        return next((found for cls, found in _RANGES.items() if isinstance(function, cls)), Range())
    near = torch.arange(-600, 601, device="cpu") / 10
    far = torch.tensor([-1e4, -1e3, -300, 300, 1e3, 1e4], device="cpu")
    with torch.random.fork_rng([]), torch.no_grad(), warnings.catch_warnings(action="ignore"):
        try:
            y, ends = function(near.clone()), function(far.clone())
        except Exception:
            return Range()
    if not isinstance(y, Tensor) or y.shape != near.shape or not bool(y.isfinite().all()):
        return Range()
    bounded = bool(ends.abs().max() <= 1.05 * y.abs().max())
    middle = y[near.abs() <= 10]
    signed = bool((y < 0).any() and (y > 0).any())
    return Range(bounded, signed, signed or bool((middle == 0).any()))
