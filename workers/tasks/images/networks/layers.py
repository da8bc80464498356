"""Layers that several networks use."""

from __future__ import annotations

from torch import Tensor, nn

from workers.tasks.images.networks.sites import Activations


def convolution(
    activation: Activations,
    in_channels: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,
    norm: bool = True,
) -> nn.Sequential:
    """Return convolution, BatchNorm (or a bias) and activation: `(n, in_channels, h, w)` -> `(n, channels, ...)`.

    Args:
        kernel: the side of the kernel, an odd number.
        padding: pixels on each side; by default as many as keep the size at stride 1.
        norm: use BatchNorm; otherwise a bias.
    """
    if padding is None:
        padding = dilation * (kernel - 1) // 2
    wide = activation.expansion * channels
    layers: list[nn.Module] = [nn.Conv2d(in_channels, wide, kernel, stride, padding, dilation, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(wide))
    return nn.Sequential(*layers, activation(channels))


class Pointwise(nn.Conv2d):
    """A 1x1 convolution without bias of every `step`-th pixel: `(n, in_channels, h, w)` ->
    `(n, channels, h/step, w/step)`.

    The pixels are picked first and the convolution has stride 1, because torch 2.13 on CPUs writes past its memory in
    the backward pass of a channels_last 1x1 convolution of stride 2 with fewer than 8 input channels.
    """

    def __init__(self, in_channels: int, channels: int, step: int) -> None:
        super().__init__(in_channels, channels, 1, bias=False)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.step == 1 else x[:, :, :: self.step, :: self.step])


class GlobalAverage(nn.Module):
    """The mean of each channel: `(n, channels, h, w)` -> `(n, channels)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def initialise(model: nn.Module) -> None:
    """Initialise convolutions as in He et al. 2015 (arXiv 1502.01852): normal with variance 2 / fan-out. All other
    layers keep torch's initialisation."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
