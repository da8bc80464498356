"""A search with Ray Tune and Optuna as their documentation shows it, which `benchmarks.search` measures.

A function trainable with `tune.with_parameters` and `tune.with_resources`, `OptunaSearch`, a DataLoader and an ordinary
training loop that reports each epoch; functions, data, network and recipe are those of `searcher launch`.

    python -m benchmarks.tune_script --candidates 40
"""

from __future__ import annotations

import argparse
import math
import tempfile
from typing import Any

import ray
import torch
import torch.nn.functional as F
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from search_space import Grammar
from workers.tasks.images.config import Recipe
from workers.tasks.images.data import Part, load
from workers.tasks.images.models import build
from workers.tasks.images.networks.sites import activation_of

Loader = DataLoader[tuple[Tensor, ...]]

RECIPE = Recipe()
WORST = {"val_loss": math.inf}  # of a function that cannot be trained; Optuna takes infinity, but no NaN


def tensors(part: Part) -> TensorDataset:
    return TensorDataset(*part.batch(torch.arange(len(part))))


def train_epoch(
    model: nn.Module,
    loader: Loader,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> bool:
    """Whether the loss stayed finite."""
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        if not math.isfinite(loss.item()):
            return False
        loss.backward()
        optimizer.step()
        schedule.step()
    return True


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader) -> dict[str, float]:
    model.eval()
    loss, right, seen = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(dim=1) == labels).sum())
        seen += len(labels)
    return {"val_loss": loss / seen, "val_acc": right / seen}


def train(config: dict[str, Any], training: TensorDataset, validation: TensorDataset) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    function = Grammar().decode((0, 0, config["unary1"], config["unary2"], config["binary"]))
    channels, height, width = training.tensors[0].shape[1:]
    model = build("resnet8", activation_of(str(function)), (channels, height, width), classes=10)
    loader = DataLoader(training, RECIPE.batch_size, shuffle=True, drop_last=True)
    held_out = DataLoader(validation, batch_size=500)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=RECIPE.learning_rate,
        momentum=RECIPE.momentum,
        weight_decay=RECIPE.weight_decay,
        nesterov=RECIPE.nesterov,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        RECIPE.learning_rate,
        epochs=RECIPE.epochs,
        steps_per_epoch=len(loader),
        pct_start=RECIPE.warmup,
        cycle_momentum=False,
    )
    for _ in range(RECIPE.epochs):
        finite = train_epoch(model, loader, optimizer, schedule)
        metrics = evaluate(model, held_out) if finite else WORST
        if not math.isfinite(metrics["val_loss"]):
            tune.report(WORST)
            return
        tune.report(metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--candidates", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    ray.init(address="local", num_cpus=arguments.workers, include_dashboard=False)
    digits = load("digits", 0, torch.device("cpu"))
    trainable = tune.with_parameters(train, training=tensors(digits.train), validation=tensors(digits.val))
    grammar = Grammar()
    with tempfile.TemporaryDirectory() as directory:
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={
                "unary1": tune.choice(list(range(len(grammar.unary)))),
                "unary2": tune.choice(list(range(len(grammar.unary)))),
                "binary": tune.choice(list(range(len(grammar.binary)))),
            },
            tune_config=tune.TuneConfig(
                metric="val_loss",
                mode="min",
                search_alg=OptunaSearch(seed=0),
                num_samples=arguments.candidates,
                max_concurrent_trials=arguments.workers,
            ),
            run_config=tune.RunConfig(storage_path=directory),
        )
        results = tuner.fit()
    ray.shutdown()
    if len(results) != arguments.candidates or results.errors:
        raise RuntimeError(f"{len(results)} of {arguments.candidates} trials ended, with errors {results.errors[:1]}")
    print("the best:", results.get_best_result().config)


if __name__ == "__main__":
    main()
