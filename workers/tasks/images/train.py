"""The image task: a network is trained to classify, a `Job` in, an `Outcome` out.

The data stay on the device and batches are slices of a permutation, so there is no loader between the images and the
network. Networks are channels_last, which is faster on GPUs and, for small children, on CPUs too; on CUDA the forward
pass runs in bfloat16, a step is one CUDA graph, and within an epoch the device never waits for the host.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, OneCycleLR

from search_space import compile_where_it_pays, load_primitives, parameter_groups
from workers.checkpoint import Checkpoint
from workers.contract import Declaration, Job, Outcome, Point, TaskConfig, Verdict, WorkersError
from workers.tasks.base import Ended, check_cutoffs, interrupter
from workers.tasks.images.augment import augment, check_augmented
from workers.tasks.images.config import DECLARATION, ImageConfig, Recipe
from workers.tasks.images.data import Dataset, Part, load
from workers.tasks.images.graphed import Graphed
from workers.tasks.images.models import build, default_device, parameter_count
from workers.tasks.images.networks.sites import activation_of

EVALUATED = 500  # images at a time
LOOKED_AT = 25  # losses at a time, on a GPU
GUESSED = 0.97  # of the loss of one who knows how common each class is: not better than this is guessing


def describe(config: TaskConfig) -> Declaration:
    """Return what image trainings measure; it is the same for all of them."""
    del config
    return DECLARATION


def train(job: Job, device: torch.device | None = None, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Train one network. Everything random comes from the job's seeds; on a CPU with the same number of threads the
    same job gives the same bits.

    Args:
        device: CUDA if there is one, else the CPU, if not given.
        stopped: asked between steps; true ends the training as FAILED.

    Raises:
        SpaceError (ParseError), WorkersError: a job that names what there is not.
    """
    interrupt = interrupter(job, stopped)
    device = device or default_device()
    data = _data(job, device)
    child = _Child(job, data, device)
    checkpoint = Checkpoint(job, data.digest, device)
    curve = checkpoint.restore(child)
    verdict, reason = Verdict.COMPLETE, ""
    try:
        for point in child.epochs(len(curve), interrupt):
            curve.append(point)
            checkpoint.save_if_due(child, curve)
            check_cutoffs(job.cutoffs, curve)
            _check_learned(job, point, child.data.val)
    except Ended as ended:
        verdict, reason = ended.verdict, ended.reason
    if verdict is not Verdict.FAILED:
        checkpoint.remove()
    return Outcome(
        verdict,
        reason,
        metrics=_result(curve[-1]) if verdict in (Verdict.COMPLETE, Verdict.PRUNED) else {},
        curve=tuple(curve),
        parameters=parameter_count(child.model),
        data_digest=data.digest,
    )


def _data(job: Job, device: torch.device) -> Dataset:
    """Load the job's data, and compare them with the study's."""
    config = ImageConfig.from_parameters(job.task.parameters)
    limits = config.limit_train, config.limit_val
    data = load(config.dataset, config.split_seed, device, job.data_dir, *limits, config.standardise)
    if job.data_digest not in ("", data.digest):
        raise WorkersError(
            f"the data {config.dataset!r} on {socket.gethostname()} (from {data.origin}, digest {data.digest}) are not "
            f"those that the study began with (digest {job.data_digest}); put the same files on every machine. A "
            "function that makes data must make the same each time"
        )
    return data


def _result(point: Point) -> dict[str, float]:
    return {name: point.metrics[name] for name in ("val_loss", "val_acc")}


def _check_learned(job: Job, point: Point, val: Part) -> None:
    """End the training if it has learned nothing where it should have: its accuracy is not three standard errors above
    the share of the commonest class, nor its training loss below the loss of one who knows the classes' shares."""
    if point.step == job.first_rung and _guesses(point.metrics, val):
        raise Ended(
            Verdict.PRUNED,
            f"stopped after step {point.step}: train_loss {point.metrics['train_loss']:.4f}, val_acc "
            f"{point.metrics['val_acc']:.4f} are no better than guessing",
        )


def _guesses(found: Mapping[str, float], val: Part) -> bool:
    shares = val.labels.bincount().double() / len(val)
    most = float(shares.max())
    entropy = float(-torch.special.xlogy(shares, shares).sum())
    error = math.sqrt(most * (1 - most) / len(val))
    return found["val_acc"] <= most + 3 * error and found["train_loss"] > GUESSED * entropy


