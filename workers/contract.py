"""The contract between a search and its workers. It needs the standard library only.

Between processes, jobs and outcomes are JSON text. It can be read by people, and nothing that is received is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from workers.text import limited, storable

WORKER_LENGTH = 1000  # the longest name of a worker, in characters
SPLITS = ("train", "val", "test")


class WorkersError(RuntimeError):
    """The workers cannot do what was asked for; the message says what they accept."""


class Direction(StrEnum):
    """The direction in which the values of a metric get better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that a task measures.

    Attributes:
        name: its prefix is the split on which it is measured: `train_`, `val_` or `test_`.
        direction: minimize or maximize.
        unit: `nats` for a loss v where exp(-v) is a probability, `fraction` for a number in [0, 1], or any other text;
            empty if it is not known.
    """

    name: str
    direction: Direction
    unit: str = ""

    @property
    def split(self) -> str:
        """The part of the data on which the metric is measured: `train`, `val` or `test`."""
        return self.name.partition("_")[0]

    def merit(self, value: float) -> float:
        """Return the value, or its negative if the metric is minimized, so that greater is better. Applied to a merit,
        this returns the value."""
        return (value if self.direction is Direction.MAXIMIZE else -value) + 0.0  # not -0.0, which SQLite stores as 0.0

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
    """A task's description of itself, known before any training.

    Attributes:
        metrics: all metrics that it measures. A result has each of them; only training metrics may be missing.
        objective: the metric to rank by, unless the user names another one.
        tie_breaker: the metric that decides between equal values of the objective; empty if there is none.
        also_good: further metrics for pruners: in the first half of a training, a candidate that is good by any of them
            goes on.
        steps: the last step that a complete training reports; 0 if it is not known before.
        options: the task's options with their values.
        digest: the digest of the task's source code; empty for a task of this package.
        asked: True if the task declares no metrics, so that its only metric is the objective that the user named.
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
        """Return the metric of that name; None if there is none."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    @property
    def without_test(self) -> Self:
        """The declaration without the metrics of the test part, which searches must not see."""
        hidden = {metric.name for metric in self.metrics if metric.split == "test"}
        return replace(
            self,
            metrics=tuple(metric for metric in self.metrics if metric.name not in hidden),
            tie_breaker="" if self.tie_breaker in hidden else self.tie_breaker,
            also_good=tuple(name for name in self.also_good if name not in hidden),
        )

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the declaration of a JSON object."""
        metrics = tuple(map(Metric.from_plain, fields["metrics"]))
        return cls(**{**fields, "metrics": metrics, "also_good": tuple(fields["also_good"])})


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """Everything that decides the result of a training. How it is run (time-outs, folders, workers) is not part of it.

    Attributes:
        task: `images`, or `module:function` or `file.py:function` for a user's own task.
        parameters: the parameters of the task that differ from their defaults, as plain values. Defaults never change.
        primitives: modules that register further primitives.
    """

    task: str = "images"
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    primitives: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """16 hexadecimal digits, which are equal for equal configurations on every machine."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the configuration of a JSON object."""
        return cls(fields["task"], fields["parameters"], tuple(fields["primitives"]))


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a learning curve.

    Attributes:
        step: counts the steps of the task; the steps of the image task are epochs, from 1.
        metrics: values by the names of metrics.
    """

    step: int
    metrics: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Learned:
    """What a training has made of one parameter of the activation at one site of a network.

    Attributes:
        site: the name of the activation in the network, or its number in a user's own task.
        parameter: `beta`; if the function has several, `beta1`, `beta2` and so on.
        channels: the number of its values, one for each channel.
        dim: the dimension of the channels.
        mean, deviation: their mean and standard deviation.
        minimum, lower_quartile, median, upper_quartile, maximum: their quantiles.
        values: all values in float32; empty if there are too many to keep.
    """

    site: str
    parameter: str
    channels: int
    dim: int
    mean: float
    deviation: float
    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float
    values: tuple[float, ...] = ()

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the record of a JSON object."""
        return cls(**{**fields, "values": tuple(fields["values"])})


