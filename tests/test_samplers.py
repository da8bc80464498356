"""The contract that every sampler keeps, and that the controller learns."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch

from search_space import Choices, Grammar
from searcher.records import Kind, Objective, Trial, TrialState, merit
from searcher.samplers import rnn
from searcher.samplers.base import Sampler, SamplerError, make_sampler

pytestmark = pytest.mark.slow

SAMPLERS = ["random", "rnn", "optuna:tpe", "optuna:gp", "optuna:nsgaii", "optuna:random", "optuna:bruteforce"]
GRAMMAR = Grammar(1)
SMALL = Grammar(1, unary=("x", "sin"), binary=("add", "max"))


def fresh(name: str, grammar: Grammar = GRAMMAR, seed: int = 0) -> Sampler:
    return make_sampler(name, grammar, seed=seed, objective=Objective.VAL_ACC)


def told(number: int, choices: Choices | None, val_acc: float = 0.5) -> Trial:
    return Trial(
        number,
        Kind.CANDIDATE if choices else Kind.BASELINE,
        "x",
        "k",
        0,
        choices=choices,
        state=TrialState.COMPLETE,
        val_loss=1.0,
        val_acc=val_acc,
        finish_order=number,
    )


def value(choices: Choices) -> float:
    """A cheap reward in [0.1, 1]: x first, a sigmoid-like function second, joined by a product or a gate."""
    _, _, unary1, unary2, binary = choices
    names = GRAMMAR.unary[unary1], GRAMMAR.unary[unary2], GRAMMAR.binary[binary]
    good = names[0] == "x", names[1] in ("sigmoid", "tanh", "atan"), names[2] in ("mul", "max")
    return 0.1 + 0.3 * sum(good)


def infeasible(number: int, choices: Choices) -> Trial:
    return Trial(number, Kind.CANDIDATE, "x", "k", 0, choices=choices, state=TrialState.INFEASIBLE, finish_order=number)


@pytest.mark.parametrize("name", SAMPLERS)
class TestContract:
    def test_proposals_are_choices_of_the_grammar(self, name: str) -> None:
        sampler = fresh(name, Grammar(2))
        for number in range(3):
            choices = sampler.ask(number)
            assert choices is not None
            Grammar(2).decode(choices)

    def test_asking_changes_nothing(self, name: str) -> None:
        sampler, other = fresh(name), fresh(name)
        for number in range(14):
            for distraction in (number, number + 5, 3):
                sampler.ask(distraction)
            choices = sampler.ask(number)
            assert choices == sampler.ask(number) == other.ask(number)
            assert choices is not None
            for one in (sampler, other):
                one.tell(told(number, choices, value(choices)))

    def test_a_fresh_one_told_the_same_trials_goes_on_the_same(self, name: str) -> None:
        sampler, trials = fresh(name), []
        for number in range(24):
            choices = sampler.ask(number)
            assert choices is not None
            trials.append(infeasible(number, choices) if number % 5 == 0 else told(number, choices, value(choices)))
            sampler.tell(trials[-1])
        resumed = fresh(name)
        for trial in trials:
            resumed.tell(trial)
        assert [resumed.ask(n) for n in range(24, 28)] == [sampler.ask(n) for n in range(24, 28)]

    def test_the_seed_decides(self, name: str) -> None:
        asked = [[fresh(name, seed=seed).ask(number) for number in range(5)] for seed in (1, 2)]
        assert asked[0] != asked[1]

    def test_baselines_are_told_without_harm(self, name: str) -> None:
        sampler = fresh(name)
        sampler.tell(told(0, None))
        assert sampler.ask(1) is not None


def test_brute_force_visits_every_choice_once_and_ends() -> None:
    sampler, seen = fresh("optuna:bruteforce", SMALL), []
    while (choices := sampler.ask(len(seen))) is not None:
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
        objective=Objective.VAL_ACC,
        kwargs={"population_size": 10} if name.endswith("nsgaii") else {},
    )
    rewards = []
    for number in range(60):
        choices = sampler.ask(number)
        assert choices is not None
        rewards.append(0.9 * (choices[2] == 0) + 0.05 * (choices[3] == 1) + 0.05 * (choices[4] == 1))
        sampler.tell(told(number, choices, rewards[-1]))
    assert statistics.mean(rewards[-20:]) > 1.5 * 0.215


def play(sampler: Sampler, reward: Callable[[Choices], float], n: int) -> list[float]:
    rewards = []
    for number in range(n):
        choices = sampler.ask(number)
        assert choices is not None
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


def test_merit_is_in_the_unit_interval_and_rises_with_quality() -> None:
    good, bad = told(0, (0, 0, 0, 0, 0), 0.9), infeasible(1, (0, 0, 0, 0, 0))
    assert merit(good, Objective.VAL_ACC) == 0.9
    assert merit(good, Objective.VAL_LOSS) == pytest.approx(0.3679, abs=1e-4)
    assert merit(bad, Objective.VAL_ACC) == merit(bad, Objective.VAL_LOSS) == 0.0


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
        make_sampler(name, GRAMMAR, seed=0, objective=Objective.VAL_LOSS, kwargs=kwargs)
