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

from workers.job import WorkersError

FORMAT = 1  # goes up when what is written changes, so that what older versions wrote is not read


def folder() -> Path:
    """Where downloads and decoded images are kept: SEARCHER_CACHE, or `.cache/searcher` in the home directory."""
    return Path(os.environ.get("SEARCHER_CACHE") or "~/.cache/searcher").expanduser()


@dataclass(frozen=True, slots=True)
class Stored:
    """The images of a data set `(n, channels, height, width)`, uint8 or float32, and its labels `(n,)`, int64.

    The last `tests` of them are the published test part; 0: there is none. `place` is the folder that they are mapped
    from, empty if they are in memory.
    """

    images: np.ndarray
    labels: np.ndarray
    tests: int = 0
    encoding: str = ""
    place: str = ""


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
        (unfinished / "facts.json").write_text(json.dumps({"tests": found.tests, "encoding": found.encoding}))
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
        labels = np.load(place / "labels.npy", allow_pickle=False)
        facts = json.loads((place / "facts.json").read_text())
        return Stored(images, labels, int(facts["tests"]), str(facts["encoding"]), str(place))
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise WorkersError(f"the decoded images in {place} are damaged ({error}); delete that folder") from error
