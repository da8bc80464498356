"""Published figures beside ours, and the steps of reproductions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from scipy import stats

from search_space import KNOWN, key, parse
from searcher import UsageError
from searcher.reports import published
from searcher.reports.confirmed import Confirmed
from searcher.reports.document.reproduction import commands
from searcher.reproductions import FOUND, REPRODUCTIONS, TABLE, steps
from searcher.settings import loading
from searcher.settings.confirm import ConfirmSettings
from searcher.store.store import Store
from tests.support.commands import Cli
from tests.support.confirmations import SETTINGS, Judge, make, plan
from tests.support.searches import run
from workers.pools.base import InlinePool


def test_all_figures_of_the_paper_are_there() -> None:
    found = published.figures()
    on_cifar = [place for place in found if place[0].startswith("CIFAR")]
    assert len(on_cifar) == 6
    for place in on_cifar:
        assert set(found[place]) == {*TABLE, *FOUND}, "nine known functions and the eight that were found"
        assert all(len(runs) == 1 and 0.5 < runs[0] < 1 for runs in found[place].values())
    resnet = found["ImageNet", "Inception-ResNet-v2"]
    assert set(resnet) == set(TABLE)
    assert resnet["elu"] == [0.758, 0.799, 0.8]
    assert found["CIFAR-10", "ResNet-164"]["x * asinh(x)^2"] == [0.851]


def test_every_name_is_a_function() -> None:
    for name in {*TABLE, *FOUND}:
        assert name in KNOWN or key(parse(name))


def test_the_published_runs_by_themselves() -> None:
    """The question of the lecture, asked of its own table: three runs each, with no seeds in common."""
    runs = published.figures()["ImageNet", "Inception-ResNet-v2"]
    found = {row["function"]: row for row in published.welch(runs)}
    assert set(found) == set(TABLE) - {"relu"}
    expected = stats.ttest_ind(runs["swish"], runs["relu"], equal_var=False).pvalue
    assert found["swish"]["p"] == pytest.approx(expected)
    assert found["swish"]["p_holm"] >= found["swish"]["p"]
    assert found["elu"]["p_holm"] == 1, "one of its three runs was 4 points lower"
    assert published.welch({"relu": [0.9], "elu": [0.8]}) == [], "single runs have no noise to compare with"


def test_agreement_is_the_rank_correlation() -> None:
    ours = {"relu": 0.9, "swish1": 0.92, "tanh": 0.8, "sin": 0.3, "gelu": 0.91, "new": 0.99}
    theirs = {"relu": [0.7], "swish1": [0.75], "tanh": [0.71], "sin": [0.1], "gelu": [0.74], "other": [0.1]}
    found = published.agreement(ours, theirs)
    common = ["relu", "swish1", "tanh", "sin", "gelu"]
    expected = stats.spearmanr([ours[name] for name in common], [theirs[name] for name in common]).statistic
    assert found["functions"] == 5
    assert found["spearman"] == pytest.approx(expected)
    assert found["low"] < found["spearman"] < found["high"]
    few = published.agreement({"relu": 0.9}, theirs)
    assert (few["functions"], few["spearman"]) == (1, None)
    same = published.agreement(dict.fromkeys(common, 0.5), theirs)
    assert same["spearman"] is None, "ties everywhere have no order"


def test_facts_of_a_reproduction(store: Store) -> None:
    confirmation, tasks = plan(reproduces="lecture smoke")
    study = make(store, confirmation, tasks)
    run(store, study, SETTINGS, InlinePool(run=Judge()))
    found = Confirmed.of(store, study)
    facts = published.facts(found)
    assert facts
    json.dumps(facts)
    assert [row["function"] for row in facts["functions"]] == ["relu", "swish1"], "what was published"
    assert facts["functions"][0]["ours"] == {"network 0": 0.5}
    assert facts["agreement"][0]["functions"] == 2
    assert facts["reduced"] == ["It only shows that the commands run."]
    assert published.facts(replace(found, plan=replace(confirmation, reproduces=""))) is None
    assert commands(study, confirmation)[0] == "searcher reproduce lecture --scale smoke --dataset digits"


@pytest.mark.parametrize(
    ("name", "scale", "dataset"),
    [
        (name, scale, data)
        for name, one in REPRODUCTIONS.items()
        for scale in one.scales
        for data in one.scales[scale].data
    ],
)
def test_the_settings_of_every_step_are_accepted(name: str, scale: str, dataset: str) -> None:
    found = steps(name, scale, dataset)
    ConfirmSettings.of(found.confirm)
    for given in (found.search, found.confirmation):
        loading.load(None, given or {})


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="unknown reproduction 'lectures'; did you mean 'lecture'"):
        steps("lectures", "cpu")
    with pytest.raises(UsageError, match="unknown scale 'big'; accepted: smoke, cpu, full"):
        steps("lecture", "big")
    with pytest.raises(UsageError, match="data set 'cifar10' is not for scale smoke; accepted: digits"):
        steps("lecture", "smoke", "cifar10")


@pytest.mark.slow
def test_the_same_command_goes_on(cli: Cli) -> None:
    command = ("reproduce", "swish2017", "--scale", "smoke", "--pool", "inline", "--threads", "1", "-q")
    first = cli(*command)
    assert first.returncode == 0, first.stderr
    studies = json.loads(cli("studies", "-f", "json").stdout)
    assert [(one["study"], one["kind"], one["done"], one["failed"]) for one in studies] == [
        ("swish2017-smoke-digits", "search", 12, 0),
        ("swish2017-smoke-digits-confirmed", "design", (len({*TABLE, *FOUND}) + 3) * 2, 0),
    ]
    again = cli(*command)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert json.loads(cli("studies", "-f", "json").stdout) == studies
