"""Make texts safe for terminals and logs.

Names, reasons, cells and holders may come from an exception, another program or another person. Control characters in
them can move the cursor, ring the bell or forge a line; with bidirectional overrides and invisible characters, a text
looks different from what it is.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping

from workers.text import limited

# Unicode categories: control (ESC, BEL, newline, DEL, C1), format (bidirectional overrides and isolates, zero width),
# lone surrogates, separators of lines and of paragraphs.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
OWN = "own"  # stands for the name of a baseline that a person gave as a formula
HEADLINE = 500  # the longest reason in a list of several, in characters

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def is_plain(text: str) -> bool:
    """Return True if the text has no character that is hidden or controls a terminal."""
    return text.isprintable() or not any(unicodedata.category(character) in HIDDEN for character in text)


def shown(text: str, *, lines: bool = False) -> str:
    """Return the text with hidden and control characters as escapes (`\\x1b`, `\\u202e`).

    Args:
        lines: keep newlines, as in a traceback; otherwise the result is one line.
    """
    if text.isprintable():
        return text
    return "".join(map(_kept_line if lines else _shown, text))


def without_folders(task: str) -> str:
    """Return the name of a task without the folders of its file: `my_task.py:train`."""
    return re.split(r"[/\\]", task)[-1]


def headline(text: str) -> str:
    """Return the first line of a text, limited in length, for a list of several."""
    return shown(limited(text.partition("\n")[0], HEADLINE))


def label(name: str, expression: str) -> str:
    """Return what people call a function: its name if it is a known one, otherwise the expression."""
    return expression if name in ("", OWN) else name


def cut(text: str, width: int, dots: str = "…") -> str:
    """Return the text with its middle left out if it is longer than `width`: `beta1 * max(x, … * tanh(x)`."""
    if len(text) <= width:
        return text
    kept = max(2, width - len(dots))
    return f"{text[: kept - kept // 2]}{dots}{text[len(text) - kept // 2 :]}"


def measured(value: float | None) -> str:
    """Return the value of a metric with four decimals, or with four significant digits if it is very small or large."""
    if value is None:
        return ""
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 1e4 else f"{value:.4g}"


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Return metrics in one line, such as `val_loss 0.6508, val_acc 0.8520`."""
    return ", ".join(f"{name} {measured(value)}" for name, value in metrics.items())


def without_colours(text: str) -> str:
    """Return the text without the escape sequences that only choose colours."""
    return _COLOURS.sub("", text)


def as_json(value: object, indent: int | None = None) -> str:
    """Return JSON in printable ASCII. DEL, the only control character that `json` does not escape, is escaped too.

    Raises:
        ValueError: a number is not finite, which JSON cannot express.
    """
    return json.dumps(value, default=str, allow_nan=False, indent=indent).replace("\x7f", "\\u007f")


def _shown(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape").decode()


def _kept_line(character: str) -> str:
    return character if character == "\n" else _shown(character)
