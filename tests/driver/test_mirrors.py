"""Mirrors: -f(-x) as an expression, in profiles and rankings, and in searches that leave mirrors untrained."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search_space import KNOWN, Activation, Choices, Expression, Grammar, is_own_mirror, key, mirror, parse, space
from searcher.driver import leases, session
from searcher.driver.loop import Search
from searcher.driver.mirrors import Mirrors
from searcher.driver.state import SearchState
from searcher.observe.progress import describe
from searcher.proposers import SamplerProposer
from searcher.records import Kind, Study, Trial, TrialState
from searcher.reports.function import FunctionReport
from searcher.reports.mirrors import marked
from searcher.reports.report import conclusion
from searcher.samplers.contract import Observation, Pending
from searcher.settings import loading
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.commands import Cli
from tests.support.made import OBJECTIVES, create, result
from tests.support.searches import (
    SETTINGS,
    CountingJudge,
    ThreadPool,
    completed,
    in_sessions,
    judge,
    never,
    run,
    untimed,
)
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool
from workers.tasks.images.models import NETWORKS, mirror_caveat

# A space in which every second function is the mirror of another one.
MIRRORED = ("x", "max0", "min0", "sin", "cos")
SKIPPING = SETTINGS.replace(unary=MIRRORED, binary=("add", "sub", "max", "min"), n_trials=90, skip_mirrors=True)
BETAS = (0.7, 1.9, -0.4, 1.3, 0.2, 2.3)
POINTS = torch.linspace(-7.3, 7.3, 101, dtype=torch.float64)[:, None]
ODD = (
    "x",
    "tanh(x)",
    "softsign",
    "x^3",
    "sin(x) * cosh(x)",
    "beta * x",
    "max(x, 0) + min(x, 0)",
    "sign(x)",
    "x * abs(x)",
)
NOT_ODD = ("max(x, 0)", "swish", "sigmoid(x)", "x^2", "x + beta", "gelu", "cos(x)", "max(x, 0) + 0.01 * min(x, 0)")

functions = st.tuples(st.sampled_from(["swish2017", "small1", "large1"]), st.integers(1, 2), st.randoms()).map(
    lambda drawn: (grammar := space(drawn[0], drawn[1])).decode(grammar.sample(drawn[2]))
)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url, create=True)
    yield opened
    opened.close()


# The expression -------------------------------------------------------------------------------------------------------


def values(expression: Expression, x: torch.Tensor, betas: tuple[float, ...]) -> torch.Tensor:
    """Return the function's values at `x` in float64. `betas`: of the parameters, in order of appearance."""
    module = Activation(expression).double()
    for parameter, value in zip(module.betas, betas, strict=False):
        torch.nn.init.constant_(parameter, value)
    with torch.no_grad():
        found: torch.Tensor = module(x)
    return found


@settings(max_examples=150, derandomize=True)
@given(functions)
def test_the_mirror_of_the_mirror_is_the_function(expression: Expression) -> None:
    assert key(mirror(mirror(expression))) == key(expression)


@settings(max_examples=150, derandomize=True)
@given(functions)
def test_the_mirror_has_the_values_of_minus_f_of_minus_x(expression: Expression) -> None:
    """The normal form numbers parameters again, so the values must agree for one of their orders."""
    wanted = -values(expression, -POINTS, BETAS)
    orders = permutations(BETAS[: len(expression.betas)])
    found = (values(mirror(expression), POINTS, order) for order in orders)
    assert any(torch.allclose(other, wanted, rtol=1e-9, atol=1e-9, equal_nan=True) for other in found)


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("max(x, 0)", "min(0, x)"),
        ("min(x, 0)", "max(0, x)"),
        ("tanh(x)", "tanh(x)"),
        ("cos(x)", "-cos(x)"),
        ("x^2", "-x^2"),
        ("beta", "-beta"),
        ("x * sigmoid(beta * x)", "x * sigmoid(-(beta * x))"),
        ("x + beta", "x + -beta"),
        ("softplus(x)", "-softplus(-x)"),
    ],
)
def test_mirrors_are_written_in_normal_form(text: str, mirrored: str) -> None:
    assert str(mirror(text)) == str(mirror(parse(text))) == mirrored
    assert mirror(mirrored) == mirror(mirror(text))


