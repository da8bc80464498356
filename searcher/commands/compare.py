"""`searcher compare` and `searcher find`: functions and studies side by side. They only read the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from searcher import DEFAULT_STORAGE, UsageError
from searcher.commands import completion
from searcher.commands.console import Format, Output, Storage, Wide, loading, no_result, opened, print_rows, print_text
from searcher.commands.tables import Long
from searcher.display import label, measured, metrics_line

if TYPE_CHECKING:
    from searcher.reports.comparing import SideBySide, Studies
    from searcher.reports.finding import Function
    from searcher.store.store import Store

app = typer.Typer()

Primitives = Annotated[
    str | None, typer.Option(help="Modules that register primitives of your own: package.module,...")
]


class TakesFormulas(TyperCommand):
    """A command whose arguments may be formulas, so that `-x + cos(x)` is not taken for an option `-x`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {name for parameter in self.params for name in parameter.opts}
        return super().parse_args(ctx, [f" {arg}" if _is_formula(arg, options) else arg for arg in args])


def _is_formula(arg: str, options: set[str]) -> bool:
    return len(arg) > 1 and arg[0] == "-" and arg[1] != "-" and arg[:2] not in options


@app.command(cls=TakesFormulas)
def compare(
    a: Annotated[
        str,
        typer.Argument(
            help="A function (a formula or a known name), or the name of a study.", autocompletion=completion.studies
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            help="What it is compared with: a function or a study, as A is.", autocompletion=completion.studies
        ),
    ],
    storage: Storage = DEFAULT_STORAGE,
    study: Annotated[
        str | None,
        typer.Option(
            help="Compare two functions within this study only; otherwise in the whole database.",
            autocompletion=completion.studies,
        ),
    ] = None,
    as_studies: Annotated[
        bool | None,
        typer.Option(
            "--studies/--functions",
            help="What A and B are. Not given: studies, if the database has both names; otherwise functions.",
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="Compare functions by this metric; otherwise by the objective.")] = "",
    primitives: Primitives = None,
    output: Output = Format.table,
    wide: Wide = False,
) -> None:
    """Put two functions, or two studies, side by side: values by seed, the paired test, how many more seeds."""
    with opened(storage) as store:
        names = store.names()
        if as_studies is None:
            as_studies = study is None and a in names and b in names
        if as_studies:
            if study or metric:
                raise UsageError(
                    f"{'--study' if study else '--metric'} is for comparing functions, and these are studies"
                )
            _compare_studies(store, a, b, output, wide)
        else:
            _load(primitives)
            _check_functions(a, b, names)
            _compare_functions(store, a, b, study, metric, output)


def _check_functions(a: str, b: str, names: list[str]) -> None:
    """Raise an error if one of two texts is no function, and if a study was meant, say so."""
    from search_space import SpaceError
    from searcher.reports.finding import function_of

    try:
        for text in (a, b):
            function_of(text)
    except SpaceError as error:
        if (a in names) == (b in names):
            raise
        one, other = (a, b) if a in names else (b, a)
        raise UsageError(
            f"{one!r} is a study, and there is no study {other!r}; name two studies, or two functions"
        ) from error


def _compare_functions(store: Store, a: str, b: str, study: str | None, metric: str, output: Format) -> None:
    from searcher.reports import comparing

    found = comparing.functions(store, a, b, study=store.study(study) if study else None, metric=metric)
    if output in (Format.json, Format.yaml):
        print_rows([one.to_plain() for one in found], output)
    elif output is Format.table:
        for one in found:
            _print_pair(one)
    else:
        print_rows([one.facts() for one in found], output)


def _print_pair(one: SideBySide) -> None:
    """Print the values of each seed as a table, and the verdict below."""
    metric = one.samples.metric
    print_text(f"{metric.name} ({metric.direction}) of {one.samples.configuration}; from: {', '.join(one.studies)}")
    _print_seeds(one)
    print_text("\n  ".join(one.sentences))


def _print_seeds(one: SideBySide) -> None:
    a, b = one.names
    rows: list[dict[str, Any]] = []
    for row in one.seed_rows():
        shown = (
            measured(value) if value is not None else ended
            for value, ended in zip(row["values"], row["ended"], strict=True)
        )
        rows.append({"seed": str(row["seed"]), **dict(zip((a, b), shown, strict=True)), "better by": row["difference"]})
    facts = one.facts()
    means = {a: measured(facts["mean_a"]), b: measured(facts["mean_b"])}
    rows.append({"seed": "mean", **means, "better by": facts["difference"]})
    print_rows([{**row, "better by": _signed(row["better by"])} for row in rows], Format.table)


