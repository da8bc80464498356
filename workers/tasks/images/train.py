"""The training loop of the image task: it trains a network to classify images, from a `Job` to an `Outcome`.

The data stay on the device and batches are slices of a permutation, so no loader is needed. Networks are channels_last,
which is faster on GPUs and, for small networks, also on CPUs. On CUDA, the forward pass runs in bfloat16, a step is one
CUDA graph, and within an epoch the device never waits for the host.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR, OneCycleLR

from search_space import compile_where_it_pays, load_primitives
from workers.checkpoint import Checkpoint
from workers.contract import Declaration, Job, Learned, Outcome, Point, TaskConfig, Verdict, WorkersError
from workers.learned import learned_parameters
from workers.tasks.base import Ended, check_cutoffs, interrupter
from workers.tasks.images.augment import augment, check_augmented
from workers.tasks.images.config import Evaluation, ImageConfig, Recipe
from workers.tasks.images.data import Dataset, Part, load
from workers.tasks.images.graphed import Graphed
from workers.tasks.images.models import build, default_device, parameter_count
from workers.tasks.images.networks.sites import activation_of
from workers.tasks.images.optimizers import has_graph, load_state, make_optimizer, state_tensors

LARGEST_SEED = 2**31 - 1  # of a split
EVALUATED = 500  # images evaluated at a time
LOOKED_AT = 25  # losses that are checked at a time on a GPU
DIVERGED = 100.0  # a training whose loss is this many times the loss of guessing has diverged
GUESSED = 0.97  # a loss above this share of the entropy of the classes' shares is no better than guessing


def describe(config: TaskConfig) -> Declaration:
    """Return the metrics of image trainings."""
    return Evaluation.of(config).declaration


def train(job: Job, device: torch.device | None = None, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Train one network. All random numbers come from the job's seeds: on a CPU with the same number of threads, the
    same job gives the same bits.

    Args:
        device: by default CUDA if there is a GPU, otherwise the CPU.
        stopped: called between steps; if it returns True, the training ends as FAILED.

    Raises:
        SpaceError (ParseError), WorkersError: something that the job names does not exist or cannot be used.
    """
    interrupt = interrupter(job, stopped)
    device = device or default_device()
    data = _data(job, device)
    child = _Child(job, data, device)
    checkpoint = Checkpoint(job, data.digest, device)
    curve = checkpoint.restore(child)
    verdict, reason, metrics = Verdict.COMPLETE, "", dict[str, float]()
    learned: tuple[Learned, ...] = ()
    try:
        for point in child.epochs(len(curve), interrupt):
            curve.append(point)
            checkpoint.save_if_due(child, curve)
            check_cutoffs(job.cutoffs, curve)
            _check_better_than_guessing(job, point, child.data.val)
        learned = learned_parameters(child.model.named_modules())
        metrics = _final(curve[-1])
        if Evaluation.of(job.task).test:
            metrics |= child.tested()
        _check_diverged(metrics, data.classes)
    except Ended as ended:
        verdict, reason = ended.verdict, ended.reason
        metrics = _final(curve[-1]) if verdict is Verdict.PRUNED else {}
    if verdict is not Verdict.FAILED:
        checkpoint.remove()
    return Outcome(
        verdict,
        reason,
        metrics,
        curve=tuple(curve),
        learned=learned if verdict is Verdict.COMPLETE else (),
        parameters=parameter_count(child.model),
        data_digest=data.digest,
    )


def _data(job: Job, device: torch.device) -> Dataset:
    """Load the job's data, and raise WorkersError if their digest is not the study's. Where each training seed has a
    split of its own, the digest is still that of the first split."""
    config = ImageConfig.from_parameters(job.task.parameters)
    more = device, job.data_dir, config.limit_train, config.limit_val, config.standardise
    data = load(config.dataset, config.split_seed, *more)
    if job.data_digest not in ("", data.digest):
        raise WorkersError(
            f"the data {config.dataset!r} on {socket.gethostname()} (from {data.origin}, digest {data.digest}) are not "
            f"those that the study began with (digest {job.data_digest}); put the same files on every machine. A "
            "function that makes data must return the same data each time"
        )
    if Evaluation.of(job.task).vary_split:
        own = (config.split_seed + job.seed) % LARGEST_SEED
        return replace(load(config.dataset, own, *more), digest=data.digest)
    return data


def _final(point: Point) -> dict[str, float]:
    return {name: point.metrics[name] for name in ("val_loss", "val_acc")}


def _check_diverged(metrics: Mapping[str, float], classes: int) -> None:
    """End a training as INFEASIBLE if a loss after the last epoch is more than `DIVERGED` times the loss of guessing,
    which is ln(classes) nats. Such a value says only that the training diverged, and it alone would decide the means
    and tests of several trainings."""
    most = DIVERGED * math.log(classes)
    for name in ("val_loss", "test_loss"):
        if metrics.get(name, 0.0) > most:
            raise Ended(
                Verdict.INFEASIBLE,
                f"diverged: {name} is {metrics[name]:.4g} after the last epoch, more than {DIVERGED:g} times the loss "
                f"of guessing, ln {classes}",
            )


