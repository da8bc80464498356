"""Load data sets as tensors, split and standardised.

The pixels of a data set stay in one array as they were decoded, and the processes of a host share it
(`workers.tasks.images.cache`). Each batch is picked and standardised when it is needed. For a GPU, the whole array is
copied there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from workers.contract import WorkersError
from workers.tasks.images.sources import KNOWN, Raw, check_name, find, read
from workers.tasks.images.splitting import stratified

__all__ = ["KNOWN", "Dataset", "Part", "Pixels", "check_name", "find", "load"]

VALIDATION = 0.1  # share of the training images that is held out for validation
TEST = 0.2  # share of all images that is held out for testing, if no test images were published
DIGESTED = 1000  # images of each part whose pixels are in the digest
CHUNK = 1000  # images processed at a time
FLAT = 1e-6  # a channel whose deviation is at most this share of its mean is constant except for rounding: not scaled


@dataclass(frozen=True, slots=True)
class Pixels:
    """All images of a data set.

    Attributes:
        raw: the images as they were decoded, `(n, channels, height, width)`, uint8 or float32. Data that are not images
            have another shape, and may be integers of any type.
        mean, deviation: mean and standard deviation of each channel over the training part, `(1, channels, 1, 1)`.
        standardised: scale each channel to mean 0 and variance 1. If False, `mean` and `deviation` are not used.
    """

    raw: Tensor
    mean: Tensor
    deviation: Tensor
    standardised: bool = True

    def pick(self, rows: Tensor) -> Tensor:
        """Return images as a network gets them: `(len(rows), channels, height, width)`, of type `dtype`."""
        picked = self.raw.index_select(0, rows).to(self.dtype)
        return picked.sub_(self.mean).div_(self.deviation) if self.standardised else picked

    @property
    def dtype(self) -> torch.dtype:
        """The type of a network's input: int64 for integers that are not standardised, which are indices of embeddings,
        otherwise float32."""
        return torch.float32 if self.standardised or self.raw.is_floating_point() else torch.int64

    def to(self, device: torch.device) -> Pixels:
        """Return the pixels on a device."""
        return Pixels(self.raw.to(device), self.mean.to(device), self.deviation.to(device), self.standardised)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a data set's images.

    Attributes:
        pixels: all images of the data set.
        rows: the rows of this part's images, `(n,)`, int64.
        labels: their labels, `(n,)`, int64.
    """

    pixels: Pixels
    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images at positions of this part, as a network gets them, and their labels."""
        return self.pixels.pick(self.rows[at]), self.labels[at]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images in order, at most `size` at a time, with their labels."""
        for rows, labels in zip(self.rows.split(size), self.labels.split(size), strict=True):
            yield self.pixels.pick(rows), labels

    def on(self, pixels: Pixels) -> Part:
        """Return the same part of other pixels, on their device."""
        return Part(pixels, self.rows.to(pixels.raw.device), self.labels.to(pixels.raw.device))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set in three parts. A search uses `train` and `val`; `test` is for confirmation only.

    Attributes:
        name, title: the name in settings, and the name for people.
        classes: number of classes.
        train, val, test: the three parts.
        origin: where the images come from.
        place: the folder from which they are mapped; empty if they are in memory.
        digest: a digest of the training and validation parts: of all their rows and labels, and of the pixels of about
            a thousand images of each.
        note: a remark for the user on how the values were interpreted; empty if there is none.
    """

    name: str
    title: str
    classes: int
    train: Part
    val: Part
    test: Part
    origin: str
    place: str
    digest: str
    note: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image; for data that are not images, the shape of one example."""
        return tuple(self.train.pixels.raw.shape[1:])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]

    def to(self, device: torch.device) -> Dataset:
        """Return the data set on a device."""
        pixels = self.train.pixels.to(device)
        return replace(self, train=self.train.on(pixels), val=self.val.on(pixels), test=self.test.on(pixels))


@lru_cache(maxsize=4)
def load(
    name: str,
    split_seed: int,
    device: torch.device,
    data_dir: str = "",
    limit_train: int = 0,
    limit_val: int = 0,
    standardise: bool | None = None,
) -> Dataset:
    """Load a data set onto a device. The result is cached.

    Args:
        name: one of `KNOWN`, `npz:FILE`, or `package.module:function`.
        split_seed: the seed of the split into parts.
        device: the device of all tensors.
        data_dir: the folder with the files; if empty, the usual folders.
        limit_train: use only this many training images, with the same share of each class. A larger limit only adds
            images. 0 means all.
        limit_val: use only this many validation images, chosen in the same way.
        standardise: scale each channel (axis 1) to mean 0 and variance 1 over the training part. None does so if the
            data are pictures by their shape; otherwise the network gets the values as they are.

    Raises:
        WorkersError: there is no such data set, its files are missing or damaged, or there are too few images.
    """
    raw = read(name, data_dir, standardise)
    standardised = raw.stored.standardised if standardise is None else standardise
    whole = np.asarray(raw.stored.images)  # a plain array, because sums of an np.memmap would be an np.memmap too
    train, val, test = _split(name, raw, split_seed)
    if limit_train:
        train = limited(train, raw.stored.labels, limit_train, split_seed)
    if limit_val:
        val = limited(val, raw.stored.labels, limit_val, split_seed, "limit_val", "validation")
    images, labels = torch.from_numpy(whole), torch.from_numpy(raw.stored.labels)
    moments = _moments(whole, train) if standardised else (np.zeros(1, np.float32), np.ones(1, np.float32))
    mean, deviation = map(torch.from_numpy, moments)
    pixels = Pixels(images, mean, deviation, standardised)
    parts = [Part(pixels, rows, labels[rows]) for rows in map(torch.from_numpy, (train, val, test))]
    facts = raw.origin, raw.stored.place, _digest(parts[:2]), raw.stored.note
    return Dataset(name, raw.title, raw.classes, parts[0], parts[1], parts[2], *facts).to(device)