@pytest.mark.parametrize("text", ODD)
def test_odd_functions_are_their_own_mirrors(text: str) -> None:
    assert is_own_mirror(text) and key(mirror(text)) == key(parse(text))


@pytest.mark.parametrize("text", NOT_ODD)
def test_other_functions_are_not_their_own_mirrors(text: str) -> None:
    """The mirror of `x + beta` is `x - beta`. They are equal if beta changes its sign, but both start with beta = 1."""
    assert not is_own_mirror(text) and key(mirror(text)) != key(parse(text))


def perceptron(text: str) -> nn.Sequential:
    torch.manual_seed(3)
    sites = [Activation(text, 6), nn.BatchNorm1d(6), Activation(text, 6)]
    return nn.Sequential(nn.Linear(4, 6), sites[0], nn.Linear(6, 6), *sites[1:], nn.Linear(6, 3)).double()


def trained(model: nn.Sequential) -> list[float]:
    """Return the losses of a few training steps on fixed data."""
    source = torch.Generator().manual_seed(5)
    x, y = torch.randn(32, 4, generator=source).double(), torch.randint(3, (32,), generator=source)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    "text", ["max(x, 0)", "swish", "x + beta", "beta1 * max(x, 0) + (1 - beta1) * sin(beta2 * x)", "celu", "gelu"]
)
def test_a_mirrored_network_is_trained_alike_parameters_too(text: str) -> None:
    """The first and last weights and the biases are negated. Seen to fail with f instead of its mirror."""
    model, mirrored = perceptron(text), perceptron(str(mirror(text)))
    with torch.no_grad():
        for n, layer in enumerate(layer for layer in mirrored if isinstance(layer, nn.Linear)):
            negated = {0: (layer.weight, layer.bias), 1: (layer.bias,), 2: (layer.weight,)}
            for tensor in negated[n]:
                tensor.neg_()
    losses = trained(model)
    assert losses[-1] < 0.8 * losses[0]
    assert trained(mirrored) == pytest.approx(losses, rel=1e-9)
    betas = [beta for m in model if isinstance(m, Activation) for beta in m.betas]
    theirs = [beta for m in mirrored if isinstance(m, Activation) for beta in m.betas]
    for one, other in zip(betas, theirs, strict=True):
        assert sorted(one.flatten().tolist()) == pytest.approx(sorted(other.flatten().tolist()), rel=1e-9)
    assert not betas or max((beta - 1).abs().max() for beta in betas) > 1e-3, "parameters are trained"


# Profiles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, row in KNOWN.items() if not is_own_mirror(row.expression)])
def test_show_names_the_known_function_that_is_mirrored(name: str) -> None:
    card = FunctionReport(mirror(KNOWN[name].expression))
    facts = card.facts()
    assert name in facts["mirror_of"] and not facts["own_mirror"]
    assert card.words()["mirror"].startswith(f"mirror of {name}")


def test_show_says_it_in_a_line(cli: Cli) -> None:
    for expression, line in (
        ("min(x, 0)", "mirror         mirror of relu: -f(-x) = max(0, x)"),
        ("x * sigmoid(-x)", "mirror         mirror of swish1, silu: -f(-x) = x * sigmoid(x)"),
        ("tanh(x)", "mirror         its own mirror: -f(-x) = f(x)"),
        ("sin(x) + x^3", "mirror         its own mirror: -f(-x) = f(x)"),
        ("relu", "mirror         -f(-x) = min(0, x)"),
    ):
        done = cli("show", expression)
        assert done.returncode == 0 and line in done.stdout.splitlines()
    (facts,) = json.loads(cli("show", "min(x, 0)", "-f", "json").stdout)
    assert (facts["mirror"], facts["mirror_of"], facts["own_mirror"]) == ("max(0, x)", ["relu"], False)


# Rankings -------------------------------------------------------------------------------------------------------------


