"""The leaders of a study as functions: their curves and their slopes."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from search_space import KNOWN, parse
from searcher.display import cut
from searcher.records import Study
from searcher.reports.function import REACH, Array, FunctionReport, sampled
from searcher.reports.pictures import style
from searcher.reports.pictures.base import Data, NothingToDraw, label, leading, tree_of
from searcher.reports.plot import FARTHEST, broken_at, limits
from searcher.reports.words import metric_facts
from searcher.store.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6
POINTS = 400  # an even number, which leaves out x = 0, where many functions break
RELU = KNOWN["relu"].expression


def functions_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the curves of the leading candidates; of baselines, if there is no candidate."""
    metric, configuration, found = leading(store, study, SHOWN)
    rows = [row for row in found if not row["baseline"]] or found
    drawn = [row for row in rows if tree_of(row["expression"])][:SHOWN]
    if not drawn:
        raise NothingToDraw(f"no ranked function of study {study.name!r} is an expression of known primitives")
    x = np.linspace(-REACH, REACH, POINTS)
    curves = [
        {"label": label(row), "expression": row["expression"], "value": row["value"], **_curve(row["expression"], x)}
        for row in drawn
    ]
    told = {"metric": metric_facts(metric), "configuration": configuration}
    return {**told, "x": x.tolist(), "functions": curves, "relu": _curve(RELU, x)}


def _curve(text: str, x: Array) -> dict[str, Any]:
    """Return f and f' at each x, None where they are not finite or where a line must not be drawn on."""
    report = FunctionReport(parse(text))
    value, slope = sampled(report.expression, x)
    jumps, kinks = report.profile.jumps, report.profile.kinks
    return {
        "f": plain_curve(broken_at(x, value, jumps)),
        "slope": plain_curve(broken_at(x, slope, (*jumps, *kinks))),
    }


def plain_curve(y: Array) -> list[float | None]:
    """Return values with None where they are not finite."""
    return [value if np.isfinite(value) else None for value in y.tolist()]


def draw_functions(data: Data) -> Figure:
    """Draw a panel for each function: f, f' and ReLU."""
    functions = data["functions"]
    picture, panels = style.grid(len(functions), 1.9, 0.3)
    for place, (axes, row) in enumerate(zip(panels, functions, strict=True), 1):
        _draw(axes, data, row)
        value = f"\n{data['metric']['name']} {row['value']:.4g}"
        text = fill(cut(f"{place}. {row['label']}", 64), 34)
        axes.set_title(style.plain(text + value), fontsize=7.5)
    handles, names = panels[0].get_legend_handles_labels()
    if any(parse(row["expression"]).betas for row in functions):
        names = [f"{name}, each beta at 1" if name == "f(x)" else name for name in names]
    picture.legend(handles, names, loc="outside lower center", ncols=3)
    return picture


def _draw(axes: Axes, data: Data, row: Data) -> None:
    style.zero_lines(axes, x=True, y=True)
    x = np.array(data["x"])
    f, slope, relu = (_array(values) for values in (row["f"], row["slope"], data["relu"]["f"]))
    axes.plot(x, relu, color=style.LIGHT, linewidth=1.0, label="ReLU")
    axes.plot(x, slope, color=style.RED, linestyle="--", linewidth=1.1, label="slope f'(x)")
    axes.plot(x, f, color=style.BLUE, linewidth=1.9, label="f(x)")
    axes.set_xlim(-REACH, REACH)
    axes.set_ylim(*limits([f, slope], FARTHEST[0]))


def _array(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values])