def _digest(parts: Sequence[Part]) -> str:
    found = hashlib.sha256()
    for part in parts:
        some = part.rows[:: max(1, len(part) // DIGESTED)]
        for values in (part.rows, part.labels, part.pixels.raw[some]):
            found.update(values.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _split(name: str, raw: Raw, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of the training, validation and test parts. Digits has fixed sizes: 1,000, 500 and 297."""
    labels, tests = raw.stored.labels, raw.stored.tests
    rows = np.arange(len(labels))
    if tests:
        rest, test = rows[:-tests], rows[-tests:]
    else:
        rest, test = _divided(rows, labels, 297 if name == "digits" else TEST, seed, raw)
    train, val = _divided(rest, labels, 500 if name == "digits" else VALIDATION, seed, raw)
    return train, val, test


def _divided(rows: np.ndarray, labels: np.ndarray, held: float, seed: int, raw: Raw) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to keep and rows to hold back, with the same share of each class in both.

    Args:
        held: how many to hold back if it is an int; otherwise which share.

    Raises:
        WorkersError: a class has too few images to be in both.
    """
    counts = np.bincount(labels[rows], minlength=raw.classes)
    kept, back = (rows[at] for at in stratified(labels[rows], held, seed))
    here = [np.bincount(labels[side], minlength=raw.classes) for side in (kept, back)]
    if not np.min(here):
        short = int(np.argmin(counts))
        raise WorkersError(
            f"{raw.origin}: {counts[short]} of {len(rows)} images are of class {short}; that is too few to hold back "
            f"{held:g} of all for each class to be on both sides"
        )
    return kept, back


def limited(
    rows: np.ndarray, labels: np.ndarray, number: int, seed: int, limit: str = "limit_train", part: str = "training"
) -> np.ndarray:
    """Return `number` of the rows, with each class in proportion. They are the first of one fixed order, so that a
    larger number only adds rows.

    The order comes from the Sainte-Laguë method: the k-th image of a class with n images is sorted by (k - 1/2) / n.

    Args:
        limit, part: the name of the setting and of the part, for messages.

    Raises:
        WorkersError: a class would have no image, or there are fewer rows than `number`.
    """
    classes = len(np.unique(labels[rows]))
    if not classes <= number <= len(rows):
        raise WorkersError(
            f"{limit} must be 0 (no limit) or from {classes} (classes) to {len(rows)} ({part} images), not {number!r}"
        )
    shuffled = np.random.default_rng(seed).permutation(rows)
    turns = np.empty(len(rows))
    for label in np.unique(labels[rows]):
        members = np.flatnonzero(labels[shuffled] == label)
        turns[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(turns, kind="stable")
    _, first_of_class = np.unique(labels[shuffled[order]], return_index=True)
    needed = int(first_of_class.max()) + 1
    if number < needed:
        raise WorkersError(
            f"{limit} {number} leaves no {part} image of the rarest class, each class having its share; the "
            f"least that has one of each is {needed}"
        )
    return np.asarray(shuffled[order[:number]])


def _moments(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel over the rows, `(1, channels, 1, ...)`, float32."""
    ordered = np.sort(rows)
    chunks = [ordered[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    moments = _exact_moments if images.dtype == np.uint8 else _float_moments
    mean, deviation = moments(images, chunks, len(rows) * math.prod(images.shape[2:]))
    deviation = np.where(deviation <= FLAT * np.abs(mean), 1.0, deviation)
    shape = (1, -1, *(1 for _ in images.shape[2:]))
    return mean.astype(np.float32).reshape(shape), deviation.astype(np.float32).reshape(shape)


def _axes_without_channels(images: np.ndarray) -> tuple[int, ...]:
    """Return all axes except the axis of the channels."""
    return (0, *range(2, images.ndim))


def _exact_moments(images: np.ndarray, chunks: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of uint8 images, computed exactly with integer sums."""
    total, squares = np.zeros(images.shape[1], np.int64), np.zeros(images.shape[1], np.int64)
    for rows in chunks:
        some = images[rows].astype(np.uint32)
        total += some.sum(axis=_axes_without_channels(images), dtype=np.int64)
        squares += (some * some).sum(axis=_axes_without_channels(images), dtype=np.int64)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean * mean, 0))


def _float_moments(images: np.ndarray, chunks: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of float images in double precision. The deviation is computed around the mean, because
    pixels may be far from 0 and close together."""
    axes = _axes_without_channels(images)
    mean = sum(images[rows].sum(axis=axes, dtype=np.float64) for rows in chunks) / count
    centre = mean.reshape(-1, *(1 for _ in images.shape[2:]))
    squares = sum(np.square(images[rows] - centre).sum(axis=axes) for rows in chunks)
    return mean, np.sqrt(squares / count)
