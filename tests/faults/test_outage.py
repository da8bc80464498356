"""The database goes away under a search and comes back: nothing is lost, nothing is done twice, nobody is idle."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from searcher.driver import leases, session
from searcher.driver.journal import Journal
from searcher.driver.loop import Search
from searcher.driver.outage import RETRY_SECONDS, ResultWriter
from searcher.records import Kind, Study, StudyKind, Trial, TrialState
from searcher.samplers.contract import Pending
from searcher.samplers.random import RandomSampler
from searcher.settings.config import ConfigError
from searcher.settings.plan import grammar_of
from searcher.store.database import StoreError, StoreUnavailable
from searcher.store.lease import Lease, LeaseLost, Position
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support import ROOT
from tests.support.made import create, image_task, proposing, result
from tests.support.outages import SETTINGS, Breakdown, file_of, locked, survives
from tests.support.postgres import Server
from tests.support.searches import CountingJudge, judge, never, run
from workers.contract import Job, Outcome, Point
from workers.pools.base import InlinePool

pytestmark = pytest.mark.slow


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's journals are."""
    monkeypatch.setenv("SEARCHER_STATE", str(tmp_path / "state"))
    return tmp_path / "state" / "journals"


@pytest.fixture
def server(new_folder: Callable[[], Path]) -> Iterator[Server]:
    made = Server(new_folder())
    yield made
    made.close()


def test_a_locked_sqlite_file(sqlite_url: str, state: Path) -> None:
    """Seen to fail with `StoreUnavailable` no longer caught in `ResultWriter.put`: the search ends with it."""
    survives(sqlite_url, Breakdown(lambda: locked(sqlite_url), 10))
    assert not list(state.glob("*")), "the journal goes with the outage"


@pytest.mark.parametrize("seconds", [5, 30])
def test_a_postgresql_server_that_is_stopped(server: Server, seconds: int, state: Path) -> None:
    """Seen to fail with `_may_pass` always false: the search ends with the first refused connection."""
    survives(server.url, Breakdown(server.stopped, seconds))
    assert not list(state.glob("*"))


DRIVER = """
import sys, time
from searcher.driver import leases, session
from searcher.store.store import Store
from tests.support.outages import SETTINGS
from tests.support.searches import judge
from workers.pools.base import InlinePool

def child(job):
    time.sleep(0.02)
    with open(sys.argv[3], "a") as file:
        file.write(f"{job.number}\\n")
    return judge(job)

store = Store(sys.argv[1])
study = store.study(sys.argv[2])
with leases.held_lease(store, study) as lease:
    for _ in session.search(store, lease, study, SETTINGS, InlinePool(run=child), lambda: False):
        print("driving", flush=True)
"""


def test_a_driver_that_is_killed_in_an_outage(sqlite_url: str, state: Path, tmp_path: Path) -> None:
    """Seen to fail with `ResultWriter.open` not reading journals: what was measured in the outage is measured again."""
    store = Store(sqlite_url, create=True)
    study = session.create_study(store, SETTINGS)
    runs = tmp_path / "runs"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, sqlite_url, study.name, str(runs)], env=environment, stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout and driver.stdout.readline() == b"driving\n"
        with locked(sqlite_url):
            end = time.monotonic() + 300
            while not any(len(path.read_bytes().splitlines()) > 60 for path in state.glob("*.jsonl")):
                assert time.monotonic() < end and driver.poll() is None
                time.sleep(0.05)
            driver.send_signal(signal.SIGKILL)
            driver.wait()
            (journal,) = Journal.left(study)
    kept = {trial.number: trial for batch in journal.batches for _, trial in batch.changed if trial.state.finished}
    assert len(kept) > 10
    before = len(runs.read_text().split())
    again = CountingJudge()
    run(store, study, SETTINGS, InlinePool(run=again))
    trials = store.trials(study)
    assert [t.number for t in trials] == list(range(400)) and all(t.state.finished for t in trials)
    assert {number: trials[number] for number in kept} == kept
    trained = sum(t.trained for t in trials)
    assert before + again.runs.total() <= trained + 1, "one run more for one kill"
    assert not list(state.glob("*"))
    store.close()


def open_writer(store: Store, study: Study) -> tuple[Lease, ResultWriter]:
    lease = store.acquire(study, "me")
    writer = ResultWriter(store, lease, study)
    writer.open()
    return lease, writer


def make_study(store: Store) -> Study:
    return create(store, "s", 10, "val_loss", {}, {})


