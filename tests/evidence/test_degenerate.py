"""Input that says little or nothing: one clear error, or a result that says what it cannot tell."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pytest

from searcher.evidence import (
    Comparison,
    Evidence,
    EvidenceError,
    Plan,
    Samples,
    Verdict,
    across,
    compare,
    power,
    ranked,
    remarks,
    sentence,
)
from searcher.evidence.significance import permutation_test
from workers.contract import Direction, Metric

ACC = Metric("test_acc", Direction.MAXIMIZE, "fraction")


def samples(**values: Sequence[float | None]) -> Samples:
    return Samples(ACC, {name: dict(enumerate(found)) for name, found in values.items()})


def one(own: Sequence[float | None], relu: Sequence[float | None]) -> tuple[Comparison, Evidence]:
    evidence = compare(samples(f=own, relu=relu), "relu")
    (found,) = evidence.comparisons
    json.dumps(asdict(evidence), allow_nan=False)
    assert sentence(found, evidence).endswith(".")
    return found, evidence


# What is known, with the values of f and of relu; then the verdict, the test, p, and a part of a remark.
UP: list[float | None] = [0.5, 0.53, 0.51, 0.54, 0.52, 0.55]
CASES: Mapping[str, tuple[list[float | None], list[float | None], Verdict, str, float, str]] = {
    "one seed": ([0.9], [0.5], Verdict.UNDECIDED, "sign test", 1.0, "One seed says nothing about noise"),
    "two seeds, alike": ([0.9, 0.9], [0.5, 0.5], Verdict.UNDECIDED, "sign test", 0.5, "noise is not known"),
    "two seeds": ([0.9, 0.8], [0.5, 0.6], Verdict.UNDECIDED, "paired t test", 0.2048, "cannot be significant"),
    "five equal": ([0.5] * 5, [0.5] * 5, Verdict.EQUIVALENT, "sign test", 1.0, "the same on every seed"),
    "four equal": ([0.5] * 4, [0.5] * 4, Verdict.UNDECIDED, "sign test", 1.0, "the same on every seed"),
    "constant gain of five": ([0.6] * 5, [0.5] * 5, Verdict.UNDECIDED, "sign test", 0.0625, "the same on every seed"),
    "constant gain of six": ([0.6] * 6, [0.5] * 6, Verdict.BETTER, "sign test", 0.03125, "the same on every seed"),
    "gain that varies by rounding": (
        [(u or 0) + 0.1 for u in UP],
        UP,
        Verdict.BETTER,
        "sign test",
        0.03125,
        "the same on every seed",
    ),
    "all diverged": ([None] * 6, UP, Verdict.WORSE, "sign test", 0.03125, "f alone diverged on 6 of 6 seeds"),
    "reference diverged": (UP, [None] * 6, Verdict.BETTER, "sign test", 0.03125, "relu alone diverged on 6 of 6"),
    "both diverged": ([None] * 6, [None] * 6, Verdict.UNDECIDED, "sign test", 1.0, "Both diverged on 6 of 6"),
    "diverged once, better else": (
        [None, 0.93, 0.91, 0.94, 0.92, 0.95],
        UP,
        Verdict.UNDECIDED,
        "sign test",
        0.21875,
        "The mean difference is of the 5 seeds on which both finished",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_little_evidence_is_called_that(case: str) -> None:
    own, relu, verdict, test, p, remark = CASES[case]
    found, evidence = one(own, relu)
    assert (found.verdict, found.test, found.p) == (verdict, test, pytest.approx(p, abs=5e-5))
    assert any(remark in text for text in remarks(found, evidence)), remarks(found, evidence)
    other = compare(samples(f=own, relu=relu), "f").comparisons[0]
    opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    assert other.verdict is opposite.get(verdict, verdict) and other.p == pytest.approx(p, abs=5e-5)


def test_without_common_seeds_nothing_is_told() -> None:
    values = {"f": {0: 0.5, 1: 0.6}, "relu": {2: 0.5, 3: 0.6}}
    evidence = compare(Samples(ACC, values), "relu")
    (found,) = evidence.comparisons
    assert (found.n, found.pairs, found.difference, found.superiority, found.p_holm) == (0, 0, None, None, 1.0)
    assert found.verdict is Verdict.UNDECIDED
    assert sentence(found, evidence) == "It is undecided whether f or relu is better: they have no seeds in common."
    assert "train both with the same seeds" in " ".join(remarks(found, evidence))


def test_a_diverged_training_is_never_dropped() -> None:
    """The function is much better wherever it trains, but diverges on four seeds of ten."""
    reference: list[float | None] = [0.5 + 0.01 * (i % 3) for i in range(10)]
    own = [None if i < 4 else 0.9 + 0.001 * i for i in range(10)]
    found, evidence = one(own, reference)
    assert (found.n, found.pairs, found.diverged) == (10, 6, 4)
    assert found.p_t is not None and found.p_t < 1e-6, "the t test of what is left would be sure"
    assert found.verdict is Verdict.UNDECIDED
    assert found.superiority and found.superiority.probability == 0.6
    assert found.equivalence and found.equivalence.p == 1.0 and found.within is None
    assert "f alone diverged on 4 of 10 seeds, and loses there." in remarks(found, evidence)


def test_a_seed_that_was_not_trained_is_no_loss() -> None:
    values = {"f": {0: 0.6, 1: 0.7}, "relu": {0: 0.5, 1: 0.5, 2: 0.9}}
    (found,) = compare(Samples(ACC, values), "relu").comparisons
    assert (found.n, found.diverged) == (2, 0) and found.superiority and found.superiority.probability == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e101])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(EvidenceError, match=r"test_acc of f with seed 1 is .*: give a finite number up to 1e\+100, or"):
        samples(f=[0.5, value], relu=[0.5, 0.5])


def test_the_greatest_numbers_are_worked_with() -> None:
    found, _ = one([1e100, -1e100, 9e99, 1e99, 3e99], [-1e100, 1e100, 1e99, 1e98, 0.0])
    assert found.interval and math.isfinite(found.interval.high)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("gelu", "the reference 'gelu' was not trained; choose among: f, empty, relu"),
        ("empty", "the reference 'empty' was not trained"),
    ],
)
def test_a_reference_that_was_not_trained_is_named(reference: str, message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        compare(samples(f=[0.5], empty=[], relu=[0.5]), reference)


def test_a_reference_alone_is_refused() -> None:
    with pytest.raises(EvidenceError, match="there is no function beside the reference 'relu'"):
        compare(samples(relu=[0.5, 0.6]), "relu")
    with pytest.raises(EvidenceError, match="choose among: no function"):
        compare(samples(), "relu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0: give a number between 0 and 1"),
        ({"alpha": 1.5}, "alpha is 1.5: give a number between 0 and 1"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"rope": 0.0}, "rope is 0.0: give a number above 0"),
        ({"rope": math.inf}, "rope is inf: give a number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    values = samples(f=[0.5, 0.6], relu=[0.5, 0.7])
    with pytest.raises(EvidenceError, match=message):
        compare(values, "relu", **arguments)
    with pytest.raises(EvidenceError, match=message):
        across([values], "relu", **arguments)
    with pytest.raises(EvidenceError, match=message):
        Plan(ACC, ("f",), "relu", tuple(range(40)), **arguments)  # type: ignore[arg-type]


def test_ties_everywhere_say_nothing() -> None:
    """Accuracies of few images: most differences are 0, some are one image."""
    found, _ = one([0.5, 0.51, 0.5, 0.5, 0.49, 0.5], [0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert found.superiority and found.superiority.probability == 0.5 and not found.superiority.significant
    assert found.p == 1.0 and found.p_permutation == 1.0


def test_a_unit_without_a_default_has_no_margin() -> None:
    metric = Metric("test_mse", Direction.MINIMIZE)
    (found,) = compare(Samples(metric, {"f": {0: 1.0, 1: 2.0}, "relu": {0: 1.5, 1: 2.25}}), "relu").comparisons
    assert found.equivalence is None and found.within is not None


def test_two_values_have_the_least_p_value_of_a_permutation_test() -> None:
    assert permutation_test([0.1, 0.2]) == (0.5, True)
    p, exact = permutation_test([0.1 + 0.01 * i for i in range(16)])
    assert p <= 2 / 9999 and not exact


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_seeds_detect_nothing(n: int) -> None:
    assert power.detectable(n, 1.0) is None and power.detectable(5, 0.0) is None


@pytest.mark.parametrize("effect", [0.01, 0.3, 1.0, 1.232, 2.0, 3.8, 5.0, 100.0])
def test_more_seeds_and_wider_margins_never_have_less_power(effect: float) -> None:
    numbers = [2, 3, 5, 10, 30, 100, 300, 1000]
    for alpha in (0.05, 1e-4):
        powers = [
            [power.difference_power(n, effect, alpha) for n in numbers],
            [power.equivalence_power(n, 0.0, effect, alpha) for n in numbers],
            [power.equivalence_power(20, effect, rope, alpha) for rope in (0.1, 1.0, 6.0, 50.0, 1000.0)],
        ]
        assert powers == [sorted(row) for row in powers]
        assert all(0 <= found <= 1 for row in powers for found in row) and powers[2][-1] == 1.0
    assert (power.seeds_for_difference(effect) == 2) == (effect == 100.0)


def test_questions_that_no_number_of_seeds_answers() -> None:
    assert power.seeds_for_difference(0.0) is None
    assert power.seeds_for_equivalence(0.5, 0.5) is None
    assert power.seeds_for_equivalence(0.0, 1e-3) is None
    assert power.seeds_for_sign(0.5) is None
    assert power.seeds_for_sign(0.9, 0.001) is None
    assert power.seeds_for_sign(0.1) == power.seeds_for_sign(0.9)


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 64])
@pytest.mark.parametrize("n", [2, 3, 5, 40])
def test_what_is_detectable_has_the_power(n: int, alpha: float) -> None:
    effect = power.detectable(n, 1.0, alpha)
    assert effect and power.difference_power(n, effect, alpha) == pytest.approx(0.8)


def test_a_ranking_of_nothing_and_of_single_trainings() -> None:
    assert ranked(samples()) == ()
    found = ranked(samples(f=[0.5], g=[0.9], lost=[None], empty=[]))
    assert [(r.function, r.bound, r.tied) for r in found] == [
        ("g", None, True),
        ("f", None, True),
        ("empty", None, False),
        ("lost", None, False),
    ]
