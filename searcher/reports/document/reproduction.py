"""Collect how a study can be made again: commands, seeds, versions, data, task configurations, settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from searcher.confirmation import Confirmation
from searcher.records import Study, StudyKind
from searcher.reports.words import task_settings, task_words
from searcher.settings.config import Config, SearchSettings, TrainingSettings
from searcher.settings.declared import Declared, declared
from workers.tasks.base import IMAGES
from workers.tasks.images.config import EVALUATION, ImageConfig, Recipe
from workers.tasks.images.recipes import RECIPES

RECIPE = "recipe"


def facts(study: Study, plan: Confirmation | None) -> dict[str, Any]:
    """Return everything that another person needs to make the study again.

    Args:
        plan: of a confirmation.
    """
    left_out = {"design"}
    if study.kind is StudyKind.DESIGN:  # nothing is proposed, so these settings have no effect
        left_out |= {one.name for one in declared(SearchSettings)}
    config = {name: value for name, value in study.config.items() if name not in left_out}
    return {
        "commands": commands(study, plan),
        "seeds": _seeds(study, plan),
        "git_commit": study.versions.get("git_commit", ""),
        "versions": dict(study.versions),
        "task_configs": [
            {
                "number": task.number,
                "hash": task.config.hash,
                "words": task_words(task.config),
                "task": task.config.task,
                "objective": task.objective.name,
                "direction": str(task.objective.direction),
                "data_digest": task.data_digest,
                "settings": task_settings(task.config),
            }
            for task in study.tasks
        ],
        "settings": config,
        "design": study.config.get("design"),
    }


def _seeds(study: Study, plan: Confirmation | None) -> dict[str, Any]:
    config = study.config
    if plan:
        return {"training": list(plan.seeds), "tuning": plan.tuning_seed if plan.tuning_metric else None}
    if study.kind is StudyKind.DESIGN:
        return {}
    training = config.get("training_seed")
    return {"proposals": config.get("seed"), "training": [config.get("seed") if training is None else training]}


def commands(study: Study, plan: Confirmation | None = None) -> list[str]:
    """Return the commands that make the study again, in the default database; none for a design that a program made."""
    name = ["--study-name", study.name]
    if plan and plan.reproduces:
        experiment, scale = plan.reproduces.split()
        dataset = ImageConfig.from_parameters(study.task.config.parameters).dataset
        words = ["searcher", "reproduce", experiment, "--scale", scale, "--dataset", dataset]
        return [_typed(words), f"searcher report {shlex.quote(study.name)} -o report.html"]
    if plan:
        words = ["searcher", "confirm", *([plan.search] if plan.search else []), *name, *_of_plan(study, plan)]
        return [_typed(words), f"searcher report {shlex.quote(study.name)} -o report.html"]
    if study.kind is StudyKind.DESIGN:
        return []
    words = ["searcher", "launch", *name, *_flags(study.config, Config)]
    return [_typed(words), f"searcher report {shlex.quote(study.name)} -o report.html"]


def _typed(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _of_plan(study: Study, plan: Confirmation) -> Iterator[str]:
    """Yield the flags of `searcher confirm` that lead to a plan."""
    yield from ("--top", "0", "--baselines", "none", "--reference", plan.reference_label)
    for function in plan.functions:
        if function.key != plan.reference:
            yield from ("--expression", function.label)
    yield from ("--seeds", str(plan.looks[-1]), "--first-seed", str(plan.seeds[0]))
    yield from _of_trainings(study, plan)
    if plan.until_sure:
        yield "--until-sure"
    if plan.tuning_metric:
        yield from ("--tune-lr", str(len(plan.configurations[0].rates)))
    if plan.alpha != 0.05:
        yield from ("--alpha", f"{plan.alpha:g}")
    if plan.rope is not None:
        yield from ("--rope", f"{plan.rope:g}")


def _of_trainings(study: Study, plan: Confirmation) -> Iterator[str]:
    """Yield the flags of `searcher confirm` that lead to the task configurations: with a search, those of the others
    than the search's own."""
    tasks = [study.tasks[one.task_configs[0]].config for one in plan.configurations]
    settings = [task_settings(task) for task in tasks]
    for flag, name in (("--models", "model"), ("--datasets", "dataset")):
        values = list(dict.fromkeys(str(one[name]) for one in settings if name in one))
        if len(values) > 1 or (values and not plan.search):
            yield from (flag, ",".join(values))
    if any(one.get(EVALUATION, {}).get("vary_split") for one in settings):
        yield "--vary-split"
    if not plan.search:
        yield from _without_network(_flags(study.config, TrainingSettings))
    elif tasks[0].task == IMAGES and len(tasks) > 1:
        own, other = (_image_flags(settings[place]) for place in (0, -1))
        known = set(zip(own[::2], own[1::2], strict=True))
        for pair in zip(other[::2], other[1::2], strict=True):
            if pair not in known:
                yield from pair


def _image_flags(settings: Mapping[str, Any]) -> list[str]:
    """Return the flags of an image training, each with its value, without those of the network and the data set."""
    plain = {name: value for name, value in settings.items() if not name.startswith("recipe.")}
    recipe = {name.removeprefix("recipe."): value for name, value in settings.items() if name.startswith("recipe.")}
    found = _flags({**plain, RECIPE: recipe}, ImageConfig)
    return [word for word in _without_network(found) if word not in ("--compile", "--standardise", "--no-standardise")]


def _without_network(flags: list[str]) -> list[str]:
    """Return flags without those that `--models` and `--datasets` replace."""
    found: list[str] = []
    for place, word in enumerate(flags):
        if word not in ("--model", "--dataset") and (place == 0 or flags[place - 1] not in ("--model", "--dataset")):
            found.append(word)
    return found


def _flags(config: Mapping[str, Any], record: type) -> list[str]:
    """Return the flags of the settings that are not at their defaults, without those of how a study is run."""
    found: list[str] = []
    for one in declared(record):
        if one.section != "run" and one.name != "study_name" and one.name in config:
            found += _recipe(config[one.name]) if one.name == RECIPE else _flag(one, config[one.name])
    return found


def _flag(one: Declared, value: Any) -> list[str]:
    """Return a setting as it is typed; nothing if it is at its default."""
    default = list(one.default) if isinstance(one.default, tuple) else one.default
    if not one.flag or value in (default, one.default) or value is None:
        return []
    if one.kind is bool:
        return [one.flag if value else f"--no-{one.flag[2:]}"]
    if isinstance(value, Mapping):
        return [one.flag, json.dumps(value)]
    return [one.flag, ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)]


def _recipe(fields: Mapping[str, Any]) -> list[str]:
    """Return a recipe by its name, and its fields that differ from the recipe of that name."""
    name = fields.get("name", Recipe().name)
    named = RECIPES.get(name, Recipe())
    changed = {
        field: list(value) if isinstance(value, tuple) else value
        for field, value in fields.items()
        if field != "name" and hasattr(named, field) and value not in (getattr(named, field), [*_many(named, field)])
    }
    words = [] if name == Recipe().name else ["--recipe", name]
    return [*words, *(["--recipe-kwargs", json.dumps(changed)] if changed else [])]


def _many(recipe: Recipe, field: str) -> tuple[Any, ...]:
    value = getattr(recipe, field)
    return value if isinstance(value, tuple) else ()
