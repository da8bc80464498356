"""Collect what a report shows beside the evidence: pictures, and what the functions cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from searcher import SearcherError
from searcher.display import measured
from searcher.records import Study
from searcher.reports import cost, pictures
from searcher.reports.pictures import NothingToDraw
from searcher.reports.words import brief, counted
from searcher.store.store import Store

NEEDS_MATPLOTLIB = "Pictures need matplotlib: pip install 'activation-searcher[plot]', and make the report again."
ORDER = (  # the evidence first
    *("differences", "confirmed", "map", "ranks", "progress", "trials"),
    *("functions", "learned", "curves", "cost", "size", "parts", "reasons"),
)
COST = "cost"  # the kind of picture that measures costs
LISTED = 4  # functions that a caption names
Data = Mapping[str, Any]


def pictures_of(store: Store, study: Study, *, costs: bool) -> list[dict[str, Any]]:
    """Return the data of all pictures that the study has, each with its kind and a caption that says what it shows.

    Args:
        costs: measure costs for the picture of values against costs.
    """
    found = []
    for kind in sorted(pictures.available(study), key=ORDER.index):
        if kind == COST and not costs:
            continue
        try:
            data = pictures.data(kind, store, study)
        except NothingToDraw:
            continue
        found.append({"kind": kind, "title": data["title"], "caption": caption(data), "data": data})
    return found


def missing() -> str:
    """Return how to get pictures if they cannot be drawn here; otherwise an empty text."""
    return "" if find_spec("matplotlib") else NEEDS_MATPLOTLIB


def drawn(picture: Data) -> str:
    """Return a picture as an `<svg>` element; empty if it cannot be drawn here."""
    if missing():
        return ""
    try:
        return pictures.svg(pictures.figure(picture["kind"], picture["data"]))
    except SearcherError:
        return ""


# Costs ----------------------------------------------------------------------------------------------------------------

_COSTS = ("forward_ns", "both_ns", "forward_ratio", "both_ratio", "saved_bytes")


def costs_of(functions: Sequence[tuple[str, str]], found: Sequence[Data]) -> dict[str, Any]:
    """Return what functions cost on this machine, beside ReLU: as the picture of costs has measured them, or, without
    it, measured now.

    Args:
        functions: their labels and expressions; empty: nothing is measured.
        found: the data of pictures.
    """
    if not functions:
        return {"conditions": "", "functions": []}
    picture = next((one["data"] for one in found if one["kind"] == COST), None)
    if picture:
        labels = {expression: label for label, expression in functions}
        rows = [
            {
                "label": labels.get(row["expression"]) or row["name"] or row["expression"],
                "expression": row["expression"],
            }
            | {name: row[name] for name in _COSTS}
            | {"note": ""}
            for row in picture["functions"]
        ]
        return {"conditions": picture["conditions"], "functions": rows}
    named = [{"label": label, "expression": expression} for label, expression in functions]
    measured_rows = cost.with_costs(named)
    rows = [
        {"label": row["label"], "expression": row["expression"]}
        | {name: row[f"cost_{name}"] for name in _COSTS}
        | {"note": row["cost_note"]}
        for row in measured_rows
    ]
    return {"conditions": cost.in_words(measured_rows[0]), "functions": rows}


# Captions -------------------------------------------------------------------------------------------------------------


def caption(data: Data) -> str:
    """Return what a picture shows: its title, and the main facts in it, for those who cannot see it too."""
    title = data["title"][0].upper() + data["title"][1:]
    said = _CAPTIONS.get(data["picture"], _nothing)(_abridged(data))
    return f"{title}. {said}".strip()


def _abridged(value: Any) -> Any:
    """Return plain values with long texts cut short."""
    match value:
        case str():
            return brief(value)
        case dict():
            return {name: _abridged(one) for name, one in value.items()}
        case list():
            return [_abridged(one) for one in value]
    return value


def _nothing(data: Data) -> str:
    del data
    return ""


def _progress(data: Data) -> str:
    if not data["best"]:
        return f"{counted(data['finished'], 'trial')} have ended; no candidate has a value yet."
    last = data["best"][-1]
    return (
        f"{data['metric']['name']} of {counted(len(data['trials']), 'trial')}. The best candidate changed "
        f"{counted(len(data['best']), 'time')}; the last one, {last['expression']} ({measured(last['value'])}), came "
        f"after {counted(last['trials'], 'trial')}."
    )


def _trials(data: Data) -> str:
    values = data["candidates"]
    spread = f" from {measured(values[0])} to {measured(values[-1])}" if values else ""
    marks = ", ".join(f"{one['name']} {measured(one['value'])}" for one in data["baselines"][:LISTED])
    beside = f" Baselines: {marks}." if marks else ""
    return f"{counted(len(values), 'candidate')} have {data['metric']['name']}{spread}.{beside}"


def _front(data: Data, ranks: Sequence[int]) -> str:
    by_rank = {row["rank"]: row["name"] or row["expression"] for row in data["functions"]}
    return ", ".join(by_rank[rank] for rank in ranks[:LISTED] if rank in by_rank)


def _cost(data: Data) -> str:
    return f"On the front by time: {_front(data, data['time_front'])}. By memory: {_front(data, data['memory_front'])}."


def _size(data: Data) -> str:
    return (
        f"{counted(len(data['functions']), 'function')}. On the front, smallest first: {_front(data, data['front'])}."
    )


def _parts(data: Data) -> str:
    rows = data["primitives"]
    if not rows:
        return ""
    best, worst = rows[0], rows[-1]
    ends = f"highest ({best['effect']:+.2g} of the mean rank), those with {worst['part']} lowest"
    return (
        f"Over {counted(data['functions'], 'function')}: those with {best['part']} rank {ends} "
        f"({worst['effect']:+.2g}). A correlation, not a cause."
    )


def _reasons(data: Data) -> str:
    first = data["reasons"][0]
    return (
        f"{data['infeasible']} of {counted(data['trials'], 'trial')} were infeasible; the commonest reason: "
        f"{first['reason']} ({first['trials']})."
    )


def _differences(data: Data) -> str:
    told = [_panel(panel) for panel in data["panels"]]
    return f"Right of zero is better than {data['reference']} by {data['metric']['name']}. {' '.join(told)}"


def _panel(panel: Data) -> str:
    rows = [row for row in panel["functions"] if row["difference"] is not None][:LISTED]
    each = ", ".join(f"{row['label']} {row['difference']:+.2g} ({row['verdict']})" for row in rows)
    return f"{panel['configuration']}: {each}." if each else ""


def _map(data: Data) -> str:
    return f"A row for each of {counted(len(data['order']), 'function')}, a column for each configuration."


def _confirmed(data: Data) -> str:
    told = []
    for panel in data["panels"]:
        below = sum(row["difference"] < row["searched"] for row in panel["functions"])
        told.append(f"{panel['configuration']}: so did {below} of {counted(len(panel['functions']), 'function')}.")
    return f"Points below the diagonal gained more over {data['reference']} in the search than later. {' '.join(told)}"


def _ranks(data: Data) -> str:
    rows = ", ".join(f"{row['label']} {row['mean_rank']:.2g}" for row in data["functions"][:LISTED])
    return f"Mean ranks (1 is best): {rows}. Ranks closer than {data['critical_difference']:.2g} are not told apart."


def _functions(data: Data) -> str:
    return f"{', '.join(row['label'] for row in data['functions'])}; ReLU is beside each."


def _learned(data: Data) -> str:
    told = ", ".join(f"{row['label']} at {counted(len(row['sites']), 'site')}" for row in data["functions"])
    return f"{told}. Each line is the median over the channels of a site, after one training."


def _curves(data: Data) -> str:
    labels = dict.fromkeys(line["label"] for panel in data["panels"] for line in panel["lines"])
    return f"{data['metric']['name']} at each step of {', '.join(labels)}." if labels else ""


_CAPTIONS: Mapping[str, Callable[[Data], str]] = {
    "progress": _progress,
    "trials": _trials,
    "cost": _cost,
    "size": _size,
    "parts": _parts,
    "reasons": _reasons,
    "differences": _differences,
    "map": _map,
    "confirmed": _confirmed,
    "ranks": _ranks,
    "functions": _functions,
    "learned": _learned,
    "curves": _curves,
}