def _check_better_than_guessing(job: Job, point: Point, val: Part) -> None:
    """At the first rung, end a training that is no better than guessing: its accuracy is not three standard errors
    above the share of the commonest class, and its training loss is not below the loss of guessing by the shares of the
    classes."""
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
            *(config.model, activation_of(job.expression, config.site), data.shape, data.classes, width),
            *(config.model_kwargs, data.train.pixels.dtype, config.match),
        )
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.device, self.recipe = data, device, recipe
        self.steps_per_epoch = max(1, len(data.train) // recipe.batch_size)
        self.steps = recipe.steps or recipe.epochs * self.steps_per_epoch
        if config.compile:
            example = next(data.train.batches(recipe.batch_size))[0]
            compile_where_it_pays(self.model, example, self.steps)
        self.optimizer = make_optimizer(model, recipe, device)
        self.rates = _learning_rates(recipe, self.steps, self.steps_per_epoch)
        self.draw = torch.Generator().manual_seed(job.seed)
        graph = device.type == "cuda" and has_graph(recipe)
        self.step = Graphed(self._step, self.optimizer) if graph else self._step

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a step changes, by name."""
        weights = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        return weights | {f"optimizer.{name}": value for name, value in state_tensors(self.optimizer).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the tensors of an earlier training.

        Raises:
            ValueError: they are not those of this network; nothing was changed.
        """
        own = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        given = {name: value for name, value in tensors.items() if name.startswith("model.")}
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in given.items()}:
            raise ValueError("its tensors are not those of this network")
        load_state(
            self.optimizer,
            {name.removeprefix("optimizer."): t for name, t in tensors.items() if name.startswith("optimizer.")},
        )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(given[name])

    def epochs(self, done: int, interrupt: Callable[[], None]) -> Iterator[Point]:
        """Train and evaluate, from the state after `done` epochs, and yield a point after each epoch. The last epoch
        may be shorter, as it ends with the last step."""
        for epoch in range(done + 1, math.ceil(self.steps / self.steps_per_epoch) + 1):
            steps = min(self.steps_per_epoch, self.steps - (epoch - 1) * self.steps_per_epoch)
            train_loss = self._train_epoch(epoch, steps, interrupt)
            val_loss, val_acc = self._evaluate(self.data.val)
            if not math.isfinite(val_loss):
                raise Ended(Verdict.INFEASIBLE, f"validation loss is not finite after epoch {epoch}")
            yield Point(epoch, {"train_loss": train_loss, "val_loss": val_loss, "val_acc": val_acc})

    def tested(self) -> dict[str, float]:
        """Return the metrics of the test part."""
        loss, accuracy = self._evaluate(self.data.test)
        if not math.isfinite(loss):
            raise Ended(Verdict.INFEASIBLE, "test loss is not finite")
        return {"test_loss": loss, "test_acc": accuracy}

    def _train_epoch(self, epoch: int, steps: int, interrupt: Callable[[], None]) -> float:
        """Train for one epoch and return its mean training loss. A last batch that is not full is left out."""
        self.model.train()
        rows = torch.randperm(len(self.data.train), generator=self.draw).to(self.device)
        losses = torch.empty(steps, device=self.device)
        watch = _LossCheck(losses, epoch, later=self.device.type == "cuda")
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
                group["lr"].fill_(rate)  # a captured step reads this tensor
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
        """Return the mean loss in nats and the accuracy over all images of a part."""
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


def _learning_rates(recipe: Recipe, steps: int, per_epoch: int) -> list[float]:
    """Return the learning rate of each step."""
    optimizer = torch.optim.SGD([torch.zeros(())], lr=recipe.learning_rate)
    schedule = _schedule(optimizer, recipe, steps, per_epoch)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()  # changes nothing, but without it torch warns about the schedule
        schedule.step()
    return rates


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int, per_epoch: int) -> LRScheduler:
    if recipe.schedule == "steps":
        drops = [round(epoch * per_epoch) for epoch in recipe.drops]
        return MultiStepLR(optimizer, drops, recipe.drop_factor)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    if recipe.schedule == "warmup":
        rising = min(round(recipe.warmup * steps), steps - 1)
        return LambdaLR(optimizer, lambda step: _warmed_up(step, rising, steps))
    warmup = min(recipe.warmup, 1 - 1e-6)  # torch divides by 0 if either part of the cycle has only one step
    warmup *= 1 - 1e-6 * (warmup * steps == 1)
    return OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=warmup, cycle_momentum=False)


def _warmed_up(step: int, rising: int, steps: int) -> float:
    """Return the factor of the learning rate: it rises along a line for `rising` steps, then falls along a cosine."""
    if step < rising:
        return (step + 1) / (rising + 1)
    return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


class _LossCheck:
    """Raises Ended after a step whose loss is not finite: at once, or, with a GPU, later. The losses of `LOOKED_AT`
    steps are checked after as many further steps were launched, so that the device is never idle. At most twice
    `LOOKED_AT` steps are then wasted."""

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
    """Raise Ended if a loss is not finite. `losses` begins after step `before` of the epoch."""
    finite = losses.isfinite()
    if not finite.all():
        step = before + int(finite.logical_not().nonzero()[0]) + 1
        raise Ended(Verdict.INFEASIBLE, f"training loss is not finite at epoch {epoch}, step {step}")
