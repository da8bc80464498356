"""A plain convolutional network with a choice of the parts that an introductory lecture compares."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

import torch
from torch import nn

from workers.contract import WorkersError
from workers.tasks.images.networks.layers import GlobalAverage, convolution, initialise
from workers.tasks.images.networks.options import Shape, Stride, Width
from workers.tasks.images.networks.pooling import FractionalPool, LpPool, SpatialPyramid, StochasticPool
from workers.tasks.images.networks.sites import Activations

Pooling: TypeAlias = Literal["max", "average", "strided", "lp", "stochastic", "fractional", "spatial_pyramid"]


class LectureNet(nn.Module):
    """`stages` convolutions with `width`, `2 width`, ... channels, pooling between them, and a head.

    Args:
        width: channels of the first convolution.
        stages: number of convolutions.
        kernel, padding, dilation: options of all convolutions.
        stride: the stride of the first convolution.
        pooling: `strided` is a 3x3 convolution of stride 2 with its activation; `spatial_pyramid` pools before the head
            (with max pooling between stages).
        p: the exponent of the pooling `lp`.
        head: `fc` is a hidden layer of `4 width` and a layer to the classes; `gap` is a 1x1 convolution to the classes
            and global average pooling. With `gap` or `spatial_pyramid`, the network accepts images of other sizes.
        norm: use BatchNorm after each convolution and the hidden layer.

    Raises:
        WorkersError: the images would shrink to nothing, or `spatial_pyramid` is combined with `gap`.
    """

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        width: Width = 16,
        stages: Annotated[int, range(1, 7)] = 2,
        kernel: Annotated[int, range(3, 12, 2)] = 3,
        padding: Literal["same", "valid"] = "same",
        stride: Stride = 1,
        dilation: Annotated[int, range(1, 5)] = 1,
        pooling: Pooling = "max",
        p: Annotated[int, range(1, 11)] = 2,
        head: Literal["fc", "gap"] = "fc",
        norm: bool = True,
    ) -> None:
        super().__init__()
        if pooling == "spatial_pyramid" and head == "gap":
            raise WorkersError(
                "model 'lecture': pooling 'spatial_pyramid' leaves no image to average over; use head 'fc', or another "
                "pooling"
            )
        channels = [shape[0], *(width * 2**stage for stage in range(stages))]
        layers: list[nn.Module] = []
        for stage, (before, after) in enumerate(pairwise(channels)):
            if stage:
                layers.append(_pool(pooling, activation, before, p, norm))
            first = stride if not stage else 1
            edge = 0 if padding == "valid" else None
            layers.append(
                convolution(activation, before, after, kernel, stride=first, dilation=dilation, padding=edge, norm=norm)
            )
        if pooling == "spatial_pyramid":
            layers.append(SpatialPyramid())
        self.features = nn.Sequential(*layers)
        length = _length(self.features, shape)
        self.head = (
            nn.Sequential(nn.Conv2d(channels[-1], classes, 1), GlobalAverage())
            if head == "gap"
            else _fully_connected(activation, length, 4 * width, classes, norm)
        )
        initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.features(x))
        return out


def _pool(pooling: Pooling, activation: Activations, channels: int, p: int, norm: bool) -> nn.Module:
    match pooling:
        case "average":
            return nn.AvgPool2d(2, ceil_mode=True)
        case "strided":
            return convolution(activation, channels, channels, 3, stride=2, norm=norm)
        case "lp":
            return LpPool(p)
        case "stochastic":
            return StochasticPool()
        case "fractional":
            return FractionalPool()
        case _:
            return nn.MaxPool2d(2, ceil_mode=True)


def _fully_connected(activation: Activations, length: int, hidden: int, classes: int, norm: bool) -> nn.Sequential:
    """Return the layers of the head `fc`: `(n, ...)` with `length` numbers for each image -> `(n, classes)`."""
    wide = activation.expansion * hidden
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(length, wide, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm1d(wide))
    return nn.Sequential(*layers, activation(hidden), nn.Linear(hidden, classes))


def _length(features: nn.Module, shape: Shape) -> int:
    """Return how many numbers the features of an image have. One image is tried, because poolings round differently."""
    device = next(features.parameters()).device
    try:
        with torch.no_grad():
            return int(features.eval()(torch.zeros(1, *shape, device=device)).numel())
    except RuntimeError as error:
        raise WorkersError(
            f"model 'lecture': images of {shape[1]}x{shape[2]} shrink to nothing ({str(error).splitlines()[0]}); use "
            "padding 'same', fewer stages, or a smaller kernel, stride or dilation"
        ) from error
    finally:
        features.train()
