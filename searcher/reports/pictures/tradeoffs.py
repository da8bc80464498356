"""What a good value takes: time and memory, or a large expression; with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from searcher.records import Study
from searcher.reports.cost import in_words, with_costs
from searcher.reports.pictures import style
from searcher.reports.pictures.base import Data, NothingToDraw, described, front, ranked, tree_of
from searcher.store.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURED = 40  # functions whose cost is measured, beside the baselines
NAMED = 5  # functions of the front that are named in the picture


def cost_data(store: Store, study: Study) -> dict[str, Any]:
    """Return values and measured costs of the leaders and of the baselines. This takes some seconds."""
    rows = with_costs(ranked(store, study, MEASURED))
    found = [row for row in rows if not row["cost_note"]]
    if not found:
        raise NothingToDraw(f"the cost of no function of study {study.name!r} can be measured: {rows[0]['cost_note']}")
    names = ("cost_forward_ns", "cost_both_ns", "cost_forward_ratio", "cost_both_ratio", "cost_saved_bytes")
    return {
        "metric": described(study.objective),
        "functions": [_kept(row, names) for row in found],
        "time_front": _front(found, "cost_both_ratio", study),
        "memory_front": _front(found, "cost_saved_bytes", study),
        "left_out": [{"expression": row["expression"], "why": row["cost_note"]} for row in rows if row["cost_note"]],
        "conditions": in_words(found[0]),
    }


def size_data(store: Store, study: Study) -> dict[str, Any]:
    """Return values and sizes of all functions that were trained to the end."""
    rows = [{**row, "nodes": tree.size} for row in ranked(store, study) if (tree := tree_of(row["expression"]))]
    if not rows:
        raise NothingToDraw(f"no ranked function of study {study.name!r} is an expression of known primitives")
    return {
        "metric": described(study.objective),
        "functions": [_kept(row, ("nodes",)) for row in rows],
        "front": _front(rows, "nodes", study),
    }


def _kept(row: Data, names: Sequence[str]) -> dict[str, Any]:
    kept = ("rank", "expression", "name", "baseline", "value", "trainings")
    return {name: row[name] for name in kept} | {name.removeprefix("cost_"): row[name] for name in names}


def _front(rows: Sequence[Data], cost: str, study: Study) -> list[int]:
    """Return the ranks of the functions on the Pareto front, cheapest first."""
    merits = [study.objective.merit(row["value"]) for row in rows]
    return [rows[index]["rank"] for index in front([row[cost] for row in rows], merits)]


def draw_cost(data: Data) -> Figure:
    """Draw value against time and against memory."""
    picture, panels = style.new(style.PAGE, 2.9, 1, 2, sharey=True)
    _scatter(panels[0], data, "both_ratio", data["time_front"])
    _scatter(panels[1], data, "saved_bytes", data["memory_front"])
    panels[0].set_xscale("log")
    _plain_log_ticks(panels[0])
    panels[0].set_xlabel("time forward and backward (times ReLU's)")
    panels[1].set_xlabel("memory kept for backward (bytes for each element)")
    panels[1].set_xlim(left=-0.5)
    panels[0].set_ylabel(style.metric_label(data["metric"]))
    _legend(picture, panels[0])
    return picture


def draw_size(data: Data) -> Figure:
    """Draw value against the number of nodes."""
    picture, (axes,) = style.new(style.COLUMN, 2.7)
    _scatter(axes, data, "nodes", data["front"])
    axes.set_xlabel("nodes of the expression")
    axes.set_ylabel(style.metric_label(data["metric"]))
    style.whole_ticks(axes.xaxis)
    _legend(picture, axes)
    return picture


def _legend(picture: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    picture.legend(handles, names, loc="outside lower center", ncols=3)


def _scatter(axes: Axes, data: Data, which: str, best: Sequence[int]) -> None:
    rows = data["functions"]
    by_rank = {row["rank"]: row for row in rows}
    for baseline, mark, face in ((False, "o", style.LIGHT), (True, "s", "white")):
        own = [row for row in rows if row["baseline"] == baseline]
        axes.plot(
            [row[which] for row in own],
            [row["value"] for row in own],
            linestyle="",
            marker=mark,
            markersize=3.4,
            markerfacecolor=face,
            markeredgecolor=style.BLACK if baseline else style.GREY,
            markeredgewidth=0.6,
            label="baseline" if baseline else "candidate",
            rasterized=len(own) > style.MOST_POINTS,
        )
    line = [by_rank[rank] for rank in best]
    axes.plot(
        [row[which] for row in line],
        [row["value"] for row in line],
        drawstyle="steps-post",
        color=style.BLUE,
        marker="D",
        markersize=3.4,
        label="Pareto front",
        zorder=3,
    )
    low, high = style.value_range([row["value"] for row in rows], data["metric"], [line[0]["value"]])
    axes.set_ylim(low, high)
    left_out = sum(not low <= row["value"] <= high for row in rows)
    if left_out:
        style.note(axes, f"{left_out} worse not shown")
    _name(axes, line, which, data["metric"])


def _name(axes: Axes, line: Sequence[Data], which: str, metric: Data) -> None:
    """Name functions of the front on its better side, the best ones first, where there is room."""
    from matplotlib.transforms import ScaledTranslation

    del ScaledTranslation, axes, line, which, metric


def _plain_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
