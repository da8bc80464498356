"""How a study went: the best value so far, and the learning curves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import TYPE_CHECKING, Any

from searcher.display import cut
from searcher.records import Kind, Study
from searcher.reports.confirmed import Confirmed, is_confirmation
from searcher.reports.pictures import style
from searcher.reports.pictures.base import (
    Data,
    NothingToDraw,
    baselines,
    complete,
    finished_trials,
    label,
    leaders,
    no_result,
    ranked,
)
from searcher.reports.words import metric_facts
from searcher.store.store import Store
from workers.contract import Metric, Point
from workers.tasks.base import IMAGES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEADERS = 4  # whose learning curves are drawn
OTHERS = 2  # baselines beside them
PANELS = 4  # configurations that are drawn
UNITS = ((2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))  # from so many seconds on


def progress_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the values of all trials in the order in which they ended, and the best candidate up to each of them."""
    trials = finished_trials(store, study)
    spent = list(accumulate(trial.seconds for trial in trials))
    after = {trial.number: (place, spent[place - 1]) for place, trial in enumerate(trials, 1)}
    done = complete(trials)
    if not done:
        raise no_result(study)
    rows = [
        {
            "trials": after[trial.number][0],
            "seconds": after[trial.number][1],
            "number": trial.number,
            "expression": trial.expression,
            "baseline": trial.kind is Kind.BASELINE,
            "value": trial.value,
            "merit": trial.merit,
        }
        for trial in done
    ]
    best: list[dict[str, Any]] = []
    for row in rows:
        if not row["baseline"] and (not best or row["merit"] > best[-1]["merit"]):
            best.append(row)
    without = [{name: value for name, value in row.items() if name != "merit"} for row in rows]
    return {
        "metric": metric_facts(study.objective),
        "finished": len(trials),
        "seconds": spent[-1],
        "trials": without,
        "best": [{name: value for name, value in row.items() if name not in ("merit", "baseline")} for row in best],
        "baselines": baselines(ranked(store, study, 1)),
    }


def draw_progress(data: Data) -> Figure:
    """Draw the best value against the number of trials and against the time of training."""
    picture, panels = style.new(style.PAGE, 2.5, 1, 2, sharey=True)
    _, divisor, unit = next(row for row in UNITS if data["seconds"] >= row[0])
    metric, marks = data["metric"], data["baselines"]
    shown = [row for row in marks if row["name"] == "relu"] or marks[-1:]
    if marks and marks[0] not in shown:
        shown = [marks[0], *shown]
    ends = (data["finished"], data["seconds"] / divisor)
    for axes, which, scale, end in zip(panels, ("trials", "seconds"), (1, divisor), ends, strict=True):
        for baseline, mark, colour, name in (
            (False, "o", style.LIGHT, "candidate"),
            (True, "s", style.GREY, "baseline"),
        ):
            rows = [row for row in data["trials"] if row["baseline"] == baseline]
            axes.plot(
                [row[which] / scale for row in rows],
                [row["value"] for row in rows],
                linestyle="",
                marker=mark,
                markersize=2.8,
                markerfacecolor="none" if baseline else colour,
                markeredgecolor=style.BLACK if baseline else style.GREY,
                markeredgewidth=0.5,
                label=name,
                rasterized=len(rows) > style.MOST_POINTS,
            )
        best = data["best"]
        if best:
            axes.step(
                [*(row[which] / scale for row in best), end],
                [*(row["value"] for row in best), best[-1]["value"]],
                where="post",
                color=style.BLUE,
                linewidth=1.8,
                label="best candidate so far",
            )
        for row, dashes in zip(shown, (("--", style.RED), (":", style.BLACK))[-len(shown) :], strict=False):
            axes.axhline(
                row["value"],
                linestyle=dashes[0],
                color=dashes[1],
                linewidth=1.1,
                label=_baseline_label(row, marks),
            )
        axes.set_xlim(0, end * 1.02 or 1)
    panels[0].set_ylim(*_range(data, shown))
    panels[0].set_ylabel(style.metric_label(metric))
    panels[0].set_xlabel("trials that have ended")
    panels[1].set_xlabel(f"time of training, all workers together ({unit})")
    style.whole_ticks(panels[0].xaxis)
    handles, names = panels[0].get_legend_handles_labels()
    picture.legend(handles, names, loc="outside lower center", ncols=len(names))
    return picture


