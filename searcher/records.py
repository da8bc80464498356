"""The records of a search: studies, what their trainings mean, and trials. Frozen, standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from workers.contract import Declaration, Metric, TaskConfig

REFUSED = "not trained: "  # how the reason of a trial begins that the pre-flight refused


class TrialState(StrEnum):
    """`WAITING -> RUNNING -> COMPLETE | PRUNED | INFEASIBLE | FAILED`; a crash puts RUNNING back to WAITING."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    INFEASIBLE = "INFEASIBLE"
    FAILED = "FAILED"

    @property
    def finished(self) -> bool:
        return self not in (TrialState.WAITING, TrialState.RUNNING)

    @property
    def judged(self) -> bool:
        """Whether it says something about the function, and not only about a machine."""
        return self.finished and self is not TrialState.FAILED


class StudyKind(StrEnum):
    """What proposes the trials of a study: a sampler, or a fixed list of functions, seeds and task configurations."""

    SEARCH = "search"
    DESIGN = "design"


class Kind(StrEnum):
    """Where a trial comes from."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of one expression with one seed under one task configuration, or the citation of one, or a refusal
    to train it.

    Attributes:
        seed: the seed of the training: of the weights and of the order of the data.
        choices: the sampler's decisions; None for a baseline.
        task_config: the number of its task configuration in the study.
        cites: the number of the trial whose result this one repeats.
        metrics: what was measured at the end, by name.
        value: of the objective; None where nothing was measured.
        merit: the value, with the sign by which greater is better; `tie_merit` likewise, of the tie-breaker.
        parameters: how many numbers the network learns.
        seconds: the worker's wall-clock time.
        finish_order: counts the study's trials in the order in which they ended.
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
    def trained(self) -> bool:
        """Whether a worker spent time on it: not cited, not refused before training."""
        return self.seconds > 0

    @property
    def refused(self) -> bool:
        """Whether the pre-flight refused it: it ended as INFEASIBLE before any worker had it."""
        return self.state is TrialState.INFEASIBLE and self.cites is None and self.reason.startswith(REFUSED)

    @property
    def left_untrained(self) -> bool:
        """Whether `--skip-mirrors` ended it before it began. All other PRUNED trials were trained, or cite one."""
        return self.state is TrialState.PRUNED and self.value is None and self.cites is None

    @property
    def rank_key(self) -> tuple[float, float, int]:
        """What trials are ranked by, the least first: the merit, then the tie-breaker's, then the number."""
        return rank_key(self.merit, self.tie_merit, self.number)


def rank_key(merit: float | None, tie_merit: float | None, number: int) -> tuple[float, float, int]:
    """Return what is sorted to rank trainings, best first."""
    return -(merit or 0.0), -(tie_merit or 0.0), number


@dataclass(frozen=True, slots=True)
class StudyTask:
    """A task configuration of a study.

    Attributes:
        number: its number in the study, from 0. A search has one.
        declared: what the task measures.
        objective: the metric that trials are ranked by.
        tie_breaker: decides between equal values of the objective.
        data_digest: the digest of the data; empty until the first training has told it.
    """

    number: int
    config: TaskConfig
    declared: Declaration
    objective: Metric
    tie_breaker: Metric | None
    data_digest: str = ""

    def judged(self, trial: Trial, metrics: Mapping[str, float]) -> Trial:
        """Return the trial with what was measured, and what that is worth."""
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
        """The metrics that a result has: all but those of the training split, unless one is the objective."""
        return tuple(m for m in self.declared.metrics if m.split != "train" or m.name == self.objective.name)


@dataclass(frozen=True, slots=True)
class Study:
    """A search or a design: its settings, what its trainings mean, and the software it began with.

    Attributes:
        n_trials: the total, baselines included.
        tasks: its task configurations; those of a search are one.
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
        """The metric that the study ranks by."""
        return self.task.objective
