"""Compute how many seeds a question needs, and which differences a number of seeds can show.

Every formula takes the noise as `sd`, the standard deviation of the paired differences over seeds. It is an estimate
itself, so the answers are rough where it comes from few seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, special, stats

POWER = 0.8
MOST = 1000  # seeds that a recommendation goes up to


def noether(probability: float, alpha: float = 0.05, power: float = 0.95) -> int:
    """Return the number of pairs by which P(A > B) = `probability` is told from 0.5 (Noether 1987, in the form of
    Bouthillier et al. 2021, appendix C.3: 29 pairs for 0.75 at 5 % errors of both kinds, one-sided)."""
    errors = stats.norm.isf(alpha) + stats.norm.ppf(power)
    return math.ceil(float(errors / (math.sqrt(6) * (0.5 - probability))) ** 2)


def difference_power(n: int, effect: float, alpha: float = 0.05) -> float:
    """Return the power of the two-sided paired t test.

    Args:
        n: seeds, two or more.
        effect: the true mean difference divided by `sd`.
    """
    critical, centre = stats.t.isf(alpha / 2, n - 1), abs(effect) * math.sqrt(n)
    return _above(critical, n - 1, centre) + _above(critical, n - 1, -centre)


def equivalence_power(n: int, effect: float, rope: float, alpha: float = 0.05) -> float:
    """Return the power of two one-sided t tests, by the noncentral t distribution.

    Args:
        effect: the true mean difference divided by `sd`.
        rope: the margin of equivalence divided by `sd`.
    """
    critical, root = stats.t.isf(alpha, n - 1), math.sqrt(n)
    sides = (_above(critical, n - 1, (rope + side * effect) * root) for side in (-1, 1))
    return max(0.0, sum(sides) - 1)


def _above(critical: float, df: int, centre: float) -> float:
    """Return the probability that the noncentral t distribution is above a positive value."""
    below = special.nctdtr(df, centre, critical)
    if math.isnan(below):  # as scipy has it where nearly all is on one side
        return float(centre > critical)
    return 1 - float(below)


def seeds_for_difference(effect: float, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Return the smallest number of seeds with which the paired t test has this power; None above 1,000."""
    return _smallest(lambda n: difference_power(n, effect, alpha) >= power)


def seeds_for_equivalence(effect: float, rope: float, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Return the smallest number of seeds with which equivalence is shown with this power; None above 1,000."""
    return _smallest(lambda n: equivalence_power(n, effect, rope, alpha) >= power)


def seeds_for_sign(wins: float, decisive: float = 1.0, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Return the smallest number of seeds with which the exact two-sided sign test has this power; None above 1,000.

    Args:
        wins: the probability that the function wins a seed that is no tie.
        decisive: the share of seeds that are no ties.
    """
    n = np.arange(1, MOST + 1)
    critical = stats.binom.ppf(alpha / 2, n, 0.5) - 1  # so many wins, or fewer, are significantly few
    found = stats.binom.cdf(critical, n, wins) + stats.binom.sf(n - critical - 1, n, wins)
    enough = math.ceil(n[found >= power][0] / decisive) if (found >= power).any() else MOST + 1
    return enough if enough <= MOST else None


def detectable(n: int, sd: float, alpha: float = 0.05, power: float = POWER) -> float | None:
    """Return the smallest true difference that the paired t test finds with `n` seeds and this power, in the unit of
    `sd`; None where no difference can be told (fewer than two seeds, or no noise to go by)."""
    if n < 2 or sd <= 0:
        return None
    greatest = 4 * (stats.t.isf(alpha / 2, n - 1) + 40) / math.sqrt(n)  # far more than any power needs
    return sd * float(optimize.brentq(lambda effect: difference_power(n, effect, alpha) - power, 0.0, greatest))


def _smallest(enough: Callable[[int], bool]) -> int | None:
    """Return the smallest number of seeds, from 2 to MOST, that is enough. More seeds are never worse."""
    if not enough(MOST):
        return None
    low, high = 1, MOST  # `low` is not enough, `high` is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
