"""The option `--cost` of `searcher top`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from searcher import UsageError
from searcher.commands.console import print_text
from searcher.commands.tables import Row

USUAL = 50  # functions that are measured if no limit is given
MOST = 1000


def checked(limit: int | None) -> int:
    """Return how many functions to measure.

    Raises:
        UsageError: too many are asked for.
    """
    if limit is not None and limit > MOST:
        raise UsageError(f"--cost measures up to {MOST:,} functions, each for a tenth of a second; lower --limit")
    return limit or USUAL


def measured(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows of a leaderboard with the cost of each function. Show the progress on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    from searcher.reports.cost import with_costs

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal, redirect_stdout=False) as progress:
        task = progress.add_task("measuring costs", total=1.0)
        return with_costs(rows, tell=lambda part: progress.update(task, completed=part))


def in_short(row: Row) -> dict[str, Any]:
    """Return the columns of a table for people; none for a row without costs."""
    if "cost_note" not in row:
        return {}
    if row["cost_note"]:
        return {"forward": "", "with backward": "", "kept": ""}
    return {
        "forward": f"{row['cost_forward_ns']:.2g} ns {row['cost_forward_ratio']:.1f}x",
        "with backward": f"{row['cost_both_ns']:.2g} ns {row['cost_both_ratio']:.1f}x",
        "kept": f"{row['cost_saved_bytes']:.0f} B",
    }


def print_conditions(rows: Sequence[Row]) -> None:
    """Print where and how costs were measured, and which could not be."""
    if not rows:
        return
    from searcher.reports.cost import in_words

    print_text(in_words(rows[0]))
    for row in rows:
        if row["cost_note"]:
            print(f"No cost of {row['expression']}: {row['cost_note']}", file=sys.stderr)
