"""Stopping early what is bad.

After some epochs of a training, its rungs, a candidate must be among the better of all that began: in the first half
of the training by its loss on the training images or by the objective of the study, then by the objective alone (see
`workers.contract.Cutoff`). A job carries the cut-offs that hold when it is submitted, so a worker decides alone and
nothing flows back to it.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from searcher.records import Kind, Objective, Trial, TrialState
from workers.contract import Cutoff, Epoch, badness, best_train_loss

STARTUP = 5  # candidates, before the first cut-off


@dataclass(frozen=True, slots=True)
class Rule:
    """The rungs of a training of so many epochs, each with the share of all children that goes on there."""

    rungs: Callable[[int], Mapping[int, float]]


def _halving(epochs: int) -> dict[int, float]:
    """Jamieson and Talwalkar 2016 (arXiv 1502.07943), asynchronous and without promotion: what is stopped stays so. The
    parts and shares are those that cost least while the best were kept: docs/benchmarks.md."""
    rungs: dict[int, float] = {}
    for part, share in ((1 / 6, 0.4), (5 / 12, 0.3), (3 / 4, 0.2)):
        rungs.setdefault(max(1, round(part * epochs)), share)
    return {rung: share for rung, share in rungs.items() if rung < epochs}


def _median(epochs: int) -> dict[int, float]:
    """Golovin et al. 2017 (Google Vizier), section 3.2.2, but after each epoch, and by the best value so far."""
    return dict.fromkeys(range(1, epochs), 0.5)


PRUNERS: Mapping[str, Rule | None] = {"none": None, "median": Rule(_median), "halving": Rule(_halving)}


class Pruner:
    """Learns from learning curves what a child must reach. A fresh one that is told the same gives the same cut-offs,
    in whatever order."""

    def __init__(self, rule: Rule, objective: Objective) -> None:
        self._rule, self._objective = rule, str(objective)
        self._children = 0
        # By epoch, sorted: the best that each child had reached by then, on the training images and by the objective.
        self._train_losses: defaultdict[int, list[float]] = defaultdict(list)
        self._badness: defaultdict[int, list[float]] = defaultdict(list)
        self._epochs = 0  # of a whole training, known from the first that was finished

    def tell(self, trial: Trial, curve: Sequence[Epoch]) -> None:
        """Learns from a judged trial. One that is INFEASIBLE says nothing about the others; a baseline only how long a
        training is: most are good, and beside them few candidates would come to the end."""
        if trial.state is TrialState.COMPLETE:
            self._epochs = max(self._epochs, len(curve))
        if not curve or trial.state is TrialState.INFEASIBLE or trial.kind is Kind.BASELINE:
            return
        self._children += 1
        for epochs in range(1, len(curve) + 1):
            insort(self._train_losses[epochs], best_train_loss(curve[:epochs]))
            insort(self._badness[epochs], badness(curve[:epochs], self._objective))

    @property
    def first_rung(self) -> int:
        """After how many epochs a child that has learned nothing is stopped; 0: not known yet."""
        return min(self._rule.rungs(self._epochs), default=0)

    def cutoffs(self) -> tuple[Cutoff, ...]:
        """Those of the moment: one a rung that more children have reached than may go on."""
        if self._children < STARTUP:
            return ()
        found = []
        for rung, share in self._rule.rungs(self._epochs).items():
            last = math.ceil(share * self._children) - 1
            if last < len(self._badness[rung]):
                early = 2 * rung <= self._epochs
                train_loss = self._train_losses[rung][last] if early else 0.0  # which none is below
                found.append(Cutoff(rung, train_loss, self._objective, self._badness[rung][last]))
        return tuple(found)
