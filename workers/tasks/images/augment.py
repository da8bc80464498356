"""Augment a batch with random crops, flips and cut-outs, different for each image, on the device of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.contract import WorkersError
from workers.tasks.images.config import Recipe


def check_augmented(recipe: Recipe, shape: tuple[int, ...]) -> None:
    """Raise WorkersError if a recipe augments images, and an example of this shape is not an image."""
    asked = [name for name in ("crop", "flip", "cutout") if getattr(recipe, name)]
    if asked and len(shape) != 3:
        raise WorkersError(
            f"the recipe has {', '.join(asked)}, which are for images; an example of these data has the shape {shape}: "
            'choose a recipe without them, or --recipe-kwargs \'{"crop": 0, "flip": false, "cutout": 0}\''
        )


def augment(images: Tensor, recipe: Recipe, draw: torch.Generator) -> Tensor:
    """Return the images augmented as the recipe says; unchanged if it says nothing.

    Args:
        images: `(n, channels, height, width)`. Padding and cut-outs are 0, which is the mean of standardised images,
            and black in others.
        recipe: its `crop`, `flip` and `cutout` are used.
        draw: a generator on the CPU, also for images on a GPU, so that all devices get the same images.
    """
    if recipe.crop or recipe.flip:
        images = _shifted(images, recipe.crop, recipe.flip, draw)
    if recipe.cutout:
        images = _cut_out(images, recipe.cutout, draw)
    return images


def _shifted(images: Tensor, crop: int, flip: bool, draw: torch.Generator) -> Tensor:
    """Pad each image by `crop` pixels on each side, cut it to its size at a random place (He et al. 2015, section 4.2),
    and mirror half of the images. One gather does all of that."""
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
    """Set a square with sides of `size` pixels to 0; its centre is anywhere in the image (DeVries and Taylor 2017)."""
    n, _, height, width = images.shape

    def inside(length: int) -> Tensor:
        first = torch.randint(length, (n, 1), generator=draw) - size // 2
        at = torch.arange(length)
        return ((at >= first) & (at < first + size)).to(images.device, non_blocking=True)

    hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return images.masked_fill(hole, 0.0)
