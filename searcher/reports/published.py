"""Put the published figures of a reproduced experiment beside the ones that were measured here."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy import stats

from searcher.evidence import EvidenceError, Verdict
from searcher.evidence.significance import holm
from searcher.reports.confirmed import Confirmed
from searcher.reproductions import PAPER, REFERENCE, reproduction

FEWEST = 4  # functions; a correlation of fewer has no interval
PLACE = tuple[str, str]  # a data set and a network


def figures() -> dict[PLACE, dict[str, list[float]]]:
    """Return the published accuracies, as fractions: by data set and network, by function, one for each run (or the
    median of five)."""
    found: dict[PLACE, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    text = files("searcher.reports").joinpath("published.csv").read_text()
    for row in csv.DictReader(text.splitlines()):
        place = row["dataset"], row["model"]
        found[place][row["function"]].append(round(float(row["accuracy_percent"]) / 100, 6))
    return {place: dict(values) for place, values in found.items()}


def facts(found: Confirmed) -> dict[str, Any] | None:
    """Return the published figures, ours, and how well they agree, as plain values; None if the confirmation reproduces
    nothing."""
    if not found.plan.reproduces:
        return None
    name, scale = found.plan.reproduces.split()
    wanted = reproduction(name)
    published = {place: values for place, values in figures().items() if place in wanted.published}
    ours = {one.name: accuracies(found, place) for place, one in enumerate(found.plan.configurations)}
    tests = [{"published": _named(place), **test} for place, values in published.items() for test in welch(values)]
    return {
        "story": list(_story(found, wanted.question, tests)),
        "name": name,
        "scale": scale,
        "title": wanted.title,
        "question": wanted.question,
        "source": PAPER,
        "functions": [
            {
                "function": function.label,
                "published": {
                    _named(place): _middle(values.get(function.label)) for place, values in published.items()
                },
                "ours": {configuration: values.get(function.label) for configuration, values in ours.items()},
            }
            for function in found.plan.functions
            if any(function.label in values for values in published.values())
        ],
        "agreement": [
            agreement(values, theirs) | {"configuration": configuration, "published": _named(place)}
            for configuration, values in ours.items()
            for place, theirs in published.items()
        ],
        "published_tests": tests,
        "reduced": list(wanted.scale(scale).reduced),
        "cannot": _cannot(found, published),
    }


def accuracies(found: Confirmed, place: int) -> dict[str, float]:
    """Return the mean test accuracy of each function under a configuration, over the trainings that finished."""
    configuration = found.plan.configurations[place]
    chosen = {
        (function.key, found.results.chosen(configuration, function.key)): function.label
        for function in found.plan.functions
    }
    ended = sorted(
        (chosen[trial.key, trial.task_config], trial.metrics["test_acc"])
        for trial in found.trials
        if (trial.key, trial.task_config) in chosen and "test_acc" in trial.metrics
    )
    return {label: fmean(value for _, value in group) for label, group in groupby(ended, key=lambda one: one[0])}


def agreement(ours: Mapping[str, float], theirs: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the rank correlation of two lists of functions (Spearman's), with its 95 % interval by Fisher's
    transformation; None where there are too few functions or no order."""
    common = [name for name in ours if name in theirs]
    x = stats.rankdata([ours[name] for name in common])
    y = stats.rankdata([median(theirs[name]) for name in common])
    if len(common) < FEWEST or not (np.ptp(x) and np.ptp(y)):
        return {"functions": len(common), "spearman": None, "low": None, "high": None, "p": None}
    correlation = stats.pearsonr(x, y)
    interval = correlation.confidence_interval()
    return {
        "functions": len(common),
        "spearman": float(correlation.statistic),
        "low": float(interval.low),
        "high": float(interval.high),
        "p": float(correlation.pvalue),
    }


def welch(values: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Compare the published runs of each function with ReLU's by Welch's t test, corrected by Holm's method. They share
    no seeds, so pairs cannot be compared. Empty where fewer than two runs were published."""
    reference = values.get(REFERENCE, ())
    others = {name: runs for name, runs in values.items() if name != REFERENCE and len(runs) > 1}
    if len(reference) < 2 or not others:
        return []
    p = [float(stats.ttest_ind(runs, reference, equal_var=False).pvalue) for runs in others.values()]
    return [
        {"function": name, "difference": fmean(runs) - fmean(reference), "p": one, "p_holm": corrected}
        for (name, runs), one, corrected in zip(others.items(), p, holm(p), strict=True)
    ]


def _story(found: Confirmed, question: str, tests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the question and its answers, a sentence each."""
    yield f"The question: {question}"
    try:
        evidence = found.evidence.evidence
    except EvidenceError:
        evidence = ()
    for one in evidence:
        differing = [c.function for c in one.comparisons if c.verdict in (Verdict.BETTER, Verdict.WORSE)]
        better = [c.function for c in one.comparisons if c.verdict is Verdict.BETTER]
        yield (
            f"Here, under {one.configuration}: {len(differing)} of {len(one.comparisons)} functions differ "
            f"significantly from {one.reference} by {one.metric.name}; better: {', '.join(better) or 'none'}."
        )
    if tests:
        shown = [f"{row['function']} (p = {row['p_holm']:.2g})" for row in tests if row["p_holm"] <= found.plan.alpha]
        yield (
            f"In the published runs by themselves, {len(shown)} of {len(tests)} functions differ significantly from "
            f"{REFERENCE}: {', '.join(shown) or 'none'}."
        )


def _cannot(found: Confirmed, published: Mapping[PLACE, Any]) -> list[str]:
    """Return what cannot be concluded, a sentence each."""
    places = ", ".join(map(_named, published))
    ours = ", ".join(one.name for one in found.plan.configurations)
    return [
        f"The published figures are of {places}; ours are of {ours}. A function that wins here need not win there, "
        "and the size of a difference does not carry over.",
        "A difference that is not significant here may exist: see what these seeds could have found.",
        "The published figures have a noise of their own: they are medians of five runs, or up to three single runs.",
    ]


def _middle(runs: Sequence[float] | None) -> float | None:
    return median(runs) if runs else None


def _named(place: PLACE) -> str:
    return f"{place[1]} on {place[0]}"
