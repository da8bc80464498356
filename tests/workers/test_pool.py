"""The contract that every pool keeps, and what is special about each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import made, pools
from tests.support.made import changed
from tests.support.pools import (
    PATIENCE,
    QUICK,
    Desk,
    PoolContract,
    act,
    begin,
    collect,
    emptied,
    eventually,
    gone,
    untimed,
)
from workers.contract import Job, Outcome, Verdict, WorkersError
from workers.pools.base import InlinePool, Pool
from workers.tasks.images.config import Recipe

pytestmark = pytest.mark.slow

torch.set_num_threads(1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.gate.touch()  # no job of a failed test goes on


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_no_more_cpus_are_used_than_a_process_may() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from workers.pools.base import usable_cpus"
    )
    assert subprocess.check_output([sys.executable, "-c", f"{code}; print(usable_cpus())"], text=True).strip() == "1"


@pytest.fixture(scope="module")
def reference() -> Outcome:
    """What `QUICK` gives, by one thread in this process."""
    pool = InlinePool()
    pool.submit(QUICK)
    [(_, outcome)] = pool.wait(PATIENCE)
    pool.close()
    assert outcome.verdict is Verdict.COMPLETE
    return untimed(outcome)


@pytest.fixture(scope="class")
def inline_pool() -> Iterator[InlinePool]:
    pool = InlinePool(run=act)
    yield pool
    pool.close()


class TestInlinePool(PoolContract):
    @pytest.fixture
    def pool(self, inline_pool: InlinePool, desk: Desk) -> Iterator[Pool]:
        yield from emptied(inline_pool, desk)

    def test_a_child_stops_when_its_pool_closes(self) -> None:
        """A thread cannot be killed, and would keep the process from ending."""
        pool = InlinePool()
        before = set(threading.enumerate())
        pool.submit(changed(QUICK, recipe=Recipe(epochs=10_000)))
        [thread] = set(threading.enumerate()) - before
        assert pool.wait(0.5) == []
        pool.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    def test_a_thread_that_cannot_begin_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Seen to fail: it was waited for without end."""

        def warm_up() -> None:
            raise RuntimeError("CUDA error: out of memory")

        monkeypatch.setattr("workers.pools.base.warm_up", warm_up)
        pool = InlinePool()
        pool.submit(QUICK)
        [(_, outcome)] = pool.wait(PATIENCE)
        assert outcome.verdict is Verdict.FAILED and "CUDA error: out of memory" in outcome.reason
        with pytest.raises(WorkersError, match="unable to train"):
            pool.submit(QUICK)
        pool.close()

    def test_a_worker_thread_that_has_died_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Row R5: a dead worker thread."""
        monkeypatch.setattr(InlinePool, "_work", lambda self: None)
        pool = InlinePool(run=act)
        pool.submit(QUICK)
        [(_, outcome)] = pool.wait(PATIENCE)
        assert outcome.verdict is Verdict.FAILED and "worker thread has ended" in outcome.reason
        with pytest.raises(WorkersError, match="unable to train"):
            pool.submit(QUICK)
        pool.close()

    def test_holds_one_job(self, pool: Pool) -> None:
        """So that a proposal knows every result before it, and the same seed gives the same study."""
        assert pool.capacity == 1


def make_ray_pool() -> Pool:
    from ray import cloudpickle

    from workers.pools.ray_actors import RayPool

    for module in (pools, made):  # workers cannot import a test
        cloudpickle.register_pickle_by_value(module)
    return RayPool(workers=2, threads=1, run=act)


@pytest.fixture(scope="class")
def ray_pool() -> Iterator[Pool]:
    pool = make_ray_pool()
    yield pool
    pool.close()


class TestRayPool(PoolContract):
    @pytest.fixture
    def pool(self, ray_pool: Pool, desk: Desk) -> Iterator[Pool]:
        yield from emptied(ray_pool, desk)

    def test_holds_a_job_behind_each_running_one(self, pool: Pool, desk: Desk) -> None:
        assert pool.capacity == 4
        jobs = [desk.waiting() for _ in range(4)]
        for job in jobs:
            pool.submit(job)
        begin(pool, desk, jobs[:2])
        assert pool.wait(0.3) == []
        assert sum(bool(desk.processes(job)) for job in jobs) == 2, "one job at a time in a worker"
        desk.gate.touch()
        found = collect(pool, 4)
        assert len({outcome.worker for outcome in found.values()}) == 2
        for job, outcome in found.items():
            assert outcome.worker.endswith(f":{desk.processes(job)[0]}")

    def test_a_killed_worker_is_replaced_and_the_job_behind_it_is_run_once(self, pool: Pool, desk: Desk) -> None:
        jobs = [desk.waiting() for _ in range(2)] + [desk.job("sleep 0") for _ in range(2)]
        for job in jobs:
            pool.submit(job)
        begin(pool, desk, jobs[:2])
        [victim] = desk.processes(jobs[0])
        os.kill(victim, signal.SIGKILL)
        [(failed, outcome)] = eventually(lambda: pool.wait(1.0))  # type: ignore[misc]
        assert failed == jobs[0]
        assert outcome.verdict is Verdict.FAILED and outcome.reason.startswith("the worker process died")
        desk.gate.touch()
        found = collect(pool, 3)
        assert {outcome.verdict for outcome in found.values()} == {Verdict.COMPLETE}
        assert set(found) == set(jobs[1:])
        assert all(len(desk.processes(job)) == 1 for job in jobs), "nothing is run twice, nothing is left out"
        assert victim not in {process for job in jobs[2:] for process in desk.processes(job)}
        assert pool.wait(0.1) == []

    def test_a_job_that_hangs_is_killed(self, pool: Pool, desk: Desk) -> None:
        """While another, without a time-out, is left alone."""
        hung, other = desk.job("sleep 600", timeout_seconds=3.0), desk.waiting()
        pool.submit(hung)
        pool.submit(other)
        begin(pool, desk, [hung])
        [hung_process] = desk.processes(hung)
        started = time.monotonic()
        [(failed, outcome)] = eventually(lambda: pool.wait(1.0))  # type: ignore[misc]
        assert time.monotonic() - started < 3 + 5 + 10  # 5 s are promised, 10 are for a busy machine
        assert failed == hung and outcome.verdict is Verdict.FAILED
        assert outcome.reason == "timed out after 3 s and was killed"
        eventually(lambda: gone(hung_process))
        desk.gate.touch()
        assert collect(pool, 1)[other].verdict is Verdict.COMPLETE

    @pytest.mark.parametrize("action", ["die", "exit"])
    def test_a_job_that_ends_its_own_process_fails_alone(self, pool: Pool, desk: Desk, action: str) -> None:
        bad, good = desk.job(action), [desk.job("sleep 0") for _ in range(3)]
        pool.submit(bad)
        for job in good:
            pool.submit(job)
        found = collect(pool, 4)
        assert found[bad].verdict is Verdict.FAILED and "died" in found[bad].reason
        assert all(found[job].verdict is Verdict.COMPLETE for job in good)
        assert all(len(desk.processes(job)) == 1 for job in [bad, *good])

    def test_quick_jobs_travel_in_pairs_until_a_worker_dies(self, pool: Any, desk: Desk) -> None:
        all_ready(pool)
        pool._pairs = True  # as before the first death
        quick, slow = [desk.job("quick") for _ in range(40)], [desk.job("sleep 0.02") for _ in range(8)]
        assert calls(pool, quick) < 36, "a call costs more than such a job: two go in one"
        assert calls(pool, slow) >= 6, "at most the two calls made before their time was known carry two"
        pool.submit(bad := desk.job("die"))
        assert collect(pool, 1)[bad].verdict is Verdict.FAILED
        all_ready(pool)
        assert calls(pool, quick) == 40, "so that the next death has one suspect"


def all_ready(pool: Any) -> None:
    """Waits for the actors that start: what waits for a new one would be dealt out unseen."""
    while not all(actor.ready for actor in pool._actors):
        assert not pool.wait(1)


def calls(pool: Any, jobs: list[Job]) -> int:
    """In how many calls the pool has its actors run the jobs."""
    todo, held, seen = list(jobs), 0, set[Any]()
    while todo or held:
        room = pool.capacity - held
        pool.submit(*todo[:room])
        held, todo = held + len(todo[:room]), todo[room:]
        seen |= {ref for actor in pool._actors for ref, jobs in actor.calls if jobs}
        held -= len(pool.wait(PATIENCE))
    return len(seen)


class TestClosing:
    @pytest.mark.parametrize("make", [lambda: InlinePool(run=act), make_ray_pool], ids=["inline", "ray"])
    def test_closing_does_not_wait_for_what_is_held(self, make: Callable[[], Pool], desk: Desk) -> None:
        pool = make()
        jobs = [desk.waiting() for _ in range(pool.capacity)]
        for job in jobs:
            pool.submit(job)
        begin(pool, desk, jobs[:1])
        [process] = desk.processes(jobs[0])
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 60
        if process != os.getpid():
            eventually(lambda: gone(process), 20)
