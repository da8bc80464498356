"""Test a function against its reference, and correct p-values for several functions by Holm's method.

What decides is the paired t test. Two cases have no t test to trust, and there the exact sign test decides, which
counts wins and losses alone: one of the two diverged on a seed where the other did not (there is no difference to
average, but a winner), and differences that do not vary at all (they show no noise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import stats

from searcher.evidence.samples import Pairs

EXACT_PAIRS = 15  # up to here the permutation test tries all sign flips
T_TEST, SIGN_TEST = "paired t test", "sign test"

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class PValues:
    """The p-values that decide about one function; 1 where a test cannot be made.

    Attributes:
        favours: 1 if the function looks better, -1 if worse, 0 if neither.
    """

    difference: float
    equivalence: float
    favours: int
    test: str


def p_values(pairs: Pairs, rope: float | None) -> PValues:
    """Test one function for a difference to the reference, and for equivalence."""
    signs = pairs.constant or pairs.diverged + pairs.reference_diverged > 0
    if signs:
        decisive = pairs.wins + pairs.losses
        difference = float(stats.binomtest(pairs.wins, decisive).pvalue) if decisive else 1.0
        favours = int(np.sign(pairs.wins - pairs.losses))
    else:
        difference = t_test(pairs.differences)
        favours = int(np.sign(np.mean(pairs.differences)))
    return PValues(difference, equivalence_p(pairs, rope), favours, SIGN_TEST if signs else T_TEST)


def t_test(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the paired t test. The differences vary."""
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def equivalence_p(pairs: Pairs, rope: float | None) -> float:
    """Return the p-value of equivalence: of two one-sided t tests, or sign tests where differences do not vary. A
    function that diverges where the other does not is not equivalent."""
    found = pairs.differences
    if rope is None or not found or pairs.diverged or pairs.reference_diverged:
        return 1.0
    if pairs.constant:
        inside = sum(abs(difference) < rope for difference in found)
        return float(stats.binomtest(inside, len(found), alternative="greater").pvalue)
    above = stats.ttest_1samp(found, -rope, alternative="greater").pvalue
    below = stats.ttest_1samp(found, rope, alternative="less").pvalue
    return float(max(above, below))


def permutation_test(differences: Sequence[float]) -> tuple[float, bool]:
    """Return the two-sided p-value of the sign-flip test of the mean, and whether it is exact."""
    exact = len(differences) <= EXACT_PAIRS
    found = stats.permutation_test(
        (np.array(sorted(differences, key=lambda difference: (abs(difference), difference))),),
        lambda values, axis: np.abs(np.mean(values, axis=axis)),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=2**EXACT_PAIRS if exact else 9999,
        rng=np.random.default_rng(0),  # the same differences have the same p-value
    )
    return float(found.pvalue), exact


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's method (1979): the probability that any of those at most alpha is false is at
    most alpha, however they depend on each other."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in corrected]


def holm_corrected(found: Mapping[K, PValues]) -> dict[K, PValues]:
    """Correct differences among each other, and equivalences among each other."""
    differences = holm([values.difference for values in found.values()])
    equivalences = holm([values.equivalence for values in found.values()])
    return {
        key: replace(values, difference=difference, equivalence=equivalence)
        for (key, values), difference, equivalence in zip(found.items(), differences, equivalences, strict=True)
    }