def ranked(store: Store, *rows: tuple[str, str, float], objective: str = "val_loss") -> Study:
    """Return a study with one finished trial for each (name, expression, val_loss). Only baselines have names."""
    trials = []
    for number, (name, text, loss) in enumerate(rows):
        found = text if text.startswith("maxout") else key(parse(text))
        kind = Kind.BASELINE if name else Kind.CANDIDATE
        trial = Trial(number, kind, text, found, 0, name, finish_order=number)
        trials.append(result(trial, loss, 1 - loss, objective, seconds=1.0))
    study = create(store, "s", len(rows), objective, {}, {})
    lease = store.acquire(study, "me")
    store.commit(lease, Batch(added=trials))
    store.release(lease)
    return study


def marks(store: Store, study: Study, limit: int | None = None) -> dict[str, str]:
    return {row["expression"]: row["mirror"] for row in marked(store, study, store.leaderboard(study, limit))}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_row_of_each_pair_is_marked(store: Store, objective: str) -> None:
    """The lower row is marked. If one of the two is a baseline, the candidate is marked, even if it ranks higher."""
    study = ranked(
        store,
        ("relu", "max(x, 0)", 0.5),
        ("", "min(x, 0)", 0.4),
        ("", "x * sigmoid(-x)", 0.1),
        ("", "sigmoid(x) * x", 0.2),
        ("tanh", "tanh(x)", 0.3),
        ("softplus", "softplus(x)", 0.6),
        ("own", "-softplus(-x)", 0.7),
        ("maxout", "maxout(2)", 0.8),
        ("", "cos(x) - x", 0.9),
        objective=objective,
    )
    expected = {
        "x * sigmoid(-x)": "",
        "sigmoid(x) * x": "mirror of trial 2",
        "tanh(x)": "",
        "min(x, 0)": "mirror of relu",
        "max(x, 0)": "",
        "softplus(x)": "",
        "-softplus(-x)": "mirror of softplus",
        "maxout(2)": "",
        "cos(x) - x": "",
    }
    assert marks(store, study) == expected
    assert list(marks(store, study)) == list(expected), "in the order of the ranking"
    assert marks(store, study, 4) == dict(list(expected.items())[:4]), "also where ReLU is not shown"


def test_a_baseline_written_out_is_told_by_its_trial(store: Store) -> None:
    study = ranked(store, ("own", "x - cos(x)", 0.5), ("", "x + cos(x)", 0.1))
    assert marks(store, study) == {"x + cos(x)": "mirror of trial 0", "x - cos(x)": ""}


def test_words_of_modules_that_are_not_loaded_are_not_marked(store: Store) -> None:
    study = ranked(store, ("", "x", 0.1))
    (row,) = store.leaderboard(study)
    assert marked(store, study, [{**row, "expression": "x * unheard_of(x)"}])[0]["mirror"] == ""
    assert marked(store, study, []) == []


def test_only_the_first_thousand_rows_are_marked_and_that_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("searcher.reports.mirrors.MAX_MARKED", 2)
    study = ranked(store, ("relu", "max(x, 0)", 0.1), ("", "min(x, 0)", 0.2), ("", "cos(x)", 0.3), ("", "-cos(x)", 0.4))
    with caplog.at_level(logging.INFO, logger="searcher"):
        assert list(marks(store, study).values()) == ["", "mirror of relu", "", ""]
    assert "mirrors are marked in the first 2 of 4 rows" in caplog.text


def test_every_format_of_top_has_the_mark(cli: Cli, store: Store) -> None:
    ranked(store, ("relu", "max(x, 0)", 0.5), ("", "min(x, 0)", 0.4), ("", "sin(x)", 0.6))
    rows = json.loads(cli("top", "s", "-f", "json").stdout)
    assert [row["mirror"] for row in rows] == ["mirror of relu", "", ""]
    assert yaml.safe_load(cli("top", "s", "-f", "yaml").stdout) == rows
    assert [row["mirror"] for row in csv.DictReader(cli("top", "s", "-f", "csv").stdout.splitlines())] == [
        row["mirror"] for row in rows
    ]
    lines = [line.strip() for line in cli("top", "s").stdout.splitlines() if line.strip()]
    first = next(n for n, line in enumerate(lines) if line.startswith("1 "))
    assert "min(x, 0)  (mirror of relu)" in lines[first]
    assert sum("mirror" in line for line in lines) == 1


