"""A ranking that knows noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from searcher.evidence import EvidenceError, Samples, ranked
from workers.contract import Direction, Metric

LOSS = Metric("val_loss", Direction.MINIMIZE, "nats")


def samples(**values: list[float | None]) -> Samples:
    return Samples(LOSS, {name: dict(enumerate(found)) for name, found in values.items()})


def test_one_lucky_training_does_not_win() -> None:
    """The best single value, 0.30, ranks behind a mean of 0.31 over five seeds."""
    found = ranked(samples(lucky=[0.30], steady=[0.31, 0.30, 0.32, 0.29, 0.33], poor=[0.5, 0.52]))
    assert [one.function for one in found] == ["steady", "lucky", "poor"]
    assert [one.tied for one in found] == [True, True, False]
    sd = (0.001 + 0.0002) ** 0.5 / 5**0.5  # five degrees of freedom: four of steady's, one of poor's
    margin = stats.t.isf(0.05, 5) * sd
    assert [one.bound for one in found] == pytest.approx(
        [0.31 + margin / 5**0.5, 0.30 + margin, 0.51 + margin / 2**0.5]
    )
    assert [one.mean for one in found] == pytest.approx([0.31, 0.30, 0.51])
    assert [one.rank for one in found] == [1, 2, 3]


def test_a_function_that_diverged_ranks_behind_all_that_did_not() -> None:
    found = ranked(samples(often=[0.1, None, None], once=[0.1, 0.1, None], never=[0.9, 0.8, 0.7], always=[None]))
    assert [one.function for one in found] == ["never", "once", "often", "always"]
    assert [(one.n, one.diverged) for one in found] == [(3, 0), (2, 1), (1, 2), (0, 1)]
    assert [one.tied for one in found] == [True, False, False, False]
    assert found[-1].mean is None and found[-1].bound is None


def test_ties_are_corrected_for_the_number_of_functions() -> None:
    """A difference that is sure beside one rival is none beside two hundred."""
    noise = [-0.01, 0.0, 0.01]
    first = {"a": [0.5 + x for x in noise], "b": [0.53 + x for x in noise]}
    many = {f"c{i}": [2.0 + x for x in noise] for i in range(2)}
    assert [one.tied for one in ranked(samples(**first))] == [True, False]
    crowd = {f"c{i}": [5.0] for i in range(200)}  # single trainings do not change the noise
    assert [one.tied for one in ranked(samples(**first, **crowd))][:2] == [True, True]
    assert [one.tied for one in ranked(samples(**first, **many))] == [True, False, False, False]


def test_without_noise_all_but_the_best_are_behind() -> None:
    found = ranked(samples(a=[0.5, 0.5], b=[0.5, 0.5], c=[0.6, 0.6]))
    assert [(one.function, one.bound, one.tied) for one in found] == [
        ("a", 0.5, True),
        ("b", 0.5, True),
        ("c", 0.6, False),
    ]


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_out_of_range_is_refused(level: float) -> None:
    with pytest.raises(EvidenceError, match=r"level is .*: give a number between 0 and 1"):
        ranked(samples(a=[0.5, 0.6]), level)


def test_the_bound_picks_better_functions_than_the_best_value() -> None:
    """300 searches of 30 functions, the best three trained four times more, with as much noise as there is merit."""
    rng, gain = np.random.default_rng(0), []
    for _ in range(300):
        true = rng.normal(size=30)
        values = {str(i): {0: float(true[i] + rng.normal())} for i in range(30)}
        for name in sorted(values, key=lambda name: values[name][0])[:3]:
            values[name] |= {seed: float(true[int(name)] + rng.normal()) for seed in range(1, 5)}
        best = min(values, key=lambda name: min(values[name].values()))
        gain.append(true[int(best)] - true[int(ranked(Samples(LOSS, values))[0].function)])
    assert np.mean(gain) > 3 * np.std(gain) / 300**0.5
