"""Reading files that may be damaged, or made to do damage: every fault becomes one line that names the file.

Sizes that a file claims are compared with what it holds and with the free memory before anything is allocated.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from workers.contract import WorkersError

BLOCK = 1 << 20  # bytes read at a time
LONGEST = 300  # characters of another library's message


@contextmanager
def naming(where: object, fault: str) -> Iterator[None]:
    """Turn any exception of the block into a WorkersError in one line: `where`, `fault`, and the exception's message.

    A decoder that meets damaged data may raise anything, a MemoryError too. A WorkersError passes as it is.
    """
    try:
        yield
    except WorkersError:
        raise
    except Exception as error:
        raise WorkersError(f"{where} {fault}: {in_a_line(error)}") from error


def in_a_line(error: BaseException) -> str:
    """Return the message of an exception in one line, or the exception's name if it has no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def check_fits(size: int) -> None:
    """Raises ValueError if `size` bytes are more than the free memory of this machine."""
    free = _free_memory()
    if size > free:
        raise ValueError(f"it needs {size:,} bytes, and {free:,} bytes of memory are free")


def _free_memory() -> int:
    """Bytes; without psutil, a number that no file reaches."""
    try:
        import psutil
    except ModuleNotFoundError:
        return sys.maxsize
    return int(psutil.virtual_memory().available)


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file. If its content is gzip, whatever its name says, read what is packed in it."""
    with file.open("rb") as plain:
        packed = plain.peek(2)[:2] == b"\x1f\x8b"
        yield gzip.GzipFile(fileobj=plain) if packed else plain  # type: ignore[misc]


def up_to(size: int, source: BinaryIO) -> bytearray:
    """Read at most `size` bytes. Memory grows with what is really there, not with `size`."""
    content = bytearray()
    while len(content) < size and (block := source.read(min(BLOCK, size - len(content)))):
        content += block
    return content


def all_of(file: Path) -> bytes:
    """Read a whole file, unpacked if it is gzip."""
    with naming(file, "cannot be read, or is cut short"), opened(file) as source:
        free = _free_memory()
        content = up_to(free, source)
        if len(content) == free:
            raise ValueError(f"it has more than the {free:,} bytes of memory that are free")
        return bytes(content)


def is_file(path: Path) -> bool:
    """Return True if that is a file. A path that cannot be looked at (too long, in a closed folder) is none."""
    try:
        return path.is_file()
    except OSError:
        return False
