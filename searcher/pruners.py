"""Stopping early what is bad.

At some steps of a training, its rungs, a candidate must be among the better of all that began: in the first half of
the training by the objective of the study or by a metric that the task adds to it (the image task adds the loss on the
training images), then by the objective alone (see `workers.contract.Cutoff`). A job carries the cut-offs that hold when
it is submitted, so a worker decides alone and nothing flows back to it.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from searcher.records import Kind, StudyTask, Trial, TrialState
from workers.contract import Cutoff, Limit, Metric, Point

STARTUP = 5  # candidates, before the first cut-off


@dataclass(frozen=True, slots=True)
class Rule:
    """The rungs of a training of so many steps, each with the share of all candidates that goes on there."""

    rungs: Callable[[int], Mapping[int, float]]


def _halving(steps: int) -> dict[int, float]:
    """Jamieson and Talwalkar 2016 (arXiv 1502.07943), asynchronous and without promotion: what is stopped stays so. The
    parts and shares are those that cost least while the best were kept: docs/benchmarks.md."""
    rungs: dict[int, float] = {}
    for part, share in ((1 / 6, 0.4), (5 / 12, 0.3), (3 / 4, 0.2)):
        rungs.setdefault(max(1, round(part * steps)), share)
    return {rung: share for rung, share in rungs.items() if rung < steps}


def _median(steps: int) -> dict[int, float]:
    """Golovin et al. 2017 (Google Vizier), section 3.2.2, but after each step, and by the best value so far."""
    return dict.fromkeys(range(1, steps), 0.5)


PRUNERS: Mapping[str, Rule | None] = {"none": None, "median": Rule(_median), "halving": Rule(_halving)}


class Pruner:
    """Learns from learning curves what a candidate must reach. A fresh one that is told the same gives the same
    cut-offs, in whatever order.

    Args:
        task: its objective, and the metrics that `also_good` adds to it, are compared.
    """

    def __init__(self, rule: Rule, task: StudyTask) -> None:
        self._rule = rule
        more = (task.declared.metric(name) for name in task.declared.also_good if name != task.objective.name)
        self._objective, self._also_good = task.objective, tuple(metric for metric in more if metric)
        self._candidates = 0
        # By metric and step, sorted: minus the best merit that each candidate had reached by then.
        self._reached: defaultdict[tuple[Metric, int], list[float]] = defaultdict(list)
        self._steps = task.declared.steps  # of a whole training; else known from the first that was finished

    def tell(self, trial: Trial, curve: Sequence[Point]) -> None:
        """Learn from a judged trial. One that is INFEASIBLE says nothing about the others; a baseline only how long a
        training is: most are good, and beside them few candidates would come to the end."""
        if trial.state is TrialState.COMPLETE and curve:
            self._steps = max(self._steps, curve[-1].step)
        if not curve or trial.state is TrialState.INFEASIBLE or trial.kind is Kind.BASELINE:
            return
        self._candidates += 1
        for metric in (self._objective, *self._also_good):
            best = -math.inf
            for point in curve:
                best = max(best, metric.merit(point.metrics[metric.name])) if metric.name in point.metrics else best
                if best > -math.inf:
                    insort(self._reached[metric, point.step], -best)

    @property
    def first_rung(self) -> int:
        """The first step at which a candidate can be stopped; 0: not known yet."""
        return min(self._rule.rungs(self._steps), default=0)

    def cutoffs(self) -> tuple[Cutoff, ...]:
        """Return the cut-offs of the moment: one for each rung that more candidates have reached than may go on."""
        if self._candidates < STARTUP:
            return ()
        found = []
        reported = sorted(step for metric, step in self._reached if metric == self._objective)
        for rung, share in self._rule.rungs(self._steps).items():
            step = next((step for step in reported if step >= rung), 0)  # a task may report now and then only
            last = math.ceil(share * self._candidates) - 1
            metrics = (*self._also_good, self._objective) if 2 * rung <= self._steps else (self._objective,)
            reached = [self._reached.get((metric, step), []) for metric in metrics]
            if all(last < len(merits) for merits in reached):
                limits = (Limit(metric, -merits[last]) for metric, merits in zip(metrics, reached, strict=True))
                found.append(Cutoff(step, tuple(limits)))
        return tuple(found)
