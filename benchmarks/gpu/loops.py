"""Training steps: our loop beside eager ones, the paper's child, captured steps, precisions, memory."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.gpu.measuring import Cases, Run, Skip, interleaved, steps, wall_seconds
from benchmarks.gpu.results import Figures, ratios, spread
from benchmarks.images import image_of, with_image
from benchmarks.training import Ordinary
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool
from workers.tasks.images.data import Dataset
from workers.tasks.images.graphed import EAGER_STEPS
from workers.tasks.images.models import build
from workers.tasks.images.networks.sites import activation_of
from workers.tasks.images.train import _Child, train

RELU, SWISH, SWISH_BETA = "max(x, 0)", "x * sigmoid(x)", "x * sigmoid(beta * x)"
COMPARED_STEPS = 30  # of two trainings whose losses should be the same


class ByHand:
    """The eager loop of a person who knows what slows one down: the data lie on the device, channels come last, the
    forward pass is in bfloat16 on a GPU, the optimiser is fused, and the host waits once an epoch."""

    def __init__(self, job: Job, data: Dataset, device: torch.device) -> None:
        torch.manual_seed(job.seed)
        image = image_of(job)
        network = build(image.model, activation_of(job.expression), data.shape, data.classes, None, image.model_kwargs)
        self.model: nn.Module = network.to(device).to(memory_format=torch.channels_last)
        self.data, self.batch, self.device = data, image.recipe.batch_size, device
        self.images, self.labels = data.train.batch(torch.arange(len(data.train), device=device))
        recipe = image.recipe
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )

    def epoch(self) -> float:
        self.model.train()
        rows = torch.randperm(len(self.labels), device=self.device)
        total = torch.zeros((), device=self.device)
        for at in rows[: len(rows) // self.batch * self.batch].split(self.batch):
            images = self.images[at].contiguous(memory_format=torch.channels_last)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = F.cross_entropy(self.model(images).float(), self.labels[at])
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
        return float(total)


def loop(run: Run) -> Cases:
    """Steps a second of our loop, of the ordinary eager one (DataLoader, torch's defaults), and of `ByHand`."""
    for expression, seconds in run.shared((RELU, SWISH)):
        yield f"{run.sizes.model}, {expression}", partial(_compare_loops, run, expression, seconds)


def _compare_loops(run: Run, expression: str, seconds: float) -> Figures:
    job = run.job(expression, crop=0, flip=False)  # the eager loops augment nothing
    data, device = run.data(job), torch.device(run.device)
    child = run.child(job)
    sides = {
        "searcher": partial(steps, child, child.steps_per_epoch),
        "eager": Ordinary(job, data, device).epoch,
        "eager_by_hand": ByHand(job, data, device).epoch,
    }
    times = interleaved(sides, run, seconds)
    return {
        **_rates(times, child.steps_per_epoch),
        "ratio_to_eager": ratios(times["eager"], times["searcher"]),
        "ratio_to_eager_by_hand": ratios(times["eager_by_hand"], times["searcher"]),
        "steps_per_round": child.steps_per_epoch,
        "batch": run.sizes.batch,
    }


def _rates(times: dict[str, list[float]], count: int) -> Figures:
    return {f"{side}_steps_per_s": spread([count / taken for taken in found]) for side, found in times.items()}


def paper(run: Run) -> Cases:
    """Seconds of the paper's child: ResNet-20, 10,000 steps of 128 images, 45,000 training images, in the inline
    pool. If the time is too short, those of the steps that fit, extrapolated and marked so."""
    yield f"{run.sizes.model}, {run.sizes.paper_steps} steps", partial(_paper_child, run)


def _paper_child(run: Run) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        recipe = {"epochs": 8, "steps": run.sizes.paper_steps}
        job = with_image(run.job(SWISH_BETA, **recipe), dataset=run.sizes.paper_data, limit_train=0)
        job = replace(job, checkpoint_dir=folder, checkpoint_seconds=1e9)
        begun: list[float] = []  # when each step was about to begin
        until = float("inf")  # for the first, short child, which opens the GPU and loads the data

        def stopped() -> bool:
            begun.append(time.monotonic())
            return begun[-1] > until

        pool = InlinePool(run=lambda job: train(job, torch.device(run.device), stopped))
        try:
            first = with_image(job, recipe=replace(image_of(job).recipe, steps=run.sizes.settled))
            start_up = _outcome(pool, first)
            if start_up.verdict is not Verdict.COMPLETE:
                raise RuntimeError(start_up.reason)
            begun.clear()
            until, started = run.until - run.sizes.least / 3, time.monotonic()
            outcome = _outcome(pool, job)
        finally:
            pool.close()
    known = {"first_child_seconds": start_up.seconds, "first_child_steps": run.sizes.settled, "batch": run.sizes.batch}
    if outcome.verdict is Verdict.COMPLETE:
        return {"seconds": outcome.seconds, "extrapolated": False, "steps_measured": len(begun), **known}
    if outcome.reason != "stopped":
        raise RuntimeError(f"{outcome.verdict}: {outcome.reason}")
    return {**_extrapolated(begun, started, run.sizes.settled, run.sizes.paper_steps), **known}


def _outcome(pool: InlinePool, job: Job) -> Outcome:
    pool.submit(job)
    while not (ended := pool.wait(60.0)):
        pass
    return ended[0][1]


def _extrapolated(begun: list[float], started: float, settled: int, wanted: int) -> Figures:
    """The seconds of `wanted` steps, as if all steps after the first `settled` took as long as those that were done;
    evaluations at the ends of epochs count where they fell among them."""
    done = len(begun) - 1
    if done < 2 * settled:
        raise Skip(f"only {done} steps fit in {begun[-1] - started:.1f} s; {2 * settled} are needed to extrapolate")
    each = (begun[done] - begun[settled]) / (done - settled)
    seconds = begun[settled] - started + (wanted - settled) * each
    return {"seconds": seconds, "extrapolated": True, "steps_measured": done}


def captured(run: Run) -> Cases:
    """Steps as one CUDA graph beside the same steps eagerly, and whether their losses are equal."""
    if not run.on_gpu:
        raise Skip("CUDA graphs need a GPU; on a CPU steps are eager")
    yield "speed", lambda: _captured_speed(run, run.left() * 0.7)
    yield "losses", lambda: _captured_losses(run)


def _captured_speed(run: Run, seconds: float) -> Figures:
    job = run.job(SWISH_BETA)
    graphed, eager = run.child(job), _eager(run, job)
    sides = {
        name: partial(steps, child, child.steps_per_epoch) for name, child in (("captured", graphed), ("eager", eager))
    }
    times = interleaved(sides, run, seconds)
    return {
        **_rates(times, graphed.steps_per_epoch),
        "ratio": ratios(times["eager"], times["captured"]),
        "steps_per_round": graphed.steps_per_epoch,
        "batch": run.sizes.batch,
    }


def _eager(run: Run, job: Job) -> _Child:
    """Our own child without a captured step."""
    child = _Child(job, run.data(job), torch.device(run.device))
    child.step = child._step
    return child


def _captured_losses(run: Run) -> Figures:
    """Losses of the same batches, from the same weights, in float32 with deterministic convolutions."""
    torch.backends.cudnn.deterministic = True
    job = run.job(SWISH_BETA, crop=0, flip=False, precision="float32")
    graphed, eager = _Child(job, run.data(job), torch.device(run.device)), _eager(run, job)
    first, second = (_losses(child, COMPARED_STEPS) for child in (graphed, eager))
    if getattr(graphed.step, "_graph", None) is None:
        raise RuntimeError("the step was not captured as a CUDA graph")
    differences = [abs(one - other) / abs(other) for one, other in zip(first, second, strict=True)]
    return {
        "steps": COMPARED_STEPS,
        "captured_steps": COMPARED_STEPS - EAGER_STEPS,
        "equal_losses": sum(one == other for one, other in zip(first, second, strict=True)),
        "largest_relative_difference": max(differences),
        "last_loss_captured": first[-1],
        "last_loss_eager": second[-1],
    }


def _losses(child: _Child, count: int) -> list[float]:
    child.model.train()
    found, size, train = [], child.recipe.batch_size, child.data.train
    for index in range(count):
        rows = torch.arange(index * size, (index + 1) * size, device=child.device) % len(train)
        child._set_rate(0.05)
        found.append(float(child.step(*train.batch(rows))))
    return found


def memory(run: Run) -> Cases:
    """The most memory that a child takes, by batch."""
    if not run.on_gpu:
        raise Skip("the allocator counts memory on a GPU only")
    for batch in run.sizes.batches:
        yield f"{run.sizes.model}, batch {batch}", partial(_peak, run, batch)


def _peak(run: Run, batch: int) -> Figures:
    """In MiB. `allocated`: tensors; `reserved`: what the allocator holds for them; `process`: what the GPU lacks
    while the child is there, with CUDA's own memory and other processes' (there should be none)."""
    job = run.job(SWISH_BETA, batch_size=batch)
    data = run.data(job)  # loaded before, and counted apart
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    child = run.child(job)
    seconds = wall_seconds(partial(steps, child, run.sizes.chunk), run.device)
    free, total = torch.cuda.mem_get_info()
    found = {
        "allocated_mib": torch.cuda.max_memory_allocated() - before,
        "reserved_mib": torch.cuda.max_memory_reserved(),
        "process_mib": total - free,
        "data_mib": data.train.pixels.raw.nbytes,
    }
    return {name: size / 2**20 for name, size in found.items()} | {"images_per_s": run.sizes.chunk * batch / seconds}


def precision(run: Run) -> Cases:
    """Our loop in bfloat16, in float32 with TF32 convolutions (torch's default), and in float32 throughout."""
    yield f"{run.sizes.model}, batch {run.sizes.batch}", partial(_precisions, run)


def _precisions(run: Run) -> Figures:
    ways = {"bfloat16": ("bfloat16", True), "tf32": ("float32", True), "float32": ("float32", False)}
    if not run.on_gpu:
        del ways["tf32"]  # only GPUs have it
    sides: dict[str, Callable[[], None]] = {}
    for name, (wanted, tf32) in ways.items():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        child = run.child(run.job(SWISH_BETA, precision=wanted))  # captured so, and so replayed
        sides[name] = partial(steps, child, child.steps_per_epoch)
    times = interleaved(sides, run, run.left())
    found = _rates(times, child.steps_per_epoch)
    for name in ways:
        found[f"{name}_ratio_to_float32"] = ratios(times["float32"], times[name])
    return found | {"steps_per_round": child.steps_per_epoch, "batch": run.sizes.batch}
