"""Confirmations for tests: a plan of image trainings, and a judge that takes no time."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from random import Random
from typing import Any

from search_space import key, parse
from searcher.confirmation import Configuration, Confirmation, Function
from searcher.driver import session
from searcher.records import Study, StudyTask
from searcher.settings.config import Config
from searcher.store.store import Store
from tests.support.made import image_task, measures
from workers.contract import Job, Outcome, Verdict
from workers.tasks.images.config import Evaluation, ImageConfig

SETTINGS = Config.of(study_name="c", pool="inline", sampler="random", baselines=("none",))
NOISE = 0.02
# Mean test losses at the best learning rate, which is 0.3 for tanh and 0.1 for the others. At the usual rate of 0.1
# swish is better than ReLU, sin is worse, and tanh is the same.
LOSSES = {"relu": 0.5, "swish1": 0.4, "sin": 0.9, "tanh": 0.3}
FUNCTIONS = {"relu": "max(x, 0)", "swish1": "x * sigmoid(x)", "sin": "sin(x)", "tanh": "tanh(x)"}


def functions() -> tuple[Function, ...]:
    trees = {name: parse(text) for name, text in FUNCTIONS.items()}
    return tuple(Function(str(tree), key(tree), name) for name, tree in trees.items())


def task_with_test(number: int, *, test: bool = True, **settings: Any) -> StudyTask:
    """Return a task configuration that measures the test part, and is ranked by it."""
    images, evaluation = ImageConfig(**settings), Evaluation(test)
    task = replace(
        image_task(), number=number, config=images.task_config(evaluation=evaluation), declared=evaluation.declaration
    )
    objective = evaluation.declaration.metric("test_loss")
    return replace(task, objective=objective, tie_breaker=None) if objective else task


def plan(tasks: list[StudyTask] | None = None, **changes: Any) -> tuple[Confirmation, list[StudyTask]]:
    tasks = tasks or [task_with_test(0)]
    chosen = functions()
    found = Confirmation(
        metric=tasks[0].objective,
        functions=chosen,
        reference=chosen[0].key,
        configurations=tuple(Configuration(f"network {task.number}", (task.number,)) for task in tasks),
        seeds=tuple(range(1, 7)),
        looks=(6,),
        rope=0.01,
    )
    return replace(found, **changes), tasks


def make(store: Store, confirmation: Confirmation, tasks: list[StudyTask], name: str = "c") -> Study:
    return session.create_design(store, confirmation, tasks, SETTINGS.replace(study_name=name))


class Judge:
    """Judges trainings at once, and notes them. Equal trainings have equal results.

    Attributes:
        runs: expression, seed and task configuration (its hash) of each training.
        diverged, failed: functions and seeds of trainings that end so.
    """

    def __init__(
        self, diverged: Set[tuple[str, int]] = frozenset(), failed: Set[tuple[str, int]] = frozenset()
    ) -> None:
        self.runs: list[tuple[str, int, str]] = []
        self.diverged, self.failed = diverged, failed

    def __call__(self, job: Job) -> Outcome:
        self.runs.append((job.expression, job.seed, job.task.hash))
        name = next(name for name, text in FUNCTIONS.items() if str(parse(text)) == job.expression)
        if (name, job.seed) in self.failed:
            return Outcome(Verdict.FAILED, "no memory")
        if (name, job.seed) in self.diverged:
            return Outcome(Verdict.INFEASIBLE, "training loss is not finite at epoch 1, step 1", seconds=1.0)
        common, own = Random(f"{job.seed}"), Random(f"{job.seed}/{name}/{job.task.hash}")
        loss = LOSSES[name] + NOISE * (common.gauss() + own.gauss())
        images = ImageConfig.from_parameters(job.task.parameters)
        loss += abs(images.recipe.learning_rate - (0.3 if name == "tanh" else 0.1))
        metrics = measures(loss)
        if Evaluation.of(job.task).test:
            metrics |= {"test_loss": loss, "test_acc": 0.5}
        return Outcome(Verdict.COMPLETE, metrics=metrics, parameters=10, seconds=1.0)
