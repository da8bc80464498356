"""The names of known functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from search_space import KNOWN, key, parse
from searcher.display import label
from searcher.reports.report import Row


def with_labels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows of functions (`key`, `name`, `expression`) with one more field, `label`: the name of the function if
    it is a known one, whether it was a baseline or a sampler has found it; otherwise the expression."""
    known = _names()
    return [{**row, "label": known.get(row["key"]) or label(row["name"], row["expression"])} for row in rows]


@cache
def _names() -> Mapping[str, str]:
    """Return the names of the known functions by their keys."""
    return {key(parse(row.expression)): name for name, row in KNOWN.items()}
