"""The only training loop: a `Job` in, an `Outcome` out.

The data stay on the device and batches are slices of a permutation, so there is no loader between the images and the
network. Networks are channels_last, which is faster on GPUs and, for small children, on CPUs too; on CUDA the forward
pass runs in bfloat16.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from search_space import compile_where_it_pays, load_primitives, undecayed
from workers.augment import augment
from workers.data import Dataset, Part, load
from workers.job import Cutoff, Epoch, Job, Outcome, Recipe, Verdict
from workers.models import build, default_device, parameter_count
from workers.networks.sites import activation_of

CHECK_EVERY = {"cpu": 1, "cuda": 25}  # steps between looks at the loss; on a GPU each look stalls it
EVALUATED = 500  # images at a time


class NotFinite(ArithmeticError):
    """The candidate's mathematics failed; the message says where."""


class Pruned(Exception):
    """The child is not worth going on with; the message says why."""


class Interrupted(RuntimeError):
    """The job's time is up, or nobody wants its result any more."""


def train(job: Job, device: torch.device | None = None, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Trains one child. Everything random comes from the job's seeds; on a CPU with the same number of threads the
    same job gives the same bits.

    Args:
        device: CUDA if there is one, else the CPU, if not given.
        stopped: asked between steps; true ends the training as FAILED.

    Raises:
        SpaceError (ParseError), WorkersError: a job that names what there is not.
    """
    deadline = time.monotonic() + (job.timeout_seconds or math.inf)

    def interrupt() -> None:
        if stopped():
            raise Interrupted("stopped")
        if time.monotonic() > deadline:
            raise Interrupted(f"timed out after {job.timeout_seconds:g} s")

    device = device or default_device()
    child = _Child(job, load(job.dataset, job.split_seed, device, job.data_dir, job.limit_train), device)
    curve: list[Epoch] = []
    verdict, reason = Verdict.COMPLETE, ""
    try:
        for point in child.epochs(interrupt):
            curve.append(point)
            _prune(job, curve, child.data.val)
    except NotFinite as error:
        verdict, reason = Verdict.INFEASIBLE, str(error)
    except Pruned as error:
        verdict, reason = Verdict.PRUNED, str(error)
    except Interrupted as error:
        verdict, reason = Verdict.FAILED, str(error)
    except torch.OutOfMemoryError as error:
        verdict, reason = Verdict.FAILED, f"out of memory: {str(error).splitlines()[0]}"
    measured = verdict in (Verdict.COMPLETE, Verdict.PRUNED)
    return Outcome(
        verdict,
        reason,
        val_loss=curve[-1].val_loss if measured else None,
        val_acc=curve[-1].val_acc if measured else None,
        curve=tuple(curve),
        parameters=parameter_count(child.model),
    )


def _prune(job: Job, curve: Sequence[Epoch], val: Part) -> None:
    """Raises Pruned if the child has missed a cut-off, or is no better than guessing where it should be: not three
    standard errors above the share of the commonest class."""
    point = curve[-1]
    for cutoff in job.cutoffs:
        if cutoff.missed(curve):
            raise Pruned(
                f"stopped after epoch {point.epoch}: val_loss {point.val_loss:.4f}, val_acc {point.val_acc:.4f}; "
                f"the cut-off was {_shown(cutoff)}"
            )
    guess = int(val.labels.bincount().max()) / len(val)
    if point.epoch == job.guess_epoch and point.val_acc <= guess + 3 * math.sqrt(guess * (1 - guess) / len(val)):
        raise Pruned(
            f"stopped after epoch {point.epoch}: val_acc {point.val_acc:.4f} is no better than guessing ({guess:.4f})"
        )


def _shown(cutoff: Cutoff) -> str:
    best = 1 - cutoff.limit if cutoff.objective == "val_acc" else cutoff.limit
    return f"{cutoff.objective} {best:.4f}"


class _Child:
    """A network, its optimiser and its data."""

    def __init__(self, job: Job, data: Dataset, device: torch.device) -> None:
        torch.manual_seed(job.seed)
        load_primitives(job.primitives)
        activation = activation_of(job.expression)
        model = build(job.model, activation, data.shape, data.classes, job.width or None, job.model_kwargs)
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.device, self.recipe = data, device, job.recipe
        self.steps_per_epoch = max(1, len(data.train) // job.recipe.batch_size)
        self.steps = job.recipe.steps or job.recipe.epochs * self.steps_per_epoch
        if job.compile:
            example = next(data.train.batches(job.recipe.batch_size))[0]
            compile_where_it_pays(self.model, example, self.steps)
        self.optimizer = _optimizer(model, job.recipe)
        self.schedule = _schedule(self.optimizer, job.recipe, self.steps, self.steps_per_epoch)
        self.draw = torch.Generator().manual_seed(job.seed)

    def epochs(self, interrupt: Callable[[], None]) -> Iterator[Epoch]:
        """Trains and evaluates; the last epoch ends where the steps do."""
        for epoch in range(1, math.ceil(self.steps / self.steps_per_epoch) + 1):
            steps = min(self.steps_per_epoch, self.steps - (epoch - 1) * self.steps_per_epoch)
            train_loss = self._train_epoch(epoch, steps, interrupt)
            val_loss, val_acc = self._evaluate(self.data.val)
            if not math.isfinite(val_loss):
                raise NotFinite(f"validation loss is not finite after epoch {epoch}")
            yield Epoch(epoch, train_loss, val_loss, val_acc)

    def _train_epoch(self, epoch: int, steps: int, interrupt: Callable[[], None]) -> float:
        """The epoch's mean training loss. A last batch smaller than the others is left out."""
        self.model.train()
        rows = torch.randperm(len(self.data.train), generator=self.draw).to(self.device)
        every = CHECK_EVERY.get(self.device.type, 1)
        total, unseen = 0.0, []
        for step in range(1, steps + 1):
            batch = rows[(step - 1) * self.recipe.batch_size : step * self.recipe.batch_size]
            images, labels = self.data.train.batch(batch)
            unseen.append(self._step(augment(images, self.recipe, self.draw), labels))
            if step % every == 0 or step == steps:
                total += _finite_sum(unseen, epoch, step)
                unseen = []
                interrupt()
        return total / steps

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            logits = self.model(images).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        loss.backward()
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.no_grad()
    def _evaluate(self, part: Part) -> tuple[float, float]:
        """Mean loss in nats, and accuracy, over all images of a part."""
        self.model.eval()
        loss, right = 0.0, 0
        for images, labels in part.batches(EVALUATED):
            with self._autocast():
                logits = self.model(images).float()
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(dim=1) == labels).sum())
        return loss / len(part), right / len(part)

    def _autocast(self) -> torch.autocast:
        wanted = {"auto": self.device.type == "cuda", "bfloat16": True, "float32": False}[self.recipe.precision]
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=wanted)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    free = undecayed(model)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p not in free]},
        {"params": [p for p in model.parameters() if p in free], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        fused=True,
    )


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int, per_epoch: int) -> LRScheduler:
    """Of the learning rate, step by step."""
    if recipe.schedule == "steps":
        drops = [round(epoch * per_epoch) for epoch in recipe.drops]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, recipe.drop_factor)
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    warmup = min(recipe.warmup, 1 - 1e-6)  # torch divides by 0 where either part of the cycle has but one step
    warmup *= 1 - 1e-6 * (warmup * steps == 1)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps, pct_start=warmup, cycle_momentum=False
    )


def _finite_sum(losses: list[Tensor], epoch: int, step: int) -> float:
    """The sum of the losses of the steps up to `step`.

    Raises:
        NotFinite: one of them is not finite.
    """
    values: list[float] = torch.stack(losses).tolist()
    for at, value in enumerate(values, start=step - len(values) + 1):
        if not math.isfinite(value):
            raise NotFinite(f"training loss is not finite at epoch {epoch}, step {at}")
    return sum(values)
