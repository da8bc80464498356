"""A small network of Inception modules: Szegedy et al. 2014 (arXiv 1409.4842, section 4 and figure 2)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from workers.tasks.images.networks.layers import GlobalAverage, convolution, initialise
from workers.tasks.images.networks.options import Shape, Stride
from workers.tasks.images.networks.sites import Activations


class Inception(nn.Module):
    """Parallel 1x1, 3x3 and 5x5 convolutions and 3x3 max pooling, whose channels are concatenated.

    The module is naive (figure 2a), or has 1x1 convolutions that reduce the channels before the 3x3 and 5x5
    convolutions and after the pooling (figure 2b). The proportions are as in GoogLeNet's module 3a: 64, 96 to 128, 16
    to 32, 32. Shapes: `(n, in_channels, h, w)` -> `(n, channels, h, w)`. The pooling of the naive module keeps all
    its input channels.
    """

    def __init__(self, activation: Activations, in_channels: int, width: int, reduction: bool) -> None:
        super().__init__()

        def conv(before: int, channels: int, kernel: int) -> nn.Sequential:
            return convolution(activation, before, channels, kernel)

        def branch(reduced: int, channels: int, kernel: int) -> nn.Module:
            if not reduction:
                return conv(in_channels, channels, kernel)
            return nn.Sequential(conv(in_channels, reduced, 1), conv(reduced, channels, kernel))

        pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.branches = nn.ModuleList(
            [
                conv(in_channels, width, 1),
                branch(3 * width // 2, 2 * width, 3),
                branch(width // 4, width // 2, 5),
                nn.Sequential(pool, conv(in_channels, width // 2, 1)) if reduction else pool,
            ]
        )
        self.channels = 3 * width + width // 2 + (width // 2 if reduction else in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class InceptionNet(nn.Sequential):
    """A 3x3 convolution, three stages of two modules, and global average pooling. The 1x1 branches have `width`,
    `2 width` and `4 width` channels. Max pooling between stages halves height and width."""

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        width: Annotated[int, range(4, 1025)] = 16,
        reduction: bool = True,
        stem_stride: Stride = 1,
    ) -> None:
        modules: list[nn.Module] = [convolution(activation, shape[0], width, 3, stride=stem_stride)]
        channels = width
        for stage in range(3):
            if stage:
                modules.append(nn.MaxPool2d(3, stride=2, padding=1))
            for _ in range(2):
                modules.append(module := Inception(activation, channels, width * 2**stage, reduction))
                channels = module.channels
        super().__init__(*modules, GlobalAverage(), nn.Linear(channels, classes))
        initialise(self)
