"""Warn of possible mistakes in a data set: its size, images that are in two parts, numbers interpreted as pixels."""

from __future__ import annotations

from collections.abc import Iterator

from workers.tasks.images.data import CHUNK, KNOWN, Dataset, Part

FEW = 0.01  # share of a part's images that may be in another part: published sets contain a few pictures twice


def doubts(data: Dataset) -> list[str]:
    """Return one line for each possible mistake that a user should check before using results on these data."""
    return [*_of_size(data), *_of_doubles(data), *filter(None, [data.note])]


def _of_size(data: Dataset) -> Iterator[str]:
    known = KNOWN.get(data.name)
    if known:
        test = len(data.test) if known.test else 0
        here = len(data.train.pixels.raw) - test, test
        if here != (known.train, known.test):
            yield (
                f"{known.title} was published with {known.train:,} + {known.test:,} images, and {here[0]:,} + "
                f"{here[1]:,} are in {data.origin}: results cannot be compared with others' on {known.title}"
            )


def _of_doubles(data: Dataset) -> Iterator[str]:
    """Yield a line for each part with many images that are also in another part, which a network could memorise."""
    train, val, test = map(_hashes, (data.train, data.val, data.test))
    for name, part, learned in (("validation", val, set(train)), ("test", test, {*train, *val})):
        double = sum(one in learned for one in part)
        if double > FEW * len(part):
            others = "training" if name == "validation" else "training or validation"
            yield (
                f"{double} of the {len(part)} {name} images of {data.name} are also {others} images (from "
                f"{data.origin}): results on them are too good; look for files or images that are there twice"
            )


def _hashes(part: Part) -> list[int]:
    """Return a hash of each image. Equal images have equal hashes; different ones agree about once in 2^64 pairs."""
    found: list[int] = []
    for rows in part.rows.split(CHUNK):
        found += [hash(image.tobytes()) for image in part.pixels.raw[rows].numpy()]
    return found
