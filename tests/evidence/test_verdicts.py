"""Sentences are right by the numbers behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searcher.evidence import (
    Comparison,
    Evidence,
    Plan,
    Samples,
    Verdict,
    compare,
    conclusion,
    remarks,
    review,
    sentence,
)
from workers.contract import Direction, Metric

ACC = Metric("test_acc", Direction.MAXIMIZE, "fraction")
LOSS = Metric("test_loss", Direction.MINIMIZE, "nats")
RELU = [0.90, 0.91, 0.92, 0.90, 0.93, 0.91, 0.92, 0.89, 0.90, 0.94]
NOISE = [0.001, -0.002, 0.002, 0.0, -0.001, 0.001, 0.0, -0.001, 0.002, -0.002]


def judged(
    metric: Metric = ACC, rope: float | None = None, **gains: float
) -> tuple[Evidence, Mapping[str, Comparison]]:
    """Return the evidence about functions whose values are relu's, and these gains, and a little noise."""
    rows = {"relu": RELU, **{n: [r + g + e for r, e in zip(RELU, NOISE, strict=True)] for n, g in gains.items()}}
    evidence = compare(Samples(metric, {n: dict(enumerate(row)) for n, row in rows.items()}), "relu", rope=rope)
    return evidence, {comparison.function: comparison for comparison in evidence.comparisons}


def test_a_better_function() -> None:
    evidence, found = judged(swish=0.02)
    assert sentence(found["swish"], evidence) == (
        "swish is better than relu: test_acc is higher by 0.02 (95 % interval 0.0189 to 0.0211, 10 seeds, p < 0.0001)."
    )
    assert remarks(found["swish"], evidence) == (
        "The probability that it beats relu with a new seed is 1 (95 % interval 0.692 to 1): meaningful.",
    )
    assert conclusion(evidence) == "swish is better than relu by test_acc (of 1: 1 better)."


def test_a_loss_is_better_when_it_is_lower() -> None:
    evidence, found = judged(LOSS, swish=-0.02, x=0.02)
    assert sentence(found["swish"], evidence).startswith(
        "swish is better than relu: test_loss is lower by 0.02 (95 % int"
    )
    assert sentence(found["x"], evidence).startswith(
        "x is worse than relu: test_loss is higher by 0.02 (95 % interval 0.0"
    )
    assert conclusion(evidence) == "swish is better than relu by test_loss (of 2: 1 better, 1 worse)."


def test_a_difference_too_small_to_matter() -> None:
    evidence, found = judged(swish=0.002)
    assert found["swish"].verdict is Verdict.BETTER
    assert "The difference is sure, but too small to matter: within ±0.005." in remarks(found["swish"], evidence)


def test_equivalent_functions() -> None:
    evidence, found = judged(gelu=0.0002)
    text = sentence(found["gelu"], evidence)
    assert re.fullmatch(
        r"gelu and relu are equivalent within ±0\.005: test_acc is higher by 0\.0002 over 10 seeds, and the true "
        r"difference is within ±0\.00106 \(two one-sided t tests, p < 0\.0001\)\.",
        text,
    ), text
    assert conclusion(evidence) == "Nothing is shown to be better than relu by test_acc (of 1: 1 equivalent)."


def test_an_equivalence_of_an_earlier_look_names_no_wider_margin() -> None:
    evidence, found = judged(gelu=0.0002)
    text = sentence(replace(found["gelu"], within=0.006), evidence)
    assert text.endswith("test_acc is higher by 0.0002 over 10 seeds (two one-sided t tests, p < 0.0001).")


def test_an_undecided_comparison_says_how_many_seeds_would_settle_it() -> None:
    evidence, found = judged(rope=0.0005, gelu=0.0005, x=-0.1)
    gelu = found["gelu"]
    assert gelu.verdict is Verdict.UNDECIDED and gelu.seeds_needed
    assert sentence(gelu, evidence) == (
        "It is undecided whether gelu or relu is better: test_acc is higher by 0.0005 (95 % interval -0.000566 to "
        "0.00157, 10 seeds, p = 0.317 corrected for 2 comparisons)."
    )
    said = " ".join(remarks(gelu, evidence))
    assert f"About {gelu.seeds_needed} seeds in all would settle it, if the estimates are right." in said
    assert "The true difference is within ±0.00157 (two one-sided t tests, corrected)." in said
    assert re.search(r"With 10 seeds, a true difference of 0\.0\d+ in test_acc is shown in 80 of 100 studies\.", said)
    assert conclusion(evidence) == "Nothing is shown to be better than relu by test_acc (of 2: 1 worse, 1 undecided)."


