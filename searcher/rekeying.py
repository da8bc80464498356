"""`searcher db rekey` makes a study's keys anew in the store, by today's rules (searcher/keys.py).

Keys are computed first, page by page, while the lease is kept. Then one transaction changes them, opens the trials
whose citations no longer hold, and closes the gaps that these leave in the order of ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from search_space import KEY_RULES, SpaceError, parse
from searcher import SearcherError, replay, schema
from searcher.journal import Journal
from searcher.keys import PresentKeys
from searcher.session import held_lease, renewed
from searcher.store import Store
from searcher.trial import Study, Trial, TrialState

Report = Callable[[str, int, int], None]  # study, its trials that are keyed, all of them

_T = schema.trial.c


class RekeyRefused(SearcherError):
    """The study cannot be keyed anew now; nothing was written."""


@dataclass(frozen=True, slots=True)
class Reopened:
    """A trial that cited the result of another function, and now waits to be trained. `cited` is that function's
    trial."""

    study: str
    number: int
    expression: str
    cited: int
    cited_expression: str


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What was done to a study: how many trials have another key than before, and which wait to be trained."""

    study: str
    trials: int
    changed: int
    reopened: tuple[Reopened, ...]


def check_primitives(study: Study, loaded: Collection[str]) -> None:
    """Refuse to key a study whose words cannot all be read: unread functions would keep the keys of older rules for
    ever, for the study is then marked as keyed by today's.

    Args:
        loaded: the modules of primitives that have been imported. What a database names is not imported unasked.

    Raises:
        RekeyRefused: the study names modules that are not among them.
    """
    named = study.config.get("primitives")
    missing = [name for name in (named if isinstance(named, list) else ()) if name not in loaded]
    if missing:
        raise RekeyRefused(
            f"study {study.name!r} has functions with the primitives of {', '.join(map(str, missing))}, which are not "
            "loaded; nothing was written. If you know them, name them: searcher db rekey --primitives "
            f"{','.join(map(str, missing))}"
        )


def rekey(store: Store, study: Study, report: Report) -> Rekeyed:
    """Key a study anew, in one transaction. A study that today's rules keyed stays as it is.

    Raises:
        StudyBusy: a live driver has the study.
        RekeyRefused: results of an outage are still to be written; a function cannot be read.
        StoreError: the database cannot be used.
    """
    if Journal.left(study):
        raise RekeyRefused(
            f"study {study.name!r} has results on this machine that an outage kept from the database; nothing was "
            f"written. Write them first: searcher resume {store.typed(study.name)}"
        )
    keys, texts, new = PresentKeys(study), dict[int, str](), dict[int, str]()
    total = store.size(study)
    with held_lease(store, study) as lease:
        with renewed(store, lease):
            for trial in _trials(store, study):
                _check_readable(study, trial)
                found = keys.of(trial)
                texts[trial.number] = trial.expression
                if found != trial.key:
                    new[trial.number] = found
                report(study.name, len(texts), total)
        reopened = [trial for trial, _ in keys.broken]
        store.change(lease, lambda connection: _write(connection, study, new, reopened))
    told = (Reopened(study.name, t.number, t.expression, cited, texts[cited]) for t, cited in keys.broken)
    return Rekeyed(study.name, len(texts), len(new), tuple(told))


def _check_readable(study: Study, trial: Trial) -> None:
    """Refuse a function whose text cannot be read, perhaps because a module no longer registers a word of it. Only
    `maxout`, which is no expression, has a key of its own."""
    try:
        parse(trial.expression)
    except SpaceError as error:
        if trial.name == "maxout":
            return
        why = str(error).partition("\n")[0]
        raise RekeyRefused(
            f"trial {trial.number} of study {study.name!r} cannot be read: {trial.expression!r} ({why}); nothing was "
            "written. If a module of primitives has changed since, put it back as it was"
        ) from error


def _trials(store: Store, study: Study) -> Iterator[Trial]:
    """Yield all trials: first those that have ended, in that order, then the open ones."""
    return chain((trial for trial, _ in replay.ended(store, study, curves=False)), replay.open_trials(store, study))


def _write(connection: Connection, study: Study, new: dict[int, str], reopened: Sequence[Trial]) -> None:
    mine, number = _T.study_id == study.id, _T.number == sa.bindparam("of_number")
    if new:
        changed = [{"of_number": trial, "new_key": key} for trial, key in new.items()]
        connection.execute(sa.update(schema.trial).where(mine, number).values(key=sa.bindparam("new_key")), changed)
    if reopened:
        empty = dict.fromkeys(("cites", "val_loss", "val_acc", "parameters", "finish_order", "finished_at"))
        waiting = sa.update(schema.trial).where(mine, number).values(state=TrialState.WAITING, reason="", **empty)
        connection.execute(waiting, [{"of_number": trial.number} for trial in reopened])
        _close_gaps(connection, mine, sorted(trial.finish_order or 0 for trial in reopened))
    versions = sa.select(schema.study.c.versions).where(schema.study.c.id == study.id)
    present = {**connection.execute(versions).scalar_one(), "keys": str(KEY_RULES)}
    connection.execute(sa.update(schema.study).where(schema.study.c.id == study.id).values(versions=present))


def _close_gaps(connection: Connection, mine: sa.ColumnElement[bool], gaps: Sequence[int]) -> None:
    """Number the ends anew, without the numbers in `gaps`. Numbers become negative in between, because no two trials
    may have the same number even for a moment."""
    order, trials = _T.finish_order, sa.update(schema.trial)
    connection.execute(trials.where(mine, order > gaps[0]).values(finish_order=-order))
    last = 2**31 - 1
    for closed, (gap, next_gap) in enumerate(pairwise([*gaps, last]), start=1):
        moved = trials.where(mine, order < -gap, order > -next_gap)
        connection.execute(moved.values(finish_order=-order - closed))
