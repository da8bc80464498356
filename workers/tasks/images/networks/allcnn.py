"""All-CNN-C, which has convolutions only: Springenberg et al. 2015 (arXiv 1412.6806, table 1 and section 3)."""

from __future__ import annotations

from torch import nn

from workers.tasks.images.networks.layers import GlobalAverage, convolution, initialise
from workers.tasks.images.networks.options import Dropout, Shape, Width
from workers.tasks.images.networks.sites import Activations


class AllCNN(nn.Sequential):
    """Nine convolutions with strides in place of pooling (the last one is 1x1, to the classes), and global average
    pooling.

    As published, it has no normalisation, and a dropout of 0.2 on the images and of 0.5 after each stride. Two things
    differ from the publication: every 3x3 convolution is padded, so that images may have any size, and the scores of
    the classes are not activated, because a bounded function would limit them.
    """

    def __init__(
        self,
        activation: Activations,
        shape: Shape,
        classes: int,
        *,
        width: Width = 96,
        norm: bool = False,
        input_dropout: Dropout = 0.2,
        dropout: Dropout = 0.5,
    ) -> None:
        one, two = width, 2 * width
        modules: list[nn.Module] = [nn.Dropout(input_dropout)]
        channels = shape[0]
        for out, kernel, stride in (
            *((one, 3, 1), (one, 3, 1), (one, 3, 2)),
            *((two, 3, 1), (two, 3, 1), (two, 3, 2)),
            *((two, 3, 1), (two, 1, 1)),
        ):
            modules.append(convolution(activation, channels, out, kernel, stride=stride, norm=norm))
            modules += [nn.Dropout(dropout)] if stride > 1 else []
            channels = out
        super().__init__(*modules, nn.Conv2d(channels, classes, 1), GlobalAverage())
        initialise(self)
