"""What a confirmation has found: differences to the reference, and what they were in the search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from searcher.confirmation import Confirmation
from searcher.display import cut
from searcher.evidence.across import ENOUGH
from searcher.evidence.paired import Comparison, Evidence, Verdict, chosen_rope
from searcher.records import Study
from searcher.reports.confirmed import Confirmed, is_confirmation, plan_of
from searcher.reports.function import Array
from searcher.reports.pictures import style
from searcher.reports.pictures.base import Data, NothingToDraw
from searcher.reports.words import metric_facts
from searcher.store.store import Store
from workers.contract import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERS = 8  # functions that all get a number; of more, only those without a name
PANELS = 4  # configurations that are drawn as panels
MARKS: Mapping[str, tuple[str, str, bool]] = {  # mark, colour, filled
    Verdict.BETTER: ("^", style.BLUE, True),
    Verdict.WORSE: ("v", style.RED, True),
    Verdict.EQUIVALENT: ("s", style.BLACK, True),
    Verdict.UNDECIDED: ("o", style.GREY, False),
}
SIGNS: Mapping[str, str] = {Verdict.BETTER: "▲", Verdict.WORSE: "▼", Verdict.EQUIVALENT: "=", Verdict.UNDECIDED: ""}


def differences_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the mean difference of each function to the reference under each configuration, best functions first."""
    found = _read(store, study)
    plan = found.plan
    expressions = {one.label: one.expression for one in plan.functions}
    panels: list[dict[str, Any]] = [
        {
            "configuration": evidence.configuration,
            "level": 1 - evidence.alpha / evidence.looks,
            "functions": [_compared(one, expressions) for one in evidence.comparisons],
        }
        for evidence in found.evidence.evidence
    ]
    order = _order(panels)
    for panel in panels:
        panel["functions"].sort(key=lambda row: order.index(row["label"]))
    return {
        "metric": metric_facts(plan.metric),
        "reference": plan.reference_label,
        "rope": chosen_rope(plan.rope, plan.metric),
        "order": order,
        "panels": panels,
    }


def _read(store: Store, study: Study) -> Confirmed:
    """Read a confirmation in which something can be compared.

    Raises:
        NothingToDraw: nothing can be, yet.
    """
    from searcher.evidence.samples import EvidenceError

    found = Confirmed.of(store, study)
    try:
        nothing = not found.evidence.evidence
    except EvidenceError as error:
        raise NothingToDraw(f"nothing can be compared yet in study {study.name!r}: {error}") from error
    if nothing:
        raise NothingToDraw(f"study {study.name!r} has not reached its first look at the data")
    return found


def _compared(one: Comparison, expressions: Mapping[str, str]) -> dict[str, Any]:
    return {
        "label": one.function,
        "expression": expressions[one.function],
        "difference": one.difference,
        "low": one.interval.low if one.interval else None,
        "high": one.interval.high if one.interval else None,
        "verdict": str(one.verdict),
        "p": one.p_holm,
        "seeds": one.n,
        "diverged": one.diverged,
        "reference_diverged": one.reference_diverged,
    }


def _order(panels: Sequence[Data]) -> list[str]:
    """Return the functions, best first by the mean of their differences; those without one are last."""
    seen: dict[str, list[float]] = {}
    for panel in panels:
        for row in panel["functions"]:
            own = seen.setdefault(row["label"], [])
            if row["difference"] is not None:
                own.append(row["difference"])
    return sorted(seen, key=lambda label: -float(np.mean(seen[label])) if seen[label] else math.inf)


def draw_differences(data: Data) -> Figure:
    """Draw the intervals of the differences: zero line, region of practical equivalence, marks of the verdicts."""
    panels, order = data["panels"][:PANELS], data["order"]
    width = style.COLUMN if len(panels) == 1 else style.PAGE
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = rows * (0.55 + style.ROW * max(3, len(order))) + 0.6
    picture, axes = style.new(width, height, rows, columns, squeeze=False, sharey=True)
    for ax, panel in zip(axes, panels, strict=False):
        _forest(ax, panel, data)
    for ax in axes[len(panels) :]:
        ax.remove()
    level = 100 * panels[0]["level"]
    label = style.unit_label(data["metric"], f"mean difference to {data['reference']} in")
    texts = (label, f"right is better; {level:.4g} % intervals; verdicts are corrected")
    picture.supxlabel(("\n" if width == style.COLUMN else "; ").join(texts), fontsize=8)
    _verdict_legend(
        picture, [row["verdict"] for panel in panels for row in panel["functions"]], data["rope"], data["metric"]
    )
    return picture


