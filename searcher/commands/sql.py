"""`searcher query`: run a user's own SQL and print its rows."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from searcher import DEFAULT_STORAGE
from searcher.commands.console import MOST, Format, Output, Storage, finite, print_rows
from searcher.observe import logs

app = typer.Typer()

TABLE_ROWS = 10_000  # a limit, because all rows of a table are in memory before it is printed
TABLE_BYTES = 4_000_000


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT, as in: SELECT * FROM leaderboard")],
    storage: Storage = DEFAULT_STORAGE,
    limit: Annotated[
        int, typer.Option(min=1, max=MOST, help="Largest number of rows; for a table at most 10,000, and 4 MB.")
    ] = 1_000_000,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, callback=finite, help="Seconds for the query and its printing.")
    ] = 30,
    output: Output = Format.table,
) -> None:
    """Run your own SQL, read only. Tables: searcher_study, searcher_task_config, searcher_trial, searcher_point,
    searcher_learned; view: leaderboard."""
    from searcher.store.checking import explained_damage
    from searcher.store.query import ALL_BYTES, opened_query

    table = output is Format.table
    most, most_bytes = (min(limit, TABLE_ROWS), TABLE_BYTES) if table else (limit, ALL_BYTES)
    with explained_damage(storage), opened_query(storage, sql, timeout, most, most_bytes) as answer:
        rows = list(answer) if table else answer
        if not answer.large or answer.count:
            print_rows(rows, output, answer.names)
    if answer.cut:
        logs.say(f"cut after {answer.count:,} rows; {_more(most, limit, answer.large)}", logging.WARNING)


def _more(most: int, limit: int, large: bool) -> str:
    if large:
        return f"a table holds at most {TABLE_BYTES:,} bytes, -f csv and the other formats hold more"
    if most < limit:
        return "a table holds no more, -f csv and the other formats do"
    return "narrow the query with WHERE or LIMIT, or raise --limit"
