"""The pictures of studies: the data behind them are right, and each is drawn from these data alone."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from search_space import key, parse
from searcher import SearcherError, UsageError
from searcher.confirmation import Confirmation
from searcher.driver.leases import held_lease
from searcher.records import Kind, Study, Trial, TrialState
from searcher.reports import pictures
from searcher.reports.confirmed import Confirmed
from searcher.reports.pictures import NothingToDraw, parts, style, trials
from searcher.reports.pictures.base import front
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.commands import Cli
from tests.support.made import create, point, result
from tests.support.made_confirmations import FUNCTIONS, TEST_ACC, confirmation, made_plan, noisy_losses
from tests.support.searches import SETTINGS, completed

OF_SEARCH = ["progress", "trials", "cost", "size", "parts", "reasons", "functions", "learned", "curves"]
OF_CONFIRMATION = ["cost", "size", "differences", "confirmed", "map", "functions", "learned", "curves"]
LOSS = {"name": "val_loss", "direction": "minimize", "unit": "nats", "split": "val"}


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url, create=True)
    yield opened
    opened.close()


def made(number: int, text: str, loss: float | None = None, **changes: Any) -> Trial:
    """Return a trial that has ended: COMPLETE with a loss, INFEASIBLE without one, if nothing else is said."""
    name = text if text in ("relu", "swish", "tanh") else ""
    kind = Kind.BASELINE if name else Kind.CANDIDATE
    tree = parse(text)
    trial = Trial(number, kind, str(tree), key(tree), 0, name, None if name else (number,), finish_order=number)
    trial = replace(trial, seconds=2.0, worker="me")
    if loss is None:
        return replace(trial, **{"state": TrialState.INFEASIBLE, "reason": "it failed", **changes})
    return replace(result(trial, loss), **changes)


def study_of(store: Store, *ended: Trial, name: str = "s") -> Study:
    study = create(store, name, max(1, len(ended)))
    curves = {
        trial.number: [point(step, 1.0, (trial.value or 0) + 2.0 / step, 0.5) for step in (1, 2)]
        for trial in ended
        if trial.state is TrialState.COMPLETE and trial.cites is None
    }
    with held_lease(store, study) as lease:
        store.commit(lease, Batch(added=list(ended), curves=curves))
    return store.study(name)


@pytest.fixture
def small(store: Store) -> Study:
    """Two baselines and five candidates, of which one is infeasible, one pruned and one worse than the first."""
    return study_of(
        store,
        made(0, "relu", 0.5),
        made(1, "tanh", 0.7),
        made(2, "x * sigmoid(x)", 0.6),
        made(3, "x / (1 - x)", reason="not trained: it has a pole at x = 1, where 1 - x is 0", seconds=0.0),
        made(4, "sin(x)", 0.4),
        made(5, "cos(x)", 0.9),
        made(6, "atan(x)", 0.8, state=TrialState.PRUNED, reason="stopped", value=None, merit=None, tie_merit=None),
    )


@pytest.fixture
def confirmed(store: Store) -> Study:
    plan = made_plan()
    worst = list(FUNCTIONS)[-1]
    return confirmation(store, plan, noisy_losses(plan, diverged=[(worst, 101, 0)]))


def drawn(kind: str, store: Store, study: Study) -> dict[str, Any]:
    """Return the data of a kind, after they have gone through JSON and have been drawn."""
    found = pictures.data(kind, store, study)
    again = json.loads(json.dumps(found, allow_nan=False))
    text = pictures.svg(pictures.figure(kind, again))
    ElementTree.fromstring(text)
    return again


def test_the_best_so_far_is_of_candidates(store: Store, small: Study) -> None:
    found = drawn("progress", store, small)
    assert found["metric"] == LOSS
    assert [(row["trials"], row["value"], row["seconds"]) for row in found["best"]] == [(3, 0.6, 6), (5, 0.4, 8)]
    assert found["baselines"] == [{"name": "relu", "value": 0.5}, {"name": "tanh", "value": 0.7}]
    assert [row["value"] for row in found["trials"]] == [0.5, 0.7, 0.6, 0.4, 0.9]
    assert (found["finished"], found["seconds"]) == (7, 12)


def test_the_distribution_counts_what_has_no_value(store: Store, small: Study) -> None:
    found = drawn("trials", store, small)
    assert found["candidates"] == [0.4, 0.6, 0.9]
    assert (found["infeasible"], found["pruned"], found["failed"]) == (1, 1, 0)


def test_the_front_has_what_nothing_beats_in_both(store: Store, small: Study) -> None:
    assert front([3, 1, 2, 2, 4], [5, 1, 3, 2, 5]) == [1, 2, 0]
    found = drawn("size", store, small)
    by_rank = {row["rank"]: row for row in found["functions"]}
    assert {row["expression"]: row["nodes"] for row in found["functions"]} == {
        "sin(x)": 2,
        "max(x, 0)": 3,
        "x * sigmoid(x)": 4,
        "tanh(x)": 2,
        "cos(x)": 2,
    }
    assert [by_rank[rank]["expression"] for rank in found["front"]] == ["sin(x)"]


def test_costs_are_measured_for_the_picture(store: Store, small: Study) -> None:
    found = drawn("cost", store, small)
    costs = {row["expression"]: row for row in found["functions"]}
    assert costs["max(x, 0)"]["both_ratio"] == 1
    assert costs["x * sigmoid(x)"]["saved_bytes"] == 4
    assert found["left_out"] == [] and "float32" in found["conditions"]


def test_effects_of_parts_are_differences_of_ranks(store: Store) -> None:
    """Functions with tanh are the better half. Welch's interval is scipy's."""
    texts = [f"tanh({n} * x)" for n in range(2, 8)] + [f"sin({n} * x)" for n in range(2, 8)]
    study = study_of(store, *(made(n, text, 0.1 + n / 100) for n, text in enumerate(texts)))
    found = drawn("parts", store, study)
    effects = {row["part"]: row for row in found["primitives"]}
    assert found["functions"] == 12
    assert set(effects) == {"tanh", "sin"}, "all functions have a product, so nothing can be said about it"
    better, worse = np.arange(11, 5, -1) / 11, np.arange(5, -1, -1) / 11
    assert effects["tanh"]["effect"] == pytest.approx(better.mean() - worse.mean()) == pytest.approx(6 / 11)
    interval = stats.ttest_ind(better, worse, equal_var=False).confidence_interval(0.95)
    assert (effects["tanh"]["low"], effects["tanh"]["high"]) == pytest.approx((interval.low, interval.high))
    assert (effects["sin"]["with"], effects["sin"]["without"]) == (6, 6)
    assert {row["part"] for row in found["pairs"]} == {"a * b and sin", "a * b and tanh"}


def test_infeasible_functions_rank_last_and_pruned_ones_before_them() -> None:
    found = parts._functions(
        [
            made(0, "sin(x)", 3.0),
            made(1, "cos(x)"),
            made(2, "atan(x)", 5.0, state=TrialState.PRUNED),
            made(3, "erf(x)", 6.0, state=TrialState.FAILED),
            made(4, "relu", 0.1),
            made(5, "sin(x)", 3.0, cites=0),
        ]
    )
    assert sorted(found, key=found.__getitem__) == ["cos(x)", "atan(x)", "sin(x)"]
    assert parts._ranks([(0, 0.0), (2, -3.0), (0, 0.0), (2, -1.0)]) == pytest.approx([1 / 6, 2 / 3, 1 / 6, 1])


@pytest.mark.parametrize(
    ("reason", "common"),
    [
        ("training loss is not finite at epoch 3, step 17", "training loss is not finite"),
        ("validation loss is not finite after epoch 2", "validation loss is not finite"),
        ("not trained: it has a pole at x = -0.3, where x + 0.3 is 0", "it has a pole"),
        ("not trained: it is constant: 0.5", "it is constant"),
        ("not trained: as it is written, its value is nan at x = 5", "as it is written, its value is nan"),
        ("val_mse after step 3 is not finite: inf", "val_mse"),
        ("a log2 of 12 is 3.58 too much", "a log2 of … is … too much"),
        ("first line\nsecond line", "first line"),
    ],
)
def test_reasons_are_grouped_without_places_and_values(reason: str, common: str) -> None:
    assert trials._common(reason) == common


def test_reasons_are_counted(store: Store, small: Study) -> None:
    found = drawn("reasons", store, small)
    assert found["reasons"] == [{"reason": "it has a pole", "before_training": True, "trials": 1}]
    assert (found["infeasible"], found["trials"]) == (1, 7)


def test_functions_are_sampled_and_broken_where_they_jump(store: Store) -> None:
    study = study_of(store, made(0, "relu", 0.5), made(1, "heaviside(x)", 0.4), made(2, "log(x)", 0.6))
    found = drawn("functions", store, study)
    assert [row["label"] for row in found["functions"]] == ["max(sign(x), 0)", "log(x)"]
    x, f = np.array(found["x"]), found["functions"][0]["f"]
    assert f[np.searchsorted(x, 0)] is None
    assert {value for value in f if value is not None} == {0, 1}
    assert all(value is None or math.isfinite(value) for value in found["functions"][1]["f"])
    assert found["relu"]["f"][-1] == 5


def test_learning_curves_of_leaders_and_baselines(store: Store, small: Study) -> None:
    found = drawn("curves", store, small)
    (panel,) = found["panels"]
    assert [line["label"] for line in panel["lines"]] == ["sin(x)", "x * sigmoid(x)", "cos(x)", "relu", "tanh"]
    assert panel["lines"][0]["points"][1] == {"step": 2, "mean": 1.4, "least": 1.4, "most": 1.4}
    assert found["step"] == "epoch"


def test_leaders_are_found_behind_many_baselines(store: Store) -> None:
    """Seen to fail when the first rows of the ranking are taken for the leaders."""
    ended = [made(0, "relu", 0.1), made(1, "swish", 0.2), made(2, "tanh", 0.3)]
    ended += [made(3 + n, f"sin({n + 2} * x)", 0.4 + n / 10) for n in range(5)]
    found = drawn("curves", store, study_of(store, *ended))
    labels = [line["label"] for line in found["panels"][0]["lines"]]
    assert labels == ["sin(2 * x)", "sin(3 * x)", "sin(4 * x)", "sin(5 * x)", "relu", "swish"]


def test_differences_are_those_of_the_evidence(store: Store, confirmed: Study) -> None:
    found = drawn("differences", store, confirmed)
    evidence = Confirmed.of(store, confirmed).evidence.evidence
    assert [panel["configuration"] for panel in found["panels"]] == ["resnet8 on digits", "resnet20 on digits"]
    for panel, one in zip(found["panels"], evidence, strict=True):
        rows = {row["label"]: row for row in panel["functions"]}
        for comparison in one.comparisons:
            row = rows[comparison.function]
            assert (row["difference"], row["verdict"]) == (comparison.difference, comparison.verdict)
            assert comparison.interval and (row["low"], row["high"]) == (
                comparison.interval.low,
                comparison.interval.high,
            )
    worst = found["panels"][0]["functions"][-1]
    assert (worst["diverged"], worst["seeds"]) == (1, 8)
    assert found["order"][0] == "x * sigmoid(beta * x)" and found["order"][-1] == worst["label"]
    assert (found["rope"], found["reference"], found["metric"]["split"]) == (0.01, "relu", "test")


def test_gains_in_the_search_are_beside_the_confirmed_ones(store: Store, confirmed: Study) -> None:
    found = drawn("confirmed", store, confirmed)
    gains = {row["label"]: row for row in found["panels"][0]["functions"]}
    assert gains["max(x, sin(x))"]["searched"] == pytest.approx(0.410 - 0.341)
    assert gains["max(x, sin(x))"]["searched_value"] == 0.341
    assert gains["max(x, sin(x))"]["difference"] < 0.02, "the winner's curse"
    assert (found["search_metric"]["name"], found["metric"]["name"]) == ("val_loss", "test_loss")


def test_mean_ranks_are_drawn_from_ten_configurations_on(store: Store) -> None:
    plan = made_plan(configurations=10, seeds=3)
    study = confirmation(store, plan, noisy_losses(plan))
    assert "ranks" in pictures.available(study)
    found = drawn("ranks", store, study)
    assert found["configurations"] == 10
    assert found["functions"][0]["label"] == "x * sigmoid(beta * x)"
    assert found["critical_difference"] == pytest.approx(2.850 * math.sqrt(6 * 7 / 60), abs=1e-3)  # Demsar 2006
    assert len(drawn("map", store, study)["panels"]) == 10


def test_every_kind_is_drawn_for_real_studies(store: Store, confirmed: Study, tmp_path: Path) -> None:
    study, _ = completed(store)
    assert pictures.available(study) == OF_SEARCH
    assert pictures.available(confirmed) == OF_CONFIRMATION
    endings = cycle(pictures.ENDINGS)
    for one in (study, confirmed):
        for kind in pictures.available(one):
            figure = pictures.figure(kind, pictures.data(kind, store, one))
            width, height = figure.get_size_inches()
            assert width in (style.COLUMN, style.PAGE) and height < 8
            file = tmp_path / f"{kind}{next(endings)}"
            pictures.save(figure, file)
            assert file.stat().st_size > 1000


def test_texts_of_searches_are_large_enough_and_inside(store: Store) -> None:
    study, _ = completed(store)
    for kind in OF_SEARCH:
        check_texts(kind, store, study)


@pytest.mark.parametrize("configurations", [1, 2, 3, 10])
def test_texts_of_confirmations_are_large_enough_and_inside(store: Store, configurations: int) -> None:
    plan = made_plan(configurations=configurations, seeds=3)
    worst = list(FUNCTIONS)[-1]
    study = confirmation(store, plan, noisy_losses(plan, diverged=[(worst, 101, 0)]))
    for kind in pictures.available(study):
        check_texts(kind, store, study)


def check_texts(kind: str, store: Store, study: Study) -> None:
    figure = pictures.figure(kind, pictures.data(kind, store, study))
    figure.draw_without_rendering()
    whole = figure.bbox.padded(2)
    for text in filter(lambda text: text.get_text(), texts_of(figure)):
        box = text.get_window_extent()
        assert text.get_fontsize() >= 7, (kind, text)
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1, (kind, text)
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1, (kind, text)


def texts_of(figure: Any) -> Iterator[Any]:
    """Yield all texts that are drawn."""
    yield from (text for legend in figure.legends for text in legend.get_texts())
    yield from figure.texts
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        for place, (axis, ends) in enumerate(((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))):
            inside = (text for text in axis.get_majorticklabels() if text.get_position()[place] <= max(ends))
            yield from (text for text in inside if min(ends) <= text.get_position()[place])


def test_an_svg_stands_alone_beside_others(store: Store, confirmed: Study) -> None:
    texts = [
        pictures.svg(pictures.figure(kind, pictures.data(kind, store, confirmed))) for kind in ("map", "differences")
    ]
    again = pictures.svg(pictures.figure("map", pictures.data("map", store, confirmed)))
    assert again == texts[0], "the same data give the same text"
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in texts]
    assert ids[0] and not ids[0] & ids[1]
    for text, own in zip(texts, ids, strict=True):
        root = ElementTree.fromstring(text)
        assert root.tag.endswith("svg") and root.get("role") == "img"
        assert next(iter(root)).text and "confirm: " in str(next(iter(root)).text)
        links = re.findall(r'href="([^"]+)"|url\(([^)]+)\)', text)
        assert links and all((one or other).removeprefix("#") in own for one, other in links)
        assert set(re.findall(r"https?://[^\"\s<]+", text)) == {
            "http://www.w3.org/1999/xlink",
            "http://www.w3.org/2000/svg",
        }


def test_a_long_expression_is_cut_in_the_middle() -> None:
    assert style.cut("x * sigmoid(x)", 14) == "x * sigmoid(x)"
    assert style.cut("beta1 * max(x, 0) + (1 - beta1) * tanh(x)", 21) == "beta1 * ma… * tanh(x)"
    for length in (7, 8):
        assert len(style.cut("0123456789", length)) == length


def test_a_range_is_not_flattened_by_bad_values() -> None:
    metric = {"direction": "minimize"}
    low, high = style.value_range([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 90.0], metric)
    assert low < 0.1 and 0.6 < high < 1
    low, high = style.value_range([0.5, 0.5], metric)
    assert low < 0.5 < high
    low, high = style.value_range([0.9, 0.8, 0.1], {"direction": "maximize"}, keep=[0.05])
    assert low < 0.05 and high > 0.9


def test_what_lies_outside_a_panel_is_said(store: Store) -> None:
    """A very bad function flattens no other, and its divergence is never dropped silently."""
    assert style.near([1, 2, 3, 1e9], keep=(0,))[1] < 4
    plan = made_plan(seeds=4)
    losses = noisy_losses(plan)
    worst, better = list(FUNCTIONS)[-1], "x * sigmoid(beta * x)"
    for (label, seed, place), loss in list(losses.items()):
        if label == worst:
            losses[label, seed, place] = None if seed == 101 else 1e9
        elif label == better and place == 1:
            losses[label, seed, place] = (loss or 0) - 1e6
    study = confirmation(store, plan, losses)
    figure = pictures.figure("differences", pictures.data("differences", store, study))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("◀ -1e+09" in text and "1 of 4 diverged" in text for text in texts), texts
    assert "better, 1e+06 ▶" in texts
    figure = pictures.figure("confirmed", pictures.data("confirmed", store, study))
    assert [axes.texts[-1].get_text() for axes in figure.axes] == ["outside: 4", "outside: 2, 4"]


# What is missing is said ----------------------------------------------------------------------------------------------


def test_an_empty_study_says_so(store: Store) -> None:
    study = create(store, "empty", 5)
    for kind in pictures.available(study):
        with pytest.raises(NothingToDraw, match="study 'empty'"):
            pictures.data(kind, store, study)


def test_a_study_without_a_result_says_so(store: Store) -> None:
    study = study_of(store, *(made(n, text) for n, text in enumerate(("relu", "sin(x)", "cos(x)"))))
    for kind in set(OF_SEARCH) - {"reasons", "parts"}:
        with pytest.raises(NothingToDraw, match="has been trained to the end yet"):
            pictures.data(kind, store, study)
    with pytest.raises(NothingToDraw, match="has judged 2 candidates; effects of primitives need 10 or more"):
        pictures.data("parts", store, study)
    assert drawn("reasons", store, study)["infeasible"] == 3


@pytest.mark.parametrize(
    "ended",
    [
        [made(0, "sin(x)", 0.5)],
        [made(0, "relu", 0.5)],
        [made(n, f"sin({n + 2} * x)", 0.5) for n in range(12)],  # ties everywhere
        [made(0, "sin(x)", 1e-30), made(1, "cos(x)", 1e30)],
        [made(0, "sin(x)", 0.0), made(1, "cos(x)", 0.0), made(2, "relu", 0.0)],
    ],
    ids=["one", "baseline", "ties", "far", "zeros"],
)
def test_odd_studies_are_drawn_or_say_why_not(store: Store, ended: list[Trial]) -> None:
    study = study_of(store, *ended)
    for kind in set(OF_SEARCH) - {"reasons", "parts", "learned"}:
        drawn(kind, store, study)
    for kind in ("reasons", "parts", "learned"):
        with pytest.raises(NothingToDraw):
            pictures.data(kind, store, study)


def test_maxout_and_unknown_primitives_are_left_out(store: Store) -> None:
    maxout = replace(made(1, "tanh", 0.1), expression="maxout(2)", key="maxout(2)", name="maxout")
    own = replace(made(2, "cos(x)", 0.2), expression="my_own(x)", key="0" * 16)
    study = study_of(store, made(0, "relu", 0.5), maxout, own)
    assert [row["expression"] for row in drawn("size", store, study)["functions"]] == ["max(x, 0)"]
    found = drawn("cost", store, study)
    assert [row["expression"] for row in found["left_out"]] == ["maxout(2)", "my_own(x)"]
    drawn("progress", store, study)
    alone = study_of(store, replace(own, number=0, finish_order=0), name="alone")
    for kind in ("size", "cost", "functions"):
        with pytest.raises(NothingToDraw, match="study 'alone'"):
            pictures.data(kind, store, alone)


@pytest.mark.parametrize("kind", ["differences", "confirmed", "map", "cost", "size", "functions", "curves"])
def test_an_empty_confirmation_says_so(store: Store, kind: str) -> None:
    study = confirmation(store, made_plan(), {})
    with pytest.raises(NothingToDraw):
        pictures.data(kind, store, study)


def test_a_confirmation_without_noise_or_with_divergence_everywhere_is_drawn(store: Store) -> None:
    plan = made_plan(seeds=3)
    losses: dict[tuple[str, int, int], float | None] = dict.fromkeys(noisy_losses(plan), 0.4)
    for label, seed, place in losses:
        if label == "gelu":
            losses[label, seed, place] = None
    study = confirmation(store, plan, losses)
    for kind in pictures.available(study):
        drawn(kind, store, study)
    rows = {row["label"]: row for row in pictures.data("differences", store, study)["panels"][0]["functions"]}
    assert rows["gelu"]["difference"] is None and rows["gelu"]["diverged"] == 3


def test_a_confirmation_that_has_begun_is_drawn(store: Store) -> None:
    plan = made_plan()
    some = dict(list(noisy_losses(plan).items())[:7])  # all functions with one seed, and the first one with two
    study = confirmation(store, plan, some)
    for kind in ("differences", "confirmed", "map", "functions", "curves"):
        drawn(kind, store, study)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"searched": None, "search": ""}, "made without a search"),
        ({"searched": replace(TEST_ACC, name="val_acc")}, "ranked by val_acc and the confirmation by test_loss"),
    ],
)
def test_values_that_cannot_be_compared_are_not(store: Store, changes: dict[str, Any], message: str) -> None:
    plan: Confirmation = replace(made_plan(), **changes)
    study = confirmation(store, plan, noisy_losses(plan))
    assert "confirmed" not in pictures.available(study)
    with pytest.raises(NothingToDraw, match=message):
        pictures.data("confirmed", store, study)


def test_without_the_reference_in_the_search_there_is_no_gain(store: Store) -> None:
    functions = {**FUNCTIONS, "relu": (0.4, None)}
    plan = made_plan(functions)
    study = confirmation(store, plan, noisy_losses(plan, functions))
    with pytest.raises(NothingToDraw, match="the search did not train the reference relu"):
        pictures.data("confirmed", store, study)


def test_few_configurations_have_no_ranks_and_one_has_no_map(store: Store) -> None:
    plan = made_plan(configurations=1)
    study = confirmation(store, plan, noisy_losses(plan))
    assert not {"ranks", "map"} & set(pictures.available(study))
    with pytest.raises(NothingToDraw, match="mean ranks need 10 configurations or more"):
        pictures.data("ranks", store, study)


def test_a_kind_that_there_is_not_is_refused(store: Store, small: Study) -> None:
    with pytest.raises(UsageError, match="there is no picture 'progres'; did you mean 'progress'"):
        pictures.data("progres", store, small)
    with pytest.raises(UsageError, match="study 's' is a search and has no picture 'differences'"):
        pictures.data("differences", store, small)


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_draws_prints_and_lists(cli: Cli, sqlite_url: str, tmp_path: Path) -> None:
    store = Store(sqlite_url, create=True)
    study, _ = completed(store, SETTINGS)
    expected = pictures.data("trials", store, study)
    store.close()
    at = ("--storage", sqlite_url)
    done = cli("plot", study.name, "trials", "-o", "trials.png", *at)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "picture written to trials.png\n")
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(cli("plot", study.name, "trials", "-f", "json", *at).stdout) == expected
    cli("plot", study.name, "trials", "-o", "trials.json", *at)
    assert json.loads((tmp_path / "trials.json").read_text()) == expected
    listed = json.loads(cli("plot", study.name, "-f", "json", *at).stdout)
    assert [row["picture"] for row in listed] == OF_SEARCH
    assert set(pictures.KINDS) <= set(re.findall(r"\w+", cli("plot", "--help").stdout))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("nosuch", "trials", "-o", "a.png"), 1, "nosuch"),
        (("s", "trails", "-o", "a.png"), 2, "there is no picture 'trails'; did you mean 'trials'? accepted: progress"),
        (("s", "map", "-o", "a.png"), 2, "is a search and has no picture 'map'; accepted: progress, trials"),
        (("s", "trials"), 2, "name a file for the picture: -o trials.png; or print its data: -f json"),
        (("s", "trials", "-o", "a.gif"), 2, "accepted: names that end in .png, .svg, .pdf, or in .json for the data"),
        (("s", "trials", "-o", "missing/a.png"), 1, "cannot write missing/a.png: No such file or directory"),
        (("s", "trials", "-o", "missing/a.json"), 1, "cannot write missing/a.json: No such file or directory"),
        (("s", "parts", "-o", "a.png"), 1, "has judged 3 candidates; effects of primitives need 10 or more"),
    ],
)
def test_a_wrong_request_is_one_line(
    cli: Cli, sqlite_url: str, words: tuple[str, ...], status: int, message: str
) -> None:
    store = Store(sqlite_url, create=True)
    study_of(store, made(0, "relu", 0.5), *(made(1 + n, f"sin({n + 2} * x)", 0.4) for n in range(3)))
    store.close()
    done = cli("plot", *words, "--storage", sqlite_url)
    assert done.returncode == status
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_matplotlib_is_asked_for_when_it_is_missing(cli: Cli, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(sqlite_url, create=True)
    study_of(store, made(0, "relu", 0.5))
    store.close()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cli("plot", "s", "trials", "-o", "a.png", "--storage", sqlite_url)
    assert done.stderr == "searcher: a picture needs matplotlib: pip install 'activation-searcher[plot]'\n"
    assert json.loads(cli("plot", "s", "trials", "-f", "json", "--storage", sqlite_url).stdout)["baselines"]
    with pytest.raises(SearcherError, match="needs matplotlib"):
        pictures.figure("trials", {})
