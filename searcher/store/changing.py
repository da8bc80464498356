"""Delete and rename studies, and set failed trials back to WAITING, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from searcher.records import Study, StudyKind, Trial, TrialState
from searcher.store import database, schema
from searcher.store.database import StoreConflict
from searcher.store.lease import Lease
from searcher.store.rekeying import close_gaps
from searcher.store.store import Store

_S, _T, _P = schema.study.c, schema.trial.c, schema.point.c
_OF_STUDY = [table for table in reversed(schema.metadata.sorted_tables) if "study_id" in table.c]


def delete(store: Store, lease: Lease, study: Study) -> None:
    """Delete a study with everything that belongs to it.

    Raises:
        LeaseLost: another driver has taken the study over; nothing was written.
    """
    with store.writing(lease) as connection:
        database.keep_id(connection, study.id)
        for table in _OF_STUDY:
            connection.execute(sa.delete(table).where(table.c.study_id == study.id))
        connection.execute(sa.delete(schema.study).where(_S.id == study.id))


def rename(store: Store, lease: Lease, study: Study, name: str) -> None:
    """Give a study another name, also in the plans of its confirmations.

    Raises:
        StoreConflict: another study has that name; nothing was written.
        LeaseLost: another driver has taken the study over; nothing was written.
    """
    try:
        with store.writing(lease) as connection:
            config = {**study.config, "study_name": name}
            connection.execute(sa.update(schema.study).where(_S.id == study.id).values(name=name, config=config))
            for row in _confirmations(connection, study.name):
                plan = {**row.config, "design": {**row.config["design"], "search": name}}
                connection.execute(sa.update(schema.study).where(_S.id == row.id).values(config=plan))
    except StoreConflict:
        if name not in store.names():
            raise
        raise StoreConflict(
            f"study {name!r} exists; choose another name, or see what that one is: searcher status {store.typed(name)}"
        ) from None


def confirmations_of(store: Store, study: Study) -> list[str]:
    """Return the names of the confirmations of a search."""
    rows = store.read(sa.select(_S.name, _S.config).where(_S.kind == StudyKind.DESIGN).order_by(_S.id))
    return [row.name for row in rows if _confirms(row.config, study.name)]


def _confirmations(connection: Connection, search: str) -> list[Any]:
    rows = connection.execute(sa.select(_S.id, _S.config).where(_S.kind == StudyKind.DESIGN)).all()
    return [row for row in rows if _confirms(row.config, search)]


def _confirms(config: Any, search: str) -> bool:
    design = config.get("design") if isinstance(config, dict) else None
    return isinstance(design, dict) and design.get("search") == search


def failed_trials(store: Store, study: Study) -> list[Trial]:
    """Return the FAILED trials of a study, by number."""
    return [trial for trial in store.trials(study) if trial.state is TrialState.FAILED]


def reopen(store: Store, lease: Lease, study: Study, trials: Sequence[Trial]) -> None:
    """Set FAILED trials back to WAITING, and close the gaps that they leave in `finish_order`. Each keeps its reason
    until it ends again, and counts one run more. Its learning curve is removed.

    Raises:
        LeaseLost: another driver has taken the study over; nothing was written.
    """
    empty = dict.fromkeys(("value", "merit", "tie_merit", "metrics", "parameters", "finish_order", "finished_at"))
    waiting = (
        sa.update(schema.trial)
        .where(_T.study_id == study.id, _T.number == sa.bindparam("of_number"), _T.state == TrialState.FAILED)
        .values(state=TrialState.WAITING, retries=_T.retries + 1, seconds=0.0, worker="", **empty)
    )
    curves = sa.delete(schema.point).where(_P.study_id == study.id, _P.number == sa.bindparam("of_number"))
    numbers = [{"of_number": trial.number} for trial in trials]

    def write(connection: Connection) -> None:
        connection.execute(curves, numbers)
        connection.execute(waiting, numbers)
        close_gaps(connection, study)

    store.change(lease, write)
