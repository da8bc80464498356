"""The queries of reports and of the status of a study. They only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from searcher.records import Kind, Study, Trial, TrialState
from searcher.store import schema
from searcher.store.rows import trial_of
from searcher.store.store import Store

_T = schema.trial.c


@dataclass(frozen=True, slots=True)
class Totals:
    """The numbers of a study's trials by how they ended.

    Attributes:
        finished: all trials that have ended.
        candidates, baselines: trials of that kind that were trained to the end.
        pruned: trials whose training was stopped early.
        mirrors: trials left untrained because they mirror another function of the study.
        cited: trials that cite the result of an equal function.
        infeasible: trials whose function cannot be trained.
        refused: infeasible trials that the pre-flight refused before any training.
        failed: trials that ended because of the machine, not of the function.
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
    """Return the numbers of the study's trials by how they ended."""
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


def ended_by_function(store: Store, study: Study, limit: int) -> list[tuple[str, str, int]]:
    """Return the names and expressions of the first `limit` functions of a study, each with the number of its trials
    that have ended."""
    ended = sa.func.count(_T.finish_order)
    rows = store.read(
        sa.select(_T.name, _T.expression, ended.label("ended"))
        .where(_T.study_id == study.id)
        .group_by(_T.name, _T.expression)
        .order_by(sa.func.min(_T.number))
        .limit(limit)
    )
    return [(row.name, row.expression, row.ended) for row in rows]


def running(store: Store, study: Study, limit: int) -> list[tuple[int, str]]:
    """Return the numbers and expressions of the first `limit` running trials, by number."""
    rows = store.read(
        sa.select(_T.number, _T.expression)
        .where(_T.study_id == study.id, _T.finish_order.is_(None), _T.state == TrialState.RUNNING)
        .order_by(_T.number)
        .limit(limit)
    )
    return [(row.number, row.expression) for row in rows]


def failure_reasons(store: Store, study: Study, limit: int) -> list[tuple[int, str]]:
    """Return the numbers and reasons of the latest `limit` failed trials, latest first."""
    rows = store.read(
        sa.select(_T.number, _T.reason)
        .where(_T.study_id == study.id, schema.FAILED)
        .order_by(_T.number.desc())
        .limit(limit)
    )
    return [(row.number, row.reason) for row in rows]


def training_seconds(store: Store, study: Study, limit: int) -> list[float]:
    """Return how many seconds the latest `limit` trainings took that were not stopped early."""
    rows = store.read(
        sa.select(_T.seconds)
        .where(_T.study_id == study.id, _T.finish_order.is_not(None), _T.state == TrialState.COMPLETE, _T.seconds > 0)
        .order_by(_T.finish_order.desc())
        .limit(limit)
    )
    return [row.seconds for row in rows]


def training_seeds(store: Store, study: Study) -> set[int]:
    """Return the training seeds of a study's trials."""
    rows = store.read(sa.select(_T.seed).where(_T.study_id == study.id).distinct())
    return {row.seed for row in rows}


def end_times(store: Store, study: Study, limit: int) -> list[datetime]:
    """Return the times at which the latest `limit` trials ended, latest first."""
    rows = store.read(
        sa.select(_T.finished_at)
        .where(_T.study_id == study.id, _T.finish_order.is_not(None))
        .order_by(_T.finish_order.desc())
        .limit(limit)
    )
    return [row.finished_at for row in rows]


def trials_of(store: Store, study: Study, keys: Sequence[str]) -> list[Trial]:
    """Return the study's trials of the functions with these stored keys, by number."""
    rows = store.read(sa.select(schema.trial).where(_T.study_id == study.id, _T.key.in_(keys)).order_by(_T.number))
    return [trial_of(row._mapping) for row in rows]


def first_learned(store: Store, study: Study, expression: str) -> int | None:
    """Return the number of the first training of an expression that has learned parameters; None if none has."""
    c = schema.learned.c
    rows = store.read(
        sa.select(sa.func.min(_T.number))
        .join(schema.learned, sa.and_(c.study_id == _T.study_id, c.number == _T.number, c.position == 0))
        .where(_T.study_id == study.id, _T.expression == expression, _T.state == TrialState.COMPLETE)
    )
    return None if rows[0][0] is None else int(rows[0][0])


def infeasible_reasons(store: Store, study: Study) -> list[tuple[str, int]]:
    """Return the reasons of infeasible trials, each with the number of trials. Citations do not count."""
    rows = store.read(
        sa.select(_T.reason, sa.func.count().label("trials"))
        .where(_T.study_id == study.id, _T.state == TrialState.INFEASIBLE, _T.cites.is_(None))
        .group_by(_T.reason)
        .order_by(_T.reason)
    )
    return [(row.reason, row.trials) for row in rows]
