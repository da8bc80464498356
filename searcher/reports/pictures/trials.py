"""All trials of a study: how good they were, and why some could not be trained."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from searcher.display import cut, headline
from searcher.records import REFUSED, Kind, Study, TrialState
from searcher.reports.pictures import style
from searcher.reports.pictures.base import Data, NothingToDraw, baselines, complete, finished_trials, ranked
from searcher.reports.words import metric_facts
from searcher.store.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 24
MOST_BASELINES = 14
REASONS = 12  # bars; rarer reasons are added up in one more
# What differs from function to function: places, values, numbers.
_DETAILS = re.compile(r",? (?:at (?:epoch|step|x)|after (?:epoch|step)|where) .*|: -?(?:[\d.]|nan|inf).*", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d.]*(?:e[+-]?\d+)?(?![\w])")


def trials_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the values of all candidates that were trained to the end, and of the baselines."""
    trials = finished_trials(store, study)
    candidates = [trial for trial in trials if trial.kind is Kind.CANDIDATE]
    values = sorted(float(trial.value or 0.0) for trial in complete(candidates))
    marks = baselines(ranked(store, study, 1))
    counts = Counter(trial.state for trial in candidates if trial.cites is None)
    return {
        "metric": metric_facts(study.objective),
        "candidates": values,
        "baselines": marks,
        "infeasible": counts[TrialState.INFEASIBLE],
        "pruned": counts[TrialState.PRUNED],
        "failed": counts[TrialState.FAILED],
    }


def draw_trials(data: Data) -> Figure:
    """Draw how often which value was reached, with the baselines below."""
    marks = data["baselines"][:MOST_BASELINES]
    values = [mark["value"] for mark in marks]
    low, high = style.value_range(data["candidates"] or values, data["metric"], values)
    heights = [1.5, 0.15 + style.ROW * len(marks)]
    if not marks:
        picture, (axes,) = style.new(style.COLUMN, 2.1)
        panels = [axes]
    else:
        picture, panels = style.new(
            style.COLUMN, sum(heights) + 0.7, 2, 1, sharex=True, gridspec_kw={"height_ratios": heights}
        )
        _rows(panels[1], marks)
    _histogram(panels[0], data, low, high)
    panels[-1].set_xlim(low, high)
    panels[-1].set_xlabel(style.metric_label(data["metric"]))
    return picture


def _histogram(axes: Axes, data: Data, low: float, high: float) -> None:
    inside = [value for value in data["candidates"] if low <= value <= high]
    axes.hist(inside, np.linspace(low, high, BINS + 1).tolist(), color=style.SKY, edgecolor="white", linewidth=0.4)
    axes.set_ylabel("candidates")
    style.whole_ticks(axes.yaxis)
    relu = next((mark for mark in data["baselines"] if mark["name"] == "relu"), None)
    if relu:
        axes.axvline(relu["value"], color=style.BLACK, linestyle="--", linewidth=1)
    beyond = len(data["candidates"]) - len(inside)
    texts = {"worse not shown": beyond, "infeasible": data["infeasible"], "stopped early": data["pruned"]}
    style.note(axes, ", ".join(f"{number} {text}" for text, number in texts.items() if number))


def _rows(axes: Axes, marks: list[Data]) -> None:
    """Draw a row for each baseline, the best one on top."""
    for place, mark in enumerate(marks):
        relu = mark["name"] == "relu"
        axes.axhline(place, color=style.PALE, linewidth=0.6, zorder=0)
        axes.plot(
            mark["value"],
            place,
            marker="D" if relu else "s",
            color=style.BLACK,
            markerfacecolor=style.BLACK if relu else "white",
            markersize=4,
        )
        if relu:
            axes.plot([mark["value"]] * 2, [place, -0.7], color=style.BLACK, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(marks)), [style.plain(cut(mark["name"], 16)) for mark in marks])
    axes.set_ylim(len(marks) - 0.4, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def reasons_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the reasons why functions could not be trained, the commonest first. Places and values are left out."""
    trials = [trial for trial in finished_trials(store, study) if trial.cites is None]
    found: Counter[tuple[str, bool]] = Counter(
        (_common(trial.reason), trial.reason.startswith(REFUSED))
        for trial in trials
        if trial.state is TrialState.INFEASIBLE
    )
    if not found:
        raise NothingToDraw(f"no function of study {study.name!r} was infeasible")
    rows = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "trials": len(trials),
        "infeasible": found.total(),
        "reasons": [
            {"reason": reason, "before_training": before, "trials": number} for (reason, before), number in rows
        ],
    }


def _common(reason: str) -> str:
    """Return what a reason shares with those of other functions: no places, no values."""
    text = headline(reason).removeprefix(REFUSED)
    return _NUMBER.sub("…", _DETAILS.sub("", text)) or text


def draw_reasons(data: Data) -> Figure:
    """Draw a bar for each reason."""
    rows = list(data["reasons"][:REASONS])
    rest = data["reasons"][REASONS:]
    if rest:
        number = sum(row["trials"] for row in rest)
        rows.append({"reason": f"{len(rest)} rarer reasons", "before_training": None, "trials": number})
    picture, (axes,) = style.new(style.PAGE, 0.8 + 0.24 * len(rows))
    looks = {
        True: (style.ORANGE, "", "before training"),
        False: (style.BLUE, "////", "in training"),
        None: (style.PALE, "", ""),
    }
    seen = set()
    for place, row in enumerate(rows):
        colour, hatch, name = looks[row["before_training"]]
        text = f"found {name}" if name and name not in seen else None
        seen.add(name)
        axes.barh(place, row["trials"], 0.72, color=colour, edgecolor="white", hatch=hatch, label=text)
        axes.annotate(
            f"{row['trials']}", (row["trials"], place), xytext=(3, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(rows)), [style.plain(cut(row["reason"], 56)) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"infeasible functions ({data['infeasible']} of {data['trials']} judged)")
    style.whole_ticks(axes.xaxis)
    axes.legend(loc="lower right")
    return picture
