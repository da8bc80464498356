"""Stopping early what is bad.

After some epochs of a training, its rungs, a child must be among the better ones of those that came as far. A job
carries the cut-offs of the moment in which it is submitted, so a worker decides alone and nothing flows back to it.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from searcher.trial import Objective, Trial, TrialState
from workers.job import Cutoff, Epoch


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
        self._rule, self._objective = rule, objective
        self._reached: list[list[float]] = []  # by epoch: the least `Cutoff.badness` so far of each child, sorted
        self._epochs = 0  # of a whole training, known from the first that was finished

    def tell(self, trial: Trial, curve: Sequence[Epoch]) -> None:
        """Learns from a judged trial; its curve may be empty."""
        if trial.state is TrialState.COMPLETE:
            self._epochs = max(self._epochs, len(curve))
        least = math.inf
        for number, point in enumerate(curve):
            least = min(least, Cutoff.badness(point, self._objective))
            if number == len(self._reached):
                self._reached.append([])
            insort(self._reached[number], least)

    @property
    def first_rung(self) -> int:
        """After how many epochs a child that is no better than guessing is stopped; 0: not known yet."""
        return min(self._rule.rungs(self._epochs), default=0) if self._epochs > 1 else 0

    def cutoffs(self) -> tuple[Cutoff, ...]:
        """Those of the moment: one a rung that enough children have reached."""
        if self._epochs < 2:
            return ()
        rungs = {rung: self._reached[rung - 1] for rung in self._rule.rungs(self._epochs)}
        return tuple(
            Cutoff(rung, str(self._objective), values[math.ceil(self._rule.keep * len(values)) - 1])
            for rung, values in rungs.items()
            if len(values) >= self._rule.startup
        )
