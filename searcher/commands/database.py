"""`searcher db`: create, upgrade and check the tables, copy studies, and renew keys."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher import DEFAULT_STORAGE
from searcher.commands import completion
from searcher.commands.console import Format, Output, Storage, no_result, opened, print_findings, print_rows, print_text
from searcher.commands.tables import Long
from searcher.display import shown

if TYPE_CHECKING:
    from searcher.store.copying import Report

app = typer.Typer(help="The database: create, upgrade and check its tables; copy studies.", no_args_is_help=True)

URL_HELP = "Database URL: sqlite:///FILE.db or postgresql://USER@HOST/NAME?passfile=FILE."


@app.command()
def upgrade(storage: Storage = DEFAULT_STORAGE) -> None:
    """Create the tables, or upgrade the tables of an older searcher."""
    from searcher.store.database import masked
    from searcher.store.schema import HEAD

    with opened(storage, create=True):
        print_text(f"{masked(storage)} is at schema {HEAD}")


@app.command()
def check(storage: Storage = DEFAULT_STORAGE) -> None:
    """Describe the contents of the database, and check them."""
    from searcher.store.checking import examine, explained_damage

    with explained_damage(storage):
        well = print_findings(examine(storage))
    if not well:
        raise typer.Exit(1)


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help=URL_HELP)],
    target: Annotated[str, typer.Argument(metavar="TO", help=URL_HELP)],
    study: Annotated[list[str] | None, typer.Option(help="Name of a study to copy; all if not given.")] = None,
    output: Output = Format.table,
) -> None:
    """Copy studies into another database, of either kind, which keeps its studies. All are copied or none."""
    from dataclasses import asdict

    from searcher.store import copying
    from searcher.store.checking import explained_damage
    from searcher.store.database import masked

    try:
        with explained_damage(source), _bar() as report:
            copied = copying.copy(source, target, study or (), report)
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        raise typer.Exit(130) from None
    print_rows([asdict(contents) for contents in copied], output)
    if output is Format.table:
        where = shlex.quote(masked(target))
        print_text(f"Both were read again and have the same rows. Next: searcher studies --storage {where}")


@app.command()
def rekey(
    study: Annotated[
        list[str] | None,
        typer.Argument(help="Names of studies; all if none is given.", autocompletion=completion.studies),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    primitives: Annotated[
        str | None, typer.Option(help="Modules that register the primitives of the studies: package.module,...")
    ] = None,
    output: Output = Format.table,
) -> None:
    """Renew the keys of an older searcher's studies; trials that cite another function's result wait for training."""
    from dataclasses import asdict

    from search_space import load_primitives
    from searcher.driver.keys import is_current
    from searcher.driver.rekeying import check_primitives
    from searcher.driver.rekeying import rekey as renew_keys

    modules = [name for part in (primitives or "").split(",") if (name := part.strip())]
    with no_result():
        load_primitives(modules)
    with opened(storage) as store:
        found = [store.study(name) for name in dict.fromkeys(study or store.names())]
        old = [row for row in found if not is_current(row)]
        for row in old:
            check_primitives(row, modules)
        with _bar("trials") as report:
            done = [renew_keys(store, row, report) for row in old]
        reopened = [asdict(trial) for one in done for trial in one.reopened]
        print_rows(map(_with_long, reopened) if output is Format.table else reopened, output)
        if output is not Format.table:
            return
        if not done:
            print("All keys follow today's rules; nothing was written.")
        for one in done:
            how = f"Next: searcher resume {store.typed(one.study)}" if one.reopened else "All citations are right."
            told = f"{one.trials} trials, {one.changed} with a new key, {len(one.reopened)} wait to be trained"
            print_text(f"study {one.study!r}: {told}. {how}")


def _with_long(row: dict[str, Any]) -> dict[str, Any]:
    return {name: Long(value) if name.endswith("expression") else value for name, value in row.items()}


@contextmanager
def _bar(unit: str = "rows") -> Iterator[Report]:
    """Show a bar for each study on stderr if it is a terminal. Yield the function that updates the bars."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    tasks: dict[str, Any] = {}
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:

        def report(study: str, done: int, total: int) -> None:
            if study not in tasks:
                tasks[study] = progress.add_task(shown(study), total=total)
            progress.update(tasks[study], completed=done)

        yield report
