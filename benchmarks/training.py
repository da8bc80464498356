"""Images a second of this project's training loop, beside the same network trained in the ordinary way.

The ordinary way is a DataLoader over the same tensors, an eager loop over its batches, torch's SGD and OneCycleLR as
they come. Both train the same functions with the same recipe and the same first weights, with one thread on CPUs. They
take turns, an epoch each, so that a machine that is busy slows both; the ratio is that of the medians over all epochs.
Both see the same images in the same order, and both evaluate after the last epoch: the accuracies should be the same
but for rounding, which a training makes grow.

    python -m benchmarks.training                      # digits, and 32x32 images
    python -m benchmarks.training --cifar DIRECTORY    # the latter from CIFAR-10, instead of random ones
    python -m benchmarks.training --device cuda --model resnet20 --batch-size 128
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Sampler, TensorDataset

from benchmarks.images import image_of, with_image
from workers.contract import Job
from workers.tasks.images.config import ImageConfig, Recipe
from workers.tasks.images.data import Dataset, load
from workers.tasks.images.models import build
from workers.tasks.images.networks.sites import activation_of
from workers.tasks.images.train import _Child

FUNCTIONS = ("max(x, 0)", "x * sigmoid(x)", "x * sigmoid(beta * x)")


def random_images() -> tuple[np.ndarray, np.ndarray]:
    """4,000 noisy images of ten prototypes, 32x32 in three colours."""
    draw = np.random.default_rng(0)
    labels = np.arange(4000) % 10
    prototypes = draw.integers(0, 256, (10, 3, 32, 32))
    noise = draw.integers(0, 256, (4000, 3, 32, 32))
    return ((prototypes[labels] + 4 * noise) // 5).astype(np.uint8), labels


class SameOrder(Sampler[int]):
    """What `shuffle=True` does, in the order in which our loop draws an epoch's images."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.generator = count, torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.count, generator=self.generator).tolist())


class Ordinary:
    """The loop that people write."""

    def __init__(self, job: Job, data: Dataset, device: torch.device) -> None:
        torch.manual_seed(job.seed)
        image = image_of(job)
        network = build(image.model, activation_of(job.expression), data.shape, data.classes, None, image.model_kwargs)
        self.model, self.device, recipe = network.to(device), device, image.recipe
        images, labels = data.train.batch(torch.arange(len(data.train), device=device))
        training = TensorDataset(images.cpu(), labels.cpu())
        order = SameOrder(len(training), job.seed)
        self.loader = DataLoader(training, recipe.batch_size, sampler=order, drop_last=True, pin_memory=self.on_gpu)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            recipe.learning_rate,
            epochs=recipe.epochs,
            steps_per_epoch=len(self.loader),
            pct_start=recipe.warmup,
            cycle_momentum=False,
        )

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def epoch(self) -> float:
        self.model.train()
        total = 0.0
        for images, labels in self.loader:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(images.to(self.device)), labels.to(self.device))
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item()
        return total / len(self.loader)

    @torch.no_grad()
    def accuracy(self, data: Dataset) -> float:
        self.model.eval()
        right = sum(int((self.model(x).argmax(1) == y).sum()) for x, y in data.val.batches(500))
        return right / len(data.val)


@dataclass(slots=True)
class Side:
    name: str
    epoch: Callable[[], object]
    flush: bool  # as `workers.pools.base.prepare` sets it up
    seconds: list[float]

    def run(self, device: torch.device) -> None:
        torch.set_flush_denormal(self.flush)
        started = time.perf_counter()
        self.epoch()
        if device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - started)


def compare(title: str, job: Job, device: torch.device) -> None:
    """Prints a line a side."""
    image = image_of(job)
    data = load(image.dataset, image.split_seed, device, job.data_dir, image.limit_train)
    child, ordinary = _Child(job, data, device), Ordinary(job, data, device)
    each = iter(range(1, image.recipe.epochs + 1))

    def ours() -> None:
        child._train_epoch(next(each), child.steps_per_epoch, lambda: None)

    sides = [Side("searcher", ours, True, []), Side("DataLoader, eager", ordinary.epoch, False, [])]
    for _ in range(image.recipe.epochs):
        for side in sides:
            side.run(device)
    images = child.steps_per_epoch * image.recipe.batch_size
    accuracies = (child._evaluate(data.val)[1], ordinary.accuracy(data))
    rates = [images / statistics.median(side.seconds[1:] or side.seconds) for side in sides]
    for side, rate, accuracy in zip(sides, rates, accuracies, strict=True):
        print(
            f"| {title} | {job.expression} | {side.name} | {rate:,.0f} | {accuracy:.3f} | {rate / rates[1]:.2f}x |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--cifar", default="", help="folder with CIFAR-10")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    where = f"{os.cpu_count()} cores" if device.type == "cpu" else torch.cuda.get_device_name()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {where}, Python {platform.python_version()}, torch {torch.__version__}; ",
        end="",
    )
    print(f"{arguments.model}, batches of {arguments.batch_size}, {arguments.epochs} epochs")
    recipe = Recipe(epochs=arguments.epochs, batch_size=arguments.batch_size)
    digits = Job(0, "", task=ImageConfig(model=arguments.model, recipe=recipe).task_config())
    if arguments.cifar:
        images = replace(with_image(digits, dataset="cifar10", limit_train=2000), data_dir=arguments.cifar)
    else:
        images = with_image(digits, dataset="benchmarks.training:random_images", limit_train=2000)
    print("\n| data | function | loop | images/s | val_acc | ratio |\n|---|---|---|---|---|---|")
    for title, job in (("digits", digits), ("3x32x32, 2,000 images", images)):
        for function in FUNCTIONS:
            compare(title, replace(job, expression=function), device)


if __name__ == "__main__":
    main()
