"""Results of workers are checked where they arrive: what no database holds fails its trial, and nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from searcher.driver import session
from searcher.records import Kind, Trial, TrialState
from searcher.samplers.contract import Rewards, observation_of
from searcher.store.store import Store
from tests.support.made import image_task, measures, point, result
from tests.support.pools import QUICK
from tests.support.searches import SETTINGS, judge, run
from workers.contract import Health, Job, Outcome, Point, Verdict
from workers.pools.base import InlinePool, guarded
from workers.tasks.images.config import DECLARATION
from workers.validation import received, validated

GOOD = Outcome(
    Verdict.COMPLETE,
    metrics=measures(0.5),
    curve=(point(1, 2.0, 1.0, 0.2), point(2, 1.0, 0.5, 0.5)),
    parameters=10,
    seconds=1.0,
    worker="host:1",
)
FIRST, SECOND = GOOD.curve

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "3 billion parameters": ({"parameters": 3 * 10**9}, "parameters is 3000000000; accepted: whole numbers from 0 to"),
    "parameters below zero": ({"parameters": -1}, "parameters is -1"),
    "half a parameter": ({"parameters": 1.5}, "parameters is 1.5"),
    "parameters true": ({"parameters": True}, "parameters is True"),
    "a loss that is NaN": (
        {"metrics": {**measures(0.5), "val_loss": math.nan}},
        "val_loss is nan; accepted: numbers from -1e+300 to 1e+300",
    ),
    "an infinite loss": ({"metrics": {**measures(0.5), "val_loss": math.inf}}, "val_loss is inf"),
    "a huge loss": ({"metrics": {**measures(0.5), "val_loss": 1e301}}, "val_loss is 1e+301"),
    "a huge whole loss": ({"metrics": {**measures(0.5), "val_loss": 10**400}}, "val_loss is 1000"),
    "a metric too few": (
        {"metrics": {"val_loss": 0.5}},
        "the metric val_acc is missing; declared: train_loss, val_loss",
    ),
    "a metric too many": ({"metrics": {**measures(0.5), "val_mse": 1}}, "the metric 'val_mse' was not declared"),
    "no names": ({"metrics": [0.5, 0.5]}, "the metrics are [0.5, 0.5]; accepted: a mapping from train_loss, val_loss"),
    "no loss": ({"metrics": {**measures(0.5), "val_loss": None}}, "val_loss is None"),
    "a loss in words": ({"metrics": {**measures(0.5), "val_loss": "0.5"}}, "val_loss is '0.5'"),
    "accuracy 2": ({"metrics": {**measures(0.5), "val_acc": 2.0}}, "val_acc is 2.0; accepted: numbers from 0 to 1"),
    "an accuracy in percent": ({"metrics": {**measures(0.5), "val_acc": 93}}, "val_acc is 93"),
    "an accuracy below 0": ({"metrics": {**measures(0.5), "val_acc": -0.1}}, "val_acc is -0.1"),
    "an accuracy that is NaN": ({"metrics": {**measures(0.5), "val_acc": math.nan}}, "val_acc is nan"),
    "an array": ({"metrics": {**measures(0.5), "val_acc": np.array([0.1, 0.2])}}, "val_acc is array([0.1, 0.2])"),
    "negative seconds": ({"seconds": -1.0}, "seconds is -1.0"),
    "seconds that are NaN": ({"seconds": math.nan}, "seconds is nan"),
    "a doubled point": (
        {"curve": (FIRST, FIRST)},
        "the step of point 2 of the learning curve is 1; accepted: whole numbers from 2",
    ),
    "points in another order": ({"curve": (SECOND, FIRST)}, "the step of point 2 of the learning curve is 1"),
    "a point before the first": (
        {"curve": (replace(FIRST, step=-1),)},
        "the step of point 1 of the learning curve is -1",
    ),
    "a step that is no number": (
        {"curve": (replace(FIRST, step="1"),)},
        "the step of point 1 of the learning curve is '1'",
    ),
    "a point with NaN": ({"curve": (point(1, math.nan, 1, 0.5),)}, "train_loss of step 1 is nan"),
    "a point with accuracy 2": ({"curve": (point(1, 1, 1, 2),)}, "val_acc of step 1 is 2"),
    "a point with text": ({"curve": (point(1, 1, "x", 0.5),)}, "val_loss of step 1 is 'x'"),  # type: ignore[arg-type]
    "a point with another metric": ({"curve": (Point(1, {"val_mse": 1.0}),)}, "'val_mse' of step 1 was not declared"),
    "a point that is none": ({"curve": ([1, 2.0, 1.0, 0.5],)}, "point 1 of the learning curve"),
    "no curve": ({"curve": "abc"}, "the learning curve is 'abc'"),
    "another verdict": ({"verdict": "COMPLETE"}, "verdict is 'COMPLETE'"),
    "another health": ({"health": None}, "health is None"),
    "a digest that is none": ({"data_digest": 7}, "data_digest is 7"),
    "a digest of a page": ({"data_digest": "d" * 5000}, "data_digest is 'ddd"),
    "a digest with NUL": ({"data_digest": "d\0"}, "data_digest is"),
    "infeasible with a loss": ({"verdict": Verdict.INFEASIBLE}, "INFEASIBLE and has metrics"),
}


def validated_image(outcome: object) -> Outcome:
    return validated(outcome, DECLARATION)


def test_a_good_outcome_stays_as_it_is() -> None:
    assert validated_image(GOOD) == GOOD
    assert validated_image(replace(GOOD, metrics=measures(-0.0))).metrics["val_loss"] == 0.0
    failed = Outcome(Verdict.FAILED, "why", health=Health.LOST)
    assert validated_image(failed) == failed
    scalars = replace(
        GOOD, metrics=measures(np.float32(0.5), np.float64(0.5)), parameters=np.int64(10), curve=list(GOOD.curve)
    )
    kept = validated_image(scalars)
    assert kept == GOOD and {type(kept.metrics["val_loss"]), type(kept.parameters)} == {float, int}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_kept_is_a_failure_that_names_it(what: str) -> None:
    """Row R6: numbers, ranges, types, curves, texts."""
    changes, reason = BAD[what]
    found = validated_image(replace(GOOD, **changes))
    assert found.verdict is Verdict.FAILED and (found.metrics, found.curve, found.parameters) == ({}, (), None)
    assert found.reason.startswith("the worker's result cannot be kept: ") and reason in found.reason
    assert len(found.reason) < 500 and found.worker == "host:1" and 0 <= found.seconds < 2
    json.loads(found.to_json())


@pytest.mark.parametrize("given", [None, "text", 1.0, {"verdict": "COMPLETE"}, object()])
def test_what_is_no_outcome_is_a_failure(given: object) -> None:
    """Row R6: whatever a pool gives back."""
    assert "which is not an outcome" in validated_image(given).reason
    assert "which is not an outcome" in guarded(lambda _: given, QUICK).reason  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"verdict": "GREAT", "curve": []}', '{"curve": [1]}', "[" * 100_000, "\ud800"]
)
def test_an_answer_that_cannot_be_read_is_a_failure(text: str) -> None:
    """Row R6: over Ray results come as JSON text."""
    assert received(text).verdict is Verdict.FAILED and "cannot be read" in received(text).reason
    assert received(GOOD.to_json()) == GOOD
    strange = json.loads(GOOD.to_json()) | {"metrics": {"val_acc": "2"}, "parameters": [1]}
    assert validated_image(received(json.dumps(strange))).verdict is Verdict.FAILED
    assert received(json.dumps(strange | {"reason": 7})).verdict is Verdict.FAILED


@pytest.mark.parametrize("retries", [0, 1])
def test_a_search_goes_on_after_results_that_cannot_be_kept(database_url: str, retries: int) -> None:
    """Row R6: that trial is FAILED with the reason, after its retries; the study ends with all the others."""
    cases = [*BAD.values()]

    def child(job: Job) -> Outcome:
        if job.number in (0, len(cases) + 1) or job.number > len(cases):
            return replace(judge(job), verdict=Verdict.COMPLETE, metrics=measures(0.5))
        changes, _ = cases[job.number - 1]
        return replace(
            GOOD, **{name: value for name, value in changes.items() if name != "seconds"} or {"metrics": measures(2, 2)}
        )

    store = Store(database_url, create=True)
    settings = SETTINGS.replace(n_trials=len(cases) + 10, max_retries=retries, preflight=False, units=2)
    study = session.create_study(store, settings)
    run(store, study, settings, InlinePool(run=child))
    trials = store.trials(study)
    assert [trial.number for trial in trials] == list(range(len(cases) + 10))
    assert all(trial.state.finished for trial in trials)
    trained = [trial for trial in trials if trial.cites is None]
    assert {t.state for t in trained if t.number > len(cases)} == {TrialState.COMPLETE}
    failed = [trial for trial in trained if 0 < trial.number <= len(cases)]
    assert len(failed) > len(cases) / 2
    for trial in failed:
        assert trial.state is TrialState.FAILED and trial.retries == retries, trial
        assert trial.reason.startswith("the worker's result cannot be kept: ")
    store.close()


@pytest.mark.parametrize("loss", [-1e300, -1.0, 0.0, 1e300])
def test_a_reward_is_in_its_range_for_any_loss(loss: float) -> None:
    """Row R6: a loss that the tables accept does not end the search in the sampler."""
    trial = result(Trial(0, Kind.CANDIDATE, "x", "k", 0), loss)
    assert 0 <= Rewards().of(observation_of(trial, image_task().objective)) <= 1
