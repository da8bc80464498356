"""Repair the standard streams of a process whose parent has closed some of them."""

from __future__ import annotations

import io
import os
import sys

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}  # in the order of their descriptors


def prepare() -> None:
    """If stdin, stdout or stderr is closed, open it as the null device. Let stdout escape characters that it cannot
    encode.

    If a stream is closed, Python sets it to None, and the next file that is opened gets its descriptor. That could be a
    database, into which a library would then print.
    """
    for descriptor, (name, mode) in enumerate(_MODES.items()):
        if not _is_open(descriptor):
            null = os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is the closed one
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            stream = os.fdopen(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
