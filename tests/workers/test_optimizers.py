"""The optimizers of torch by name."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from searcher.settings import loading
from searcher.settings.config import ConfigError
from workers.contract import WorkersError
from workers.tasks.images.config import OPTIMIZERS, SGD, Recipe
from workers.tasks.images.optimizers import check_optimizer, load_state, make_optimizer, state_tensors
from workers.tasks.images.recipes import RECIPES
from workers.tasks.images.train import _learning_rates  # what a training would do

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_torchs_own_with_torchs_own_options(name: str) -> None:
    known = OPTIMIZERS[name]
    signature = inspect.signature(getattr(torch.optim, known.torch_name)).parameters
    assert set(known.options) <= set(signature)
    assert name == SGD or known.learning_rate == signature["lr"].default
    for option in known.options:
        default = signature[option].default
        value = list(default) if isinstance(default, tuple) else default
        check_optimizer(Recipe(optimizer=name, nesterov=False, optimizer_kwargs={option: value}))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_an_optimizer_is_restored(name: str) -> None:
    """Seen to fail without the states: the third step differs."""

    def steps(model: nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad()
            (model(torch.ones(2, 3)) ** 2).sum().backward()
            optimizer.step()

    recipe = Recipe(optimizer=name, learning_rate=0.01)
    torch.manual_seed(0)
    first = nn.Linear(3, 2)
    optimizer = make_optimizer(first, recipe, CPU)
    steps(first, optimizer, 2)
    second = nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    other = make_optimizer(second, recipe, CPU)
    load_state(other, {name: tensor.clone() for name, tensor in state_tensors(optimizer).items()})
    steps(first, optimizer, 1)
    steps(second, other, 1)
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


def test_states_of_another_network_are_refused() -> None:
    other = make_optimizer(nn.Linear(3, 2), Recipe(), CPU)
    for name, tensor in (("9.momentum_buffer", torch.ones(2)), ("0.momentum_buffer", torch.ones(7))):
        with pytest.raises(ValueError, match=r"no parameter|another shape"):
            load_state(other, {name: tensor})
    assert not state_tensors(other)


def test_what_torch_refuses_is_said() -> None:
    with pytest.raises(WorkersError, match=r"AdamW does not accept the options \{'betas': \[2, 0.9\]\}: Invalid beta"):
        check_optimizer(Recipe(optimizer="adamw", optimizer_kwargs={"betas": [2, 0.9]}))


def test_another_optimizer_brings_its_own_learning_rate() -> None:
    def recipe(**table: object) -> Recipe:
        return loading.load(None, {"recipe": table}).training.images.recipe

    assert recipe(optimizer="adamw").learning_rate == 0.001
    assert recipe(optimizer="adamw", learning_rate=0.3).learning_rate == 0.3
    assert recipe(name="wrn", optimizer="adadelta").learning_rate == 1.0
    assert recipe(name="transformer") == RECIPES["transformer"]
    assert recipe(name="transformer", optimizer="adamw").learning_rate == 0.001
    assert recipe(name="wrn", optimizer="sgd") == RECIPES["wrn"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"optimizer": "adamv"}, "unknown recipe.optimizer 'adamv'; did you mean 'adam'? accepted: sgd, adam"),
        ({"optimizer": "adamw", "optimizer_kwargs": {"beta": 1}}, "adamw has no option 'beta'; did you mean 'betas'"),
        ({"optimizer_kwargs": {"momentum": 0.5}}, "momentum of sgd is a field of the recipe itself"),
    ],
)
def test_what_is_unknown_is_said(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as found:
        loading.load(None, {"recipe": table})
    assert said in str(found.value)


def test_the_rate_warms_up_and_falls() -> None:
    """For every length of a training and of its warm-up."""
    for steps in (1, 2, 3, 10, 100):
        for warmup in (0.0, 0.05, 0.5, 1.0):
            rates = _learning_rates(Recipe(schedule="warmup", warmup=warmup, learning_rate=1.0), steps, steps)
            assert len(rates) == steps and all(0 < rate <= 1 for rate in rates)
            top = rates.index(max(rates))
            assert rates[top] == 1 and top == min(round(warmup * steps), steps - 1)
            assert rates[: top + 1] == sorted(rates[: top + 1])
            assert rates[top:] == sorted(rates[top:], reverse=True)
