"""Functions under several task configurations."""

from __future__ import annotations

import numpy as np
import pytest

from searcher.evidence import Across, EvidenceError, Samples, Verdict, across, compare
from workers.contract import Direction, Metric

ACC = Metric("test_acc", Direction.MAXIMIZE, "fraction")
LOSS = Metric("test_loss", Direction.MINIMIZE, "nats")


def configurations(number: int, gain: float = 0.02, metric: Metric = ACC) -> list[Samples]:
    """Return configurations under which f is better than relu by `gain`, with five seeds."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(number):
        f, g, relu = 0.5 + 0.01 * i + rng.normal(0, 0.005, (3, 5))
        rows = {"relu": relu, "f": f + gain, "g": g}
        found.append(Samples(metric, {name: dict(enumerate(map(float, row))) for name, row in rows.items()}, f"net{i}"))
    return found


def verdicts(found: Across) -> list[Verdict]:
    return [comparison.verdict for evidence in found.evidence for comparison in evidence.comparisons]


def test_each_configuration_has_its_intervals_and_all_are_corrected_together() -> None:
    rows = configurations(3)
    found = across(rows, "relu")
    assert [evidence.configuration for evidence in found.evidence] == ["net0", "net1", "net2"]
    assert {evidence.corrected_for for evidence in found.evidence} == {6}
    single = [compare(row, "relu") for row in rows]
    for evidence, alone in zip(found.evidence, single, strict=True):
        for comparison, other in zip(evidence.comparisons, alone.comparisons, strict=True):
            assert (comparison.difference, comparison.interval, comparison.p) == (
                other.difference,
                other.interval,
                other.p,
            )
    p = sorted(comparison.p for evidence in found.evidence for comparison in evidence.comparisons)
    assert min(c.p_holm for e in found.evidence for c in e.comparisons) == pytest.approx(6 * p[0])


def test_nine_configurations_are_not_ranked_and_ten_are() -> None:
    assert across(configurations(9), "relu").ranks is None
    found = across(configurations(10), "relu").ranks
    assert found and found.configurations == 10 and found.p is not None
    assert (found.functions[0].function, found.functions[0].mean_rank) == ("f", 1.0) and found.p < 0.01
    by_name = {one.function: one for one in found.functions}
    assert by_name["relu"].p_wilcoxon is None
    assert by_name["f"].p_wilcoxon == pytest.approx(2 / 2**10), "f wins on all ten"
    assert by_name["f"].p_holm == pytest.approx(2 * 2 / 2**10)


def test_a_loss_is_ranked_the_other_way_round() -> None:
    found = across(configurations(10, metric=LOSS), "relu").ranks
    assert found and found.functions[-1].function == "f"


def test_a_function_that_diverges_ranks_last_there_and_loses() -> None:
    rows = configurations(10)
    lost = [Samples(ACC, {**row.values, "f": {**row.values["f"], 0: None}}, row.configuration) for row in rows]
    found = across(lost, "relu").ranks
    assert found and found.functions[-1].function == "f" and found.functions[-1].mean_rank == 3.0
    assert found.functions[-1].p_wilcoxon == pytest.approx(2 / 2**10)
    half = across([*lost[:5], *rows[5:]], "relu").ranks
    assert half
    (p,) = (one.p_wilcoxon for one in half.functions if one.function == "f")
    assert p is not None and p > 0.1, "it loses under five configurations and wins under five"


def test_equal_functions_share_ranks() -> None:
    rows = [Samples(ACC, {name: {0: 0.5, 1: 0.6} for name in ("relu", "f", "g")}, str(i)) for i in range(10)]
    found = across(rows, "relu").ranks
    assert found and {one.mean_rank for one in found.functions} == {2.0}
    assert found.chi2 is None and {one.p_wilcoxon for one in found.functions} == {None, 1.0}


def test_a_function_that_is_missing_somewhere_is_compared_but_not_ranked() -> None:
    rows = configurations(10)
    rows[3] = Samples(ACC, {name: own for name, own in rows[3].values.items() if name != "g"}, "net3")
    found = across(rows, "relu")
    assert found.ranks and {one.function for one in found.ranks.functions} == {"f", "relu"}
    assert [len(evidence.comparisons) for evidence in found.evidence] == [2, 2, 2, 1, 2, 2, 2, 2, 2, 2]


def test_a_reference_alone_is_not_ranked() -> None:
    rows = configurations(10)
    split = [{"relu", "f"} if i % 2 else {"relu", "g"} for i in range(10)]
    some = [
        Samples(ACC, {name: own for name, own in row.values.items() if name in names}, row.configuration)
        for row, names in zip(rows, split, strict=True)
    ]
    assert across(some, "relu").ranks is None


def test_configurations_with_other_metrics_have_margins_of_their_units() -> None:
    found = across([configurations(1)[0], Samples(LOSS, configurations(1)[0].values, "other")], "relu")
    margins = [c.equivalence.rope for e in found.evidence for c in e.comparisons if c.equivalence]
    assert margins == [0.005, 0.005, 0.01, 0.01]
    assert Verdict.BETTER in verdicts(found) and Verdict.WORSE in verdicts(found)


def test_configurations_need_names_of_their_own() -> None:
    rows = configurations(2)
    with pytest.raises(EvidenceError, match="give one or more, each with a name of its own"):
        across([rows[0], rows[0]], "relu")
    with pytest.raises(EvidenceError, match="give one or more"):
        across([], "relu")
