"""Random crops, flips and cut-outs of a batch at once, on the device where it lies, other ones for each image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.contract import WorkersError
from workers.tasks.images.config import Recipe


def check_augmented(recipe: Recipe, shape: tuple[int, ...]) -> None:
    """Raises WorkersError if a recipe changes images, and examples of this shape are none."""
    asked = [name for name in ("crop", "flip", "cutout") if getattr(recipe, name)]
    if asked and len(shape) != 3:
        raise WorkersError(
            f"the recipe has {', '.join(asked)}, which are for images; an example of these data has the shape {shape}: "
            'choose a recipe without them, or --recipe-kwargs \'{"crop": 0, "flip": false, "cutout": 0}\''
        )


def augment(images: Tensor, recipe: Recipe, draw: torch.Generator) -> Tensor:
    """What the recipe asks for; the images as they are if it asks for nothing.

    Args:
        images: `(n, channels, height, width)`. Padding and cut-outs are 0, which is the mean of images that are
            standardised, and black in others.
        draw: on the CPU, whatever the images' device, so that all devices see the same images.
    """
    if recipe.crop or recipe.flip:
        images = _shifted(images, recipe.crop, recipe.flip, draw)
    if recipe.cutout:
        images = _cut_out(images, recipe.cutout, draw)
    return images


def _shifted(images: Tensor, crop: int, flip: bool, draw: torch.Generator) -> Tensor:
    """Padded by `crop` pixels on each side and cut back to their size at a random place (He et al. 2015, section 4.2),
    half of them mirrored: one gather."""
    n, _, height, width = images.shape
    padded = F.pad(images, (crop,) * 4)
    rows = torch.randint(2 * crop + 1, (n, 1), generator=draw) + torch.arange(height)
    columns = torch.randint(2 * crop + 1, (n, 1), generator=draw) + torch.arange(width)
    if flip:
        mirrored = torch.rand(n, 1, generator=draw) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = (at.to(images.device, non_blocking=True) for at in (rows, columns))  # the host does not wait
    each = torch.arange(n, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut_out(images: Tensor, size: int, draw: torch.Generator) -> Tensor:
    """A square of `size` pixels set to 0, its centre anywhere in the image (DeVries and Taylor 2017)."""
    n, _, height, width = images.shape

    def inside(length: int) -> Tensor:
        first = torch.randint(length, (n, 1), generator=draw) - size // 2
        at = torch.arange(length)
        return ((at >= first) & (at < first + size)).to(images.device, non_blocking=True)

    hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return images.masked_fill(hole, 0.0)