def test_several_winners_are_named_best_first() -> None:
    evidence, _ = judged(a=0.02, b=0.03, c=-0.02)
    assert conclusion(evidence) == "b, a are better than relu by test_acc (of 3: 2 better, 1 worse)."


def test_a_metric_of_another_split_is_called_optimistic() -> None:
    evidence, found = judged(replace(ACC, name="val_acc"), swish=0.02)
    assert remarks(found["swish"], evidence)[-1] == "val_acc is no test metric: validation only, optimistic."


def test_an_interval_is_shown_on_the_side_of_the_difference() -> None:
    evidence, found = judged(rope=1e-6, x=-0.0005)
    assert found["x"].within == pytest.approx(0.001364, abs=1e-6), "the farther end, which is below"
    assert "test_acc is lower by 0.0005 (95 % interval -0.000566 to 0.00157" in sentence(found["x"], evidence)


def test_a_function_that_diverges_is_described_by_wins() -> None:
    values: dict[str, dict[int, float | None]] = {
        "f": {seed: None if seed < 7 else 0.95 for seed in range(10)},
        "relu": dict(enumerate(RELU)),
    }
    evidence = compare(Samples(ACC, values), "relu")
    (found,) = evidence.comparisons
    assert sentence(found, evidence) == (
        "It is undecided whether f or relu is better: it wins 3 of 10 seeds (a tie counts as half; sign test, p = "
        "0.344); test_acc is higher by 0.04 over 3 seeds."
    )
    assert remarks(found, evidence)[:2] == (
        "f alone diverged on 7 of 10 seeds, and loses there.",
        "The mean difference is of the 3 seeds on which both finished.",
    )


def test_a_function_that_always_loses() -> None:
    evidence, found = judged(x=-0.5)
    assert "with a new seed is 0 (95 % interval 0 to 0.308): surely less than half." in " ".join(
        remarks(found["x"], evidence)
    )


def test_a_permutation_test_that_disagrees_is_mentioned() -> None:
    """Four seeds cannot have a permutation p-value below 1/8, however sure the t test is."""
    values = {"f": dict(enumerate([0.6, 0.61, 0.62, 0.63])), "relu": dict(enumerate([0.5, 0.512, 0.521, 0.53]))}
    evidence = compare(Samples(ACC, values), "relu")
    (found,) = evidence.comparisons
    assert found.verdict is Verdict.BETTER
    said = remarks(found, evidence)
    assert "The permutation test alone does not show it (p = 0.125)." in said
    assert said[0].startswith("With 4 seeds, neither the sign test nor the permutation test can go below p = 0.125,")


def test_a_sequential_study_says_the_level_of_its_intervals() -> None:
    noise = np.random.default_rng(0).normal(0, 0.001, (2, 5))
    values = {"f": dict(enumerate(map(float, 0.9 + noise[0]))), "relu": dict(enumerate(map(float, 0.8 + noise[1])))}
    state = review(Plan(ACC, ("f",), "relu", tuple(range(40))), Samples(ACC, values))
    assert state.evidence and state.finished
    assert "98.75 % interval" in sentence(state.evidence.comparisons[0], state.evidence)


@pytest.mark.parametrize(("p", "shown"), [(0.04999, "0.05"), (0.05001, "0.0501"), (0.5, "0.5"), (1.0, "1")])
def test_p_values_are_rounded_up(p: float, shown: str) -> None:
    evidence, found = judged(swish=0.0005)
    text = sentence(replace(found["swish"], p_holm=p, verdict=Verdict.UNDECIDED), evidence)
    assert text.endswith(f"p = {shown}).")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-0.01, 0.01), st.floats(-0.01, 0.01)), min_size=2, max_size=12))
def test_a_sentence_agrees_with_the_record(pairs: list[tuple[float, float]]) -> None:
    values = {"f": dict(enumerate(a for a, _ in pairs)), "relu": dict(enumerate(b for _, b in pairs))}
    evidence = compare(Samples(LOSS, values), "relu")
    (found,) = evidence.comparisons
    text = sentence(found, evidence)
    difference = found.difference or 0.0
    if re.search("is better than", text):
        assert found.p_holm <= 0.05 and difference > 0 and "lower by" in text
    if re.search("is worse than", text):
        assert found.p_holm <= 0.05 and difference < 0 and "higher by" in text
    shown = re.search(r"(?:higher|lower) by (\S+)", text)
    assert (float(shown[1]) if shown else 0.0) == pytest.approx(abs(difference), rel=6e-3)
    if "undecided" in text:
        assert found.p_holm > 0.05 or not difference
