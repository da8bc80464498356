"""Text that a person gives in a file or as JSON: its encoding, its size, and how deeply it is nested."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Any

LARGEST = 1 << 20  # bytes of a file; a device such as /dev/zero has no end
DEEPEST = 50  # levels of tables and lists
MARK = "\ufeff"  # a byte-order mark, decoded; `$(cat FILE)` passes it on
# The mark of UTF-32 begins with that of UTF-16, so it is looked for first.
OTHER_MARKS: Mapping[bytes, str] = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def text_of(content: bytes) -> str:
    """Decode a text file. A byte-order mark of UTF-8, which Windows editors write, is not part of the text.

    Raises:
        ValueError: The file is too large, or it has another encoding, which the message names.
    """
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST:,} bytes")
    marked = next((name for mark, name in OTHER_MARKS.items() if content.startswith(mark)), "")
    if marked or b"\0" in content:
        encoding = marked or ("UTF-32" if b"\0\0\0" in content else "UTF-16")
        likely = "" if marked else ", or is no text"
        raise ValueError(f"its encoding is {encoding}{likely}; save it as UTF-8")
    try:
        text = content.decode().lstrip(MARK)  # a tool may have put a second mark before the first
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"its encoding is not UTF-8 but perhaps Latin-1 or Windows-1252, by the byte 0x{content[error.start]:02x} "
            f"in line {line}; save it as UTF-8"
        ) from error
    if f"\n{MARK}" in text:
        line = text.count("\n", 0, text.index(f"\n{MARK}")) + 2
        raise ValueError(f"line {line} begins with a byte-order mark, as where two files were joined; take it out")
    return text


def check_depth(value: Any, levels: int = DEEPEST) -> None:
    """Raise ValueError if tables and lists are nested more than `levels` deep. It looks no deeper than that."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    if inner and not levels:
        raise ValueError(f"tables and lists are nested more than {DEEPEST} deep")
    for one in inner:
        check_depth(one, levels - 1)
