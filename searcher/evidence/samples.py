"""Hold the values that functions reached with the same training seeds, and pair them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from searcher import UsageError
from searcher.records import Trial, TrialState
from workers.contract import Metric

GREATEST = 1e100  # magnitude of a value; beyond it squares and cubes overflow
ROUNDING = 1e-12  # differences that vary by less than this part of the values vary by rounding only


class EvidenceError(UsageError):
    """Functions cannot be compared: the reference or a value is missing, or is not what is accepted."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """A function beside its reference on the seeds that both were trained with.

    Attributes:
        differences: on the seeds where both finished, in ascending order and in the metric's unit; positive where the
            function is better, whatever the metric's direction.
        diverged: seeds on which the function alone diverged. Each is a loss.
        reference_diverged: seeds on which the reference alone diverged. Each is a win.
        both_diverged: seeds on which both did. Each is a tie.
        scale: the greatest magnitude among the values, by which rounding is told from noise.
    """

    differences: tuple[float, ...]
    diverged: int
    reference_diverged: int
    both_diverged: int
    scale: float

    @property
    def n(self) -> int:
        """The number of seeds, diverged trainings included."""
        return len(self.differences) + self.diverged + self.reference_diverged + self.both_diverged

    @property
    def wins(self) -> int:
        return sum(difference > 0 for difference in self.differences) + self.reference_diverged

    @property
    def losses(self) -> int:
        return sum(difference < 0 for difference in self.differences) + self.diverged

    @property
    def constant(self) -> bool:
        """Whether the differences do not vary, so that they say nothing about noise."""
        return constant(self.differences, self.scale)


def constant(values: Iterable[float], scale: float) -> bool:
    """Return whether values vary by no more than rounding does at this scale. One value, or none, does not vary."""
    values = tuple(values)
    return not values or max(values) - min(values) <= ROUNDING * scale


@dataclass(frozen=True, slots=True)
class Samples:
    """The values of one metric under one task configuration.

    Attributes:
        values: by function (its expression or name), then by training seed. None stands for a training that diverged
            (INFEASIBLE). A seed that is absent was not trained, or a machine failed: that says nothing about the
            function.
        configuration: the name of the task configuration, for people.

    Raises:
        EvidenceError: a value is NaN, infinite or greater than 1e100.
    """

    metric: Metric
    values: Mapping[str, Mapping[int, float | None]] = field(hash=False)
    configuration: str = ""

    def __post_init__(self) -> None:
        for function, values in self.values.items():
            for seed, value in values.items():
                if value is not None and not abs(value) <= GREATEST:  # NaN is not less than anything
                    raise EvidenceError(
                        f"{self.metric.name} of {function} with seed {seed} is {value}: give a finite number up to "
                        f"{GREATEST:g}, or None for a training that diverged"
                    )

    @classmethod
    def of_trials(cls, metric: Metric, trials: Iterable[Trial], configuration: str = "") -> Self:
        """Return the values of a study's objective, by the keys of functions. Citations, and trainings that a machine
        could not finish, are left out. A training that was stopped early counts as one that diverged."""
        values: defaultdict[str, dict[int, float | None]] = defaultdict(dict)
        for trial in trials:
            if trial.state.judged and trial.cites is None:
                values[trial.key][trial.seed] = trial.value if trial.state is TrialState.COMPLETE else None
        return cls(metric, dict(values), configuration)

    def merits(self, function: str) -> list[float]:
        """Return the merits of the trainings that finished, in ascending order."""
        return sorted(self.metric.merit(value) for value in self.values[function].values() if value is not None)

    def diverged(self, function: str) -> int:
        """Return how many trainings diverged."""
        return sum(value is None for value in self.values[function].values())

    def pairs(self, function: str, reference: str) -> Pairs:
        """Return the differences of two functions on the seeds that both were trained with."""
        own, other = self.values[function], self.values[reference]
        found = [(own[seed], other[seed]) for seed in own if seed in other]
        both = [(a, b) for a, b in found if a is not None and b is not None]
        return Pairs(
            differences=tuple(sorted(self.metric.merit(a) - self.metric.merit(b) for a, b in both)),
            diverged=sum(a is None and b is not None for a, b in found),
            reference_diverged=sum(a is not None and b is None for a, b in found),
            both_diverged=sum(a is None and b is None for a, b in found),
            scale=max((max(abs(a), abs(b)) for a, b in both), default=0.0),
        )

    def compared(self, reference: str) -> tuple[str, ...]:
        """Return all functions but the reference.

        Raises:
            EvidenceError: the reference has no values, or there is nothing to compare with it.
        """
        if not self.values.get(reference):
            known = ", ".join(self.values) or "no function"
            raise EvidenceError(f"the reference {reference!r} was not trained; choose among: {known}")
        others = tuple(function for function in self.values if function != reference)
        if not others:
            raise EvidenceError(f"there is no function beside the reference {reference!r}; train another one")
        return others


def finite(name: str, value: float, low: float, high: float = math.inf) -> float:
    """Return the value if it lies strictly between two bounds.

    Raises:
        EvidenceError: it does not.
    """
    if not low < value < high:
        accepted = f"a number above {low:g}" if high == math.inf else f"a number between {low:g} and {high:g}"
        raise EvidenceError(f"{name} is {value}: give {accepted}")
    return value
