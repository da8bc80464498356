"""Mirrors among the functions of a study: what `--skip-mirrors` leaves untrained, and which ranked rows are mirrors.

Why -f(-x) is worth as much as f, and where it is not, is in search_space/mirror.py and docs/search-space.md. It holds
for the distribution of results, not for one seed, so no function is ever given the result of its mirror.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from search_space import SpaceError, key, mirror, parse
from searcher.book import Book
from searcher.ranking import place
from searcher.report import Row
from searcher.store import Store
from searcher.trial import Kind, Study, Trial, TrialState

MOST_MARKED = 1000  # rows of a ranking; each takes a millisecond or two

log = logging.getLogger("searcher")


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror of a function: its key, and its text in normal form."""

    key: str
    expression: str


@lru_cache(maxsize=4096)
def mirror_of(text: str) -> Mirror | None:
    """Return the mirror of the function that `text` writes.

    None if the text cannot be read here: `maxout(2)` is no expression, and a primitive of a user's own is unknown while
    its module is not loaded.
    """
    try:
        tree = mirror(parse(text))
    except SpaceError:
        return None
    return Mirror(key(tree), str(tree))


class Mirrors:
    """The candidates that `--skip-mirrors` leaves untrained.

    Such a trial ends as PRUNED before it begins, without a result (`Trial.left_untrained`). It says nothing about its
    function: the next trial of the same function is decided anew.

    Args:
        book: what the search knows of its study.
        skip: the setting; if it is off, all candidates are trained.
    """

    def __init__(self, book: Book, skip: bool) -> None:
        self._book, self._skip = book, skip

    def awaited(self, trial: Trial) -> str | None:
        """Return the key of the running function whose end decides `trial`: its own, or its mirror. None: nothing
        stands in the way of training it."""
        keys = [trial.key]
        if self._skip and trial.kind is Kind.CANDIDATE and (found := mirror_of(trial.expression)):
            keys.append(found.key)
        return next((key for key in keys if key in self._book.behind), None)

    def decided(self, trial: Trial) -> Trial:
        """Return a new or waiting trial as left untrained if its mirror has been judged, else as it is."""
        if not self._skip or trial.state.finished or trial.kind is Kind.BASELINE:
            return trial
        found = mirror_of(trial.expression)
        known = self._book.functions.get(found.key) if found else None
        if found is None or known is None:
            return trial
        reason = f"mirror of {found.expression} (trial {known.number}), left untrained by --skip-mirrors"
        return replace(trial, state=TrialState.PRUNED, reason=reason, finish_order=self._book.finished)

    def told(self, trial: Trial) -> Trial | None:
        """Return what the sampler is told of a judged trial; None: nothing.

        A trial that was left untrained is told with the result of its mirror, an equally good sample of what training
        it would have given. The worst reward would be a verdict on a function that nobody has tried; told nothing, the
        sampler would propose the function again.
        """
        if not trial.left_untrained:
            return trial
        found = mirror_of(trial.expression)
        known = self._book.functions.get(found.key) if found else None
        if known is None:
            return None
        return replace(trial, state=known.state, val_loss=known.val_loss, val_acc=known.val_acc)


def marked(store: Store, study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows of a leaderboard with one more field, `mirror`.

    It is `mirror of relu` or `mirror of trial 12` where -f(-x) is ranked in the same study too, else empty. Of a pair
    one row is marked: the candidate if the other is a baseline, otherwise the one that ranks lower. Mirrors are found
    through an index, for the first `MOST_MARKED` rows.
    """
    if len(rows) > MOST_MARKED:
        log.info("mirrors are marked in the first %d of %d rows", MOST_MARKED, len(rows))
    mirrors = {row["key"]: found.key for row in rows[:MOST_MARKED] if (found := mirror_of(row["expression"]))}
    ranked = {row["key"]: row for row in store.functions(study, list(mirrors.values()))}
    return [{**row, "mirror": _mark(row, ranked.get(mirrors.get(row["key"], "")), study)} for row in rows]


def _mark(row: Row, other: Row | None, study: Study) -> str:
    if other is None or other["number"] == row["number"]:  # an odd function is its own mirror
        return ""
    if row["kind"] == other["kind"]:
        comes_first = place(other, study) < place(row, study)
    else:
        comes_first = other["kind"] == Kind.BASELINE
    name = other["name"] if other["name"] not in ("", "own") else f"trial {other['number']}"
    return f"mirror of {name}" if comes_first else ""