class _Child:
    """A network, its optimiser and its data."""

    def __init__(self, job: Job, data: Dataset, device: torch.device) -> None:
        config = ImageConfig.from_parameters(job.task.parameters)
        torch.manual_seed(job.seed)
        load_primitives(job.task.primitives)
        recipe, width = config.recipe, config.width or None
        check_augmented(recipe, data.shape)
        model = build(
            *(config.model, activation_of(job.expression), data.shape, data.classes, width, config.model_kwargs),
            *(data.train.pixels.dtype, config.match),
        )
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.device, self.recipe = data, device, recipe
        self.steps_per_epoch = max(1, len(data.train) // recipe.batch_size)
        self.steps = recipe.steps or recipe.epochs * self.steps_per_epoch
        if config.compile:
            example = next(data.train.batches(recipe.batch_size))[0]
            compile_where_it_pays(self.model, example, self.steps)
        self.optimizer = _optimizer(model, recipe, device)
        self.rates = _learning_rates(recipe, self.steps, self.steps_per_epoch)
        self.draw = torch.Generator().manual_seed(job.seed)
        self.step = Graphed(self._step, self.optimizer) if device.type == "cuda" else self._step

    def tensors(self) -> dict[str, Tensor]:
        """All that a step changes or draws from. Written to, they bring the child back to where it was."""
        weights = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        return weights | {f"momentum.{n}": buffer for n, buffer in enumerate(self._momentum_buffers())}

    def _momentum_buffers(self) -> list[Tensor]:
        if not self.recipe.momentum:
            return []
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        # As the first step makes them, but now; a parameter that gets no gradient has one for nothing.
        return [self.optimizer.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in parameters]

    def epochs(self, done: int, interrupt: Callable[[], None]) -> Iterator[Point]:
        """Trains and evaluates, from where `done` epochs have led; the last epoch ends where the steps do."""
        for epoch in range(done + 1, math.ceil(self.steps / self.steps_per_epoch) + 1):
            steps = min(self.steps_per_epoch, self.steps - (epoch - 1) * self.steps_per_epoch)
            train_loss = self._train_epoch(epoch, steps, interrupt)
            val_loss, val_acc = self._evaluate(self.data.val)
            if not math.isfinite(val_loss):
                raise Ended(Verdict.INFEASIBLE, f"validation loss is not finite after epoch {epoch}")
            yield Point(epoch, {"train_loss": train_loss, "val_loss": val_loss, "val_acc": val_acc})

    def _train_epoch(self, epoch: int, steps: int, interrupt: Callable[[], None]) -> float:
        """The epoch's mean training loss. A last batch smaller than the others is left out."""
        self.model.train()
        rows = torch.randperm(len(self.data.train), generator=self.draw).to(self.device)
        losses = torch.empty(steps, device=self.device)
        watch = _Watch(losses, epoch, later=self.device.type == "cuda")
        size = self.recipe.batch_size
        for step in range(steps):
            interrupt()
            self._set_rate(self.rates[(epoch - 1) * self.steps_per_epoch + step])
            images, labels = self.data.train.batch(rows[step * size : (step + 1) * size])
            losses[step] = self.step(augment(images, self.recipe, self.draw), labels)
            watch(step + 1)
        _check_finite(losses, epoch, 0)
        return float(losses.double().mean())

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # a captured step reads it there
            else:
                group["lr"] = rate

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._autocast():
            logits = self.model(images).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        loss.backward()
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.no_grad()
    def _evaluate(self, part: Part) -> tuple[float, float]:
        """Mean loss in nats, and accuracy, over all images of a part."""
        self.model.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        for images, labels in part.batches(EVALUATED):
            with self._autocast():
                logits = self.model(images).float()
            loss += F.cross_entropy(logits, labels, reduction="sum")
            right += (logits.argmax(dim=1) == labels).sum()
        return float(loss) / len(part), int(right) / len(part)

    def _autocast(self) -> torch.autocast:
        wanted = {"auto": self.device.type == "cuda", "bfloat16": True, "float32": False}[self.recipe.precision]
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=wanted)


def _optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        parameter_groups(model, recipe.weight_decay),
        lr=torch.tensor(recipe.learning_rate, device=device) if device.type == "cuda" else recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov and recipe.momentum > 0,
        fused=True,
    )


def _learning_rates(recipe: Recipe, steps: int, per_epoch: int) -> list[float]:
    """Of each step."""
    optimizer = torch.optim.SGD([torch.zeros(())], lr=recipe.learning_rate)
    schedule = _schedule(optimizer, recipe, steps, per_epoch)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()  # of nothing: torch warns where schedules go on without
        schedule.step()
    return rates


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int, per_epoch: int) -> LRScheduler:
    if recipe.schedule == "steps":
        drops = [round(epoch * per_epoch) for epoch in recipe.drops]
        return MultiStepLR(optimizer, drops, recipe.drop_factor)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    warmup = min(recipe.warmup, 1 - 1e-6)  # torch divides by 0 where either part of the cycle has but one step
    warmup *= 1 - 1e-6 * (warmup * steps == 1)
    return OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=warmup, cycle_momentum=False)


class _Watch:
    """Raises Ended after a step of the epoch whose loss is not finite: at once, or, for a GPU, later. Then the host
    waits for the losses of `LOOKED_AT` steps when it has given the device as many more to do: the device is never idle,
    and no more than twice as many steps are for nothing."""

    def __init__(self, losses: Tensor, epoch: int, later: bool) -> None:
        self._losses, self._epoch, self._later = losses, epoch, later
        self._coming: tuple[Tensor, torch.cuda.Event, int] | None = None

    def __call__(self, launched: int) -> None:
        if not self._later:
            _check_finite(self._losses[launched - 1 : launched], self._epoch, launched - 1)
        elif launched % LOOKED_AT == 0:
            if self._coming:
                losses, there, before = self._coming
                there.synchronize()
                _check_finite(losses, self._epoch, before)
            self._coming = self._send(launched - LOOKED_AT, launched)

    def _send(self, first: int, last: int) -> tuple[Tensor, torch.cuda.Event, int]:
        losses = self._losses[first:last].to("cpu", non_blocking=True)  # to pinned memory
        there = torch.cuda.Event()
        there.record()
        return losses, there, first


def _check_finite(losses: Tensor, epoch: int, before: int) -> None:
    """Raises Ended if one of the losses, those of the epoch's steps after `before`, is not finite."""
    finite = losses.isfinite()
    if not finite.all():
        step = before + int(finite.logical_not().nonzero()[0]) + 1
        raise Ended(Verdict.INFEASIBLE, f"training loss is not finite at epoch {epoch}, step {step}")
