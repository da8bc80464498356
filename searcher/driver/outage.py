"""Write a search's batches to its store, and hold them while the database does not answer.

An outage does not end a search. Its batches are held in memory and in a journal on this machine, in order, and the
search goes on. A thread tries the database every second and writes the held batches once it answers. A batch whose
acknowledgement was lost is not written twice: batches are numbered, and the database has the number of the last one.
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
MAX_HELD = 10_000  # held rows, about 10 MB; with more, no new trial begins
MAX_TOGETHER = 500  # rows written in one transaction once the database is back
CLOSE_SECONDS = 5.0  # how long a search that is stopped in an outage waits for the end of the outage

_OVERTAKEN = "another driver has gone on with the study since"
_UNFIT = "what is in it does not fit the database; it is measured again"

log = logging.getLogger("searcher")


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of the database.

    Attributes:
        seconds: its length so far.
        held: number of results that wait in memory and in the journal to be written.
    """

    seconds: float
    held: int


class ResultWriter:
    """Writes the batches of one session of a study, in order, each exactly once.

    Attributes:
        asked_to_stop: True once `searcher stop` has asked this driver to end.
    """

    def __init__(self, store: Store, lease: Lease, study: Study) -> None:
        self._store, self._lease, self._study = store, lease, study
        self._journal = Journal.of(study, lease)
        self._serial = 0
        self._held: deque[Batch] = deque()
        self._since: float | None = None  # when the outage began
        self._failure: Exception | None = None  # why nothing more can be put
        self._retrying: threading.Thread | None = None
        self._lock = threading.Lock()  # of `_held`, `_since` and `_failure`, which the thread changes too
        self._over, self._closing = threading.Event(), threading.Event()
        self._seconds: deque[float] = deque(maxlen=10_000)  # lengths of commits
        self._heard = time.monotonic()  # when the database last accepted a commit
        self.asked_to_stop = False

    def open(self) -> None:
        """Write the batches in the journals that earlier drivers left on this machine, and record this driver as the
        study's writer. A journal that does not continue where the database ends is left as it is: it may belong to
        another copy of the study.

        Raises:
            StoreError: the database does not answer, or a journal is damaged.
        """
        position = self._store.position(self._lease)
        for journal in Journal.left(self._study):
            rest = [batch for batch in journal.batches if batch.serial > position.serial]
            if position.writer in journal.writers and (not rest or rest[0].serial == position.serial + 1):
                position = self._take_over(journal, rest)
            elif journal.batches:
                log.warning(
                    "the journal %s does not continue where this database ends: the study has gone on without it, or "
                    "it belongs to another copy of the study. It is left as it is; if there is no copy, remove it",
                    journal.path,
                )
        self._serial = position.serial + 1
        self._store.commit(self._lease, Batch(serial=self._serial), short_wait=False)
        self._heard = time.monotonic()

    def _take_over(self, journal: Journal, rest: list[Batch]) -> Position:
        """Write `rest`, the batches of a journal that the database does not have, and return the new position."""
        journal.take_over(self._lease.writer)
        self._held.extend(rest)
        log.warning("%d results of an outage come from the journal %s", self._results(), journal.path)
        try:
            position = self._write_held()
        except (LeaseLost, StoreConflict, StoreRefused):
            position = self._store.position(self._lease)  # raises LeaseLost if the journal was not the reason
            self._held.clear()
            _set_aside(journal, _UNFIT)
        else:
            journal.remove()
        return position

    def put(self, batch: Batch) -> None:
        """Write a batch, or hold it in an outage; an empty batch renews the lease. When this returns, the batch is on
        disk, in the database or in the journal.

        Raises:
            LeaseLost: another driver has the study.
            StoreError: the batch is in neither.
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
            self._check_lease()
            with self._lock:
                self._hold(batch)
                self._begin(error)

    def _check_lease(self) -> None:
        """Raise LeaseLost if another driver has the study. A process that was suspended finds its connection to
        PostgreSQL closed, or a SQLite file busy, and must not take that for an outage. SQLite is asked only after a
        pause that is longer than a lease, because a read would wait for the process that holds the lock."""
        lease_may_be_over = time.monotonic() - self._heard > LEASE_SECONDS
        if lease_may_be_over or self._store.url.get_backend_name() == "postgresql":
            with suppress(StoreUnavailable):
                self._store.position(self._lease)

    @property
    def outage(self) -> Outage | None:
        """The present outage; None while the database answers."""
        with self._lock:
            if self._since is None:
                return None
            return Outage(time.monotonic() - self._since, self._results())

    @property
    def has_room(self) -> bool:
        """False if so much is held that no new trial should begin."""
        with self._lock:
            return sum(map(_rows, self._held)) < MAX_HELD

    def wait(self, seconds: float) -> None:
        """Wait for the end of the outage, up to `seconds`."""
        self._over.wait(seconds)

    def close(self) -> None:
        """End the session. In an outage, wait a few seconds for the database, then leave the results in the journal."""
        if self._since is None:
            return
        self._over.wait(CLOSE_SECONDS)
        self._closing.set()
        if self._retrying:
            self._retrying.join(CLOSE_SECONDS)  # the thread must not write after the lease was given back
        with self._lock:
            if self._since is not None and self._journal.path.exists():
                log.warning(
                    "%d results are not in the database but in the journal %s; the study's next session on this "
                    "machine writes them to the database",
                    self._results(),
                    self._journal.path,
                )

    def commits(self) -> tuple[float, ...]:
        """Return how many seconds each commit since the last call took."""
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
            self._failure = error  # this batch is lost, so no later batch may be written
            raise
        self._held.append(batch)

    def _begin(self, error: StoreUnavailable) -> None:
        self._since = time.monotonic()
        self._over.clear()
        log.warning("%s; the search goes on and holds its results until the database is back", error)
        retry = partial(copy_context().run, self._retry)  # in this context, log records name the study
        self._retrying = threading.Thread(target=retry, name="searcher-result-writer", daemon=True)
        self._retrying.start()

    def _retry(self) -> None:
        """Try to write what is held, once a second, until the outage ends or another error comes, which the next `put`
        raises."""
        while not self._closing.wait(RETRY_SECONDS):
            try:
                self._write_held()
            except StoreUnavailable:
                continue
            except Exception as error:  # the search's own thread must raise it
                self._fail(error)
            return

    def _fail(self, error: Exception) -> None:
        """Make the next `put` raise the error. If another driver has the study, set the journal aside first: the
        process may end as soon as the search sees the error. If the session is closing, LeaseLost may only mean that it
        gave its own lease back, and the journal stays."""
        with self._lock:
            try:
                if isinstance(error, LeaseLost) and not self._closing.is_set():
                    _set_aside(self._journal, _OVERTAKEN)
            except OSError as unnamed:
                log.warning(
                    "another driver has gone on with the study; the journal %s is of no use and cannot be renamed: %s",
                    self._journal.path,
                    unnamed,
                )
            self._failure = error
            self._over.set()

    def _write_held(self) -> Position:
        """Write all held batches, and end the outage if there is one.

        Raises:
            StoreUnavailable: the database does not answer yet.
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
                log.warning("the journal %s is no longer needed and cannot be removed: %s", self._journal.path, error)

    def _results(self) -> int:
        """Return the number of results among the held batches."""
        changed = (trial for batch in self._held for _, trial in batch.changed)
        added = (trial for batch in self._held for trial in batch.added)
        return sum(trial.state.finished for trial in chain(added, changed))


def _rows(batch: Batch) -> int:
    return len(batch.added) + len(batch.changed)


def _together(held: deque[Batch]) -> Batch:
    """Return the first held batches as one batch, of at most `MAX_TOGETHER` rows if it is more than one. The store
    writes `added` before `changed`, so a row is there before it is changed."""
    whole = Batch()
    for batch in held:
        if whole and _rows(whole) + _rows(batch) > MAX_TOGETHER:
            break
        whole.added += batch.added
        whole.changed += batch.changed
        whole.curves |= batch.curves
        whole.learned |= batch.learned
        whole.data_digests |= batch.data_digests
        whole.serial = batch.serial
    return whole


def _set_aside(journal: Journal, why: str) -> None:
    if path := journal.set_aside():
        log.warning("%s: what is in the journal is kept as %s", why, path)
