"""`searcher plot`: pictures of a study, and the data behind them."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from searcher import DEFAULT_STORAGE, SearcherError, UsageError
from searcher.commands.console import Format, Storage, StudyName, loading, opened, print_rows
from searcher.display import as_json, shown

app = typer.Typer()

HELP = """What to draw; without it, the pictures of this study are listed. Of a search: progress, trials, parts,
reasons. Of a confirmation: differences, confirmed, map, ranks. Of both: functions, learned, curves, cost, size."""


class DataFormat(StrEnum):
    json = "json"


@app.command()
def plot(
    name: StudyName,
    kind: Annotated[str, typer.Argument(help=" ".join(HELP.split()), show_default=False)] = "",
    storage: Storage = DEFAULT_STORAGE,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="FILE.png, FILE.svg or FILE.pdf; FILE.json for the data."),
    ] = None,
    data_format: Annotated[
        DataFormat | None, typer.Option("-f", "--format", help="Print the data of the picture instead of drawing it.")
    ] = None,
) -> None:
    """Draw a study: its progress, trade-offs, leading functions, confirmed differences."""
    with opened(storage) as store:
        study = store.study(name)
        with loading():  # not before the study is known to be there
            from searcher.reports import pictures

        if not kind:
            rows = [{"picture": one, "shows": pictures.KINDS[one].title} for one in pictures.available(study)]
            print_rows(rows, Format.json if data_format else Format.table)
            return
        pictures.check_kind(kind, study)
        as_data = data_format is not None or (output is not None and output.suffix.lower() == ".json")
        if output is None and not as_data:
            raise UsageError(f"name a file for the picture: -o {kind}.png; or print its data: -f json")
        if output is not None and not as_data:
            pictures.check(output)
        data = pictures.data(kind, store, study)
    if as_data:
        _write(as_json(data, indent=2), output)
    elif output is not None:
        pictures.save(pictures.figure(kind, data), output)
    if output is not None:
        print(f"{'data' if as_data else 'picture'} written to {shown(str(output))}", file=sys.stderr)


def _write(text: str, file: Path | None) -> None:
    if file is None:
        print(text)
        return
    try:
        file.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise SearcherError(f"cannot write {file}: {error.strerror or error}") from error
