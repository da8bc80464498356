"""The Parquet files of one part of a data set: which files of a folder they are, and whether all are there, once.

The hub has named them in several ways: `train-00000-of-00002.parquet`, the same with a fingerprint of 16 hexadecimal
digits at its end, `train/0000.parquet`, and `train.parquet`. The data set's name may stand before `train`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from workers.contract import WorkersError
from workers.tasks.images.reading import is_file

_NUMBERED = r"(?:(?P<number>\d+)(?:-of-(?P<total>\d+))?)"
_END = r"(?:-[0-9a-f]{16})?\.parquet"


@dataclass(frozen=True, slots=True)
class _Shard:
    """One file, by its name: what stands before the number, the number, and how many there are (None: not said)."""

    file: Path
    stem: str
    number: int | None
    total: int | None

    @property
    def of(self) -> tuple[Path, str, bool, int | None]:
        """What the shards of one set have in common."""
        return self.file.parent, self.stem, self.number is None, self.total


def candidates(folder: Path, split: str, name: str) -> list[Path]:
    """Return the Parquet files of a folder that seem to belong to a split (`train`, `test`) of the data set `name`.

    Copies (`train-00000-of-00001 (1).parquet`) are among them, for `in_order` to refuse, and so are folders and links
    to files that are gone, for `check_there`.
    """
    starts = re.compile(rf"(?:copy of )?(?:{_names(name)}-)?{split}(?![a-z0-9])", re.IGNORECASE)
    beside = [file for file in folder.glob("*.parquet") if starts.match(file.name)]
    inside = [file for file in (folder / split).glob("*.parquet") if not file.name.startswith(".")]
    return sorted((*beside, *inside))


def check_there(files: Sequence[Path]) -> None:
    """Raise WorkersError if one of the files is a folder, or a link to a file that is gone."""
    if lost := next((file for file in files if not is_file(file)), None):
        what = "is a link to a file that is not there" if lost.is_symlink() else "is not a file"
        raise WorkersError(f"{lost} {what}; put the file of that name there, or take this away")


def in_order(files: Sequence[Path], split: str, name: str) -> list[Path]:
    """Return the shards by number.

    Raises:
        WorkersError: A file is no shard by its name, there are two sets of shards, or a number of 0 to N - 1 is missing
            or there twice.
    """
    shards = [_shard(file, split, name) for file in files]
    first = shards[0]
    other = next((shard for shard in shards if shard.of != first.of), None)
    if other:
        raise WorkersError(
            f"{first.file} and {other.file} are of two sets of {split} files; leave one set there, else pictures would "
            "be read twice"
        )
    _check_numbers(shards)
    return [shard.file for shard in sorted(shards, key=lambda shard: shard.number or 0)]


def _check_numbers(shards: Sequence[_Shard]) -> None:
    """Raises WorkersError unless each number from 0 is there once, up to the total if the names say it."""
    first, seen = shards[0], dict[int, Path]()
    for shard in shards:
        number = shard.number or 0
        if number in seen:
            raise WorkersError(f"{shard.file} and {seen[number]} are both shard {number}; leave one of them there")
        seen[number] = shard.file
    total = max(seen) + 1 if first.total is None else first.total
    if len(seen) != total or max(seen) >= total:
        missing = next(number for number in count() if number not in seen)
        promised = f"the {total} files that {first.file.name} is one of"
        raise WorkersError(f"{first.file.parent} has {len(seen)} of {promised}; number {missing} is missing")


def _shard(file: Path, split: str, name: str) -> _Shard:
    beside = rf"(?P<stem>(?:{_names(name)}-)?{split})(?:-{_NUMBERED})?{_END}"
    inside = rf"(?P<stem>(?:(?:{split}|data|part)-)?){_NUMBERED}{_END}"
    found = re.fullmatch(beside, file.name, re.IGNORECASE)
    if not found and file.parent.name == split:
        found = re.fullmatch(inside, file.name, re.IGNORECASE)
    if not found:
        raise WorkersError(
            f"{file} has not the name of a shard, such as {split}-00000-of-00001.parquet or {split}/0000.parquet; if "
            "it is a copy, take it out of the folder, else give it its name"
        )
    number, total = (int(found[part]) if found[part] else None for part in ("number", "total"))
    return _Shard(file, found["stem"], number, total)


def _names(name: str) -> str:
    """A pattern for the data set's name: `fashion-mnist` and `fashion_mnist`."""
    return re.escape(name).replace(r"\-", "[-_]")
