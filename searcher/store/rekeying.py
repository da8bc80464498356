"""Write new keys of a study's trials, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from searcher.records import Study, Trial, TrialState
from searcher.store import schema
from searcher.store.lease import Lease
from searcher.store.store import Store

_T = schema.trial.c


def write_keys(
    store: Store,
    lease: Lease,
    study: Study,
    keys: Mapping[int, str],
    reopened: Sequence[Trial],
    rules: int,
    design: Mapping[str, Any] | None = None,
) -> None:
    """Write new keys, and set the trials in `reopened` back to WAITING.

    Args:
        keys: the new keys, by the numbers of the trials that have another key than before.
        reopened: trials whose citations no longer hold.
        rules: the number of the rules that made the keys.
        design: the plan of a confirmation with the new keys; None for any other study.

    Raises:
        LeaseLost: another driver has taken the study over; nothing was written.
    """
    store.change(lease, lambda connection: _write(connection, study, keys, reopened, rules, design))


def _write(
    connection: Connection,
    study: Study,
    keys: Mapping[int, str],
    reopened: Sequence[Trial],
    rules: int,
    design: Mapping[str, Any] | None,
) -> None:
    mine, number = _T.study_id == study.id, _T.number == sa.bindparam("of_number")
    if keys:
        changed = [{"of_number": trial, "new_key": key} for trial, key in keys.items()]
        connection.execute(sa.update(schema.trial).where(mine, number).values(key=sa.bindparam("new_key")), changed)
    if reopened:
        empty = dict.fromkeys(
            ("cites", "value", "merit", "tie_merit", "metrics", "parameters", "finish_order", "finished_at")
        )
        waiting = sa.update(schema.trial).where(mine, number).values(state=TrialState.WAITING, reason="", **empty)
        connection.execute(waiting, [{"of_number": trial.number} for trial in reopened])
        close_gaps(connection, study)
    if design:
        config = {**study.config, "design": design}
        connection.execute(sa.update(schema.study).where(schema.study.c.id == study.id).values(config=config))
    versions = sa.select(schema.study.c.versions).where(schema.study.c.id == study.id)
    present = {**connection.execute(versions).scalar_one(), "keys": str(rules)}
    connection.execute(sa.update(schema.study).where(schema.study.c.id == study.id).values(versions=present))


def close_gaps(connection: Connection, study: Study) -> None:
    """Renumber `finish_order` of the study's trials from 0. The first statement writes negative numbers, because two
    trials may not have the same number even for a moment."""
    ended = _T.finish_order.is_not(None)
    place = sa.func.row_number().over(order_by=_T.finish_order)
    places = sa.select(_T.number, place.label("place")).where(_T.study_id == study.id, ended).subquery()
    trials = sa.update(schema.trial).where(_T.study_id == study.id)
    connection.execute(trials.where(_T.number == places.c.number).values(finish_order=-places.c.place))
    connection.execute(trials.where(ended).values(finish_order=-_T.finish_order - 1))