# --skip-mirrors -------------------------------------------------------------------------------------------------------


class NotingJudge(CountingJudge):
    """Also keeps what it was given."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self.texts: set[str] = set()

    def __call__(self, job: Job) -> Outcome:
        self.texts.add(job.expression)
        return super().__call__(job)

    @property
    def pairs(self) -> set[str]:
        """Return keys that were trained, and whose mirror, a different function, was trained too."""
        texts = {key(parse(text)): text for text in self.texts}
        return {found for found, text in texts.items() if (other := key(mirror(text))) != found and other in texts}


@pytest.mark.parametrize("pool", [InlinePool, ThreadPool])
def test_of_a_function_and_its_mirror_one_is_trained(store: Store, pool: Any) -> None:
    """Seen to fail with threads, when a candidate did not wait for its mirror that was running."""
    judged = NotingJudge(seconds=0.003)
    _, trials = completed(store, SKIPPING, pool=pool(run=judged))
    assert not judged.pairs
    left = [trial for trial in trials if trial.left_untrained]
    assert len(left) > 10 and len(trials) == 90
    for trial in left:
        number = int(trial.reason.partition("(trial ")[2].partition(")")[0])
        assert (
            trial.reason == f"mirror of {mirror(trial.expression)} (trial {number}), left untrained by --skip-mirrors"
        )
        assert trials[number].key == key(mirror(trial.expression)) != trial.key
        assert trials[number].state.judged and (trials[number].finish_order or 0) < (trial.finish_order or 0)
        assert (trial.state, trial.cites, trial.metrics, trial.value) == (TrialState.PRUNED, None, {}, None)
        assert (trial.seconds, trial.parameters) == (0, None) and trial.key not in judged.runs
    assert sorted(t.finish_order for t in trials if t.finish_order is not None) == list(range(90))


def test_without_the_flag_both_are_trained(store: Store) -> None:
    judged = NotingJudge()
    _, trials = completed(store, SKIPPING.replace(skip_mirrors=False), pool=InlinePool(run=judged))
    assert len(judged.pairs) > 10
    assert not any(trial.left_untrained for trial in trials)


def test_what_was_left_untrained_is_not_ranked_and_cited_by_nobody(store: Store) -> None:
    study, trials = completed(store, SKIPPING)
    left = {trial.number: trial.key for trial in trials if trial.left_untrained}
    assert not {row["key"] for row in store.leaderboard(study)} & set(left.values())
    assert not {trial.cites for trial in trials} & set(left)
    assert len(set(left.values())) < len(left), "a second proposal of the same is left untrained like the first"
    assert all(row["mirror"] == "" for row in marked(store, study, store.leaderboard(study)))


def test_baselines_are_trained_though_they_are_mirrors(store: Store) -> None:
    both = SKIPPING.replace(baselines=("relu", "min(x, 0)", "softplus", "-softplus(-x)"))
    _, trials = completed(store, both)
    assert all(trial.trained for trial in trials[:4])
    assert not any(trial.left_untrained for trial in trials if trial.kind is Kind.BASELINE)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "rnn", "optuna:tpe"])
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(
    store: Store, sampler: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a resume, samplers are told the same about mirrors again. Seen to fail for rnn when a resume told them the
    trials as they are stored."""
    settings = SKIPPING.replace(sampler=sampler, study_name="whole", n_trials=60)
    _, whole = completed(store, settings)
    assert sum(trial.left_untrained for trial in whole) > 3
    sessions, parts = in_sessions(store, settings, how, monkeypatch)
    assert sessions > 2
    assert untimed(parts) == untimed(whole)


class Scripted:
    """Proposes these choices in turn, and records what it is told."""

    def __init__(self, *choices: Choices) -> None:
        self.choices, self.told = choices, list[Observation]()

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices | None:
        return self.choices[number] if number < len(self.choices) else None

    def tell(self, observation: Observation) -> None:
        self.told.append(observation)


