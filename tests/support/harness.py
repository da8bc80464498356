"""Searches that are killed at random, and what must hold after: for the tests of this folder and benchmarks/soak.py.

Children take 20 ms and note that they ran in a file, so that runs can be counted whoever survives. An observer reads
the database all the while: what it has once seen as finished must be there, unchanged, at the end.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from searcher import SearcherError
from searcher.driver import leases, outage, session
from searcher.records import Study, Trial, TrialState
from searcher.settings.config import Config
from searcher.store import store
from searcher.store.store import Store
from tests.support import ROOT
from tests.support.made import measures, point
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool, Pool

Tell = Callable[[int], object]  # is told how many kills there have been
CHILD_SECONDS = 0.02
SETTINGS = Config.of(sampler="random", units=2, n_trials=10**6, baselines=("relu",), pool="inline", max_retries=20)


def child(job: Job) -> Outcome:
    """Notes that it runs, takes its time, and comes to what the expression alone decides."""
    with Path(job.data_dir, "runs").open("a") as file:
        file.write(f"{job.number} {os.getpid()}\n")
    time.sleep(CHILD_SECONDS)
    digest = int.from_bytes(hashlib.sha256(job.expression.encode()).digest()[:4])
    if digest % 5 == 0:
        return Outcome(Verdict.INFEASIBLE, "training loss is not finite at epoch 1, step 1")
    loss = digest / 2**31
    curve = (point(1, loss + 1, loss, 0.5),)
    return Outcome(Verdict.COMPLETE, metrics=measures(loss, 0.5), curve=curve, parameters=10)


@dataclass(frozen=True)
class Finding:
    """What was done and what came of it. `extra` runs are those beyond one for each trial that was trained."""

    what: str
    kills: int
    trials: int
    runs: int
    extra: int
    lost: int
    twice: int
    changed: int
    seconds: float

    @property
    def holds(self) -> bool:
        return not (self.lost or self.twice or self.changed) and self.extra <= self.kills

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


class Observer:
    """Reads the study's finished trials from another connection, all the time."""

    def __init__(self, url: str, study: Study) -> None:
        self._store, self._study = Store(url), study
        self.seen: dict[int, Trial] = {}
        self.changed = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ending.wait(0.5):
            self.look()

    def look(self) -> None:
        there = {t.number: t for t in self._store.trials(self._study) if t.state.finished}
        self.changed += sum(there.get(number) != trial for number, trial in self.seen.items())
        self.seen |= there

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self.look()
        self._store.close()


def runs(directory: Path) -> list[tuple[int, int]]:
    """Trial and process of each run that was begun."""
    path = directory / "runs"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(number), int(pid)) for number, pid in (line.split() for line in lines)]


def make_study(url: str, directory: Path, **changes: Any) -> Study:
    made = Store(url, create=True)
    study = session.create_study(made, SETTINGS.replace(data_dir=str(directory), **changes))
    made.close()
    return study


def drive(url: str, name: str, pool: Pool) -> None:
    """One session of a study, in this process. Says on stdout when it has the lease."""
    opened = Store(url)
    study = opened.study(name)
    settings = session.stored_settings(study, None, {})
    try:
        with leases.held_lease(opened, study) as lease:
            sys.stdout.write("driving\n")
            sys.stdout.flush()
            for _ in session.search(opened, lease, study, settings, pool, lambda: False):
                pass
    finally:
        opened.close()


def extend(url: str, name: str, more: int) -> None:
    opened = Store(url)
    study = opened.study(name)
    with leases.held_lease(opened, study) as lease:
        session.extended(opened, lease, study, len(opened.trials(study)) + more)
    opened.close()


def finish(url: str, name: str) -> None:
    """Sets the total to what has been proposed, and goes on to it."""
    extend(url, name, 0)
    inline_session(url, name)


def inline_session(url: str, name: str) -> None:
    pool = InlinePool(run=child)
    try:
        drive(url, name, pool)
    finally:
        pool.close()


def judged(what: str, url: str, study: Study, directory: Path, kills: int, changed: int, seconds: float) -> Finding:
    """Counts what must not be."""
    opened = Store(url)
    trials = opened.trials(study)
    total = opened.study(study.name).n_trials
    opened.close()
    begun = runs(directory)
    orders = Counter(t.finish_order for t in trials)
    numbers = Counter(t.number for t in trials)
    trained = {t.number for t in trials if t.trained}
    return Finding(
        what=what,
        kills=kills,
        trials=len(trials),
        runs=len(begun),
        extra=len(begun) - len(trained),
        lost=sum(not t.state.finished for t in trials)
        + sum(t.state is TrialState.FAILED for t in trials)
        + len(set(range(total)) - set(numbers))
        + len(set(range(total)) - set(orders)),
        twice=sum(n - 1 for n in numbers.values()) + sum(n - 1 for n in orders.values()),
        changed=changed,
        seconds=round(seconds, 1),
    )


