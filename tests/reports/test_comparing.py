"""Functions and studies side by side, and the trainings of a function in a whole store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from search_space import ParseError
from searcher.evidence import EvidenceError, Verdict
from searcher.records import TrialState
from searcher.reports import comparing, finding
from searcher.reports.words import task_words
from searcher.store.store import Store
from tests.support.reported import WORTH, a_confirmation, a_search, accuracy, ended, the_plan, write
from workers.contract import TaskConfig
from workers.tasks.images.config import ImageConfig, Recipe
from workers.tasks.images.recipes import RECIPES

BEST = "x * sigmoid(2 * x)"


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url, create=True)
    yield opened
    opened.close()


# Two functions --------------------------------------------------------------------------------------------------------


def test_functions_of_a_confirmation_are_compared_under_each_configuration(store: Store) -> None:
    study = a_confirmation(store)
    found = comparing.functions(store, "2 * x * sigmoid(x + x) / 2", "relu", study=study)
    assert [one.samples.configuration for one in found] == ["resnet8 on digits", "resnet14 on digits"]
    for number, one in enumerate(found):
        (comparison,) = one.evidence.comparisons
        assert comparison.verdict is Verdict.BETTER and comparison.n == 10
        rows = one.seed_rows()
        assert [row["seed"] for row in rows] == list(range(1, 11))
        ours, theirs = accuracy(BEST, 1, number), accuracy("relu", 1, number)
        assert ours and theirs and rows[0]["difference"] == pytest.approx(ours - theirs)
        assert sum(row["difference"] for row in rows) / 10 == pytest.approx(comparison.difference)
        assert one.evidence.corrected_for == 2


def test_a_diverged_training_is_shown_and_counts_as_lost(store: Store) -> None:
    (one, _) = comparing.functions(store, "tanh", "relu", study=a_confirmation(store))
    assert [row["seed"] for row in one.seed_rows() if row["ended"][0] == "diverged"] == [3, 7]
    assert "tanh alone diverged on 2 of 10 seeds, and loses there." in one.sentences


def test_trainings_of_several_studies_count_together_if_they_were_judged_alike(store: Store) -> None:
    """A wider network and other data are not alike. Seen to fail with the task configuration left out of the key."""
    for seed in (0, 5, 6):
        a_search(store, f"seed {seed}", seeds=(seed,), seed=seed)
    a_search(store, "wider", width=32)
    a_search(store, "other data", digest="e" * 16)
    alike, wider, other = comparing.functions(store, BEST, "relu")
    assert alike.studies == ("seed 0", "seed 5", "seed 6")
    assert [row["seed"] for row in alike.seed_rows()] == [0, 5, 6]
    assert (wider.studies, other.studies) == (("wider",), ("other data",))
    assert len({one.samples.configuration for one in (alike, wider, other)}) == 3


def test_one_seed_says_what_cannot_be_concluded(store: Store) -> None:
    (one,) = comparing.functions(store, BEST, "relu", study=a_search(store))
    assert one.evidence.comparisons[0].verdict is Verdict.UNDECIDED
    assert "One seed says nothing about noise; train at least two, better five." in one.sentences


def test_no_common_seeds_say_what_to_do(store: Store) -> None:
    task = a_search(store, "empty", ()).task
    trials = [ended(0, "relu", 1, task, {"val_loss": 0.3, "val_acc": 0.9, "train_loss": 0.2})]
    trials.append(ended(1, BEST, 2, task, {"val_loss": 0.2, "val_acc": 0.95, "train_loss": 0.1}))
    study = write(store, store.study("empty"), trials)
    (one,) = comparing.functions(store, BEST, "relu", study=study)
    assert "Without common seeds nothing can be told; train both with the same seeds." in one.sentences
    assert [row["ended"] for row in one.seed_rows()] == [("not trained", "finished"), ("finished", "not trained")]


def test_ties_everywhere_are_no_difference(store: Store) -> None:
    study = a_confirmation(store, at=lambda name, seed, config: 0.9)
    (one, _) = comparing.functions(store, BEST, "relu", study=study)
    (comparison,) = one.evidence.comparisons
    assert (comparison.difference, comparison.p_holm) == (0.0, 1.0)
    assert comparison.verdict is not Verdict.BETTER


def test_what_has_no_value_is_left_out_and_said(store: Store) -> None:
    task = a_search(store, "empty", ()).task
    values = {"val_loss": 0.3, "val_acc": 0.9, "train_loss": 0.2}
    trials = [ended(n, name, n // 2, task, values) for n, name in enumerate(["relu", BEST] * 3)]
    trials[3] = replace(trials[3], state=TrialState.PRUNED, reason="too bad")
    trials[5] = replace(trials[5], cites=1)
    study = write(store, store.study("empty"), trials)
    (one,) = comparing.functions(store, BEST, "relu", study=study)
    assert [row["ended"] for row in one.seed_rows()] == [
        ("finished", "finished"),
        ("not trained", "finished"),
        ("not trained", "finished"),
    ]
    assert f"1 training of {BEST} was stopped early and left out." in one.sentences


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            "softplus(x)",
            "relu",
            r"^softplus\(x\) was not trained in study 'a search'; it has: x \* sigmoid\(2 \* x\), ",
        ),
        (BEST, "mish", r"^mish was not trained in study 'a search'"),
        ("relu", "max(0, x)", r"^relu and max\(0, x\) are the same function: max\(x, 0\)$"),
    ],
)
def test_a_function_that_was_not_trained_is_named(store: Store, a: str, b: str, message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        comparing.functions(store, a, b, study=a_search(store))


def test_a_confirmation_names_its_functions(store: Store) -> None:
    with pytest.raises(EvidenceError, match=r"^gelu was not trained in study 'a confirmation'; it has: x \* sigmoid"):
        comparing.functions(store, "gelu", "relu", study=a_confirmation(store))


def test_functions_without_a_common_task_configuration_are_not_compared(store: Store) -> None:
    a_search(store, "one", ["relu"])
    a_search(store, "other", [BEST], width=32)
    with pytest.raises(EvidenceError, match="were never judged by the same task configuration, data and metric in any"):
        comparing.functions(store, BEST, "relu")


def test_trainings_that_have_not_ended_are_counted_by_state(store: Store) -> None:
    task = a_search(store, "empty", ()).task
    failed = ended(0, BEST, 0, task, None, state=TrialState.FAILED, reason="boom")
    study = write(store, store.study("empty"), [failed, ended(1, "relu", 0, task, None)])
    with pytest.raises(EvidenceError, match=r"^no training of x \* sigmoid\(2 \* x\) in study 'empty' has a result to"):
        comparing.functions(store, BEST, "relu", study=study)


def test_an_unknown_metric_is_named_with_those_there_are(store: Store) -> None:
    study = a_search(store)
    with pytest.raises(EvidenceError, match=r"^nothing measured 'f1'; accepted: train_loss, val_acc, val_loss$"):
        comparing.functions(store, BEST, "relu", study=study, metric="f1")
    (one,) = comparing.functions(store, BEST, "relu", study=study, metric="val_loss")
    assert one.samples.metric.name == "val_loss" and one.seed_rows()[0]["difference"] > 0


# Two studies ----------------------------------------------------------------------------------------------------------


def test_comparable_studies_have_their_best_functions_tested(store: Store) -> None:
    a_search(store, "one", list(WORTH), seeds=range(5))
    a_search(store, "other", ["relu", "swish1", "x + sin(x)"], seeds=range(2, 9))
    (found,) = comparing.studies(store, store.study("one"), store.study("other"))
    assert not found.differences and found.best
    assert found.best.names == (f"{BEST} of one", "swish1 of other")
    (comparison,) = found.best.evidence.comparisons
    assert comparison.n == 3 and comparison.verdict is Verdict.BETTER
    assert [(one.function, one.seeds, one.common) for one in found.shared] == [
        ("swish1", (5, 7), 3),
        ("relu", (5, 7), 3),
        ("x + sin(x)", (5, 7), 3),
    ]
    assert found.agreement == pytest.approx(1.0)


def test_studies_that_measured_different_things_show_the_difference_and_no_test(store: Store) -> None:
    one = a_search(store, "one")
    other = a_search(store, "other", width=32, objective="val_loss", digest="")
    (found,) = comparing.studies(store, one, other)
    assert [(name, a, b) for name, a, b in found.differences] == [
        ("width", 8, 32),
        ("data digest", "d" * 16, "not known"),
        ("metric", "val_acc (maximize)", "val_loss (minimize)"),
    ]
    assert found.best is None and all(one.difference is None for one in found.shared)
    assert any(
        sentence.startswith("They measured different things (width, data digest, metric), so their values are not")
        for sentence in found.sentences
    )
    assert found.agreement == pytest.approx(1.0)


def test_a_study_without_a_complete_trial_is_said(store: Store) -> None:
    one = a_search(store, "one")
    (found,) = comparing.studies(store, one, a_search(store, "empty", ["tanh"], at=lambda *_: None))
    assert "empty has no function that was trained to the end." in found.sentences
    assert "No function was trained to the end in both." in found.sentences


def test_a_study_is_not_compared_with_itself(store: Store) -> None:
    one = a_search(store)
    with pytest.raises(EvidenceError, match="is one study; name two"):
        comparing.studies(store, one, one)


# Finding --------------------------------------------------------------------------------------------------------------


def test_a_function_is_found_under_every_name_and_form(store: Store) -> None:
    """Seen to fail with the text compared, not the key."""
    a_search(store, "one", ["x * sigmoid(x)", "relu"], seeds=(0, 4))
    a_confirmation(store, the_plan(seeds=(1, 2)))
    function = finding.function_of("silu")
    rows = [finding.row(one) for one in finding.trainings(store, [function.key])]
    assert [(row["study"], row["seed"]) for row in rows[:2]] == [("one", 0), ("one", 4)]
    assert len(rows) == 2 + 2 * 2
    assert rows[0]["judged_by"] == "resnet8 on digits, recipe quick, width=8, epochs=4"
    assert rows[0]["metrics"].keys() == {"train_loss", "val_loss", "val_acc"}
    with pytest.raises(ParseError):
        finding.function_of("max(x")


def test_keys_of_older_rules_are_computed_anew(store: Store) -> None:
    """A citation of another function's result, which the first rules allowed, is no value of this function."""
    task = a_search(store, "empty", (), versions={}).task
    values = {"val_loss": 0.3, "val_acc": 0.9, "train_loss": 0.2}
    relu, other = ended(0, "relu", 0, task, values), ended(1, BEST, 0, task, values)
    old = [replace(relu, key="old"), replace(other, key="old", cites=0)]
    write(store, store.study("empty"), old)
    (found,) = finding.trainings(store, [finding.function_of("relu").key])
    assert found.trial.number == 0 and finding.row(found)["value"] == 0.9
    (found,) = finding.trainings(store, [finding.function_of(BEST).key])
    assert (finding.row(found)["cites_other_function"], finding.row(found)["value"]) == (True, None)


