"""Records to rows of the tables, and back, and the statements that change rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from searcher.records import Kind, Objective, Study, Trial, TrialState
from searcher.store import schema
from searcher.store.database import StoreError
from workers.contract import Epoch
from workers.text import holdable

_T, _N = schema.trial.c, schema.tally.c
_MUTABLE = [
    "key",
    "state",
    "reason",
    "cites",
    "retries",
    "val_loss",
    "val_acc",
    "parameters",
    "seconds",
    "worker",
    "finish_order",
    "finished_at",
]
NEW_STATE = (
    sa.update(schema.trial)
    .where(
        _T.study_id == sa.bindparam("in_study"),
        _T.number == sa.bindparam("is_number"),
        _T.state == sa.bindparam("was_state"),
    )
    .values({name: sa.bindparam(name) for name in _MUTABLE})
)
NEW_TALLY = (
    sa.update(schema.tally)
    .where(_N.study_id == sa.bindparam("in_study"), _N.state == sa.bindparam("of_state"))
    .values(trials=_N.trials + sa.bindparam("more"))
)


def trial_row(study_id: int, trial: Trial, stamp: Any, codec: str = "utf-8") -> dict[str, Any]:
    """Return the trial as a row. Characters that `codec` lacks are escaped where a text is free: in reasons and names
    of workers."""
    return {
        "study_id": study_id,
        "number": trial.number,
        "kind": trial.kind,
        "name": trial.name,
        "expression": trial.expression,
        "key": trial.key,
        "choices": None if trial.choices is None else json.dumps(trial.choices),
        "seed": trial.seed,
        "state": trial.state,
        "reason": holdable(trial.reason, codec),
        "cites": trial.cites,
        "retries": trial.retries,
        "val_loss": trial.val_loss,
        "val_acc": trial.val_acc,
        "parameters": trial.parameters,
        "seconds": trial.seconds,
        "worker": holdable(trial.worker, codec),
        "finish_order": trial.finish_order,
        "finished_at": stamp if trial.state.finished else None,
    }


def trial_of(row: RowMapping) -> Trial:
    return Trial(
        number=row["number"],
        kind=Kind(row["kind"]),
        expression=row["expression"],
        key=row["key"],
        seed=row["seed"],
        name=row["name"],
        choices=None if row["choices"] is None else tuple(json.loads(row["choices"])),
        state=TrialState(row["state"]),
        reason=row["reason"],
        cites=row["cites"],
        retries=row["retries"],
        val_loss=row["val_loss"],
        val_acc=row["val_acc"],
        parameters=row["parameters"],
        seconds=row["seconds"],
        worker=row["worker"],
        finish_order=row["finish_order"],
    )


def study_of(row: RowMapping) -> Study:
    """Return the study of a row.

    Raises:
        StoreError: somebody has put into the row what a study cannot have.
    """
    for what in ("config", "versions"):
        if not isinstance(row[what], dict):
            raise edited(row["name"], f"its {what} is no JSON object")
    if row["objective"] not in list(Objective):
        raise edited(row["name"], f"its objective is {row['objective']!r}, not one of {', '.join(Objective)}")
    return Study(
        id=row["id"],
        name=row["name"],
        n_trials=row["n_trials"],
        objective=Objective(row["objective"]),
        config=row["config"],
        versions=row["versions"],
        created_at=utc(row["created_at"]),
    )


def edited(study: str, what: str) -> StoreError:
    """Return the error for rows that this program has not written so."""
    return StoreError(f"study {study!r} cannot be used: {what}. Was its row edited? See: searcher db check")


def utc(time: datetime) -> datetime:
    """SQLite keeps no zone, what it has is UTC; PostgreSQL answers in the session's."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


@dataclass(slots=True)
class Batch:
    """What one transaction writes. `changed` pairs the state that a trial must be in with its new record; `curves` are
    by trial number. `data_digest` is that of the study's data, when it becomes known ("": nothing new). `serial`
    numbers the batches of a study; 0: not numbered."""

    added: list[Trial] = field(default_factory=list)
    changed: list[tuple[TrialState, Trial]] = field(default_factory=list)
    curves: dict[int, Sequence[Epoch]] = field(default_factory=dict)
    data_digest: str = ""
    serial: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.changed)


def tally_rows(
    study_id: int, added: Iterable[Trial], changed: Iterable[tuple[TrialState, Trial]]
) -> Iterable[dict[str, Any]]:
    """By how many trials each state grows."""
    more = Counter(trial.state for trial in added)
    for before, trial in changed:
        more[before] -= 1
        more[trial.state] += 1
    for state, trials in more.items():
        if trials:
            yield {"in_study": study_id, "of_state": state, "more": trials}


def epoch_rows(study_id: int, curves: Mapping[int, Sequence[Epoch]]) -> Iterable[dict[str, Any]]:
    for number, curve in curves.items():
        for point in curve:
            yield {
                "study_id": study_id,
                "number": number,
                "epoch": point.epoch,
                "train_loss": point.train_loss,
                "val_loss": point.val_loss,
                "val_acc": point.val_acc,
            }
