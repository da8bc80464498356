"""Limit the length of texts from any source, and escape characters that databases do not accept."""

from __future__ import annotations

LIMIT = 65_536  # characters of a reason, a log record or a traceback


def limited(text: str, most: int = LIMIT) -> str:
    """Return at most `most` characters of the text: its beginning and its end, with the number of cut characters in
    between."""
    if len(text) <= most:
        return text
    kept = most - 40  # the other 40 are for the note
    tail = kept // 2
    return f"{text[: kept - tail]} ... cut: {len(text) - kept:,} characters ... {text[len(text) - tail :]}"


def storable(text: str, codec: str = "utf-8") -> str:
    """Return the text with characters that `codec` or PostgreSQL cannot store (lone surrogates, NUL) as escapes."""
    return text.replace("\0", "\\x00").encode(codec, "backslashreplace").decode(codec)
