"""Print rows as a table for people, which fits the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from searcher.display import cut, shown

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

PLAIN_WIDTH = 140  # characters in a line of a table that is written to a file or a pipe
BETWEEN = 3  # characters between two columns
LEAST = 14  # characters of an expression that are always shown

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Long:
    """A cell whose text is cut in the middle if the table is wider than the terminal.

    Attributes:
        text: the text, mostly an expression.
        before, after: what stands around it, and is never cut.
    """

    text: str
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        return f"{self.before}{self.text}{self.after}"

    def within(self, width: int) -> str:
        """Return the cell in at most `width` characters, but with `LEAST` of the text."""
        left = max(LEAST, width - len(self.before) - len(self.after))
        return f"{self.before}{cut(self.text, left, _dots())}{self.after}"


def print_table(rows: Sequence[Row], spare: Sequence[str] = (), *, wide: bool = False) -> None:
    """Print rows as a table.

    On a terminal that is too narrow, cells of the kind `Long` are cut, and then columns are left out. In a file or a
    pipe the table is whole.

    Args:
        spare: columns that may be left out, the least important first.
        wide: print the whole table, in lines as long as it needs.
    """
    from rich.console import Console

    if not rows:
        print("(no rows)")
        return
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else PLAIN_WIDTH)
    if wide:
        console = Console(width=max(console.width, _width(_widths(rows, head=len))))
    console.print(fitting(rows, console.width, spare) if terminal and not wide else table_of(rows))


def fitting(rows: Sequence[Row], width: int, spare: Sequence[str] = ()) -> Table:
    """Return rows, at least one, as a table of at most `width` characters a line, if that is possible; see
    `print_table`. If not, Rich breaks the lines of its cells."""
    left = [name for name in spare if name in rows[0]]
    while True:
        found = _cut(rows, width)
        for head in (len, _longest_word):  # break the names of columns only where this helps
            widths = _widths(found, head)
            if _width(widths) <= width:
                return table_of(found, widths)
        if not left:
            return table_of(found)
        gone = left.pop(0)
        rows = [{name: value for name, value in row.items() if name != gone} for row in rows]


def _cut(rows: Sequence[Row], width: int) -> list[dict[str, Any]]:
    widths = _widths(rows, _longest_word)
    over = _width(widths) - width
    long = [name for name in widths if any(isinstance(line, Long) for row in rows for line in _lines(row[name]))]
    if over <= 0 or not long:
        return [dict(row) for row in rows]
    rest = _width({name: n for name, n in widths.items() if name not in long}) + BETWEEN * len(long)
    most = (width - rest) // len(long)
    return [{name: _within(value, most) if name in long else value for name, value in row.items()} for row in rows]


def _within(value: Any, width: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_within(one, width) for one in value)
    return value.within(width) if isinstance(value, Long) else value


def _widths(rows: Sequence[Row], head: Callable[[str], int]) -> dict[str, int]:
    """Return the width of each column: that of its longest line, or what `head` says of its name."""
    return {
        name: max(head(name), *(len(_cell(line)) for row in rows for line in _lines(row[name]))) for name in rows[0]
    }


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _width(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + BETWEEN * len(widths) + 1


def _lines(value: Any) -> Iterable[Any]:
    return value or ("",) if isinstance(value, tuple) else (value,)


def _dots() -> str:
    return "…" if (sys.stdout.encoding or "").lower().startswith("utf") else "..."


def table_of(rows: Sequence[Row], widths: Mapping[str, int] | None = None) -> Table:
    """Return rows, at least one, as a table for Rich. A cell is one line; a tuple has a line for each item.

    Args:
        widths: the widths of the columns; otherwise Rich finds them.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=any(map(str.strip, rows[0])))
    for name, value in rows[0].items():
        number = isinstance(value, (int, float)) or name.startswith("val_")
        whole = name in ("study", "created")  # these must not be broken over lines, to be copied and compared
        justify: JustifyMethod = "right" if number else "left"
        width = widths[name] if widths else None
        table.add_column(Text(shown(name)), justify=justify, overflow="fold", no_wrap=whole, width=width)
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return "\n".join(map(_cell, value))
    return "" if value is None else shown(str(value))
