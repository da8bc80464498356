"""What may be wrong with a data set that can be read: its size, images in two parts, numbers taken for pixels."""

from __future__ import annotations

from collections.abc import Iterator

from workers.tasks.images.data import CHUNK, KNOWN, Dataset, Part

FEW = 0.01  # of a part's images: published sets have a few pictures twice


def doubts(data: Dataset) -> list[str]:
    """Return one line for each thing that a person should look at before they trust results on these data."""
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
    """Equal images in two parts: a network that has learned one by heart knows the other."""
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
    """A hash of each image, by which equal ones are found; others agree once in 2^64 pairs."""
    found: list[int] = []
    for rows in part.rows.split(CHUNK):
        found += [hash(image.tobytes()) for image in part.pixels.raw[rows].numpy()]
    return found
