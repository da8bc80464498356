"""Pruners stop trainings early that are worse than others.

At certain steps of a training, its rungs, a candidate must be among the better part of all candidates. In the first
half of the training this may be by the study's objective or by a further metric of the task (the image task adds the
loss on the training images), afterwards by the objective only (see `workers.contract.Cutoff`). A job contains the
cut-offs at the time when it is submitted, so a worker decides alone and needs no messages.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from searcher.records import Kind, StudyTask, Trial, TrialState
from workers.contract import Cutoff, Limit, Metric, Point

STARTUP = 5  # number of candidates before the first cut-off


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for cut-offs.

    Attributes:
        rungs: maps the number of steps of a training to its rungs, each with the share of candidates that goes on.
    """

    rungs: Callable[[int], Mapping[int, float]]


def _halving(steps: int) -> dict[int, float]:
    """Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943), asynchronous, and without resuming stopped
    trainings. The parts and shares were the cheapest that kept the best functions: docs/benchmarks.md."""
    rungs: dict[int, float] = {}
    for part, share in ((1 / 6, 0.4), (5 / 12, 0.3), (3 / 4, 0.2)):
        rungs.setdefault(max(1, round(part * steps)), share)
    return {rung: share for rung, share in rungs.items() if rung < steps}


def _median(steps: int) -> dict[int, float]:
    """The median rule of Golovin et al. 2017 (Google Vizier, section 3.2.2), applied after each step to the best value
    so far."""
    return dict.fromkeys(range(1, steps), 0.5)


PRUNERS: Mapping[str, Rule | None] = {"none": None, "median": Rule(_median), "halving": Rule(_halving)}


class Pruner:
    """Computes from learning curves the values that a candidate must reach. A new pruner that is told the same trials,
    in any order, gives the same cut-offs.

    Args:
        rule: the rungs and shares.
        task: its objective and the metrics in `also_good` are compared.
    """

    def __init__(self, rule: Rule, task: StudyTask) -> None:
        self._rule = rule
        more = (task.declared.metric(name) for name in task.declared.also_good if name != task.objective.name)
        self._objective, self._also_good = task.objective, tuple(metric for metric in more if metric)
        self._candidates = 0
        # By metric and step: the negative of the best merit that each candidate had reached by then, sorted.
        self._reached: defaultdict[tuple[Metric, int], list[float]] = defaultdict(list)
        self._steps = task.declared.steps  # of a complete training; if 0, learned from the first complete one

    def tell(self, trial: Trial, curve: Sequence[Point]) -> None:
        """Learn from a judged trial. INFEASIBLE trials are not compared. Of a baseline only the number of steps is
        used: most baselines are good, and compared with them few candidates would reach the end."""
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
        """The first step at which a candidate can be stopped; 0 if not known yet."""
        return min(self._rule.rungs(self._steps), default=0)

    def cutoffs(self) -> tuple[Cutoff, ...]:
        """Return the present cut-offs: one for each rung that more candidates have reached than may go on."""
        if self._candidates < STARTUP:
            return ()
        found = []
        reported = sorted(step for metric, step in self._reached if metric == self._objective)
        for rung, share in self._rule.rungs(self._steps).items():
            step = next((step for step in reported if step >= rung), 0)  # a task need not report every step
            last = math.ceil(share * self._candidates) - 1
            metrics = (*self._also_good, self._objective) if 2 * rung <= self._steps else (self._objective,)
            reached = [self._reached.get((metric, step), []) for metric in metrics]
            if all(last < len(merits) for merits in reached):
                limits = (Limit(metric, -merits[last]) for metric, merits in zip(metrics, reached, strict=True))
                found.append(Cutoff(step, tuple(limits)))
        return tuple(found)
