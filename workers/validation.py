"""Results of workers, checked where they arrive. Standard library only.

A network, a task or a broken machine may give back anything. What no database holds must become a failed trial, and not
an error of the search in the middle of a transaction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

from workers.contract import Epoch, Health, Outcome, Verdict
from workers.text import limited

LARGEST_INTEGER = 2**31 - 1  # as much as an integer of SQL holds, on every database
LARGEST = 1e300  # of losses and seconds: the tables accept no more
DIGEST_LENGTH = 200


def validated(outcome: object) -> Outcome:
    """Return the outcome, its numbers as plain Python numbers, if everything in it can be kept; else a FAILED outcome
    whose reason names the first value that cannot, and what is accepted."""
    if not isinstance(outcome, Outcome):
        return Outcome(Verdict.FAILED, f"the worker returned {_shown(outcome)}, which is not an outcome")
    try:
        return _accepted(outcome)
    except ValueError as error:
        return _failed(outcome, f"the worker's result cannot be kept: {error}")


def received(text: str) -> Outcome:
    """Return the outcome that a worker sent as JSON text; FAILED if the text holds no outcome."""
    try:
        return Outcome.from_json(text)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        return Outcome(Verdict.FAILED, f"the worker's answer cannot be read ({error}): {_shown(text)}")


def _accepted(outcome: Outcome) -> Outcome:
    """Raises ValueError for the first value that cannot be kept."""
    for name, value, kind in (("verdict", outcome.verdict, Verdict), ("health", outcome.health, Health)):
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {_shown(value)}; accepted: {', '.join(kind)}")
    digest = outcome.data_digest
    if not isinstance(digest, str) or len(digest) > DIGEST_LENGTH or not digest.isascii() or not digest.isprintable():
        raise ValueError(f"data_digest is {_shown(digest)}; accepted: at most {DIGEST_LENGTH} characters of ASCII")
    loss, accuracy = _values(outcome)
    parameters = outcome.parameters
    return replace(
        outcome,
        val_loss=loss,
        val_acc=accuracy,
        curve=_curve(outcome.curve),
        parameters=None if parameters is None else _integer("parameters", parameters, 0),
        seconds=_number("seconds", outcome.seconds, 0, LARGEST),
    )


def _values(outcome: Outcome) -> tuple[float | None, float | None]:
    """Return the loss and the accuracy, which an outcome has if and only if it was measured."""
    loss, accuracy = outcome.val_loss, outcome.val_acc
    if outcome.verdict in (Verdict.COMPLETE, Verdict.PRUNED):
        return _number("val_loss", loss, -LARGEST, LARGEST), _number("val_acc", accuracy, 0, 1)
    if loss is not None or accuracy is not None:
        raise ValueError(f"it is {outcome.verdict} and has a val_loss or a val_acc, which only a trained function has")
    return None, None


def _curve(curve: Sequence[Epoch]) -> tuple[Epoch, ...]:
    """The points of epochs 1, 2, 3 and so on, each once."""
    if not isinstance(curve, (tuple, list)):
        raise ValueError(f"the learning curve is {_shown(curve)}; accepted: points of epochs 1, 2, 3 and so on")
    points = []
    for due, point in enumerate(curve, 1):
        if not isinstance(point, Epoch) or _integer("epoch", point.epoch, 1) != due:
            found = point.epoch if isinstance(point, Epoch) else point
            raise ValueError(f"point {due} of the learning curve is of epoch {_shown(found)}; accepted: {due}")
        where = f"of epoch {due}"
        train_loss = _number(f"train_loss {where}", point.train_loss, -LARGEST, LARGEST)
        val_loss = _number(f"val_loss {where}", point.val_loss, -LARGEST, LARGEST)
        points.append(Epoch(due, train_loss, val_loss, _number(f"val_acc {where}", point.val_acc, 0, 1)))
    return tuple(points)


def _number(name: str, value: Any, low: float, high: float) -> float:
    number = math.nan  # which is in no range
    if isinstance(value, Real) and not isinstance(value, bool):
        with suppress(OverflowError):
            number = float(value) + 0.0  # not -0.0, which SQLite does not keep
    if not low <= number <= high:
        raise ValueError(f"{name} is {_shown(value)}; accepted: numbers from {low:g} to {high:g}")
    return number


def _integer(name: str, value: Any, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= LARGEST_INTEGER:
        raise ValueError(f"{name} is {_shown(value)}; accepted: whole numbers from {low} to {LARGEST_INTEGER}")
    return int(value)


def _shown(value: object) -> str:
    try:
        return limited(repr(value), 200)
    except Exception:  # of a person's own class
        return f"a {type(value).__name__}"


def _failed(outcome: Outcome, reason: str) -> Outcome:
    """Keeps of an outcome what is sound. A failure keeps its own reason too."""
    if outcome.verdict is Verdict.FAILED and outcome.reason:
        reason = f"{outcome.reason}\n{reason}"
    try:
        seconds = _number("seconds", outcome.seconds, 0, LARGEST)
    except ValueError:
        seconds = 0.0
    health = outcome.health if isinstance(outcome.health, Health) else Health.SOUND
    return Outcome(Verdict.FAILED, reason, seconds=seconds, worker=outcome.worker, health=health)
