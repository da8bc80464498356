"""Between a search and its store: batches go through as they come, and are held while the database does not answer.

An outage does not end a search. What it would write is held in memory and in a journal on this machine, in order, and
the search goes on; a thread tries the database again and again and writes what is held once it is back. A batch whose
acknowledgement was lost is not written twice: batches are numbered, and the database knows the last one's number.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import chain

from searcher.driver.journal import Journal
from searcher.records import Study
from searcher.store.database import StoreConflict, StoreError, StoreRefused, StoreUnavailable
from searcher.store.lease import Lease, LeaseLost, Position
from searcher.store.rows import Batch
from searcher.store.store import LEASE_SECONDS, Store

RETRY_SECONDS = 1.0
MAX_HELD = 10_000  # written rows, some 10 MB; then no new trial begins
MAX_TOGETHER = 500  # most rows written in one transaction once the database is back
CLOSE_SECONDS = 5.0  # how long a search that is stopped in an outage waits for the end of it

_OVERTAKEN = "another driver has gone on with the study since"
_UNFIT = "what is in it does not fit the database; it is measured again"

log = logging.getLogger("searcher")


@dataclass(frozen=True, slots=True)
class Outage:
    """For how long the database has not answered, and how many results are held."""

    seconds: float
    held: int


class ResultWriter:
    """Writes the batches of one session of a study, in order, each once.

    Attributes:
        asked_to_stop: whether the store has said so.
    """

    def __init__(self, store: Store, lease: Lease, study: Study) -> None:
        self._store, self._lease, self._study = store, lease, study
        self._journal = Journal.of(study, lease)
        self._serial = 0
        self._held: deque[Batch] = deque()
        self._since: float | None = None  # when the outage began
        self._failure: Exception | None = None  # why nothing more can be put
        self._retrying: threading.Thread | None = None
        self._lock = threading.Lock()  # of what is held and since when, in an outage
        self._over, self._closing = threading.Event(), threading.Event()
        self._seconds: deque[float] = deque(maxlen=10_000)  # that commits have taken
        self._heard = time.monotonic()  # when the database last took something
        self.asked_to_stop = False

    def open(self) -> None:
        """Writes what an earlier driver has left in its journal on this machine, and signs in. A journal that does not
        go on where the database ends is left as it is: it may go with another copy of the study, in use or not.

        Raises:
            StoreError: the database does not answer; a journal is damaged.
        """
        position = self._store.position(self._lease)
        for journal in Journal.left(self._study):
            rest = [batch for batch in journal.batches if batch.serial > position.serial]
            if position.writer in journal.writers and (not rest or rest[0].serial == position.serial + 1):
                position = self._take_over(journal, rest)
            elif journal.batches:
                log.warning(
                    "the journal %s does not go on where this database ends: the study has gone on without it, or it "
                    "goes with another copy of the study. It is left as it is; if there is none, remove it",
                    journal.path,
                )
        self._serial = position.serial + 1
        self._store.commit(self._lease, Batch(serial=self._serial), short_wait=False)
        self._heard = time.monotonic()

    def _take_over(self, journal: Journal, rest: list[Batch]) -> Position:
        """Writes what a journal holds beyond the database."""
        journal.take_over(self._lease.writer)
        self._held.extend(rest)
        log.warning("%d results of an outage come from the journal %s", self._results(), journal.path)
        try:
            position = self._write_held()
        except (LeaseLost, StoreConflict, StoreRefused):
            position = self._store.position(self._lease)  # raises it again, unless the journal was to blame
            self._held.clear()
            _set_aside(journal, _UNFIT)
        else:
            journal.remove()
        return position

    def put(self, batch: Batch) -> None:
        """Writes a batch, or in an outage holds it; an empty one renews the lease. When this returns the batch is on
        disk, in the database or in the journal.

        Raises:
            LeaseLost: another driver has the study.
            StoreError: the batch is on no disk.
        """
        with self._lock:
            if self._failure:
                raise self._failure
            if batch:
                self._serial += 1
                batch.serial = self._serial
            if self._since is not None:
                self._hold(batch)
                return
        try:
            self._commit(batch)
        except StoreUnavailable as error:
            self._ask_who_drives()
            with self._lock:
                self._hold(batch)
                self._begin(error)

    def _ask_who_drives(self) -> None:
        """Raises LeaseLost if another driver has the study: a process that has stood still finds its connection to
        PostgreSQL cut, or a SQLite file busy, and must not go on as in an outage. (Else a reader of SQLite would wait
        for whoever locks it.)"""
        stood_still = time.monotonic() - self._heard > LEASE_SECONDS
        if stood_still or self._store.url.get_backend_name() == "postgresql":
            with suppress(StoreUnavailable):
                self._store.position(self._lease)

    @property
    def outage(self) -> Outage | None:
        with self._lock:
            if self._since is None:
                return None
            return Outage(time.monotonic() - self._since, self._results())

    @property
    def has_room(self) -> bool:
        with self._lock:
            return sum(map(_rows, self._held)) < MAX_HELD

    def wait(self, seconds: float) -> None:
        """Waits for the end of the outage."""
        self._over.wait(seconds)

    def close(self) -> None:
        """Ends a session. In an outage it waits a moment, then leaves the rest to the journal."""
        if self._since is None:
            return
        self._over.wait(CLOSE_SECONDS)
        self._closing.set()
        if self._retrying:
            self._retrying.join(CLOSE_SECONDS)  # nothing is to be written once the lease is given back
        with self._lock:
            if self._since is not None and self._journal.path.exists():
                log.warning(
                    "%d results are not in the database but in the journal %s, from which the study's next session on "
                    "this machine writes them",
                    self._results(),
                    self._journal.path,
                )

    def commits(self) -> tuple[float, ...]:
        """How many seconds each commit since the last call has taken."""
        return tuple(self._seconds.popleft() for _ in range(len(self._seconds)))

    def _commit(self, batch: Batch) -> None:
        begun = time.monotonic()
        self.asked_to_stop |= self._store.commit(self._lease, batch)
        self._heard = time.monotonic()
        self._seconds.append(self._heard - begun)

    def _hold(self, batch: Batch) -> None:
        if not batch:
            return
        try:
            self._journal.append(batch)
        except StoreError as error:
            self._failure = error  # nothing may follow a batch that is on no disk
            raise
        self._held.append(batch)

    def _begin(self, error: StoreUnavailable) -> None:
        self._since = time.monotonic()
        self._over.clear()
        log.warning("%s; the search goes on and holds its results until the database is back", error)
        retry = partial(copy_context().run, self._retry)  # whose log records are about the study too
        self._retrying = threading.Thread(target=retry, name="searcher-result-writer", daemon=True)
        self._retrying.start()

    def _retry(self) -> None:
        """Ends with the outage, or with a failure that the search's next `put` raises."""
        while not self._closing.wait(RETRY_SECONDS):
            try:
                self._write_held()
            except StoreUnavailable:
                continue
            except Exception as error:  # it belongs to the search, whose thread this is not
                self._give_up(error)
            return

    def _give_up(self, error: Exception) -> None:
        """The journal has its last name before the search hears of it: its process, and this thread, may end then. Once
        the session is leaving, the lease that is lost may be the one that it has given back itself."""
        with self._lock:
            try:
                if isinstance(error, LeaseLost) and not self._closing.is_set():
                    _set_aside(self._journal, _OVERTAKEN)
            except OSError as unnamed:
                log.warning(
                    "the journal %s is another driver's past and cannot be renamed: %s", self._journal.path, unnamed
                )
            self._failure = error
            self._over.set()

    def _write_held(self) -> Position:
        """Writes what is held, and ends the outage if there is one.

        Raises:
            StoreUnavailable: it is not over yet.
            LeaseLost: another driver has the study.
        """
        position = self._store.position(self._lease)
        while True:
            with self._lock:
                while self._held and self._held[0].serial <= position.serial:
                    self._held.popleft()
                if not self._held:
                    self._end()
                    return position
                batch = _together(self._held)
            self._commit(batch)
            position = Position(batch.serial, self._lease.writer)

    def _end(self) -> None:
        if self._since is not None:
            log.warning("the database is back after %.0f s; all results are in it", time.monotonic() - self._since)
            self._since = None
            self._over.set()
            try:
                self._journal.remove()
            except OSError as error:
                log.warning("the journal %s is needed no more and cannot be removed: %s", self._journal.path, error)

    def _results(self) -> int:
        changed = (trial for batch in self._held for _, trial in batch.changed)
        added = (trial for batch in self._held for trial in batch.added)
        return sum(trial.state.finished for trial in chain(added, changed))


def _rows(batch: Batch) -> int:
    return len(batch.added) + len(batch.changed)


def _together(held: deque[Batch]) -> Batch:
    """The first of them as one batch: a row is added before it is changed."""
    whole = Batch()
    for batch in held:
        if whole and _rows(whole) + _rows(batch) > MAX_TOGETHER:
            break
        whole.added += batch.added
        whole.changed += batch.changed
        whole.curves |= batch.curves
        whole.data_digests |= batch.data_digests
        whole.serial = batch.serial
    return whole


def _set_aside(journal: Journal, why: str) -> None:
    if path := journal.set_aside():
        log.warning("%s: what is in the journal is kept as %s", why, path)
