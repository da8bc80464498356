"""Collect what a confirmation has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

from searcher.confirmation import Configuration, Function
from searcher.evidence import Comparison, Evidence, EvidenceError, Samples, Verdict, conclusion, remarks, sentence
from searcher.evidence.estimates import summary
from searcher.records import TrialState
from searcher.reports.confirmed import Confirmed


def facts(found: Confirmed) -> dict[str, Any]:
    """Return the plan of a confirmation, the values of each seed, the verdicts, and the values in the search."""
    plan = found.plan
    evidence, why_not = _evidence(found)
    by_name = {one.configuration: one for one in evidence}
    return {
        "metric": asdict(plan.metric),
        "reference": plan.reference_label,
        "functions": [_function(function) for function in plan.functions],
        "seeds": list(plan.seeds),
        "looks": list(plan.looks),
        "alpha": plan.alpha,
        "rope": plan.looking.rope,
        "rule": plan.rule if plan.until_sure else "",
        "until_sure": plan.until_sure,
        "most_trainings": plan.most_trainings,
        "ended": sum(trial.state.finished for trial in found.trials),
        "failed": sum(trial.state is TrialState.FAILED for trial in found.trials),
        "finished": found.finished,
        "search": plan.search,
        "search_seed": plan.search_seed,
        "configurations": [
            _configuration(found, place, samples, by_name.get(samples.configuration))
            for place, samples in enumerate(found.samples)
        ],
        "nothing_yet": why_not,
        "ranks": _ranks(found),
        "curse": _curse(found),
    }


def _evidence(found: Confirmed) -> tuple[tuple[Evidence, ...], str]:
    """Return the verdicts, or why there are none."""
    try:
        evidence = found.evidence.evidence
    except EvidenceError as error:
        return (), str(error)
    why = f"the first look is after {found.plan.looks[0]} seeds" if found.plan.until_sure else "no training has ended"
    return evidence, "" if evidence else why


def _ranks(found: Confirmed) -> dict[str, Any] | None:
    try:
        ranks = found.evidence.ranks
    except EvidenceError:
        return None
    return asdict(ranks) if ranks else None


def _function(function: Function) -> dict[str, Any]:
    return {**asdict(function), "label": function.label}


def _configuration(found: Confirmed, place: int, samples: Samples, evidence: Evidence | None) -> dict[str, Any]:
    plan, configuration = found.plan, found.plan.configurations[place]
    review = found.reviews[place]
    return {
        "name": configuration.name,
        "metric": samples.metric.name,
        "conclusion": conclusion(evidence) if evidence else "",
        "comparisons": [_comparison(one, evidence) for one in evidence.comparisons] if evidence else [],
        "summaries": [asdict(summary(samples, label)) for label in samples.values],
        "values": {label: {str(seed): value for seed, value in own.items()} for label, own in samples.values.items()},
        "trained": {label: len(own) for label, own in samples.values.items()},
        "diverged": {label: [seed for seed, v in own.items() if v is None] for label, own in samples.values.items()},
        "dropped": {label: seeds for label, seeds in review.dropped.items() if seeds < plan.looks[-1]},
        "rates": _rates(found, configuration),
        "task_configs": {
            function.label: found.results.chosen(configuration, function.key) for function in plan.functions
        },
    }


def _rates(found: Confirmed, configuration: Configuration) -> dict[str, float]:
    """Return the learning rate that was chosen for each function; empty if they were not tuned."""
    places = {number: place for place, number in enumerate(configuration.task_configs)}
    return {
        function.label: configuration.rates[places[found.results.chosen(configuration, function.key)]]
        for function in found.plan.functions
        if configuration.rates
    }


def _comparison(one: Comparison, evidence: Evidence) -> dict[str, Any]:
    said = {"sentence": sentence(one, evidence), "remarks": list(remarks(one, evidence))}
    return {**asdict(one), **said, "corrected_for": evidence.corrected_for}


def _curse(found: Confirmed) -> dict[str, Any] | None:
    """Return the functions' values in the search beside their means with new seeds, by the search's own metric and
    under the first configuration, which is the search's own."""
    plan = found.plan
    if plan.searched is None:
        return None
    metric, configuration = plan.searched, plan.configurations[0]
    values = {function.label: _values(found, function, configuration, metric.name) for function in plan.functions}
    samples = Samples(metric, values, configuration.name)
    rows: list[dict[str, Any]] = []
    for function in plan.functions:
        now = summary(samples, function.label)
        if function.searched is not None:
            better = None if now.mean is None else metric.merit(now.mean) - metric.merit(function.searched)
            interval = asdict(now.interval) if now.interval else None
            own = {"label": function.label, "name": function.name, "searched": function.searched}
            rows.append({**own, "n": now.n, "mean": now.mean, "interval": interval, "better_by": better})
    changes = [row["better_by"] for row in rows if row["better_by"] is not None and not row["name"]]
    return {
        "metric": metric.name,
        "direction": str(metric.direction),
        "configuration": configuration.name,
        "functions": rows,
        "found": len(changes),
        "mean_better_by": fmean(changes) if changes else None,
    }


def _values(
    found: Confirmed, function: Function, configuration: Configuration, metric: str
) -> Mapping[int, float | None]:
    """Return the values of a metric in the confirmation, by seed."""
    config = found.results.chosen(configuration, function.key)
    return {
        trial.seed: trial.metrics[metric]
        for trial in found.trials
        if (trial.key, trial.task_config) == (function.key, config)
        and trial.seed in found.plan.seeds
        and metric in trial.metrics
        and trial.state is TrialState.COMPLETE
    }


def winner(found: dict[str, Any]) -> dict[str, Any] | None:
    """Return the function that is shown to be better than the reference: under most configurations, and of these the
    one with the greatest difference. If no function is, return the reference, or None before any verdict.

    A function that is shown to be worse under a configuration does not win. `mixed` says that one is better under
    another. `closest` is the function with the greatest difference among those that are nowhere shown to be worse.
    """
    verdicts: dict[str, list[dict[str, Any]]] = {}
    for configuration in found["configurations"]:
        for comparison in configuration["comparisons"]:
            verdicts.setdefault(comparison["function"], []).append(comparison)
    if not verdicts:
        return None
    standing = {
        label: (
            sum(one["verdict"] == Verdict.BETTER for one in own),
            sum(one["difference"] or 0.0 for one in own) / len(own),
        )
        for label, own in verdicts.items()
        if not any(one["verdict"] == Verdict.WORSE for one in own)
    }
    best = max(standing, key=lambda label: standing[label], default="")
    beats = bool(best) and standing[best][0] > 0
    mixed = not beats and any(one["verdict"] == Verdict.BETTER for own in verdicts.values() for one in own)
    chosen = next(one for one in found["functions"] if one["label"] == (best if beats else found["reference"]))
    return {
        "label": chosen["label"],
        "expression": chosen["expression"],
        "key": chosen["key"],
        "name": chosen["name"],
        "beats_reference": beats,
        "mixed": mixed,
        "closest": best,
        "reference": found["reference"],
        "confirmed": beats,
    }
