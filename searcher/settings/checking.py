"""Check the names, types, ranges and choices of settings, and that each setting has an effect."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, get_args

from searcher.display import is_plain
from searcher.settings.config import Config, ConfigError
from searcher.settings.declared import Declared, declared, values
from searcher.settings.textfile import MARK, check_depth
from workers.tasks.base import IMAGES
from workers.tasks.images.config import DECLARATION, OPTIMIZERS, ImageConfig, Recipe
from workers.text import limited

NAME_LENGTH = 200  # of a study's name, most
LONGEST_SHOWN = 500  # characters of a value in a message
MOST_INTEGER = 2**63 - 1  # what databases hold
EXPECTED = {int: "a whole number", float: "a number", str: "text", dict: "a table", bool: "true or false"}


def known(settings: Iterable[Declared], given: Mapping[str, Any], where: str) -> Iterator[tuple[Declared, Any]]:
    """Yield what is given, each value with its setting.

    Args:
        settings: those that there are.
        given: values by name.
        where: the file that they come from, as in ` in e.toml`; may be empty.

    Raises:
        ConfigError: a name is unknown, or a value is nested too deep.
    """
    by_name = {setting.name: setting for setting in settings}
    for name, value in given.items():
        if name not in by_name:
            raise ConfigError(f"unknown setting {name!r}{where}; {nearest(name, by_name)}")
        try:
            check_depth(value)
        except ValueError as error:
            raise ConfigError(f"{by_name[name].key}{where}: {error}") from error
        yield by_name[name], value


def typed(setting: Declared, value: Any, where: str) -> Any:
    """Return a value of the type of a setting: a whole number where a real one is asked for becomes one, a list or a
    text with commas becomes a tuple.

    Raises:
        ConfigError: it is of another type, or cannot be stored.
    """
    named, kind = f"{setting.key}{where}", setting.kind
    if value is None and setting.optional:
        return None
    if kind is tuple:
        return _numbers(named, value) if float in get_args(setting.hint) else _names(named, value)
    if isinstance(value, bool) is not (kind is bool):
        raise ConfigError(f"{named} must be {EXPECTED[kind]}, not {said(value)}")
    if kind in (int, float) and isinstance(value, int) and abs(value) > MOST_INTEGER:
        low, high = _limits(setting, new=True)
        raise ConfigError(f"{named} must be from {low:.10g} to {high:.10g}, not {said(value)}")
    if kind is float and isinstance(value, int):
        return float(value)
    if not isinstance(value, kind):
        raise ConfigError(f"{named} must be {EXPECTED[kind]}, not {said(value)}")
    if kind is dict and not _storable(value):
        raise ConfigError(f"{named} must hold finite numbers, texts, true and false, not {said(value)}")
    return value


def _numbers(named: str, value: Any) -> tuple[float, ...]:
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if not _storable(numbers):
        raise ConfigError(f"{named} must hold finite numbers, not {said(value)}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise ConfigError(f"{named} must be a number, not {said(number)}")
    return tuple(map(float, numbers))


def _names(named: str, value: Any) -> tuple[str, ...]:
    names = _split(value.removeprefix(MARK)) if isinstance(value, str) else value
    if isinstance(names, (list, tuple)) and all(isinstance(item, str) for item in names):
        return tuple(item.strip() for item in names if item.strip())
    raise ConfigError(f"{named} must be a list of names, not {said(value)}")


def _split(text: str) -> list[str]:
    """Return the parts between commas, except those in parentheses: `relu,max(x, sin(x))` has two."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _storable(value: Any) -> bool:
    """Return True if `value` (nested tables, lists, plain values) can be stored as JSON: no NaN, infinity or date."""
    if isinstance(value, Mapping):
        return all(map(_storable, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_storable, value))
    if isinstance(value, (int, float)):
        return abs(value) <= MOST_INTEGER if isinstance(value, int) else math.isfinite(value)
    return value is None or isinstance(value, str)


def check(config: Config, stored: Config | None = None) -> None:
    """Check the ranges and choices of settings, and that each of them has an effect.

    Args:
        stored: the settings that a study has. What is the same there may lie beyond what a new study may have.

    Raises:
        ConfigError: a value is not accepted.
    """
    check_values(config, stored)
    _check_task(config)
    _check_search(config)
    if config.study_name and not (stored and config.study_name == stored.study_name):  # empty: one is made up
        check_study_name(config.study_name)


