"""Confirmations with made-up results."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from search_space import KNOWN, key, parse
from search_space.activation import beta_names
from searcher.confirmation import Configuration, Confirmation, Function
from searcher.driver.leases import held_lease
from searcher.records import Kind, Study, StudyKind, StudyTask, Trial, TrialState
from searcher.settings.config import Config
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.made import image_task, learned
from workers.contract import Direction, Learned, Metric, Point

TEST_LOSS = Metric("test_loss", Direction.MINIMIZE, "nats")
TEST_ACC = Metric("test_acc", Direction.MAXIMIZE, "fraction")
VAL_LOSS = Metric("val_loss", Direction.MINIMIZE, "nats")
# The true loss of each function, and its lucky value in the search.
FUNCTIONS: Mapping[str, tuple[float, float]] = {
    "relu": (0.400, 0.410),
    "x * sigmoid(beta * x)": (0.370, 0.350),
    "gelu": (0.385, 0.372),
    "max(x, sin(x))": (0.402, 0.341),
    "beta1 * max(x, 0) + (1 - beta1) * tanh(x)": (0.398, 0.355),
    "exp(-beta * (exp(-x^2) - tanh(x))^2)": (0.520, 0.360),
}


def function_of(text: str, searched: float | None = None) -> Function:
    """Return a function of a confirmation: of a name or an expression."""
    tree = parse(text)
    return Function(str(tree), key(tree), text if text in KNOWN else "", searched)


def made_plan(
    functions: Mapping[str, tuple[float, float | None]] = FUNCTIONS, configurations: int = 2, seeds: int = 8
) -> Confirmation:
    """Return a plan in which relu is the reference and test_loss decides."""
    return Confirmation(
        metric=TEST_LOSS,
        functions=tuple(function_of(text, searched) for text, (_, searched) in functions.items()),
        reference=key(parse("relu")),
        configurations=tuple(
            Configuration(f"resnet{8 + 12 * place} on digits", (place,)) for place in range(configurations)
        ),
        seeds=tuple(range(100, 100 + seeds)),
        looks=(seeds,),
        search="digits-rnn-1",
        searched=VAL_LOSS,
        search_seed=0,
    )


def made_tasks(number: int) -> list[StudyTask]:
    """Return task configurations that measure the test part too, and rank by it."""
    tasks = []
    for place in range(number):
        task = image_task(width=8 + place)
        declared = replace(task.declared, metrics=(*task.declared.metrics, TEST_LOSS, TEST_ACC))
        tasks.append(replace(task, number=place, declared=declared, objective=TEST_LOSS, tie_breaker=TEST_ACC))
    return tasks


def confirmation(
    store: Store,
    plan: Confirmation,
    losses: Mapping[tuple[str, int, int], float | None],
    name: str = "confirm",
    epochs: int = 4,
) -> Study:
    """Write a confirmation with finished trainings.

    Args:
        losses: test_loss by the label of the function, the seed and the number of the configuration. None: the training
            diverged. What is absent was not trained.
    """
    tasks = made_tasks(len(plan.configurations))
    settings = {**Config.of(study_name=name).to_dict(), "design": plan.to_plain()}
    study = store.create_study(name, StudyKind.DESIGN, plan.most_trainings, tasks, settings, {})
    functions = {function.label: function for function in plan.functions}
    trials: list[Trial] = []
    curves: dict[int, Sequence[Point]] = {}
    became: dict[int, Sequence[Learned]] = {}
    for number, ((label, seed, place), loss) in enumerate(losses.items()):
        function = functions[label]
        trial = Trial(number, Kind.CANDIDATE, function.expression, function.key, seed, function.name)
        trial = replace(trial, task_config=place, seconds=2.0, worker="me", finish_order=number)
        if loss is None:
            trial = replace(trial, state=TrialState.INFEASIBLE, reason="training loss is not finite at epoch 1, step 3")
        else:
            measured = {"val_loss": loss + 0.02, "val_acc": 0.8, "test_loss": loss, "test_acc": 0.8}
            trial = replace(tasks[place].judged(trial, measured), state=TrialState.COMPLETE)
            curves[number] = [
                Point(step, {"val_loss": loss + 0.02 + 1.5 / step - 1.5 / epochs}) for step in range(1, epochs + 1)
            ]
            names = beta_names(len(parse(function.expression).betas))
            became[number] = [learned(f"act{n}", name, 0.5, 1.0 + n) for n in range(3) for name in names]
        trials.append(trial)
    with held_lease(store, study) as lease:
        store.commit(lease, Batch(added=trials, curves=curves, learned=became))
    return store.study(name)


def noisy_losses(
    plan: Confirmation,
    functions: Mapping[str, tuple[float, float | None]] = FUNCTIONS,
    *,
    noise: float = 0.012,
    diverged: Sequence[tuple[str, int, int]] = (),
) -> dict[tuple[str, int, int], float | None]:
    """Draw losses: a part of the noise belongs to the seed, and so to all functions alike."""
    draw = random.Random(0)
    labels = dict(zip((function.label for function in plan.functions), functions.values(), strict=True))
    found: dict[tuple[str, int, int], float | None] = {}
    for place in range(len(plan.configurations)):
        for seed in plan.seeds:
            shared = draw.gauss(0, noise)
            for label, (loss, _) in labels.items():
                value = (loss - 0.01 * place) + shared + draw.gauss(0, noise)
                found[label, seed, place] = None if (label, seed, place) in diverged else value
    return found
