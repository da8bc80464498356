"""The plan of a confirmation: which functions are trained with which seeds under which task configurations, and which
training comes next. It reads no store.

docs/evidence.md explains confirmations for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from searcher import SearcherError
from searcher.evidence import Across, Plan, Review, Samples, across, review
from searcher.evidence.samples import GREATEST, EvidenceError
from searcher.proposers import WAIT, Proposal, Wait
from searcher.records import Study, Trial, TrialState
from searcher.samplers.contract import Observation, Pending
from workers.contract import Metric


class PlanError(SearcherError):
    """This version cannot read a stored plan."""


Training = tuple[str, int, int]  # a function's key, a training seed, the number of a task configuration


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a confirmation.

    Attributes:
        expression: as text in normal form.
        key: the key of the function; equal functions have equal keys.
        name: the name of a known function; empty if it has none.
        searched: its value of the search's objective; None if the search did not train it.
        trial: the number of its trial in the search; None if the search did not train it.
    """

    expression: str
    key: str
    name: str = ""
    searched: float | None = None
    trial: int | None = None

    @property
    def label(self) -> str:
        """What people call it: its name, or the expression."""
        return self.name or self.expression


@dataclass(frozen=True, slots=True)
class Configuration:
    """A network on a data set, under which all functions are compared.

    Attributes:
        name: what people call it: `resnet8 on digits`.
        task_configs: the number of its task configuration in the study. If learning rates are tuned, there is one for
            each rate, in the order of `rates`.
        tuning: the task configurations of the tuning, in the same order; empty if learning rates are not tuned. They
            measure no test metrics.
        rates: the learning rates; empty if they are not tuned.
    """

    name: str
    task_configs: tuple[int, ...]
    tuning: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The plan of a confirmation, as it is stored before the first training.

    Attributes:
        metric: decides the comparisons: a test metric, or a validation metric if the task has none.
        functions: all of them, the reference included.
        reference: the key of the function that the others are compared with.
        configurations: what they are compared under.
        seeds: the training seeds, in their order.
        looks: after how many seeds the data are looked at, ascending. One look: all functions are trained with all
            seeds. More: functions that are decided are trained no further.
        tuning_metric: the validation metric that chooses learning rates; None if they are not tuned.
        tuning_seed: the training seed of the tuning.
        alpha: the accepted probability of any false verdict, over all functions and configurations.
        rope: differences of at most this count as none; None: the default of the metric's unit.
        search: the name of the search whose functions these are; empty: none.
        searched: the metric of the values in the search; None without a search.
        search_seed: the training seed of the search; None without a search.
        reproduces: the published experiment that this is a part of, and its scale, as in `lecture cpu`; mostly empty.
    """

    metric: Metric
    functions: tuple[Function, ...]
    reference: str
    configurations: tuple[Configuration, ...]
    seeds: tuple[int, ...]
    looks: tuple[int, ...]
    tuning_metric: Metric | None = None
    tuning_seed: int = 0
    alpha: float = 0.05
    rope: float | None = None
    search: str = ""
    searched: Metric | None = None
    search_seed: int | None = None
    reproduces: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The functions' labels by their keys."""
        return {function.key: function.label for function in self.functions}

    @property
    def reference_label(self) -> str:
        """The label of the reference."""
        return self.labels[self.reference]

    @property
    def until_sure(self) -> bool:
        """Whether functions that are decided are trained no further."""
        return len(self.looks) > 1

    @property
    def most_trainings(self) -> int:
        """The number of trainings if nothing is decided early, the tuning included."""
        per_function = sum(len(one.tuning) + self.looks[-1] for one in self.configurations)
        return len(self.functions) * per_function

    @property
    def task_numbers(self) -> set[int]:
        """The numbers of the task configurations."""
        return {number for one in self.configurations for number in (*one.task_configs, *one.tuning)}

    @property
    def looking(self) -> Plan:
        """The rule that holds for each configuration by itself: when its data are looked at, and what follows."""
        labels = self.labels
        others = tuple(label for key, label in labels.items() if key != self.reference)
        alpha = self.alpha / len(self.configurations)
        return Plan(self.metric, others, labels[self.reference], self.seeds, self.looks, alpha, self.rope)

    @property
    def rule(self) -> str:
        """The rule in words, to print before the first training."""
        several = len(self.configurations)
        if self.until_sure:
            under = f" This holds for each of {several} configurations by itself." if several > 1 else ""
            return self.looking.rule + under
        comparisons = several * (len(self.functions) - 1)
        margin = self.looking.rope
        same = "" if margin is None else f" or equivalent within ±{margin:g} (two one-sided tests)"
        corrected = f", corrected by Holm's method for all {comparisons} comparisons," if comparisons > 1 else ""
        return (
            f"Train every function with {len(self.seeds)} seeds, then compare each with {self.reference_label} by "
            f"{self.metric.name} on the same seeds: by the paired t test, or by the sign test where one diverged and "
            f"the other did not. A function is shown better or worse{same} if the p-value{corrected} is at most "
            f"{self.alpha:g}."
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the plan as a JSON object, with the rule in words."""
        return {**asdict(self), "rule": self.rule}

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the plan of a JSON object.

        Raises:
            PlanError: this version cannot read it.
        """
        try:
            return cls._read(fields)
        except (TypeError, KeyError, ValueError, AttributeError, SearcherError) as error:
            why = f"no {error}" if isinstance(error, KeyError) else error
            raise PlanError(
                f"the stored plan of a confirmation cannot be read ({why}); if a newer searcher made it, upgrade"
            ) from error

    @classmethod
    def of(cls, study: Study) -> Self:
        """Return the plan of a study that is a confirmation.

        Raises:
            PlanError: this version cannot read it.
        """
        plan, there = cls.from_plain(study.config["design"]), len(study.tasks)
        if unknown := plan.task_numbers - set(range(there)):
            raise PlanError(
                f"the plan of study {study.name!r} names task configuration {min(unknown)}; there are {there}, from 0"
            )
        return plan

    @classmethod
    def _read(cls, fields: Mapping[str, Any]) -> Self:
        known = {name: value for name, value in fields.items() if name != "rule"}
        for name in ("metric", "tuning_metric", "searched"):
            known[name] = known[name] and Metric.from_plain(known[name])
        known["functions"] = tuple(Function(**one) for one in fields["functions"])
        known["configurations"] = tuple(Configuration(**_with_tuples(one)) for one in fields["configurations"])
        found = cls(**known | {name: tuple(fields[name]) for name in ("seeds", "looks")})
        found.check()
        return found

    def check(self) -> None:
        """Raise PlanError, or EvidenceError, if the plan cannot be carried out."""
        texts = [text for one in self.functions for text in (one.expression, one.key, one.name)]
        texts += [one.name for one in self.configurations]
        numbers: list[Any] = [number for one in self.configurations for number in (*one.task_configs, *one.tuning)]
        numbers += [*self.seeds, *self.looks, self.tuning_seed]
        keys = [one.key for one in self.functions]
        wrong = [
            *(text for text in texts if not isinstance(text, str)),
            *(number for number in numbers if not isinstance(number, int)),
        ]
        if wrong:
            raise PlanError(f"it has {wrong[0]!r} where a text or a whole number is expected")
        if self.reference not in keys or len(set(keys)) < len(keys):
            raise PlanError("its reference is none of its functions, or a function is there twice")
        tuned = [one for one in self.configurations if one.tuning or one.rates]
        if not self.configurations or not all(one.task_configs for one in self.configurations):
            raise PlanError("it has no task configuration to train under")
        if any(not len(one.task_configs) == len(one.tuning) == len(one.rates) for one in tuned):
            raise PlanError("it has not as many learning rates as task configurations")
        _ = self.looking  # checks seeds, looks, alpha, rope and labels


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a JSON object with tuples for lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


@dataclass(slots=True)
class Results:
    """The trainings of a confirmation that have ended.

    Attributes:
        merits: the merit of each training that a worker judged; None if the training diverged.
        failed: trainings that a machine could not finish.
    """

    plan: Confirmation
    merits: dict[Training, float | None] = field(default_factory=dict)
    failed: set[Training] = field(default_factory=set)

    @classmethod
    def of(cls, plan: Confirmation, trials: Sequence[Trial]) -> Self:
        """Return the results of a study's trials."""
        found = cls(plan)
        for trial in trials:
            if trial.state.finished:
                merit = None if trial.state is TrialState.INFEASIBLE else trial.merit
                found.enter((trial.key, trial.seed, trial.task_config), trial.state, merit)
        return found

    def enter(self, training: Training, state: TrialState, merit: float | None) -> None:
        """Enter a training that has ended. One that ended with an absurdly great value has diverged."""
        if state is TrialState.FAILED:
            self.failed.add(training)
        else:
            self.merits[training] = None if merit is not None and abs(merit) > GREATEST else merit

    @property
    def ended(self) -> set[Training]:
        """All trainings that have ended."""
        return self.merits.keys() | self.failed

    def chosen(self, configuration: Configuration, key: str) -> int:
        """Return the task configuration with the learning rate that did best for a function in the tuning; the middle
        one if the function diverged with all of them."""
        tried = [
            (merit, -abs(place - len(configuration.tuning) // 2), config)
            for place, (config, tuning) in enumerate(
                zip(configuration.task_configs, configuration.tuning, strict=False)
            )
            if (merit := self.merits.get((key, self.plan.tuning_seed, tuning))) is not None
        ]
        return max(tried)[2] if tried else configuration.task_configs[len(configuration.task_configs) // 2]

    def samples(self) -> tuple[Samples, ...]:
        """Return the values of the plan's metric under each configuration, by the labels of functions."""
        metric, found = self.plan.metric, []
        for configuration in self.plan.configurations:
            values: dict[str, dict[int, float | None]] = {}
            for function in self.plan.functions:
                config = self.chosen(configuration, function.key)
                merits = {seed: (function.key, seed, config) for seed in self.plan.seeds}
                values[function.label] = {
                    seed: None if (merit := self.merits[training]) is None else metric.merit(merit)
                    for seed, training in merits.items()
                    if training in self.merits
                }
            found.append(Samples(metric, values, configuration.name))
        return tuple(found)

    def reviews(self) -> tuple[Review, ...]:
        """Return where the rule of each configuration stands."""
        labels, rule = self.plan.labels, self.plan.looking
        found = []
        for configuration, samples in zip(self.plan.configurations, self.samples(), strict=True):
            failed = [
                (labels[key], seed) for key, seed, config in self.failed if config == self.chosen(configuration, key)
            ]
            found.append(review(rule, samples, failed))
        return tuple(found)

    def evidence(self) -> Across:
        """Return the verdicts so far: with a rule that ends early, those of the last look; otherwise those of all
        trainings there are.

        Raises:
            EvidenceError: nothing can be compared yet.
        """
        if self.plan.until_sure:
            found = tuple(one.evidence for one in self.reviews() if one.evidence)
            return Across(found, None)
        known = [samples for samples in self.samples() if samples.values[self.plan.reference_label]]
        if not known:
            raise EvidenceError(f"no training of {self.plan.reference_label} has ended")
        return across(known, self.plan.reference_label, alpha=self.plan.alpha, rope=self.plan.rope)

    def needed(self) -> Iterator[Training]:
        """Yield the trainings that come next, in order. Those that run are among them. If there are none, all is done.

        The tuning comes first. Within a stage, functions change fastest, then configurations, then seeds, so that at
        any time all functions have been trained about equally often.
        """
        tuning = [
            (function.key, self.plan.tuning_seed, config)
            for one in self.plan.configurations
            for config in one.tuning
            for function in self.plan.functions
        ]
        if left := [training for training in tuning if training not in self.ended]:
            yield from left
            return
        keys = {label: key for key, label in self.plan.labels.items()}
        wanted = [
            (self.plan.seeds.index(seed), place, keys[label], seed, self.chosen(configuration, keys[label]))
            for place, (configuration, review) in enumerate(zip(self.plan.configurations, self.reviews(), strict=True))
            for label, seed in review.needed
        ]
        order = {function.key: place for place, function in enumerate(self.plan.functions)}
        for _, _, key, seed, config in sorted(wanted, key=lambda one: (*one[:2], order[one[2]])):
            yield key, seed, config


class ConfirmationProposer:
    """Proposes the trainings of a confirmation."""

    def __init__(self, plan: Confirmation) -> None:
        self._functions = {function.key: function for function in plan.functions}
        self._results = Results(plan)
        self._needed: list[Training] = []  # until the tuning or the next look is complete

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | Wait | None:
        del number  # the trainings that have ended or are pending decide
        open_ones = {(one.key, one.seed, one.task_config) for one in pending}
        self._needed = self._needed or list(self._results.needed())
        for key, seed, config in self._needed:
            if (key, seed, config) not in open_ones:
                function = self._functions[key]
                return Proposal(function.expression, key, seed, task_config=config, name=function.name)
        return WAIT if open_ones else None

    def tell(self, observation: Observation) -> None:
        training = observation.key, observation.seed, observation.task_config
        self._results.enter(training, observation.state, observation.merit)
        if training in self._needed:
            self._needed.remove(training)
