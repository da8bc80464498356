"""Defaults, a preset, an experiment file and flags, in that order, make one checked `Config`.

Keys of the file are the names of the flags with underscores; `[recipe]` and `[sampler_kwargs]` are tables. See
docs/experiments.md.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from searcher.settings.checking import check, known, nearest, said, typed
from searcher.settings.config import Config, ConfigError
from searcher.settings.declared import Declared, declared, keywords
from searcher.settings.textfile import LARGEST, MARK, check_depth, text_of
from workers.tasks.images.config import OPTIMIZERS, Recipe
from workers.tasks.images.recipes import RECIPES

C = TypeVar("C", bound=Config)

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {},
    # Ramachandran et al. 2017 as far as it says; the controller's constants are NASNet's (Zoph et al. 2018), the
    # child's those of He et al. 2015. Both are for thousands of trials.
    "paper": {
        "objective": "val_acc",
        "units": 2,
        "n_trials": 20_000,
        "dataset": "cifar10",
        "model": "resnet20",
        "width": 16,
        "recipe": "he2016",
        "sampler_kwargs": {"batch": 20, "learning_rate": 0.00035, "entropy_weight": 0.00001},
    },
}


def load(
    path: Path | None, flags: Mapping[str, Any], preset: str = "quick", before: Mapping[str, Any] | None = None
) -> Config:
    """Return the default settings, changed by a preset, then by a file, then by flags.

    Args:
        path: the experiment file; None: there is none.
        flags: settings as `from_flags` and `from_keywords` return them. None: not given.
        preset: the name of the preset.
        before: the stored settings of a study, in place of the defaults. A value among them may lie beyond what a new
            study may have: an older version has accepted it, and the study must be able to go on.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or has a value that is not accepted.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; {nearest(preset, PRESETS)}")
    stored = None if before is None else merged(Config(), before)
    config = merged(stored or Config(), PRESETS[preset], "preset")
    if path is not None:
        config = merged(config, _read(path), str(path))
    config = merged(config, {name: value for name, value in flags.items() if value is not None})
    check(config, stored)
    return _located(config)


def merged(config: C, given: Mapping[str, Any], source: str = "") -> C:
    """Return settings with the given values in place of theirs, each checked against its type.

    Args:
        config: the settings.
        given: values by the keys of a file.
        source: where these come from, for messages; empty: from a command, a program or a database.

    Raises:
        ConfigError: A key is unknown, or a value is of another type.
    """
    where = f" in {source}" if source else ""
    changes = {
        setting.name: _recipe(setting, config.training.images.recipe, value, where)
        if setting.fields
        else typed(setting, value, where)
        for setting, value in known(declared(type(config)), given, where)
    }
    return config.replace(**changes)


def _recipe(setting: Declared, base: Recipe, value: Any, where: str) -> Recipe:
    """Return the recipe of a name, or the one so far (or the one that a table names) with the table's fields."""
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        raise ConfigError(f"recipe{where} must be a name or a table, as in: [recipe] epochs = 8; not {said(value)}")
    name = table.get("name", base.name)
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(f"unknown recipe {said(name)}{where}; {nearest(said(name), RECIPES)}")
    if "epochs" in table:
        table = {"steps": 0, **table}  # else the steps of a named recipe would outvote the epochs that were asked for
    given = known(setting.fields, table, f" in recipe{where}")
    fields = {field.name: typed(field, value, where) for field, value in given}
    whole = RECIPES[name] if "name" in table else base
    optimizer = fields.get("optimizer", whole.optimizer)
    if optimizer != whole.optimizer and optimizer in OPTIMIZERS:  # the options and the rate of another one do not fit
        fields = {"learning_rate": OPTIMIZERS[optimizer].learning_rate, "optimizer_kwargs": {}, **fields}
    return replace(whole, **fields)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the experiment file {path}: {error.strerror}") from error
    try:
        table = tomllib.loads(text_of(content))
        check_depth(table)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, tables in tables without end
        raise ConfigError(f"the experiment file {path} is not TOML: {error}") from error
    return table


def _located(config: Config) -> Config:
    """Return the settings with whole paths: a worker, or the next session, may run in another directory."""
    training, run = config.training, config.run
    npz, _, file = training.images.dataset.partition("npz:")
    script, colon, function = training.task.rpartition(":")
    return config.replace(
        task=f"{_absolute(script)}:{function}" if colon and script.endswith(".py") else training.task,
        dataset=f"npz:{_absolute(file)}" if not npz and file else training.images.dataset,
        data_dir=_absolute(run.data_dir),
        checkpoint_dir=_absolute(run.checkpoint_dir),
    )


def _absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute()) if path else ""
    except RuntimeError as error:  # `~name` of a user whom this machine does not know
        raise ConfigError(f"the home directory in {path!r} is not known; write the whole path") from error


def from_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings among a command's options by the keys of a file: the recipe's fields are in a table.

    Raises:
        ConfigError: A `..._kwargs` is no JSON object.
    """
    tables = [setting.name for setting in keywords(Config) if setting.kind is dict]
    return _nested({**values, **{name: parse_kwargs(name, values.get(name)) for name in tables}})


def from_keywords(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a Python program by the keys of a file: the recipe's fields are in a table, paths are
    texts.

    Args:
        values: settings by the names of the flags. None: not given.

    Raises:
        ConfigError: A name is unknown.
    """
    names = [setting.name for setting in keywords(Config)]
    for name in values:
        if name not in names:
            raise ConfigError(f"unknown setting {name!r}; {nearest(name, names)}")
    recipe, kwargs = values.get("recipe"), values.get("recipe_kwargs")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ConfigError(f"recipe_kwargs must be a table, not {said(kwargs)}")
    table = recipe if isinstance(recipe, Mapping) else {"name": recipe}
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values.items()}
    return _nested(plain | {"recipe": table.get("name"), "recipe_kwargs": {**table, **(kwargs or {})}})


def from_environment() -> dict[str, str]:
    """Return the settings that environment variables give, as the command line takes them."""
    variables = {setting.name: setting.facts.variable for setting in declared(Config) if setting.facts.variable}
    return {name: value for name, variable in variables.items() if (value := os.environ.get(variable))}


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a file has them: the recipe in a table. `recipe_kwargs` override single fields."""
    given = {setting.name: values.get(setting.name) for setting in declared(Config)}
    recipe = {field.name: values.get(field.name) for field in declared(Recipe)} | {"name": values.get("recipe")}
    recipe |= values.get("recipe_kwargs") or {}
    return given | {"recipe": {name: value for name, value in recipe.items() if value is not None} or None}


def parse_kwargs(name: str, text: str | None) -> dict[str, Any] | None:
    """Return the table that a flag such as `--sampler-kwargs` gives as JSON.

    Args:
        name: the name of the setting.
        text: the JSON; None: not given.

    Raises:
        ConfigError: It is no JSON object.
    """
    if text is None:
        return None
    (setting,) = [setting for setting in keywords(Config) if setting.name == name]
    as_in = f"write it as '{setting.facts.example}'"
    try:
        value = json.loads(text.removeprefix(MARK), parse_constant=_no_number)
        check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{setting.flag} is not JSON ({error}); {as_in}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{setting.flag} must be a JSON object, not {said(text)}; {as_in}")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")
