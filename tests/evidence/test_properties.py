"""What must not change the evidence, and what must mirror it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searcher.evidence import Comparison, Evidence, Interval, Plan, Samples, Verdict, compare, ranked, review
from workers.contract import Direction, Metric

half = settings(max_examples=50)  # an example takes some 20 ms

UP, DOWN = (Metric("test_score", direction, "fraction") for direction in (Direction.MAXIMIZE, Direction.MINIMIZE))
Values = Mapping[str, Mapping[int, float | None]]

# Multiples of 1/64, so that differences and shifts are exact; small ranges make ties.
value = st.integers(0, 64).map(lambda n: n / 64)
coarse = st.integers(0, 2).map(lambda n: n / 64)
few = st.integers(0, 12)


@st.composite
def tables(draw: st.DrawFn, functions: Sequence[str] = ("a", "b", "c")) -> Values:
    """Values of functions with up to 12 seeds. Some trainings diverged or are missing; some functions differ a lot."""
    single = draw(st.sampled_from([value, coarse]))
    diverging = st.one_of(single, single, single, st.none()) if draw(st.booleans()) else single
    seeds = range(draw(few))
    sparse = draw(st.booleans())
    found = {functions[-1]: {seed: draw(diverging) for seed in range(max(1, len(seeds)))}}
    for function in functions[:-1]:
        trained = [seed for seed in seeds if not (sparse and draw(st.integers(0, 4)) == 0)]
        gain, own = draw(st.sampled_from([-1.0, 0.0, 0.0, 1.0])), [draw(diverging) for _ in trained]
        found[function] = {s: None if v is None else v + gain for s, v in zip(trained, own, strict=True)}
    return found


def evidence(values: Values, metric: Metric = UP) -> Evidence:
    return compare(Samples(metric, values), "c", rope=4 / 64)


def close(one: Any, other: Any) -> bool:
    """Return whether records are equal up to rounding in their numbers."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(close, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(close(getattr(one, f), getattr(other, f)) for f in one.__slots__)
    if isinstance(one, float):
        return bool(one == pytest.approx(other, rel=1e-6, abs=1e-9))
    return bool(one == other)


def opposite(interval: Interval | None, centre: float = 0.0) -> Interval | None:
    return interval and replace(interval, low=centre - interval.high, high=centre - interval.low)


def mirrored(found: Comparison) -> Comparison:
    """Return what the comparison should be if the two functions swapped their places."""
    chance = found.superiority
    swapped = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    if chance and (other := opposite(chance.interval, 1.0)):
        significant = other.low > 0.5
        meaningful = significant and other.high > 0.75
        chance = replace(
            chance, probability=1 - chance.probability, interval=other, significant=significant, meaningful=meaningful
        )
    return replace(
        found,
        function=found.reference,
        reference=found.function,
        diverged=found.reference_diverged,
        reference_diverged=found.diverged,
        difference=None if found.difference is None else -found.difference,
        interval=opposite(found.interval),
        superiority=chance,
        verdict=swapped.get(found.verdict, found.verdict),
    )


@half
@given(tables(), st.randoms(use_true_random=False))
def test_the_numbers_of_seeds_and_their_order_do_not_matter(values: Values, random: Any) -> None:
    seeds = list(range(100))
    random.shuffle(seeds)
    other = {f: dict(random.sample([(seeds[s], v) for s, v in own.items()], len(own))) for f, own in values.items()}
    assert evidence(other) == evidence(values)
    assert ranked(Samples(UP, other)) == ranked(Samples(UP, values))


@half
@given(tables(("a", "c")))
def test_swapping_two_functions_mirrors_their_comparison(values: Values) -> None:
    if not values["a"]:
        return
    (found,), (other,) = (compare(Samples(UP, values), name, rope=4 / 64).comparisons for name in ("c", "a"))
    assert close(mirrored(found), other)


@half
@given(tables(), st.integers(-640, 640).map(lambda n: n / 64))
def test_a_shift_of_all_values_changes_no_comparison(values: Values, shift: float) -> None:
    moved = {f: {s: v if v is None else v + shift for s, v in own.items()} for f, own in values.items()}
    assert close(evidence(moved).comparisons, evidence(values).comparisons)


@half
@given(tables())
def test_a_metric_to_minimize_mirrors_one_to_maximize(values: Values) -> None:
    negative = {f: {s: v if v is None else -v for s, v in own.items()} for f, own in values.items()}
    found, other = evidence(values), evidence(negative, DOWN)
    assert close(found.comparisons, other.comparisons)
    for one, opposed in zip(found.summaries, other.summaries, strict=True):
        negated = {name: None if (n := getattr(one, name)) is None else -n for name in ("mean", "median")}
        assert close(replace(one, interval=opposite(one.interval), **negated), opposed)
    places, others = ranked(Samples(UP, values)), ranked(Samples(DOWN, negative))
    assert [(one.function, one.tied) for one in places] == [(one.function, one.tied) for one in others]


@half
@given(tables())
def test_what_is_said_fits_together(values: Values) -> None:
    for found in evidence(values).comparisons:
        assert found.pairs + found.diverged + found.reference_diverged + found.both_diverged == found.n
        assert found.p <= found.p_holm <= 1
        if found.verdict in (Verdict.BETTER, Verdict.WORSE):
            assert found.p_holm <= 0.05
            assert found.superiority and found.test
            side = 1 if found.verdict is Verdict.BETTER else -1
            if found.test == "paired t test":
                assert found.interval and found.difference and found.difference * side > 0
                assert found.interval.low * found.interval.high > 0, "an interval that holds 0"
            else:
                assert (found.superiority.probability - 0.5) * side > 0
        if found.verdict is Verdict.EQUIVALENT:
            assert found.equivalence and found.equivalence.shown
        if found.equivalence and found.within is not None:
            assert found.equivalence.shown == (found.within <= found.equivalence.rope)
        if found.seeds_needed is not None:
            assert found.verdict is Verdict.UNDECIDED and found.seeds_needed > found.pairs


@half
@given(tables(("a", "b", "c")))
def test_a_sequential_review_needs_nothing_but_the_values(values: Values) -> None:
    """Adding what the next look does not ask for changes nothing, and what it asks for is not there."""
    plan = Plan(UP, ("a", "b"), "c", tuple(range(8)), looks=(2, 4, 8))
    found = review(plan, Samples(UP, values))
    assert all(seed not in values[function] for function, seed in found.needed)
    later = {f: {s: v for s, v in own.items() if s < 8} for f, own in values.items()}
    assert review(plan, Samples(UP, later)) == found
    if found.needed:
        beyond = {f: {**own, 7: own.get(7, 0.5)} for f, own in values.items()}
        again = review(plan, Samples(UP, beyond))
        assert (again.looks, again.evidence) == (found.looks, found.evidence) or found.seeds == 4 or not again.needed
