"""Compare functions with a reference on the same training seeds, under one task configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np

from searcher.evidence import power
from searcher.evidence.estimates import Interval, Summary, probability_interval, summary, t_interval
from searcher.evidence.samples import Pairs, Samples, finite
from searcher.evidence.significance import (
    SIGN_TEST,
    PValues,
    holm_corrected,
    p_values,
    permutation_test,
    t_test,
)
from workers.contract import Metric

ALPHA = 0.05
MEANINGFUL = 0.75  # a probability of being better that matters: Bouthillier et al. 2021, section 4.1
ROPES = {"fraction": 0.005, "nats": 0.01}  # differences that do not matter in practice, by the metric's unit


class Verdict(StrEnum):
    """What the evidence says about a function and its reference."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Superiority:
    """P(A > B): the probability that the function beats its reference with a new seed. A tie counts as half.

    Attributes:
        significant: the interval lies above 0.5. It is corrected for nothing: the verdict is.
        meaningful: it does, and reaches above 0.75 (Bouthillier et al. 2021).
    """

    probability: float
    interval: Interval
    significant: bool
    meaningful: bool


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether the difference is too small to matter, by two one-sided t tests (TOST; Schuirmann 1987).

    Attributes:
        rope: differences of at most this count as none; the region of practical equivalence is [-rope, rope].
        p: of the two tests, the greater one; 1 where they cannot be made.
        p_holm: the same, corrected for the number of functions.
        shown: the corrected p-value is at most alpha.
    """

    rope: float
    p: float
    p_holm: float
    shown: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """One function beside its reference.

    Attributes:
        n: seeds that both were trained with. `pairs`: those of them on which both finished.
        diverged: seeds on which the function alone diverged: losses. `reference_diverged`: the reference alone: wins.
            `both_diverged`: ties.
        difference: mean over the pairs, in the metric's unit. Positive means that the function is better, whatever the
            metric's direction. None without pairs.
        sd: standard deviation of the differences; None below two pairs.
        interval: of the mean difference (t); None below two pairs and where the differences do not vary.
        p_t: of the paired t test, two-sided; None where there is no interval.
        p_permutation: of the sign-flip permutation test of the mean; `permutation_exact` if it tried all flips.
        test: the test that decides: `paired t test` or `sign test`.
        p: of this test; 1 where it cannot be made. In a sequential study the least of all looks, times their number.
            `p_holm`: the same, corrected for the number of functions.
        equivalence: None without a margin to go by.
        within: the smallest margin for which equivalence would be shown, with Holm's correction; None where a t test
            cannot be made, or a function diverged alone.
        detectable: the true difference that these pairs would show with 80 % power; None where noise is not known.
        seeds_needed: seeds, in all, that would settle an undecided comparison with 80 % power if the estimates were
            exact: by showing the difference, or equivalence. None if decided, not known, or above 1,000.
    """

    function: str
    reference: str
    n: int
    pairs: int
    diverged: int
    reference_diverged: int
    both_diverged: int
    difference: float | None
    sd: float | None
    interval: Interval | None
    p_t: float | None
    p_permutation: float | None
    permutation_exact: bool
    test: str
    p: float
    p_holm: float
    superiority: Superiority | None
    equivalence: Equivalence | None
    within: float | None
    verdict: Verdict
    detectable: float | None
    seeds_needed: int | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All functions under one task configuration, and their comparisons with the reference.

    Attributes:
        alpha: the probability of calling any function better or worse that is not, and that of calling any function
            equivalent that is not, over all comparisons corrected together.
        corrected_for: how many comparisons that are.
        looks: how often the data may be looked at; 1 unless a sequential plan says more.
    """

    metric: Metric
    configuration: str
    reference: str
    alpha: float
    corrected_for: int
    looks: int
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """The levels by which comparisons are judged, at the looks taken and corrected for all of them.

    Attributes:
        looks: how often the data may be looked at.
        corrected_for: how many comparisons are corrected together.
        no_difference: how many of them show no difference: Holm's method holds the next one to alpha / no_difference.
        no_equivalence: how many of them show no equivalence; likewise.
    """

    alpha: float
    rope: float | None
    looks: int
    corrected_for: int
    no_difference: int
    no_equivalence: int

    @classmethod
    def of(cls, corrected: Mapping[Any, PValues], alpha: float, rope: float | None, looks: int = 1) -> Self:
        """Return the rules for comparisons with these corrected p-values."""
        return cls(
            *(alpha, rope, looks, len(corrected)),
            no_difference=sum(values.difference > alpha for values in corrected.values()),
            no_equivalence=sum(values.equivalence > alpha for values in corrected.values()),
        )

    @property
    def level(self) -> float:
        """The level of intervals: with several looks, an interval holds at whichever of them the study ends."""
        return 1 - self.alpha / self.looks

    @property
    def alpha_difference(self) -> float:
        """The level at which the next comparison would be tested for a difference."""
        return self.alpha / self.looks / max(1, self.no_difference)

    @property
    def alpha_equivalence(self) -> float:
        """The level at which the next comparison would be tested for equivalence."""
        return self.alpha / self.looks / max(1, self.no_equivalence)


