"""The store keeps studies, trials and learning curves in an SQL database, and returns records.

Only the holder of a study's lease may write to the study. Every write checks the lease's generation in the same
transaction, and every change of a trial's state names the state that it expects. So a driver whose lease another one
has taken changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection

from searcher import SearcherError
from searcher.records import Study, StudyKind, StudyTask, Trial, TrialState
from searcher.store import database, ranking, schema
from searcher.store.database import Prepared, StoreConflict, StoreError, plain_errors
from searcher.store.lease import Driver, Lease, LeaseLost, NotDriven, Position, ProcessId, StudyBusy, in_words
from searcher.store.rows import (
    NEW_STATE,
    NEW_TALLY,
    Batch,
    edited,
    learned_of,
    learned_rows,
    point_rows,
    study_of,
    tally_rows,
    task_row,
    trial_of,
    trial_row,
)
from workers.contract import Learned, Point
from workers.text import storable

LEASE_SECONDS = 15.0
COMMIT_SECONDS = 1.0  # how long a search's commit waits for a lock; it can hold its batch and try again
MAX_BATCHES = 2**31 - 10**6  # batches of a study: the largest SQL integer, less what one session may add
_OVERTAKEN = "another driver has taken this study over; this one has stopped and written nothing since"


class StudyExists(SearcherError):
    """A study of that name exists already."""

    def __init__(self, name: str, typed: str) -> None:
        super().__init__(
            f"study {name!r} exists; go on with it: searcher resume {typed}; "
            "or give another --study-name, or --skip-if-exists"
        )


class UnknownStudy(SearcherError):
    """There is no study of that name, or no trial of that number."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A study and its progress.

    Attributes:
        counts: number of trials by state, without states that no trial is in.
        holder: the process that drives the study, in words; empty if none does.
    """

    study: Study
    counts: Mapping[TrialState, int]
    holder: str


class Store:
    """A database of studies.

    Args:
        url: the URL of an SQLite file or a PostgreSQL database.
        create: create the tables, or upgrade older ones.

    Raises (the constructor and every method):
        StoreError: the database cannot be used.
    """

    def __init__(self, url: str | URL, *, create: bool = False) -> None:
        self.url = database.parse_url(url)
        self._engine = database.connect(self.url, create=create)
        with plain_errors(self.url):
            self._codec = database.codec(self._engine)
        self._writer = self._engine.execution_options(writes=True)
        self._writer_short_wait = self._engine.execution_options(writes=True, lock_seconds=COMMIT_SECONDS)
        self._asking = self._engine.execution_options(lock_seconds=COMMIT_SECONDS)
        c = schema.lease.c
        renewal = (
            sa.update(schema.lease)
            .where(
                c.study_id == sa.bindparam("in_study"),
                c.generation == sa.bindparam("is_generation"),
                c.expires_at > sa.literal_column("0"),  # 0: the lease was given back
            )
            .values(expires_at=self._now(plus_seconds=LEASE_SECONDS))
            .returning(c.stop_generation)
        )
        numbered = renewal.values(serial=sa.bindparam("new_serial"), writer=sa.bindparam("new_writer"))
        self._renewal = Prepared(renewal, self._engine)
        self._numbered = Prepared(numbered, self._engine)
        self._new_trials = Prepared(sa.insert(schema.trial), self._engine)
        self._new_states = Prepared(NEW_STATE, self._engine)
        self._new_tallies = Prepared(NEW_TALLY, self._engine)
        self._new_points = Prepared(sa.insert(schema.point), self._engine)
        self._new_learned = Prepared(sa.insert(schema.learned), self._engine)

    @property
    def shown_url(self) -> str:
        """The database's URL without its password."""
        return database.masked(self.url)

    def typed(self, name: str) -> str:
        """Return a study's name as typed in a shell: quoted if necessary, with the flag that names this database."""
        return shlex.quote(name) + database.storage_flag(self.url)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # Studies ----------------------------------------------------------------------------------------------------------

    def create_study(
        self,
        name: str,
        kind: StudyKind,
        n_trials: int,
        tasks: Sequence[StudyTask],
        config: dict[str, Any],
        versions: dict[str, str],
        trials: Sequence[Trial] = (),
    ) -> Study:
        """Create a study with its first trials.

        Args:
            n_trials: its total.
            tasks: its task configurations, by number.
            config: its settings, as plain values.
            versions: the software that it begins with.
            trials: its first trials, numbered from 0.

        Raises:
            StudyExists: the name is taken.
        """
        now = datetime.now(UTC)
        row = {"name": name, "kind": kind, "n_trials": n_trials, "config": config, "versions": versions}
        try:
            with plain_errors(self.url), self._writer.begin() as connection:
                study_id = connection.execute(
                    sa.insert(schema.study)
                    .values(**row, **database.new_id(connection), created_at=now)
                    .returning(schema.study.c.id)
                ).scalar_one()
                connection.execute(
                    sa.insert(schema.lease).values(study_id=study_id, generation=0, holder="", expires_at=0.0)
                )
                connection.execute(
                    sa.insert(schema.task_config), [{"study_id": study_id, **task_row(task)} for task in tasks]
                )
                zeros = [{"study_id": study_id, "state": state, "trials": 0} for state in TrialState]
                connection.execute(sa.insert(schema.tally), zeros)
                self._write(connection, study_id, Batch(added=list(trials)), database.stamp(now, self._engine))
        except StoreConflict:
            if name not in self.names():
                raise
            raise StudyExists(name, self.typed(name)) from None
        return self.study(name)

    def study(self, name: str) -> Study:
        """Return the study of that name.

        Raises:
            UnknownStudy: there is none; the message names the latest studies.
        """
        c = schema.task_config
        with plain_errors(self.url), self._engine.connect() as connection:
            row = connection.execute(sa.select(schema.study).where(schema.study.c.name == name)).mappings().first()
            if row is None:
                names = connection.execute(sa.select(schema.study.c.name).order_by(schema.study.c.id.desc()).limit(10))
                known = ", ".join(names.scalars())
                there = f"the latest are: {known}" if known else "there are none yet; `searcher launch` makes one"
                raise UnknownStudy(f"no study {name!r} in {self.shown_url}; {there}")
            mine = sa.select(c).where(c.c.study_id == row["id"]).order_by(c.c.number)
            return study_of(row, connection.execute(mine).mappings().all())

    def studies(self) -> list[Summary]:
        """Return a summary of each study, oldest first."""
        t = schema.tally.c
        counts: dict[int, dict[TrialState, int]] = {}
        with plain_errors(self.url), self._engine.connect() as connection:
            for study_id, state, n in connection.execute(sa.select(t.study_id, t.state, t.trials).where(t.trials > 0)):
                counts.setdefault(study_id, {})[TrialState(state)] = n
            rows = connection.execute(
                sa.select(schema.study, schema.lease.c.holder, (schema.lease.c.expires_at > self._now()).label("live"))
                .join(schema.lease)
                .order_by(schema.study.c.id)
            ).mappings()
            tasks: dict[int, list[sa.RowMapping]] = {}
            for task in connection.execute(sa.select(schema.task_config).order_by(*schema.task_config.primary_key)):
                tasks.setdefault(task.study_id, []).append(task._mapping)
            return [
                Summary(
                    study_of(row, tasks.get(row["id"], [])),
                    counts.get(row["id"], {}),
                    in_words(row["holder"]) if row["live"] else "",
                )
                for row in rows
            ]

    def names(self) -> list[str]:
        """Return the names of all studies, oldest first."""
        return [row.name for row in self.read(sa.select(schema.study.c.name).order_by(schema.study.c.id))]

    def extend(self, lease: Lease, n_trials: int) -> None:
        """Set a study's total.

        Raises:
            LeaseLost: another driver has the study; nothing was written.
        """
        with plain_errors(self.url), self._writer.begin() as connection:
            self._renew(connection, lease, 0)
            connection.execute(
                sa.update(schema.study).where(schema.study.c.id == lease.study_id).values(n_trials=n_trials)
            )

    def counts(self, study: Study) -> dict[TrialState, int]:
        """Return the number of the study's trials by state, without states that no trial is in."""
        t = schema.tally.c
        found = self.read(sa.select(t.state, t.trials).where(t.study_id == study.id, t.trials > 0))
        trials = {TrialState(row.state): row.trials for row in found}
        return {state: trials[state] for state in TrialState if state in trials}

    # Trials -----------------------------------------------------------------------------------------------------------

    def trials(self, study: Study) -> list[Trial]:
        """Return all trials of a study, by number."""
        t = schema.trial
        with plain_errors(self.url), self._engine.connect() as connection:
            rows = connection.execute(sa.select(t).where(t.c.study_id == study.id).order_by(t.c.number)).mappings()
            return [trial_of(row) for row in rows]

    def size(self, study: Study) -> int:
        """Return the number of trials that the study has; their numbers have no gaps."""
        t = schema.trial.c
        size = sa.func.coalesce(sa.func.max(t.number) + 1, 0)
        return int(self.read(sa.select(size).where(t.study_id == study.id))[0][0])

    def trial(self, study: Study, number: int) -> Trial:
        """Return a trial of a study.

        Raises:
            UnknownStudy: the study has no trial of that number.
        """
        t = schema.trial
        with plain_errors(self.url), self._engine.connect() as connection:
            found = connection.execute(sa.select(t).where(t.c.study_id == study.id, t.c.number == number))
            row = found.mappings().first()
        if row is None:
            raise UnknownStudy(
                f"study {study.name!r} has no trial {number}; see: searcher top {self.typed(study.name)}"
            )
        return trial_of(row)

    def curve(self, study: Study, number: int) -> list[Point]:
        """Return the learning curve of a trial; empty if it has none."""
        return self.curves(study, [number]).get(number, [])

    def curves(self, study: Study, numbers: Sequence[int] | None = None) -> dict[int, list[Point]]:
        """Return learning curves by the numbers of their trials.

        Args:
            numbers: the trials; None means all that have a curve.
        """
        p = schema.point.c
        mine = p.study_id == study.id if numbers is None else sa.and_(p.study_id == study.id, p.number.in_(numbers))
        found: dict[int, list[Point]] = {}
        with plain_errors(self.url), self._engine.connect() as connection:
            rows = connection.execute(sa.select(p.number, p.step, p.metrics).where(mine).order_by(p.number, p.step))
            for number, *point in rows:
                found.setdefault(number, []).append(Point(*point))
        return found

    def learned(self, study: Study, number: int) -> list[Learned]:
        """Return the learned parameters of a trial, site by site; empty if it has none."""
        t = schema.learned
        mine = sa.select(t).where(t.c.study_id == study.id, t.c.number == number).order_by(t.c.position)
        return [learned_of(row._mapping) for row in self.read(mine)]

    def leaderboard(
        self, study: Study, limit: int | None = None, *, baselines: bool = False, task_config: int = 0
    ) -> list[dict[str, Any]]:
        """Return a study's functions, best first: rank, expression, key, kind, name, n_trials, the mean of each metric,
        state and number of the first training.

        Args:
            limit: number of rows; None means all.
            baselines: add the baselines that rank after the limit.
            task_config: the number of the task configuration.
        """
        task = study.tasks[task_config]
        with plain_errors(self.url), self._engine.connect() as connection:
            if limit is None or baselines:
                return ranking.whole(connection, study, task, limit)
            return ranking.best(connection, study, task, limit)

    def baseline(self, study: Study, name: str) -> dict[str, Any] | None:
        """Return the leaderboard's row of a baseline without its rank; None if it was not trained to the end."""
        with plain_errors(self.url), self._engine.connect() as connection:
            return ranking.baseline(connection, study, study.task, name)

    def functions(self, study: Study, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Return the leaderboard's rows of the functions with these keys, without their ranks."""
        with plain_errors(self.url), self._engine.connect() as connection:
            return [row for _, row in ranking.functions(connection, study, study.task, keys)]

    def read(self, statement: sa.Select[*tuple[Any, ...]]) -> Sequence[sa.Row[*tuple[Any, ...]]]:
        """Return the rows of a SELECT statement."""
        with plain_errors(self.url), self._engine.connect() as connection:
            return connection.execute(statement).all()

    # The lease --------------------------------------------------------------------------------------------------------

    def acquire(
        self, study: Study, holder: str, process: ProcessId | None = None, *, evict: int | None = None
    ) -> Lease:
        """Take the study's lease.

        Args:
            holder: the process that takes it, in words.
            process: the identity of that process.
            evict: a generation whose holder is known to be dead; its lease is taken before it expires.

        Raises:
            StudyBusy: another driver holds the lease.
        """
        c = schema.lease.c
        free = c.expires_at <= self._now()
        if evict is not None:
            free = sa.or_(free, c.generation == evict)
        with plain_errors(self.url), self._writer.begin() as connection:
            taken = connection.execute(
                sa.update(schema.lease)
                .where(c.study_id == study.id, free)
                .values(
                    generation=c.generation + 1,
                    holder=storable(holder, self._codec),
                    pid=process.pid if process else None,
                    machine=storable(process.machine, self._codec) if process else None,
                    boot=process.boot if process else None,
                    began=process.began if process else None,
                    acquired_at=self._now(),
                    expires_at=self._now(plus_seconds=LEASE_SECONDS),
                )
                .returning(c.generation)
            ).scalar()
            if taken is not None:
                self._tally(connection, study.id)
                return Lease(study.id, taken)
            row = connection.execute(
                sa.select(
                    c.holder,
                    c.pid,
                    c.machine,
                    c.boot,
                    c.began,
                    c.generation,
                    (c.expires_at - self._now()).label("left"),
                ).where(c.study_id == study.id)
            ).first()
        if row is None:
            raise edited(study.name, "its row in searcher_lease is missing")
        known = None if row.pid is None else ProcessId(row.pid, row.machine or "", row.boot or "", row.began or "")
        raise StudyBusy(study.name, self.typed(study.name), row.holder, known, row.generation, row.left)

    def _tally(self, connection: Connection, study_id: int) -> None:
        """Count the study's trials anew. The stored counts may be wrong after a driver of an older version, or after
        somebody has edited trials."""
        t = schema.trial.c
        counted = connection.execute(
            sa.select(t.state, sa.func.count()).where(t.study_id == study_id).group_by(t.state)
        ).all()
        counts = {TrialState(state): n for state, n in counted}
        rows = [{"study_id": study_id, "state": state, "trials": counts.get(state, 0)} for state in TrialState]
        connection.execute(sa.delete(schema.tally).where(schema.tally.c.study_id == study_id))
        connection.execute(sa.insert(schema.tally), rows)

    def release(self, lease: Lease) -> None:
        """Give the lease back. Do nothing if another driver has taken it."""
        c = schema.lease.c
        with plain_errors(self.url), self._writer.begin() as connection:
            connection.execute(
                sa.update(schema.lease)
                .where(c.study_id == lease.study_id, c.generation == lease.generation)
                .values(expires_at=0.0)
            )

    def driver(self, study: Study) -> Driver:
        """Return who drives the study, or drove it last. `holder` is empty if nobody ever did."""
        c = schema.lease.c
        facts = sa.select(schema.lease, self._now().label("now")).where(c.study_id == study.id)
        with plain_errors(self.url), self._engine.connect() as connection:
            row = connection.execute(facts).first()
        if row is None:
            raise edited(study.name, "its row in searcher_lease is missing")
        return Driver(
            holder=in_words(row.holder),
            generation=row.generation,
            writer=row.writer,
            live=row.expires_at > row.now,
            asked_to_stop=row.stop_generation == row.generation,
            since=max(0.0, row.now - row.acquired_at),
            heard=max(0.0, row.now - row.expires_at + LEASE_SECONDS) if row.expires_at else None,
        )

    def request_stop(self, study: Study) -> Driver:
        """Ask the driver of the study to end. It sees the request with its next write, at most a second later.

        Raises:
            NotDriven: no process drives the study.
        """
        c = schema.lease.c
        with plain_errors(self.url), self._writer.begin() as connection:
            asked = connection.execute(
                sa.update(schema.lease)
                .where(c.study_id == study.id, c.expires_at > self._now())
                .values(stop_generation=c.generation)
            )
        if not asked.rowcount:
            how = f"go on with it: searcher resume {self.typed(study.name)}"
            raise NotDriven(f"nobody drives study {study.name!r}; {how}")
        return self.driver(study)

    def position(self, lease: Lease) -> Position:
        """Return the number of the study's last batch, and who wrote it.

        Raises:
            LeaseLost: another driver has the study.
        """
        c = schema.lease.c
        with plain_errors(self.url), self._asking.connect() as connection:
            row = connection.execute(
                sa.select(c.serial, c.writer).where(c.study_id == lease.study_id, c.generation == lease.generation)
            ).first()
        if row is None:
            raise LeaseLost(_OVERTAKEN)
        if not 0 <= row.serial < MAX_BATCHES:
            raise StoreError(
                f"the lease of the study says that {row.serial} batches were written; see: searcher db check"
            )
        return Position(*row)

    def commit(self, lease: Lease, batch: Batch, *, short_wait: bool = True) -> bool:
        """Write a batch and renew the lease, in one transaction; an empty batch only renews the lease.

        Args:
            short_wait: give up after one second if another process holds the database's lock; otherwise after 30.

        Returns:
            True if `searcher stop` has asked the driver to end.

        Raises:
            LeaseLost: another driver has the study, or a trial was not in the expected state; nothing was written.
            StoreUnavailable: the database does not answer. The batch may be written or not; `position` tells later.
        """
        with plain_errors(self.url), (self._writer_short_wait if short_wait else self._writer).begin() as connection:
            asked = self._renew(connection, lease, batch.serial)
            stamp = database.stamp(datetime.now(UTC), self._engine)
            self._write(connection, lease.study_id, batch, stamp)
        return asked

    def change(self, lease: Lease, write: Callable[[Connection], None]) -> None:
        """Call `write` in a transaction that checks the lease, then count the study's trials anew.

        Raises:
            LeaseLost: another driver has the study; nothing was written.
        """
        with self.writing(lease) as connection:
            write(connection)
            self._tally(connection, lease.study_id)

    @contextmanager
    def writing(self, lease: Lease) -> Iterator[Connection]:
        """Begin a transaction that checks the lease, for the length of the block.

        Raises:
            LeaseLost: another driver has the study; nothing was written.
        """
        with plain_errors(self.url), self._writer.begin() as connection:
            self._renew(connection, lease, 0)
            yield connection

    def _write(self, connection: Connection, study_id: int, batch: Batch, stamp: Any) -> None:
        added = [{**trial_row(study_id, trial, stamp, self._codec), "created_at": stamp} for trial in batch.added]
        changed = [
            {
                **trial_row(study_id, trial, stamp, self._codec),
                "in_study": study_id,
                "is_number": trial.number,
                "was_state": expected,
            }
            for expected, trial in batch.changed
        ]
        self._new_trials.execute(connection, added)
        if self._new_states.execute(connection, changed) != len(changed):
            expected = ", ".join(f"{trial.number} {state}" for state, trial in batch.changed)
            raise LeaseLost(f"a trial is no longer as it was left ({expected}): another process has changed it")
        self._new_tallies.execute(connection, list(tally_rows(study_id, batch.added, batch.changed)))
        self._new_points.execute(connection, list(point_rows(study_id, batch.curves)))
        self._new_learned.execute(connection, list(learned_rows(study_id, batch.learned, self._codec)))
        c = schema.task_config.c
        for number, digest in batch.data_digests.items():
            known = sa.update(schema.task_config).where(c.study_id == study_id, c.number == number)
            connection.execute(known.values(data_digest=digest))

    def _renew(self, connection: Connection, lease: Lease, serial: int) -> bool:
        which = {"in_study": lease.study_id, "is_generation": lease.generation}
        if serial:
            row = self._numbered.first(connection, which | {"new_serial": serial, "new_writer": lease.writer})
        else:
            row = self._renewal.first(connection, which)
        if row is None:
            raise LeaseLost(_OVERTAKEN)
        return bool(row.stop_generation == lease.generation)

    def _now(self, plus_seconds: float = 0.0) -> sa.ColumnElement[float]:
        return sa.literal_column(f"({database.clock(self._engine.dialect.name)} + {plus_seconds})", sa.Float)
