"""The contract that every sampler keeps, and that the controller learns."""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from search_space import Choices, Grammar, SpaceError
from searcher.records import Kind, Trial, TrialState
from searcher.samplers import rnn
from searcher.samplers.contract import Observation, Pending, Rewards, Sampler, SamplerError, observation_of
from searcher.samplers.random import RandomSampler
from searcher.samplers.registry import make_sampler
from searcher.samplers.testing import SamplerContract
from tests.support import ROOT
from tests.support.commands import Cli
from tests.support.made import OBJECTIVES, image_task, result

pytestmark = pytest.mark.slow

SAMPLERS = ["random", "rnn", "optuna:tpe", "optuna:gp", "optuna:nsgaii", "optuna:random", "optuna:bruteforce"]
GRAMMAR = Grammar(1)
SMALL = Grammar(1, unary=("x", "sin"), binary=("add", "max"))


def fresh(name: str, grammar: Grammar = GRAMMAR, seed: int = 0) -> Sampler:
    return make_sampler(name, grammar, seed=seed)


def asked_of(sampler: Sampler, number: int) -> Choices:
    """The decisions that a sampler proposes."""
    choices = sampler.ask(number)
    assert isinstance(choices, tuple)
    return choices


def told(number: int, choices: Choices, val_acc: float = 0.5) -> Observation:
    return Observation(number, "x", choices, "k", 0, TrialState.COMPLETE, val_acc, "fraction", 1.0)


def value(choices: Choices) -> float:
    """A cheap reward in [0.1, 1]: x first, a sigmoid-like function second, joined by a product or a gate."""
    _, _, unary1, unary2, binary = choices
    names = GRAMMAR.unary[unary1], GRAMMAR.unary[unary2], GRAMMAR.binary[binary]
    good = names[0] == "x", names[1] in ("sigmoid", "tanh", "atan"), names[2] in ("mul", "max")
    return 0.1 + 0.3 * sum(good)


class _BuiltIn(SamplerContract):
    name = ""

    def make(self, grammar: Grammar, seed: int) -> Sampler:
        return fresh(self.name, grammar, seed)


class TestRandom(_BuiltIn):
    name = "random"


class TestRnn(_BuiltIn):
    name = "rnn"


class TestOptunaTpe(_BuiltIn):
    name = "optuna:tpe"


class TestOptunaGp(_BuiltIn):
    name = "optuna:gp"


class TestOptunaNsgaii(_BuiltIn):
    name = "optuna:nsgaii"


class TestOptunaRandom(_BuiltIn):
    name = "optuna:random"


class TestOptunaBruteForce(_BuiltIn):
    name = "optuna:bruteforce"


