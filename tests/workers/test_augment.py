"""Augmentation: each image cropped, mirrored and cut out by itself, the same way for the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.tasks.images.augment import augment
from workers.tasks.images.config import Recipe


def images(n: int = 64, height: int = 6, width: int = 8) -> torch.Tensor:
    """No two pixels of a batch are equal, and none is 0."""
    return torch.arange(1.0, n * 2 * height * width + 1).reshape(n, 2, height, width)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def readings(one: torch.Tensor, crop: int) -> list[torch.Tensor]:
    """Every crop of an image and of its mirror image."""
    padded = torch.nn.functional.pad(one, (crop,) * 4)
    _, height, width = one.shape
    shifted = [padded[:, y : y + height, x : x + width] for y in range(2 * crop + 1) for x in range(2 * crop + 1)]
    return [*shifted, *(view.flip(2) for view in shifted)]


def test_nothing_asked_for_nothing_done() -> None:
    batch = images()
    assert augment(batch, Recipe(), seeded()) is batch


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_each_image_is_one_of_its_crops_or_a_mirrored_one(layout: torch.memory_format) -> None:
    batch = images().contiguous(memory_format=layout)
    found = augment(batch, Recipe(crop=2, flip=True), seeded())
    chosen = []
    for before, after in zip(batch, found, strict=True):
        fits = [i for i, view in enumerate(readings(before, 2)) if torch.equal(view, after)]
        assert len(fits) == 1
        chosen += fits
    assert len(set(chosen)) > 20, "each image has a place of its own"
    assert 16 < sum(i >= 25 for i in chosen) < 48, "about half are mirrored"
    assert {i % 25 // 5 for i in chosen} == {i % 5 for i in chosen} == set(range(5)), "every shift comes up"


def test_flips_alone_move_nothing() -> None:
    batch = images()
    found = augment(batch, Recipe(flip=True), seeded())
    mirrored = [torch.equal(after, before.flip(2)) for before, after in zip(batch, found, strict=True)]
    kept = [torch.equal(after, before) for before, after in zip(batch, found, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True)) and 16 < sum(mirrored) < 48


@pytest.mark.parametrize("size", [1, 2, 3, 8, 20])
def test_a_cut_out_is_one_square_in_all_channels(size: int) -> None:
    batch = images(200)
    found = augment(batch, Recipe(cutout=size), seeded())
    holes = found == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    assert torch.equal(found[~holes], batch[~holes])
    for hole in holes[:, 0]:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns[None, :])
        for line in (rows, columns):
            at = line.nonzero().flatten()
            assert 1 <= len(at) <= size and torch.equal(at, torch.arange(int(at[0]), int(at[-1]) + 1))
    if size <= 6:
        assert int(holes[:, 0].sum((1, 2)).max()) == size * size, "cut at the edge, whole inside"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 100), st.integers(0, 3), st.booleans(), st.integers(0, 5))
def test_the_same_seed_does_the_same(seed: int, crop: int, flip: bool, cutout: int) -> None:
    recipe = Recipe(crop=crop, flip=flip, cutout=cutout)
    one, other = (augment(images(), recipe, seeded(seed)) for _ in range(2))
    assert torch.equal(one, other)
    if crop:
        assert not torch.equal(one, augment(images(), recipe, seeded(seed + 1)))
