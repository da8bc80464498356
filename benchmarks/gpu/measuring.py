"""What all measurements share: their sizes, their time, and how work on a GPU is timed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch

from benchmarks.gpu.results import Figures
from workers.contract import Job
from workers.tasks.images.config import ImageConfig
from workers.tasks.images.data import Dataset, load
from workers.tasks.images.recipes import RECIPES
from workers.tasks.images.train import _Child

Item = TypeVar("Item")
FEWEST_ROUNDS = 3  # of a comparison; with fewer there is no spread


class Skip(Exception):
    """A case that cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: all of it on a GPU, tiny pieces in a test.

    Attributes:
        epoch: training images in the loops, an epoch of which is one round.
        paper_steps: of the paper's child; `settled`: the steps after which its speed is steady.
        window: seconds for which children are trained at once.
        elements: of the activations' input; on a GPU more than its cache holds.
        least: seconds that must be left for a case to begin.
    """

    model: str = "resnet20"
    model_kwargs: dict[str, Any] = field(default_factory=dict, hash=False)
    batch: int = 128
    data: str = "benchmarks.gpu.images:loop"
    paper_data: str = "benchmarks.gpu.images:paper"
    epoch: int = 12_800
    paper_steps: int = 10_000
    settled: int = 100
    children: tuple[int, ...] = (1, 2, 4, 8)
    window: float = 4.0
    chunk: int = 25
    elements: int = 2**25
    passes: int = 20
    rounds: int = 15
    batches: tuple[int, ...] = (32, 128, 512)
    least: float = 6.0


FULL = Sizes()
SMALL = Sizes(
    model="resnet8",
    model_kwargs={"width": 2},
    batch=16,
    data="benchmarks.gpu.images:tiny",
    paper_data="benchmarks.gpu.images:tiny",
    epoch=128,
    paper_steps=40,
    settled=10,
    children=(1, 2),
    window=0.1,
    chunk=2,
    elements=2**16,
    passes=1,
    rounds=3,
    batches=(16,),
    least=0.1,
)


@dataclass(frozen=True, slots=True)
class Run:
    """What a measurement is given.

    Attributes:
        until: when it must have ended, by `time.monotonic()`.
        start_method: how it starts processes of its own.
    """

    device: str
    small: bool
    until: float
    start_method: str = "fork"

    @property
    def sizes(self) -> Sizes:
        return SMALL if self.small else FULL

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def left(self) -> float:
        return self.until - time.monotonic()

    def shared(self, items: Sequence[Item]) -> Iterator[tuple[Item, float]]:
        """Each item with its seconds: an equal share of the time that is left when it is its turn."""
        for index, item in enumerate(items):
            yield item, max(0.0, self.left()) / (len(items) - index)

    def job(self, expression: str, **recipe: Any) -> Job:
        """A child of He et al. 2015, on this benchmark's images, with as many steps as anybody may want to measure."""
        epochs = {"epochs": 100, "steps": 0, "batch_size": self.sizes.batch}
        image = ImageConfig(
            dataset=self.sizes.data,
            limit_train=self.sizes.epoch,
            model=self.sizes.model,
            model_kwargs=self.sizes.model_kwargs,
            recipe=replace(RECIPES["he2016"], **{**epochs, **recipe}),
        )
        return Job(0, expression, task=image.task_config())

    def data(self, job: Job) -> Dataset:
        return load(self.sizes.data, 0, torch.device(self.device), "", self.sizes.epoch)

    def child(self, job: Job) -> _Child:
        """A child that is ready: libraries have chosen their algorithms, and its step is captured on a GPU."""
        child = _Child(job, self.data(job), torch.device(self.device))
        steps(child, min(child.steps_per_epoch, 2 * self.sizes.chunk))
        if self.on_gpu and getattr(child.step, "_graph", None) is None:
            raise RuntimeError("the step was not captured as a CUDA graph")
        return child


def steps(child: _Child, count: int) -> None:
    """Train for so many steps of an epoch; the device has done them when this returns."""
    child._train_epoch(1, count, lambda: None)


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def wall_seconds(work: Callable[[], object], device: str) -> float:
    """How long `work` and all that it has the device do take."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def device_seconds(work: Callable[[], object], device: str) -> float:
    """How long the device takes, by its own clock; on a CPU the same as `wall_seconds`."""
    if device != "cuda":
        return wall_seconds(work, device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def interleaved(
    sides: Mapping[str, Callable[[], object]],
    run: Run,
    seconds: float,
    timed: Callable[[Callable[[], object], str], float] = wall_seconds,
) -> dict[str, list[float]]:
    """Seconds of each side in each round. All sides take turns, in another order each round, after a round that warms
    up; there are as many rounds as fit in `seconds`, at most `run.sizes.rounds`.

    Raises:
        Skip: not even three rounds fit.
    """
    end = min(time.monotonic() + seconds, run.until)
    times: dict[str, list[float]] = {name: [] for name in sides}
    draw = random.Random(0)
    for turn in range(1 + run.sizes.rounds):
        started = time.monotonic()
        for name in draw.sample(list(sides), len(sides)):
            taken = timed(sides[name], run.device)
            if turn:
                times[name].append(taken)
        now = time.monotonic()
        if now + (now - started) > end:
            break
    if turn < FEWEST_ROUNDS:
        raise Skip(f"a round takes {now - started:.1f} s; {FEWEST_ROUNDS} rounds do not fit in {seconds:.1f} s")
    return times


Cases = Iterator[tuple[str, Callable[[], Figures]]]
