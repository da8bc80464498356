"""Test the contract that every pool keeps, with jobs that say what a worker is to do."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from tests.support.made import changed, image_config, image_job, measures
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import Pool, evaluate
from workers.tasks.images.config import Recipe

CPU = torch.device("cpu")
QUICK = image_job(0, "max(x, 0)", recipe=Recipe(epochs=1))
PATIENCE = 60.0  # seconds after which a test stops waiting


def untimed(outcome: Outcome) -> Outcome:
    """All that a job's seeds determine."""
    return replace(outcome, seconds=0.0, worker="")


class Cancelled(BaseException):
    """As some libraries of coroutines have."""


class Mute(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


THROWN: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit, Cancelled)
}


def act(job: Job) -> Outcome:
    """Does what the job's expression says, after writing this process's number to the folder that `dataset` names."""
    with (Path(image_config(job).dataset) / str(job.number)).open("a") as log:
        log.write(f"{os.getpid()}\n")
    verb, _, rest = job.expression.partition(" ")
    if verb == "sleep":
        time.sleep(float(rest))
    elif verb == "until":
        end = time.monotonic() + PATIENCE
        while not Path(rest).exists() and time.monotonic() < end:
            time.sleep(0.02)
    elif verb == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "exit":
        os._exit(3)
    elif verb == "raise":
        raise ValueError(rest)
    elif verb == "mute":
        raise Mute
    elif verb == "throw":
        raise THROWN[rest]("of a network's own")
    elif verb == "train":
        return evaluate(changed(job, expression=rest, dataset="digits"))
    return Outcome(Verdict.COMPLETE, metrics=measures(float(job.number), 0.5))


NUMBERS = itertools.count()


class Desk:
    """Makes jobs for `act` and reads what they left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.gate = folder, folder / "gate"

    def job(self, action: str, timeout_seconds: float = 0.0) -> Job:
        return changed(
            QUICK,
            number=next(NUMBERS),
            expression=action,
            dataset=str(self.folder),
            timeout_seconds=timeout_seconds,
        )

    def waiting(self) -> Job:
        """A job that goes on until the gate opens."""
        return self.job(f"until {self.gate}")

    def processes(self, job: Job) -> list[int]:
        """The process of each run of the job."""
        log = self.folder / str(job.number)
        return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def eventually(found: Callable[[], object], seconds: float = PATIENCE) -> object:
    """What `found` gives once it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s")


def collect(pool: Pool, count: int, seconds: float = PATIENCE) -> dict[Job, Outcome]:
    """The next outcomes, which must be just so many."""
    found: list[tuple[Job, Outcome]] = []
    end = time.monotonic() + seconds
    while len(found) < count and (left := end - time.monotonic()) > 0:
        found += pool.wait(left)
    assert len(found) == count and len(dict(found)) == count
    return dict(found)


def begin(pool: Pool, desk: Desk, jobs: list[Job]) -> None:
    """Waits until these are at work; none may end meanwhile."""

    def all_begun() -> bool:
        assert pool.wait(0.05) == []
        return all(desk.processes(job) for job in jobs)

    eventually(all_begun)


def emptied(pool: Pool, desk: Desk) -> Iterator[Pool]:
    """A pool that many tests share; a failed one leaves nothing behind."""
    yield pool
    desk.gate.touch()
    while pool.wait(5):
        pass


class PoolContract:
    """What every pool does; a subclass says which `pool`."""

    def test_every_job_is_run_once_and_every_outcome_comes_once(self, pool: Pool, desk: Desk) -> None:
        jobs = [desk.job("sleep 0.01") for _ in range(3 * pool.capacity)]
        todo, found = list(jobs), Counter[Job]()
        held = 0
        while todo or held:
            while todo and held < pool.capacity:
                pool.submit(todo.pop(0))
                held += 1
            for job, outcome in pool.wait(PATIENCE):
                assert outcome.verdict is Verdict.COMPLETE and outcome.metrics["val_loss"] == job.number
                found[job] += 1
                held -= 1
        assert found == Counter(jobs)
        assert all(len(desk.processes(job)) == 1 for job in jobs)
        assert pool.wait(0.1) == []

    def test_waiting_ends_with_the_time_when_nothing_has_ended(self, pool: Pool, desk: Desk) -> None:
        jobs = [desk.waiting() for _ in range(pool.capacity)]
        for job in jobs:
            pool.submit(job)
        begin(pool, desk, jobs[:1])
        started = time.monotonic()
        assert pool.wait(0.3) == []
        assert 0.2 < time.monotonic() - started < 10
        assert pool.wait(0) == []
        desk.gate.touch()
        assert set(collect(pool, len(jobs))) == set(jobs)

    def test_waiting_ends_as_soon_as_a_job_has(self, pool: Pool, desk: Desk) -> None:
        job = desk.job("sleep 0.2")
        pool.submit(job)
        started = time.monotonic()
        assert [found for found, _ in pool.wait(PATIENCE)] == [job]
        assert time.monotonic() - started < PATIENCE / 2

    def test_a_look_without_waiting_finds_what_has_ended(self, pool: Pool, desk: Desk) -> None:
        job = desk.job("sleep 0")
        pool.submit(job)
        [(found, outcome)] = eventually(lambda: pool.wait(0), 10)  # type: ignore[misc]
        assert found == job and outcome.verdict is Verdict.COMPLETE

    def test_waiting_for_nothing(self, pool: Pool) -> None:
        started = time.monotonic()
        assert pool.wait(0.1) == []
        assert time.monotonic() - started < 10

    def test_an_exception_fails_the_job_and_not_the_pool(self, pool: Pool, desk: Desk) -> None:
        bad = desk.job("raise too bad")
        pool.submit(bad)
        [outcome] = collect(pool, 1).values()
        assert outcome.verdict is Verdict.FAILED and outcome.reason.startswith("ValueError: too bad\n")
        assert "raise ValueError(rest)" in outcome.reason
        good = desk.job("sleep 0")
        pool.submit(good)
        assert collect(pool, 1)[good].verdict is Verdict.COMPLETE

    @pytest.mark.parametrize("kind", THROWN)
    def test_no_exception_ends_a_worker(self, pool: Pool, desk: Desk, kind: str) -> None:
        """Row R5: a network that raises a BaseException. Covers each kind that Python has, one of a user's own, and
        every pool."""
        bad, good = desk.job(f"throw {kind}"), desk.job("sleep 0")
        pool.submit(bad)
        outcome = collect(pool, 1)[bad]
        assert outcome.verdict is Verdict.FAILED and outcome.reason.startswith(f"{kind}: of a network's own\n")
        pool.submit(good)
        assert collect(pool, 1)[good].verdict is Verdict.COMPLETE

    def test_an_exception_without_a_text_ends_no_worker(self, pool: Pool, desk: Desk) -> None:
        """Row R5: an exception whose `__str__` raises what is no Exception."""
        mute, good = desk.job("mute"), desk.job("sleep 0")
        pool.submit(mute)
        outcome = collect(pool, 1)[mute]
        assert outcome.verdict is Verdict.FAILED
        assert outcome.reason.startswith("Mute: (its text cannot be had: KeyboardInterrupt)")
        pool.submit(good)
        assert collect(pool, 1)[good].verdict is Verdict.COMPLETE

    def test_training_gives_the_same_bits_in_every_pool(self, pool: Pool, desk: Desk, reference: Outcome) -> None:
        job = desk.job(f"train {QUICK.expression}")
        pool.submit(job)
        outcome = collect(pool, 1)[job]
        assert untimed(outcome) == reference and outcome.seconds > 0


def gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
