"""Searches at gates and in the place of norms, and the sets of known functions for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from search_space import GATES, SETS, SITES, SpaceError, baseline, key, parse
from searcher import UsageError
from searcher.driver import session
from searcher.records import TrialState
from searcher.reports.learned import LearnedFunction
from searcher.settings.config import Config
from searcher.settings.plan import baseline_trials, task_config_of, with_sets
from searcher.store.store import Store
from tests.support.searches import run
from workers.contract import WorkersError
from workers.pools.base import InlinePool
from workers.tasks.images.config import ImageConfig, Recipe

TINY = {"depth": 1, "width": 8, "heads": 2, "patch": 4}
AT_GATES = Config.of(
    model="vit-4-64",
    model_kwargs=TINY,
    site="gate",
    limit_train=100,
    limit_val=50,
    recipe=Recipe(epochs=1, batch_size=16),
    sampler="random",
    n_trials=6,
    pool="inline",
    baselines=("relu", "swiglu", "swish"),
)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url, create=True)
    yield opened
    opened.close()


def test_a_search_over_gates_trains_them_and_calls_them_by_their_names(store: Store) -> None:
    session.check(AT_GATES)
    study = session.create_study(store, AT_GATES)
    run(store, study, AT_GATES, InlinePool())
    trials = store.trials(study)
    assert [trial.name for trial in trials[:3]] == ["reglu", "swiglu", "swish"]
    assert [trial.expression for trial in trials[:2]] == ["max(x, 0)", "x * sigmoid(x)"]
    trained = [trial for trial in trials if trial.trained and trial.state is TrialState.COMPLETE]
    assert len({trial.value for trial in trained}) == len(trained) >= 4, "each function gives another network"
    assert {row["name"] for row in store.leaderboard(study, baselines=True)} >= {"reglu", "swiglu"}
    assert study.task.config.parameters["site"] == "gate"
    learned = LearnedFunction.of(store, study, 2)
    assert learned.replaces == "gate" and learned.sites == ("blocks.0.feed_forward.1.function",)
    assert (learned.parameters[0].channels, learned.parameters[0].dim) == (21, -1)  # two thirds of 4 * 8


def test_only_sites_that_are_not_activations_are_stored() -> None:
    """So studies of earlier versions keep the hashes of their task configurations."""
    hashes = {site: task_config_of(AT_GATES.replace(site=site)).hash for site in SITES}
    assert len(set(hashes.values())) == 3
    assert "site" not in ImageConfig().parameters()
    assert ImageConfig.from_parameters({"site": "norm"}).site == "norm"


@pytest.mark.parametrize("site", SITES)
def test_the_sets_of_known_functions(site: str) -> None:
    for name, functions in SETS[site].items():
        keys = [key(parse(baseline(function, site).expression)) for function in functions]
        assert len(set(keys)) == len(keys) and (keys or name == "none")
        trials = baseline_trials(Config.of(site=site, baselines=(name,), n_trials=100))
        assert [trial.name for trial in trials] == list(functions)
    assert set(SETS[site]) == {"all", "modern", "none"}
    both = with_sets(["all", "modern", "none", "x * tanh(x)"], site)
    assert both == [*dict.fromkeys([*SETS[site]["all"], *SETS[site]["modern"]]), "x * tanh(x)"]


def test_gates_are_known_at_gates_only() -> None:
    for gate, function in GATES.items():
        assert baseline(gate, "gate") is baseline(function)
        for site, place in (("activation", "an activation"), ("norm", "a normalisation")):
            message = f"{gate!r} is a gate.*the place of {place}; name {function!r}, or use --site gate"
            with pytest.raises(SpaceError, match=message):
                baseline(gate, site)
    with pytest.raises(SpaceError, match="unknown baseline 'reglo'; did you mean 'reglu'"):
        baseline("reglo", "gate")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "resnet8"}, "--site gate: model 'resnet8' has no gate .*these have: vit-4-64"),
        (
            {"model": "lecture", "site": "norm", "baselines": ("dyt",)},
            "--site norm: model 'lecture' has no norm .*these have: resnet8",
        ),
        ({"baselines": ("relu", "maxout")}, "maxout takes the place of an activation, not of a gate; leave it out"),
    ],
)
def test_a_site_that_does_not_fit_is_a_usage_error(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        session.check(AT_GATES.replace(**{"model_kwargs": {}, **settings}))


def test_a_feed_forward_that_contradicts_the_site() -> None:
    plain = AT_GATES.replace(model_kwargs={**TINY, "ffn": "plain"})
    with pytest.raises(WorkersError, match="ffn 'plain' have no gate to search; use --site activation"):
        session.check(plain)
    session.check(plain.replace(site="norm", baselines=("dyt", "derf")))
