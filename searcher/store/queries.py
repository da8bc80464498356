"""Named queries that reports and the status of a study are made of. They read only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from searcher.records import Kind, Study, TrialState
from searcher.store import schema
from searcher.store.store import Store

_T = schema.trial.c


@dataclass(frozen=True, slots=True)
class Totals:
    """How many trials of a study ended in which way.

    Attributes:
        finished: trials that have ended.
        candidates, baselines: trials of that kind that were trained to the end.
        pruned: trials whose training was stopped early.
        mirrors: trials left untrained because they mirror another function of the study.
        cited: trials that cite the result of an equal function.
        infeasible: trials whose function cannot be trained.
        refused: infeasible trials that were refused before any training.
        failed: trials that the machine, not the function, ended.
    """

    finished: int
    candidates: int
    baselines: int
    pruned: int
    mirrors: int
    cited: int
    infeasible: int
    refused: int
    failed: int


def totals(store: Store, study: Study) -> Totals:
    """Return how many trials of the study ended in which way."""
    n = sa.func.count
    trained = _T.seconds > 0
    complete = sa.and_(trained, _T.state == TrialState.COMPLETE)
    refused = sa.and_(_T.state == TrialState.INFEASIBLE, _T.cites.is_(None), sa.not_(trained))
    mirrors = sa.and_(_T.state == TrialState.PRUNED, _T.value.is_(None), _T.cites.is_(None))
    unfinished = [state for state in TrialState if not state.finished]
    [row] = store.read(
        sa.select(
            n().filter(_T.state.not_in(unfinished)).label("finished"),
            n().filter(complete, _T.kind == Kind.CANDIDATE).label("candidates"),
            n().filter(complete, _T.kind == Kind.BASELINE).label("baselines"),
            n().filter(trained, _T.state == TrialState.PRUNED).label("pruned"),
            n().filter(mirrors).label("mirrors"),
            n(_T.cites).label("cited"),
            n().filter(_T.state == TrialState.INFEASIBLE).label("infeasible"),
            n().filter(refused).label("refused"),
            n().filter(_T.state == TrialState.FAILED).label("failed"),
        ).where(_T.study_id == study.id)
    )
    return Totals(**row._mapping)


def running(store: Store, study: Study, limit: int) -> list[tuple[int, str]]:
    """Return numbers and expressions of the first `limit` trials that are running, by number."""
    rows = store.read(
        sa.select(_T.number, _T.expression)
        .where(_T.study_id == study.id, _T.finish_order.is_(None), _T.state == TrialState.RUNNING)
        .order_by(_T.number)
        .limit(limit)
    )
    return [(row.number, row.expression) for row in rows]


def failure_reasons(store: Store, study: Study, limit: int) -> list[tuple[int, str]]:
    """Return numbers and reasons of the latest `limit` failed trials, latest first."""
    rows = store.read(
        sa.select(_T.number, _T.reason)
        .where(_T.study_id == study.id, schema.FAILED)
        .order_by(_T.number.desc())
        .limit(limit)
    )
    return [(row.number, row.reason) for row in rows]


def end_times(store: Store, study: Study, limit: int) -> list[datetime]:
    """Return when the latest `limit` trials ended, latest first."""
    rows = store.read(
        sa.select(_T.finished_at)
        .where(_T.study_id == study.id, _T.finish_order.is_not(None))
        .order_by(_T.finish_order.desc())
        .limit(limit)
    )
    return [row.finished_at for row in rows]
