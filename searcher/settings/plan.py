"""What a study searches and what it begins with: its grammar, and known functions to compare with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from search_space import SETS, Grammar, baseline, extended, key, load_primitives, name_at, nearest, parse, space
from searcher.records import Kind, StudyTask, Trial
from searcher.settings.config import Config, ConfigError
from workers.contract import Declaration, TaskConfig
from workers.tasks.base import IMAGES


def grammar_of(config: Config) -> Grammar:
    """Return the search space of a study.

    Raises:
        SpaceError: The space or a primitive is unknown, the space has not so many units, or a module registers no
            primitive.
    """
    search = config.search
    whole = extended(space(search.space, search.units), load_primitives(config.training.primitives))
    return replace(whole, unary=search.unary or whole.unary, binary=search.binary or whole.binary)


def baseline_trials(config: Config) -> list[Trial]:
    """Return the trials of the chosen functions, as many as fit into half of the study's total.

    Raises:
        SpaceError: A function is unknown by its name.
        ParseError: One that is written out is no expression.
    """
    load_primitives(config.training.primitives)
    seed, site = training_seed(config), config.training.images.site
    chosen = _chosen(config)[: config.search.n_trials // 2]
    return [baseline_trial(number, name, seed, site) for number, name in enumerate(chosen)]


def left_out(config: Config) -> list[str]:
    """Return the chosen functions that do not fit."""
    return _chosen(config)[config.search.n_trials // 2 :]


def _chosen(config: Config) -> list[str]:
    return with_sets(config.search.baselines, config.training.images.site)


def with_sets(names: Iterable[str], site: str) -> list[str]:
    """Return names with each name of a set (`all`, `modern`, `none`) replaced by the functions in it, each once."""
    return list(dict.fromkeys(one for name in names for one in SETS[site].get(name, (name,))))


def baseline_trial(number: int, name: str, seed: int, site: str = "activation") -> Trial:
    """Return the trial of a function: of a known one by its name, of any other as it is written. Maxout is no
    expression. At a gate, functions are called as gates with them are: `reglu`."""
    if name == "maxout":
        return Trial(number, Kind.BASELINE, "maxout(2)", "maxout(2)", seed, name=name)
    known = name.isidentifier() and name != "x"
    tree = parse(baseline(name, site).expression if known else name)
    called = name_at(site, name) if known else name if name == "x" else "own"
    return Trial(number, Kind.BASELINE, str(tree), key(tree), seed, name=called)


def training_seed(config: Config) -> int:
    """Return the seed of the trainings of a search."""
    return config.search.seed if config.search.training_seed is None else config.search.training_seed


def task_config_of(config: Config, declared: Declaration | None = None) -> TaskConfig:
    """Return what the trainings of a search mean.

    Args:
        declared: what a task of one's own has declared; None before it was asked. If it declares no metrics, the
            objective and direction of the settings are its only one.
    """
    training, search = config.training, config.search
    if training.task == IMAGES:
        return training.images.task_config(training.primitives)
    parameters: dict[str, Any] = {"options": training.task_kwargs, "digest": declared.digest if declared else ""}
    if declared.asked if declared else search.objective and search.direction:
        parameters["objective"] = [search.objective, search.direction]
    return TaskConfig(training.task, parameters, training.primitives)


def study_task(config: Config, declared: Declaration, data_digest: str = "", number: int = 0) -> StudyTask:
    """Return the task configuration of a study, and the metric that it is ranked by.

    Raises:
        ConfigError: The objective is not one of the task's metrics, or a `test_` metric, which a search must not see;
            or the direction contradicts the task's; or the pruner needs steps that the task does not declare.
    """
    check_pruner(config, declared)
    task, direction = config.training.task, config.search.direction
    accepted = [metric.name for metric in declared.metrics if metric.split != "test"]
    name = config.search.objective or declared.objective
    objective = declared.metric(name)
    if not accepted:
        raise ConfigError(
            f"task {task} declares metrics of the test split only; a search needs one that begins with val_ or train_"
        )
    if objective is None or name not in accepted:
        raise ConfigError(f"unknown objective {name!r} of task {task}; {nearest(name, accepted)}")
    if direction and direction != objective.direction:
        raise ConfigError(
            f"--direction {direction} contradicts the task {task}, which declares {name}: "
            f"{objective.direction}; leave --direction out"
        )
    other = declared.tie_breaker if declared.tie_breaker != name else declared.objective
    tie_breaker = declared.metric(other) if other in accepted and other != name else None
    return StudyTask(number, task_config_of(config, declared), declared, objective, tie_breaker, data_digest)


def check_pruner(config: Config, declared: Declaration) -> None:
    """Raise ConfigError if the settings name a pruner and the task is one's own and does not say how long it is."""
    pruner, task = config.search.pruner, config.training.task
    if pruner != "none" and task != IMAGES and not declared.steps:
        function = task.rpartition(":")[2]
        raise ConfigError(
            f"--pruner {pruner} needs the number of steps of a whole training, which task {task} does "
            f"not declare; write below the function: {function}.steps = 20 (the last step that it reports), or choose "
            "--pruner none"
        )
