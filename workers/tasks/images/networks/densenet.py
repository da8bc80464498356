"""The plain densely connected network, without bottlenecks and compression: Huang et al. 2017 (arXiv 1608.06993,
section 3)."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from workers.tasks.images.networks.layers import GlobalAverage, initialise
from workers.tasks.images.networks.options import Dropout, Shape, Width
from workers.tasks.images.networks.sites import Activations

STEM = 16  # channels before the first block, for any growth


class Layer(nn.Module):
    """BatchNorm, activation and 3x3 convolution, whose `growth` channels are appended to the input.

    The tensor between layers is not activated, so with Maxout it has `expansion` times the channels; the pieces remain
    neighbouring channels. Shapes: `(n, e * in_channels, h, w)` -> `(n, e * (in_channels + growth), h, w)`, with the
    activation's expansion e.
    """

    def __init__(self, activation: Activations, in_channels: int, growth: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(activation.expansion * in_channels),
            activation(in_channels),
            nn.Conv2d(in_channels, activation.expansion * growth, 3, padding=1, bias=False),
            *([nn.Dropout(dropout)] if dropout else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


class DenseNet(nn.Sequential):
    """`depth = 3 n + 4` layers in three blocks of n; `width` is the growth, the number of channels that each layer
    adds. Between blocks, a 1x1 convolution and average pooling halve height and width."""

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        depth: Annotated[int, range(7, 1000, 3)] = 100,
        width: Width = 12,
        dropout: Dropout = 0.0,
    ) -> None:
        expansion, channels = activation.expansion, STEM
        modules: list[nn.Module] = [nn.Conv2d(shape[0], expansion * STEM, 3, padding=1, bias=False)]
        for block in range(3):
            if block:
                modules.append(_transition(activation, channels))
            for _ in range((depth - 4) // 3):
                modules.append(Layer(activation, channels, width, dropout))
                channels += width
        modules += [nn.BatchNorm2d(expansion * channels), activation(channels), GlobalAverage()]
        super().__init__(*modules, nn.Linear(channels, classes))
        initialise(self)


def _transition(activation: Activations, channels: int) -> nn.Sequential:
    """Return the layers between two blocks: `(n, e * channels, h, w)` -> `(n, e * channels, h/2, w/2)`."""
    return nn.Sequential(
        nn.BatchNorm2d(activation.expansion * channels),
        activation(channels),
        nn.Conv2d(channels, activation.expansion * channels, 1, bias=False),
        nn.AvgPool2d(2, ceil_mode=True),  # rounds up, so that an image of one pixel remains one pixel
    )
