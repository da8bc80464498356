"""Made-up searches and confirmations in a store, as reports and comparisons read them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from search_space import BASELINES, KEY_RULES, key, parse
from searcher.confirmation import Configuration, Confirmation, Function
from searcher.records import Kind, Study, StudyKind, StudyTask, Trial, TrialState
from searcher.settings.config import Config
from searcher.settings.plan import study_task
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.made import point
from workers.contract import Declaration, Direction, Metric
from workers.tasks.images.config import DECLARATION, Recipe

VERSIONS = {"searcher": "0.1.0", "keys": str(KEY_RULES), "torch": "2.11.0", "git_commit": "0123456789abcdef" * 2}
DIGEST = "d" * 16
TEST_ACC = Metric("test_acc", Direction.MAXIMIZE, "fraction")
TEST_LOSS = Metric("test_loss", Direction.MINIMIZE, "nats")
VAL_ACC = Metric("val_acc", Direction.MAXIMIZE, "fraction")
TESTED = replace(DECLARATION, metrics=(*DECLARATION.metrics, TEST_LOSS, TEST_ACC))
SETTINGS = {"recipe": Recipe(epochs=4), "width": 8, "sampler": "random", "pool": "inline"}

# What a function is worth, apart from noise: better functions have a greater merit.
WORTH = {
    "relu": 0.90,
    "swish1": 0.93,
    "tanh": 0.84,
    "gelu": 0.925,
    "x * sigmoid(2 * x)": 0.95,
    "x * tanh(x)": 0.905,
    "max(x, sin(x))": 0.91,
    "x + sin(x)": 0.89,
}
KNOWN = ("relu", "swish1", "tanh", "gelu")
FOUND = tuple(text for text in WORTH if text not in KNOWN)
Accuracy = Callable[[str, int, int], float | None]  # of a function's name, a seed and a task configuration


def accuracy(name: str, seed: int, config: int = 0, noise: float = 0.008) -> float | None:
    """Return a made-up accuracy; None if the training diverged, which it does for tanh with every fourth seed."""
    if name == "tanh" and seed % 4 == 3:
        return None
    of_seed = random.Random(f"{seed} {config}").gauss(0, noise)
    return WORTH.get(name, 0.9) - 0.05 * config + of_seed + random.Random(f"{name} {seed} {config}").gauss(0, noise / 2)


def values(acc: float, tested: bool = False) -> dict[str, float]:
    """Return what a training with this accuracy measured. Test values are a little worse than validation values."""
    found = {"train_loss": 1.1 - acc, "val_loss": 1.2 - acc, "val_acc": acc}
    return found | ({"test_loss": 1.22 - acc, "test_acc": acc - 0.01} if tested else {})


def ended(
    number: int, function: str, seed: int, task: StudyTask, found: Mapping[str, float] | None, **changes: Any
) -> Trial:
    """Return a trial that has ended: COMPLETE with these values, or INFEASIBLE without.

    Args:
        function: the name of a known function, or an expression.
    """
    text = BASELINES[function].expression if function in BASELINES else function
    tree = parse(text)
    known = function in BASELINES
    trial = Trial(
        number=number,
        kind=Kind.BASELINE if known else Kind.CANDIDATE,
        expression=str(tree),
        key=key(tree),
        seed=seed,
        name=function if known else "",
        task_config=task.number,
        seconds=2.0,
        worker="here",
        parameters=1000,
        finish_order=number,
    )
    if found is None:
        trial = replace(trial, state=TrialState.INFEASIBLE, reason="training loss is not finite at epoch 2, step 7")
    else:
        trial = replace(task.judged(trial, found), state=TrialState.COMPLETE)
    return replace(trial, **changes)


def write(store: Store, study: Study, trials: Sequence[Trial], digest: str = DIGEST) -> Study:
    """Write trials that have ended into a study, with short learning curves, and return the study."""
    lease = store.acquire(study, "a test")
    curves = {
        trial.number: [point(n, 1.5 - n / 4, trial.metrics["val_loss"] + 0.4 - n / 10, 0.2 * n) for n in range(1, 5)]
        for trial in trials
        if trial.state is TrialState.COMPLETE and "val_loss" in trial.metrics and trial.cites is None
    }
    digests = {task.number: digest for task in study.tasks} if digest else {}
    store.commit(lease, Batch(added=list(trials), curves=curves, data_digests=digests), short_wait=False)
    store.release(lease)
    return store.study(study.name)


def a_search(
    store: Store,
    name: str = "a search",
    functions: Sequence[str] = tuple(WORTH),
    *,
    seeds: Sequence[int] = (0,),
    objective: str = "val_acc",
    at: Accuracy = accuracy,
    versions: Mapping[str, str] = VERSIONS,
    digest: str = DIGEST,
    **settings: Any,
) -> Study:
    """Make a search that has tried these functions."""
    config = Config.of(study_name=name, objective=objective, **{**SETTINGS, **settings}).replace(
        n_trials=len(functions) * len(seeds)
    )
    task = study_task(config, DECLARATION)
    kind, total = StudyKind.SEARCH, len(functions) * len(seeds)
    study = store.create_study(name, kind, total, [task], config.to_dict(), dict(versions))
    pairs = [(function, seed) for seed in seeds for function in functions]
    found = [at(function, seed, 0) for function, seed in pairs]
    trials = [
        ended(number, function, seed, task, None if acc is None else values(acc))
        for number, ((function, seed), acc) in enumerate(zip(pairs, found, strict=True))
    ]
    return write(store, study, trials, digest)


def the_plan(
    functions: Sequence[str] = ("x * sigmoid(2 * x)", "swish1", "x * tanh(x)", "tanh", "relu"),
    seeds: Sequence[int] = tuple(range(1, 11)),
    *,
    configurations: int = 2,
    metric: Metric = TEST_ACC,
    search: str = "a search",
    looks: Sequence[int] = (),
    at: Accuracy = accuracy,
    **changes: Any,
) -> Confirmation:
    """Return the plan of a confirmation; the last function is the reference."""
    chosen = []
    for name in functions:
        tree = parse(BASELINES[name].expression if name in BASELINES else name)
        searched = at(name, 0, 0) if search else None
        known = name if name in BASELINES else ""
        chosen.append(Function(str(tree), key(tree), known, searched, None if searched is None else 0))
    named = ("resnet8 on digits", "resnet14 on digits", "resnet20 on digits")
    plan = Confirmation(
        metric=metric,
        functions=tuple(chosen),
        reference=chosen[-1].key,
        configurations=tuple(Configuration(named[n], (n,)) for n in range(configurations)),
        seeds=tuple(seeds),
        looks=tuple(looks) or (len(seeds),),
        search=search,
        searched=VAL_ACC if search else None,
        search_seed=0 if search else None,
    )
    return replace(plan, **changes)


def a_confirmation(
    store: Store,
    plan: Confirmation | None = None,
    name: str = "a confirmation",
    *,
    trained: int | None = None,
    at: Accuracy = accuracy,
    digest: str = DIGEST,
    versions: Mapping[str, str] = VERSIONS,
    declared: Declaration = TESTED,
    settings: Mapping[str, Any] = SETTINGS,
) -> Study:
    """Make a confirmation without tuned learning rates.

    Args:
        trained: how many trainings have ended; None: all of the plan.
    """
    plan = plan or the_plan()
    models = ("resnet8", "resnet14", "resnet20")
    config = Config.of(study_name=name, **settings)
    tasks = []
    for number in range(len(plan.configurations)):
        task = study_task(config.replace(model=models[number]), declared)
        tasks.append(replace(task, number=number, objective=plan.metric))
    stored = {**config.replace(n_trials=plan.most_trainings).to_dict(), "design": plan.to_plain()}
    study = store.create_study(name, StudyKind.DESIGN, plan.most_trainings, tasks, stored, dict(versions))
    order = [
        (seed, config.task_configs[0], function)
        for seed in plan.seeds[: plan.looks[-1]]
        for config in plan.configurations
        for function in plan.functions
    ]
    trials = []
    for number, (seed, config_number, function) in enumerate(order[:trained]):
        acc = at(function.label, seed, config_number)
        found = None if acc is None else values(acc, plan.metric.split == "test")
        trial = ended(number, function.label, seed, tasks[config_number], found)
        trials.append(replace(trial, expression=function.expression, key=function.key, name=function.name))
    return write(store, study, trials, digest)
