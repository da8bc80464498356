"""The protocol of tasks, and helpers of all tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from workers.contract import Cutoff, Declaration, Job, Outcome, Point, TaskConfig, Verdict

if TYPE_CHECKING:
    import torch

IMAGES = "images"


class Ended(BaseException):
    """Ends a training before its last step. It is a BaseException, so that `except Exception` in a user's code does not
    catch it.

    Attributes:
        verdict: how the job ended.
        reason: why it ended, in words.
        permanent: True if the training would end in the same way if it ran again.
    """

    def __init__(self, verdict: Verdict, reason: str, permanent: bool = False) -> None:
        super().__init__(reason)
        self.verdict, self.reason, self.permanent = verdict, reason, permanent


class Task(Protocol):
    """A task trains functions and judges them. The module of each task has these two functions."""

    def describe(self, config: TaskConfig) -> Declaration:
        """Return the task's metrics and options."""

    def train(
        self, job: Job, device: torch.device | None = None, stopped: Callable[[], bool] = lambda: False
    ) -> Outcome:
        """Train once.

        Args:
            device: by default CUDA if there is a GPU, otherwise the CPU.
            stopped: called between steps; if it returns True, the training ends as FAILED.
        """


def task_of(config: TaskConfig) -> Task:
    """Return the task that a configuration names."""
    if config.task == IMAGES:
        from workers.tasks.images import train as images

        return images
    from workers.tasks import own

    return own


def run(job: Job, device: torch.device | None = None, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Train the job's expression, or describe the task if the job asks for that."""
    task = task_of(job.task)
    if job.describe:
        return Outcome(Verdict.COMPLETE, declaration=task.describe(job.task))
    return task.train(job, device, stopped)


def interrupter(job: Job, stopped: Callable[[], bool]) -> Callable[[], None]:
    """Return a function that raises Ended if the job's time is up or `stopped()` is True."""
    deadline = time.monotonic() + (job.timeout_seconds or math.inf)

    def interrupt() -> None:
        if stopped():
            raise Ended(Verdict.FAILED, "stopped")
        if time.monotonic() > deadline:
            raise Ended(Verdict.FAILED, f"timed out after {job.timeout_seconds:g} s")

    return interrupt


def check_cutoffs(cutoffs: Sequence[Cutoff], curve: Sequence[Point]) -> None:
    """Raise Ended if the training with this curve has just missed a cut-off."""
    for cutoff in cutoffs:
        if cutoff.missed(curve):
            point = curve[-1]
            had = ", ".join(f"{name} {value:.4f}" for name, value in point.metrics.items())
            limits = ", ".join(f"{limit.metric.name} {limit.metric.merit(limit.merit):.4f}" for limit in cutoff.limits)
            raise Ended(Verdict.PRUNED, f"stopped after step {point.step}: {had}; worse than all cut-offs: {limits}")
