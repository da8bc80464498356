"""Means, medians and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from searcher.evidence import Samples
from searcher.evidence.estimates import bca_interval, mean_interval, probability_interval, summary, t_interval
from workers.contract import Direction, Metric

LOSS = Metric("test_loss", Direction.MINIMIZE, "nats")


def test_the_interval_of_a_probability_covers_it_whatever_the_share_of_ties() -> None:
    """Enumerated: all numbers of wins, losses and ties, for a grid of their probabilities."""
    for n in (1, 2, 3, 5, 6, 8, 12):
        outcomes = [(wins, losses, n - wins - losses) for wins in range(n + 1) for losses in range(n + 1 - wins)]
        intervals = [probability_interval(*outcome) for outcome in outcomes]
        for ties in (0.0, 0.1, 0.5, 0.9, 1.0):
            for share in np.linspace(0, 1, 41):
                chances = [share * (1 - ties), (1 - share) * (1 - ties), ties]
                true = chances[0] + ties / 2
                hit = [found.low - 1e-12 <= true <= found.high + 1e-12 for found in intervals]
                covered = stats.multinomial.pmf(outcomes, n, chances)[hit].sum()
                assert covered >= 0.95, (n, ties, share, covered)


def test_the_interval_of_a_probability_agrees_with_the_sign_test() -> None:
    for n in range(1, 31):
        for wins in range(n + 1):
            above = probability_interval(wins, n - wins, 0).low > 0.5
            assert above == (2 * wins > n and stats.binomtest(wins, n).pvalue <= 0.05), (wins, n)


def test_five_wins_of_five_are_not_significant_and_six_of_six_are() -> None:
    five, six = probability_interval(5, 0, 0), probability_interval(6, 0, 0)
    assert (five.low, five.high) == (pytest.approx(0.025**0.2), 1.0) and five.low < 0.5 < six.low
    assert probability_interval(0, 0, 4) == probability_interval(2, 2, 0), "ties count as half"


def efrons_interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """The BCa interval of the mean by the formulas of Efron 1987, without scipy's bootstrap."""
    n, rng = len(values), np.random.default_rng(1)
    means = np.sort(rng.choice(values, (200_000, n)).mean(axis=1))
    bias = stats.norm.ppf((means < values.mean()).mean())
    residuals = values - values.mean()
    acceleration = (residuals**3).sum() / (6 * (residuals**2).sum() ** 1.5)
    z = bias + np.array([-1, 1]) * stats.norm.isf((1 - level) / 2)
    low, high = np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def expanded_level(n: int) -> float:
    """The level at which a normal interval with the maximum-likelihood variance is as long as Student's."""
    return float(1 - 2 * stats.norm.sf(stats.t.isf(0.025, n - 1) * math.sqrt(n / (n - 1))))


@pytest.mark.parametrize("n", [20, 40])
def test_the_bootstrap_follows_skewness(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    found = bca_interval(values)
    low, high = efrons_interval(values, expanded_level(n))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03 * (high - low))
    assert found.high - values.mean() > 1.1 * (values.mean() - found.low), "the longer tail is above"
    assert found == bca_interval(values[::-1]), "the same values have the same interval"


def test_the_bootstrap_of_normal_values_is_as_long_as_students_interval() -> None:
    """That of nominal level is 7 % shorter, and covers 93 %."""
    values = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    found, students = bca_interval(values), t_interval(values)
    assert found.high - found.low == pytest.approx(students.high - students.low, rel=0.03)


def test_the_method_depends_on_the_number_of_values() -> None:
    values = np.random.default_rng(0).exponential(size=10)
    methods = [found.method for n in (2, 9, 10) if (found := mean_interval(values[:n]))]
    assert methods == ["t", "t", "t and BCa bootstrap"]
    assert mean_interval(values[:1]) is None and mean_interval([]) is None


def test_the_interval_of_a_mean_holds_both_methods() -> None:
    values = np.random.default_rng(0).exponential(size=10)
    students, bootstrap, found = t_interval(values), bca_interval(values), mean_interval(values)
    assert students.low < bootstrap.low and students.high < bootstrap.high, "the longer tail is above"
    assert found and (found.low, found.high) == (students.low, bootstrap.high)


def test_a_summary_is_in_the_unit_of_the_metric() -> None:
    values: dict[int, float | None] = {0: 1.0, 1: 2.0, 2: None, 3: 6.0}
    found = summary(Samples(LOSS, {"f": values}), "f")
    assert (found.n, found.diverged, found.mean, found.median) == (3, 1, 3.0, 2.0)
    assert found.sd == pytest.approx(7**0.5)
    half_width = stats.t.isf(0.025, 2) * (7 / 3) ** 0.5
    assert found.interval and found.interval.low == pytest.approx(3 - half_width)
    assert found.interval.high == pytest.approx(3 + half_width)


def test_a_longer_tail_of_a_loss_stays_above() -> None:
    values = dict(enumerate(map(float, np.random.default_rng(1).exponential(size=30))))
    found = summary(Samples(LOSS, {"f": values}), "f")
    assert found.interval and found.mean and found.interval.method == "t and BCa bootstrap"
    assert found.interval.high - found.mean > 1.1 * (found.mean - found.interval.low)
