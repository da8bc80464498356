"""Optuna's samplers, on the grammar's decisions as categorical parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from search_space import Choices, Grammar, nearest
from searcher.samplers.contract import Observation, Pending, Rewards, SamplerError, generator
from searcher.samplers.registry import configured

SAMPLERS: Mapping[str, Callable[..., BaseSampler]] = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "nsgaii": optuna.samplers.NSGAIISampler,
    "random": optuna.samplers.RandomSampler,
    "bruteforce": optuna.samplers.BruteForceSampler,
}
ALIASES = {"brute_force": "bruteforce", "brute-force": "bruteforce", "nsga2": "nsgaii"}
REFUSED = {
    "cmaes": "it samples real vectors, and every decision of a grammar is categorical",
    "qmc": "it fills real intervals evenly, and every decision of a grammar is categorical",
    "grid": "its grid would have to be listed in full; optuna:bruteforce walks the same points",
    "nsgaiii": "it is for three and more objectives, and a study has one; optuna:nsgaii serves",
    "partialfixed": "it wraps another sampler; choose fewer primitives with --unary and --binary instead",
}


class _Storage(InMemoryStorage):
    """Optuna's in-memory storage, in which asking leaves no trace."""

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Keeps nothing: genetic samplers cache their parents here, in an order that the next ask would not see."""

    def forget_last(self, study_id: int) -> None:
        with self._lock:
            last = self._studies[study_id].trials.pop()
            del self._trial_id_to_study_id_and_number[last._trial_id]
            self._max_trial_id -= 1


class OptunaSampler:
    """Any sampler of Optuna that can serve categorical decisions and one objective.

    Optuna maximises the reward of an observation. Each proposal comes from a new instance, seeded by the trial's
    number, on a study that holds the told trials and nothing else.

    Raises:
        SamplerError: no such sampler, one that cannot serve (the message says why), an option it does not take.
    """

    def __init__(self, name: str, kwargs: Mapping[str, Any], *, grammar: Grammar, seed: int) -> None:
        plain = name.lower().removesuffix("sampler")
        self._name = ALIASES.get(plain, plain)
        if self._name.replace("-", "").replace("_", "") in REFUSED:
            reason = REFUSED[self._name.replace("-", "").replace("_", "")]
            raise SamplerError(f"optuna:{name} cannot serve: {reason}; accepted: {', '.join(SAMPLERS)}")
        if self._name not in SAMPLERS:
            raise SamplerError(f"unknown Optuna sampler {name!r}; {nearest(name, SAMPLERS)}")
        self._kwargs, self._grammar, self._seed = dict(kwargs), grammar, seed
        self._space: dict[str, BaseDistribution] = {
            d.name: CategoricalDistribution(range(len(d.options))) for d in grammar.decisions
        }
        self._storage = _Storage()
        self._told: set[Choices] = set()
        self._rewards = Rewards()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(storage=self._storage, direction="maximize", sampler=self._sampler(0))

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices | None:  # noqa: ARG002
        if self._name == "bruteforce" and len(self._told) >= self._grammar.size:
            return None
        self._study.sampler = self._sampler(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            asked = self._study.ask(fixed_distributions=self._space)
        choices = tuple(asked.params[name] for name in self._space)
        self._storage.forget_last(self._study._study_id)
        return choices

    def tell(self, observation: Observation) -> None:
        if observation.choices is None:
            return
        self._told.add(observation.choices)
        params = dict(zip(self._space, observation.choices, strict=True))
        self._study.add_trial(
            create_trial(
                state=OptunaState.COMPLETE,
                params=params,
                distributions=self._space,
                value=self._rewards.of(observation),
                system_attrs=self._generation(),
            )
        )

    def _sampler(self, number: int) -> BaseSampler:
        options = {**self._kwargs, "seed": generator(self._seed, number).getrandbits(31)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            made: BaseSampler = configured(SAMPLERS[self._name], f"optuna:{self._name}", options)
        return made

    def _generation(self) -> dict[str, Any]:
        """Genetic samplers count generations in the trials; here a generation is so many told trials."""
        sampler = self._study.sampler
        if not isinstance(sampler, optuna.samplers.NSGAIISampler):
            return {}
        told = len(self._study.get_trials(deepcopy=False))
        return {sampler._get_generation_key(): told // (sampler.population_size or 1)}
