"""Data sets, split and standardised, as tensors.

Pixels stay as they were decoded, one array a data set, which the processes of a host share
(`workers.tasks.images.cache`). A batch is picked and normalised when it is wanted. On a GPU the whole array lies there.
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

VALIDATION = 0.1  # of the training images
TEST = 0.2  # of all images, where none are published to test with
DIGESTED = 1000  # images of a part whose pixels are looked at to know a data set again
CHUNK = 1000  # images at a time where all are gone through
FLAT = 1e-6  # of the mean: a channel that varies by less has one value, but for rounding, and is not scaled


@dataclass(frozen=True, slots=True)
class Pixels:
    """All images of a data set `(n, channels, height, width)`, uint8 or float32, as they were decoded, and what
    standardises them, `(1, channels, 1, 1)`: each channel to mean 0 and variance 1, by the training part alone.

    Data that are no images have another shape, and may be whole numbers of any type. With `standardised=False` the
    mean is 0 and the deviation 1, and neither is applied.
    """

    raw: Tensor
    mean: Tensor
    deviation: Tensor
    standardised: bool = True

    def pick(self, rows: Tensor) -> Tensor:
        """These images as a network gets them: `(len(rows), channels, height, width)`, of type `dtype`."""
        picked = self.raw.index_select(0, rows).to(self.dtype)
        return picked.sub_(self.mean).div_(self.deviation) if self.standardised else picked

    @property
    def dtype(self) -> torch.dtype:
        """float32; int64 for whole numbers that stay as they are, since embeddings are indexed by those."""
        return torch.float32 if self.standardised or self.raw.is_floating_point() else torch.int64

    def to(self, device: torch.device) -> Pixels:
        return Pixels(self.raw.to(device), self.mean.to(device), self.deviation.to(device), self.standardised)


@dataclass(frozen=True, slots=True)
class Part:
    """Some of a data set's images: the numbers of their rows and their labels, both `(n,)`, int64."""

    pixels: Pixels
    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """The images at these positions of the part, as a network gets them, and their labels."""
        return self.pixels.pick(self.rows[at]), self.labels[at]

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images in order, at most `size` at a time."""
        for rows, labels in zip(self.rows.split(size), self.labels.split(size), strict=True):
            yield self.pixels.pick(rows), labels

    def on(self, pixels: Pixels) -> Part:
        """The same part of these pixels, on their device."""
        return Part(pixels, self.rows.to(pixels.raw.device), self.labels.to(pixels.raw.device))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set in three parts. A search sees `train` and `val`; `test` is for confirmation alone.

    `origin` is where the images are from, `place` the folder that they are mapped from, empty if they are in memory.
    `digest` tells this training and validation data from others: by all labels and which images they are of, and the
    pixels of a thousand images of each part. `note` is for the person, if values may be taken for what they are not.
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
        """Channels, height, width of an image; of data that are no images, the shape of one example."""
        return tuple(self.train.pixels.raw.shape[1:])

    @property
    def channels(self) -> int:
        return self.shape[0]

    def to(self, device: torch.device) -> Dataset:
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
    """The data set of that name on that device; kept for the next call.

    Args:
        name: one of `KNOWN`, `npz:FILE`, or `package.module:function`.
        split_seed: of the split into parts.
        data_dir: the folder with the files; if not given, the usual places are looked in.
        limit_train: use only this many training images, with the same share of each class; a larger limit has those
            of a smaller one and more. 0: all.
        limit_val: use only this many validation images, chosen in the same way.
        standardise: bring each channel (axis 1) to mean 0 and variance 1 over the training part. None: do so if the
            data are pictures by their shape, else give the network the values as they are.

    Raises:
        WorkersError: no such data set, it is not here, its files are not what they should be, too few images.
    """
    raw = read(name, data_dir, standardise)
    standardised = raw.stored.standardised if standardise is None else standardise
    whole = np.asarray(raw.stored.images)  # a mapped array, but no np.memmap, whose sums would be of that kind too
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
    """Rows to train, to validate and to test with. Digits: 1,000, 500 and 297, as ever."""
    labels, tests = raw.stored.labels, raw.stored.tests
    rows = np.arange(len(labels))
    if tests:
        rest, test = rows[:-tests], rows[-tests:]
    else:
        rest, test = _divided(rows, labels, 297 if name == "digits" else TEST, seed, raw)
    train, val = _divided(rest, labels, 500 if name == "digits" else VALIDATION, seed, raw)
    return train, val, test


def _divided(rows: np.ndarray, labels: np.ndarray, held: float, seed: int, raw: Raw) -> tuple[np.ndarray, np.ndarray]:
    """Rows to keep, and rows to hold back: that number or share of them, of each class alike.

    Raises:
        WorkersError: a class has too few images to be on both sides.
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
    """So many of the rows, each class in proportion; the first so many of one order, so that a larger number has those
    of a smaller one and more.

    The order is that in which the method of Sainte-Laguë gives out seats: the k-th image of a class of n has its turn
    at (k - 1/2) / n.

    Raises:
        WorkersError: so few that a class has none, or more than there are.
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
    """Mean and standard deviation of each channel over these rows, `(1, channels, 1, ...)`, float32."""
    ordered = np.sort(rows)
    chunks = [ordered[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    moments = _exact_moments if images.dtype == np.uint8 else _float_moments
    mean, deviation = moments(images, chunks, len(rows) * math.prod(images.shape[2:]))
    deviation = np.where(deviation <= FLAT * np.abs(mean), 1.0, deviation)
    shape = (1, -1, *(1 for _ in images.shape[2:]))
    return mean.astype(np.float32).reshape(shape), deviation.astype(np.float32).reshape(shape)


def _but_channels(images: np.ndarray) -> tuple[int, ...]:
    """The axes that a channel's values lie along."""
    return (0, *range(2, images.ndim))


def _exact_moments(images: np.ndarray, chunks: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """By sums of whole numbers."""
    total, squares = np.zeros(images.shape[1], np.int64), np.zeros(images.shape[1], np.int64)
    for rows in chunks:
        some = images[rows].astype(np.uint32)
        total += some.sum(axis=_but_channels(images), dtype=np.int64)
        squares += (some * some).sum(axis=_but_channels(images), dtype=np.int64)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean * mean, 0))


def _float_moments(images: np.ndarray, chunks: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """In double precision, and the spread about a mean that is known: pixels may be far from 0 and close together."""
    axes = _but_channels(images)
    mean = sum(images[rows].sum(axis=axes, dtype=np.float64) for rows in chunks) / count
    centre = mean.reshape(-1, *(1 for _ in images.shape[2:]))
    squares = sum(np.square(images[rows] - centre).sum(axis=axes) for rows in chunks)
    return mean, np.sqrt(squares / count)
