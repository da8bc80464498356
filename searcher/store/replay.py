"""Read a study's trials for its next session, page by page, so that memory and transactions stay small.

Trials that have ended do not change while the study's lease is held, so the pages are consistent with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from searcher.records import Study, Trial
from searcher.store import schema
from searcher.store.rows import trial_of
from searcher.store.store import Store
from workers.contract import Point

PAGE = 1000  # trials


def ended(store: Store, study: Study, curves: bool) -> Iterator[tuple[Trial, Sequence[Point]]]:
    """Yield the trials that have ended, in the order of their ends, each with its learning curve (empty without
    `curves`)."""
    t = schema.trial
    after = -1
    while True:
        page = store.read(
            sa.select(t)
            .where(t.c.study_id == study.id, t.c.finish_order > after)
            .order_by(t.c.finish_order)
            .limit(PAGE)
        )
        if not page:
            return
        after = page[-1].finish_order
        points = store.curves(study, [row.number for row in page]) if curves else {}
        yield from ((trial_of(row._mapping), points.get(row.number, ())) for row in page)


def open_trials(store: Store, study: Study) -> list[Trial]:
    """Return the trials that wait or run, by number."""
    t = schema.trial
    found = store.read(sa.select(t).where(t.c.study_id == study.id, t.c.finish_order.is_(None)).order_by(t.c.number))
    return [trial_of(row._mapping) for row in found]