def _forest(axes: Axes, panel: Data, data: Data) -> None:
    axes.axvline(0, color=style.BLACK, linewidth=0.7, zorder=1)
    if data["rope"]:
        axes.axvspan(-data["rope"], data["rope"], color=style.PALE, zorder=0, linewidth=0)
    axes.set_xlim(*_reach(panel["functions"]))
    axes.locator_params(axis="x", nbins=6)
    for row in panel["functions"]:
        place = data["order"].index(row["label"])
        mark, colour, filled = MARKS[row["verdict"]]
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.2, zorder=2)
        if row["difference"] is not None:
            face = colour if filled else "white"
            look: dict[str, Any] = {"marker": mark, "color": colour, "markerfacecolor": face, "markersize": 4.5}
            axes.plot(row["difference"], place, zorder=3, **look)
        _remark(axes, row, place)
    axes.set_yticks(range(len(data["order"])), [style.plain(cut(label, 30)) for label in data["order"]])
    axes.set_ylim(len(data["order"]) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if panel["configuration"]:
        axes.set_title(style.plain(panel["configuration"]))


def _remark(axes: Axes, row: Data, place: int) -> None:
    """Say how often a function diverged, and where its difference is if it lies outside the panel."""
    low, high = axes.get_xlim()
    value = row["difference"]
    diverged = f"{row['diverged']} of {row['seeds']} diverged" if row["diverged"] else ""
    verdict = "" if row["verdict"] == Verdict.UNDECIDED else row["verdict"]
    if value is None:
        at, side, text = low, "left", diverged or "no seeds in common"
    elif value < low:
        at, side, text = low, "left", ", ".join(filter(None, (f"◀ {value:.2g}", verdict, diverged)))
    elif value > high:
        at, side, text = high, "right", ", ".join(filter(None, (diverged, verdict, f"{value:.2g} ▶")))
    else:
        side = "left" if value < (low + high) / 2 else "right"
        ends = (value, value) if row["low"] is None else (row["low"], row["high"])
        at, text = min(high, max(low, ends[side == "left"])), diverged
    shift = 4 if side == "left" else -4
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
    if text:
        where: dict[str, Any] = {"xytext": (shift, 0), "textcoords": "offset points", "ha": side, "va": "center"}
        axes.annotate(text, (at, place), fontsize=7, bbox=box, **where)


def _reach(rows: Sequence[Data]) -> tuple[float, float]:
    """Return the range of differences to draw: over zero, the differences that are near the others, and most of their
    intervals, so that one very bad function flattens no other."""
    found = [row for row in rows if row["difference"] is not None]
    differences = [row["difference"] for row in found]
    low, high = style.near(differences, keep=(0.0,))
    inside = [row for row in found if low <= row["difference"] <= high and row["low"] is not None]
    ends = [row[end] for row in inside for end in ("low", "high")]
    return style.near(ends, keep=(0.0, *(value for value in differences if low <= value <= high)))


def _verdict_legend(picture: Figure, verdicts: Sequence[str], rope: float | None, metric: Data) -> None:
    from matplotlib.patches import Patch

    handles = _verdict_handles(verdicts)
    if rope:
        unit = "" if metric["unit"] in ("", "fraction") else f" {metric['unit']}"
        handles.append(Patch(color=style.PALE, label=f"±{rope:g}{unit}: no difference that matters"))
    narrow = picture.get_figwidth() < style.PAGE
    picture.legend(handles=handles, loc="outside upper center", ncols=2 if narrow else len(handles), handlelength=1.6)


def _verdict_handles(verdicts: Sequence[str]) -> list[Any]:
    """Return the legend of the verdicts that a picture has."""
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    for verdict, (mark, colour, filled) in MARKS.items():
        if verdict in verdicts:
            face = colour if filled else "white"
            handles.append(
                Line2D([], [], color=colour, marker=mark, markerfacecolor=face, linestyle="", label=str(verdict))
            )
    return handles


def map_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the same as `differences_data`, for a map."""
    return differences_data(store, study)


def draw_map(data: Data) -> Figure:
    """Draw a cell for each function and configuration: the difference to the reference, and the verdict."""
    panels, order = data["panels"], data["order"]
    cells = {(row["label"], column): row for column, panel in enumerate(panels) for row in panel["functions"]}
    table = np.full((len(order), len(panels)), np.nan)
    for (label, column), row in cells.items():
        if row["difference"] is not None:
            table[order.index(label), column] = row["difference"]
    sizes = np.abs(table[np.isfinite(table)])
    most = float(1.3 * np.quantile(sizes, 0.85)) if sizes.size else 0.0
    narrow, crowded = len(panels) <= 2, len(panels) > 6
    picture, (axes,) = style.new(style.COLUMN if narrow else style.PAGE, 1.3 + (0.34 if crowded else 0.24) * len(order))
    across, down = (np.arange(number + 1) - 0.5 for number in (len(panels), len(order)))
    axes.pcolormesh(
        across, down, table, cmap="PuOr", vmin=-(most or 1), vmax=most or 1, edgecolors="white", linewidth=0.8
    )
    axes.invert_yaxis()
    digits = _digits(sizes)
    for (label, column), row in cells.items():
        value = row["difference"]
        number = "none" if value is None else f"{value:+.{digits}f}" if abs(value) < 100 else f"{value:+.1e}"
        text = number + "†" * bool(row["diverged"])
        dark = value is not None and abs(value) > 0.5 * most > 0
        axes.text(
            column,
            order.index(label),
            f"{text}{chr(10) if crowded else ' '}{SIGNS[row['verdict']]}".rstrip(),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "black",
        )
    axes.set_xticks(range(len(panels)), [style.plain(cut(panel["configuration"], 26)) for panel in panels])
    if len(panels) > 4:
        for tick in axes.get_xticklabels():
            tick.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(order)), [style.plain(cut(label, 26)) for label in order])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    label = style.unit_label(data["metric"], f"mean difference to {data['reference']} in")
    signs = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items() if sign)
    texts = [f"{label}; + is better", f"{signs}, no mark: undecided"]
    if any(row["diverged"] for row in cells.values()):
        texts.append("† diverged on some seeds")
    picture.supxlabel(("\n" if narrow else "; ").join(texts), fontsize=7)
    return picture


def _digits(sizes: Array) -> int:
    """Return how many decimals show two digits of the middle one of these sizes."""
    middle = float(np.median(sizes)) if sizes.size else 0.0
    return min(6, max(2, 1 - math.floor(math.log10(middle)))) if middle > 0 else 2


def confirmed_data(store: Store, study: Study) -> dict[str, Any]:
    """Return what functions gained over the reference in the search, and what was confirmed.

    The search measured one seed on the validation part, the confirmation several seeds on the test part, and often with
    another network. So differences to the reference are compared and not values.
    """
    found = _read(store, study)
    plan = found.plan
    searched_by, reference = _searched(plan)
    functions = {one.label: one for one in plan.functions}
    panels = []
    for evidence in found.evidence.evidence:
        rows = [
            {
                **_compared(one, {label: function.expression for label, function in functions.items()}),
                "searched": searched_by.merit(searched) - searched_by.merit(reference),
                "searched_value": searched,
            }
            for one in evidence.comparisons
            if (searched := functions[one.function].searched) is not None and one.difference is not None
        ]
        panels.append({"configuration": evidence.configuration, "level": _level(evidence), "functions": rows})
    if not any(panel["functions"] for panel in panels):
        raise NothingToDraw(f"no function of study {study.name!r} has a value in its search and a confirmed one")
    return {
        "metric": metric_facts(plan.metric),
        "search_metric": metric_facts(searched_by),
        "search": plan.search,
        "reference": plan.reference_label,
        "panels": panels,
    }


def _level(evidence: Evidence) -> float:
    return 1 - evidence.alpha / evidence.looks


def _searched(plan: Confirmation) -> tuple[Metric, float]:
    """Return the metric of the search, and the reference's value in it.

    Raises:
        NothingToDraw: values of the search and of the confirmation cannot be compared.
    """
    if plan.searched is None:
        raise NothingToDraw("this confirmation was made without a search, so there are no values to compare with")
    if not _same(plan.searched, plan.metric):
        raise NothingToDraw(
            f"the search ranked by {plan.searched.name} and the confirmation by {plan.metric.name}: not comparable"
        )
    reference = next(one for one in plan.functions if one.key == plan.reference)
    if reference.searched is None:
        raise NothingToDraw(f"the search did not train the reference {reference.label}, so there is no gain over it")
    return plan.searched, reference.searched


def _same(one: Metric, other: Metric) -> bool:
    """Return True if two metrics differ by the split only."""
    rest = (one.name.partition("_")[2], other.name.partition("_")[2])
    return rest[0] == rest[1] and (one.direction, one.unit) == (other.direction, other.unit)


def draw_confirmed(data: Data) -> Figure:
    """Draw the confirmed difference against the one of the search. Below the diagonal the search flattered."""
    from matplotlib.lines import Line2D

    panels = data["panels"][:PANELS]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    width = style.COLUMN if len(panels) == 1 else style.PAGE
    points = [row for panel in panels for row in panel["functions"]]
    best = sorted({row["label"]: row["searched"] for row in points}.items(), key=lambda pair: -pair[1])
    found = {row["label"] for row in points if row["label"] == row["expression"]}  # the others are known functions
    if len(best) > MOST_NUMBERS and found:
        best = [pair for pair in best if pair[0] in found]
    places = {label: place for place, (label, _) in enumerate(best, 1)}
    lines = -(-len(places) // (1 if width == style.COLUMN else 2))
    picture, axes = style.new(width, 2.5 * rows + 0.6 + style.ROW * lines, rows, columns, squeeze=False)
    for ax, panel in zip(axes, panels, strict=False):
        _against(ax, panel, places)
        if panel["configuration"]:
            ax.set_title(style.plain(panel["configuration"]), loc="left")
    for ax in axes[len(panels) :]:
        ax.remove()
    reference = data["reference"]
    for ax in axes[max(0, len(panels) - columns) : len(panels)]:
        ax.set_xlabel(style.unit_label(data["search_metric"], f"gain over {reference} in the search,"))
    for ax in axes[: len(panels) : columns]:
        ax.set_ylabel(style.unit_label(data["metric"], f"confirmed gain over {reference},"))
    diagonal = axes[0].get_legend_handles_labels()[0]
    level = 100 * panels[0]["level"]
    interval = Line2D([], [], color=style.GREY, marker="|", markersize=9, linestyle="", label=f"{level:.4g} % interval")
    picture.legend(
        handles=[*diagonal, interval, *_verdict_handles([row["verdict"] for row in points])],
        loc="outside upper center",
        ncols=2 if width == style.COLUMN else 6,
        handlelength=1.8,
    )
    style.number_legend(picture, {place: label for label, place in places.items()}, 1 if width == style.COLUMN else 2)
    return picture


def _against(axes: Axes, panel: Data, places: Mapping[str, int]) -> None:
    rows = panel["functions"]
    style.zero_lines(axes, x=True, y=True)
    axes.axline((0, 0), slope=1, color=style.GREY, linestyle="--", linewidth=0.9, label="as good as in the search")
    left, right = style.near([row["searched"] for row in rows], keep=(0.0,))
    bottom, top = _reach(rows)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.locator_params(axis="x", nbins=6)
    outside: list[str] = []
    for row in rows:
        mark, colour, filled = MARKS[row["verdict"]]
        if row["low"] is not None:
            axes.plot([row["searched"]] * 2, [row["low"], row["high"]], color=colour, linewidth=1.0)
        face, number = colour if filled else "white", places.get(row["label"])
        size = 4.5 if number else 3.0
        look: dict[str, Any] = {"marker": mark, "color": colour, "markerfacecolor": face, "markersize": size}
        axes.plot(row["searched"], row["difference"], linestyle="", **look)
        at = row["searched"], row["difference"]
        if not (left <= at[0] <= right and bottom <= at[1] <= top):
            outside.append(f"{number}" if number else cut(row["label"], 12))
        elif number:
            axes.annotate(str(number), at, xytext=(4, 2), textcoords="offset points", fontsize=7)
    if outside:
        style.note(axes, f"outside: {', '.join(sorted(outside))}")


def has_ranks(study: Study) -> bool:
    """Return True if a confirmation has enough configurations for mean ranks."""
    return is_confirmation(study) and len(plan_of(study).configurations) >= ENOUGH


def has_map(study: Study) -> bool:
    """Return True if a confirmation has several configurations."""
    return is_confirmation(study) and len(plan_of(study).configurations) > 1


def was_searched(study: Study) -> bool:
    """Return True if values of a search can be compared with confirmed ones."""
    try:
        return is_confirmation(study) and bool(_searched(plan_of(study)))
    except NothingToDraw:
        return False


def ranks_data(store: Store, study: Study) -> dict[str, Any]:
    """Return mean ranks over the configurations, and the critical difference."""
    found = _read(store, study)
    ranks = found.evidence.ranks
    if ranks is None:
        raise NothingToDraw(
            f"mean ranks need {ENOUGH} configurations or more under which the same functions were trained to the last "
            f"seed; study {study.name!r} has {len(found.plan.configurations)}"
        )
    return {
        "configurations": ranks.configurations,
        "alpha": found.plan.alpha,
        "critical_difference": ranks.critical_difference,
        "friedman_p": ranks.p,
        "reference": found.plan.reference_label,
        "functions": [
            {"label": one.function, "mean_rank": one.mean_rank, "p_wilcoxon": one.p_wilcoxon, "p_holm": one.p_holm}
            for one in ranks.functions
        ],
    }


def draw_ranks(data: Data) -> Figure:
    """Draw a critical-difference diagram: functions that a bar joins are not told apart."""
    rows, critical = data["functions"], data["critical_difference"]
    groups = _groups([row["mean_rank"] for row in rows], critical)
    height = 0.9 + style.ROW * (len(rows) + 1.2 * len(groups) + 2)
    picture, (axes,) = style.new(style.COLUMN, height)
    for place, row in enumerate(rows):
        axes.axhline(place, color=style.PALE, linewidth=0.6, zorder=0)
        reference = row["label"] == data["reference"]
        face = style.BLACK if reference else style.BLUE
        axes.plot(row["mean_rank"], place, marker="D" if reference else "o", color=face)
    bottom = len(rows) - 0.3
    for level, (first, last) in enumerate(groups):
        ends = [rows[first]["mean_rank"] - 0.03, rows[last]["mean_rank"] + 0.03]
        axes.plot(ends, [bottom + level * 0.9] * 2, color=style.BLACK, linewidth=2.6, solid_capstyle="butt")
    axes.plot([1, 1 + critical], [-1.3, -1.3], color=style.BLACK, marker="|", linewidth=0.9)
    axes.annotate(
        f"critical difference {critical:.2f}", (1, -1.3), xytext=(0, 3), textcoords="offset points", fontsize=7
    )
    axes.set_xlim(0.8, max(len(rows), 1 + critical) + 0.2)
    axes.set_ylim(bottom + 0.9 * len(groups), -2.3)
    axes.set_yticks(range(len(rows)), [style.plain(cut(row["label"], 26)) for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    picture.supxlabel(
        f"mean rank, {data['configurations']} configurations (1 is best)\nbars join what is not told apart (Nemenyi, "
        f"{100 * data['alpha']:g} %)",
        fontsize=8,
    )
    style.whole_ticks(axes.xaxis)
    return picture


def _groups(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """Return the first and the last index of each longest run of functions that are not told apart."""
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(index for index in range(first, len(ranks)) if ranks[index] - ranks[first] < critical)
        if last > first and not any(a <= first and last <= b for a, b in found):
            found.append((first, last))
    return found
