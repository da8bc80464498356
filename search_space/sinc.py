"""sin(a)/a with derivatives of every order, also at 0 and in 16-bit types.

Near 0, the quotient rule loses digits: it subtracts numbers of size 1/a, and the result has the size a/3. At 0, it
divides by 0. Therefore the Taylor series in a^2 is used where |a| < 1; few terms are enough there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.forward_ad import unpack_dual


def sinc(a: Tensor) -> Tensor:
    """Return sin(a)/a for each element, and 1 at 0."""
    if a.dtype in (torch.bfloat16, torch.float16):
        return sinc(a.float()).to(a.dtype)
    value: Tensor = _by_operations(a) if _is_transformed(a) else _Sinc.apply(a)  # type: ignore[no-untyped-call]
    return value


def _is_transformed(a: Tensor) -> bool:
    """Return True under torch.compile, torch.func or forward-mode differentiation, which need to see the operations."""
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return transformed or unpack_dual(a).tangent is not None


class _Sinc(Function):
    """sinc with its own slope. It takes fewer passes over memory than autograd takes for `_by_operations`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        zero = (a == 0).to(a.dtype)
        value = (torch.sin(a) + zero) / (a + zero)
        ctx.save_for_backward(a, value)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * _slope(*ctx.saved_tensors)


def _by_operations(a: Tensor) -> Tensor:
    near = a.abs() < 1
    square = torch.where(near, a * a, 0.0)
    series = square.new_ones(())
    for k in range(_terms(a) + 1, 0, -1):  # one term more, because autograd differentiates the series
        series = 1 - square / (2 * k * (2 * k + 1)) * series
    return torch.where(near, series, torch.sin(a) / torch.where(near, 1.0, a))


def _slope(a: Tensor, value: Tensor) -> Tensor:
    square = a * a
    inside, first = square.clamp_max(1), square.new_full((), -1 / 3)
    series = first
    for k in range(_terms(a), 0, -1):
        series = torch.addcmul(first, inside, series, value=-1 / (2 * k * (2 * k + 3)))
    near = (square < 1).to(a.dtype)  # faster than torch.where on CPUs; both sides are finite
    return a * (near * series + (1 - near) * (torch.cos(a) - value) / square.clamp_min(1))


def _terms(a: Tensor) -> int:
    """Return how many terms of the series give the value and two derivatives to the precision of the type."""
    return 8 if a.dtype == torch.float64 else 4