class TestExample(SamplerContract):
    """examples/my_sampler.py, as a person would test it."""

    def make(self, grammar: Grammar, seed: int) -> Sampler:
        sampler: Sampler = example().Mutation(grammar=grammar, seed=seed)
        return sampler


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("my_sampler", ROOT / "examples" / "my_sampler.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Broken(RandomSampler):
    """A sampler that keeps the contract unless a subclass breaks it."""

    def __init__(self, *, grammar: Grammar, seed: int) -> None:
        super().__init__(grammar=grammar, seed=seed)
        self.asked = self.told = 0


class _CountsAsks(_Broken):
    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices:
        self.asked += 1
        return super().ask(number + self.asked)


class _Unseeded(_Broken):
    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices:
        return super().ask(number + id(self))


class _Elsewhere(_Broken):
    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices:
        return (*super().ask(number), 0)


class _LearnsWhatItAsked(_Broken):
    """It learns nothing of trials that an earlier session proposed."""

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices:
        self.asked = number
        return super().ask(number + 1000 * self.told)

    def tell(self, observation: Observation) -> None:
        self.told += observation.number == self.asked


@pytest.mark.parametrize(
    ("sampler", "rule"),
    [
        (_CountsAsks, "test_asking_changes_nothing"),
        (_Unseeded, "test_equal_seeds_give_equal_proposals"),
        (_Elsewhere, "test_proposals_are_of_the_grammar"),
        (_LearnsWhatItAsked, "test_one_that_is_told_the_same_goes_on_the_same"),
    ],
)
def test_the_contract_finds_what_breaks_it(sampler: type[_Broken], rule: str) -> None:
    class Contract(SamplerContract):
        def make(self, grammar: Grammar, seed: int) -> Sampler:
            return sampler(grammar=grammar, seed=seed)

    with pytest.raises((AssertionError, SpaceError)):
        getattr(Contract(), rule)()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_seed_decides(name: str) -> None:
    asked = [[fresh(name, seed=seed).ask(number) for number in range(5)] for seed in (1, 2)]
    assert asked[0] != asked[1]


def test_brute_force_visits_every_choice_once_and_ends() -> None:
    sampler, seen = fresh("optuna:bruteforce", SMALL), []
    while (choices := sampler.ask(len(seen))) is not None:
        assert isinstance(choices, tuple)
        seen.append(choices)
        sampler.tell(told(len(seen) - 1, choices))
    assert len(seen) == len(set(seen)) == SMALL.size == 8


@pytest.mark.parametrize("name", ["optuna:tpe", "optuna:gp", "optuna:nsgaii"])
def test_optuna_learns_from_what_it_is_told(name: str) -> None:
    """With one primitive of five clearly best, the last proposals beat a uniform sampler's mean of 0.215 by half."""
    grammar = Grammar(1, unary=("x", "sin", "tanh", "exp", "abs"), binary=("add", "max"))
    sampler = make_sampler(
        name,
        grammar,
        seed=0,
        kwargs={"population_size": 10} if name.endswith("nsgaii") else {},
    )
    rewards = []
    for number in range(60):
        choices = asked_of(sampler, number)
        rewards.append(0.9 * (choices[2] == 0) + 0.05 * (choices[3] == 1) + 0.05 * (choices[4] == 1))
        sampler.tell(told(number, choices, rewards[-1]))
    assert statistics.mean(rewards[-20:]) > 1.5 * 0.215


def play(sampler: Sampler, reward: Callable[[Choices], float], n: int) -> list[float]:
    rewards = []
    for number in range(n):
        choices = asked_of(sampler, number)
        rewards.append(reward(choices))
        sampler.tell(told(number, choices, rewards[-1]))
    return rewards


@pytest.mark.parametrize("seed", range(5))
def test_the_controller_learns(seed: int) -> None:
    torch.set_num_threads(1)
    controller = statistics.mean(play(fresh("rnn", seed=seed), value, 1000)[-100:])
    uniform = statistics.mean(play(fresh("random", seed=seed), value, 1000)[-100:])
    assert uniform < 0.3
    assert controller > 0.7


def test_the_ratio_is_clipped_and_not_the_reward() -> None:
    old = torch.log(torch.tensor([0.2]))
    new = torch.log(torch.tensor([0.5])).requires_grad_()  # ratio 2.5, beyond 1.2
    for advantage in (1.0, 7.0):
        loss = rnn.clipped_loss(new, old, torch.tensor([advantage]), 0.2)
        assert loss.item() == pytest.approx(-1.2 * advantage)  # the advantage itself is not clipped
        assert float(torch.autograd.grad(loss, new)[0]) == 0.0
    # A bad action whose probability rose is pulled back with the full ratio.
    loss = rnn.clipped_loss(new, old, torch.tensor([-1.0]), 0.2)
    assert loss.item() == pytest.approx(2.5)
    assert float(torch.autograd.grad(loss, new)[0]) == pytest.approx(2.5)


def test_every_option_of_every_decision_can_be_drawn() -> None:
    sampler = fresh("rnn", SMALL)
    drawn = {sampler.ask(number) for number in range(300)}
    assert len(drawn) == SMALL.size


def test_log_probabilities_are_those_of_the_draws() -> None:
    torch.manual_seed(0)
    controller = rnn.Controller(SMALL, 8)
    every = torch.tensor([SMALL.unrank(i) for i in range(SMALL.size)])
    with torch.no_grad():
        log_prob, entropy = controller.evaluate(every)
    assert float(log_prob.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(entropy.min()) >= 0
    source = torch.Generator().manual_seed(0)
    draws = [controller.sample(source) for _ in range(4000)]
    for choices, p in zip(every.tolist(), log_prob.exp().tolist(), strict=True):
        assert draws.count(tuple(choices)) / 4000 == pytest.approx(p, abs=0.03)


def test_rewards_are_in_the_unit_interval_and_rise_with_quality() -> None:
    plain = Trial(0, Kind.CANDIDATE, "x", "k", 0, seconds=2.0)
    bad = Trial(1, Kind.CANDIDATE, "x", "k", 0, state=TrialState.INFEASIBLE)
    by_loss, by_accuracy = (
        observation_of(result(plain, 1.0, 0.9, name), image_task(name).objective) for name in OBJECTIVES
    )
    assert (by_accuracy.merit, Rewards().of(by_accuracy), by_accuracy.cost) == (0.9, 0.9, 2.0)
    assert by_loss.merit == -1.0 and Rewards().of(by_loss) == pytest.approx(0.3679, abs=1e-4)
    for objective in OBJECTIVES:
        worst = observation_of(bad, image_task(objective).objective)
        assert worst.merit is None and Rewards().of(worst) == 0.0


def test_a_value_of_any_unit_is_rewarded_by_its_rank() -> None:
    rewards = Rewards()
    observation = replace(told(0, (0,)), unit="")
    found = [rewards.of(replace(observation, merit=merit)) for merit in (-1e9, 3.0, None, 1.0, 3.0)]
    assert found == [1 / 2, 3 / 4, 0.0, 1 / 2, 6 / 8]  # 3 of 4 are worse or as good, 2 of 4 are worse


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("rn", {}, "did you mean 'rnn'"),
        ("optuna:tpee", {}, "did you mean 'tpe'"),
        ("optuna:cmaes", {}, "categorical"),
        ("optuna:CmaEsSampler", {}, "categorical"),
        ("optuna:grid", {}, "bruteforce"),
        ("random", {"batch": 3}, "takes none"),
        ("rnn", {"bacth": 3}, "did you mean 'batch'"),
        ("rnn", {"batch": 0}, "batch must be positive"),
        ("rnn", {"batch": "x"}, "does not accept batch 'x'; it is 10 if not given"),
        ("rnn", {"batch": 2.5}, "does not accept batch 2.5"),
        ("optuna:tpe", {"n_startup_trials": "ten"}, "does not accept n_startup_trials 'ten'; it is 10"),
        ("optuna:tpe", {"n_startup": 3}, "n_startup_trials"),
    ],
)
def test_refusals_say_why(name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(SamplerError, match=message):
        make_sampler(name, GRAMMAR, seed=0, kwargs=kwargs)


# A sampler of a person's own, from the command line

SMALL_SEARCH = ("launch", "-q", "--study-name", "s", "--pool", "inline", "--threads", "1", "--limit-train", "100")
SMALL_SEARCH += ("--width", "2", "--epochs", "1", "--n-trials", "5", "--baselines", "relu")


def test_a_sampler_of_ones_own(cli: Cli, tmp_path: Path) -> None:
    """It is named on the command line, takes its options, and is trusted again on resume."""
    shutil.copy(ROOT / "examples" / "my_sampler.py", tmp_path)
    named = ("--sampler", "my_sampler:Mutation", "--sampler-kwargs", '{"random_share": 0.5}')
    done = cli(*SMALL_SEARCH, *named)
    assert done.returncode == 0, done.stderr
    assert cli("resume", "s", "-q", "--n-trials", "7").returncode == 0
    (tmp_path / "my_sampler.py").write_text((tmp_path / "my_sampler.py").read_text() + "# changed\n")
    refused = cli("resume", "s", "-q", "--n-trials", "8")
    assert refused.returncode == 1 and "--trust-code" in refused.stderr


OWN = """
from searcher.samplers.random import RandomSampler
from search_space import parse

class NoTell:
    def ask(self, number, pending=()): ...

class Fails(RandomSampler):
    def ask(self, number, pending=()):
        raise ZeroDivisionError("by zero")

class FailsToLearn(RandomSampler):
    def tell(self, observation):
        raise KeyError("loss")

class Short(RandomSampler):
    def ask(self, number, pending=()):
        return (0, 1)

class Text(RandomSampler):
    def ask(self, number, pending=()):
        return "max(x, 0)"

class Shape(RandomSampler):
    def ask(self, number, pending=()):
        return parse("sin(sin(x))")

class NotMade:
    def __init__(self, *, grammar, seed):
        raise RuntimeError("no licence")
    def ask(self, number, pending=()): ...
    def tell(self, observation): ...

number = 3
"""


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("own:Missing", "sampler 'own:Missing' is not a sampler: no class 'Missing' there"),
        ("own:number", "no class 'number' there"),
        ("own:NoTell", "it has no tell"),
        ("nowhere:Mine", "no module 'nowhere'"),
        ("own:Fails", "failed in ask(0): ZeroDivisionError: by zero"),
        ("own:Short", "broke rule 3 of its contract: ask(0) returned '(0, 1)', not 5 decisions of the grammar"),
        ("own:Text", "broke rule 3 of its contract"),
        ("own:Shape", "an Expression needs `any_expression = True` in the class"),
        ("own:NotMade", "sampler 'own:NotMade' does not accept RuntimeError: no licence"),
    ],
)
def test_a_sampler_that_breaks_its_contract_is_refused(cli: Cli, tmp_path: Path, sampler: str, message: str) -> None:
    """Before anything is written."""
    (tmp_path / "own.py").write_text(OWN)
    done = cli(*SMALL_SEARCH, "--sampler", sampler)
    code = 1 if any(word in message for word in ("failed", "broke", "Expression")) else 2
    assert done.returncode == code and message in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "searcher.db").exists()


def test_a_sampler_that_fails_later_ends_the_search_and_nothing_is_lost(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "later.py").write_text(OWN)
    done = cli(*SMALL_SEARCH, "--sampler", "later:FailsToLearn")
    message = "sampler 'later:FailsToLearn' failed in tell, for trial 0: KeyError: 'loss'"
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    (tmp_path / "later.py").write_text(OWN.replace('raise KeyError("loss")', "pass"))
    monkeypatch.delitem(sys.modules, "later")
    assert cli("resume", "s", "-q", "--trust-code").returncode == 0
    [status] = json.loads(cli("status", "s", "-f", "json").stdout)
    assert status["done"] == 5


def test_a_package_without_init_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    """Its files cannot be listed, so a change of them would not be noticed on resume. Seen to end with a traceback."""
    (tmp_path / "folder").mkdir()
    shutil.copy(ROOT / "examples" / "my_sampler.py", tmp_path / "folder")
    done = cli(*SMALL_SEARCH, "--sampler", "folder.my_sampler:Mutation")
    assert done.returncode == 2 and "add an empty __init__.py to the folder 'folder'" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "folder" / "__init__.py").touch()
    assert cli(*SMALL_SEARCH, "--sampler", "folder.my_sampler:Mutation").returncode == 0
