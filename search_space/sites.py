"""Modules for the two other places that a function can take in a network: a gate, and a normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_space.activation import Activation, checked_channels, checked_dim
from search_space.expression import Expression
from search_space.primitives import SpaceError

SITES = ("activation", "gate", "norm")  # the places of a searched function in a network


class Gate(nn.Module):
    """Return `f(a) * b`, where a is the first half of the channels and b the second half.

    With max(x, 0) as f this is ReGLU, with GELU GEGLU, with x * sigmoid(x) SwiGLU (Shazeer 2020, arXiv 2002.05202).

    Args:
        expression: f, a tree or its text.
        channels: the number of channels of the output; the input has twice as many.
        dim: the dimension of the channels, as in `Activation`.

    Shapes: `(batch, 2 * channels, ...)` to `(batch, channels, ...)`; each parameter of f is `(channels,)`.

    Raises:
        ParseError, SpaceError: as `Activation` does. A call raises SpaceError if the input has another number of
            channels.
    """

    def __init__(self, expression: Expression | str, channels: int, *, dim: int = 1) -> None:
        super().__init__()
        self.function = Activation(expression, channels, dim=dim)
        self.channels, self.dim = channels, dim

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated second half of the channels."""
        if x.dim() < 2 or not -x.dim() <= self.dim < x.dim() or x.shape[self.dim] != 2 * self.channels:
            raise SpaceError(
                f"the input is {tuple(x.shape)}; a gate of {self.channels} channels needs {2 * self.channels} as its "
                f"dimension {self.dim}: first a, then b of f(a) * b"
            )
        a, b = x.chunk(2, self.dim)
        gated: Tensor = self.function(a) * b
        return gated


class ElementwiseNorm(nn.Module):
    """Return `weight * f(x) + bias`, in the place of a normalisation. With tanh(alpha * x) as f this is Dynamic Tanh
    (Zhu et al. 2025, arXiv 2503.10622).

    All channels share each parameter of f, as they do alpha there.

    Args:
        expression: f, a tree or its text.
        channels: the size of dimension `dim` of the input.
        dim: the dimension of the channels, as in `Activation`.

    Shapes: input and output have the same shape and dtype; `weight` and `bias` are `(channels,)` and start at 1 and 0;
    each parameter of f is `(1,)`.

    Raises:
        ParseError, SpaceError: as `Activation` does.
    """

    def __init__(self, expression: Expression | str, channels: int, *, dim: int = 1) -> None:
        super().__init__()
        self.function = Activation(expression, dim=dim)
        self.channels, self.dim = checked_channels(channels), checked_dim(dim)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the function's values, with a weight and a bias for each channel."""
        if x.dim() < 2 or not -x.dim() <= self.dim < x.dim() or x.shape[self.dim] != self.channels:
            raise SpaceError(
                f"the input is {tuple(x.shape)}; its dimension {self.dim} must be {self.channels} channels"
            )
        shape = (self.channels, *(1,) * ((x.dim() - 1 - self.dim) % x.dim()))
        weight, bias = (p.to(x.dtype).reshape(shape) for p in (self.weight, self.bias))
        return torch.addcmul(bias, weight, self.function(x))

    def extra_repr(self) -> str:
        return f"channels={self.channels}" + (f", dim={self.dim}" if self.dim != 1 else "")
