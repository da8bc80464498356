"""Check a task of a person's own: train it three times, and say what a search would see."""

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
    """What three trainings of a task have shown.

    Attributes:
        declared: What the task says about itself.
        device: Where it was trained.
        first: The first training.
        again: A second one with the same seed; None if the first one did not come to a result, as is `other`.
        other: One with another seed.
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
        """The time of a training, without what a process does once."""
        return (self.again or self.first).outcome.seconds

    @property
    def same_seed_is_equal(self) -> bool | None:
        """Whether the same seed gave the same curve and result to the last bit; None: not known."""
        return _equal(self.first, self.again) if self.again else None

    @property
    def other_seed_is_equal(self) -> bool | None:
        """Whether another seed gave the same curve and result; None: not known."""
        return _equal(self.first, self.other) if self.other else None

    def problems(self) -> list[str]:
        """Return why a search with this task would not work, or not mean anything."""
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
        """Return what is allowed, but may not be meant."""
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

    It is trained in this process: a worker too trains many functions in one process, so a task that keeps something
    from one training to the next is found out.

    Args:
        config: The task, its options, and, if it declares no metrics, its objective.
        expression: The function to train with.
        seed: The first seed; the other one is greater by 1.

    Raises:
        WorkersError: The task cannot be imported, or what it declares is not accepted.
    """
    declared, device = own.describe(config), default_device()
    with tempfile.TemporaryDirectory() as folder:  # so that no checkpoint of a search is gone on with
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
    """Train once. What the function raises is the outcome, except a wish to stop."""
    begun = time.monotonic()
    try:
        found = own.observe(job, device)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a person's function may raise anything, SystemExit for one
        found = own.Observation(failure(error), 0, ())
    outcome = validated(replace(found.outcome, seconds=time.monotonic() - begun), declared)
    return replace(found, outcome=outcome)


def _equal(one: own.Observation, other: own.Observation) -> bool:
    def compared(outcome: Outcome) -> object:
        return outcome.verdict, outcome.metrics, outcome.curve

    return compared(one.outcome) == compared(other.outcome)
