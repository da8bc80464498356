"""Proposers decide which training comes next in a study: a sampler, or a fixed design."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from heapq import nlargest
from itertools import product
from statistics import fmean
from typing import Any, Protocol, Self

from search_space import Choices, Expression, Grammar, key, parse
from searcher.records import TrialState
from searcher.samplers.contract import Observation, Pending, Sampler

LEADERS = 5  # functions that are trained again
MOST_TRAININGS = 5  # of each of them
SEEDS = 2**31  # all training seeds are smaller


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed training.

    Attributes:
        expression: the function, as text in normal form.
        key: the key of the function; equal functions have equal keys.
        seed: the seed of the training.
        choices: the decisions in the grammar; None if the function was not proposed as decisions.
        task_config: the number of the task configuration in the study.
        name: the name of a known function; may be empty.
    """

    expression: str
    key: str
    seed: int
    choices: Choices | None = None
    task_config: int = 0
    name: str = ""


class Wait(Enum):
    """The answer of a proposer that has nothing to propose until a pending trial has ended."""

    WAIT = "wait"


WAIT = Wait.WAIT


class Proposer(Protocol):
    """Proposes trainings. As with samplers, `ask` changes nothing, and only `tell` changes a proposer."""

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | Wait | None:
        """Return the proposal for trial `number`; WAIT if a pending trial must end first; None if there is nothing
        more to propose, ever."""

    def tell(self, observation: Observation) -> None:
        """Learn from a judged trial."""


class SamplerProposer:
    """Proposes the functions of a sampler, all with the same training seed."""

    def __init__(self, sampler: Sampler, grammar: Grammar, training_seed: int) -> None:
        self._sampler, self._grammar, self._seed = sampler, grammar, training_seed

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        found = self._sampler.ask(number, pending)
        if found is None:
            return None
        expression, choices = (found, None) if isinstance(found, Expression) else (self._grammar.decode(found), found)
        return Proposal(str(expression), key(expression), self._seed, choices)

    def tell(self, observation: Observation) -> None:
        self._sampler.tell(observation)


class ReplicatingProposer:
    """Proposes what another proposer does and, for a share of the trials, a function that leads again, with a new seed.

    It trains again the one of the best five that has the fewest trainings, each at most five times. A function that led
    by a lucky training falls back by its mean, and another one takes its place.

    Args:
        proposer: what it takes new functions from. It is told only trainings with the usual seed.
        share: how many of the trials train a function again.
        training_seed: the usual seed.
    """

    def __init__(self, proposer: Proposer, share: float, training_seed: int) -> None:
        self._proposer, self._share, self._seed = proposer, share, training_seed
        self._merits: dict[str, list[float]] = {}  # of candidates and baselines, by key
        self._expressions: dict[str, str] = {}

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | Wait | None:
        due = int((number + 1) * self._share) > int(number * self._share)
        if due and (leader := self._leader(pending)):
            key, trainings = leader
            return Proposal(self._expressions[key], key, (self._seed + trainings) % SEEDS)
        return self._proposer.ask(number, [one for one in pending if one.seed == self._seed])

    def _leader(self, pending: Sequence[Pending]) -> tuple[str, int] | None:
        """Return the function to train again, and how many trainings it has; None if there is none."""
        open_ones = Counter(one.key for one in pending)
        best = nlargest(LEADERS, self._merits, key=lambda one: fmean(self._merits[one]))
        trained = [(len(self._merits[one]) + open_ones[one], place, one) for place, one in enumerate(best)]
        fewest, _, leader = min(trained, default=(MOST_TRAININGS, 0, ""))
        return (leader, fewest) if fewest < MOST_TRAININGS else None

    def tell(self, observation: Observation) -> None:
        if observation.state is TrialState.COMPLETE and observation.merit is not None and observation.cost > 0:
            self._merits.setdefault(observation.key, []).append(observation.merit)
            self._expressions.setdefault(observation.key, observation.expression)
        elif observation.seed != self._seed:  # it diverged with this seed, so it leads no longer
            self._merits.pop(observation.key, None)
        if observation.seed == self._seed:
            self._proposer.tell(observation)


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a design: each function with each seed under each task configuration. A stage begins when the stage
    before it has ended."""

    expressions: tuple[str, ...]
    seeds: tuple[int, ...]
    task_configs: tuple[int, ...] = (0,)

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the stage from a JSON object."""
        return cls(tuple(fields["expressions"]), tuple(fields["seeds"]), tuple(fields["task_configs"]))


class Design:
    """Proposes a fixed list of trainings, stage after stage.

    Within a stage, functions change fastest, then task configurations, then seeds. So at any time, all functions have
    been trained about equally often.

    Args:
        stages: the stages in order.

    Raises:
        ParseError: a function is not an expression.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self._proposals: list[Proposal] = []
        self._begins: list[int] = []  # for each trial: the number of the first trial of its stage
        for stage in stages:
            begin = len(self._proposals)
            trees = [parse(text) for text in stage.expressions]
            functions = [(str(tree), key(tree)) for tree in trees]
            for seed, config, (text, found) in product(stage.seeds, stage.task_configs, functions):
                self._proposals.append(Proposal(text, found, seed, task_config=config))
                self._begins.append(begin)

    @property
    def most_trainings(self) -> int:
        """The number of trainings."""
        return len(self._proposals)

    @property
    def task_numbers(self) -> set[int]:
        """The numbers of the task configurations."""
        return {number for stage in self.stages for number in stage.task_configs}

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | Wait | None:
        if number >= self.most_trainings:
            return None
        begin = self._begins[number]
        return WAIT if any(trial.number < begin for trial in pending) else self._proposals[number]

    def tell(self, observation: Observation) -> None:
        """Do nothing: a fixed design does not learn."""

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the stages as plain values, for JSON."""
        return [asdict(stage) for stage in self.stages]

    @classmethod
    def from_plain(cls, stages: Sequence[Mapping[str, Any]]) -> Self:
        """Return the design from a JSON array."""
        return cls([Stage.from_plain(stage) for stage in stages])
