"""What a good value takes: time and memory, or a large expression; with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from searcher.records import Study
from searcher.reports.cost import in_words, with_costs
from searcher.reports.pictures import style
from searcher.reports.pictures.base import Data, NothingToDraw, front, label, leading, tree_of
from searcher.reports.words import metric_facts
from searcher.store.store import Store
from workers.contract import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURED = 40  # functions whose cost is measured, beside the baselines
EVERY = 1_000_000  # functions of a search
NAMED = 8  # functions of the front that are named in the picture


def cost_data(store: Store, study: Study) -> dict[str, Any]:
    """Return values and measured costs of the leaders and of the baselines. This takes some seconds."""
    metric, configuration, functions = leading(store, study, MEASURED)
    rows = with_costs(functions)
    found = [row for row in rows if not row["cost_note"]]
    if not found:
        raise NothingToDraw(f"the cost of no function of study {study.name!r} can be measured: {rows[0]['cost_note']}")
    names = ("cost_forward_ns", "cost_both_ns", "cost_forward_ratio", "cost_both_ratio", "cost_saved_bytes")
    return {
        "metric": metric_facts(metric),
        "configuration": configuration,
        "functions": [_kept(row, names) for row in found],
        "time_front": _front(found, "cost_both_ratio", metric),
        "memory_front": _front(found, "cost_saved_bytes", metric),
        "left_out": [{"expression": row["expression"], "why": row["cost_note"]} for row in rows if row["cost_note"]],
        "conditions": in_words(found[0]),
    }


def size_data(store: Store, study: Study) -> dict[str, Any]:
    """Return values and sizes of all functions that were trained to the end."""
    metric, configuration, functions = leading(store, study, EVERY)
    rows = [{**row, "nodes": tree.size} for row in functions if (tree := tree_of(row["expression"]))]
    if not rows:
        raise NothingToDraw(f"no ranked function of study {study.name!r} is an expression of known primitives")
    return {
        "metric": metric_facts(metric),
        "configuration": configuration,
        "functions": [_kept(row, ("nodes",)) for row in rows],
        "front": _front(rows, "nodes", metric),
    }


def _kept(row: Data, names: Sequence[str]) -> dict[str, Any]:
    kept = ("rank", "expression", "name", "baseline", "value", "trainings")
    return {name: row[name] for name in kept} | {name.removeprefix("cost_"): row[name] for name in names}


def _front(rows: Sequence[Data], cost: str, metric: Metric) -> list[int]:
    """Return the ranks of the functions on the Pareto front, cheapest first."""
    merits = [metric.merit(row["value"]) for row in rows]
    return [rows[index]["rank"] for index in front([row[cost] for row in rows], merits)]


def draw_cost(data: Data) -> Figure:
    """Draw value against time and against memory."""
    named = _named(data, [*data["time_front"], *data["memory_front"]])
    lines = -(-len(named) // 2)
    picture, panels = style.new(style.PAGE, 2.6 + style.ROW * lines, 1, 2, sharey=True)
    _scatter(panels[0], data, "both_ratio", data["time_front"])
    _scatter(panels[1], data, "saved_bytes", data["memory_front"])
    panels[0].set_xscale("log")
    _plain_log_ticks(panels[0])
    panels[0].set_xlabel("time forward and backward (times ReLU's)")
    panels[1].set_xlabel("memory kept for backward (bytes for each element)")
    panels[1].set_xlim(left=-0.5)
    panels[1].locator_params(axis="x", nbins=6, steps=[1, 2, 4, 8, 10], integer=True)
    panels[0].set_ylabel(_value_label(data))
    _legends(picture, panels[0], data, named, 2)
    return picture


def draw_size(data: Data) -> Figure:
    """Draw value against the number of nodes."""
    named = _named(data, data["front"])
    picture, (axes,) = style.new(style.COLUMN, 2.6 + style.ROW * len(named))
    _scatter(axes, data, "nodes", data["front"])
    axes.set_xlabel("nodes of the expression")
    axes.set_ylabel(_value_label(data))
    style.whole_ticks(axes.xaxis)
    _legends(picture, axes, data, named, 1)
    return picture


def _value_label(data: Data) -> str:
    text = style.metric_label(data["metric"])
    return f"{text}\n{style.plain(data['configuration'])}" if data["configuration"] else text


def _named(data: Data, ranks: Sequence[int]) -> dict[int, str]:
    """Return the best functions of the front by their ranks."""
    texts = {row["rank"]: label(row) for row in data["functions"]}
    return {rank: texts[rank] for rank in sorted(set(ranks))[:NAMED]}


def _legends(picture: Figure, axes: Axes, data: Data, named: Mapping[int, str], columns: int) -> None:
    handles, names = axes.get_legend_handles_labels()
    if data["configuration"]:
        names = ["reference" if name == "baseline" else name for name in names]
        names = ["function" if name == "candidate" else name for name in names]
    picture.legend(handles, names, loc="outside upper center", ncols=3, handlelength=1.6)
    style.number_legend(picture, named, columns)


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
        markersize=5.5,
        markerfacecolor="none",
        label="Pareto front",
        zorder=1,
    )
    low, high = style.value_range([row["value"] for row in rows], data["metric"], share=0.6)
    axes.set_ylim(low, high)
    left_out = sum(not low <= row["value"] <= high for row in rows)
    if left_out:
        style.note(axes, f"{left_out} worse not shown")
    named = _named(data, best)
    for row in line:
        if row["rank"] in named and low <= row["value"] <= high:
            axes.annotate(
                str(row["rank"]),
                (row[which], row["value"]),
                xytext=(3, 4),
                textcoords="offset points",
                fontsize=7,
                color=style.BLUE,
            )


def _plain_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
