"""Residual networks whose blocks begin with the activation: He et al. 2016 (arXiv 1603.05027), and the wide networks of
Zagoruyko and Komodakis 2016 (arXiv 1605.07146).

The tensor between blocks is not activated, so with Maxout it has `expansion` times the channels.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from workers.tasks.images.networks.layers import GlobalAverage, Pointwise, initialise
from workers.tasks.images.networks.options import Dropout, Shape, Stride, Width
from workers.tasks.images.networks.sites import Activations

Layers = list[tuple[int, int]]  # kernel and channels of each convolution in a block


class Block(nn.Module):
    """BatchNorm, activation and convolution for each of `layers`; the first convolution has the stride. If the shape
    changes, the shortcut is a 1x1 convolution of the first activation.

    Shapes: `(n, e * in_channels, h, w)` -> `(n, e * channels, h/stride, w/stride)`, with the activation's expansion e
    and the channels of the last layer.
    """

    def __init__(
        self, activation: Activations, in_channels: int, layers: Layers, stride: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        expansion, out = activation.expansion, layers[-1][1]
        self.norm = nn.BatchNorm2d(expansion * in_channels)
        self.act = activation(in_channels)
        residual: list[nn.Module] = []
        channels = in_channels
        for index, (kernel, wanted) in enumerate(layers):
            if index:
                residual += [nn.BatchNorm2d(expansion * channels), activation(channels)]
                residual += [nn.Dropout(dropout)] if dropout else []
            residual.append(_conv(channels, expansion * wanted, kernel, 1 if index else stride))
            channels = wanted
        self.residual = nn.Sequential(*residual)
        changes = stride > 1 or in_channels != out
        self.project = _conv(in_channels, expansion * out, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(x))
        shortcut = x if self.project is None else self.project(y)
        out: Tensor = shortcut + self.residual(y)
        return out


class PreActivation(nn.Sequential):
    """A 3x3 convolution to `stem` channels, a stage of `blocks` blocks for each of `stages`, and global average
    pooling. All stages except the first halve height and width."""

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        stem: int,
        stem_stride: int,
        stages: list[Layers],
        blocks: int,
        dropout: float = 0.0,
    ) -> None:
        modules: list[nn.Module] = [_conv(shape[0], activation.expansion * stem, 3, stem_stride)]
        channels = stem
        for stage, layers in enumerate(stages):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                modules.append(Block(activation, channels, layers, stride, dropout))
                channels = layers[-1][1]
        modules += [nn.BatchNorm2d(activation.expansion * channels), activation(channels), GlobalAverage()]
        super().__init__(*modules, nn.Linear(channels, classes))
        initialise(self)


class PreActivationResNet(PreActivation):
    """`depth = 9 n + 2` layers: bottlenecks (1x1, 3x3, 1x1 to four times the channels) of `width`, `2 width` and
    `4 width` channels (arXiv 1603.05027, section 4)."""

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        depth: Annotated[int, range(11, 1002, 9)] = 164,
        width: Width = 16,
        stem_stride: Stride = 1,
    ) -> None:
        stages = [[(1, c), (3, c), (1, 4 * c)] for c in (width, 2 * width, 4 * width)]
        blocks = (depth - 2) // 9
        super().__init__(activation, shape, classes, stem=width, stem_stride=stem_stride, stages=stages, blocks=blocks)


class WideResNet(PreActivation):
    """`depth = 6 n + 4` layers: blocks of two 3x3 convolutions, `widen` times as wide as in a ResNet, with dropout
    between them (arXiv 1605.07146, table 1 and section 2.4)."""

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        depth: Annotated[int, range(10, 1001, 6)] = 28,
        widen: Annotated[int, range(1, 33)] = 10,
        width: Width = 16,
        stem_stride: Stride = 1,
        dropout: Dropout = 0.0,
    ) -> None:
        stages = [[(3, c), (3, c)] for c in (widen * width, 2 * widen * width, 4 * widen * width)]
        blocks = (depth - 4) // 6
        super().__init__(
            *(activation, shape, classes),
            stem=width,
            stem_stride=stem_stride,
            stages=stages,
            blocks=blocks,
            dropout=dropout,
        )


def _conv(in_channels: int, channels: int, kernel: int, stride: int) -> nn.Conv2d:
    if kernel == 1:
        return Pointwise(in_channels, channels, stride)
    return nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False)
