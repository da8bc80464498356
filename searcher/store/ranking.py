"""The ranking of a study's functions, found through an index; the view `leaderboard` says the same of all functions.

A function's value is the mean over its trainings. No mean is better than the best single training behind it, so the
best trainings, which an index holds in order, hold the best functions: those of them whose mean is no worse than the
last training looked at come before every function that was not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from searcher.records import Kind, Objective, Study
from searcher.store import schema
from searcher.store.schema import BASELINE, RANKED

_T = schema.trial.c
_ORDERS = {
    Objective.VAL_LOSS: (_T.val_loss, _T.val_acc.desc(), _T.number),
    Objective.VAL_ACC: (_T.val_acc.desc(), _T.val_loss, _T.number),
}


def best(connection: Connection, study: Study, limit: int) -> list[dict[str, Any]]:
    """The first so many rows of the study's leaderboard."""
    looked_at = 2 * limit
    while True:
        trainings = _trainings(study).limit(looked_at)
        found = functions(connection, study, trainings.with_only_columns(_T.key))
        last = connection.execute(trainings.offset(looked_at - 1).limit(1)).mappings().first()
        sure = found if last is None else [row for row in found if place(row, study) <= place(last, study)]
        if last is None or len(sure) >= limit:
            return [{"rank": rank, **row} for rank, row in enumerate(sure[:limit], 1)]
        looked_at *= 4


def whole(connection: Connection, study: Study, limit: int | None) -> list[dict[str, Any]]:
    """All rows of the study's leaderboard; or the first so many, and the baselines wherever they rank."""
    board = schema.leaderboard
    columns = [column for column in board.c if column.name != "study"]
    query = sa.select(*columns).where(board.c.study == study.name).order_by(board.c.rank)
    if limit is not None:
        query = query.where(sa.or_(board.c.rank <= limit, board.c.kind == Kind.BASELINE))
    return [_plain(row) for row in connection.execute(query).mappings()]


def baseline(connection: Connection, study: Study, name: str) -> dict[str, Any] | None:
    """The leaderboard's row of a baseline, but its rank; None if it was not trained to the end."""
    keys = sa.select(_T.key).where(_T.study_id == study.id, _T.name == name, BASELINE)
    return next((row for row in functions(connection, study, keys) if row["name"] == name), None)


def functions(connection: Connection, study: Study, keys: sa.Select[Any] | Sequence[str]) -> list[dict[str, Any]]:
    """The functions of these keys that were trained to the end, best first; what the leaderboard has but their rank."""
    mine = sa.select(
        sa.func.min(_T.number).label("first"),
        sa.func.count().label("n_trials"),
        sa.func.avg(_T.val_acc).label("val_acc"),
        sa.func.avg(_T.val_loss).label("val_loss"),
    ).where(_T.study_id == study.id, _T.key.in_(keys), RANKED)
    result = mine.group_by(_T.key).subquery()
    rows = connection.execute(
        sa.select(
            _T.expression,
            _T.key,
            _T.kind,
            _T.name,
            result.c.n_trials,
            result.c.val_acc,
            result.c.val_loss,
            _T.state,
            _T.number,
        ).join(result, sa.and_(_T.study_id == study.id, _T.number == result.c.first))
    ).mappings()
    return sorted(map(_plain, rows), key=lambda row: place(row, study))


def _plain(row: RowMapping) -> dict[str, Any]:
    """With names that are texts and nothing more, as YAML wants them."""
    return {str(name): value for name, value in row.items()}


def _trainings(study: Study) -> sa.Select[Any]:
    """All that were finished, best first."""
    return (
        sa.select(_T.val_loss, _T.val_acc, _T.number)
        .where(_T.study_id == study.id, RANKED)
        .order_by(*_ORDERS[study.objective])
    )


def place(row: Any, study: Study) -> tuple[float, float, int]:
    """Return what a row of the study's leaderboard is ranked by; less is better."""
    if study.objective is Objective.VAL_ACC:
        return -row["val_acc"], row["val_loss"], row["number"]
    return row["val_loss"], -row["val_acc"], row["number"]
