"""The contract between a search and its workers. Standard library only.

Between processes a job and its outcome travel as JSON text: readable, and nothing that is received is unpickled.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self


class WorkersError(RuntimeError):
    """A request that the workers cannot serve; the message says what they accept."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a child is trained: SGD with Nesterov momentum, one-cycle learning rate, fixed number of epochs.

    `learning_rate` is the peak of the cycle, `warmup` the part of all steps that leads up to it; `clip_norm` the norm
    to which longer gradients are cut, 0 for none.
    """

    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.25
    clip_norm: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """One training run: everything a worker needs, as plain values.

    `number` is the trial's in its study; `seed` fixes initial weights and the order of images, `split_seed` which
    images are held out. `primitives` are the modules that define the expression's words, beyond those of the language;
    `compile`: activations go through torch.compile where it pays. `timeout_seconds` 0 means no limit.
    """

    number: int
    expression: str
    dataset: str = "digits"
    model: str = "resnet8"
    width: int = 8
    recipe: Recipe = Recipe()
    seed: int = 0
    split_seed: int = 0
    primitives: tuple[str, ...] = ()
    compile: bool = False
    timeout_seconds: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        return cls(**{**fields, "recipe": Recipe(**fields["recipe"]), "primitives": tuple(fields["primitives"])})


class Verdict(StrEnum):
    """How a job ended. Bad mathematics is INFEASIBLE, a broken machine is FAILED."""

    COMPLETE = "COMPLETE"
    INFEASIBLE = "INFEASIBLE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One point of a learning curve; `train_loss` is the mean over the epoch's batches, in nats."""

    epoch: int
    train_loss: float
    val_loss: float
    val_acc: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job. `val_loss` (nats) and `val_acc` (0 to 1) are those after the last epoch, present and finite
    if and only if the verdict is COMPLETE. `seconds` is the worker's wall-clock time; the pool enters it."""

    verdict: Verdict
    reason: str = ""
    val_loss: float | None = None
    val_acc: float | None = None
    curve: tuple[Epoch, ...] = ()
    parameters: int | None = None
    seconds: float = 0.0
    worker: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        curve = tuple(Epoch(**point) for point in fields["curve"])
        return cls(**{**fields, "verdict": Verdict(fields["verdict"]), "curve": curve})
