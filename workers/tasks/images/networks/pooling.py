"""Poolings that torch lacks, or that have a flaw there. They halve height and width, rounded up, unless stated
otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6  # prevents 0 / 0 in roots and shares
FRACTION = 0.5**0.5  # the share of height and width that remains: Graham's 1 / sqrt(2)


class LpPool(nn.Module):
    """`(mean |x|^p)^(1/p)` of 2x2 pixels (Sermanet et al. 2012, arXiv 1204.3968). Unlike nn.LPPool2d, it accepts
    negative values with odd p, and has a gradient if a window is 0. Shapes: `(n, c, h, w)` -> `(n, c, h/2, w/2)`."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x.abs() ** self.p, 2, ceil_mode=True)
        pooled: Tensor = (mean + EPS) ** (1 / self.p)
        return pooled


class StochasticPool(nn.Module):
    """One of 2x2 pixels, drawn with a probability in proportion to its value; in evaluation, their mean weighted by the
    probabilities (Zeiler and Fergus 2013, arXiv 1301.3557, sections 3 and 3.1).

    The paper applies it after ReLU. After other functions, negative values count as 0, and if no value is positive, all
    four are equally likely. If height or width is odd, the last row or column is used twice. Shapes: `(n, c, h, w)` ->
    `(n, c, h/2, w/2)`.
    """

    def forward(self, x: Tensor) -> Tensor:
        values = self._windows(x)
        weights = values.detach().clamp(min=0) + EPS
        if not self.training:
            return (values * weights).sum(-1) / weights.sum(-1)
        below = weights.cumsum(-1)
        drawn = torch.rand_like(below[..., -1:]) * below[..., -1:]
        index = (below < drawn).sum(-1, keepdim=True).clamp(max=3)
        return values.gather(-1, index).squeeze(-1)

    @staticmethod
    def _windows(x: Tensor) -> Tensor:
        """Return the four values of each window: `(n, c, h, w)` -> `(n, c, h/2, w/2, 4)`."""
        even = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate")
        cells: Tensor = even.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return cells.transpose(3, 4).flatten(4)


class FractionalPool(nn.Module):
    """Max pooling to 0.71 of height and width (rounded down), over 2x2 windows at random steps of 1 and 2 (Graham 2014,
    arXiv 1412.6071); in evaluation, the steps are fixed. Shapes: `(n, c, h, w)` -> `(n, c, 0.71 h, 0.71 w)`."""

    def forward(self, x: Tensor) -> Tensor:
        samples = None if self.training else x.new_full((x.shape[0], x.shape[1], 2), 0.5)
        pooled: Tensor = F.fractional_max_pool2d(x, 2, output_ratio=(FRACTION, FRACTION), _random_samples=samples)
        return pooled


class SpatialPyramid(nn.Module):
    """The maximum of each cell of a 1x1, a 2x2 and a 4x4 grid, as a vector whose length is the same for images of any
    size (He et al. 2014, arXiv 1406.4729). Shapes: `(n, c, h, w)` -> `(n, 21 c)`."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, cells).flatten(1) for cells in (1, 2, 4)], dim=1)
