"""Read files that may be damaged or malicious. Every error becomes one line that names the file.

Before memory is allocated, the sizes that a file claims are compared with its contents and with the free memory.
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
LONGEST = 300  # the longest text of another library's message, in characters


@contextmanager
def naming(where: object, fault: str) -> Iterator[None]:
    """Turn any exception of the block into a WorkersError in one line: `where`, `fault`, and the exception's message.

    With damaged data, a decoder may raise any exception, even a MemoryError. A WorkersError is not changed.
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
    """Raise ValueError if `size` bytes are more than the free memory of this machine."""
    free = _free_memory()
    if size > free:
        raise ValueError(f"it needs {size:,} bytes, and {free:,} bytes of memory are free")


def _free_memory() -> int:
    """Return the free memory in bytes; without psutil, a number larger than any file."""
    try:
        import psutil
    except ModuleNotFoundError:
        return sys.maxsize
    return int(psutil.virtual_memory().available)


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file for reading. If its content is gzip, whatever its name, unpack it."""
    with file.open("rb") as plain:
        packed = plain.peek(2)[:2] == b"\x1f\x8b"
        yield gzip.GzipFile(fileobj=plain) if packed else plain  # type: ignore[misc]


def up_to(size: int, source: BinaryIO) -> bytearray:
    """Read at most `size` bytes. The memory grows with the bytes read, not with `size`."""
    content = bytearray()
    while len(content) < size and (block := source.read(min(BLOCK, size - len(content)))):
        content += block
    return content


def all_of(file: Path) -> bytes:
    """Return the contents of a file, unpacked if it is gzip."""
    with naming(file, "cannot be read, or is cut short"), opened(file) as source:
        free = _free_memory()
        content = up_to(free, source)
        if len(content) == free:
            raise ValueError(f"it has more than the {free:,} bytes of memory that are free")
        return bytes(content)


def is_file(path: Path) -> bool:
    """Return True if the path is a file, and False also if it cannot be checked (too long, or in a closed folder)."""
    try:
        return path.is_file()
    except OSError:
        return False