@dataclass(frozen=True, slots=True)
class Limit:
    """The lowest merit of one metric that is good enough."""

    metric: Metric
    merit: float


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Limits that a training must reach by a step. It is stopped if its best merit so far is worse than every limit.

    There can be several limits because no metric tells enough in the first half: with a high learning rate the loss on
    held-out data is noisy, and the loss on the training data does not tell how well a network generalises. A training
    that is good by either may still become the best.
    """

    step: int
    limits: tuple[Limit, ...]

    def missed(self, curve: Sequence[Point]) -> bool:
        """Return True if the last point of the curve is the first at or after the step, and all limits are missed."""
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
    """One training, with everything that a worker needs, as plain values.

    Attributes:
        number: the number of the trial in its study.
        expression: the function, as text in normal form.
        seed: fixes the initial weights and the order of the data.
        task: the task configuration.
        describe: train nothing, and return the task's declaration in the outcome.
        data_dir: folder with the files of the data; empty means the usual folders.
        data_digest: the digest that the data must have; empty accepts any data.
        timeout_seconds: the longest time that a training may take; 0 means no limit.
        cutoffs: a training that misses one of them is stopped.
        first_rung: the first step at which the pruner may stop a training; 0 means none. At this step the image task
            stops a network that is no better than guessing.
        checkpoint_dir: folder of checkpoints; empty means a folder below the worker's cache.
        checkpoint_seconds: the shortest time between two checkpoints.
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
        """Return the job as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the job of a JSON text."""
        fields = json.loads(text)
        cutoffs = tuple(map(Cutoff.from_plain, fields["cutoffs"]))
        return cls(**{**fields, "task": TaskConfig.from_plain(fields["task"]), "cutoffs": cutoffs})


class Verdict(StrEnum):
    """How a job ended.

    COMPLETE has a result. PRUNED was stopped by a pruner. INFEASIBLE means that the function cannot be trained, for
    example because a loss is not finite. FAILED means that the machine or the code failed, which does not judge the
    function.
    """

    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    INFEASIBLE = "INFEASIBLE"
    FAILED = "FAILED"


class Health(StrEnum):
    """The state in which a job left its worker process."""

    SOUND = "SOUND"
    SPENT = "SPENT"  # it ran out of memory or leaks memory, so the next job should have a new process
    LOST = "LOST"  # it is dead, or cannot train any more: its GPU does not answer, or its thread hangs


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a job.

    Attributes:
        verdict: how the job ended.
        reason: why it ended so; empty for COMPLETE. The first line is a summary.
        metrics: the final values by the names of metrics; not empty if and only if the verdict is COMPLETE or PRUNED.
        curve: the reported points, by step.
        parameters: number of parameters that the network learns; None if not known.
        data_digest: the digest of the data on which it was trained; empty if not known.
        seconds: the worker's wall-clock time, which the pool measures.
        worker: the name of the worker, HOST:PROCESS.
        health: the state in which the job left its worker process.
        declaration: the task's declaration, for a job with `describe`.
        permanent: True if a FAILED job would fail in the same way if it ran again.
        learned: the learned parameters of the activations, site by site.
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
    learned: tuple[Learned, ...] = ()

    def __post_init__(self) -> None:
        # The text of an exception may have any length, and characters that a database does not accept.
        object.__setattr__(self, "reason", limited(storable(self.reason)))
        object.__setattr__(self, "worker", limited(storable(self.worker), WORKER_LENGTH))

    def to_json(self) -> str:
        """Return the outcome as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the outcome of a JSON text."""
        fields = json.loads(text)
        declared = fields["declaration"]
        typed = {
            "verdict": Verdict(fields["verdict"]),
            "health": Health(fields["health"]),
            "curve": tuple(Point(**point) for point in fields["curve"]),
            "learned": tuple(map(Learned.from_plain, fields["learned"])),
            "declaration": Declaration.from_plain(declared) if declared else None,
        }
        return cls(**{**fields, **typed})
