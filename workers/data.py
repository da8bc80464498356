"""Data sets, split and normalised, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from search_space import nearest
from workers.job import WorkersError


@dataclass(frozen=True, slots=True)
class Part:
    """Images `(n, channels, height, width)`, float32, and labels `(n,)`, int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Part:
        return Part(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set in three parts. A search sees `train` and `val`; `test` is for confirmation alone."""

    name: str
    classes: int
    train: Part
    val: Part
    test: Part

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    def to(self, device: torch.device) -> Dataset:
        return Dataset(self.name, self.classes, self.train.to(device), self.val.to(device), self.test.to(device))


def _digits(split_seed: int) -> Dataset:
    """The 1,797 grey 8x8 images inside scikit-learn: 1,000 to train, 500 to validate, 297 to test, stratified."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images, labels = bunch.images[:, None].astype(np.float32), bunch.target.astype(np.int64)
    rest, test = train_test_split(np.arange(len(labels)), test_size=297, stratify=labels, random_state=split_seed)
    train, val = train_test_split(rest, test_size=500, stratify=labels[rest], random_state=split_seed)
    return _normalised("digits", 10, images, labels, train, val, test)


def _normalised(
    name: str,
    classes: int,
    images: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    val: np.ndarray,
    test: np.ndarray,
) -> Dataset:
    """Each channel to mean 0 and variance 1, by the training part alone."""
    mean = images[train].mean(axis=(0, 2, 3), keepdims=True)
    deviation = images[train].std(axis=(0, 2, 3), keepdims=True)
    scaled = torch.from_numpy((images - mean) / deviation)
    targets = torch.from_numpy(labels)
    return Dataset(
        name, classes, *(Part(scaled[rows], targets[rows]) for rows in map(torch.from_numpy, (train, val, test)))
    )


DATASETS: Mapping[str, Callable[[int], Dataset]] = {"digits": _digits}


@lru_cache(maxsize=4)
def load(name: str, split_seed: int, device: torch.device) -> Dataset:
    """The data set of that name on that device; kept for the next call.

    Raises:
        WorkersError: no such data set.
    """
    if name not in DATASETS:
        raise WorkersError(f"unknown dataset {name!r}; {nearest(name, DATASETS)}")
    return DATASETS[name](split_seed).to(device)
