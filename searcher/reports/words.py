"""Describe functions and task configurations in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from searcher.display import OWN, label, without_folders
from searcher.records import Kind, Trial
from workers.contract import Metric, TaskConfig
from workers.tasks.base import IMAGES
from workers.tasks.images.config import EVALUATION, ImageConfig, Recipe

LONGEST = 100  # characters of an expression in a heading or a caption
_IMAGE = {field.name for field in fields(ImageConfig)}
_NAMED = ("dataset", "model", "recipe.name")  # what the words of an image training begin with


def label_of(row: Mapping[str, Any]) -> str:
    """Return what people call the function in a row of a leaderboard: its name, or the expression."""
    return label(str(row["name"]), str(row["expression"]))


def label_of_trial(trial: Trial) -> str:
    """Return what people call the function of a trial. Only baselines have names."""
    return trial.name if trial.kind is Kind.BASELINE and trial.name not in ("", OWN) else trial.expression


def parameters(config: TaskConfig) -> dict[str, Any]:
    """Return the parameters of a task by name, with defaults for those that are not stored. Names of the recipe look
    like `recipe.epochs`."""
    if config.task != IMAGES:
        return dict(config.parameters)
    known = {name: value for name, value in config.parameters.items() if name in _IMAGE}
    settings = asdict(ImageConfig.from_parameters(known))
    recipe = settings.pop("recipe")
    return settings | {f"recipe.{name}": value for name, value in recipe.items()}


def task_settings(config: TaskConfig) -> dict[str, Any]:
    """Return everything that a task configuration says, by name: its parameters, those that are no settings of a search
    (what a confirmation measures and varies), and primitives of one's own."""
    others = {name: value for name, value in config.parameters.items() if name not in _IMAGE}
    primitives = {"primitives": ",".join(config.primitives)} if config.primitives else {}
    return parameters(config) | others | primitives


def metric_facts(metric: Metric) -> dict[str, str]:
    """Return a metric as plain values."""
    return {"name": metric.name, "direction": str(metric.direction), "unit": metric.unit, "split": metric.split}


def task_words(config: TaskConfig) -> str:
    """Return a task configuration in a line: what is trained on what, and the parameters that are not usual ones."""
    settings = task_settings(config)
    if config.task != IMAGES:
        options = settings.get("options", {})
        said = ", ".join(f"{name}={value}" for name, value in options.items()) if isinstance(options, Mapping) else ""
        task = without_folders(config.task)
        return f"{task} ({said})" if said else task
    recipe = settings["recipe.name"]
    usual = asdict(ImageConfig()) | {f"recipe.{name}": value for name, value in asdict(_recipe(recipe)).items()}
    changed = [
        f"{name.removeprefix('recipe.')}={_plain(value)}"
        for name, value in settings.items()
        if name not in (*_NAMED, EVALUATION) and value != usual.get(name)
    ]
    evaluation = settings.get(EVALUATION) or {}
    changed += ["measured on the test part"] * bool(evaluation.get("test"))
    changed += ["a new split for each seed"] * bool(evaluation.get("vary_split"))
    return ", ".join([f"{settings['model']} on {settings['dataset']}", f"recipe {recipe}", *changed])


def _recipe(name: str) -> Recipe:
    from workers.tasks.images.recipes import RECIPES

    return RECIPES.get(name, Recipe())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_plain(one)}" for name, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def brief(text: str) -> str:
    """Return a text without its middle if it is long."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} … {text[-LONGEST // 4 :]}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 seed`, `2 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
