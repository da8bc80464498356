"""Images that look like CIFAR-10's to a network, without the files: noisy pictures of ten prototypes."""

from __future__ import annotations

import numpy as np

Images = tuple[np.ndarray, np.ndarray]


def _noisy(count: int, side: int, seed: int) -> Images:
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    prototypes = np.random.default_rng(0).integers(0, 52, (10, 3, side, side), dtype=np.uint8)
    return prototypes[labels] + draw.integers(0, 204, (count, 3, side, side), dtype=np.uint8), labels


def loop() -> tuple[Images, Images]:
    """14,400 images to train with, 1,600 to validate with."""
    return _noisy(16_000, 32, 1), _noisy(100, 32, 2)


def paper() -> tuple[Images, Images]:
    """45,000 images to train with, 5,000 to validate with, as the paper has them."""
    return _noisy(50_000, 32, 1), _noisy(100, 32, 2)


def tiny() -> tuple[Images, Images]:
    return _noisy(200, 8, 1), _noisy(20, 8, 2)
