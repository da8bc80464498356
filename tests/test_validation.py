"""Results of workers are checked where they arrive: what no database holds fails its trial, and nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from searcher.driver import session
from searcher.records import Objective, Trial, TrialState
from searcher.samplers.contract import observation_of
from searcher.store.store import Store
from workers.contract import Epoch, Health, Job, Outcome, Verdict
from workers.pools.base import InlinePool, guarded
from workers.validation import received, validated

from .test_search import SETTINGS, judge, run
from .test_workers import QUICK

GOOD = Outcome(
    Verdict.COMPLETE,
    val_loss=0.5,
    val_acc=0.5,
    curve=(Epoch(1, 2.0, 1.0, 0.2), Epoch(2, 1.0, 0.5, 0.5)),
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
    "a loss that is NaN": ({"val_loss": math.nan}, "val_loss is nan; accepted: numbers from -1e+300 to 1e+300"),
    "an infinite loss": ({"val_loss": math.inf}, "val_loss is inf"),
    "a huge loss": ({"val_loss": 1e301}, "val_loss is 1e+301"),
    "a huge whole loss": ({"val_loss": 10**400}, "val_loss is 1000"),
    "no loss": ({"val_loss": None}, "val_loss is None"),
    "a loss in words": ({"val_loss": "0.5"}, "val_loss is '0.5'"),
    "accuracy 2": ({"val_acc": 2.0}, "val_acc is 2.0; accepted: numbers from 0 to 1"),
    "an accuracy in percent": ({"val_acc": 93}, "val_acc is 93"),
    "an accuracy below 0": ({"val_acc": -0.1}, "val_acc is -0.1"),
    "an accuracy that is NaN": ({"val_acc": math.nan}, "val_acc is nan"),
    "an array": ({"val_acc": np.array([0.1, 0.2])}, "val_acc is array([0.1, 0.2])"),
    "negative seconds": ({"seconds": -1.0}, "seconds is -1.0"),
    "seconds that are NaN": ({"seconds": math.nan}, "seconds is nan"),
    "a missing point": ({"curve": (FIRST, replace(SECOND, epoch=3))}, "point 2 of the learning curve is of epoch 3"),
    "a doubled point": ({"curve": (FIRST, FIRST)}, "point 2 of the learning curve is of epoch 1; accepted: 2"),
    "points in another order": ({"curve": (SECOND, FIRST)}, "point 1 of the learning curve is of epoch 2"),
    "a point before the first": ({"curve": (replace(FIRST, epoch=0),)}, "epoch is 0"),
    "a point with NaN": ({"curve": (replace(FIRST, train_loss=math.nan),)}, "train_loss of epoch 1 is nan"),
    "a point with accuracy 2": ({"curve": (replace(FIRST, val_acc=2),)}, "val_acc of epoch 1 is 2"),
    "a point with text": ({"curve": (replace(FIRST, val_loss="x"),)}, "val_loss of epoch 1 is 'x'"),
    "a point that is none": ({"curve": ([1, 2.0, 1.0, 0.5],)}, "point 1 of the learning curve"),
    "no curve": ({"curve": "abc"}, "the learning curve is 'abc'"),
    "another verdict": ({"verdict": "COMPLETE"}, "verdict is 'COMPLETE'"),
    "another health": ({"health": None}, "health is None"),
    "a digest that is none": ({"data_digest": 7}, "data_digest is 7"),
    "a digest of a page": ({"data_digest": "d" * 5000}, "data_digest is 'ddd"),
    "a digest with NUL": ({"data_digest": "d\0"}, "data_digest is"),
    "infeasible with a loss": ({"verdict": Verdict.INFEASIBLE}, "INFEASIBLE and has a val_loss"),
}


def test_a_good_outcome_stays_as_it_is() -> None:
    assert validated(GOOD) == GOOD
    assert validated(replace(GOOD, val_loss=-0.0)).val_loss == 0.0
    failed = Outcome(Verdict.FAILED, "why", health=Health.LOST)
    assert validated(failed) == failed
    scalars = replace(
        GOOD, val_loss=np.float32(0.5), val_acc=np.float64(0.5), parameters=np.int64(10), curve=list(GOOD.curve)
    )
    kept = validated(scalars)
    assert kept == GOOD and {type(kept.val_loss), type(kept.parameters)} == {float, int}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_kept_is_a_failure_that_names_it(what: str) -> None:
    """Row R6: numbers, ranges, types, curves, texts."""
    changes, reason = BAD[what]
    found = validated(replace(GOOD, **changes))
    assert found.verdict is Verdict.FAILED and (found.val_loss, found.curve, found.parameters) == (None, (), None)
    assert found.reason.startswith("the worker's result cannot be kept: ") and reason in found.reason
    assert len(found.reason) < 500 and found.worker == "host:1" and 0 <= found.seconds < 2
    json.loads(found.to_json())


@pytest.mark.parametrize("given", [None, "text", 1.0, {"verdict": "COMPLETE"}, object()])
def test_what_is_no_outcome_is_a_failure(given: object) -> None:
    """Row R6: whatever a pool gives back."""
    assert "which is not an outcome" in validated(given).reason
    assert "which is not an outcome" in guarded(lambda _: given, QUICK).reason  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"verdict": "GREAT", "curve": []}', '{"curve": [1]}', "[" * 100_000, "\ud800"]
)
def test_an_answer_that_cannot_be_read_is_a_failure(text: str) -> None:
    """Row R6: over Ray results come as JSON text."""
    assert received(text).verdict is Verdict.FAILED and "cannot be read" in received(text).reason
    assert received(GOOD.to_json()) == GOOD
    strange = json.loads(GOOD.to_json()) | {"val_acc": "2", "parameters": [1]}
    assert validated(received(json.dumps(strange))).verdict is Verdict.FAILED
    assert received(json.dumps(strange | {"reason": 7})).verdict is Verdict.FAILED


@pytest.mark.parametrize("retries", [0, 1])
def test_a_search_goes_on_after_results_that_cannot_be_kept(database_url: str, retries: int) -> None:
    """Row R6: that trial is FAILED with the reason, after its retries; the study ends with all the others."""
    cases = [*BAD.values()]

    def child(job: Job) -> Outcome:
        if job.number in (0, len(cases) + 1) or job.number > len(cases):
            return replace(judge(job), verdict=Verdict.COMPLETE, val_loss=0.5, val_acc=0.5)
        changes, _ = cases[job.number - 1]
        return replace(GOOD, **{name: value for name, value in changes.items() if name != "seconds"} or {"val_acc": 2})

    store = Store(database_url, create=True)
    settings = replace(SETTINGS, n_trials=len(cases) + 10, max_retries=retries, preflight=False, units=2)
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
    trial = Trial(0, "candidate", "x", "k", 0, state=TrialState.COMPLETE, val_loss=loss, val_acc=0.5)  # type: ignore[arg-type]
    assert 0 <= observation_of(trial, Objective.VAL_LOSS).reward <= 1
