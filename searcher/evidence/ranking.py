"""Rank functions by what each surely reaches, and not by its luckiest training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from searcher.evidence.samples import Samples, finite

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Ranked:
    """A function's place.

    Attributes:
        n: trainings that finished; `diverged`: those that did not.
        mean: in the metric's unit; None if no training finished.
        bound: what its mean surely reaches: the pessimistic end of a one-sided interval, in the metric's unit. None
            where noise is not known, because no function has two trainings.
        tied: the data do not show that the leader is better. The leader is tied with itself.
    """

    rank: int
    function: str
    n: int
    diverged: int
    mean: float | None
    bound: float | None
    tied: bool


def ranked(samples: Samples, level: float = LEVEL) -> tuple[Ranked, ...]:
    """Rank functions by the lower confidence bound of their merit, and mark those tied with the leader.

    The noise is the standard deviation over seeds, pooled over all functions (as in analysis of variance), because most
    functions have too few trainings to tell their own. So a function with one lucky training ranks behind one with
    nearly the same mean of five. Functions with diverged trainings rank behind the others, the least share first.
    Ties are by a t test against the leader, corrected by Bonferroni's method for the number of functions. It takes the
    trainings as independent; `compare` uses common seeds and tells more.
    """
    finite("level", level, 0, 1)
    merits = {function: samples.merits(function) for function in samples.values}
    noise = _Noise.of(list(merits.values()))
    alpha = (1 - level) / max(1, len(merits) - 1)
    standing = {function: _Standing.of(samples, function, found, noise, level) for function, found in merits.items()}
    order = sorted(standing.values(), key=lambda one: one.key)
    return tuple(
        Ranked(
            rank=rank,
            function=one.function,
            n=one.n,
            diverged=one.diverged,
            mean=samples.metric.merit(one.mean) if one.n else None,
            bound=samples.metric.merit(one.bound) if one.n and noise.df else None,
            tied=one is order[0] or order[0].tied_with(one, noise, alpha),
        )
        for rank, one in enumerate(order, 1)
    )


@dataclass(frozen=True, slots=True)
class _Noise:
    """The pooled standard deviation of one training, and its degrees of freedom; none of them: it is not known."""

    sd: float
    df: int

    @classmethod
    def of(cls, groups: list[list[float]]) -> _Noise:
        df = sum(len(group) - 1 for group in groups if group)
        squares = sum(float(np.var(group)) * len(group) for group in groups if group)
        return cls(math.sqrt(squares / df) if df else 0.0, df)

    def margin(self, alpha: float, variance: float) -> float:
        """Return how far an estimate may be off on one side. `variance` is in units of one training's."""
        return float(stats.t.isf(alpha, self.df)) * self.sd * math.sqrt(variance) if self.df else 0.0


@dataclass(frozen=True, slots=True)
class _Standing:
    """What decides about a function's place, in merits."""

    function: str
    n: int
    diverged: int
    mean: float
    bound: float

    @classmethod
    def of(cls, samples: Samples, function: str, merits: list[float], noise: _Noise, level: float) -> _Standing:
        mean = float(np.mean(merits)) if merits else -math.inf
        bound = mean - noise.margin(1 - level, 1 / len(merits)) if merits else -math.inf
        return cls(function, len(merits), samples.diverged(function), mean, bound)

    @property
    def key(self) -> tuple[float, float, float, str]:
        lost = self.diverged / (self.n + self.diverged) if self.n + self.diverged else 1.0
        return lost, -self.bound, -self.mean, self.function

    def tied_with(self, other: _Standing, noise: _Noise, alpha: float) -> bool:
        """Return whether it is not shown to be better than another function."""
        if not (self.n and other.n) or other.key[0] > self.key[0]:
            return False
        return self.mean - other.mean <= noise.margin(alpha, 1 / self.n + 1 / other.n) or not noise.df
