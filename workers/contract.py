"""The contract between a search and its workers. Standard library only.

Between processes a job and its outcome travel as JSON text: readable, and nothing that is received is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from workers.text import holdable, limited

WORKER_LENGTH = 1000  # characters of a worker's name, most
SPLITS = ("train", "val", "test")


class WorkersError(RuntimeError):
    """A request that the workers cannot serve; the message says what they accept."""


class Direction(StrEnum):
    """Which values of a metric are better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that a task measures.

    Attributes:
        name: begins with the split that it is measured on: `train_`, `val_` or `test_`.
        direction: which values are better.
        unit: `nats` for a loss whose exponential is a probability, `fraction` for a number in [0, 1], or any other;
            empty if it is not said.
    """

    name: str
    direction: Direction
    unit: str = ""

    @property
    def split(self) -> str:
        """The data that it is measured on: `train`, `val` or `test`."""
        return self.name.partition("_")[0]

    def merit(self, value: float) -> float:
        """Return the value with the sign by which greater is better. It is its own inverse."""
        return (value if self.direction is Direction.MAXIMIZE else -value) + 0.0  # never -0.0, which SQLite drops

    def best(self, curve: Sequence[Point]) -> float | None:
        """Return the greatest merit of a learning curve; None if no point has this metric."""
        merits = [self.merit(point.metrics[self.name]) for point in curve if self.name in point.metrics]
        return max(merits, default=None)

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the metric of a JSON object."""
        return cls(str(fields["name"]), Direction(fields["direction"]), str(fields["unit"]))


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a task says about itself before any training.

    Attributes:
        metrics: all that it measures. A result has each of them once; those of the training split may be missing.
        objective: the metric to rank by, unless another one is asked for.
        tie_breaker: the metric that decides between equal values of the objective; empty: none.
        also_good: further metrics that save a training from its pruner: in its first half, one that does well by any
            of them goes on.
        steps: the last step that a whole training reports; 0: not known before.
        options: the keywords that it takes, with their defaults.
        digest: of the task's own source code; empty for a task of this package.
        asked: the task declares no metrics; its only one is the objective that a person has named.
    """

    metrics: tuple[Metric, ...]
    objective: str
    tie_breaker: str = ""
    also_good: tuple[str, ...] = ()
    steps: int = 0
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    digest: str = ""
    asked: bool = False

    def metric(self, name: str) -> Metric | None:
        """Return the metric of that name, if there is one."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the declaration of a JSON object."""
        metrics = tuple(map(Metric.from_plain, fields["metrics"]))
        return cls(**{**fields, "metrics": metrics, "also_good": tuple(fields["also_good"])})


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """Everything that decides what one training means. How it is run (time-outs, folders, workers) is no part of it.

    Attributes:
        task: `images`, or `module:function` or `file.py:function` for a task of a person's own.
        parameters: plain values; those that are not at their default, and defaults never change.
        primitives: modules that define words of expressions beyond those of the language.
    """

    task: str = "images"
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    primitives: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Equal for equal configurations, on every machine: 16 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the configuration of a JSON object."""
        return cls(fields["task"], fields["parameters"], tuple(fields["primitives"]))


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a learning curve: values by the names of metrics. `step` counts what the task counts: the image
    task's epochs, from 1."""

    step: int
    metrics: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Limit:
    """A merit by one metric that is just good enough."""

    metric: Metric
    merit: float


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A training is stopped that at `step` is worse than all limits, each by the best that it has reached so far.

    While the learning rate is high the loss on held-out data jumps about; the loss on the training data tells how fast
    a network learns, but not how well it generalises. One that is good by either may still become the best.
    """

    step: int
    limits: tuple[Limit, ...]

    def missed(self, curve: Sequence[Point]) -> bool:
        """Return whether the training with this curve has just come to the step, and is worse than all limits."""
        if not curve or curve[-1].step < self.step or (len(curve) > 1 and curve[-2].step >= self.step):
            return False
        found = [(limit.metric.best(curve), limit.merit) for limit in self.limits]
        return all(best is not None and best < merit for best, merit in found)

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the cut-off of a JSON object."""
        limits = (Limit(Metric.from_plain(limit["metric"]), limit["merit"]) for limit in fields["limits"])
        return cls(fields["step"], tuple(limits))


@dataclass(frozen=True, slots=True)
class Job:
    """One training: everything that a worker needs, as plain values.

    Attributes:
        number: the number of the trial in its study.
        seed: fixes the initial weights and the order of the data.
        task: what the training means.
        describe: train nothing; the outcome has the task's declaration.
        data_dir: folder with the files of the data; empty: the usual places.
        data_digest: the digest that the data must have; empty accepts any data.
        timeout_seconds: the longest that a training may take; 0 means no limit.
        cutoffs: a training that misses one of them is stopped.
        first_rung: the first step at which the pruner would stop a training; 0: none. There the image task stops a
            network that is no better than guessing.
        checkpoint_dir: where checkpoints are written, at most every `checkpoint_seconds`; empty: below the worker's
            cache.
    """

    number: int
    expression: str
    seed: int = 0
    task: TaskConfig = TaskConfig()
    describe: bool = False
    data_dir: str = ""
    data_digest: str = ""
    timeout_seconds: float = 0.0
    cutoffs: tuple[Cutoff, ...] = ()
    first_rung: int = 0
    checkpoint_dir: str = ""
    checkpoint_seconds: float = 60.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        cutoffs = tuple(map(Cutoff.from_plain, fields["cutoffs"]))
        return cls(**{**fields, "task": TaskConfig.from_plain(fields["task"]), "cutoffs": cutoffs})


class Verdict(StrEnum):
    """How a job ended. Bad mathematics is INFEASIBLE, a broken machine is FAILED; PRUNED was stopped as bad."""

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    INFEASIBLE = "INFEASIBLE"
    FAILED = "FAILED"


class Health(StrEnum):
    """In what state a job left the process that it ran in."""

    SOUND = "SOUND"
    SPENT = "SPENT"  # it was out of memory: the next job is better off in a fresh process
    LOST = "LOST"  # it is dead, or can train nothing more: its GPU does not answer, its thread hangs


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job.

    Attributes:
        metrics: what was measured at the end, by name. There are some if and only if the verdict is COMPLETE or PRUNED.
        curve: the points that were reported, by step.
        parameters: how many numbers the network learns; None: not known.
        data_digest: the digest of the data that it was trained on; empty: not known.
        seconds: the worker's wall-clock time; the pool enters it.
        worker: where it ran.
        declaration: the answer to a job that asks for it.
        permanent: a FAILED job that would fail in the same way if it ran again.
    """

    verdict: Verdict
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)
    curve: tuple[Point, ...] = ()
    parameters: int | None = None
    data_digest: str = ""
    seconds: float = 0.0
    worker: str = ""
    health: Health = Health.SOUND
    declaration: Declaration | None = None
    permanent: bool = False

    def __post_init__(self) -> None:
        # An exception's text may be anything, of any length, and not every database takes it.
        object.__setattr__(self, "reason", limited(holdable(self.reason)))
        object.__setattr__(self, "worker", limited(holdable(self.worker), WORKER_LENGTH))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        declared = fields["declaration"]
        typed = {
            "verdict": Verdict(fields["verdict"]),
            "health": Health(fields["health"]),
            "curve": tuple(Point(**point) for point in fields["curve"]),
            "declaration": Declaration.from_plain(declared) if declared else None,
        }
        return cls(**{**fields, **typed})
