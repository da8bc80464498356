"""Keep decoded images on disk and map them into memory, so that the workers of a host share the memory."""

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

FORMAT = 2  # increased when the format of the files changes, so that older files are not read


def folder() -> Path:
    """Return the folder of downloads and decoded images: SEARCHER_CACHE, or `.cache/searcher` in the home directory."""
    named = os.environ.get("SEARCHER_CACHE")
    try:
        return Path(named or "~/.cache/searcher").expanduser()
    except RuntimeError as error:  # this machine does not know the user of `~name`, or there is no home directory
        raise WorkersError(
            f"the home directory in {named or '~/.cache/searcher'!r} is not known; set SEARCHER_CACHE to a whole path"
        ) from error


@dataclass(frozen=True, slots=True)
class Stored:
    """The arrays of a data set.

    Attributes:
        images: `(n, channels, height, width)`, uint8 or float32. Data that are not images may have other shapes, and
            be integers of any type.
        labels: `(n,)`, int64.
        tests: number of published test images, which come last; 0 if there are none.
        place: the folder from which the arrays are mapped; empty if they are in memory.
        encoding, standardised, note: as in `workers.tasks.images.formats.Arrays`.
    """

    images: np.ndarray
    labels: np.ndarray
    tests: int = 0
    encoding: str = ""
    place: str = ""
    standardised: bool = True
    note: str = ""


def through_cache(name: str, files: Sequence[Path], decode: Callable[[], Stored]) -> Stored:
    """Return the decoded files from the cache. If they are not in it, or have changed, call `decode` first.

    Workers that need the same files at the same time wait for the one that decodes them. A folder in the cache appears
    complete or not at all.

    Raises:
        WorkersError: the cache cannot be written, or `decode` raised it.
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
    """Return a lock between processes. Without the package filelock there is none: then two workers may decode the same
    files at the same time, and the first to finish provides them."""
    try:
        from filelock import FileLock
    except ImportError:
        return nullcontext()
    return FileLock(path)


def _key(name: str, files: Sequence[Path]) -> str:
    """Return a key that changes with the size or the time of a file, and with the format."""
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
            if not place.exists():  # if it exists, another worker was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # after the rename there is nothing to remove


def _mapped(place: Path) -> Stored:
    """Map the arrays copy-on-write: processes share the file's pages, and a write to them never reaches the file."""
    try:
        images = np.load(place / "images.npy", mmap_mode="c", allow_pickle=False)
        labels = np.array(np.load(place / "labels.npy", mmap_mode="r", allow_pickle=False))  # mapping checks the size
        facts = json.loads((place / "facts.json").read_text())
        if labels.shape != images.shape[:1] or labels.dtype != np.int64:
            raise ValueError(f"{len(images)} images have labels {labels.dtype} {labels.shape}")
        tests, encoding = int(facts["tests"]), str(facts["encoding"])
        return Stored(images, labels, tests, encoding, str(place), bool(facts["standardised"]), str(facts["note"]))
    except Exception as error:  # damaged files may raise any exception
        raise WorkersError(
            f"the decoded images in {place} are damaged ({in_a_line(error)}); delete that folder"
        ) from error
