"""Text from anywhere (exceptions, host names), made fit to be kept: bounded, in characters that databases hold."""

from __future__ import annotations

LIMIT = 65_536  # characters of a reason, a log record or a traceback


def limited(text: str, most: int = LIMIT) -> str:
    """Return the text, at most `most` characters of it: the head and the tail, and between them how many are cut."""
    if len(text) <= most:
        return text
    kept = most - 40  # the note takes the rest
    tail = kept // 2
    return f"{text[: kept - tail]} ... cut: {len(text) - kept:,} characters ... {text[len(text) - tail :]}"


def holdable(text: str, codec: str = "utf-8") -> str:
    """Return the text with what `codec` or PostgreSQL cannot hold (lone surrogates, NUL) as backslash escapes."""
    return text.replace("\0", "\\x00").encode(codec, "backslashreplace").decode(codec)
