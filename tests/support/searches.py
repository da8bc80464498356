"""Run searches in tests, with a judge that takes no time, and cut some of them short."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from search_space import key, parse
from search_space.activation import beta_names
from searcher.driver import leases, session
from searcher.driver.loop import Progress
from searcher.records import Study, Trial
from searcher.settings.config import Config
from searcher.store.store import Store
from tests.support.made import learned, measures, point
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool, Pool

SETTINGS = Config.of(sampler="random", n_trials=40, baselines=("relu", "swish"), pool="inline")

# Flags of a search that takes a second, after the imports.
FAST = ("--pool", "inline", "--limit-train", "100", "--width", "4", "--epochs", "1", "--baselines", "relu")


def judge(job: Job) -> Outcome:
    """A pure stand-in for training: some functions are infeasible, each of the others has its own loss."""
    digest = int(key(parse(job.expression)), 16)
    if digest % 5 == 0:
        return Outcome(Verdict.INFEASIBLE, "training loss is not finite at epoch 1, step 1", seconds=0.0)
    loss = (digest % 1000) / 500
    curve = (point(1, loss + 1, loss, 0.5),)
    became = tuple(learned("act", name, loss, 1.0) for name in beta_names(len(parse(job.expression).betas)))
    return Outcome(Verdict.COMPLETE, metrics=measures(loss, 1 - loss / 2), curve=curve, learned=became, parameters=10)


def never() -> bool:
    return False


def run(
    store: Store,
    study: Study,
    settings: Config,
    pool: Pool | None = None,
    should_stop: Callable[[], bool] = never,
    clock: Callable[[], float] = time.monotonic,
) -> list[Progress]:
    pool = pool or InlinePool(run=judge)
    try:
        with leases.held_lease(store, study) as lease:
            return list(session.search(store, lease, study, settings, pool, should_stop, clock))
    finally:
        pool.close()


def completed(store: Store, settings: Config = SETTINGS, **options: object) -> tuple[Study, list[Trial]]:
    study = session.create_study(store, settings)
    run(store, study, settings, **options)  # type: ignore[arg-type]
    return study, store.trials(study)


def untimed(trials: list[Trial]) -> list[Trial]:
    """All but how long they took."""
    return [replace(trial, seconds=0.0) for trial in trials]


class Crash(BaseException):
    """A driver that dies: nothing after it is run."""


def in_sessions(store: Store, settings: Config, how: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[Trial]]:
    """Run a study named `parts` in sessions that are `stopped` or `killed`; return their number and the trials."""
    study = session.create_study(store, settings.replace(study_name="parts"))
    sessions = 0
    while sum(t.state.finished for t in store.trials(study)) < settings.search.n_trials:
        sessions += 1
        if how == "stopped":
            asked = iter(range(9))
            run(store, study, settings, should_stop=lambda asked=asked: next(asked, None) is None)  # type: ignore[misc]
        else:
            run_and_die(store, study, settings, after=7, monkeypatch=monkeypatch)
    return sessions, store.trials(study)


def run_and_die(store: Store, study: Study, settings: Config, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that ends in the middle of its `after`th transaction and cleans nothing up but its lease."""
    commits = iter(range(after))
    commit = store.commit

    def mortal(*args: object, **how: object) -> bool:
        if next(commits, None) is None:
            raise Crash
        return commit(*args, **how)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", mortal)
        try:
            run(store, study, settings)
        except Crash:
            return


def killed(
    store: Store, study: Study, settings: Config, pool: Pool, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a session until `after` trials have ended. As after `kill -9`, it writes nothing at its end."""
    with monkeypatch.context() as patch:
        patch.setattr("searcher.driver.loop.Search._reopen_running", lambda self: None)
        with leases.held_lease(store, study) as lease:
            session_of = session.search(store, lease, study, settings, pool, never)
            while next(session_of).done < after:
                pass
            session_of.close()


class CountingJudge:
    """Counts runs by key, and can take its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.runs: Counter[str] = Counter()
        self.seconds = seconds

    def __call__(self, job: Job) -> Outcome:
        self.runs[key(parse(job.expression))] += 1
        time.sleep(self.seconds)
        return judge(job)


class ThreadPool:
    """Four at a time, ending in any order: what a cluster does, in one process."""

    capacity = 8

    def __init__(self, run: Callable[[Job], Outcome]) -> None:
        self._run, self._executor = run, ThreadPoolExecutor(4)
        self._held: dict[object, Job] = {}

    def submit(self, *jobs: Job) -> None:
        assert len(self._held) + len(jobs) <= self.capacity
        for job in jobs:
            self._held[self._executor.submit(self._run, job)] = job

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        end = time.monotonic() + timeout_seconds
        while time.monotonic() < end:
            done = [future for future in self._held if future.done()]  # type: ignore[attr-defined]
            if done:
                return [(self._held.pop(future), future.result()) for future in done]  # type: ignore[attr-defined]
            time.sleep(0.001)
        return []

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)
