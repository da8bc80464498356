"""What a report says: the story is right by the numbers behind it, and the commands make the study again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from search_space import code, parse
from searcher.display import as_json
from searcher.records import Kind, TrialState
from searcher.reports import cost, finding
from searcher.reports.document import files, html, illustrations, markdown
from searcher.reports.document.data import report_data
from searcher.settings import loading
from searcher.settings.config import Config, differences
from searcher.store.store import Store
from tests.support.commands import called
from tests.support.reported import (
    VAL_ACC,
    VERSIONS,
    a_confirmation,
    a_search,
    accuracy,
    ended,
    the_plan,
    write,
)
from workers.tasks.images.config import DECLARATION

BEST = "x * sigmoid(2 * x)"
HOSTILE = '<script>alert(1)</script> & "quotes" | `ticks` \u202e\x1b[31m *stars* [link](http://example.com) {{ 7 * 7 }}'


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url, create=True)
    yield opened
    opened.close()


def data_of(store: Store, study: Any, **options: Any) -> dict[str, Any]:
    data = report_data(store, study, **{"costs": False, **options})
    assert json.loads(as_json(data)) == data, "the JSON is the data"
    return data


def told(data: dict[str, Any]) -> str:
    return "\n".join([data["headline"], *data["story"]])


# A search -------------------------------------------------------------------------------------------------------------


def test_a_search_tells_what_won_and_that_one_seed_is_weak(store: Store) -> None:
    study = a_search(store)
    data = data_of(store, study)
    best, relu = accuracy(BEST, 0), accuracy("relu", 0)
    assert best and relu
    assert data["winner"]["expression"] == BEST
    assert data["headline"] == (
        f"{BEST} ranks first by val_acc, {best - relu:.3g} better than ReLU: weak evidence, from one seed."
    )
    story = told(data)
    assert "One seed: weak evidence." in story and "Confirm it with: searcher confirm 'a search'" in story
    assert "val_acc is validation only, optimistic." in story
    assert data["code"]["text"] == code(parse(BEST), "torch")


def test_nothing_beat_relu_is_said_plainly(store: Store) -> None:
    study = a_search(store, at=lambda name, seed, config: 0.9 if name == "relu" else 0.8)
    data = data_of(store, study)
    assert data["headline"] == "Nothing beat ReLU by val_acc."
    assert "Nothing beat ReLU: it ranks first itself" in told(data)


def test_a_tie_with_relu_beats_nothing(store: Store) -> None:
    study = a_search(store, functions=[BEST, "relu"], at=lambda *_: 0.9)
    data = data_of(store, study)
    assert data["headline"].startswith("Nothing beat ReLU by val_acc")
    assert not data["winner"]["beats_reference"]


def test_a_search_without_relu_says_so(store: Store) -> None:
    data = data_of(store, a_search(store, functions=[BEST, "swish1"]))
    assert "ReLU was not trained to the end here, so nothing can be said against it." in told(data)


def test_a_search_with_several_seeds_has_its_difference_tested(store: Store) -> None:
    data = data_of(store, a_search(store, seeds=range(6)))
    against = data["search"]["against_relu"]
    assert against["comparison"]["verdict"] == "better" and against["comparison"]["n"] == 6
    assert f"How sure is that? {against['sentence']}" in told(data)
    assert "weak evidence" not in told(data)


def test_a_study_without_a_complete_trial_has_a_report(store: Store) -> None:
    study = a_search(store, functions=["tanh", "relu"], at=lambda *_: None)
    data = data_of(store, study)
    assert data["headline"] == "No function has been trained to the end."
    assert data["winner"] is None and data["code"] is None
    assert "training loss is not finite at epoch n, step n (2)" in told(data)
    assert "No function has been trained" in html.page(data) and markdown.text(data, {})
    empty = data_of(store, a_search(store, "empty", ()))
    assert html.page(empty) and markdown.text(empty, {})


def test_a_search_points_to_its_confirmation_and_back(store: Store) -> None:
    study, confirmed = a_search(store), a_confirmation(store)
    a_confirmation(store, the_plan(search="another"), "of another")
    data = data_of(store, study)
    assert [one["study"] for one in data["related"]] == ["a confirmation"]
    assert f"{BEST}, swish1, x * tanh(x) are better than relu by test_acc" in told(data)
    (search,) = data_of(store, confirmed)["related"]
    assert search["study"] == "a search" and search["leaderboard"][0]["expression"] == BEST
    assert "weak evidence" not in " ".join(search["story"]), "the confirmation is the evidence"


# A confirmation -------------------------------------------------------------------------------------------------------


def test_a_confirmation_tells_who_won_and_by_how_much(store: Store) -> None:
    a_search(store)
    data = data_of(store, a_confirmation(store))
    assert data["headline"] == f"{BEST} beats relu by test_acc under 2 of 2 configurations."
    for one in data["confirmation"]["configurations"]:
        (comparison,) = [c for c in one["comparisons"] if c["function"] == BEST]
        ours = [one["values"][BEST][str(seed)] for seed in range(1, 11)]
        theirs = [one["values"]["relu"][str(seed)] for seed in range(1, 11)]
        assert comparison["difference"] == pytest.approx(sum(ours) / 10 - sum(theirs) / 10)
        assert f"{one['name']}: {comparison['sentence']}" in told(data)
    assert "validation only" not in told(data)


def test_seeds_that_diverged_are_named(store: Store) -> None:
    data = data_of(store, a_confirmation(store))
    assert "tanh on 2 of 10 seeds under resnet8 on digits (seeds 3 and 7)" in told(data)
    assert data["confirmation"]["configurations"][0]["values"]["tanh"]["3"] is None
    none = data_of(store, a_confirmation(store, the_plan((BEST, "relu")), "all finished"))
    assert "No training diverged." in told(none)


def test_the_winners_curse_is_shown_by_the_search_s_metric(store: Store) -> None:
    """The search's best had luck: 0.99, and its mean with new seeds is the honest one."""
    plan = the_plan((BEST, "x * tanh(x)", "relu"))
    lucky = replace(plan.functions[0], searched=0.99)
    plan = replace(plan, functions=(lucky, *plan.functions[1:]))
    data = data_of(store, a_confirmation(store, plan))
    row = data["confirmation"]["curse"]["functions"][0]
    means = [accuracy(BEST, seed) or 0.0 for seed in range(1, 11)]
    assert row["mean"] == pytest.approx(sum(means) / 10) and row["better_by"] == pytest.approx(row["mean"] - 0.99)
    assert f"{BEST} had the best val_acc there, 0.9900; with 10 new seeds" in told(data)
    assert f"{abs(row['better_by']):.3g} worse" in told(data)


