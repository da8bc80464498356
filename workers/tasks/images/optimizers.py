"""Make torch's optimizers by name, and save and restore their states."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from search_space import parameter_groups
from workers.contract import WorkersError
from workers.tasks.images.config import OPTIMIZERS, SGD, Recipe


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> Optimizer:
    """Return the recipe's optimizer for a model on this device. No activation's own parameters get weight decay.

    On CUDA, its step can be captured in a graph where torch permits that, and then its learning rates are tensors.

    Raises:
        WorkersError: torch does not accept an option.
    """
    cls = _class(recipe)
    options: dict[str, Any] = dict(recipe.optimizer_kwargs)
    if recipe.optimizer == SGD:
        options |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov and recipe.momentum > 0}
    accepted = signature(cls).parameters
    if "fused" in accepted:
        options["fused"] = True
    if device.type == "cuda" and "capturable" in accepted:
        options["capturable"] = True
    rate = recipe.learning_rate
    options["lr"] = torch.tensor(rate, device=device) if device.type == "cuda" and has_graph(recipe) else rate
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    try:
        optimizer: Optimizer = cls(parameter_groups(model, recipe.weight_decay), **plain)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WorkersError(
            f"torch's {cls.__name__} does not accept the options {dict(recipe.optimizer_kwargs)}: {error}; see "
            "optimizer_kwargs in docs/experiments.md"
        ) from error
    return optimizer


def check_optimizer(recipe: Recipe) -> None:
    """Raise WorkersError if torch does not accept the recipe's options."""
    make_optimizer(nn.Linear(1, 1), recipe, torch.device("cpu"))


def has_graph(recipe: Recipe) -> bool:
    """Return True if a step of the recipe's optimizer can be captured in a CUDA graph."""
    return recipe.optimizer == SGD or "capturable" in signature(_class(recipe)).parameters


def _class(recipe: Recipe) -> Any:
    return getattr(torch.optim, OPTIMIZERS[recipe.optimizer].torch_name)


def state_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the tensors of an optimizer's state by name, such as `0.exp_avg` for the first parameter."""
    states: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value
        for number, state in states.items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def load_state(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer that has made no step the state that `state_tensors` returned.

    Raises:
        ValueError: the tensors are not those of this optimizer; nothing was changed.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if not (number.isdecimal() and int(number) < len(parameters)):
            raise ValueError(f"it has a state {key} of no parameter")
        like = parameters[int(number)]
        if value.dim() and value.shape != like.shape:
            raise ValueError(f"its state {key} has another shape than the parameter")
        # An optimizer is faster with states that are laid out in memory as their parameters are.
        states.setdefault(int(number), {})[name] = (
            torch.empty_like(like, dtype=value.dtype).copy_(value) if value.dim() else value.clone()
        )
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
