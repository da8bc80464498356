"""The records of a search: studies and trials. Frozen, standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

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


class Objective(StrEnum):
    """What a study ranks by. Both are measured on the validation part."""

    VAL_LOSS = "val_loss"
    VAL_ACC = "val_acc"


class Kind(StrEnum):
    """Where a trial comes from."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class Trial:
    """One training run of one expression with one seed, or the citation of one, or a refusal to train it.

    `choices` are the sampler's decisions (None for a baseline); `cites` is the number of the trial whose result this
    one repeats; `finish_order` counts the study's trials in the order in which they ended. `val_loss` is in nats,
    `val_acc` in [0, 1], those of the last epoch that was trained, `seconds` the worker's wall-clock time.
    """

    number: int
    kind: Kind
    expression: str
    key: str
    seed: int
    name: str = ""
    choices: tuple[int, ...] | None = None
    state: TrialState = TrialState.WAITING
    reason: str = ""
    cites: int | None = None
    retries: int = 0
    val_loss: float | None = None
    val_acc: float | None = None
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
        """Whether `--skip-mirrors` ended it before it began. All other PRUNED trials have a result, or cite one."""
        return self.state is TrialState.PRUNED and self.val_loss is None and self.cites is None


@dataclass(frozen=True, slots=True)
class Study:
    """A search: its settings, and the software it began with. `n_trials` is the total, baselines included."""

    id: int
    name: str
    n_trials: int
    objective: Objective
    config: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
