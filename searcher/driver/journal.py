"""The journal of an outage: a file on this machine with the batches that a driver could not write to its database.

Each line is a checksum and a JSON object. The first line names the driver; the others are its batches, in order, and
notes of later drivers that took the journal over. A line is on disk before the search acts on it, so a line that a
crash cut short can be dropped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, astuple
from itertools import count
from pathlib import Path
from typing import Any, Self

from searcher.records import Kind, Study, Trial, TrialState
from searcher.store.database import StoreError
from searcher.store.lease import Lease
from searcher.store.rows import Batch
from workers.contract import Learned, Point


def folder() -> Path:
    """Return the folder of the journals: below SEARCHER_STATE, or else the folder for state of the XDG base directory
    specification."""
    own = os.environ.get("SEARCHER_STATE")
    shared = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "searcher"
    return (Path(own) if own else shared).expanduser() / "journals"


class Journal:
    """The journal of one driver. The first `append` creates the file.

    Attributes:
        writers: `Lease.writer` of the driver that wrote the journal, and of those that wrote its batches to the
            database.
        batches: the batches that were in it when it was read.
    """

    def __init__(self, path: Path, study: Study, generation: int, writer: int) -> None:
        self.path = path
        self.writers = {writer}
        self.batches: list[Batch] = []
        self._generation = generation
        self._head = {"study": study.name, "generation": generation, "writer": writer}
        self._whole: int | None = None  # how many bytes are complete lines; None if the file was not read

    @classmethod
    def of(cls, study: Study, lease: Lease) -> Self:
        """Return the journal of the driver that holds the lease."""
        path = folder() / f"{_stem(study)}-{lease.generation}-{lease.writer}.jsonl"
        return cls(path, study, lease.generation, lease.writer)

    @classmethod
    def left(cls, study: Study) -> list[Self]:
        """Return the journals that drivers of the study, or of a copy of it, left on this machine, oldest first.

        Raises:
            StoreError: a journal is damaged or cannot be read.
        """
        found = [cls._read(path, study) for path in cls.paths(study)]
        return sorted(found, key=lambda journal: journal._generation)

    @staticmethod
    def paths(study: Study) -> list[Path]:
        """Return the files of those journals."""
        return list(folder().glob(f"{_stem(study)}-*.jsonl"))

    def append(self, batch: Batch) -> None:
        """Write a batch to the journal.

        Raises:
            StoreError: the file cannot be written.
        """
        self._write(_plain(batch))

    def take_over(self, writer: int) -> None:
        """Note that a later driver, `writer`, writes the journal's batches to the database.

        Raises:
            StoreError: the file cannot be written.
        """
        self._write({"taken_over_by": writer})
        self.writers.add(writer)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Rename the file so that it is not read again, and return its new path; None if there is no file."""
        if not self.path.exists():
            return None
        names = (self.path.with_suffix(f".{n}.overtaken" if n else ".overtaken") for n in count())
        return self.path.rename(next(name for name in names if not name.exists()))

    def _write(self, entry: dict[str, Any]) -> None:
        line = _line(entry)
        try:
            for place in (self.path.parent.parent, self.path.parent):  # `mode` holds for the last folder only
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                self._append(file, line)
            finally:
                os.close(file)
        except OSError as error:
            raise StoreError(
                f"results that are not in the database cannot be kept in {self.path.parent} either ({error.strerror}); "
                "make that folder writable, or set SEARCHER_STATE to another folder"
            ) from error

    def _append(self, file: int, line: bytes) -> None:
        """Write a complete line or nothing: on a full disk, the system may write half a line without an error."""
        size = os.fstat(file).st_size
        if self._whole is not None and self._whole < size:
            size, self._whole = self._whole, None  # removes a line that was cut short, before the next one follows
            os.ftruncate(file, size)
        whole = line if size else _line(self._head) + line
        try:
            if os.write(file, whole) != len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise

    @classmethod
    def _read(cls, path: Path, study: Study) -> Self:
        try:
            text = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"the journal {path} cannot be read ({error.strerror}); it may hold results of study {study.name!r} "
                "that are not in the database. Make it readable, or move it away: they will be measured again"
            ) from error
        whole = text[: text.rfind(b"\n") + 1]  # a last line without an end was cut short, or is being written
        try:
            entries = list(_entries(whole))
            generation = entries[0]["generation"] if entries else 0
            journal = cls(path, study, generation, entries[0].get("writer", generation) if entries else 0)
            journal._whole = len(whole)
            for entry in entries[1:]:
                if "taken_over_by" in entry:
                    journal.writers.add(entry["taken_over_by"])
                else:
                    journal.batches.append(_batch(entry, study))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"the journal {path} is damaged; it holds results of study {study.name!r} that are not in the "
                "database. Move it away to go on without them: they will be measured again"
            ) from error
        return journal


def _stem(study: Study) -> str:
    """Return the start of the file names of a study's journals. It does not depend on the database's URL."""
    return hashlib.sha256(f"{study.name} {study.created_at}".encode()).hexdigest()[:16]


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, allow_nan=False, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _entries(lines: bytes) -> Iterator[dict[str, Any]]:
    for line in lines.splitlines():
        checksum, _, text = line.partition(b" ")
        if int(checksum, 16) != zlib.crc32(text):
            raise ValueError("checksum")
        yield json.loads(text)


def _plain(batch: Batch) -> dict[str, Any]:
    return {
        "serial": batch.serial,
        "data_digests": list(batch.data_digests.items()),
        "added": [asdict(trial) for trial in batch.added],
        "changed": [[state, asdict(trial)] for state, trial in batch.changed],
        "curves": [[number, [astuple(point) for point in curve]] for number, curve in batch.curves.items()],
        "learned": [[number, [asdict(one) for one in found]] for number, found in batch.learned.items()],
    }


def _batch(entry: dict[str, Any], study: Study) -> Batch:
    older = "data_digests" not in entry  # written by a version whose results had fixed metrics
    digests = {0: entry["data_digest"]} if older and entry.get("data_digest") else {}
    to_point = _older_point if older else _point
    return Batch(
        added=[_trial(trial, study) for trial in entry["added"]],
        changed=[(TrialState(state), _trial(trial, study)) for state, trial in entry["changed"]],
        curves={number: [to_point(*point) for point in curve] for number, curve in entry["curves"]},
        learned={number: list(map(Learned.from_plain, found)) for number, found in entry.get("learned", [])},
        data_digests=digests if older else dict(map(tuple, entry["data_digests"])),
        serial=entry["serial"],
    )


def _point(step: int, metrics: dict[str, float]) -> Point:
    return Point(step, metrics)


def _older_point(epoch: int, train_loss: float, val_loss: float, val_acc: float) -> Point:
    return Point(epoch, {"train_loss": train_loss, "val_loss": val_loss, "val_acc": val_acc})


def _trial(facts: dict[str, Any], study: Study) -> Trial:
    choices = facts["choices"]
    typed = {
        "kind": Kind(facts["kind"]),
        "state": TrialState(facts["state"]),
        "choices": None if choices is None else tuple(choices),
    }
    older = {name: facts[name] for name in ("val_loss", "val_acc") if name in facts}
    rest = {name: value for name, value in facts.items() if name not in older}
    trial = Trial(**{**rest, **typed})
    return study.task.judged(trial, {n: v for n, v in older.items() if v is not None}) if older else trial
