"""The contract of samplers. A sampler of your own needs this module and `search_space` only."""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from search_space import Choices, Expression
from searcher import SearcherError, UsageError
from searcher.records import Trial, TrialState
from workers.contract import Metric


class SamplerError(UsageError):
    """The sampler does not exist, cannot be used for this search, or does not take an option."""


class SamplerFailed(SearcherError):
    """A user's own sampler raised an exception or broke its contract. The study can be resumed."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A proposal that has not been judged yet.

    Attributes:
        number: the number of its trial.
        expression: the function, as text in normal form.
        choices: the decisions in the grammar; None if the function was not proposed as decisions.
        key: the key of the function; equal functions have equal keys.
        seed, task_config: the training seed, and the number of the task configuration; all the same in a search.
    """

    number: int
    expression: str
    choices: Choices | None
    key: str
    seed: int = 0
    task_config: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of a judged trial, as samplers get it.

    Attributes:
        number, expression, choices, key: as in `Pending`. `choices` is None for a baseline.
        seed: the seed of the training.
        state: COMPLETE, PRUNED (then `merit` is the one when the training was stopped) or INFEASIBLE. A design is also
            told of trainings that FAILED; a sampler is not.
        merit: the value of the objective, negated if it is minimised, so that greater is better. None if the function
            could not be trained.
        unit: the unit of the objective, as the task declares it: `nats`, `fraction` (in [0, 1]), any other or none.
        cost: seconds that the training took; 0 for a trial that cites another one.
        task_config: the number of the task configuration; always 0 in a search.
    """

    number: int
    expression: str
    choices: Choices | None
    key: str
    seed: int
    state: TrialState
    merit: float | None
    unit: str
    cost: float
    task_config: int = 0


class Rewards:
    """Turns observations into rewards in [0, 1], where greater is better, on the same scale for all objectives.

    A fraction stays as it is. A loss v in nats becomes exp(-v): the geometric mean of the probability that the network
    gave to the right class. It is bounded, so one diverging training cannot dominate. Any other value becomes its rank
    among all observations so far: the share of them that is worse, where equal ones count half. A function that could
    not be trained gets 0.
    """

    def __init__(self) -> None:
        self._merits: list[float] = []  # sorted

    def of(self, observation: Observation) -> float:
        """Return the reward of an observation. Call this once for each observation, in the order of `tell`."""
        merit = observation.merit
        if merit is None:
            return 0.0
        if observation.unit in ("nats", "fraction"):
            return math.exp(min(0.0, merit)) if observation.unit == "nats" else merit
        insort(self._merits, merit)
        worse, at_most = bisect_left(self._merits, merit), bisect_right(self._merits, merit)
        return (worse + at_most) / (2 * len(self._merits))


class Sampler(Protocol):
    """Proposes functions.

    Rules:
        1. `ask` changes nothing: until the next `tell`, the same number and the same pending trials get the same
           answer, whatever other calls of `ask` came between. All randomness comes from the seed and the number; see
           `generator`.
        2. Only `tell` changes a sampler. A new sampler that is told the same observations in the same order continues
           in the same way. That is how a study is resumed; no sampler is ever saved.
        3. `ask` returns decisions of the grammar. A sampler with a true attribute `any_expression` may return an
           `Expression` instead, of any shape.
        4. Equal seeds give equal proposals.

    `searcher.samplers.testing` has tests of these rules for any sampler. A user names a class as `module:Class`; it is
    called with the keywords `grammar` and `seed`, and the options in `--sampler-kwargs`.
    """

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices | Expression | None:
        """Return the proposal for trial `number`; None if there is nothing more to propose, ever.

        Args:
            number: the number of the trial, from 0; baselines have the first numbers.
            pending: trials that have not been judged yet, by number. If a sampler proposes a function that the study
                knows or that is pending, it is asked again for the same number, up to 100 times, with its earlier
                answers at the end of `pending`. If it repeats itself, the trial cites the known result.
        """

    def tell(self, observation: Observation) -> None:
        """Learn from a judged trial. Baselines are told too, and may be ignored."""


def observation_of(trial: Trial, objective: Metric) -> Observation:
    """Return a judged trial as an observation for samplers."""
    return Observation(
        trial.number,
        trial.expression,
        trial.choices,
        trial.key,
        trial.seed,
        trial.state,
        None if trial.state is TrialState.INFEASIBLE else trial.merit,
        objective.unit,
        trial.seconds,
        trial.task_config,
    )


def generator(seed: int, number: int) -> random.Random:
    """Return the random generator for the proposal of one trial. It gives the same numbers on every machine."""
    return random.Random(f"{seed}/{number}")
