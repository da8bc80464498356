"""`searcher report`: what a study has found, in one file for colleagues."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from searcher import DEFAULT_STORAGE, UsageError
from searcher.commands import completion
from searcher.commands.console import Storage, loading, opened
from searcher.display import shown

app = typer.Typer()


@app.command()
def report(
    name: Annotated[
        str, typer.Argument(help="Name of the study: a search or a confirmation.", autocompletion=completion.studies)
    ],
    storage: Storage = DEFAULT_STORAGE,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="FILE.html, FILE.md or FILE.json.", show_default=False)
    ] = None,
    costs: Annotated[
        bool, typer.Option("--costs/--no-costs", help="Measure what the leading functions cost on this machine.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write what a study has found into one file for colleagues: story, pictures, tables, code, how to repeat it."""
    if output is None:
        raise UsageError("name a file for the report: -o report.html, or one that ends in .md or .json")
    with opened(storage) as store:
        study = store.study(name)
        with loading():  # not before the study is known to be there
            from searcher.reports.document import files

        files.check(output, force=force)
        written = files.write(store, study, output, force=force, costs=costs)
    more = f", with {len(written) - 1} pictures in {written[0].parent}" if len(written) > 1 else ""
    print(f"report written to {shown(str(output))}{shown(more)}", file=sys.stderr)
