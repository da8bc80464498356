"""Find the Parquet files of one part of a data set in a folder, and check that each is there once.

The Hugging Face hub names such files in several ways: `train-00000-of-00002.parquet`, the same with 16 hexadecimal
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
    """One file, with the parts of its name.

    Attributes:
        file: the path.
        stem: the text before the number.
        number: the number; None if the name has none.
        total: the number of all files; None if the name does not have it.
    """

    file: Path
    stem: str
    number: int | None
    total: int | None

    @property
    def of(self) -> tuple[Path, str, bool, int | None]:
        """The values that are equal for all shards of one set."""
        return self.file.parent, self.stem, self.number is None, self.total


def candidates(folder: Path, split: str, name: str) -> list[Path]:
    """Return the Parquet files of a folder that seem to belong to a split (`train`, `test`) of the data set `name`.

    They include copies (`train-00000-of-00001 (1).parquet`), which `in_order` refuses, and folders and links to missing
    files, which `check_there` refuses.
    """
    starts = re.compile(rf"(?:copy of )?(?:{_names(name)}-)?{split}(?![a-z0-9])", re.IGNORECASE)
    beside = [file for file in folder.glob("*.parquet") if starts.match(file.name)]
    inside = [file for file in (folder / split).glob("*.parquet") if not file.name.startswith(".")]
    return sorted((*beside, *inside))


def check_there(files: Sequence[Path]) -> None:
    """Raise WorkersError if one of the files is a folder, or a link to a file that does not exist."""
    if lost := next((file for file in files if not is_file(file)), None):
        what = "is a link to a file that does not exist" if lost.is_symlink() else "is not a file"
        raise WorkersError(f"{lost} {what}; put the file of that name there, or remove this one")


def in_order(files: Sequence[Path], split: str, name: str) -> list[Path]:
    """Return the shards by number.

    Raises:
        WorkersError: the name of a file does not fit a shard, there are two sets of shards, or a number from 0 to
            N - 1 is missing or there twice.
    """
    shards = [_shard(file, split, name) for file in files]
    first = shards[0]
    other = next((shard for shard in shards if shard.of != first.of), None)
    if other:
        raise WorkersError(
            f"{first.file} and {other.file} are from two sets of {split} files; leave only one set there, or pictures "
            "would be read twice"
        )
    _check_numbers(shards)
    return [shard.file for shard in sorted(shards, key=lambda shard: shard.number or 0)]


def _check_numbers(shards: Sequence[_Shard]) -> None:
    """Raise WorkersError unless each number from 0 is there once, up to the total if the names have it."""
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
            f"{file} does not have the name of a shard, such as {split}-00000-of-00001.parquet or "
            f"{split}/0000.parquet; if it is a copy, remove it from the folder, otherwise rename it"
        )
    number, total = (int(found[part]) if found[part] else None for part in ("number", "total"))
    return _Shard(file, found["stem"], number, total)


def _names(name: str) -> str:
    """Return a pattern for the data set's name, with - or _ between its words."""
    return re.escape(name).replace(r"\-", "[-_]")