def _baseline_label(row: Data, marks: Sequence[Data]) -> str:
    best = "best baseline: " if row == marks[0] else ""
    return style.plain(best + cut(row["name"], 26))


def _range(data: Data, shown: Sequence[Data]) -> tuple[float, float]:
    values = [row["value"] for row in data["trials"]]
    return style.value_range(values, data["metric"], [row["value"] for row in shown])


def curves_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the learning curves of the leaders and of baselines; of a confirmation, their means over the seeds."""
    if is_confirmation(study):
        return _confirmed_curves(store, study)
    rows = leaders(store, study, LEADERS)
    candidates = [row for row in rows if not row["baseline"]]
    marks = [row for row in rows if row["baseline"]]
    relu = [row for row in marks if row["name"] == "relu"]
    shown = [*candidates, *(relu + [row for row in marks if row not in relu])[:OTHERS]]
    curves = store.curves(study, [row["number"] for row in shown])
    metric = _metric_of(study.task.declared.metrics, study.objective, curves.values())
    lines = [
        _line(label(row), row["baseline"], metric, [curves[row["number"]]]) for row in shown if row["number"] in curves
    ]
    panels = [{"configuration": "", "lines": lines}]
    return _curves(study, metric, panels)


def _confirmed_curves(store: Store, study: Study) -> dict[str, Any]:
    found = Confirmed.of(store, study)
    plan, panels = found.plan, []
    numbers = {(trial.key, trial.seed, trial.task_config): trial.number for trial in found.trials}
    curves = store.curves(study)
    metric = _metric_of(study.task.declared.metrics, plan.metric, curves.values())
    for configuration, samples in zip(plan.configurations[:PANELS], found.samples, strict=False):
        means = {one.label: fmean(merits) for one in plan.functions if (merits := samples.merits(one.label))}
        others = sorted(
            (f for f in plan.functions if f.key != plan.reference), key=lambda f: -means.get(f.label, -1e300)
        )
        reference = [one for one in plan.functions if one.key == plan.reference]
        lines = []
        for function in [*others[: LEADERS + 1], *reference]:
            config = found.results.chosen(configuration, function.key)
            own = [numbers.get((function.key, seed, config)) for seed in plan.seeds]
            seen = [curves[number] for number in own if number in curves]
            if seen:
                lines.append(_line(function.label, function in reference, metric, seen))
        panels.append({"configuration": configuration.name, "lines": lines})
    return _curves(study, metric, [panel for panel in panels if panel["lines"]])


def _curves(study: Study, metric: Metric, panels: Sequence[Data]) -> dict[str, Any]:
    if not any(line["points"] for panel in panels for line in panel["lines"]):
        raise NothingToDraw(f"study {study.name!r} has no learning curve of a function that was trained to the end")
    step = "epoch" if study.task.config.task == IMAGES else "step"
    return {"metric": metric_facts(metric), "step": step, "panels": list(panels)}


def _metric_of(metrics: Sequence[Metric], wanted: Metric, curves: Iterable[Sequence[Point]]) -> Metric:
    """Return the metric to draw: the one that is wanted or, if curves do not have it, the same of another split, or any
    that they have."""
    names = {name for curve in curves for point in curve for name in point.metrics}
    rest = wanted.name.partition("_")[2]
    order = (wanted.name, f"val_{rest}", f"train_{rest}", *sorted(names))
    name = next((name for name in order if name in names), wanted.name)
    return next((metric for metric in metrics if metric.name == name), wanted)


def _line(name: str, baseline: bool, metric: Metric, curves: Sequence[Sequence[Point]]) -> dict[str, Any]:
    """Return the mean of learning curves, with the least and the greatest value at each step."""
    by_step: defaultdict[int, list[float]] = defaultdict(list)
    for curve in curves:
        for point in curve:
            if metric.name in point.metrics:
                by_step[point.step].append(point.metrics[metric.name])
    points = [
        {"step": step, "mean": fmean(values), "least": min(values), "most": max(values)}
        for step, values in sorted(by_step.items())
    ]
    return {"label": name, "baseline": baseline, "trainings": len(curves), "points": points}


def draw_curves(data: Data) -> Figure:
    """Draw the learning curves, a panel for each configuration."""
    panels = data["panels"]
    width = style.COLUMN if len(panels) == 1 else style.PAGE
    longest = max(len(panel["lines"]) for panel in panels)
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    picture, axes = style.new(width, rows * 2.2 + style.ROW * longest / columns + 0.1, rows, columns, squeeze=False)
    looks = _looks(panels)
    for place, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
        _draw_lines(ax, panel["lines"], looks, data["metric"])
        several = place >= len(panels) - columns and any(line["trainings"] > 1 for line in panel["lines"])
        ax.set_xlabel(data["step"] + "\nline: mean of the seeds; band: least to greatest" * several)
        ax.set_ylabel(style.metric_label(data["metric"]) if len(panels) == 1 else style.unit_label(data["metric"], ""))
        if panel["configuration"]:
            ax.set_title(style.plain(panel["configuration"]))
        style.whole_ticks(ax.xaxis)
    for ax in axes[len(panels) :]:
        ax.remove()
    handles: dict[str, Any] = {}
    for ax in axes[: len(panels)]:
        handles |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    ncols = 1 if width == style.COLUMN else 2
    picture.legend(handles.values(), list(handles), loc="outside lower center", ncols=ncols)
    return picture


def _looks(panels: Sequence[Data]) -> Mapping[str, dict[str, Any]]:
    """Return colour, dashes and mark of each function, the same in all panels; baselines are grey."""
    looks: dict[str, dict[str, Any]] = {}
    candidates = marks = 0
    for line in (line for panel in panels for line in panel["lines"]):
        if line["label"] in looks:
            continue
        if line["baseline"]:
            looks[line["label"]] = {
                "color": style.GREY,
                "linestyle": ("-", "--")[marks % 2],
                "marker": ("x", "+")[marks % 2],
            }
            marks += 1
        else:
            places = candidates % len(style.COLOURS)
            looks[line["label"]] = {
                "color": style.COLOURS[places],
                "linestyle": style.DASHES[places],
                "marker": style.MARKS[places],
            }
            candidates += 1
    return looks


def _draw_lines(axes: Any, lines: Sequence[Data], looks: Mapping[str, dict[str, Any]], metric: Data) -> None:
    values: list[float] = []
    late: list[float] = []  # all but the beginning of long trainings
    for line in lines:
        look, points = looks[line["label"]], line["points"]
        steps = [point["step"] for point in points]
        axes.plot(
            steps,
            [point["mean"] for point in points],
            **look,
            markersize=3.5,
            markevery=max(1, len(points) // 8),
            label=style.plain(cut(line["label"], style.LABEL)),
            zorder=2 if line["baseline"] else 3,
        )
        if line["trainings"] > 1 and line in (lines[0], lines[-1]):  # the best one and the reference
            low, high = ([point[end] for point in points] for end in ("least", "most"))
            axes.fill_between(steps, low, high, color=look["color"], alpha=0.15, linewidth=0)
        values += [point["mean"] for point in points]
        late += [point["mean"] for point in points if point["step"] > steps[-1] / 10]
    axes.set_ylim(*style.value_range(values, metric, late))
