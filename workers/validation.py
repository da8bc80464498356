"""Check the results of workers when they arrive. This needs the standard library only.

A network, a task or a broken machine may return any value. A value that no database accepts must become a failed trial,
and not an error of the search in the middle of a transaction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from numbers import Integral, Real

from workers.contract import Declaration, Health, Learned, Metric, Outcome, Point, Verdict
from workers.text import limited, storable

LARGEST_INTEGER = 2**31 - 1  # the largest SQL integer of every database
LARGEST = 1e300  # the largest absolute value of metrics and seconds that the tables accept
DIGEST_LENGTH = 200
SITE_LENGTH = 1000


def validated(outcome: object, declared: Declaration, objective: str = "") -> Outcome:
    """Return the outcome with plain Python numbers if everything in it can be stored. Otherwise return a FAILED outcome
    whose reason names the first wrong value and what is accepted.

    Args:
        declared: the declaration of the task, with its metrics. `test_` metrics that are not among them are left out.
        objective: a metric that a result must have. The other metrics of the training split may be missing.
    """
    if not isinstance(outcome, Outcome):
        return no_outcome(outcome)
    try:
        return _accepted(outcome, declared, objective)
    except ValueError as error:
        return _failed(outcome, f"the worker's result cannot be kept: {error}")


def no_outcome(value: object) -> Outcome:
    """Return the FAILED outcome of a job whose worker returned `value`, which is not an outcome."""
    return Outcome(Verdict.FAILED, f"the worker returned {_shown(value)}, which is not an outcome")


def received(text: str) -> Outcome:
    """Return the outcome that a worker sent as JSON text; FAILED if the text is not an outcome."""
    try:
        return Outcome.from_json(text)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        return Outcome(Verdict.FAILED, f"the worker's answer cannot be read ({error}): {_shown(text)}")


def _accepted(outcome: Outcome, declared: Declaration, objective: str) -> Outcome:
    """Return the outcome with plain numbers. Raise ValueError for the first value that is not accepted."""
    for name, value, kind in (("verdict", outcome.verdict, Verdict), ("health", outcome.health, Health)):
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {_shown(value)}; accepted: {', '.join(kind)}")
    digest = outcome.data_digest
    if not isinstance(digest, str) or len(digest) > DIGEST_LENGTH or not digest.isascii() or not digest.isprintable():
        raise ValueError(f"data_digest is {_shown(digest)}; accepted: at most {DIGEST_LENGTH} characters of ASCII")
    parameters = outcome.parameters
    seen = replace(outcome, metrics=_without_test(outcome.metrics, declared))
    return replace(
        outcome,
        metrics=_result(seen, declared, objective),
        curve=_curve(outcome.curve, declared),
        learned=_learned(outcome),
        parameters=None if parameters is None else _integer("parameters", parameters, 0),
        seconds=_number("seconds", outcome.seconds, 0, LARGEST),
    )


def _result(outcome: Outcome, declared: Declaration, objective: str) -> dict[str, float]:
    """Return the final values. Raise ValueError if there are some and the verdict is neither COMPLETE nor PRUNED."""
    if outcome.verdict in (Verdict.COMPLETE, Verdict.PRUNED):
        found = checked_metrics(outcome.metrics, declared, "", whole=outcome.verdict is Verdict.COMPLETE)
        if outcome.verdict is Verdict.COMPLETE and objective and objective not in found:
            raise ValueError(f"the metric {objective}, by which the study is ranked, is missing")
        return found
    if outcome.metrics:
        raise ValueError(f"it is {outcome.verdict} and has metrics, which only a trained function has")
    return {}


def checked_metrics(found: object, declared: Declaration, where: str, whole: bool) -> dict[str, float]:
    """Return the values of metrics as plain numbers, in the order in which they are declared.

    Args:
        declared: the declaration of the task.
        where: the place for messages; empty, or beginning with a blank.
        whole: True if only metrics of the training split may be missing.

    Raises:
        ValueError: a value is not accepted; the message names it.
    """
    names = ", ".join(metric.name for metric in declared.metrics)
    if not isinstance(found, Mapping):
        raise ValueError(f"the metrics{where} are {_shown(found)}; accepted: a mapping from {names} to numbers")
    if unknown := [name for name in found if not isinstance(name, str) or declared.metric(name) is None]:
        raise ValueError(f"the metric {_shown(unknown[0])}{where} was not declared; declared: {names}")
    missing = [m.name for m in declared.metrics if m.split != "train" and m.name not in found]
    if missing and whole:
        raise ValueError(f"the metric {missing[0]} is missing{where}; declared: {names}")
    there = [metric for metric in declared.metrics if metric.name in found]
    return {metric.name: _value(metric, found[metric.name], where) for metric in there}


def _value(metric: Metric, value: object, where: str) -> float:
    low, high = (0.0, 1.0) if metric.unit == "fraction" else (-LARGEST, LARGEST)
    return _number(f"{metric.name}{where}", value, low, high)


def _curve(curve: Sequence[Point], declared: Declaration) -> tuple[Point, ...]:
    """Return the points with plain numbers. Raise ValueError if one is wrong, or if the steps do not grow."""
    if not isinstance(curve, (tuple, list)):
        raise ValueError(f"the learning curve is {_shown(curve)}; accepted: points whose steps grow")
    points: list[Point] = []
    for number, point in enumerate(curve, 1):
        if not isinstance(point, Point):
            raise ValueError(f"point {number} of the learning curve is {_shown(point)}; accepted: points")
        least = points[-1].step + 1 if points else 0
        step = _integer(f"the step of point {number} of the learning curve", point.step, least)
        metrics = _without_test(point.metrics, declared)
        points.append(Point(step, checked_metrics(metrics, declared, f" of step {step}", whole=False)))
    return tuple(points)


def _learned(outcome: Outcome) -> tuple[Learned, ...]:
    """Return the learned parameters. Raise ValueError if one cannot be stored."""
    if not isinstance(outcome.learned, (tuple, list)):
        raise ValueError(f"the learned parameters are {_shown(outcome.learned)}; accepted: a list of records")
    return tuple(map(_checked, outcome.learned))


def _checked(found: object) -> Learned:
    if not isinstance(found, Learned) or not isinstance(found.values, (tuple, list)):
        raise ValueError(f"a learned parameter is {_shown(found)}; accepted: records with a tuple of values")
    if not isinstance(found.site, str) or not isinstance(found.parameter, str):
        raise ValueError(f"a learned parameter is named {_shown((found.site, found.parameter))}; accepted: texts")
    name = f"the learned {limited(found.parameter, 100)} of {limited(found.site, 200)}"
    numbers = ("mean", "deviation", "minimum", "lower_quartile", "median", "upper_quartile", "maximum")
    return replace(
        found,
        site=limited(storable(found.site), SITE_LENGTH),
        parameter=limited(storable(found.parameter), SITE_LENGTH),
        channels=_integer(f"the number of channels of {name}", found.channels, 1),
        dim=_integer(f"the dimension of {name}", found.dim, -LARGEST_INTEGER),
        **{one: _number(f"{one} of {name}", getattr(found, one), -LARGEST, LARGEST) for one in numbers},
        values=tuple(_number(f"a value of {name}", value, -LARGEST, LARGEST) for value in found.values),
    )


def _without_test(metrics: Mapping[str, float], declared: Declaration) -> Mapping[str, float]:
    """Return the metrics without those of the test part that are not declared: a worker measures them, and a search
    must not see them."""
    if not isinstance(metrics, Mapping):
        return metrics
    known = {metric.name for metric in declared.metrics}
    return {n: v for n, v in metrics.items() if n in known or not (isinstance(n, str) and n.startswith("test_"))}


def _number(name: str, value: object, low: float, high: float) -> float:
    number = math.nan  # NaN is in no range
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            number = float(value) + 0.0  # not -0.0, which SQLite stores as 0.0
    if not low <= number <= high:
        raise ValueError(f"{name} is {_shown(value)}; accepted: numbers from {low:g} to {high:g}")
    return number


def _integer(name: str, value: object, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= LARGEST_INTEGER:
        raise ValueError(f"{name} is {_shown(value)}; accepted: whole numbers from {low} to {LARGEST_INTEGER}")
    return int(value)


def _shown(value: object) -> str:
    try:
        return limited(repr(value), 200)
    except Exception:  # repr of a user's own class may raise anything
        return f"a {type(value).__name__}"


def _failed(outcome: Outcome, reason: str) -> Outcome:
    """Return a FAILED outcome with the reason, and the seconds and the health of `outcome` if these are valid. If it
    FAILED already, its own reason comes first."""
    if outcome.verdict is Verdict.FAILED and outcome.reason:
        reason = f"{outcome.reason}\n{reason}"
    try:
        seconds = _number("seconds", outcome.seconds, 0, LARGEST)
    except ValueError:
        seconds = 0.0
    health = outcome.health if isinstance(outcome.health, Health) else Health.SOUND
    return Outcome(Verdict.FAILED, reason, seconds=seconds, worker=outcome.worker, health=health)