def check_values(record: Any, stored: Any = None) -> None:
    """Check the range or the choices of each setting of a record; `stored` as in `check`."""
    kept = {setting.key: value for setting, value in values(stored)} if stored else {}
    for setting, value in values(record):
        new = setting.key not in kept or value != kept[setting.key]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            _check_number(setting, value, new)
        if setting.facts.one_of and value not in setting.facts.one_of:
            raise ConfigError(f"unknown {setting.key} {value!r}; {nearest(value, setting.facts.one_of)}")


def check_on_resume(config: Config) -> None:
    """Check the settings that may change when a study goes on, also where they are the study's own.

    Raises:
        ConfigError: a value is beyond what this version accepts.
    """
    for setting, value in values(config):
        most = setting.facts.sensible_at_most
        if setting.facts.on_resume and most is not None and value > most:
            raise ConfigError(f"{setting.label} must be at most {most:.10g}, not {value!r}; give another")


def _check_number(setting: Declared, value: float, new: bool) -> None:
    low, high = _limits(setting, new)
    if low <= value <= high and value < math.inf:  # a NaN is neither
        return
    limit = f"at least {low:g}" if value < low else f"at most {high:.10g}"
    if setting.facts.at_most is not None:
        limit = f"from {low:g} to {high:.10g}"
    if not math.isfinite(value):
        limit = "a finite number"
    raise ConfigError(f"{setting.label} must be {limit}, not {value!r}")


def _limits(setting: Declared, new: bool) -> tuple[float, float]:
    """Return the least and the largest number that is accepted; `new`: for a setting that no study has yet."""
    facts = setting.facts
    sensible = facts.sensible_at_most if new else None
    highest = [limit for limit in (facts.at_most, sensible) if limit is not None]
    return -MOST_INTEGER if facts.at_least is None else facts.at_least, min(highest, default=MOST_INTEGER)


def _check_task(config: Config) -> None:
    """Check that there is no setting of another task than the one that is named: it would have no effect."""
    training, objective = config.training, config.search.objective
    if training.task == IMAGES:
        objectives = [metric.name for metric in DECLARATION.metrics if metric.split == "val"]
        if objective not in ("", *objectives):
            raise ConfigError(f"unknown objective {objective!r}; {nearest(objective, objectives)}")
        _check_optimizer(training.images.recipe)
        if training.task_kwargs:
            raise ConfigError("--task-kwargs are options of a task of your own; name it with --task, or leave them out")
        return
    default = ImageConfig()
    changed = [f.name for f in fields(default) if getattr(training.images, f.name) != getattr(default, f.name)]
    if changed:
        (setting,) = [setting for setting in declared(ImageConfig) if setting.name == changed[0]]
        raise ConfigError(
            f"{setting.label} is a setting of image trainings and has no effect on the task {training.task}; leave it "
            "out, or make it an option of your function: --task-kwargs"
        )


def _check_optimizer(recipe: Recipe) -> None:
    options = OPTIMIZERS[recipe.optimizer].options
    for name in recipe.optimizer_kwargs:
        if name not in options:
            hint = "; momentum of sgd is a field of the recipe itself" if name in ("momentum", "nesterov") else ""
            raise ConfigError(
                f"recipe.optimizer_kwargs: {recipe.optimizer} has no option {name!r}; {nearest(name, options)}{hint}"
            )


def _check_search(config: Config) -> None:
    if not config.search.baselines:
        raise ConfigError("--baselines must name functions, or be all or none")
    if (gpus := config.run.gpus_per_worker) > 1 and gpus % 1:
        raise ConfigError(f"--gpus-per-worker must be a part of one GPU, or whole GPUs, not {gpus!r}")


def check_study_name(name: str) -> None:
    """Raise ConfigError if no study can have this name."""
    if not name or name.strip() != name or len(name) > NAME_LENGTH or name.startswith("-") or not is_plain(name):
        raise ConfigError(
            f"--study-name must be at most {NAME_LENGTH} characters of UTF-8, all visible (no control characters), "
            f"without blanks around them or a - before them, not {limited(repr(name), LONGEST_SHOWN)}"
        )


def said(value: Any) -> str:
    """Return a value as it is shown in a message, of limited length."""
    try:
        return limited(repr(value), LONGEST_SHOWN)
    except ValueError:  # Python does not write numbers of thousands of digits; a file may have them as hexadecimal
        return "numbers of thousands of digits"


def nearest(word: str, names: Iterable[str]) -> str:
    """Return what a message says about an unknown word: the name most like it, and all names."""
    # As search_space.nearest, which cannot be had without importing torch.
    accepted = [str(name) for name in names if name != ""]
    close = get_close_matches(word, accepted, n=1, cutoff=0.6)
    return (f"did you mean {close[0]!r}? " if close else "") + f"accepted: {', '.join(accepted)}"
