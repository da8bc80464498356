"""Options, opening of the store and printing, shared by the commands."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searcher import SearcherError
from searcher.commands import completion
from searcher.commands.tables import Row, print_table
from searcher.display import shown
from searcher.observe import logs

if TYPE_CHECKING:
    from searcher.findings import Finding
    from searcher.store.store import Store

MOST = 10**18  # the largest number of rows in an option; Python and SQL accept no more


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    yaml = "yaml"
    markdown = "markdown"


StudyName = Annotated[str, typer.Argument(help="Name of the study.", autocompletion=completion.studies)]
Output = Annotated[Format, typer.Option("-f", "--format", help="How to print.")]
Wide = Annotated[
    bool, typer.Option("--wide", help="Print whole expressions and all columns, however narrow the terminal is.")
]
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
    with ExitStack() as stack:
        with logs.waiting("opening the database"):
            from searcher.store import checking

            store = stack.enter_context(checking.opened(storage, create=create, existing=existing))
        yield store


def loading() -> AbstractContextManager[None]:
    """Return a context in which torch is imported. If that takes long, a user at a terminal is told."""
    return logs.waiting("loading torch")


def no_result() -> redirect_stdout[logs.Printed]:
    """Log what is printed in the block, because a user's own code may print, and stdout is for results."""
    return redirect_stdout(logs.Printed())


def print_rows(
    rows: Iterable[Row], output: Format, names: Sequence[str] = (), *, spare: Sequence[str] = (), wide: bool = False
) -> None:
    """Print rows as they come; a table only after the last row, because its columns are as wide as the longest text.

    Args:
        names: the names of the columns; with these, CSV and Markdown have a head line even if there are no rows.
        spare, wide: for tables; see `tables.print_table`.
    """
    from searcher.reports import report

    if output is Format.table:
        print_table(list(rows), spare, wide=wide)
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


def write_file(file: Path, content: bytes, force: bool) -> None:
    """Write a file that does not exist yet; with `force`, replace one that does.

    Raises:
        SearcherError: the file exists, or cannot be written.
    """
    try:
        with file.open("wb" if force else "xb") as out:
            out.write(content)
    except FileExistsError:
        raise SearcherError(f"{file} exists; --force replaces it") from None
    except OSError as error:
        raise SearcherError(f"cannot write {file}: {error.strerror or error}") from error