def quiet(_: int) -> None: ...


def kill_workers(url: str, directory: Path, pool: Pool, kills: int, every: float = 0.3, tell: Tell = quiet) -> Finding:
    """`kill -9` for a working Ray worker again and again."""
    begun, draw = time.monotonic(), random.Random(0)
    study = make_study(url, directory)
    observer = Observer(url, study)
    killed: set[int] = set()

    def kill() -> None:
        while len(killed) < kills:
            time.sleep(every * 2 * draw.random())
            working = {pid for _, pid in runs(directory)[-6:]} - killed
            alive = [pid for pid in sorted(working) if psutil.pid_exists(pid)]
            if alive:
                victim = draw.choice(alive)
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
                tell(len(killed))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    while killer.is_alive():  # each time to the end: a session that is stopped drops what runs
        extend(url, study.name, 100)
        drive(url, study.name, pool)
    observer.close()
    return judged("kill -9 of workers", url, study, directory, len(killed), observer.changed, time.monotonic() - begun)


@contextmanager
def driver(url: str, name: str, lease_seconds: float = store.LEASE_SECONDS) -> Iterator[subprocess.Popen[str]]:
    """A driver in a process of its own, from when it has the lease."""
    command = [sys.executable, "-m", "tests.support.harness", url, name, str(lease_seconds)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout and process.stderr
        if process.stdout.readline() != "driving\n":
            raise RuntimeError(process.stderr.read())
        try:
            yield process
        finally:
            process.kill()


def _still_runs(process: subprocess.Popen[str], until: float) -> None:
    """A moment later, and not after that time."""
    time.sleep(0.005)
    if process.poll() is not None or time.monotonic() > until:
        process.kill()
        raise RuntimeError(f"no new trial: {process.communicate()}")


def kill_drivers(url: str, directory: Path, kills: int, at_most: float = 1.5, tell: Tell = quiet) -> Finding:
    """`kill -9` for the driver again and again, at any moment from when it has the lease; then it is resumed."""
    begun, draw = time.monotonic(), random.Random(0)
    study = make_study(url, directory)
    observer = Observer(url, study)
    for kill in range(1, kills + 1):
        before = len(runs(directory))
        with driver(url, study.name) as process:
            started = time.monotonic()
            while len(runs(directory)) == before:
                _still_runs(process, started + 60)
            time.sleep(at_most * draw.random())
            process.send_signal(signal.SIGKILL)
            process.wait()
        tell(kill)
    finish(url, study.name)
    observer.close()
    return judged("kill -9 of the driver", url, study, directory, kills, observer.changed, time.monotonic() - begun)


def _pause(process: subprocess.Popen[str], url: str) -> None:
    """Stops it where it does not keep a SQLite file locked: that is let go only with the process."""
    while True:
        process.send_signal(signal.SIGSTOP)
        if not url.startswith("sqlite:///"):
            return
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.1, isolation_level=None)) as other:
            try:
                other.execute("BEGIN EXCLUSIVE")
                return
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)
                time.sleep(0.01)


def pause_drivers(url: str, directory: Path, times: int, lease_seconds: float = 1.0, tell: Tell = quiet) -> Finding:
    """A driver is stopped (SIGSTOP) past its lease, another takes its study over, the first goes on (SIGCONT): it must
    write nothing more, say so and end."""
    begun = time.monotonic()
    study = make_study(url, directory)
    observer = Observer(url, study)
    wrong = 0
    for pause in range(1, times + 1):
        before, started = len(runs(directory)), time.monotonic()
        with driver(url, study.name, lease_seconds) as stale:
            while len(runs(directory)) == before:
                _still_runs(stale, started + 60)
            _pause(stale, url)
            time.sleep(lease_seconds + 0.2)
            with driver(url, study.name, lease_seconds) as other:
                time.sleep(0.2)
                stale.send_signal(signal.SIGCONT)
                _, said = stale.communicate(timeout=30)
                wrong += stale.returncode != 1 or "another driver has taken this study over" not in said
                other.send_signal(signal.SIGKILL)
                other.wait()
        tell(pause)
    finish(url, study.name)
    observer.close()
    changed = observer.changed + wrong
    return judged("paused past the lease", url, study, directory, 2 * times, changed, time.monotonic() - begun)


def main(url: str, name: str, lease_seconds: str) -> None:
    store.LEASE_SECONDS = outage.LEASE_SECONDS = float(lease_seconds)
    try:
        inline_session(url, name)
    except SearcherError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
