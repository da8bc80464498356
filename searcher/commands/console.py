"""Options, opening of the store and printing, shared by the commands."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher.display import shown
from searcher.observe import logs

if TYPE_CHECKING:
    from rich.table import Table

    from searcher.findings import Finding
    from searcher.store.store import Store

MOST = 10**18  # the largest number of rows in an option; Python and SQL accept no more
PLAIN_WIDTH = 140  # characters in a line of a table that is written to a file or a pipe

Row = Mapping[str, Any]


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    yaml = "yaml"
    markdown = "markdown"


Output = Annotated[Format, typer.Option("-f", "--format", help="How to print.")]
Storage = Annotated[
    str,
    typer.Option(
        help="Database URL: sqlite:///FILE.db or postgresql://USER:PASSWORD@HOST/NAME.", envvar="SEARCHER_STORAGE"
    ),
]


def finite(value: float) -> float:
    """Refuse NaN in an option. This is a callback of Typer, whose `min` and `max` accept NaN."""
    if math.isnan(value):
        raise typer.BadParameter(f"{value} is not a number")
    return value


@contextmanager
def opened(storage: str, *, create: bool = False, existing: bool = False) -> Iterator[Store]:
    """Open the store at a URL for the length of the block. `create` creates or upgrades its tables; `existing` requires
    that the database exists."""
    from searcher.store import checking

    with checking.opened(storage, create=create, existing=existing) as store:
        yield store


def no_result() -> redirect_stdout[logs.Printed]:
    """Log what is printed in the block, because a user's own code may print, and stdout is for results."""
    return redirect_stdout(logs.Printed())


def print_rows(rows: Iterable[Row], output: Format, names: Sequence[str] = ()) -> None:
    """Print rows as they come; a table only after the last row, because its columns are as wide as the longest text.

    Args:
        names: the names of the columns; with these, CSV and Markdown have a head line even if there are no rows.
    """
    from searcher.reports import report

    if output is Format.table:
        _print_table(list(rows))
        return
    lines = {
        Format.json: report.as_json(rows),
        Format.csv: report.as_csv(rows, names),
        Format.yaml: report.as_yaml(rows),
        Format.markdown: report.as_markdown(rows, names),
    }
    # A file gets the values of the database as they are; on a terminal, control characters are escaped.
    escaped = output is Format.csv and sys.stdout.isatty()
    for line in lines[output]:
        print(shown(line) if escaped else line)


def print_text(text: str, *, end: str = "\n", error: bool = False) -> None:
    """Print lines of text with control characters escaped."""
    print(shown(text, lines=True), end=end, flush=True, file=sys.stderr if error else sys.stdout)


def print_findings(findings: Iterable[Finding]) -> bool:
    """Print a line for each finding as it comes. Return True if all are well."""
    well = True
    for finding in findings:
        well &= finding.ok
        print(f"{'ok' if finding.ok else 'NO':3} {shown(finding.what)}: {shown(finding.found)}")
    return well


def _print_table(rows: Sequence[Row]) -> None:
    from rich.console import Console

    if not rows:
        print("(no rows)")
        return
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table_of(rows))


def table_of(rows: Sequence[Row]) -> Table:
    """Return rows, at least one, as a table for Rich. A cell is one line; a tuple has a line for each item."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=any(map(str.strip, rows[0])))
    for name, value in rows[0].items():
        number = isinstance(value, (int, float)) or name.startswith("val_")
        whole = name in ("study", "created")  # these must not be broken over lines, to be copied and compared
        table.add_column(Text(shown(name)), justify="right" if number else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return "\n".join(map(_cell, value))
    return "" if value is None else shown(str(value))
