"""Pools run jobs. `Pool` is the contract; `InlinePool` needs neither Ray nor a second process."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Protocol

from workers.contract import Health, Job, Outcome, Verdict, WorkersError
from workers.failure import failure
from workers.text import limited
from workers.validation import no_outcome

GRACE_SECONDS = 3.0  # how long past its time-out a job may take to notice by itself

Evaluate = Callable[[Job], Outcome]


class Pool(Protocol):
    """Takes jobs and returns their outcomes, in any order, the outcome of each job exactly once."""

    @property
    def capacity(self) -> int:
        """How many jobs the pool may hold at a time: those that run and those that wait in it."""

    def submit(self, *jobs: Job) -> None:
        """Take jobs. The caller sees to it that the pool never holds more than `capacity`."""

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        """Return the jobs that have ended as soon as there is one; nothing after `timeout_seconds`."""

    def close(self) -> None:
        """Drop the jobs that have not ended, and free the workers."""


def evaluate(job: Job) -> Outcome:
    """Train the job's expression, or describe the task if the job asks for that."""
    from workers.tasks.base import run

    return run(job)


def guarded(run: Evaluate, job: Job) -> Outcome:
    """Return `run(job)` with its seconds. Any exception becomes a FAILED outcome, so that a bad job ends no worker."""
    started = time.monotonic()
    try:
        outcome = run(job)
        if not isinstance(outcome, Outcome):
            outcome = no_outcome(outcome)
    except BaseException as error:  # a user's code may raise anything; Ctrl-C reaches the main thread only
        outcome = failure(error)
    return replace(outcome, seconds=time.monotonic() - started)


def usable_cpus() -> int:
    """Return how many CPUs this process may use, by its affinity and its container's limit."""
    import joblib

    return int(joblib.cpu_count())


def prepare(threads: int) -> None:
    """Set up the calling thread and its process for training with `threads` CPU threads."""
    import torch

    torch.set_num_threads(threads)
    # The values of functions like exp(-x^2) are often denormal numbers, which a CPU multiplies many times slower.
    torch.set_flush_denormal(True)


def warm_up() -> None:
    """Do what a process does once, at its first training. It takes seconds, which must not count in a time-out."""
    import torch

    import workers.tasks.images.train  # noqa: F401
    from workers.tasks.images.models import default_device

    # The first optimiser imports torch's compiler; the first tensor on a GPU starts CUDA.
    torch.optim.SGD([torch.zeros(1, device=default_device(), requires_grad=True)], fused=True)


class InlinePool:
    """One worker thread in this process. It holds one job at a time, so that a search knows all earlier results when it
    makes a proposal: the same seed gives the same study.

    A thread cannot be killed, and only a new process can use a GPU again that was lost. So if a job hangs (it has taken
    twice its time-out) or loses the GPU, the pool returns that job as FAILED and takes no other: `submit` raises
    WorkersError.

    Args:
        threads: CPU threads of a training.
        run: what the worker does with a job; by default it evaluates the job.
    """

    capacity = 1

    def __init__(self, threads: int = 1, run: Evaluate | None = None) -> None:
        self._closing = threading.Event()
        self._threads, self._run = threads, run or self._evaluate
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._held: Job | None = None
        self._deadline = float("inf")  # when the running job is taken to hang, by the monotonic clock
        self._lost = ""  # why the pool takes no more jobs

    def submit(self, *jobs: Job) -> None:
        for job in jobs:
            if self._lost:
                raise WorkersError(self._lost)
            if self._thread is None:  # a daemon, because a thread that hangs must not keep the process from ending
                self._thread = threading.Thread(target=self._work, name="searcher-worker", daemon=True)
                self._thread.start()
            self._held = job
            self._jobs.put(job)

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        end = time.monotonic() + timeout_seconds
        while self._held is not None:
            left = max(0.0, end - time.monotonic())
            try:
                outcome = self._outcomes.get(timeout=min(left, 1.0))
            except Empty:
                if self._has_died():
                    outcome = Outcome(Verdict.FAILED, "its worker thread has ended", health=Health.LOST)
                elif time.monotonic() > self._deadline:
                    outcome = self._abandoned(self._held)
                elif left:
                    continue
                else:
                    break
            if outcome.health is Health.LOST:
                self._lost = _unusable_message(self._held, outcome)
            ended, self._held = self._held, None
            return [(ended, outcome)]
        return []

    def close(self) -> None:
        self._closing.set()
        self._jobs.put(None)
        if self._thread and self._thread.is_alive():
            atexit.register(self._thread.join)  # torch crashes in a thread that outlives the interpreter

    def _work(self) -> None:
        try:
            prepare(self._threads)
            if self._run == self._evaluate:
                warm_up()
        except BaseException as error:  # such as a GPU that does not start; it becomes the first job's outcome
            self._outcomes.put(replace(failure(error), health=Health.LOST))
            return
        while (job := self._jobs.get()) and not self._closing.is_set():
            limit = job.timeout_seconds
            self._deadline = time.monotonic() + 2 * limit + GRACE_SECONDS if limit else float("inf")
            outcome = guarded(self._run, job)
            self._deadline = float("inf")
            self._outcomes.put(outcome)

    def _has_died(self) -> bool:
        """Return True if the thread has ended and no outcome of it is left."""
        return self._thread is not None and not self._thread.is_alive() and self._outcomes.empty()

    def _abandoned(self, job: Job) -> Outcome:
        """Return the outcome of a job that hangs. If the job is only slow, it stops at its next step."""
        self._closing.set()
        self._thread = None
        reason = f"timed out after {job.timeout_seconds:g} s and hangs"
        return Outcome(Verdict.FAILED, reason, seconds=2 * job.timeout_seconds + GRACE_SECONDS, health=Health.LOST)

    def _evaluate(self, job: Job) -> Outcome:
        """Do the same as `evaluate`, but stop a training when the pool closes, because a thread cannot be killed."""
        from workers.tasks.base import run

        return run(job, stopped=self._closing.is_set)


def _unusable_message(job: Job, outcome: Outcome) -> str:
    reason = limited(outcome.reason.partition("\n")[0], 500)
    return (
        f"trial {job.number} ({job.expression}) has left this process unable to train: {reason}. Resume in a new "
        "process; with --pool ray such a worker is replaced while the search goes on"
    )
