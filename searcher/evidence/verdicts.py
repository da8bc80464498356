"""Write verdicts in plain sentences. Every number in them is taken from the records, so a sentence is right by them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from searcher.evidence.estimates import Interval, probability_interval
from searcher.evidence.paired import Comparison, Equivalence, Evidence, Verdict
from searcher.evidence.significance import SIGN_TEST
from workers.contract import Direction, Metric

SMALL = 1e-4  # p-values below are not told apart


def conclusion(evidence: Evidence) -> str:
    """Return what all comparisons say together, in one sentence."""
    by_verdict = {
        verdict: sorted((c for c in evidence.comparisons if c.verdict is verdict), key=lambda c: -(c.difference or 0.0))
        for verdict in Verdict
    }
    counts = ", ".join(f"{len(found)} {verdict}" for verdict, found in by_verdict.items() if found)
    better = [comparison.function for comparison in by_verdict[Verdict.BETTER]]
    subject = f"{', '.join(better)} {'is' if len(better) == 1 else 'are'}" if better else "Nothing is shown to be"
    counted = f"of {len(evidence.comparisons)}: {counts}"
    return f"{subject} better than {evidence.reference} by {evidence.metric.name} ({counted})."


def sentence(comparison: Comparison, evidence: Evidence) -> str:
    """Return the verdict about one function in one sentence."""
    function, reference = comparison.function, comparison.reference
    match comparison.verdict:
        case Verdict.BETTER | Verdict.WORSE:
            verdict = f"{function} is {comparison.verdict} than {reference}"
        case Verdict.EQUIVALENT if comparison.equivalence:
            verdict = f"{function} and {reference} are equivalent within ±{_number(comparison.equivalence.rope)}"
            return f"{verdict}: {_sameness(comparison, comparison.equivalence, evidence)}."
        case _:
            verdict = f"It is undecided whether {function} or {reference} is better"
    return f"{verdict}: {_facts(comparison, evidence)}."


def remarks(comparison: Comparison, evidence: Evidence) -> tuple[str, ...]:
    """Return what else must be known about a comparison, a sentence each: diverged trainings, how often the function
    wins, what the evidence cannot tell, and how many seeds could."""
    found = [*_divergence(comparison), *_limits(comparison, evidence), *_probability(comparison)]
    if comparison.verdict in (Verdict.BETTER, Verdict.WORSE):
        found += _doubts(comparison, evidence)
    if comparison.verdict is Verdict.UNDECIDED:
        found += _more_seeds(comparison, evidence)
    return (*found, *_optimism(evidence))


def limits(comparison: Comparison, evidence: Evidence) -> tuple[str, ...]:
    """Return those of `remarks` that say what such trainings cannot tell. They may hold for all functions alike."""
    return (*_limits(comparison, evidence), *_optimism(evidence))


def _facts(comparison: Comparison, evidence: Evidence) -> str:
    """Return the difference, how sure it is, and over how many seeds."""
    p = _p(comparison.p_holm, evidence)
    seeds = _count(comparison.pairs, "seed")
    if comparison.test == SIGN_TEST and comparison.superiority:
        wins = round(comparison.superiority.probability * comparison.n, 1)
        gap = f"; {_gap(comparison, evidence.metric)} over {seeds}" if comparison.difference is not None else ""
        return f"it wins {wins:g} of {_count(comparison.n, 'seed')} (a tie counts as half; sign test, {p}){gap}"
    if comparison.difference is None:
        return "they have no seeds in common"
    if comparison.interval is None:
        return f"{_gap(comparison, evidence.metric)} over {seeds}"
    found = comparison.interval
    if comparison.difference < 0:  # the words say the side, so the interval is of the same side
        found = replace(found, low=-found.high, high=-found.low)
    return f"{_gap(comparison, evidence.metric)} ({_ends(found)}, {seeds}, {p})"


def _sameness(comparison: Comparison, equivalence: Equivalence, evidence: Evidence) -> str:
    """Return the difference of two equivalent functions, and how sure it is that it is small."""
    p = _p(equivalence.p_holm, evidence)
    gap = f"{_gap(comparison, evidence.metric)} over {_count(comparison.pairs, 'seed')}"
    if comparison.within is None:
        return f"{gap}, each time alike (sign test, {p})"
    if comparison.within > equivalence.rope:  # an earlier look showed it
        return f"{gap} (two one-sided t tests, {p})"
    return f"{gap}, and the true difference is within ±{_number(comparison.within)} (two one-sided t tests, {p})"


def _gap(comparison: Comparison, metric: Metric) -> str:
    """Return the mean difference with the word for its side: `test_loss is lower by 0.01`."""
    difference = comparison.difference or 0.0
    if difference == 0:
        return f"{metric.name} is the same"
    higher = (difference > 0) == (metric.direction is Direction.MAXIMIZE)
    return f"{metric.name} is {'higher' if higher else 'lower'} by {_number(abs(difference))}"


def _divergence(comparison: Comparison) -> Iterator[str]:
    n = _count(comparison.n, "seed")
    lone = ((comparison.function, comparison.diverged), (comparison.reference, comparison.reference_diverged))
    for name, count in lone:
        if count:
            yield f"{name} alone diverged on {count} of {n}, and loses there."
    if comparison.both_diverged:
        yield f"Both diverged on {comparison.both_diverged} of {n}, which count as ties."
    if comparison.pairs < comparison.n and comparison.pairs:
        yield f"The mean difference is of the {_count(comparison.pairs, 'seed')} on which both finished."


def _limits(comparison: Comparison, evidence: Evidence) -> Iterator[str]:
    """Yield what cannot be told with so few seeds, or with differences like these."""
    n = comparison.n
    if n == 0:
        yield "Without common seeds nothing can be told; train both with the same seeds."
    elif n == 1:
        yield "One seed says nothing about noise; train at least two, better five."
    elif comparison.pairs > 1 and comparison.interval is None:
        yield "The differences are the same on every seed, so noise is not known and the sign test decides."
    if n > 1 and probability_interval(n, 0, 0, 1 - evidence.alpha / evidence.looks).low <= 0.5:
        least = 2.0 ** (1 - n)
        yield (
            f"With {n} seeds, neither the sign test nor the permutation test can go below p = {least:g}, "
            "and P(A > B) cannot be significant."
        )


def _optimism(evidence: Evidence) -> Iterator[str]:
    if evidence.metric.split != "test":
        yield f"{evidence.metric.name} is no test metric: validation only, optimistic."


def _probability(comparison: Comparison) -> Iterator[str]:
    found = comparison.superiority
    if found and comparison.n > 1:
        word = "meaningful" if found.meaningful else "significant" if found.significant else "not significant"
        if found.interval.high < 0.5:
            word = "surely less than half"
        shown = f"{_number(found.probability)} ({_ends(found.interval)})"
        yield f"The probability that it beats {comparison.reference} with a new seed is {shown}: {word}."


def _doubts(comparison: Comparison, evidence: Evidence) -> Iterator[str]:
    """Yield what speaks against leaning on a difference."""
    alpha = evidence.alpha / evidence.looks
    if comparison.test != SIGN_TEST and comparison.p_permutation is not None and comparison.p_permutation > alpha:
        yield f"The permutation test alone does not show it (p = {_rounded_up(comparison.p_permutation)})."
    if comparison.equivalence and comparison.equivalence.shown:
        yield f"The difference is sure, but too small to matter: within ±{_number(comparison.equivalence.rope)}."


def _more_seeds(comparison: Comparison, evidence: Evidence) -> Iterator[str]:
    if comparison.seeds_needed and comparison.n > 1:
        yield f"About {comparison.seeds_needed} seeds in all would settle it, if the estimates are right."
    largest = 1.0 if evidence.metric.unit == "fraction" else math.inf  # a greater difference of fractions cannot be
    if comparison.within is not None and comparison.within < largest:
        yield f"The true difference is within ±{_number(comparison.within)} (two one-sided t tests, corrected)."
    found = comparison.detectable
    if found is not None and found < largest and comparison.test != SIGN_TEST:
        yield (
            f"With {comparison.pairs} seeds, a true difference of {_number(found)} in {evidence.metric.name} is shown "
            "in 80 of 100 studies."
        )


def _p(p: float, evidence: Evidence) -> str:
    several = f" corrected for {evidence.corrected_for} comparisons" if evidence.corrected_for > 1 else ""
    return f"p {'<' if p < SMALL else '='} {_rounded_up(p)}{several}"


def _rounded_up(p: float) -> str:
    """Return a p-value with three digits, rounded up, so that what is shown is at most alpha only if the p-value is."""
    if p < SMALL:
        return f"{SMALL:g}"
    step = 10.0 ** (math.floor(math.log10(p)) - 2)
    return f"{math.ceil(p / step - 1e-9) * step:.3g}"


def _ends(interval: Interval) -> str:
    return f"{100 * interval.level:.4g} % interval {_number(interval.low)} to {_number(interval.high)}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
