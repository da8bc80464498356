"""`searcher data`: list, check and download data sets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher.commands import completion
from searcher.commands.console import Format, Output, loading, no_result, print_rows, print_text

if TYPE_CHECKING:
    from torch import Tensor

    from workers.tasks.images.data import Dataset
    from workers.tasks.images.fetch import Report
    from workers.tasks.images.sources import Known

log = logging.getLogger("searcher")

app = typer.Typer(help="The data sets that children are trained on.", no_args_is_help=True)

DataDir = Annotated[
    str, typer.Option(help="The only folder to look in; if not given, SEARCHER_DATA and the usual folders.")
]


@app.command("list")
def list_data(data_dir: DataDir = "", output: Output = Format.table) -> None:
    """List the data sets that have names, and where they are."""
    from workers.tasks.images.sources import KNOWN

    rows = [
        {
            "name": name,
            "title": known.title,
            "images": known.train + known.test,
            "classes": known.classes,
            "shape": "x".join(map(str, known.shape)),
            "where": _where(name, known, data_dir),
        }
        for name, known in KNOWN.items()
    ]
    print_rows(rows, output, spare=("shape", "title"))
    if output is Format.table:
        print("Your own: npz:FILE, or package.module:function that returns images and labels.")


@app.command()
def check(
    name: Annotated[
        str,
        typer.Argument(
            help="A data set of the list, npz:FILE or package.module:function.",
            autocompletion=completion.among(completion.DATASETS),
        ),
    ],
    data_dir: DataDir = "",
    split_seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of the split into train, val and test.")
    ] = 0,
    limit_train: Annotated[int, typer.Option(help="Use only this many training images (0 = all).")] = 0,
    limit_val: Annotated[int, typer.Option(help="Use only this many validation images (0 = all).")] = 0,
    standardise: Annotated[
        bool | None,
        typer.Option("--standardise/--no-standardise", help="As in launch; if not given, for pictures only."),
    ] = None,
    output: Output = Format.table,
) -> None:
    """Read all of a data set, describe it (csv, markdown: its parts only), and warn of anything unusual in it."""
    with loading():
        import torch

        from workers.tasks.images.data import load
        from workers.tasks.images.doubts import doubts

    with no_result():
        data = load(name, split_seed, torch.device("cpu"), data_dir, limit_train, limit_val, standardise)
    facts, parts, warnings = _facts(data), _parts(data), doubts(data)
    for warning in warnings:
        log.warning("%s", warning)
    if output in (Format.json, Format.yaml):
        print_rows([{**facts, "parts": parts, "warnings": warnings}], output)
        return
    if output is Format.table:
        print_rows([{"": key, " ": str(value)} for key, value in facts.items()], output)
    print_rows(parts, output)


@app.command()
def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="fashion-mnist, cifar10 or cifar100.", autocompletion=completion.among(completion.DATASETS[1:])
        ),
    ],
    data_dir: Annotated[str, typer.Option(help="Folder to put it in; if not given, SEARCHER_DATA or the cache.")] = "",
    url: Annotated[str, typer.Option(help="URL of a folder with the same files, to download from there.")] = "",
) -> None:
    """Download a data set, continuing an interrupted download, and verify the published checksum."""
    import os

    from workers.tasks.images import cache
    from workers.tasks.images.fetch import fetch as download_set
    from workers.tasks.images.sources import whole_path

    folder = data_dir or os.environ.get("SEARCHER_DATA") or cache.folder() / "data"
    with _bar() as report:
        place = download_set(name, whole_path(str(folder)), report, url)
    print_text(f"{name} is in {place}")
    print_text(f"Next: searcher data check {name}" + (f" --data-dir {data_dir}" if data_dir else ""))


def _where(name: str, known: Known, data_dir: str) -> str:
    from workers.contract import WorkersError
    from workers.tasks.images.sources import find

    if not known.layouts:
        return "inside scikit-learn"
    try:
        found = find(name, data_dir)
    except WorkersError:
        package = f", or apt install {known.package}" if known.package else ""
        return f"not here: searcher data fetch {name}{package}"
    return f"{found.folder} ({found.layout.name})"


def _facts(data: Dataset) -> dict[str, Any]:
    from workers.tasks.images.sources import KNOWN

    pixels = data.train.pixels
    facts: dict[str, Any] = {
        "dataset": data.name,
        "title": data.title,
        "classes": data.classes,
        "shape": "x".join(map(str, data.shape)),
        "pixels": str(pixels.raw.dtype).removeprefix("torch."),
        "standardised": pixels.standardised,
        **({name: _rounded(getattr(pixels, name)) for name in ("mean", "deviation") if pixels.standardised}),
        "from": data.origin,
        "decoded": data.place or "in memory",
    }
    if known := KNOWN.get(data.name):
        facts["images"] = len(pixels.raw)
        facts["published"] = known.train + known.test
    return facts


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.flatten().tolist()]


def _parts(data: Dataset) -> list[dict[str, Any]]:
    """Return a row for each part: its images and classes, and the images of its smallest and its largest class."""
    rows = []
    for name, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        counts = part.labels.bincount(minlength=data.classes)
        rows.append(
            {
                "part": name,
                "images": len(part),
                "classes": int((counts > 0).sum()),
                "fewest": int(counts.min()),
                "most": int(counts.max()),
            }
        )
    return rows


@contextmanager
def _bar() -> Iterator[Report]:
    """Show a bar for each file on stderr if it is a terminal. Yield the function that updates the bars."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:

        def report(file: str, here: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = progress.add_task(file, total=total)
            progress.update(tasks[file], completed=here, total=total)

        yield report
