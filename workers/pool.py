"""Where jobs run. `Pool` is the contract; `InlinePool` needs neither Ray nor a second process."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Protocol

from workers.job import Job, Outcome, Verdict, WorkersError

FRAMES = 5  # of a traceback, the last ones

Evaluate = Callable[[Job], Outcome]


class Pool(Protocol):
    """Takes jobs, gives back outcomes, in any order, each job's exactly once."""

    @property
    def capacity(self) -> int:
        """How many jobs it holds at a time, those queued behind a running one included."""

    def submit(self, *jobs: Job) -> None:
        """Takes jobs; at most `capacity` may be held."""

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that have ended, as soon as there is one, or nothing after `timeout_seconds`."""

    def close(self) -> None:
        """Drops what is still held and frees the workers."""


def evaluate(job: Job) -> Outcome:
    """Trains a child."""
    from workers.train import train

    return train(job)


def guarded(run: Evaluate, job: Job) -> Outcome:
    """`run(job)`, timed; what it raises becomes FAILED, so that one bad job cannot end a worker. The reason is the
    exception and, where it is not ours, which says all there is to say, where it was raised."""
    started = time.monotonic()
    try:
        outcome = run(job)
    except WorkersError as error:
        outcome = Outcome(Verdict.FAILED, reason=f"{type(error).__name__}: {error}")
    except Exception as error:
        where = "".join(traceback.format_tb(error.__traceback__)[-FRAMES:])
        outcome = Outcome(Verdict.FAILED, reason=f"{type(error).__name__}: {error}\n{where}".rstrip())
    return replace(outcome, seconds=time.monotonic() - started)


def prepare(threads: int) -> None:
    """Sets up the calling thread and its process for training."""
    import torch

    torch.set_num_threads(threads)
    # Tails like exp(-x^2) are full of denormal numbers, which a CPU multiplies many times slower.
    torch.set_flush_denormal(True)


class InlinePool:
    """One worker thread in this process. It holds one job at a time, so that a search's next proposal always knows
    every result before it: the same seed gives the same study."""

    capacity = 1

    def __init__(self, threads: int = 1, run: Evaluate | None = None) -> None:
        self._closing = threading.Event()
        self._run = run or self._evaluate
        self._executor = ThreadPoolExecutor(1, "searcher-worker", initializer=prepare, initargs=(threads,))
        self._held: dict[Future[Outcome], Job] = {}

    def submit(self, *jobs: Job) -> None:
        for job in jobs:
            self._held[self._executor.submit(guarded, self._run, job)] = job

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        done, _ = wait(self._held, timeout_seconds, return_when=FIRST_COMPLETED)
        return [(self._held.pop(future), future.result()) for future in done]

    def close(self) -> None:
        self._closing.set()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _evaluate(self, job: Job) -> Outcome:
        """Like `evaluate`; a child that is being trained when the pool closes stops, for a thread cannot be killed."""
        from workers.train import train

        return train(job, stopped=self._closing.is_set)
