"""Turn records into rows of the tables and back; the statements that change rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from searcher.records import Kind, Study, StudyKind, StudyTask, Trial, TrialState
from searcher.store import schema
from searcher.store.database import StoreError
from workers.contract import Declaration, Direction, Learned, Point, TaskConfig
from workers.text import storable

_T, _N = schema.trial.c, schema.tally.c
_MUTABLE = [
    "key",
    "state",
    "reason",
    "cites",
    "retries",
    "value",
    "merit",
    "tie_merit",
    "metrics",
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
    """Return the trial as a row.

    Args:
        stamp: the present time, as the driver of the database takes it.
        codec: the database's encoding. Characters that it lacks are escaped in reasons and in names of workers.
    """
    return {
        "study_id": study_id,
        "number": trial.number,
        "kind": trial.kind,
        "name": trial.name,
        "expression": trial.expression,
        "key": trial.key,
        "choices": None if trial.choices is None else json.dumps(trial.choices),
        "seed": trial.seed,
        "task_config": trial.task_config,
        "state": trial.state,
        "reason": storable(trial.reason, codec),
        "cites": trial.cites,
        "retries": trial.retries,
        "value": trial.value,
        "merit": trial.merit,
        "tie_merit": trial.tie_merit,
        "metrics": json.dumps(dict(trial.metrics)) if trial.metrics else None,
        "parameters": trial.parameters,
        "seconds": trial.seconds,
        "worker": storable(trial.worker, codec),
        "finish_order": trial.finish_order,
        "finished_at": stamp if trial.state.finished else None,
    }


def trial_of(row: RowMapping) -> Trial:
    """Return the trial of a row."""
    return Trial(
        number=row["number"],
        kind=Kind(row["kind"]),
        expression=row["expression"],
        key=row["key"],
        seed=row["seed"],
        task_config=row["task_config"],
        name=row["name"],
        choices=None if row["choices"] is None else tuple(json.loads(row["choices"])),
        state=TrialState(row["state"]),
        reason=row["reason"],
        cites=row["cites"],
        retries=row["retries"],
        metrics=row["metrics"] or {},
        value=row["value"],
        merit=row["merit"],
        tie_merit=row["tie_merit"],
        parameters=row["parameters"],
        seconds=row["seconds"],
        worker=row["worker"],
        finish_order=row["finish_order"],
    )


def study_of(row: RowMapping, tasks: Sequence[RowMapping]) -> Study:
    """Return the study of a row and of the rows of its task configurations.

    Raises:
        StoreError: a row has a value that this program never writes, for example because it was edited.
    """
    for what in ("config", "versions"):
        if not isinstance(row[what], dict):
            raise edited(row["name"], f"its {what} is not a JSON object")
    if row["kind"] not in list(StudyKind):
        raise edited(row["name"], f"its kind is {row['kind']!r}, not one of {', '.join(StudyKind)}")
    if not tasks:
        raise edited(row["name"], "it has no task configuration")
    try:
        found = tuple(map(_task_of, tasks))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise edited(row["name"], f"a task configuration of it cannot be read ({error})") from error
    return Study(
        id=row["id"],
        name=row["name"],
        kind=StudyKind(row["kind"]),
        n_trials=row["n_trials"],
        tasks=found,
        config=row["config"],
        versions=row["versions"],
        created_at=utc(row["created_at"]),
    )


def task_row(task: StudyTask) -> dict[str, Any]:
    """Return the row of a task configuration, without the study's id."""
    return {
        "number": task.number,
        "hash": task.config.hash,
        "config": asdict(task.config),
        "declaration": asdict(task.declared),
        "objective": task.objective.name,
        "direction": task.objective.direction,
        "tie_breaker": task.tie_breaker.name if task.tie_breaker else "",
        "data_digest": task.data_digest,
    }


def _task_of(row: RowMapping) -> StudyTask:
    declared = Declaration.from_plain(row["declaration"])
    objective, tie_breaker = declared.metric(row["objective"]), declared.metric(row["tie_breaker"])
    if objective is None:
        raise ValueError(f"its objective is {row['objective']!r}, which it does not measure")
    objective = replace(objective, direction=Direction(row["direction"]))
    return StudyTask(
        row["number"], TaskConfig.from_plain(row["config"]), declared, objective, tie_breaker, row["data_digest"]
    )


def edited(study: str, what: str) -> StoreError:
    """Return the error for rows that this program did not write in this form. `what` says what is wrong."""
    return StoreError(f"study {study!r} cannot be used: {what}. Was its row edited? See: searcher db check")


def utc(time: datetime) -> datetime:
    """Return a time from the database in UTC: SQLite returns UTC without a zone, PostgreSQL the session's zone."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


@dataclass(slots=True)
class Batch:
    """The changes that one transaction writes. A batch without trials is false.

    Attributes:
        added: new trials.
        changed: pairs of the state that a trial must be in and its new record.
        curves: learning curves, by the numbers of the trials.
        learned: learned parameters, by the numbers of the trials.
        data_digests: new digests of data, by the numbers of the task configurations.
        serial: the number of the batch in the study, from 1; 0 if it is not numbered.
    """

    added: list[Trial] = field(default_factory=list)
    changed: list[tuple[TrialState, Trial]] = field(default_factory=list)
    curves: dict[int, Sequence[Point]] = field(default_factory=dict)
    learned: dict[int, Sequence[Learned]] = field(default_factory=dict)
    data_digests: dict[int, str] = field(default_factory=dict)
    serial: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.changed)


def tally_rows(
    study_id: int, added: Iterable[Trial], changed: Iterable[tuple[TrialState, Trial]]
) -> Iterable[dict[str, Any]]:
    """Yield, for each state whose number of trials changes, by how many it grows."""
    more = Counter(trial.state for trial in added)
    for before, trial in changed:
        more[before] -= 1
        more[trial.state] += 1
    for state, trials in more.items():
        if trials:
            yield {"in_study": study_id, "of_state": state, "more": trials}


def point_rows(study_id: int, curves: Mapping[int, Sequence[Point]]) -> Iterable[dict[str, Any]]:
    """Yield the rows of learning curves."""
    for number, curve in curves.items():
        for point in curve:
            metrics = json.dumps(dict(point.metrics))
            yield {"study_id": study_id, "number": number, "step": point.step, "metrics": metrics}


def learned_rows(study_id: int, learned: Mapping[int, Sequence[Learned]], codec: str) -> Iterable[dict[str, Any]]:
    """Yield the rows of learned parameters. Characters that the `codec` of the database lacks are escaped."""
    for number, found in learned.items():
        for position, one in enumerate(found):
            row = asdict(one) | {"site": storable(one.site, codec), "parameter": storable(one.parameter, codec)}
            vector = json.dumps(values) if (values := row.pop("values")) else None
            yield {"study_id": study_id, "number": number, "position": position, "vector": vector, **row}


def learned_of(row: RowMapping) -> Learned:
    """Return the learned parameter of a row."""
    facts = {name: row[name] for name in row if name not in ("study_id", "number", "position", "vector")}
    return Learned(**facts, values=tuple(row["vector"] or ()))
