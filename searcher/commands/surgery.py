"""`searcher surgery`: show what a search would replace in a user's own network, and what would stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher.commands.console import Format, Output, loading, no_result, print_rows, print_text

if TYPE_CHECKING:
    import torch

    from workers.tasks.images.networks.own import Survey

app = typer.Typer()

REPLACED, STAYS = "replaced", "stays"
COLUMNS = ("place", "what", "channels", "dimension", "fate", "why")


@app.command()
def surgery(
    model: Annotated[str, typer.Argument(help="A network of your own, as for --model: package.module:function.")],
    expression: Annotated[str, typer.Argument(help="As in 'x * sigmoid(beta * x)', or a known name (swish).")],
    match: Annotated[str, typer.Option(help="Replace only activations with such names: 'layers.*.act'.")] = "",
    dataset: Annotated[str, typer.Option(help="The data set whose images the network is made for.")] = "digits",
    data_dir: Annotated[
        str, typer.Option(help="Folder with the data set's files; if not given, the usual folders.")
    ] = "",
    standardise: Annotated[
        bool | None,
        typer.Option("--standardise/--no-standardise", help="As in launch; if not given, for pictures only."),
    ] = None,
    width: Annotated[
        int, typer.Option(min=0, max=2**14, help="The network's width, if it takes one (0 = its default).")
    ] = 0,
    model_kwargs: Annotated[str | None, typer.Option(help="The network's other options as JSON.")] = None,
    primitives: Annotated[
        str | None, typer.Option(help="Modules that register primitives of your own: package.module,...")
    ] = None,
    output: Output = Format.table,
) -> None:
    """Show what would be replaced in a network of your own, what stays, and why.

    The network is made and run once on two made-up examples. If a search would refuse it, the reason is the error.
    """
    with loading():
        from search_space import load_primitives
        from searcher.settings.loading import parse_kwargs
        from workers.contract import WorkersError
        from workers.tasks.images.models import survey

    options = parse_kwargs("model_kwargs", model_kwargs) or {}
    with no_result():
        load_primitives([name for part in (primitives or "").split(",") if (name := part.strip())])
        shape, classes, dtype = _examples(dataset, data_dir, standardise)
        found = survey(model, expression, shape, classes, width or None, options, match, dtype)
    _print(model, found, output)
    if found.refusal:
        raise WorkersError(found.refusal)


def _examples(dataset: str, data_dir: str, standardise: bool | None) -> tuple[tuple[int, ...], int, torch.dtype]:
    """Return the shape of one example, the number of classes, and the type of the network's input. The files of a named
    data set are not needed for that if its values are standardised."""
    import torch

    from workers.tasks.images.data import load
    from workers.tasks.images.sources import KNOWN

    known = KNOWN.get(dataset)
    if known and standardise is not False:
        return known.shape, known.classes, torch.float32
    data = load(dataset, 0, torch.device("cpu"), data_dir, standardise=standardise)
    return data.shape, data.classes, data.train.pixels.dtype


def _print(model: str, found: Survey, output: Format) -> None:
    report, rows = found.report, _rows(found)
    if output in (Format.json, Format.yaml):
        facts = {"model": model, "expression": report.expression, "activations": rows, "notes": list(report.notes)}
        print_rows([{**facts, "refusal": found.refusal}], output)
        return
    print_rows(rows, output, COLUMNS)
    for note in report.notes if output is Format.table else ():
        print_text(f"note: {note}")


def _rows(found: Survey) -> list[dict[str, Any]]:
    report = found.report
    rows: list[tuple[object, ...]] = []
    for name, what, channels in report.replaced:
        dimension = (-1 if name in report.last else 1) if channels > 1 else None  # 1: all channels share parameters
        rows.append((name, what, channels, dimension, REPLACED, ""))
    counts = {(name, what): count for name, what, count in report.functional}
    reasons = {
        (name, what): "it is a call in a forward, which cannot be replaced" for name, what, _ in report.unreachable
    }
    reasons |= {(row.name, row.what): row.reason for row in report.kept}
    for (name, what), why in reasons.items():
        calls = f" ({count} calls)" if (count := counts.get((name, what), 1)) > 1 else ""
        rows.append((name or "(the model itself)", what, None, None, STAYS, why + calls))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]
