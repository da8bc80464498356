"""How many seeds a question needs, and which differences a number of seeds can show.

Every formula takes the noise as `sd`, the standard deviation of the paired differences over seeds. It is an estimate
itself, so the answers are rough where it comes from few seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

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
    wrong_side = np.nan_to_num(stats.nct.cdf(-critical, n - 1, centre))  # scipy gives NaN for the least numbers
    return float(stats.nct.sf(critical, n - 1, centre) + wrong_side)


def equivalence_power(n: int, effect: float, rope: float, alpha: float = 0.05) -> float:
    """Return the power of two one-sided t tests, by the noncentral t approximation.

    Args:
        effect: the true mean difference divided by `sd`.
        rope: the margin of equivalence divided by `sd`.
    """
    critical, root = stats.t.isf(alpha, n - 1), math.sqrt(n)
    below = stats.nct.sf(critical, n - 1, (rope - abs(effect)) * root)
    above = np.nan_to_num(stats.nct.cdf(critical, n - 1, (rope + abs(effect)) * root))
    return max(0.0, float(below - above))


def seeds_for_difference(effect: float, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Return the smallest number of seeds with which the paired t test has this power; None above 1,000."""
    return _smallest(lambda n: difference_power(n, effect, alpha) >= power)


def seeds_for_equivalence(effect: float, rope: float, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Return the smallest number of seeds with which equivalence is shown with this power; None above 1,000."""
    if abs(effect) >= rope:
        return None
    return _smallest(lambda n: equivalence_power(n, effect, rope, alpha) >= power)


def seeds_for_sign(wins: float, decisive: float = 1.0, alpha: float = 0.05, power: float = POWER) -> int | None:
    """Return the number of seeds with which the two-sided sign test has this power (Noether 1987); None above 1,000.

    Args:
        wins: the probability that the function wins a seed that is no tie.
        decisive: the share of seeds that are no ties.
    """
    if wins == 0.5:
        return None
    errors = float(stats.norm.isf(alpha / 2) + stats.norm.ppf(power))
    found = math.ceil((errors / (2 * (wins - 0.5))) ** 2 / decisive)
    return found if found <= MOST else None


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
