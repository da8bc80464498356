"""Take databases away or lock them for a while, and check that a search survives."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from searcher.driver import leases, session
from searcher.driver.loop import Progress
from searcher.settings.config import Config
from searcher.store.store import Store
from tests.support.searches import CountingJudge, ThreadPool, never
from workers.contract import Job, Outcome

SETTINGS = Config.of(sampler="random", n_trials=400, baselines=("relu",), pool="inline")


def file_of(url: str) -> str:
    return url.removeprefix("sqlite:///")


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Another process has the SQLite file to itself."""
    hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30); "
    hold += "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read(); c.execute('ROLLBACK')"
    with subprocess.Popen(
        [sys.executable, "-c", hold, file_of(url)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == b"locked\n"
        yield
        assert process.stdin
        process.stdin.close()
        process.wait(30)


class Breakdown(threading.Thread):
    """Keeps the database away for so long, and until `enough` has happened."""

    def __init__(self, away: Callable[[], Any], seconds: float) -> None:
        super().__init__()
        self._away, self.seconds = away, seconds
        self.begun, self.enough = threading.Event(), threading.Event()
        self.back = float("inf")

    def run(self) -> None:
        with self._away():
            self.begun.set()
            time.sleep(self.seconds)
            self.enough.wait(300)
            self.back = time.monotonic()


def survives(url: str, breakdown: Breakdown) -> None:
    """A search through the breakdown: all that must hold."""
    store = Store(url, create=True)
    study = session.create_study(store, SETTINGS)
    judged = CountingJudge(seconds=0.02)

    def child(job: Job) -> Outcome:
        if job.number >= 100:  # not all may be done before the breakdown has begun
            assert breakdown.begun.wait(300)
        return judged(job)

    pool = ThreadPool(child)
    seen: list[tuple[float, Progress]] = []
    with leases.held_lease(store, study) as lease:
        for progress in session.search(store, lease, study, SETTINGS, pool, never):
            if not seen:
                breakdown.start()  # a database that is away before the search has begun ends it
            seen.append((time.monotonic(), progress))
            if progress.outage and progress.outage.held > 50:
                breakdown.enough.set()
    pool.close()
    breakdown.join()
    trials = store.trials(study)
    assert [t.number for t in trials] == list(range(400))
    assert sorted(t.finish_order for t in trials if t.finish_order is not None) == list(range(400))
    assert max(judged.runs.values()) == 1, "no result was lost and measured again"
    in_outage = [p for _, p in seen if p.outage]
    assert max(p.outage.held for p in in_outage if p.outage) > 50, "workers were kept busy"
    assert max(p.outage.seconds for p in in_outage if p.outage) > breakdown.seconds / 2
    assert min(at for at, p in seen if at > breakdown.back and not p.outage) < breakdown.back + 60
    ended = [t for _, p in seen for t in p.ended]
    assert sorted(ended, key=lambda t: t.number) == trials, "what was said to have ended has ended so"
    store.close()


def through_an_outage(url: str, searching: Iterable[Progress]) -> Iterator[Progress]:
    """The progress of a search whose database is locked from the first on, until that has lasted for a second and more
    than ten results are held."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)) as other:
        for n, progress in enumerate(searching):
            if n == 0:
                other.execute("BEGIN EXCLUSIVE")
            elif other.in_transaction and progress.outage and progress.outage.seconds > 1 and progress.outage.held > 10:
                other.execute("ROLLBACK")
            yield progress
