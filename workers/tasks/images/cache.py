"""Decoded images on disk, decoded once and mapped into memory, so that the workers of a host share the pages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.contract import WorkersError
from workers.tasks.images.reading import in_a_line

FORMAT = 2  # goes up when what is written changes, so that what older versions wrote is not read


def folder() -> Path:
    """Where downloads and decoded images are kept: SEARCHER_CACHE, or `.cache/searcher` in the home directory."""
    named = os.environ.get("SEARCHER_CACHE")
    try:
        return Path(named or "~/.cache/searcher").expanduser()
    except RuntimeError as error:  # `~name` of a user whom this machine does not know, or no home directory at all
        raise WorkersError(
            f"the home directory in {named or '~/.cache/searcher'!r} is not known; set SEARCHER_CACHE to a whole path"
        ) from error


@dataclass(frozen=True, slots=True)
class Stored:
    """The images of a data set `(n, channels, height, width)`, uint8 or float32, and its labels `(n,)`, int64.

    Data that are no images may have other shapes, and be whole numbers of any type. The last `tests` images are the
    published test part; 0: there is none. `place` is the folder that they are mapped from, empty if they are in memory.
    `standardised` and `note` are as in `workers.tasks.images.formats.Arrays`.
    """

    images: np.ndarray
    labels: np.ndarray
    tests: int = 0
    encoding: str = ""
    place: str = ""
    standardised: bool = True
    note: str = ""


def through_cache(name: str, files: Sequence[Path], decode: Callable[[], Stored]) -> Stored:
    """What `decode` makes of these files, from the cache if it has been decoded since they last changed.

    Workers that want the same at the same time wait for the one that decodes. What is written appears whole, under its
    name, or not at all.

    Raises:
        WorkersError: the cache cannot be written; what `decode` raises.
    """
    decoded = folder() / "decoded"
    place = decoded / f"{name}-{_key(name, files)}"
    if place.exists():
        return _mapped(place)
    try:
        decoded.mkdir(parents=True, exist_ok=True)
        with _locked(decoded / f"{place.name}.lock"):
            if not place.exists():
                _write(decode(), place)
        return _mapped(place)
    except OSError as error:
        raise WorkersError(
            f"cannot keep decoded images in {decoded}: {error.strerror or error}; make room there, or set "
            "SEARCHER_CACHE to a folder that can be written"
        ) from error


def _locked(path: Path) -> AbstractContextManager[object]:
    """A lock between processes. Without filelock there is none: two workers may then decode the same at the same time,
    and the first to finish gives the files."""
    try:
        from filelock import FileLock
    except ImportError:
        return nullcontext()
    return FileLock(path)


def _key(name: str, files: Sequence[Path]) -> str:
    """Changes when a file is replaced, by size and time of change, and with the format."""
    facts = [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.stat())]
    return hashlib.sha256(json.dumps([FORMAT, name, facts]).encode()).hexdigest()[:16]


def _write(found: Stored, place: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        np.save(unfinished / "images.npy", found.images)
        np.save(unfinished / "labels.npy", found.labels)
        facts = {name: getattr(found, name) for name in ("tests", "encoding", "standardised", "note")}
        (unfinished / "facts.json").write_text(json.dumps(facts))
        try:
            unfinished.rename(place)
        except OSError:
            if not place.exists():  # if it does, another worker was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # after the rename there is nothing to remove


def _mapped(place: Path) -> Stored:
    """Mapped copy-on-write: pages are the file's until somebody writes to them, which the file never sees."""
    try:
        images = np.load(place / "images.npy", mmap_mode="c", allow_pickle=False)
        labels = np.array(np.load(place / "labels.npy", mmap_mode="r", allow_pickle=False))  # mapped, a size is checked
        facts = json.loads((place / "facts.json").read_text())
        if labels.shape != images.shape[:1] or labels.dtype != np.int64:
            raise ValueError(f"{len(images)} images have labels {labels.dtype} {labels.shape}")
        tests, encoding = int(facts["tests"]), str(facts["encoding"])
        return Stored(images, labels, tests, encoding, str(place), bool(facts["standardised"]), str(facts["note"]))
    except Exception as error:  # what damaged data raise is without limit
        raise WorkersError(
            f"the decoded images in {place} are damaged ({in_a_line(error)}); delete that folder"
        ) from error