def scripted(store: Store, texts: list[str], pool: InlinePool) -> tuple[list[Trial], list[Observation]]:
    """Run a search that proposes these functions of one unit. Return its trials, and what its sampler was told."""
    grammar = Grammar(1)
    sampler = Scripted(*(grammar.encode(parse(text)) for text in texts))
    settings = SETTINGS.replace(baselines=("none",), skip_mirrors=True, max_retries=0)
    study = session.create_study(store, settings)
    with leases.held_lease(store, study) as lease:
        list(Search(store, lease, study, settings, SamplerProposer(sampler, grammar, 0), pool, never).run())
    pool.close()
    return store.trials(study), sampler.told


def test_the_sampler_is_told_the_result_of_the_mirror(store: Store) -> None:
    trials, told = scripted(store, ["max(x, 0) - sin(x)", "min(x, 0) - sin(x)"], InlinePool(run=judge))
    assert (trials[0].state, trials[1].state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert trials[1].value is None
    assert [(t.number, t.choices) for t in told] == [(t.number, t.choices) for t in trials]
    assert (told[1].state, told[1].merit) == (trials[0].state, told[0].merit)


def test_the_mirror_of_one_that_cannot_be_trained_is_told_as_such(store: Store) -> None:
    diverges = InlinePool(run=lambda job: Outcome(Verdict.INFEASIBLE, "training loss is not finite at epoch 1, step 1"))
    trials, told = scripted(store, ["max(x, 0) + sin(x)", "min(x, 0) + sin(x)"], diverges)
    assert [t.left_untrained for t in trials] == [False, True]
    assert [t.state for t in told] == [TrialState.INFEASIBLE] * 2


def test_the_mirror_of_one_whose_worker_failed_is_trained(store: Store) -> None:
    fails_once = iter([Outcome(Verdict.FAILED, "the worker process died")])
    pool = InlinePool(run=lambda job: next(fails_once, None) or judge(job))
    trials, told = scripted(store, ["max(x, 0) + x", "min(x, 0) + x", "max(x, 0) + x"], pool)
    assert trials[0].state is TrialState.FAILED and trials[1].state is TrialState.COMPLETE
    assert trials[2].left_untrained and "(trial 1)" in trials[2].reason
    assert [t.number for t in told] == [1, 2]


def test_a_space_is_exhausted_although_mirrors_are_left_untrained(store: Store) -> None:
    small = SKIPPING.replace(sampler="optuna:bruteforce", unary=("x", "max0", "min0"), binary=("add", "max"))
    _, trials = completed(store, small.replace(n_trials=200))
    assert len(trials) == 2 + Grammar(1, unary=small.search.unary, binary=small.search.binary).size
    assert any(trial.left_untrained for trial in trials)


def test_without_a_known_result_of_the_function_its_mirror_is_told_nothing(store: Store) -> None:
    """This happens if keys have changed since. No result is invented."""
    study, trials = completed(store, SKIPPING)
    left = next(trial for trial in trials if trial.left_untrained)
    assert Mirrors(SearchState(study), skip=True).told(left) is None


def test_mirrors_are_counted_apart_and_the_database_is_whole(store: Store, cli: Cli) -> None:
    study = session.create_study(store, SKIPPING.replace(study_name="s"))
    run(store, study, SKIPPING, should_stop=iter([False] * 30 + [True] * 2).__next__)
    progress = run(store, study, SKIPPING)[-1]
    trials = store.trials(study)
    assert progress.mirrors == sum(trial.left_untrained for trial in trials) > 10
    assert progress.unique == len({trial.key for trial in trials})
    counts, *_ = describe(progress)
    assert f"{progress.mirrors} mirrors left untrained" in counts and "stopped early" not in counts
    said = conclusion(store, store.study("s"), store.leaderboard(study))
    assert f"{progress.mirrors} mirrors left untrained, " in said and "stopped early" not in said
    checked = cli("db", "check")
    assert checked.returncode == 0 and "NO " not in checked.stdout


@pytest.mark.parametrize(
    ("model", "options", "why"),
    [
        *((name, {}, "") for name in NETWORKS if name not in ("inception", "lecture")),
        ("inception", {}, "model 'inception' has max pooling"),
        ("lecture", {}, "model 'lecture' has 'max' pooling"),
        ("lecture", {"pooling": "lp"}, ""),
        ("lecture", {"pooling": "average"}, ""),
        ("lecture", {"pooling": "strided"}, ""),
        ("resnet8", {"site": "norm"}, "in model 'resnet8' a norm is followed by ReLU, which treats signs differently"),
        ("vit-4-64", {"site": "norm"}, ""),
        ("vit-4-64", {"site": "gate"}, ""),
        ("mine:net", {}, "model 'mine:net' is your own and may have max pooling, or other parts that tell them apart"),
    ],
)
def test_networks_in_which_mirrors_may_differ(model: str, options: dict[str, object], why: str) -> None:
    site = str(options.pop("site", "activation"))
    assert mirror_caveat(model, options, site) == why


SMALL = ("--unary", "x,max0,min0", "--binary", "add,max", "--sampler", "optuna:bruteforce", "--baselines", "relu")
QUICK = ("--pool", "inline", "--epochs", "1", "--threads", "1", "--limit-train", "100", "--model", "lecture")
CAVEAT = (
    "--skip-mirrors: a function and its mirror -f(-x) need not do equally well here: model 'lecture' has 'max' pooling"
)


@pytest.mark.slow
def test_launch_leaves_mirrors_untrained_says_so_and_resumes(cli: Cli) -> None:
    launched = cli("launch", "--study-name", "s", "--skip-mirrors", "--n-trials", "6", *SMALL, *QUICK)
    assert launched.returncode == 0, launched.stderr
    assert launched.stderr.count(CAVEAT) == 1
    resumed = cli("resume", "s", "--n-trials", "19", "--pool", "inline")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count(CAVEAT) == 1
    trials = json.loads(cli("query", "SELECT * FROM searcher_trial ORDER BY number", "-f", "json").stdout)
    assert len(trials) == 19, "all 18 of the space, which ends no earlier and no later"
    left = [trial for trial in trials if "left untrained by --skip-mirrors" in trial["reason"]]
    assert left and f"{len(left)} mirrors left untrained" in resumed.stdout
    assert {(trial["state"], trial["value"], trial["cites"]) for trial in left} == {("PRUNED", None, None)}
    (relu,) = [
        trial for trial in left if trial["expression"] in ("x + min(x, 0)", "min(x, 0) + x", "max(x, min(x, 0))")
    ][:1]
    assert relu["reason"] in cli("trial", "s", str(relu["number"])).stdout.replace("\n", " ")
    (row,) = json.loads(cli("query", "SELECT config FROM searcher_study", "-f", "json").stdout)
    assert json.loads(row["config"])["skip_mirrors"] is True
    other = cli("launch", "--study-name", "s", "--skip-if-exists", "--no-skip-mirrors", *SMALL, *QUICK)
    assert other.returncode == 2 and "skip_mirrors: True in the study, False asked for" in other.stderr
    assert "NO " not in cli("db", "check").stdout


def test_the_setting_is_a_key_of_the_file_and_old_studies_train_mirrors(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text("skip_mirrors = true")
    assert loading.load(file, {}).search.skip_mirrors
    assert not loading.load(file, {"skip_mirrors": False}).search.skip_mirrors
    stored = {name: value for name, value in SKIPPING.to_dict().items() if name != "skip_mirrors"}
    old = create(store, "old", 5, "val_loss", stored, {})
    assert session.stored_settings(old, None, {}).search.skip_mirrors is False


def test_the_closing_words_say_that_the_mirror_of_relu_is_no_discovery(store: Store) -> None:
    study = ranked(store, ("relu", "max(x, 0)", 0.5), ("", "min(x, 0)", 0.4))
    said = conclusion(store, study, marked(store, study, store.leaderboard(study)))
    assert "It is the mirror of ReLU, -f(-x): without max pooling in the network the difference is chance." in said