def ended(number: int) -> Trial:
    return result(Trial(number, Kind.CANDIDATE, "sin(x)", f"k{number}", 0), 0.5, finish_order=number)


def finish(writer: ResultWriter, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while writer.outage:
        assert time.monotonic() < end
        writer.wait(0.1)


def test_an_outage_that_another_driver_uses(sqlite_url: str, state: Path) -> None:
    """Seen to fail with the journal left in its place: the next session takes it for its predecessor's."""
    store = Store(sqlite_url, create=True)
    study = make_study(store)
    lease, writer = open_writer(store, study)
    with locked(sqlite_url):
        writer.put(Batch(added=[ended(0)]))
        writer._closing.set()  # as if it was stopped: the thread may not be first
    other = store.acquire(study, "other", evict=lease.generation)
    theirs = ResultWriter(store, other, study)
    theirs.open()  # nothing was written since: what is in the journal is the study's
    assert store.trials(study) == [ended(0)]
    theirs.put(Batch(added=[ended(1)]))
    with locked(sqlite_url):
        theirs.put(Batch(added=[ended(2)]))
        theirs._closing.set()
    elsewhere = store.acquire(study, "on another machine", evict=other.generation)
    store.commit(elsewhere, Batch(added=[ended(2)], serial=99))  # who does not see the journal
    _, last = open_writer_after(store, study, elsewhere)
    assert [path.suffix for path in state.iterdir()] == [".jsonl"], "left as it is"
    assert last.outage is None
    assert [t.number for t in store.trials(study)] == [0, 1, 2]
    store.close()


def test_a_journal_that_is_ahead_of_a_restored_database(sqlite_url: str, state: Path, tmp_path: Path) -> None:
    """Seen to fail with every batch above the position taken: trial 2 is there and trial 1 is not."""
    store = Store(sqlite_url, create=True)
    study = make_study(store)
    lease, writer = open_writer(store, study)
    writer.put(Batch(added=[ended(0)]))
    store.close()
    copy = shutil.copy(file_of(sqlite_url), tmp_path / "copy.db")
    writer.put(Batch(added=[ended(1)]))
    with locked(sqlite_url):
        writer.put(Batch(added=[ended(2)]))
        writer._closing.set()
    store.close()
    shutil.copy(copy, file_of(sqlite_url))
    open_writer_after(store, study, lease)
    assert [trial.number for trial in store.trials(study)] == [0]
    assert [path.suffix for path in state.iterdir()] == [".jsonl"]
    store.close()


def test_a_journal_of_another_copy_of_the_study(sqlite_url: str, state: Path, tmp_path: Path) -> None:
    """Seen to fail where a driver is known by its generation: the copy, whose drivers have the same, sets it aside."""
    store = Store(sqlite_url, create=True)
    study = make_study(store)
    first, _ = open_writer(store, study)
    store.release(first)
    store.close()
    copy = Store(f"sqlite:///{shutil.copy(file_of(sqlite_url), tmp_path / 'copy.db')}")
    lease, writer = open_writer(store, study)
    with locked(sqlite_url):
        writer.put(Batch(added=[ended(0)]))
        open_writer(copy, study)
        writer._closing.set()  # and here its process is killed
    assert copy.trials(study) == []
    open_writer_after(store, study, lease)
    assert store.trials(study) == [ended(0)]
    assert not list(state.iterdir())
    copy.close()
    store.close()


@pytest.mark.parametrize("written", [1, 2])
def test_a_journal_from_before_a_restore(
    written: int, sqlite_url: str, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study was restored and has gone on elsewhere, under the numbers that its drivers had before. Seen to fail
    where a driver is known by its generation: what was undone is merged in."""
    store = Store(sqlite_url, create=True)
    study = make_study(store)
    first, writer = open_writer(store, study)
    writer.put(Batch(added=[ended(0)]))
    store.release(first)
    store.close()
    backup = shutil.copy(file_of(sqlite_url), tmp_path / "backup.db")
    _, writer = open_writer(store, study)
    with locked(sqlite_url):
        for number in (1, 2, 3):
            writer.put(Batch(added=[ended(number)]))
        writer._closing.set()
    store.close()
    shutil.copy(backup, file_of(sqlite_url))
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("SEARCHER_STATE", str(tmp_path / "elsewhere"))
        lease, writer = open_writer(store, study)
        for number in range(1, 1 + written):
            writer.put(Batch(added=[result(ended(number), 0.25)]))
        store.release(lease)
    open_writer(store, study)
    assert [trial.metrics["val_loss"] for trial in store.trials(study)] == [0.5] + written * [0.25]
    store.close()


def test_an_outage_that_ends_as_the_session_does(sqlite_url: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail where a lease that the session has given back itself is taken for one that was taken from it."""
    monkeypatch.setattr("searcher.driver.outage.CLOSE_SECONDS", 0.1)
    store = Store(sqlite_url, create=True)
    study = make_study(store)
    lease, writer = open_writer(store, study)
    released, commit = threading.Event(), writer._commit

    def late(batch: Batch) -> None:
        assert released.wait(60)
        commit(batch)

    with locked(sqlite_url):
        writer.put(Batch(added=[ended(0)]))
        monkeypatch.setattr(writer, "_commit", late)
    time.sleep(2 * RETRY_SECONDS)  # its thread is about to write
    writer.close()
    store.release(lease)
    released.set()
    assert writer._retrying
    writer._retrying.join()
    open_writer(store, study)
    assert store.trials(study) == [ended(0)]
    assert not list(state.iterdir())
    store.close()


def open_writer_after(store: Store, study: Study, former: Lease) -> tuple[Lease, ResultWriter]:
    lease = store.acquire(study, "me again", evict=former.generation)
    writer = ResultWriter(store, lease, study)
    writer.open()
    return lease, writer


def test_a_driver_that_was_overtaken_in_an_outage_ends(
    sqlite_url: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with `LeaseLost` retried like an outage: it never ends; and with the search told of it before its
    journal had its last name."""
    set_aside = Journal.set_aside

    def slowly(journal: Journal) -> Path | None:
        time.sleep(0.5)
        return set_aside(journal)

    monkeypatch.setattr(Journal, "set_aside", slowly)
    store = Store(sqlite_url, create=True)
    study = make_study(store)
    lease, writer = open_writer(store, study)
    with locked(sqlite_url):
        writer.put(Batch(added=[ended(0)]))
        taken = threading.Thread(target=lambda: store.acquire(study, "other", evict=lease.generation))
        taken.start()  # waits for the lock, as the writer does
        time.sleep(0.2)
    taken.join()
    end = time.monotonic() + 60
    with pytest.raises(LeaseLost):
        while time.monotonic() < end:
            writer.put(Batch())
            writer.wait(0.2)
    left = [path.suffix for path in state.iterdir()]
    assert (store.trials(study), left) in (([], [".overtaken"]), ([ended(0)], [])), "as if it was first"
    store.close()


class Forgetful(Store):
    """The connection dies when the database has committed and before it says so."""

    forgets = False

    def commit(self, lease: Lease, batch: Batch, *, short_wait: bool = True) -> bool:
        done = super().commit(lease, batch, short_wait=short_wait)
        if batch and self.forgets:
            self.forgets = False
            raise StoreUnavailable("connection reset by peer")
        return done


def test_a_commit_whose_acknowledgement_is_lost_is_applied_once(database_url: str, state: Path) -> None:
    """Seen to fail with `_write_held` starting from what is held, whatever the database says it has."""
    store = Forgetful(database_url, create=True)
    study = make_study(store)
    _, writer = open_writer(store, study)
    store.forgets = True
    writer.put(Batch(added=[ended(0)]))
    assert writer.outage and writer.outage.held == 1
    writer.put(Batch(added=[ended(1)]))
    finish(writer)
    writer.put(Batch(added=[ended(2)]))
    assert store.trials(study) == [ended(0), ended(1), ended(2)]
    assert not list(state.glob("*"))
    store.close()


def test_a_search_that_is_stopped_in_an_outage_leaves_a_journal(
    sqlite_url: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with `close` removing the journal."""
    monkeypatch.setattr("searcher.driver.outage.CLOSE_SECONDS", 0.5)
    store = Store(sqlite_url, create=True)
    study = session.create_study(store, SETTINGS)
    lease = store.acquire(study, "me")
    asked = threading.Event()
    pool = InlinePool(run=judge)
    searching = session.search(store, lease, study, SETTINGS, pool, asked.is_set)
    for _ in range(5):
        next(searching)
    with locked(sqlite_url):
        held = 0
        while held < 20:
            progress = next(searching)
            held = progress.outage.held if progress.outage else 0
        asked.set()
        list(searching)
        for thread in threading.enumerate():
            if thread.name == "searcher-result-writer":
                thread.join()
    pool.close()
    assert [path.stat().st_mode & 0o777 for path in state.glob("*.jsonl")] == [0o600]
    run_after(store, study, lease)
    assert [t.number for t in store.trials(study)] == list(range(400))
    store.close()


def run_after(store: Store, study: Study, former: Lease) -> None:
    lease = store.acquire(study, "me again", evict=former.generation)
    pool = InlinePool(run=judge)
    list(session.search(store, lease, study, SETTINGS, pool, never))
    pool.close()


class Flaky(Store):
    """The real store behind a network that can be cut."""

    down = False

    def commit(self, lease: Lease, batch: Batch, *, short_wait: bool = True) -> bool:
        self._reach()
        return super().commit(lease, batch, short_wait=short_wait)

    def position(self, lease: Lease) -> Position:
        self._reach()
        return super().position(lease)

    def _reach(self) -> None:
        if self.down:
            raise StoreUnavailable("connection refused")


@pytest.fixture
def flaky(sqlite_url: str, state: Path) -> Iterator[Flaky]:
    store = Flaky(sqlite_url, create=True)
    yield store
    store.close()


def test_two_outages_within_a_second(flaky: Flaky) -> None:
    """Seen to fail with the first outage's thread going on: it writes beside the second's, and what one has written the
    other finds there."""
    study = make_study(flaky)
    _, writer = open_writer(flaky, study)
    for first in (0, 2):
        flaky.down = True
        writer.put(Batch(added=[ended(first)]))
        time.sleep(1.1 if first == 0 else 0.0)  # at the end of this one its thread has looked a moment ago
        writer.put(Batch(added=[ended(first + 1)]))
        if first:
            time.sleep(1.2)
            assert [t.name for t in threading.enumerate()].count("searcher-result-writer") == 1
        flaky.down = False
        finish(writer)
    writer.put(Batch(added=[ended(4)]))
    assert flaky.trials(study) == [ended(number) for number in range(5)]


def test_a_total_is_not_set_below_what_a_journal_holds(flaky: Flaky) -> None:
    """Seen to fail with the rows of the database counted alone: 5 trials of 3."""
    study = make_study(flaky)
    lease, writer = open_writer(flaky, study)
    flaky.down = True
    writer.put(Batch(added=[ended(number) for number in range(5)]))
    writer._closing.set()
    flaky.down = False
    later = flaky.acquire(study, "me again", evict=lease.generation)
    with pytest.raises(ConfigError, match="it has 5 trials already; not 3"):
        session.extended(flaky, later, study, 3)


def test_a_journal_holds_whole_lines_on_a_disk_that_fills_up(flaky: Flaky) -> None:
    """Seen to fail with what `os.write` returns not looked at: half a line counts as kept, and the next one is lost
    with it; and with what comes after a batch on no disk appended behind the gap."""
    study = make_study(flaky)
    lease, writer = open_writer(flaky, study)
    flaky.down = True
    writer.put(Batch(added=[ended(0)]))
    with limited(writer._journal.path.stat().st_size + 100), pytest.raises(StoreError, match=r"No space|too large"):
        writer.put(Batch(added=[ended(1)]))
    with pytest.raises(StoreError, match="cannot be kept"):
        writer.put(Batch(added=[ended(2)]))  # there is room again
    writer._closing.set()
    flaky.down = False
    open_writer_after(flaky, study, lease)
    assert flaky.trials(study) == [ended(0)]


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file of this process grows past so many bytes."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_lock_that_others_hold_on_postgresql_is_an_outage(postgresql_url: str, state: Path) -> None:
    """Seen to fail without a `lock_timeout`: the search stands still, without a word, until the lock is let go."""
    store = Store(postgresql_url, create=True)
    study = make_study(store)
    _, writer = open_writer(store, study)
    engine = sa.create_engine(store.url)
    with engine.begin() as other:
        other.execute(sa.text("LOCK TABLE searcher_lease"))
        begun = time.monotonic()
        writer.put(Batch(added=[ended(0)]))
        assert time.monotonic() - begun < 60
        assert writer.outage and writer.outage.held == 1
    finish(writer)
    assert store.trials(study) == [ended(0)]
    engine.dispose()
    store.close()


def test_a_lock_that_outlasts_a_time_out_of_the_role(postgresql_url: str, state: Path) -> None:
    """Row R4: `ALTER ROLE ... SET statement_timeout`, and the other time-outs that a role or a database may have."""
    with psycopg.connect(postgresql_url, autocommit=True) as server:
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            server.execute(f"ALTER DATABASE {server.info.dbname} SET {name} = '400ms'")
        store = Store(postgresql_url, create=True)
        study = make_study(store)
        _, writer = open_writer(store, study)
        server.autocommit = False
        server.execute("LOCK TABLE searcher_lease")
        writer.put(Batch(added=[ended(0)]))
        time.sleep(3)
        writer.put(Batch(added=[ended(1)]))
        assert writer.outage and writer.outage.held == 2
        server.rollback()
        server.autocommit = True
    finish(writer)
    assert store.trials(study) == [ended(0), ended(1)]
    store.close()


PASSING = [
    *("57014", "57000", "57P01", "57P02", "57P03", "57P05"),  # cancelled by others, shutdowns
    *("53000", "53100", "53200", "53300", "53400", "58000", "58030", "58P01"),  # no room, errors of the system
    *("40001", "40003", "40P01", "55P03", "25P03", "25006", "08000", "08006"),
]
REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'gespeicherter Fehler' USING ERRCODE = '{state}'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON searcher_trial FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize("sqlstate", PASSING)
def test_what_may_pass_is_an_outage_whatever_its_words(postgresql_url: str, state: Path, sqlstate: str) -> None:
    """Row R4 (and R11): the class of the SQLSTATE decides, in any language of the server."""
    store = Store(postgresql_url, create=True)
    study = make_study(store)
    _, writer = open_writer(store, study)
    with psycopg.connect(postgresql_url, autocommit=True) as server:
        server.execute(REFUSE.format(state=sqlstate))
        writer.put(Batch(added=[ended(0)]))
        assert writer.outage and writer.outage.held == 1
        server.execute("DROP TRIGGER refuse ON searcher_trial")
    finish(writer)
    assert store.trials(study) == [ended(0)]
    store.close()


@pytest.mark.parametrize("sqlstate", ["42501", "22003", "XX001", "P0001", "54000", "3D000"])
def test_what_will_not_pass_ends_the_search(postgresql_url: str, state: Path, sqlstate: str) -> None:
    """Row R4: the other side of it."""
    store = Store(postgresql_url, create=True)
    study = make_study(store)
    _, writer = open_writer(store, study)
    with psycopg.connect(postgresql_url, autocommit=True) as server:
        server.execute(REFUSE.format(state=sqlstate))
    with pytest.raises(StoreError, match="gespeicherter Fehler") as refusal:
        writer.put(Batch(added=[ended(0)]))
    assert not isinstance(refusal.value, StoreUnavailable) and "does not answer" not in str(refusal.value)
    store.close()


def test_a_statement_that_somebody_cancels_is_an_outage(postgresql_url: str, state: Path) -> None:
    """Row R4: `pg_cancel_backend` while a commit waits."""
    store = Store(postgresql_url, create=True)
    study = make_study(store)
    _, writer = open_writer(store, study)
    waiting = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    with psycopg.connect(postgresql_url) as holder, psycopg.connect(postgresql_url, autocommit=True) as server:
        holder.execute("LOCK TABLE searcher_lease")
        putting = threading.Thread(target=writer.put, args=[Batch(added=[ended(0)])])
        putting.start()
        while not server.execute(waiting, [server.info.dbname]).fetchall():
            assert putting.is_alive()
        putting.join()
        assert writer.outage and writer.outage.held == 1
    finish(writer)
    assert store.trials(study) == [ended(0)]
    store.close()


@pytest.mark.parametrize("parameters", [3 * 10**9, 10**30])
def test_a_journal_that_the_database_refuses_is_set_aside(
    database_url: str, state: Path, parameters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row R6: an older searcher has written numbers to its journal that no table holds; they are measured again."""
    store = Store(database_url, create=True)
    study = make_study(store)
    lease, writer = open_writer(store, study)
    bad = Batch(added=[replace(ended(0), parameters=parameters)], serial=writer._serial + 1)
    writer._journal.append(bad)
    again = store.acquire(study, "me again", evict=lease.generation)
    ResultWriter(store, again, study).open()
    if database_url.startswith("sqlite") and parameters < 2**63:
        assert store.trial(study, 0).parameters == parameters
    else:
        assert store.trials(study) == [] and len(list(state.glob("*.overtaken"))) == 1
    store.close()


class Clock:
    """Time passes for a sampler as slow as a model of thousands of trials, and while nothing ends."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(RandomSampler):
    def __init__(self, clock: Clock) -> None:
        super().__init__(grammar=grammar_of(SETTINGS), seed=0)
        self._clock = clock

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> tuple[int, ...]:
        self._clock.now += 0.3
        return super().ask(number)


class Idle:
    """Forty workers that never end a job."""

    capacity = 40

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def submit(self, *jobs: Job) -> None: ...

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        self._clock.now += timeout_seconds
        return []

    def close(self) -> None: ...


def test_a_slow_sampler_does_not_cost_the_lease(sqlite_url: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with all forty proposals made before the first commit: another driver may take the study."""
    store, clock = Store(sqlite_url, create=True), Clock()
    study = session.create_study(store, SETTINGS.replace(baselines=("none",)))
    commit, renewed = store.commit, [clock.now]

    def noted(lease: Lease, batch: Batch, *, short_wait: bool = True) -> bool:
        renewed.append(clock.now)
        return commit(lease, batch, short_wait=short_wait)

    monkeypatch.setattr(store, "commit", noted)
    with leases.held_lease(store, study) as lease:
        search = Search(
            store, lease, study, SETTINGS, proposing(Slow(clock), SETTINGS), Idle(clock), lambda: clock.now > 60, clock
        )
        assert sum(1 for _ in search.run()) > 2
    assert clock.now > 60 and max(after - before for before, after in pairwise(renewed)) < 3
    store.close()


def test_where_no_journal_can_be_kept_the_search_ends_and_says_so(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the journal's OSError ignored."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEARCHER_STATE", str(tmp_path / "file"))
    store = Store(sqlite_url, create=True)
    _, writer = open_writer(store, make_study(store))
    with locked(sqlite_url), pytest.raises(StoreError, match=r"cannot be kept in .*set SEARCHER_STATE"):
        writer.put(Batch(added=[ended(0)]))
    store.close()


# The journal

finite = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.dictionaries(st.text(max_size=9), finite, max_size=3)
trials = st.builds(
    Trial,
    st.integers(0, 10**6),
    st.sampled_from(Kind),
    st.text(max_size=30),
    st.text(max_size=8),
    st.integers(0, 2**31),
    choices=st.none() | st.lists(st.integers(0, 30)).map(tuple),
    state=st.sampled_from(TrialState),
    reason=st.text(max_size=50),
    metrics=metrics,
    value=st.none() | finite,
    merit=st.none() | finite,
    seconds=finite,
    finish_order=st.none() | st.integers(0, 10**6),
)
points = st.builds(Point, st.integers(1, 99), metrics)
batches = st.builds(
    Batch,
    added=st.lists(trials, max_size=3),
    changed=st.lists(st.tuples(st.sampled_from(TrialState), trials), max_size=3),
    curves=st.dictionaries(st.integers(0, 99), st.lists(points, max_size=3), max_size=2),
    data_digests=st.dictionaries(st.integers(0, 9), st.text(max_size=16), max_size=2),
    serial=st.integers(1, 10**9),
)
STUDY = Study(1, "s", StudyKind.SEARCH, 10, (image_task(),), {})


@settings(max_examples=60, deadline=None)
@given(st.lists(batches, min_size=1, max_size=4), st.data())
def test_a_journal_holds_what_was_written_to_it(written: list[Batch], data: st.DataObject) -> None:
    """Seen to fail with `choices` left a list, and with the torn line kept."""
    journal = Journal.of(STUDY, Lease(1, 1, writer=3))
    try:
        for batch in written:
            journal.append(batch)
        (read,) = Journal.left(STUDY)
        assert (read.batches, read.writers) == (written, {3})
        read.take_over(5)
        whole = journal.path.read_bytes()
        assert Journal.left(STUDY)[0].writers == {3, 5}
        body = whole[: whole[:-1].rfind(b"\n") + 1]  # before the note of taking over
        last = body[:-1].rfind(b"\n") + 1
        journal.path.write_bytes(body[: data.draw(st.integers(last, len(body) - 1))])
        (torn,) = Journal.left(STUDY)
        assert torn.batches == written[:-1]
        torn.take_over(4)
        (mended,) = Journal.left(STUDY)
        assert (mended.batches, mended.writers) == (written[:-1], {3, 4})
        at = data.draw(st.integers(0, len(body) - 1))
        journal.path.write_bytes(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
        if body[at] != ord("\n"):
            with pytest.raises(StoreError, match=r"the journal .* is damaged"):
                Journal.left(STUDY)
    finally:
        journal.remove()


def test_a_number_that_json_does_not_know_is_refused() -> None:
    journal = Journal.of(STUDY, Lease(1, 1, writer=4))
    with pytest.raises(ValueError, match="JSON"):
        journal.append(Batch(added=[result(ended(0), float("nan"))]))
    assert not journal.path.exists()
