"""Rank a study's functions through an index. The view `leaderboard` gives the same ranking of all functions.

A function is ranked by the mean over its trainings, which is never better than the best of them. So it is enough to
read trainings in the order of an index, best first: a function whose mean is no worse than the last training that was
read ranks before every function that was not read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from searcher.records import Kind, Study, StudyTask, rank_key
from searcher.store import schema
from searcher.store.schema import BASELINE, RANKED

CHUNK = 500  # number of functions in one statement

_T = schema.trial.c
Ranked = tuple[tuple[float, float, int], dict[str, Any]]  # a rank key (less is better) and its row


def best(connection: Connection, study: Study, task: StudyTask, limit: int) -> list[dict[str, Any]]:
    """Return the first rows of the leaderboard of a task configuration."""
    looked_at = 2 * limit
    while True:
        trainings = _trainings(study, task).limit(looked_at)
        found = functions(connection, study, task, trainings.with_only_columns(_T.key))
        last = connection.execute(trainings.offset(looked_at - 1).limit(1)).first()
        sure = found if last is None else [pair for pair in found if pair[0] <= rank_key(*last)]
        if last is None or len(sure) >= limit:
            return [{"rank": rank, **row} for rank, (_, row) in enumerate(sure[:limit], 1)]
        looked_at *= 4


def whole(connection: Connection, study: Study, task: StudyTask, limit: int | None) -> list[dict[str, Any]]:
    """Return all rows of the leaderboard of a task configuration or, with `limit`, its first rows and all baselines."""
    board = schema.leaderboard.c
    query = sa.select(board.rank, board.key, board.expression, board.kind, board.name, board.n_trials, board.metrics)
    query = query.add_columns(board.state, board.number).order_by(board.rank)
    query = query.where(board.study == study.name, board.task_config == task.number)
    if limit is not None:
        query = query.where(sa.or_(board.rank <= limit, board.kind == Kind.BASELINE))
    rows = connection.execute(query).all()
    several = [row.key for row in rows if row.n_trials > 1]
    means: dict[str, dict[str, Any]] = {}
    for start in range(0, len(several), CHUNK):
        found = functions(connection, study, task, several[start : start + CHUNK])
        means |= {row["key"]: row for _, row in found}
    return [
        {"rank": row.rank, **(means[row.key] if row.n_trials > 1 else _row(row, task, row.metrics))} for row in rows
    ]


def baseline(connection: Connection, study: Study, task: StudyTask, name: str) -> dict[str, Any] | None:
    """Return the leaderboard's row of a baseline without its rank; None if it was not trained to the end."""
    keys = sa.select(_T.key).where(_T.study_id == study.id, _T.name == name, BASELINE)
    return next((row for _, row in functions(connection, study, task, keys) if row["name"] == name), None)


def functions(
    connection: Connection, study: Study, task: StudyTask, keys: sa.Select[Any] | Sequence[str]
) -> list[Ranked]:
    """Return the functions with these keys that were trained to the end, best first, without their ranks."""
    mine = sa.and_(_T.study_id == study.id, _T.task_config == task.number, _T.key.in_(keys), RANKED)
    result = (
        sa.select(
            sa.func.min(_T.number).label("first"),
            sa.func.count().label("n_trials"),
            sa.func.avg(_T.merit).label("merit"),
            sa.func.avg(_T.tie_merit).label("tie_merit"),
        )
        .where(mine)
        .group_by(_T.key)
        .subquery()
    )
    rows = connection.execute(
        sa.select(
            *(_T.expression, _T.key, _T.kind, _T.name, _T.state, _T.number, _T.metrics),
            *(result.c.n_trials, result.c.merit, result.c.tie_merit),
        ).join(result, sa.and_(_T.study_id == study.id, _T.number == result.c.first))
    ).all()
    means = _means(connection, mine, task) if any(row.n_trials > 1 for row in rows) else {}
    ranked = [
        (rank_key(row.merit, row.tie_merit, row.number), _row(row, task, means.get(row.key, row.metrics)))
        for row in rows
    ]
    return sorted(ranked, key=lambda pair: pair[0])


def _means(connection: Connection, mine: sa.ColumnElement[bool], task: StudyTask) -> dict[str, dict[str, float]]:
    """Return the mean of each metric over the trainings of each key."""
    values: dict[str, defaultdict[str, list[float]]] = {}
    for key, metrics in connection.execute(sa.select(_T.key, _T.metrics).where(mine).order_by(_T.number)):
        found = values.setdefault(key, defaultdict(list))
        for metric in task.shown:
            if metric.name in metrics:
                found[metric.name].append(metrics[metric.name])
    return {key: {name: fmean(numbers) for name, numbers in found.items()} for key, found in values.items()}


def _row(row: sa.Row[*tuple[Any, ...]], task: StudyTask, metrics: dict[str, float]) -> dict[str, Any]:
    """Return a row for reports, with a column for each metric."""
    return {
        "expression": row.expression,
        "key": row.key,
        "kind": row.kind,
        "name": row.name,
        "n_trials": row.n_trials,
        **{metric.name: metrics.get(metric.name) for metric in task.shown},
        "state": row.state,
        "number": row.number,
    }


def _trainings(study: Study, task: StudyTask) -> sa.Select[Any]:
    """Select the complete trainings, best first."""
    return (
        sa.select(_T.merit, _T.tie_merit, _T.number)
        .where(_T.study_id == study.id, _T.task_config == task.number, RANKED)
        .order_by(_T.merit.desc(), _T.tie_merit.desc(), _T.number)
    )


def place(row: Mapping[str, Any], task: StudyTask) -> tuple[float, float, int]:
    """Return the rank key of a row of a leaderboard; less is better."""
    merit, tie_merit = (
        metric.merit(row[metric.name]) if metric and row.get(metric.name) is not None else None
        for metric in (task.objective, task.tie_breaker)
    )
    return rank_key(merit, tie_merit, row["number"])
