"""Use Optuna's samplers, with the grammar's decisions as categorical parameters."""

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
    "grid": "its grid would have to be listed in full; optuna:bruteforce proposes the same points",
    "nsgaiii": "it is for three and more objectives, and a study has one; use optuna:nsgaii",
    "partialfixed": "it wraps another sampler; choose fewer primitives with --unary and --binary instead",
}


class _Storage(InMemoryStorage):
    """Optuna's in-memory storage, from which the effects of `ask` can be removed."""

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Store nothing. Genetic samplers cache their parents here, which would make `ask` depend on earlier calls."""

    def forget_last(self, study_id: int) -> None:
        """Remove the last trial of a study."""
        with self._lock:
            last = self._studies[study_id].trials.pop()
            del self._trial_id_to_study_id_and_number[last._trial_id]
            self._max_trial_id -= 1


class OptunaSampler:
    """Proposes with one of Optuna's samplers that can handle categorical decisions and one objective.

    Optuna maximises the reward of an observation. Each proposal comes from a new instance, seeded by the trial's
    number, on a study that has the told trials only.

    Args:
        name: Optuna's name of the sampler, such as `tpe`.
        kwargs: options of Optuna's class.
        grammar: the grammar of the proposals.
        seed: the seed of the search.

    Raises:
        SamplerError: there is no such sampler, it cannot be used (the message says why), or it does not take an option.
    """

    def __init__(self, name: str, kwargs: Mapping[str, Any], *, grammar: Grammar, seed: int) -> None:
        plain = name.lower().removesuffix("sampler")
        self._name = ALIASES.get(plain, plain)
        if self._name.replace("-", "").replace("_", "") in REFUSED:
            reason = REFUSED[self._name.replace("-", "").replace("_", "")]
            raise SamplerError(f"optuna:{name} cannot be used: {reason}; accepted: {', '.join(SAMPLERS)}")
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
        """Return the attribute of a trial in which genetic samplers look for its generation. Here each generation is
        the next `population_size` told trials."""
        sampler = self._study.sampler
        if not isinstance(sampler, optuna.samplers.NSGAIISampler):
            return {}
        told = len(self._study.get_trials(deepcopy=False))
        return {sampler._get_generation_key(): told // (sampler.population_size or 1)}
