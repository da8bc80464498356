"""Which modules are activation functions: torch's own by class, all others by what they compute.

A module is an activation if it has no parameters, no buffers and no state, draws no random numbers, and maps every
element of its input by the same function, which is not a straight line. Calls on small random tensors show this.
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

# Activations of torch that may have parameters or draw random numbers are known by class; so are the others, which
# saves the calls. Softmax, GLU and MultiheadAttention mix elements, although torch files them as activations.
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Softshrink, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Tanhshrink, nn.Sigmoid, nn.LogSigmoid, Activation),
)
# Their functions, without underscores: relu, relu_, leaky_relu, log_sigmoid.
CALLS = {cls.__name__.lower() for cls in ACTIVATIONS} | {"specialexpit", "logsigmoidforward"}
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # they arrange modules and compute nothing themselves
_SHAPES = ((32, 6), (8, 4, 6), (4, 4, 6, 6))  # a module may insist on one number of dimensions

Function = Callable[[Tensor], Tensor]


def is_activation(module: nn.Module) -> bool:
    """Return True if the module is one of `ACTIVATIONS`, or shows by its answers that it is an activation."""
    if isinstance(module, ACTIVATIONS):
        return True
    return not _has_state(module) and maps_alike(module)


@lru_cache(maxsize=4_096)
def is_pointwise(name: str) -> bool:
    """Return True if the operation of torch with this name, without a last underscore, maps each element by itself.

    Torch says so of most operations, but not of each that works in place, nor of all.
    """
    operator: Any = getattr(torch.ops.aten, name, None)
    overloads = operator.overloads() if hasattr(operator, "overloads") else ()
    tagged = any(torch.Tag.pointwise in getattr(operator, overload).tags for overload in overloads)
    return tagged or name.replace("_", "") in CALLS or name in ("rsub", "_to_copy", "clone", "_prelu_kernel")


def has_own_parameters(module: nn.Module) -> bool:
    """Return True if the module maps every element alike by single numbers that it holds as parameters or buffers."""
    held = [*module.parameters(), *module.buffers()]
    if isinstance(module, ACTIVATIONS) or not held or any(is_lazy(value) or value.numel() != 1 for value in held):
        return False
    return maps_alike(module)


def _has_state(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def maps_alike(module: nn.Module) -> bool:
    """Return True if a copy of the module maps every element by one function, in training and in evaluation."""
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
    """Return whether inputs of this shape show one function of each element; None if the module does not take them."""
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
    """Return True if all points lie on one line: the identity, a scale, a shift, a constant."""
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
        bounded: they stay between two numbers, as a sigmoid's do.
        signed: some are negative and some are positive.
        zero: 0 is among them, or is crossed; a softplus only comes close to it.
    """

    bounded: bool = False
    signed: bool = True
    zero: bool = True


_RANGES = {
    nn.Sigmoid: Range(bounded=True, signed=False, zero=False),
    nn.Hardsigmoid: Range(bounded=True, signed=False),
    nn.ReLU6: Range(bounded=True, signed=False),  # before Hardtanh, of which it is a subclass
    nn.Hardtanh: Range(bounded=True),
    nn.Tanh: Range(bounded=True),
    nn.Softsign: Range(bounded=True),
    nn.Softplus: Range(signed=False, zero=False),
    nn.LogSigmoid: Range(signed=False, zero=False),
}


def range_of(function: Function) -> Range:
    """Return the range of a function of one element, or `Range()` if it takes no plain tensor."""
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
