"""Estimate means, medians and the probability of being better, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from searcher.evidence.samples import Samples, constant

BOOTSTRAP_FROM = 10  # values; the bootstrap of fewer adds little to the t interval
RESAMPLES = 9999
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        method: `t`, `t and BCa bootstrap` or `Clopper-Pearson`.
        level: the share of such intervals that hold the true value, 0.95 unless asked otherwise.
    """

    low: float
    high: float
    method: str
    level: float = LEVEL


@dataclass(frozen=True, slots=True)
class Summary:
    """One function under one task configuration.

    Attributes:
        n: trainings that finished. Mean, median, standard deviation and interval are of these.
        diverged: trainings that did not.
        mean: in the metric's unit; None if no training finished.
        sd: standard deviation over seeds; None below two trainings.
        interval: of the mean. None below two trainings and where all values are equal: neither shows any noise.
    """

    function: str
    n: int
    diverged: int
    mean: float | None
    median: float | None
    sd: float | None
    interval: Interval | None


def summary(samples: Samples, function: str, level: float = LEVEL) -> Summary:
    """Return mean, median and interval of a function's values."""
    merits = samples.merits(function)
    if not merits:
        return Summary(function, 0, samples.diverged(function), None, None, None, None)
    found = mean_interval(merits, level)
    if found:  # of merits; of a loss, the greater merit is the lesser value
        low, high = sorted((samples.metric.merit(found.low), samples.metric.merit(found.high)))
        found = Interval(low, high, found.method, found.level)
    return Summary(
        function,
        n=len(merits),
        diverged=samples.diverged(function),
        mean=samples.metric.merit(float(np.mean(merits))),
        median=samples.metric.merit(float(np.median(merits))),
        sd=float(np.std(merits, ddof=1)) if len(merits) > 1 else None,
        interval=found,
    )


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval | None:
    """Return an interval of the mean, or None if the values do not vary.

    From ten values on it holds both Student's t interval and the BCa bootstrap interval. Each alone covers too seldom
    for some noise: Student's where it is very skewed, the bootstrap where it is heavy-tailed (docs/benchmarks.md).
    """
    if constant(values, max(map(abs, values), default=0.0)):
        return None
    students = t_interval(values, level)
    if len(values) < BOOTSTRAP_FROM:
        return students
    bootstrap = bca_interval(values, level)
    low, high = min(students.low, bootstrap.low), max(students.high, bootstrap.high)
    return Interval(low, high, "t and BCa bootstrap", level)


def t_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return Student's t interval of the mean of two or more values that are not all equal."""
    found = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    return Interval(float(found.low), float(found.high), "t", level)


def bca_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return the bias-corrected and accelerated bootstrap interval of the mean (Efron 1987).

    A bootstrap knows the spread of few values too well, so its interval is too short. It is asked for a greater level,
    by which it is as long as Student's t where the values are normal (Hesterberg 2015, "expanded percentile interval").
    """
    n = len(values)
    quantile = stats.t.isf((1 - level) / 2, n - 1) * math.sqrt(n / (n - 1))
    found = stats.bootstrap(
        (np.sort(values),),
        np.mean,
        confidence_level=1 - 2 * stats.norm.sf(quantile),
        n_resamples=RESAMPLES,
        method="BCa",
        rng=np.random.default_rng(0),  # the same values have the same interval
    ).confidence_interval
    return Interval(float(found.low), float(found.high), "BCa bootstrap", level)


def probability_interval(wins: int, losses: int, ties: int, level: float = LEVEL) -> Interval:
    """Return the interval of the probability to win, where a tie counts as half a win: Clopper and Pearson's (1934).

    It is exact for few seeds, where Wald, Wilson and bootstrap intervals are too short (the bootstrap of five wins in
    five is [1, 1]). Without ties it agrees with the sign test: its lower end is above 0.5 just if that test is
    significant. The interval's formula takes half wins as they stand. Ties only make it safer, because half wins vary
    less than wins and losses; tests/evidence/test_estimates.py enumerates how often it covers.
    """
    n, half = wins + losses + ties, wins + ties / 2
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, half, n - half + 1)) if half > 0 else 0.0
    high = float(stats.beta.isf(tail, half + 1, n - half)) if half < n else 1.0
    return Interval(low, high, "Clopper-Pearson", level)
