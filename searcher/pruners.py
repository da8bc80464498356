"""Stopping early what is bad.

After some epochs of a training, its rungs, a child must be among the better ones of those that came as far, by the loss
on the training images or by the study's objective (`workers.job.Cutoff`). A job carries the cut-offs of the moment in
which it is submitted, so a worker decides alone and nothing flows back to it.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from searcher.trial import Objective, Trial, TrialState
from workers.job import Cutoff, Epoch, best_train_loss, least_badness


@dataclass(frozen=True, slots=True)
class Rule:
    """`rungs` are those of a training of so many epochs; the part `keep` of all that reached a rung goes on, once
    there are `startup` of them."""

    rungs: Callable[[int], Iterable[int]]
    keep: float = 0.5
    startup: int = 5


def _parts(epochs: int, *parts: float) -> list[int]:
    return sorted({max(1, round(part * epochs)) for part in parts})


PRUNERS: Mapping[str, Rule | None] = {
    "none": None,
    # Golovin et al. 2017 (Google Vizier), section 3.2.2, but at once after each epoch and by the best value so far.
    "median": Rule(lambda epochs: range(1, epochs)),
    # Jamieson and Talwalkar 2016 (arXiv 1502.07943), asynchronous and without promotion: what is stopped stays so.
    "halving": Rule(lambda epochs: _parts(epochs, 1 / 8, 1 / 4, 1 / 2)),
}


class Pruner:
    """Learns from learning curves what a child must reach. A fresh one that is told the same gives the same cut-offs,
    in whatever order."""

    def __init__(self, rule: Rule, objective: Objective) -> None:
        self._rule, self._objective = rule, str(objective)
        # By epoch, sorted: the best that each child had reached by then, on the training images and by the objective.
        self._train_losses: list[list[float]] = []
        self._badness: list[list[float]] = []
        self._epochs = 0  # of a whole training, known from the first that was finished

    def tell(self, trial: Trial, curve: Sequence[Epoch]) -> None:
        """Learns from a judged trial; its curve may be empty."""
        if trial.state is TrialState.COMPLETE:
            self._epochs = max(self._epochs, len(curve))
        for number in range(len(curve)):
            if number == len(self._badness):
                self._train_losses.append([])
                self._badness.append([])
            insort(self._train_losses[number], best_train_loss(curve[: number + 1]))
            insort(self._badness[number], least_badness(curve[: number + 1], self._objective))

    @property
    def first_rung(self) -> int:
        """After how many epochs a child that has learned nothing is stopped; 0: not known yet."""
        return min(self._rule.rungs(self._epochs), default=0) if self._epochs > 1 else 0

    def cutoffs(self) -> tuple[Cutoff, ...]:
        """Those of the moment: one a rung that enough children have reached."""
        rungs = self._rule.rungs(self._epochs) if self._epochs > 1 else ()
        return tuple(self._cutoff(rung) for rung in rungs if len(self._badness[rung - 1]) >= self._rule.startup)

    def _cutoff(self, rung: int) -> Cutoff:
        losses, badness = self._train_losses[rung - 1], self._badness[rung - 1]
        last = math.ceil(self._rule.keep * len(badness)) - 1
        return Cutoff(rung, losses[last], self._objective, badness[last])
