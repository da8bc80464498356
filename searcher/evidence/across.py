"""Compare functions under several task configurations: other networks, other data.

Each function has an interval under each configuration, and the verdicts are corrected for all of them together. Tests
over configurations (Friedman, Wilcoxon, critical difference) take each configuration as one observation, so they need
at least ten to say something; fewer are reported one by one (Demsar 2006, "Statistical comparisons of classifiers over
multiple data sets").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from searcher.evidence.paired import (
    ALPHA,
    Evidence,
    Rules,
    chosen_rope,
    judged,
)
from searcher.evidence.samples import EvidenceError, Pairs, Samples, finite
from searcher.evidence.significance import holm, holm_corrected, p_values

ENOUGH = 10  # configurations


@dataclass(frozen=True, slots=True)
class MeanRank:
    """A function over all configurations.

    Attributes:
        mean_rank: 1 is best; functions that are equal share their ranks.
        p_wilcoxon: of the signed-rank test of its differences to the reference, one for each configuration, two-sided;
            None for the reference. `p_holm`: the same, corrected for the number of functions.
    """

    function: str
    mean_rank: float
    p_wilcoxon: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class Ranks:
    """Functions ranked over ten configurations or more.

    Attributes:
        functions: best mean rank first. Only functions that were trained under every configuration.
        chi2: Friedman's statistic; `p` of the hypothesis that all functions are equal. None below three functions.
        critical_difference: two mean ranks that differ by less are not told apart (Nemenyi, at level alpha).
    """

    configurations: int
    functions: tuple[MeanRank, ...]
    chi2: float | None
    p: float | None
    critical_difference: float


@dataclass(frozen=True, slots=True)
class Across:
    """Evidence under several task configurations.

    Attributes:
        evidence: under each configuration. p-values are corrected for all functions and configurations together.
        ranks: None below ten configurations, or if no function was trained under all of them.
    """

    evidence: tuple[Evidence, ...]
    ranks: Ranks | None


def across(samples: Sequence[Samples], reference: str, *, alpha: float = ALPHA, rope: float | None = None) -> Across:
    """Compare every function with the reference under each task configuration.

    Args:
        samples: of each configuration. Their metrics may differ, and a function may be missing in some.
        alpha, rope: as in `compare`; the default of `rope` goes by the unit of each metric.

    Raises:
        EvidenceError: no configuration is given, two have one name, or `compare` refuses one.
    """
    names = [one.configuration for one in samples]
    if not names or len(set(names)) < len(names):
        raise EvidenceError(f"task configurations are {names}: give one or more, each with a name of its own")
    finite("alpha", alpha, 0, 1)
    ropes = {one.configuration: chosen_rope(rope, one.metric) for one in samples}
    found = {
        (one.configuration, function): p_values(one.pairs(function, reference), ropes[one.configuration])
        for one in samples
        for function in one.compared(reference)
    }
    corrected = holm_corrected(found)
    evidence = []
    for one in samples:
        keys = {function: (one.configuration, function) for function in one.compared(reference)}
        rules = Rules.of(corrected, alpha, ropes[one.configuration])
        raw, own = ({function: source[key] for function, key in keys.items()} for source in (found, corrected))
        evidence.append(judged(one, reference, raw, own, rules))
    return Across(tuple(evidence), ranks(samples, reference, alpha))


def ranks(samples: Sequence[Samples], reference: str, alpha: float = ALPHA) -> Ranks | None:
    """Rank functions over ten configurations or more; None below, or if no function was trained under all of them.

    Under each configuration, functions with fewer diverged trainings rank first, then the means of those that finished
    decide.
    """
    functions = [f for f in samples[0].values if all(one.values.get(f) for one in samples)]
    if len(samples) < ENOUGH or len(functions) < 2:
        return None
    table = np.array([_ranks(one, functions) for one in samples])  # configurations x functions
    n, k = table.shape
    friedman = stats.friedmanchisquare(*table.T) if k > 2 and np.ptp(table, axis=1).any() else None
    others = [function for function in functions if function != reference]
    p = [_wilcoxon(samples, function, reference) for function in others]
    tests = dict(zip(others, zip(p, holm(p), strict=True), strict=True))
    ranked = [
        MeanRank(function, float(mean), *tests.get(function, (None, None)))
        for function, mean in zip(functions, table.mean(axis=0), strict=True)
    ]
    return Ranks(
        configurations=n,
        functions=tuple(sorted(ranked, key=lambda one: one.mean_rank)),
        chi2=float(friedman.statistic) if friedman else None,
        p=float(friedman.pvalue) if friedman else None,
        critical_difference=critical_difference(k, n, alpha),
    )


def critical_difference(functions: int, configurations: int, alpha: float = ALPHA) -> float:
    """Return Nemenyi's critical difference of mean ranks (Demsar 2006, section 3.2.2)."""
    quantile = float(stats.studentized_range.isf(alpha, functions, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(functions * (functions + 1) / (6 * configurations))


def _ranks(samples: Samples, functions: Sequence[str]) -> NDArray[np.float64]:
    """Return the functions' ranks under one configuration, 1 is best; equal ones share theirs."""
    standing = []
    for function in functions:
        merits = samples.merits(function)
        lost = samples.diverged(function) / len(samples.values[function])
        standing.append((lost, -float(np.mean(merits)) if merits else math.inf))
    order = sorted(set(standing))
    return np.asarray(stats.rankdata([order.index(one) for one in standing]))


def _wilcoxon(samples: Sequence[Samples], function: str, reference: str) -> float:
    """Return the p-value of the signed-rank test over configurations. Zeros are split between the signs, as by Demsar.
    A configuration under which one of the two diverged more often counts as the greatest difference of all."""
    found = [_difference(one.pairs(function, reference)) for one in samples]
    greatest = 2 * max((abs(value) for value in found if math.isfinite(value)), default=1.0) or 1.0
    differences = np.clip(found, -greatest, greatest)
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue) if differences.any() else 1.0


def _difference(pairs: Pairs) -> float:
    """Return the mean difference on common seeds; infinite where one diverged more often, 0 where nothing is known."""
    if pairs.diverged != pairs.reference_diverged:
        return math.inf if pairs.diverged < pairs.reference_diverged else -math.inf
    return float(np.mean(pairs.differences)) if pairs.differences else 0.0
