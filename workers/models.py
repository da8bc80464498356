"""Child networks: the residual networks for small images of He et al. 2015 (arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space import nearest
from workers.job import WorkersError

MakeActivation = Callable[[int], nn.Module]  # channels -> a fresh activation for one site

BLOCKS: Mapping[str, int] = {"resnet8": 1, "resnet20": 3}  # residual blocks a stage, of three stages


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A: strided, new channels zero).

    Shapes: `(n, in_channels, h, w)` -> `(n, channels, h/stride, w/stride)`.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, activation: MakeActivation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.act1 = activation(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.act2 = activation(channels)
        self.stride, self.new_channels = stride, channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.stride > 1 or self.new_channels:
            half = self.new_channels // 2
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.new_channels - half))
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        out: Tensor = self.act2(y + shortcut)
        return out


class ResNet(nn.Module):
    """`6 blocks + 2` layers in three stages of `width`, `2 width` and `4 width` channels, then global average pooling.

    Shapes: `(n, in_channels, h, w)` -> `(n, classes)`.
    """

    def __init__(self, blocks: int, width: int, activation: MakeActivation, in_channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = activation(width)
        stages, channels = [], width
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                stages.append(Block(channels, width * 2**stage, stride, activation))
                channels = width * 2**stage
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages(self.act(self.norm(self.stem(x))))
        out: Tensor = self.head(y.mean(dim=(2, 3)))
        return out


def build(name: str, width: int, activation: MakeActivation, in_channels: int, classes: int) -> nn.Module:
    """The network of that name, with a fresh activation at each site. `width` 16 is the published one.

    Raises:
        WorkersError: no such model, or a width below 1.
    """
    if name not in BLOCKS:
        raise WorkersError(f"unknown model {name!r}; {nearest(name, BLOCKS)}")
    if width < 1:
        raise WorkersError(f"width must be at least 1, not {width!r}")
    return ResNet(BLOCKS[name], width, activation, in_channels, classes)


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
