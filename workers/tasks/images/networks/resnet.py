"""Residual networks for small images: He et al. 2015 (arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from workers.tasks.images.networks.layers import initialise
from workers.tasks.images.networks.options import Shape, Stride, Width
from workers.tasks.images.networks.sites import Activations, Norms, activation_of, split_sites


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A: strided, with zeros for new channels).

    The sum is right before the second activation, so each channel of the shortcut is added to all pieces of its
    channel. Shapes: `(n, in_channels, h, w)` -> `(n, channels, h/stride, w/stride)`.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, activation: Activations, norm: Norms = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        wide = activation.expansion * channels
        self.conv1 = nn.Conv2d(in_channels, wide, 3, stride, 1, bias=False)
        self.norm1 = norm(wide)
        self.act1 = activation(channels)
        self.conv2 = nn.Conv2d(channels, wide, 3, 1, 1, bias=False)
        self.norm2 = norm(wide)
        self.act2 = activation(channels)
        self.stride, self.new_channels, self.expansion = stride, channels - in_channels, activation.expansion

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride > 1 or self.new_channels:
            half = self.new_channels // 2
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))
        if self.expansion > 1:
            shortcut = shortcut.repeat_interleave(self.expansion, dim=1)
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        out: Tensor = self.act2(y + shortcut)
        return out


class ResNet(nn.Module):
    """`depth = 6 n + 2` layers in three stages of `width`, `2 width` and `4 width` channels, and global average
    pooling. `stem_stride` is the stride of the first convolution: 1 in the paper; 2 needs a quarter of the work.

    Where norms are searched, they take the place of BatchNorm, and the activations are ReLU."""

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        depth: Annotated[int, range(8, 1203, 6)] = 20,
        width: Width = 16,
        stem_stride: Stride = 1,
    ) -> None:
        super().__init__()
        norm, activation = split_sites(activation, nn.BatchNorm2d, activation_of("max(x, 0)"))
        wide = activation.expansion * width
        self.stem = nn.Conv2d(shape[0], wide, 3, stem_stride, 1, bias=False)
        self.norm = norm(wide)
        self.act = activation(width)
        stages, channels = [], width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                stride = 2 if stage and not block else 1
                stages.append(Block(channels, width * 2**stage, stride, activation, norm))
                channels = width * 2**stage
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(self.act(self.norm(self.stem(x))))
        out: Tensor = self.head(y.mean(dim=(2, 3)))
        return out
