"""The records of a search: studies, their task configurations, and trials. They need the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from workers.contract import Declaration, Metric, TaskConfig

REFUSED = "not trained: "  # the beginning of the reason of a trial that the pre-flight refused


class TrialState(StrEnum):
    """`WAITING -> RUNNING -> COMPLETE | PRUNED | INFEASIBLE | FAILED`; after a crash, RUNNING becomes WAITING again."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    INFEASIBLE = "INFEASIBLE"
    FAILED = "FAILED"

    @property
    def finished(self) -> bool:
        """True if the trial has ended."""
        return self not in (TrialState.WAITING, TrialState.RUNNING)

    @property
    def judged(self) -> bool:
        """True if the trial has ended and its end tells something about the function, not only about a machine."""
        return self.finished and self is not TrialState.FAILED


class StudyKind(StrEnum):
    """The kind of a study: its trials come from a sampler, or from a fixed list of functions, seeds and task
    configurations."""

    SEARCH = "search"
    DESIGN = "design"


class Kind(StrEnum):
    """The kind of a trial: a function of the study's baselines, or a proposal."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of one expression with one seed under one task configuration, or a citation of such a training, or a
    refusal to train.

    Attributes:
        number: the number of the trial in the study, from 0.
        kind: baseline or candidate.
        expression: the function, as text in normal form.
        key: the key of the function; equal functions have equal keys.
        seed: the seed of the training: of the weights and of the order of the data.
        name: the name of a known function; may be empty.
        choices: the sampler's decisions; None for a baseline.
        task_config: the number of its task configuration in the study.
        state: the state of the trial.
        reason: why it ended in this state; empty for COMPLETE.
        cites: the number of the trial whose result this one repeats; None if it has its own result.
        retries: how many times it ran again.
        metrics: the final values by the names of metrics.
        value: the value of the objective; None if there is none.
        merit: the value with the sign that makes greater better.
        tie_merit: the same for the tie-breaker.
        parameters: number of parameters that the network learns.
        seconds: the worker's wall-clock time; 0 if no worker had the trial.
        worker: the name of the worker.
        finish_order: the position of the trial in the order in which the study's trials ended, from 0.
    """

    number: int
    kind: Kind
    expression: str
    key: str
    seed: int
    name: str = ""
    choices: tuple[int, ...] | None = None
    task_config: int = 0
    state: TrialState = TrialState.WAITING
    reason: str = ""
    cites: int | None = None
    retries: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    value: float | None = None
    merit: float | None = None
    tie_merit: float | None = None
    parameters: int | None = None
    seconds: float = 0.0
    worker: str = ""
    finish_order: int | None = None

    @property
    def training(self) -> int:
        """The number of the trial whose training gave the result: the cited one, or the trial itself."""
        return self.number if self.cites is None else self.cites

    @property
    def trained(self) -> bool:
        """True if a worker spent time on the trial, so that it is neither a citation nor refused before training."""
        return self.seconds > 0

    @property
    def refused(self) -> bool:
        """True if the pre-flight refused the trial: it ended as INFEASIBLE before any worker had it."""
        return self.state is TrialState.INFEASIBLE and self.cites is None and self.reason.startswith(REFUSED)

    @property
    def left_untrained(self) -> bool:
        """True if `--skip-mirrors` ended the trial before it began. All other PRUNED trials were trained or cite one
        that was."""
        return self.state is TrialState.PRUNED and self.value is None and self.cites is None

    @property
    def rank_key(self) -> tuple[float, float, int]:
        """The key by which trials are ranked, ascending: merit, then the tie-breaker's merit, then number."""
        return rank_key(self.merit, self.tie_merit, self.number)


def rank_key(merit: float | None, tie_merit: float | None, number: int) -> tuple[float, float, int]:
    """Return the key that sorts trainings, best first."""
    return -(merit or 0.0), -(tie_merit or 0.0), number


@dataclass(frozen=True, slots=True)
class StudyTask:
    """A task configuration of a study.

    Attributes:
        number: its number in the study, from 0. A search has only one.
        config: the task configuration.
        declared: the task's declaration of its metrics.
        objective: the metric by which trials are ranked.
        tie_breaker: the metric that decides between equal values of the objective.
        data_digest: the digest of the data; empty until the first training has returned it.
    """

    number: int
    config: TaskConfig
    declared: Declaration
    objective: Metric
    tie_breaker: Metric | None
    data_digest: str = ""

    def judged(self, trial: Trial, metrics: Mapping[str, float]) -> Trial:
        """Return the trial with the metrics, its value and its merits."""
        value = metrics.get(self.objective.name)
        tie = metrics.get(self.tie_breaker.name) if self.tie_breaker else None
        return replace(
            trial,
            metrics=metrics,
            value=value,
            merit=None if value is None else self.objective.merit(value),
            tie_merit=None if tie is None or self.tie_breaker is None else self.tie_breaker.merit(tie),
        )

    @property
    def shown(self) -> tuple[Metric, ...]:
        """The metrics that every result has: all except training metrics, unless one of these is the objective."""
        return tuple(m for m in self.declared.metrics if m.split != "train" or m.name == self.objective.name)


@dataclass(frozen=True, slots=True)
class Study:
    """A search or a design.

    Attributes:
        id: its id in the database.
        name: its name.
        kind: search or design.
        n_trials: its total number of trials, baselines included.
        tasks: its task configurations; a search has one.
        config: its settings, as plain values.
        versions: the software with which it began.
        created_at: when it was created.
    """

    id: int
    name: str
    kind: StudyKind
    n_trials: int
    tasks: tuple[StudyTask, ...]
    config: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    created_at: datetime | None = None

    @property
    def task(self) -> StudyTask:
        """The first task configuration, which is the only one of a search."""
        return self.tasks[0]

    @property
    def objective(self) -> Metric:
        """The metric by which the study ranks its trials."""
        return self.task.objective
