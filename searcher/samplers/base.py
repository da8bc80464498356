"""The contract of samplers, and how one is made by name."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from search_space import Choices, Grammar, nearest
from searcher import UsageError
from searcher.records import Objective, Trial

BUILT_IN = ("random", "rnn")

T = TypeVar("T")


class SamplerError(UsageError):
    """A sampler that does not exist, cannot serve, or does not take an option."""


class Sampler(Protocol):
    """Proposes choices in a grammar.

    `ask` is pure: between two `tell`s the same number gets the same answer, whatever else was asked. So a sampler is
    rebuilt by telling a fresh one every finished trial in order, and nothing of it need be saved.
    """

    def ask(self, number: int) -> Choices | None:
        """The proposal for trial `number`; None if the space is exhausted."""

    def tell(self, trial: Trial) -> None:
        """Learns from a judged trial. Trials without choices (baselines) are allowed, and may be ignored."""


def make_sampler(
    name: str, grammar: Grammar, *, seed: int, objective: Objective, kwargs: Mapping[str, Any] | None = None
) -> Sampler:
    """The sampler of that name.

    Raises:
        SamplerError: no such sampler, one that cannot serve here, or an option it does not take.
    """
    options = dict(kwargs or {})
    if name == "random":
        from searcher.samplers.random import RandomSampler

        return configured(RandomSampler, name, options, grammar=grammar, seed=seed)
    if name == "rnn":
        from searcher.samplers.rnn import RnnSampler

        return configured(RnnSampler, name, options, grammar=grammar, seed=seed, objective=objective)
    family, _, member = name.partition(":")
    if family == "optuna":
        from searcher.samplers.optuna import OptunaSampler

        return OptunaSampler(member or "tpe", options, grammar=grammar, seed=seed, objective=objective)
    raise SamplerError(f"unknown sampler {name!r}; {nearest(name, [*BUILT_IN, 'optuna:tpe', 'optuna:NAME'])}")


def configured(make: Callable[..., T], name: str, options: Mapping[str, Any], **fixed: Any) -> T:
    """`make(**options, **fixed)`, with a clear message about options it does not take."""
    taken = {p: facts.default for p, facts in inspect.signature(make).parameters.items() if p not in fixed}
    for option, value in options.items():
        if option not in taken:
            accepted = nearest(option, taken) if taken else "it takes none"
            raise SamplerError(f"sampler {name!r} has no option {option!r}; {accepted}")
        if not _like(value, taken[option]):
            raise SamplerError(
                f"sampler {name!r} does not accept {option} {value!r}; it is {taken[option]!r} if not given"
            )
    try:
        return make(**options, **fixed)
    except (TypeError, ValueError) as error:
        raise SamplerError(f"sampler {name!r} does not accept {dict(options)}: {error}") from error


def _like(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of a default, as far as that tells."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, (int, float)):
        number = isinstance(value, int) or (isinstance(default, float) and isinstance(value, float))
        return number and not isinstance(value, bool)
    return not isinstance(default, str) or isinstance(value, str)


def generator(seed: int, number: int) -> random.Random:
    """The source of all randomness in the proposal for one trial; the same on every machine."""
    return random.Random(f"{seed}/{number}")
