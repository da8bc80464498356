"""Mark the mirrors among the ranked functions of a study."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from searcher.mirrors import mirror_of
from searcher.records import Kind, Study
from searcher.reports.report import Row
from searcher.store.ranking import place
from searcher.store.store import Store

MAX_MARKED = 1000  # rows of a ranking that are marked; each takes a millisecond or two

log = logging.getLogger("searcher")


def marked(store: Store, study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows of a leaderboard with one more field, `mirror`.

    The field is `mirror of relu` or `mirror of trial 12` if -f(-x) is ranked in the same study too, otherwise empty.
    One row of each pair is marked: the candidate if the other one is a baseline, otherwise the one that ranks lower.
    Only the first `MAX_MARKED` rows are marked.
    """
    if len(rows) > MAX_MARKED:
        log.info("mirrors are marked in the first %d of %d rows", MAX_MARKED, len(rows))
    mirrors = {row["key"]: found.key for row in rows[:MAX_MARKED] if (found := mirror_of(row["expression"]))}
    ranked = {row["key"]: row for row in store.functions(study, list(mirrors.values()))}
    return [{**row, "mirror": _mark(row, ranked.get(mirrors.get(row["key"], "")), study)} for row in rows]


def _mark(row: Row, other: Row | None, study: Study) -> str:
    if other is None or other["number"] == row["number"]:  # an odd function is its own mirror
        return ""
    if row["kind"] == other["kind"]:
        comes_first = place(other, study.task) < place(row, study.task)
    else:
        comes_first = other["kind"] == Kind.BASELINE
    name = other["name"] if other["name"] not in ("", "own") else f"trial {other['number']}"
    return f"mirror of {name}" if comes_first else ""
