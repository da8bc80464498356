"""A pool whose workers and whose time are simulated: it runs a search with a thousand workers on one core.

A job takes as long as the pool is told, on the pool's own clock. The clock stands still while the pool's code runs.
Between the pool's calls it advances by the time that the caller really takes, and `wait` sets it to the end of the next
job. So a search with such a pool shows its own speed and its database's speed with that many workers. The cost of
reaching real workers is left out.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from workers.contract import Job, Outcome, WorkersError
from workers.pools.base import Evaluate, guarded

JOBS_PER_WORKER = 2  # jobs a worker holds: one running, one waiting, as in workers.pools.ray_actors


class SimulatedPool:
    """A pool of simulated workers.

    Args:
        workers: number of workers.
        seconds: returns how many simulated seconds a job takes.
        run: returns the outcome of a job; called when the job ends.
        clock: returns real seconds and measures the caller's time. With a clock that stands still, the caller takes no
            time.

    Attributes:
        idle: number of workers that have no job.
        caller_seconds: total time that the caller took between its calls.
    """

    def __init__(
        self,
        workers: int,
        seconds: Callable[[Job], float],
        run: Evaluate,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._seconds, self._run, self._clock = seconds, run, clock
        self._queues: list[deque[Job]] = [deque() for _ in range(workers)]
        # The workers that hold no job, and those that hold one; the first of each has waited longest.
        self._with_room: tuple[dict[int, None], ...] = (dict.fromkeys(range(workers)), {})
        self._ends: list[tuple[float, int, int, float]] = []  # end of a job, tie-breaker, worker, length of the job
        self._counter = count()
        self._now = self._worked = self.caller_seconds = 0.0
        self._left = clock()  # when a call of the pool last returned

    @property
    def capacity(self) -> int:
        return JOBS_PER_WORKER * len(self._queues)

    @property
    def idle(self) -> int:
        return len(self._with_room[0])

    def time(self) -> float:
        """Return the simulated seconds since the pool was made."""
        return self._now + self._clock() - self._left

    def worked(self) -> float:
        """Return the simulated seconds that all workers together have worked until now."""
        now = self.time()
        return self._worked + sum(now - (end - seconds) for end, _, _, seconds in self._ends)

    def submit(self, *jobs: Job) -> None:
        self._enter()
        for job in jobs:
            held = 0 if self._with_room[0] else 1
            if not self._with_room[held]:
                raise WorkersError(f"the pool holds {self.capacity} jobs and takes no more")
            worker = next(iter(self._with_room[held]))
            self._hold(worker, held, held + 1)
            self._queues[worker].append(job)
            if not held:
                self._begin(worker, self._now)
        self._leave()

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        self._enter()
        until = self._now + timeout_seconds
        ended = []
        if self._ends and self._ends[0][0] <= until:
            self._now = max(self._now, self._ends[0][0])
            while self._ends and self._ends[0][0] <= self._now:
                ended.append(self._end())
        else:
            self._now = until
        self._leave()
        return ended

    def close(self) -> None:
        """Do nothing: the pool has no process or file to free."""

    def _begin(self, worker: int, at: float) -> None:
        seconds = self._seconds(self._queues[worker][0])
        heapq.heappush(self._ends, (at + seconds, next(self._counter), worker, seconds))

    def _end(self) -> tuple[Job, Outcome]:
        at, _, worker, seconds = heapq.heappop(self._ends)
        queue = self._queues[worker]
        self._hold(worker, len(queue), len(queue) - 1)
        job = queue.popleft()
        if queue:
            self._begin(worker, at)
        self._worked += seconds
        return job, replace(guarded(self._run, job), seconds=seconds, worker=f"simulated:{worker}")

    def _hold(self, worker: int, before: int, after: int) -> None:
        if before < JOBS_PER_WORKER:
            del self._with_room[before][worker]
        if after < JOBS_PER_WORKER:
            self._with_room[after][worker] = None

    def _enter(self) -> None:
        taken = self._clock() - self._left
        self._now += taken
        self.caller_seconds += taken

    def _leave(self) -> None:
        self._left = self._clock()