def compare(samples: Samples, reference: str, *, alpha: float = ALPHA, rope: float | None = None) -> Evidence:
    """Compare every function with the reference.

    Args:
        alpha: the accepted probability of any false verdict.
        rope: half the width of the region of practical equivalence, in the metric's unit. Default: 0.005 for fractions,
            0.01 for nats, none for other units, where no function is called equivalent.

    Raises:
        EvidenceError: the reference was not trained, or there is nothing to compare with it.
    """
    rope = chosen_rope(rope, samples.metric)
    finite("alpha", alpha, 0, 1)
    found = {function: p_values(samples.pairs(function, reference), rope) for function in samples.compared(reference)}
    corrected = holm_corrected(found)
    return judged(samples, reference, found, corrected, Rules.of(corrected, alpha, rope))


def chosen_rope(rope: float | None, metric: Metric) -> float | None:
    """Return the margin of equivalence that is asked for, or the default of the metric's unit, or None."""
    return ROPES.get(metric.unit) if rope is None else finite("rope", rope, 0)


def verdict_of(corrected: PValues, alpha: float) -> Verdict:
    """Return the verdict by corrected p-values. A difference that is sure is called so even if it is negligible."""
    if corrected.difference <= alpha and corrected.favours:
        return Verdict.BETTER if corrected.favours > 0 else Verdict.WORSE
    return Verdict.EQUIVALENT if corrected.equivalence <= alpha else Verdict.UNDECIDED


def judged(
    samples: Samples,
    reference: str,
    found: Mapping[str, PValues],
    corrected: Mapping[str, PValues],
    rules: Rules,
) -> Evidence:
    """Return the records of all functions, given the p-values that decide about them."""
    return Evidence(
        metric=samples.metric,
        configuration=samples.configuration,
        reference=reference,
        alpha=rules.alpha,
        corrected_for=rules.corrected_for,
        looks=rules.looks,
        summaries=tuple(summary(samples, function, rules.level) for function in samples.values),
        comparisons=tuple(
            _comparison(samples.pairs(function, reference), function, reference, values, corrected[function], rules)
            for function, values in found.items()
        ),
    )


def _comparison(
    pairs: Pairs, function: str, reference: str, found: PValues, corrected: PValues, rules: Rules
) -> Comparison:
    differences = pairs.differences
    varying = not pairs.constant
    sd = float(np.std(differences, ddof=1)) if varying else None
    p_permutation, exact = permutation_test(differences) if len(differences) > 1 else (None, False)
    verdict = verdict_of(corrected, rules.alpha)
    return Comparison(
        function=function,
        reference=reference,
        n=pairs.n,
        pairs=len(differences),
        diverged=pairs.diverged,
        reference_diverged=pairs.reference_diverged,
        both_diverged=pairs.both_diverged,
        difference=float(np.mean(differences)) if differences else None,
        sd=sd,
        interval=t_interval(differences, rules.level) if varying else None,
        p_t=t_test(differences) if varying else None,
        p_permutation=p_permutation,
        permutation_exact=exact,
        test=found.test,
        p=found.difference,
        p_holm=corrected.difference,
        superiority=superiority(pairs, rules.level),
        equivalence=_equivalence(found, corrected, rules),
        within=_within(pairs, rules),
        verdict=verdict,
        detectable=power.detectable(len(differences), sd, rules.alpha_difference) if sd else None,
        seeds_needed=_seeds_needed(pairs, sd, found.test, rules) if verdict is Verdict.UNDECIDED else None,
    )


def superiority(pairs: Pairs, level: float) -> Superiority | None:
    """Return P(A > B) over all seeds; None without any."""
    if not pairs.n:
        return None
    ties = pairs.n - pairs.wins - pairs.losses
    interval = probability_interval(pairs.wins, pairs.losses, ties, level)
    significant = interval.low > 0.5
    meaningful = significant and interval.high > MEANINGFUL
    return Superiority((pairs.wins + ties / 2) / pairs.n, interval, significant, meaningful)


def _equivalence(found: PValues, corrected: PValues, rules: Rules) -> Equivalence | None:
    if rules.rope is None:
        return None
    shown = corrected.equivalence <= rules.alpha
    return Equivalence(rules.rope, found.equivalence, corrected.equivalence, shown)


def _within(pairs: Pairs, rules: Rules) -> float | None:
    """Return the farther end of the interval that belongs to two one-sided tests at Holm's next level. It is at most
    the rope just if equivalence is shown."""
    if pairs.constant or pairs.diverged or pairs.reference_diverged:
        return None
    ends = t_interval(pairs.differences, 1 - 2 * rules.alpha_equivalence)
    return max(-ends.low, ends.high)


def _seeds_needed(pairs: Pairs, sd: float | None, test: str, rules: Rules) -> int | None:
    """Return how many seeds would settle a comparison if the estimates were exact."""
    if test == SIGN_TEST:
        decisive = pairs.wins + pairs.losses
        if not decisive:
            return None
        return power.seeds_for_sign(pairs.wins / decisive, decisive / pairs.n, rules.alpha_difference)
    if not sd:
        return None
    effect = float(np.mean(pairs.differences)) / sd
    found = [power.seeds_for_difference(effect, rules.alpha_difference)]
    if rules.rope is not None:
        found.append(power.seeds_for_equivalence(effect, rules.rope / sd, rules.alpha_equivalence))
    least = min((n for n in found if n is not None), default=None)
    return least and math.ceil(least * pairs.n / len(pairs.differences))  # a seed on which both diverge makes no pair
