"""Training more seeds until every comparison is decided."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
import pytest

from searcher.evidence import Comparison, EvidenceError, Plan, Review, Samples, Verdict, compare, review
from searcher.evidence.sequential import Looks
from searcher.evidence.significance import holm_corrected
from workers.contract import Direction, Metric

ACC = Metric("test_acc", Direction.MAXIMIZE, "fraction")
SEEDS = tuple(range(100, 140))
PLAN = Plan(ACC, ("good", "bad", "same"), "relu", SEEDS)

# Values of four functions with 40 seeds. "good" is a little better than relu, "bad" a lot worse.
NOISE = np.random.default_rng(5).normal(0, 0.01, (4, 40))
ADVANTAGES = {"good": 0.012, "bad": -0.2, "same": 0.0, "relu": 0.0}


def table(seeds: int = 40, **advantages: float) -> dict[str, dict[int, float | None]]:
    """Return the values of the first seeds."""
    gains = {**ADVANTAGES, **advantages}
    return {
        name: {SEEDS[i]: float(0.8 + gain + NOISE[row, i]) for i in range(seeds)}
        for row, (name, gain) in enumerate(gains.items())
    }


def reviewed(values: Mapping[str, Mapping[int, float | None]], plan: Plan = PLAN) -> Review:
    return review(plan, Samples(ACC, values))


def found(state: Review, function: str) -> Comparison:
    assert state.evidence
    return next(one for one in state.evidence.comparisons if one.function == function)


def test_the_first_look_waits_for_all_functions() -> None:
    state = reviewed({})
    assert (state.looks, state.seeds, state.evidence, state.finished) == (0, 0, None, False)
    assert state.needed[:5] == (("good", 100), ("bad", 100), ("same", 100), ("relu", 100), ("good", 101))
    assert len(state.needed) == 4 * 5
    values = table(5)
    del values["relu"][102]
    assert reviewed(values).needed == (("relu", 102),)


def test_a_beaten_function_is_trained_no_further() -> None:
    state = reviewed(table(5))
    assert (state.looks, state.seeds, dict(state.dropped)) == (1, 5, {"bad": 5})
    assert found(state, "bad").verdict is Verdict.WORSE
    assert {function for function, _ in state.needed} == {"good", "same", "relu"}
    assert len(state.needed) == 3 * 5
    assert found(reviewed(table()), "bad").n == 5, "values that the rule did not ask for are left out"


def test_a_study_driven_by_the_rule_ends_and_repeats_nothing() -> None:
    everything, values, trained = table(), {name: {} for name in ADVANTAGES}, list[tuple[str, int]]()
    while needed := reviewed(values).needed:
        function, seed = needed[0]
        values[function][seed] = everything[function][seed]
        trained.append(needed[0])
    assert len(trained) == len(set(trained)) < PLAN.most_trainings == 160
    end = reviewed(values)
    assert json.loads(json.dumps(asdict(end), allow_nan=False))["dropped"] == {"bad": 5}
    assert end.finished and end.looks == 4 and end.seeds == 40
    assert end == reviewed(everything), "what is known beyond does not matter"
    assert [found(end, name).verdict for name in PLAN.functions] == [
        Verdict.BETTER,
        Verdict.WORSE,
        Verdict.UNDECIDED,
    ]
    assert found(end, "good").n == 40, "a function that is shown better goes on beside those that are undecided"


def test_a_study_ends_when_all_is_decided() -> None:
    state = reviewed(table(good=0.2, same=-0.2))
    assert (state.finished, state.looks, state.seeds) == (True, 1, 5)
    assert dict(state.dropped) == {"bad": 5, "same": 5}


def test_a_function_shown_equivalent_is_trained_no_further() -> None:
    plan = replace(PLAN, rope=0.1)
    state = reviewed(table(5), plan)
    assert state.finished and dict(state.dropped) == {"good": 5, "bad": 5, "same": 5}
    assert found(state, "same").verdict is Verdict.EQUIVALENT


def test_the_p_value_is_the_least_of_the_looks_times_their_number() -> None:
    values = table()
    state = reviewed(values)
    at_looks = []
    for seeds in (5, 10, 20, 40):
        first = {name: {seed: own[seed] for seed in SEEDS[:seeds]} for name, own in values.items()}
        at_looks.append(next(c.p for c in compare(Samples(ACC, first), "relu").comparisons if c.function == "good"))
    good, bad, same = (found(state, name) for name in PLAN.functions)
    assert good.p == pytest.approx(4 * min(at_looks))
    assert good.p_holm == pytest.approx(max(2 * good.p, 3 * bad.p)), "the dropped function counts among the three"
    assert same.p_holm == pytest.approx(min(1.0, max(same.p, good.p_holm)))


def test_functions_that_were_dropped_still_count_in_the_correction() -> None:
    """Two are dropped as equivalent. The third has p = 0.0078 after ten seeds: enough for four looks, but not for three
    functions too."""
    values = table(10)
    for i, seed in enumerate(SEEDS[:10]):
        reference = values["relu"][seed]
        assert reference is not None
        values["bad"][seed] = values["same"][seed] = reference + 0.001 * (i % 3)
        values["good"][seed] = reference + 0.3 + (0.265 if i % 2 else -0.265)
    state = reviewed(values, replace(PLAN, rope=0.1))
    assert dict(state.dropped) == {"bad": 5, "same": 5} and state.seeds == 10
    good = found(state, "good")
    assert good.p < 0.05 < good.p_holm and not state.finished


def test_intervals_hold_at_whatever_look_a_study_ends() -> None:
    good = found(reviewed(table()), "good")
    assert good.interval and good.interval.level == pytest.approx(1 - 0.05 / 4)


def test_a_function_that_turns_round_is_neither_better_nor_worse() -> None:
    """It is surely better with the first five seeds, and mostly worse with the others."""
    values = table()
    for i, seed in enumerate(SEEDS):
        reference = values["relu"][seed]
        assert reference is not None
        values["good"][seed] = reference + (0.2 + 1e-6 * i if i < 5 else -0.5 - 0.3 * (i % 3))
    first, end = reviewed({name: dict(list(own.items())[:5]) for name, own in values.items()}), reviewed(values)
    assert found(first, "good").verdict is Verdict.BETTER
    good = found(end, "good")
    assert good.difference and good.difference < 0 and good.p < 1e-9
    assert good.verdict is Verdict.UNDECIDED


def test_a_look_does_not_wait_for_trainings_that_failed() -> None:
    values = table(5)
    del values["good"][101], values["relu"][103]
    samples = Samples(ACC, values)
    assert set(review(PLAN, samples).needed) == {("good", 101), ("relu", 103)}
    state = review(PLAN, samples, {("good", 101), ("relu", 103)})
    assert state.looks == 1
    assert (found(state, "good").n, found(state, "same").n) == (3, 4)


def test_a_diverged_training_is_a_result() -> None:
    values = table(10)
    values["same"] = dict.fromkeys(SEEDS[:10], None)
    state = reviewed(values)
    assert state.looks == 2 and found(state, "same").verdict is Verdict.WORSE
    assert found(state, "same").superiority and found(state, "same").diverged == 10


def test_a_plan_is_kept_as_json_with_its_rule() -> None:
    plan = replace(PLAN, rope=None)
    text = json.dumps(plan.to_plain())
    assert Plan.from_plain(json.loads(text)) == plan
    assert plan.rope == 0.005, "the default of the unit is stated beforehand"
    assert json.loads(text)["rule"] == plan.rule
    assert plan.rule == (
        "Look at test_acc after 5, 10, 20 and 40 seeds. At each look, compare every function that is still trained "
        "with relu on the same seeds: by the paired t test, or by the sign test where one diverged and the other did "
        "not. Multiply the least p-value of each function so far by 4, the number of looks, and correct by Holm's "
        "method for all functions that began (3). A function is shown better or worse or equivalent to it within "
        "±0.005 (two one-sided tests) if that is at most 0.05. A function shown worse or equivalent is trained no "
        "further. The study ends when every function is decided, or after 40 seeds."
    )
    unit_free = replace(PLAN, metric=Metric("test_mse", Direction.MINIMIZE), rope=None)
    assert unit_free.rope is None and "equivalent" not in unit_free.rule
    assert Plan.from_plain(json.loads(json.dumps(unit_free.to_plain()))) == unit_free


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"looks": ()}, "looks are .*: give ascending numbers of seeds, the first one 2 or more"),
        ({"looks": (1, 5)}, "the first one 2 or more"),
        ({"looks": (5, 5)}, "give ascending numbers"),
        ({"seeds": tuple(range(39))}, "there are 39 distinct seeds: the last look needs 40"),
        ({"seeds": (1,) * 40}, "there are 1 distinct seeds"),
        ({"functions": ()}, "give each function once, at least one"),
        ({"functions": ("a", "a")}, "give each function once"),
        ({"reference": "bad"}, "a reference that is none of them"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        replace(PLAN, **fields)  # type: ignore[arg-type]


def test_dropping_does_not_raise_the_probability_of_an_error() -> None:
    """400 studies in which one function of three is far worse, so that it is dropped, and two do not differ. At most
    5 % and two standard errors of them may be wrong; benchmarks/evidence.py has more."""
    rng, wrong, dropped = np.random.default_rng(0), 0, 0
    plan = replace(PLAN, metric=Metric("test_score", Direction.MAXIMIZE), looks=(3, 6, 12), rope=None)
    for _ in range(400):
        rows = rng.normal(size=(4, 12)) - [[0], [5], [0], [0]]
        values = {
            name: dict(zip(SEEDS, map(float, row), strict=False)) for name, row in zip(ADVANTAGES, rows, strict=True)
        }
        looks = Looks(plan, Samples(plan.metric, values))
        assert not looks.take()
        corrected = holm_corrected(looks.over_looks())
        dropped += looks.counts["bad"] < 12
        wrong += min(corrected[name].difference for name in ("good", "same")) <= 0.05
    assert dropped > 300
    assert wrong <= 400 * 0.05 + 2 * (400 * 0.05 * 0.95) ** 0.5
