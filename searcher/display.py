"""Text as people may see it: one place for what must not reach a terminal or a log as it is.

Names, reasons, cells and holders may come from an exception, another program or another person. Control characters in
them move the cursor, ring, or forge a line; bidirectional overrides and invisible characters show something else than
there is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping

from workers.text import limited

# Of Unicode: control (ESC, BEL, newline, DEL, C1), format (bidirectional overrides and isolates, zero width), lone
# surrogates, separators of lines and of paragraphs.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
HEADLINE = 500  # characters of a reason where it is one of many

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def is_plain(text: str) -> bool:
    """Return True if the text holds no character that is hidden or controls a terminal."""
    return text.isprintable() or not any(unicodedata.category(character) in HIDDEN for character in text)


def shown(text: str, *, lines: bool = False) -> str:
    """Return the text with hidden and control characters as escapes (`\\x1b`, `\\u202e`).

    Args:
        lines: keep newlines, as in a traceback; else the result is one line.
    """
    if text.isprintable():
        return text
    return "".join(map(_kept_line if lines else _shown, text))


def headline(text: str) -> str:
    """Return the first line of a text, of limited length, to be shown among others."""
    return shown(limited(text.partition("\n")[0], HEADLINE))


def measured(value: float | None) -> str:
    """Return the value of a metric with four decimals, or four digits where these would not show it."""
    if value is None:
        return ""
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 1e4 else f"{value:.4g}"


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Return metrics in one line: `val_loss 0.6508, val_acc 0.8520`."""
    return ", ".join(f"{name} {measured(value)}" for name, value in metrics.items())


def without_colours(text: str) -> str:
    """Return the text without the escape sequences that only choose colours."""
    return _COLOURS.sub("", text)


def as_json(value: object, indent: int | None = None) -> str:
    """Return JSON in printable ASCII: DEL is the one control character that JSON does not escape by itself.

    Raises:
        ValueError: a number that is not finite; JSON has none.
    """
    return json.dumps(value, default=str, allow_nan=False, indent=indent).replace("\x7f", "\\u007f")


def _shown(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape").decode()


def _kept_line(character: str) -> str:
    return character if character == "\n" else _shown(character)
