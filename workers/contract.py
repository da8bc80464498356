"""The contract between a search and its workers. Standard library only.

Between processes a job and its outcome travel as JSON text: readable, and nothing that is received is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

from workers.text import holdable, limited

WORKER_LENGTH = 1000  # characters of a worker's name, most


class WorkersError(RuntimeError):
    """A request that the workers cannot serve; the message says what they accept."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a child is trained: SGD with momentum, for some epochs or some steps. Those with a name are in
    workers/tasks/images/recipes.py.

    Attributes:
        steps: so many batches instead of `epochs`; 0: the epochs decide.
        learning_rate: the largest of the schedule.
        weight_decay: of all weights but the activations'.
        schedule: `onecycle` (up for the part `warmup` of all steps, then down to nearly 0), `cosine` (down to 0) or
            `steps` (times `drop_factor` at each of `drops`, in epochs).
        label_smoothing: the share of a label that goes to all classes alike.
        clip_norm: the norm to which longer gradients are cut; 0: none.
        crop: pixels by which images are shifted at most; `flip`: half of them mirrored; `cutout`: side of a square that
            is blanked, in pixels.
        precision: `auto` (bfloat16 on CUDA, else float32), `bfloat16` or `float32`.
    """

    name: str = "quick"
    epochs: int = 8
    steps: int = 0
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "onecycle"
    warmup: float = 0.25
    drops: tuple[float, ...] = ()
    drop_factor: float = 0.1
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A child is stopped that after `epoch` epochs is worse than both limits, by the best that it has reached so far.

    While the learning rate is high the loss on held-out images jumps about; that on the training images tells how fast
    a child learns, but not how well it generalises. One that is good at either may still become the best.

    Attributes:
        train_loss: in nats.
        objective: `val_loss` or `val_acc`; `limit` is a `badness` by it.
    """

    epoch: int
    train_loss: float
    objective: str
    limit: float

    def missed(self, curve: Sequence[Epoch]) -> bool:
        """Whether the child with this curve has come to the epoch and is worse."""
        if len(curve) != self.epoch:
            return False
        return best_train_loss(curve) > self.train_loss and badness(curve, self.objective) > self.limit


def best_train_loss(curve: Sequence[Epoch]) -> float:
    return min(point.train_loss for point in curve)


def badness(curve: Sequence[Epoch], objective: str) -> float:
    """The smallest loss, or the smallest share of wrong answers, of a learning curve."""
    return min(1 - point.val_acc if objective == "val_acc" else point.val_loss for point in curve)


SCHEDULES = ("onecycle", "cosine", "steps")
PRECISIONS = ("auto", "bfloat16", "float32")


@dataclass(frozen=True, slots=True)
class Job:
    """One training run: everything a worker needs, as plain values.

    Attributes:
        number: the number of the trial in its study.
        width: an option of `model`; 0 is the network's own width.
        match: a pattern of the names of the activations that are replaced in a model of the user's own; "" means all.
        data_dir, limit_train, limit_val, standardise: as in `workers.tasks.images.data.load`.
        data_digest: the digest that the data must have; "" accepts any data.
        seed: fixes the initial weights and the order of images.
        split_seed: fixes which images are held out for validation.
        primitives: modules that define words of the expression beyond those of the language.
        compile: pass activations through torch.compile where that pays.
        timeout_seconds: the longest a training may take; 0 means no limit.
        cutoffs: a child that misses one of them is stopped.
        guess_epoch: after so many epochs, stop a child that is no better than guessing; 0 means never.
        checkpoint_dir: where checkpoints are written at the ends of epochs, at most every `checkpoint_seconds`; "" is
            a folder below the worker's cache.
    """

    number: int
    expression: str
    dataset: str = "digits"
    data_dir: str = ""
    limit_train: int = 0
    limit_val: int = 0
    standardise: bool | None = None
    model: str = "resnet8"
    width: int = 0
    model_kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    match: str = ""
    recipe: Recipe = Recipe()
    seed: int = 0
    split_seed: int = 0
    data_digest: str = ""
    primitives: tuple[str, ...] = ()
    compile: bool = False
    timeout_seconds: float = 0.0
    cutoffs: tuple[Cutoff, ...] = ()
    guess_epoch: int = 0
    checkpoint_dir: str = ""
    checkpoint_seconds: float = 60.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        recipe = Recipe(**{**fields["recipe"], "drops": tuple(fields["recipe"]["drops"])})
        cutoffs = tuple(Cutoff(**cutoff) for cutoff in fields["cutoffs"])
        return cls(**{**fields, "recipe": recipe, "cutoffs": cutoffs, "primitives": tuple(fields["primitives"])})


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
class Epoch:
    """One point of a learning curve; `train_loss` is the mean over the epoch's batches, in nats."""

    epoch: int
    train_loss: float
    val_loss: float
    val_acc: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job. `val_loss` (nats) and `val_acc` (0 to 1) are those after the last epoch that was trained,
    present and finite if and only if the verdict is COMPLETE or PRUNED. `data_digest` is that of the data it trained
    on. `seconds` is the worker's wall-clock time; the pool enters it."""

    verdict: Verdict
    reason: str = ""
    val_loss: float | None = None
    val_acc: float | None = None
    curve: tuple[Epoch, ...] = ()
    parameters: int | None = None
    data_digest: str = ""
    seconds: float = 0.0
    worker: str = ""
    health: Health = Health.SOUND

    def __post_init__(self) -> None:
        # An exception's text may be anything, of any length, and not every database takes it.
        object.__setattr__(self, "reason", limited(holdable(self.reason)))
        object.__setattr__(self, "worker", limited(holdable(self.worker), WORKER_LENGTH))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        curve = tuple(Epoch(**point) for point in fields["curve"])
        return cls(
            **{**fields, "verdict": Verdict(fields["verdict"]), "health": Health(fields["health"]), "curve": curve}
        )