def test_without_a_test_metric_a_confirmation_is_optimistic(store: Store) -> None:
    study = a_confirmation(store, the_plan(metric=VAL_ACC), declared=DECLARATION)
    assert "No test metric was measured: val_acc is validation only, optimistic." in told(data_of(store, study))


def test_nothing_is_confirmed_where_all_are_equal(store: Store) -> None:
    study = a_confirmation(store, the_plan((BEST, "swish1", "relu")), at=lambda name, seed, config: 0.9)
    data = data_of(store, study)
    assert data["headline"] == "Nothing is shown to beat relu."
    assert data["winner"]["label"] == "relu" and not data["winner"]["confirmed"]


@pytest.mark.parametrize(("trained", "headline"), [(0, "Nothing can be compared yet."), (23, "So far, ")])
def test_an_unfinished_confirmation_says_so(store: Store, trained: int, headline: str) -> None:
    data = data_of(store, a_confirmation(store, trained=trained))
    assert data["headline"].startswith(headline)
    assert f"not finished: {trained} of 100 trainings have ended" in told(data)
    assert html.page(data) and markdown.text(data, {})


def test_a_sequential_confirmation_states_its_rule(store: Store) -> None:
    plan = the_plan((BEST, "x * tanh(x)", "relu"), range(1, 11), looks=(5, 10), configurations=1)
    data = data_of(store, a_confirmation(store, plan, trained=9))
    assert "Nothing can be compared yet: the first look is after 5 seeds." in told(data)
    data = data_of(store, a_confirmation(store, plan, "later", trained=15))
    assert data["confirmation"]["rule"].startswith("Look at test_acc after 5 and 10 seeds.")
    assert data["confirmation"]["rule"] in unescape(html.page(data))


