"""`searcher query`: a person's own SQL, printed as it comes."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from searcher import DEFAULT_STORAGE, logs
from searcher.commands.console import MOST, Format, Output, Storage, finite, print_rows

app = typer.Typer()

TABLE_ROWS = 10_000  # a table is printed when all of it is known


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT, as in: SELECT * FROM leaderboard")],
    storage: Storage = DEFAULT_STORAGE,
    limit: Annotated[
        int, typer.Option(min=1, max=MOST, help="Most rows to print; a table has at most 10,000.")
    ] = 1_000_000,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, callback=finite, help="Seconds the query may take, printing too.")
    ] = 30,
    output: Output = Format.table,
) -> None:
    """Run your own SQL, read only. Tables: searcher_study, searcher_trial, searcher_epoch; view: leaderboard."""
    from searcher.integrity import blamed
    from searcher.query import opened_query

    most = min(limit, TABLE_ROWS) if output is Format.table else limit
    with blamed(storage), opened_query(storage, sql, timeout, most) as answer:
        print_rows(answer, output, answer.names)
    if answer.cut:
        logs.say(f"cut after {most:,} rows; {_more(most, limit)}", logging.WARNING)


def _more(most: int, limit: int) -> str:
    if most < limit:
        return "a table holds no more, -f csv and the other formats do"
    return "narrow the query with WHERE or LIMIT, or raise --limit"