def test_maxout_is_found_though_it_is_no_expression(store: Store) -> None:
    task = a_search(store, "empty", ()).task
    values = {"val_loss": 0.3, "val_acc": 0.9, "train_loss": 0.2}
    maxout = replace(ended(0, "relu", 0, task, values), expression="maxout(2)", key="maxout(2)", name="maxout")
    write(store, store.study("empty"), [maxout])
    (found,) = finding.trainings(store, [finding.function_of("maxout").key])
    assert found.trial.name == "maxout"


# Task configurations in words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ImageConfig().task_config(), "resnet8 on digits, recipe quick"),
        (ImageConfig(recipe=RECIPES["wrn"]).task_config(), "resnet8 on digits, recipe wrn"),
        (
            ImageConfig(
                "cifar10", model="wrn-16-4", model_kwargs={"stem_stride": 2}, recipe=Recipe(epochs=2)
            ).task_config(),
            "wrn-16-4 on cifar10, recipe quick, model_kwargs={stem_stride: 2}, epochs=2",
        ),
        (
            TaskConfig("images", {"evaluation": {"test": True, "vary_split": True}}),
            "resnet8 on digits, recipe quick, measured on the test part, a new split for each seed",
        ),
        (TaskConfig("/home/me/my.py:train", {"options": {"width": 8}, "digest": "d"}), "my.py:train (width=8)"),
    ],
)
def test_task_configurations_are_named_by_what_is_unusual(config: TaskConfig, expected: str) -> None:
    assert task_words(config) == expected