def _signed(difference: float | None) -> str:
    return "" if difference is None else f"{difference:+.4g}"


def _compare_studies(store: Store, a: str, b: str, output: Format, wide: bool) -> None:
    from searcher.reports import comparing

    found = comparing.studies(store, store.study(a), store.study(b))
    if output in (Format.json, Format.yaml):
        print_rows([one.to_plain() for one in found], output)
    elif output is Format.table:
        for one in found:
            _print_studies(one, wide)
    else:
        print_rows([{"judged_by": one.judged_by[0], **row} for one in found for row in one.shared_rows()], output)


def _print_studies(one: Studies, wide: bool) -> None:
    """Print what two studies measured differently, their functions, and what follows."""
    a, b = one.names
    print_text(f"{a}: {one.metrics[0].name} of {one.judged_by[0]}\n{b}: {one.metrics[1].name} of {one.judged_by[1]}")
    if one.differences:
        print_text("They measured different things:")
        print_rows([{"what": what, a: _cell(x), b: _cell(y)} for what, x, y in one.differences], Format.table)
    if one.shared:
        rows = [
            {
                "function": Long(row.function),
                f"{a}: mean": measured(row.means[0]),
                f"{b}: mean": measured(row.means[1]),
                "better by": _signed(row.difference),
                f"{a}: seeds": row.seeds[0],
                f"{b}: seeds": row.seeds[1],
                "common seeds": row.common,
            }
            for row in one.shared
        ]
        spare = (f"{a}: seeds", f"{b}: seeds")
        rows = rows if not one.differences else [_without_difference(row) for row in rows]
        print_rows(rows, Format.table, spare=spare, wide=wide)
    if one.best:
        _print_seeds(one.best)
    print_text("\n".join(one.sentences))


def _without_difference(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "better by"}


def _cell(value: Any) -> str:
    return "(not set)" if value in (None, "") else str(value)


@app.command(cls=TakesFormulas)
def find(
    expression: Annotated[str, typer.Argument(help="A formula, as in 'x * sigmoid(beta * x)', or a known name.")],
    storage: Storage = DEFAULT_STORAGE,
    primitives: Primitives = None,
    output: Output = Format.table,
    wide: Wide = False,
) -> None:
    """List the trials of a function in all studies of a database, whatever name or form it has there."""
    from searcher.reports import finding

    _load(primitives)
    function = finding.function_of(expression)
    with opened(storage) as store:
        rows = [finding.row(found) for found in finding.trainings(store, [function.key])]
        if output is Format.table:
            print_rows([_in_short(row) for row in rows], output, spare=("judged by", "seed"), wide=wide)
            print_text(_summary(function, rows, store))
        elif output is Format.csv or output is Format.markdown:
            flat = [{**row, "metrics": metrics_line(row["metrics"])} for row in rows]
            print_rows(flat, output, finding.COLUMNS)
        else:
            print_rows(rows, output)


def _in_short(row: dict[str, Any]) -> dict[str, Any]:
    state = row["state"] if row["cites"] is None else f"{row['state']}, cites {row['cites']}"
    return {
        "study": row["study"],
        "number": row["number"],
        "expression": Long(label(row["name"], row["expression"])),
        "seed": row["seed"],
        "judged by": row["judged_by"],
        "state": f"{state}, another function" if row["cites_other_function"] else state,
        "values": metrics_line(row["metrics"]),
    }


def _summary(function: Function, rows: list[dict[str, Any]], store: Store) -> str:
    if not rows:
        return f"{function.label} was not tried in any study of {store.shown_url}."
    studies = len({row["study"] for row in rows})
    seeds = len({row["seed"] for row in rows})
    return (
        f"{function.label} (key {function.key}): {len(rows)} trial{'s' * (len(rows) != 1)} in {studies} "
        f"stud{'y' if studies == 1 else 'ies'}, with {seeds} different seed{'s' * (seeds != 1)}."
    )


def _load(primitives: str | None) -> None:
    """Register primitives of a person's own."""
    with loading():
        from search_space import load_primitives

    with no_result():
        load_primitives([name for part in (primitives or "").split(",") if (name := part.strip())])
