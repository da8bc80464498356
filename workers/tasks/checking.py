"""Check a user's own task: train it three times, and describe what a search would see."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace

import torch

from workers.contract import Declaration, Job, Metric, Outcome, TaskConfig, Verdict
from workers.failure import failure
from workers.tasks import own
from workers.tasks.images.models import default_device
from workers.validation import validated


@dataclass(frozen=True, slots=True)
class Check:
    """The results of three trainings of a task.

    Attributes:
        declared: the task's declaration.
        device: the device of the trainings.
        first: the first training.
        again: a second training with the same seed; None, like `other`, if the first one has no result.
        other: a training with another seed.
    """

    declared: Declaration
    device: torch.device
    first: own.Observation
    again: own.Observation | None = None
    other: own.Observation | None = None

    @property
    def last_step(self) -> int | None:
        """The last step that the first training reported; None if it reported nothing."""
        curve = self.first.outcome.curve
        return curve[-1].step if curve else None

    @property
    def seconds(self) -> float:
        """The seconds of a training; of the second one if there is one, because the first includes one-time work."""
        return (self.again or self.first).outcome.seconds

    @property
    def same_seed_is_equal(self) -> bool | None:
        """True if the same seed gave the same curve and result to the last bit; None if not known."""
        return _equal(self.first, self.again) if self.again else None

    @property
    def other_seed_is_equal(self) -> bool | None:
        """True if another seed gave the same curve and result; None if not known."""
        return _equal(self.first, self.other) if self.other else None

    def problems(self) -> list[str]:
        """Return the reasons why a search with this task would not work, or why its results would mean nothing."""
        first = self.first.outcome
        if first.verdict is not Verdict.COMPLETE:
            return [f"the training ended as {first.verdict}: {first.reason.partition(chr(10))[0]}"]
        found = []
        for name, run in (("the second training with the same seed", self.again), ("another seed", self.other)):
            if run and run.outcome.verdict is not Verdict.COMPLETE:
                reason = run.outcome.reason.partition("\n")[0]
                found.append(f"{name} ended as {run.outcome.verdict}: {reason}")
        if not found and self.same_seed_is_equal is False and self.device.type == "cpu":
            found.append(
                f"the same seed gives another result ({self._both()}): draw all random numbers from the generators of "
                "torch, numpy or Python, which are seeded, or from report.seed, and keep nothing from call to call"
            )
        return found

    def remarks(self) -> list[str]:
        """Return remarks on what is allowed but may be a mistake."""
        first, steps, found = self.first.outcome, self.declared.steps, []
        if first.verdict is not Verdict.COMPLETE:
            return []
        if self.last_step is None:
            found.append("it never calls report, so it cannot be pruned, and is not stopped before its end")
        elif not steps:
            found.append(f"it does not declare its steps, which a pruner needs: train.steps = {self.last_step}")
        elif steps != self.last_step:
            found.append(f"its last report is of step {self.last_step}, and it declares {steps}")
        if unused := self.first.made - len(self.first.shapes):
            found.append(f"{unused} of {self.first.made} activations were made and never called")
        if self.other_seed_is_equal:
            found.append("another seed gives the same result: nothing in it is random")
        if self.same_seed_is_equal is False and self.device.type != "cpu":
            found.append(f"the same seed gives another result on {self.device.type} ({self._both()})")
        return found

    def _both(self) -> str:
        runs = [run.outcome.metrics for run in (self.first, self.again) if run]
        differing = [name for name in runs[0] if len({metrics[name] for metrics in runs}) > 1]
        if not differing:
            return "in its curve"
        return f"{differing[0]} is {' and '.join(repr(metrics[differing[0]]) for metrics in runs)}"


def check(config: TaskConfig, expression: str, seed: int = 0) -> Check:
    """Train a task twice with one seed and once with another one.

    All trainings run in this process, as in a worker. So the check finds a task that keeps something from one training
    to the next.

    Args:
        config: the task, its options, and, if it declares no metrics, its objective.
        expression: the function to train with.
        seed: the first seed; the other one is greater by 1.

    Raises:
        WorkersError: the task cannot be imported, or its declaration is not accepted.
    """
    declared, device = own.describe(config), default_device()
    with tempfile.TemporaryDirectory() as folder:  # keeps the trainings apart from the checkpoints of a search
        job = Job(0, expression, seed, config, checkpoint_dir=folder)
        first = _observed(job, declared, device)
        if first.outcome.verdict is not Verdict.COMPLETE:
            return Check(declared, device, first)
        again = _observed(job, declared, device)
        return Check(declared, device, first, again, _observed(replace(job, seed=seed + 1), declared, device))


def described(metric: Metric) -> str:
    """Return a metric in words."""
    return f"{metric.name} {metric.direction}" + (f" ({metric.unit})" if metric.unit else "")


def _observed(job: Job, declared: Declaration, device: torch.device) -> own.Observation:
    """Train once. An exception of the function becomes the outcome, except KeyboardInterrupt."""
    begun = time.monotonic()
    try:
        found = own.observe(job, device)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's function may raise anything, such as SystemExit
        found = own.Observation(failure(error), 0, ())
    outcome = validated(replace(found.outcome, seconds=time.monotonic() - begun), declared)
    return replace(found, outcome=outcome)


def _equal(one: own.Observation, other: own.Observation) -> bool:
    def compared(outcome: Outcome) -> object:
        return outcome.verdict, outcome.metrics, outcome.curve

    return compared(one.outcome) == compared(other.outcome)
