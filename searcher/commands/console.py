"""What commands share: the options that most take, opening the store, printing rows."""

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

MOST = 10**18  # rows that are asked for: Python and SQL count no further
PLAIN_WIDTH = 140  # columns of a table that goes into a file or a pipe

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
    """Refuse NaN, which no comparison with `min` and `max` finds: a callback of options that take a number."""
    if math.isnan(value):
        raise typer.BadParameter(f"{value} is no number")
    return value


@contextmanager
def opened(storage: str, *, create: bool = False, existing: bool = False) -> Iterator[Store]:
    """The store at a URL. `create` makes or upgrades tables, `existing` insists that the database is there."""
    from searcher.store import checking

    with checking.opened(storage, create=create, existing=existing) as store:
        yield store


def no_result() -> redirect_stdout[logs.Printed]:
    """Log what is printed meanwhile: a user's own code may print, and stdout is for results."""
    return redirect_stdout(logs.Printed())


def print_rows(rows: Iterable[Row], output: Format, names: Sequence[str] = ()) -> None:
    """Prints rows as they come, a table when the last has come: its columns are as wide as the longest text. With
    `names` of the columns, a head line is printed where there are no rows too."""
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
    # In a file CSV holds what the database holds; a terminal gets it as a table does.
    escaped = output is Format.csv and sys.stdout.isatty()
    for line in lines[output]:
        print(shown(line) if escaped else line)


def print_text(text: str, *, end: str = "\n", error: bool = False) -> None:
    """Prints lines of text, without what must not reach a terminal."""
    print(shown(text, lines=True), end=end, flush=True, file=sys.stderr if error else sys.stdout)


def print_findings(findings: Iterable[Finding]) -> bool:
    """A line each, as they come; whether all is well."""
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
    """Rows, of which there must be one, as Rich prints them. A cell is one line; a tuple has a line for each item."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=any(map(str.strip, rows[0])))
    for name, value in rows[0].items():
        number = isinstance(value, (int, float)) or name.startswith("val_")
        whole = name in ("study", "created")  # what one types or reads at a glance
        table.add_column(Text(shown(name)), justify="right" if number else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return "\n".join(map(_cell, value))
    return "" if value is None else shown(str(value))
