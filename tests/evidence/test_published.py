"""The statistics against worked examples of papers and books. Each docstring names the source of the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from searcher.evidence import Samples, across, compare, power
from searcher.evidence.across import critical_difference
from searcher.evidence.estimates import probability_interval
from searcher.evidence.significance import holm
from workers.contract import Direction, Metric

METRIC = Metric("test_score", Direction.MAXIMIZE)

DEXTRO = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
LAEVO = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]

# Demsar 2006, table 6: the area under the ROC curve of four decision trees on 14 data sets. On "voting" the last two
# print as 0.975; their printed ranks are 2 and 3.
TREES = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
AUC = [
    [0.763, 0.768, 0.771, 0.798],
    [0.599, 0.591, 0.590, 0.569],
    [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657],
    [0.882, 0.888, 0.886, 0.898],
    [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685],
    [0.583, 0.583, 0.563, 0.625],
    [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000],
    [0.940, 0.962, 0.965, 0.962],
    [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.97501, 0.975],
    [0.957, 0.978, 0.946, 0.970],
]


def samples(**values: Sequence[float]) -> Samples:
    return Samples(METRIC, {name: dict(enumerate(map(float, found))) for name, found in values.items()})


def test_students_sleep_data() -> None:
    """Student 1908, "The probable error of a mean", Biometrika 6, section IX: hours of sleep gained with two drugs. The
    mean difference is 1.58; R's documentation of `sleep` and `t.test` gives t = 4.0621, p = 0.002833 and the interval
    0.70 to 2.46."""
    (found,) = compare(samples(laevo=LAEVO, dextro=DEXTRO), "dextro").comparisons
    assert found.interval and found.difference and found.sd and found.p_t
    assert found.difference == pytest.approx(1.58)
    assert found.difference / (found.sd / 10**0.5) == pytest.approx(4.0621, abs=5e-5)
    assert found.p_t == pytest.approx(0.002833, abs=5e-7)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.7001, 2.4599), abs=5e-5)


def test_darwins_maize() -> None:
    """Fisher 1935, "The Design of Experiments", sections 17 and 21: 15 pairs of plants, differences in eighths of
    an inch. t = 2.148; of the 32,768 ways to choose signs, 863 have a sum as great as the observed one, 314: 5.267 % on
    two sides."""
    (found,) = compare(samples(crossed=MAIZE, selfed=[0] * 15), "selfed").comparisons
    assert found.difference == pytest.approx(314 / 15) and found.sd
    assert 314 / 15 / (found.sd / 15**0.5) == pytest.approx(2.148, abs=5e-4)
    assert found.p_permutation == pytest.approx(2 * 863 / 2**15) and found.permutation_exact
    assert found.p_t == pytest.approx(0.0497, abs=5e-5)


def test_equivalence_of_the_sleep_data() -> None:
    """Two one-sided tests of the sleep data by `ttost_paired` of statsmodels 0.15.0."""
    expected = {0.5: 0.9892407566, 2.0: 0.1541572357, 2.5: 0.0211168602}
    for rope, p in expected.items():
        (found,) = compare(samples(laevo=LAEVO, dextro=DEXTRO), "dextro", rope=rope).comparisons
        assert found.equivalence and found.equivalence.p == pytest.approx(p)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.0001, 0.2, 0.013, 0.013, 0.9, 0.04], [0.0006, 0.4, 0.065, 0.065, 0.9, 0.12]),
        ([0.3], [0.3]),
    ],
)
def test_holms_correction(p: list[float], expected: list[float]) -> None:
    """`multipletests(..., method="holm")` of statsmodels 0.15.0."""
    assert holm(p) == pytest.approx(expected)


def test_holms_steps_of_demsar() -> None:
    """Demsar 2006, section 3.2.2: p = 0.016, 0.019 and 0.607 against alpha / 3, alpha / 2 and alpha; the first two
    hypotheses are rejected."""
    assert [p <= 0.05 for p in holm([0.019, 0.607, 0.016])] == [True, False, True]


def test_ranks_over_data_sets() -> None:
    """Demsar 2006, section 3.2.2 and table 6: mean ranks 3.143, 2.000, 2.893, 1.964; chi-squared 9.28 before the
    correction for ties, which scipy makes; critical difference 1.25."""
    rows = [Samples(METRIC, {t: {0: v} for t, v in zip(TREES, row, strict=True)}, str(i)) for i, row in enumerate(AUC)]
    found = across(rows, "C4.5").ranks
    assert found and found.chi2
    shown = {one.function: round(one.mean_rank, 3) for one in found.functions}
    assert shown == {"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    assert [one.function for one in found.functions] == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    ties = [np.unique(row, return_counts=True)[1] for row in AUC]
    correction = 1 - sum(float((count**3 - count).sum()) for count in ties) / (14 * 4 * (4**2 - 1))
    assert found.chi2 * correction == pytest.approx(9.28, abs=5e-3)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)


def test_signed_ranks_over_data_sets() -> None:
    """Demsar 2006, section 3.1.3 and table 2: C4.5 with and without m, R+ = 93 and R- = 12, so z = -2.54."""
    rows = [Samples(METRIC, {"C4.5": {0: row[0]}, "C4.5+m": {0: row[1]}}, str(i)) for i, row in enumerate(AUC)]
    found = across(rows, "C4.5").ranks
    assert found and found.chi2 is None, "Friedman's test is for three functions or more"
    p = {one.function: one.p_wilcoxon for one in found.functions}
    assert p == {"C4.5": None, "C4.5+m": pytest.approx(0.0111, abs=2e-4)}


@pytest.mark.parametrize(("functions", "value"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_critical_values_of_nemenyi(functions: int, value: float) -> None:
    """Demsar 2006, table 5 (a)."""
    unit = (functions * (functions + 1) / (6 * 12)) ** 0.5
    assert critical_difference(functions, 12) / unit == pytest.approx(value, abs=1.1e-3)


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_intervals_of_clopper_and_pearson(wins: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, table I."""
    found = probability_interval(wins, n - wins, 0)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_noethers_number_of_pairs() -> None:
    """Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks", section 4.1 and appendix C.3:
    29 trainings for P(A > B) = 0.75 and 5 % errors of both kinds."""
    assert power.noether(0.75) == power.noether(0.25) == 29


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_for_a_difference(effect: float, seeds: int) -> None:
    """Matched pairs, two-sided 5 %, 80 % power: what G*Power 3 (Faul et al. 2007) answers for Cohen's small, medium and
    large effects. `TTestPower` of statsmodels 0.15.0 gives 198.15, 33.37 and 14.30, and a power of 0.29318 for 10 pairs
    and an effect of 0.5."""
    assert power.seeds_for_difference(effect) == power.seeds_for_difference(-effect) == seeds
    assert power.difference_power(10, 0.5) == pytest.approx(0.2931756065)


def test_what_ten_seeds_detect() -> None:
    """`TTestPower().solve_power(nobs=10, alpha=0.05, power=0.8)` of statsmodels 0.15.0 gives 0.99600."""
    assert power.detectable(10, 1.0) == pytest.approx(0.9960019908)
    assert power.detectable(10, 0.25) == pytest.approx(0.2490004977)