def test_a_design_that_is_no_confirmation_has_a_report(store: Store) -> None:
    config = a_search(store).config
    tasks = a_search(store, "other").tasks
    study = store.create_study("made", a_confirmation(store).kind, 4, tasks, {**config, "design": []}, VERSIONS)
    values = {"val_loss": 0.3, "val_acc": 0.9, "train_loss": 0.2}
    study = write(
        store, study, [ended(n, name, n // 2, study.task, values) for n, name in enumerate(("relu", BEST) * 2)]
    )
    data = data_of(store, study)
    assert (data["study"]["kind"], data["reproduction"]["commands"]) == ("design", [])
    assert "4 of 4 trainings have ended" in told(data)
    assert html.page(data)


# Costs and pictures ---------------------------------------------------------------------------------------------------


def test_costs_are_measured_once_for_table_and_picture(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    measure = cost.measure

    def counting(expressions: Any, *rest: Any, **options: Any) -> Any:
        calls.append(expressions)
        return measure(expressions, *rest, **{**options, "rounds": 1})

    monkeypatch.setattr(cost, "measure", counting)
    data = data_of(store, a_search(store), costs=True)
    (picture,) = [one["data"] for one in data["pictures"] if one["kind"] == "cost"]
    assert len(calls) == 1
    assert [row["both_ratio"] for row in data["costs"]["functions"]] == [
        row["both_ratio"] for row in picture["functions"]
    ]
    row = next(row for row in data["costs"]["functions"] if row["label"] == BEST)
    assert f"{BEST} takes {row['both_ratio']:.2g} times as long as ReLU" in told(data)


def test_without_matplotlib_a_report_says_how_to_get_pictures(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(illustrations, "find_spec", lambda name: None)
    data = data_of(store, a_search(store))
    assert data["pictures"], "the data need no matplotlib"
    page = html.page(data)
    assert "Pictures need matplotlib: pip install &#39;activation-searcher[plot]&#39;" in page and "<img" not in page


def test_the_same_study_has_the_same_report(store: Store, tmp_path: Path) -> None:
    study = a_search(store)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for ending in files.ENDINGS:
            files.write(store, study, tmp_path / name / f"report{ending}", costs=False)
    one, two = (
        {f.relative_to(folder): f.read_bytes() for f in sorted(folder.rglob("*.*"))}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two and len([name for name in one if name.suffix == ".svg"]) >= 4
    text = one[Path("report.md")].decode()
    for name in one:
        assert name.suffix != ".svg" or f"({name})" in text


# Hostile texts --------------------------------------------------------------------------------------------------------


def test_names_and_expressions_are_escaped(store: Store) -> None:
    """Seen to fail without autoescape."""
    study = a_search(store, HOSTILE)
    trial = replace(ended(0, "tanh", 0, study.task, None), name=HOSTILE[:60], expression=HOSTILE, key="k")
    good = ended(1, "tanh", 0, study.task, {"val_loss": 0.1, "val_acc": 0.99, "train_loss": 0.1})
    good = replace(good, expression=HOSTILE, key="k2", kind=Kind.CANDIDATE, name="")
    hostile = write(store, a_search(store, "x" + HOSTILE, ()), [replace(trial, reason=HOSTILE), good])
    for one in (study, hostile):
        data = data_of(store, one)
        page, text = html.page(data), markdown.text(data, {})
        assert "<script>alert" not in page and page.count("<script") == 1
        assert "{{ 7 * 7 }}" in page
        assert "<script" not in text.replace("`<script", "").split("```")[0]
        for written in (page, text):
            assert "\u202e" not in written and "\x1b" not in written
    assert data_of(store, hostile)["code"]["why_not"]


# How to reproduce it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sampler": "optuna:tpe", "sampler_kwargs": {"n_startup_trials": 5}, "seed": 7, "training_seed": 9},
        {"units": 2, "unary": ("x", "sin"), "baselines": ("relu", "x * tanh(x)"), "preflight": False},
        {"dataset": "cifar10", "model": "wrn-16-4", "model_kwargs": {"stem_stride": 2}, "compile": True},
    ],
    ids=str,
)
def test_the_command_of_a_search_asks_for_the_same(
    store: Store, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = a_search(store, "it's mine", **settings)
    command, report = data_of(store, study)["reproduction"]["commands"]
    assert report == """searcher report 'it'"'"'s mine' -o report.html"""
    asked: list[Config] = []

    def launched(request: Any, *_: Any, **__: Any) -> None:
        asked.append(loading.load(request.experiment, request.given, request.preset))
        raise KeyboardInterrupt

    monkeypatch.setattr("searcher.sessions.launched", launched)
    called(tmp_path, *shlex.split(command)[1:])
    (config,) = asked
    stored = Config.of(**{**study.config, "recipe": Config().training.images.recipe})
    stored = stored.replace(recipe=type(stored.training.images.recipe)(**study.config["recipe"]))
    found = [
        one for one in differences(config, stored) if one[1] != one[2] and list(one[1] or ()) != list(one[2] or ())
    ]
    assert found == [] and config.study_name == "it's mine" and config.search.n_trials == study.n_trials


def test_everything_to_reproduce_it_is_there(store: Store) -> None:
    a_search(store)
    data = data_of(store, a_confirmation(store))
    found = data["reproduction"]
    assert found["git_commit"] == VERSIONS["git_commit"] and found["versions"]["torch"] == VERSIONS["torch"]
    assert found["seeds"]["training"] == list(range(1, 11))
    assert [task["data_digest"] for task in found["task_configs"]] == ["d" * 16] * 2
    assert [task["settings"]["model"] for task in found["task_configs"]] == ["resnet8", "resnet14"]
    (confirm, _) = found["commands"]
    words = shlex.split(confirm)
    assert words[:3] == ["searcher", "confirm", "a search"]
    assert [words[n + 1] for n, word in enumerate(words) if word == "--expression"] == [
        *(BEST, "swish1", "x * tanh(x)", "tanh"),
    ]
    for flag, value in {
        "--seeds": "10",
        "--first-seed": "1",
        "--reference": "relu",
        "--models": "resnet8,resnet14",
    }.items():
        assert words[words.index(flag) + 1] == value
    page = html.page(data)
    assert VERSIONS["git_commit"] in page and "d" * 16 in page and "recipe.epochs" in page


def test_states_of_trials_are_counted(store: Store) -> None:
    task = a_search(store, "empty", ()).task
    values = {"val_loss": 0.3, "val_acc": 0.9, "train_loss": 0.2}
    trials = [ended(n, BEST, n, task, values) for n in range(3)]
    trials[1] = replace(trials[1], state=TrialState.PRUNED, reason="too bad")
    trials.append(ended(3, "relu", 0, task, None))
    data = data_of(store, write(store, store.study("empty"), trials))
    assert data["study"]["states"]["PRUNED"] == 1
    assert "1 stopped early and 1 impossible to train" in told(data)


def test_a_function_that_wins_here_and_loses_there_does_not_win(store: Store) -> None:
    def at(name: str, seed: int, config: int) -> float | None:
        acc = accuracy(name, seed, 0)
        gain = 0.1 if config == 0 else -0.2
        return acc + (gain if name == BEST else 0.0) if acc else None

    data = data_of(store, a_confirmation(store, the_plan((BEST, "x * tanh(x)", "relu")), at=at))
    verdicts = [c["verdict"] for one in data["confirmation"]["configurations"] for c in one["comparisons"][:1]]
    assert verdicts == ["better", "worse"]
    assert data["winner"]["label"] != BEST


def test_the_function_that_comes_closest_is_told_with_the_seeds_that_it_needs(store: Store) -> None:
    plan = the_plan((BEST, "swish1", "relu"), range(1, 6), configurations=1)
    study = a_confirmation(store, plan, at=lambda name, seed, config: accuracy("gelu", seed + 100 * len(name)))
    data = data_of(store, study)
    assert data["headline"] == "Nothing is shown to beat relu."
    closest = data["winner"]["closest"]
    assert f"The function that comes closest to beating relu is {closest}:" in data["story"]
    (comparison,) = [c for c in data["confirmation"]["configurations"][0]["comparisons"] if c["function"] == closest]
    assert comparison["verdict"] == "undecided" and comparison["sentence"] in told(data)


@pytest.mark.slow
def test_both_kinds_of_databases_give_the_same_report(sqlite_url: str, postgresql_url: str) -> None:
    reports = []
    for url in (sqlite_url, postgresql_url):
        opened = Store(url, create=True)
        a_search(opened, seeds=(0, 1))
        a_confirmation(opened)
        for name in ("a search", "a confirmation"):
            data = data_of(opened, opened.study(name))
            data["study"]["created"] = ""
            reports.append(data)
        found = finding.trainings(opened, [finding.function_of(BEST).key])
        reports.append({"found": [finding.row(one) for one in found]})
        opened.close()
    assert reports[:3] == reports[3:]


def test_ranks_chosen_learning_rates_and_dropped_functions_are_shown(store: Store) -> None:
    data = data_of(store, a_confirmation(store))
    found = data["confirmation"]
    found["configurations"][0] |= {"rates": {BEST: 0.03}, "dropped": {"tanh": 5}}
    row = {"function": BEST, "mean_rank": 1.2, "p_wilcoxon": 0.002, "p_holm": 0.004}
    found["ranks"] = {"configurations": 10, "functions": [row], "chi2": 9.0, "p": 0.00003, "critical_difference": 1.5}
    for text in (unescape(html.page(data)), markdown.text(data, {})):
        assert "Its learning rate, chosen by validation: 0.03." in text
        assert "By the rule it was trained no further after 5 seeds." in text
        assert "Mean ranks over 10 configurations" in text and "1.2" in text
