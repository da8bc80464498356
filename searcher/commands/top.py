"""`searcher top` ranks the functions of a study, or of all searches of a database."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher import DEFAULT_STORAGE, UsageError
from searcher.commands import costs
from searcher.commands.console import Format, Output, Storage, StudyName, Wide, loading, opened, print_rows, print_text
from searcher.commands.tables import Long, Row
from searcher.display import measured

if TYPE_CHECKING:
    from searcher.records import Study
    from searcher.store.store import Store
    from workers.contract import Metric

app = typer.Typer()

ACROSS = 15  # rows for each task configuration if --all-studies has no --limit


@app.command()
def top(
    name: StudyName = "",
    storage: Storage = DEFAULT_STORAGE,
    limit: Annotated[
        int | None, typer.Option(min=1, max=10_000_000, help="How many functions; all if not given.")
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Measure what each function costs beside ReLU (50 unless --limit says more).")
    ] = False,
    all_studies: Annotated[
        bool,
        typer.Option(
            "--all-studies", help="Rank the functions of all searches of the database, under each task configuration."
        ),
    ] = False,
    output: Output = Format.table,
    wide: Wide = False,
) -> None:
    """Rank a study's functions, best first, by its objective. With several seeds, by what each surely reaches."""
    if all_studies == bool(name) or (all_studies and cost):
        raise UsageError(
            "name one study, as in `searcher top STUDY`, or rank all searches: searcher top --all-studies"
            + (" (without --cost)" if cost else "")
        )
    with opened(storage) as store:
        if all_studies:
            _print_across(store, limit or ACROSS, output, wide)
        else:
            _print_study(store, store.study(name), limit, cost, output, wide)


def _print_study(store: Store, study: Study, limit: int | None, cost: bool, output: Format, wide: bool) -> None:
    with loading():
        from searcher.reports.mirrors import marked
        from searcher.reports.names import with_labels
        from searcher.reports.ranked import leaderboard

    rows = marked(store, study, leaderboard(store, study, costs.checked(limit) if cost else limit))
    if cost:
        rows = costs.measured(rows)
    if output is not Format.table:
        print_rows(rows, output)
        return
    for configuration, own in groupby(with_labels(rows), key=lambda row: row.get("configuration", "")):
        if configuration:
            print_text(configuration)
        print_board(study, [*own], wide=wide)
    if not rows:
        print_board(study, rows)
    if cost:
        costs.print_conditions(rows)


def _print_across(store: Store, limit: int, output: Format, wide: bool) -> None:
    with loading():
        from searcher.reports.names import with_labels
        from searcher.reports.ranked import across

    boards = across(store, limit)
    if output is not Format.table:
        print_rows([row for board in boards for row in board.rows], output)
        return
    for board in boards:
        print_text(f"{board.objective.name} ({board.objective.direction}) of {board.judged_by}")
        rows = [{"study": row["study"], **row} for row in with_labels(board.rows)]
        print_rows([_across(row, board.metrics, wide) for row in rows], Format.table, spare=("trials",), wide=wide)
    if not boards:
        print_text("No search of this database has trained a function to the end.")


def _across(row: Row, metrics: Sequence[Metric], wide: bool) -> dict[str, Any]:
    return {
        "rank": row["rank"],
        "function": Long(row["label"]),
        **({"expression": row["expression"]} if wide else {}),
        "trials": row["n_trials"],
        **{metric.name: measured(row[metric.name]) for metric in metrics},
        "study": row["study"],
        "number": row["number"],
    }


def print_board(study: Study, rows: Sequence[Row], *, wide: bool = False) -> None:
    """Print the rows of a leaderboard, with labels, as people read them."""
    table = [_for_table(study, row, wide) for row in rows]
    others = (metric.name for metric in study.task.shown if metric.name != study.objective.name)
    print_rows(table, Format.table, spare=("diverged", "kept", "trials", "with backward", *others), wide=wide)


def _for_table(study: Study, row: Row, wide: bool) -> dict[str, Any]:
    """Return a row with four decimals. The mark of a mirror stands behind the function, because mirrors are too rare
    for a column. With several seeds, `=` behind the rank says that the leader is not shown to be better."""
    return {
        "rank": f"{row['rank']}{'=' * (row['tied'] and row['rank'] > 1)}" if "tied" in row else row["rank"],
        "function": Long(row["label"], after=f"  ({row['mirror']})" if row["mirror"] else ""),
        **({"expression": row["expression"], "kind": row["kind"]} if wide else {}),
        "trials": row["n_trials"],
        **{metric.name: measured(row[metric.name]) for metric in study.task.shown},
        **({"surely": measured(row["bound"]), "diverged": row["diverged"]} if "tied" in row else {}),
        **costs.in_short(row),
        "number": row["number"],
    }
