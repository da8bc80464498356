"""A network and data of your own; the network in both forms that `--model module:function` takes.

In a directory with this file: `searcher launch --model own_network:network --dataset own_network:shapes`
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from workers.tasks.images.networks.sites import Activations


class Net(nn.Module):
    """Depthwise convolutions with a shortcut each: `(n, in_channels, h, w)` -> `(n, classes)`."""

    def __init__(self, in_channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.body = nn.ModuleList(self.block(width) for _ in range(3))
        self.head = nn.Linear(width, classes)

    @staticmethod
    def block(width: int) -> nn.Sequential:
        depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        return nn.Sequential(depthwise, nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.body:
            x = x + block(x)
        return self.head(x.mean(dim=(2, 3)))


def replaced(in_channels: int, classes: int, width: int = 16) -> nn.Module:
    """Any network, as it is: the candidate takes the place of each nn.ReLU. (`own_network:Net` does the same.)"""
    return Net(in_channels, classes, width)


def network(activation: Activations, in_channels: int, classes: int, width: int = 16, layers: int = 3) -> nn.Module:
    """A network that makes its activations itself. `activation(channels)` is a fresh one; the layer before it makes
    `activation.expansion` times the channels, which is 1 unless Maxout is asked for. `layers` is an option."""

    def layer(before: int, channels: int) -> nn.Sequential:
        wide = activation.expansion * channels
        return nn.Sequential(
            nn.Conv2d(before, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), activation(channels)
        )

    body = [layer(in_channels if i == 0 else width, width) for i in range(layers)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def shapes(images: int = 1500, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Data that any function without arguments may return: images `(n, height, width)`, here of noisy discs, squares
    and crosses anywhere in the picture, and their labels, 0 to 2."""
    draw = np.random.default_rng(0)
    labels = np.arange(images) % 3
    rows, columns = np.mgrid[:size, :size]
    pictures = draw.normal(80, 30, (images, size, size))
    for picture, label in zip(pictures, labels, strict=True):
        radius = draw.integers(3, 6)
        down, right = np.abs(rows - draw.integers(4, size - 4)), np.abs(columns - draw.integers(4, size - 4))
        inside = {0: down**2 + right**2 <= radius**2, 1: np.maximum(down, right) < radius}
        cross = (np.minimum(down, right) < 1) & (np.maximum(down, right) <= radius)
        picture[inside.get(int(label), cross)] += 80
    return pictures.clip(0, 255).astype(np.uint8), labels
