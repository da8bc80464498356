"""The settings of a search: defaults, a preset, an experiment file and flags, in that order, make one frozen `Config`.

Keys of the file are the names of the flags with underscores; `[recipe]` and `[sampler_kwargs]` are tables. See
docs/experiments.md.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from searcher import UsageError
from searcher.display import is_plain
from searcher.pruners import PRUNERS
from searcher.settings.textfile import LARGEST, MARK, check_depth, text_of
from workers.contract import Direction
from workers.tasks.base import IMAGES
from workers.tasks.images.config import DECLARATION, PRECISIONS, SCHEDULES, ImageConfig, Recipe
from workers.tasks.images.recipes import RECIPES
from workers.text import limited

T = TypeVar("T", "Config", Recipe)


NAME_LENGTH = 200  # of a study's name, most
LONGEST_SHOWN = 500  # characters of a value in a message
MOST_INTEGER = 2**63 - 1  # what databases hold


class ConfigError(UsageError):
    """A setting that is unknown or has a value that is not accepted."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that decides what a study finds, and how it is run. Stored with the study.

    Attributes:
        study_name: empty: the first free of `<data or task>-<sampler>-1`, `-2`, ...
        task: what judges a function: `images`, or `module:function` or `file.py:function` for a function of one's own.
            `task_kwargs` are its options.
        objective: the metric to rank by; empty: the task's own choice. `direction`: `minimize` or `maximize`, for a
            task that does not declare it.
        sampler: `random`, `rnn` or `optuna:NAME`; `sampler_kwargs` are its options.
        n_trials: the study's total, baselines included.
        timeout: seconds after which no new trial begins; 0 for no limit.
        seed: of the sampler's proposals; `training_seed`: of the weights and of the order of the data, the same as
            `seed` if it is None; `split_seed`: of what is held out.
        space, units: the named search space, and how many core units; `unary`, `binary`: which of its primitives to
            choose from, all if empty. `primitives`: modules that register more of them.
        preflight: candidates that cannot be trained through are refused untrained.
        skip_mirrors: candidates whose mirror -f(-x) is known to the study, or running, are left untrained.
        baselines: functions trained first, by name (`all`: those known) or written out; at most half of the total.
        width: of the network; 0: its own. `model_kwargs`: its other options.
        match: pattern of the dotted names of the activations to replace in a network of your own; empty: all.
        data_dir: the folder with the data set's files; empty: the usual places.
        limit_train, limit_val: use only this many training or validation images; 0: all.
        standardise: whether each channel is brought to mean 0 and variance 1. None: pictures are, other data are not.
        compile: activations go through torch.compile where that saves more time than it takes.
        pruner: which candidates are stopped early: `none`, `median` or `halving`.
        checkpoint_dir: where long trainings keep what they need to go on, at most every `checkpoint_seconds`; empty:
            below the cache's folder on each worker's machine.
        trial_timeout: seconds a child may take; 0 for no limit. `max_retries`: how often a trial is run again after its
            worker died or ran out of time.
        pool: `ray`, or `inline` (one child at a time in this process). `workers` 0: as many as there are CPUs.
        address: a running Ray cluster; `local` starts Ray here. `threads` a worker; 0 shares the cores out.
    """

    study_name: str = ""
    task: str = "images"
    task_kwargs: dict[str, Any] = field(default_factory=dict)
    objective: str = ""
    direction: str = ""
    sampler: str = "rnn"
    sampler_kwargs: dict[str, Any] = field(default_factory=dict)
    n_trials: int = 100
    timeout: float = 0.0
    seed: int = 0
    training_seed: int | None = None
    split_seed: int = 0
    space: str = "swish2017"
    units: int = 1
    unary: tuple[str, ...] = ()
    binary: tuple[str, ...] = ()
    primitives: tuple[str, ...] = ()
    preflight: bool = True
    skip_mirrors: bool = False
    baselines: tuple[str, ...] = ("all",)
    dataset: str = "digits"
    data_dir: str = ""
    limit_train: int = 0
    limit_val: int = 0
    standardise: bool | None = None
    model: str = "resnet8"
    width: int = 0
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    match: str = ""
    recipe: Recipe = Recipe()
    compile: bool = False
    pruner: str = "none"
    checkpoint_dir: str = ""
    checkpoint_seconds: float = 60.0
    trial_timeout: float = 0.0
    max_retries: int = 2
    pool: str = "ray"
    workers: int = 0
    gpus_per_worker: float = 0.0
    address: str = "local"
    threads: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


# What a Python program can name: the settings, the fields of the recipe, and a table of the latter.
KEYWORDS = tuple(
    dict.fromkeys([f.name for f in fields(Config)] + [f.name for f in fields(Recipe)][1:] + ["recipe_kwargs"])
)
# What may change when a study goes on: how it is run, never what is measured.
RUNTIME = (
    "n_trials",
    "timeout",
    "data_dir",
    "pool",
    "workers",
    "gpus_per_worker",
    "address",
    "threads",
    "pruner",
    "checkpoint_dir",
    "checkpoint_seconds",
    "trial_timeout",
    "max_retries",
)

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
    """The default settings, or those of `before`, then a preset's, the file's, the flags that were given (not None).

    Args:
        before: settings that a study has. A value among them may lie beyond what a new study may have: an older version
            has accepted it, and the study must be able to go on.

    Raises:
        ConfigError: an unreadable file, an unknown key or preset, a value of the wrong kind or out of range.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; {_nearest(preset, PRESETS)}")
    stored = None if before is None else _merge(Config(), before, "")
    config = _merge(stored or Config(), PRESETS[preset], "preset")
    if path is not None:
        config = _merge(config, _read(path), str(path))
    config = _merge(config, {name: value for name, value in flags.items() if value is not None}, "")
    _check_ranges(config, stored)
    return _located(config)


def check_runtime(config: Config) -> None:
    """Check the settings that may change when a study goes on, also where they are the study's own.

    Raises:
        ConfigError: a value beyond what this version accepts.
    """
    for name in filter(_SENSIBLE.__contains__, RUNTIME):
        if (value := getattr(config, name)) > _SENSIBLE[name]:
            raise ConfigError(f"{_flag(name)} must be at most {_SENSIBLE[name]:.10g}, not {value!r}; give another")


def differences(one: Config, other: Config) -> list[tuple[str, Any, Any]]:
    """What two settings measure differently: names, as in `recipe.epochs`, and both values."""
    ours, theirs = one.to_dict(), other.to_dict()
    free = (*RUNTIME, "study_name", "recipe")
    found = [(name, ours[name], theirs[name]) for name in ours if name not in free and ours[name] != theirs[name]]
    recipes = ours["recipe"], theirs["recipe"]
    found += [(f"recipe.{name}", recipes[0][name], new) for name, new in recipes[1].items() if recipes[0][name] != new]
    return found


def _located(config: Config) -> Config:
    """With whole paths: a worker, or the next session, may run in another directory."""
    npz, _, file = config.dataset.partition("npz:")
    dataset = f"npz:{_absolute(file)}" if not npz and file else config.dataset
    script, colon, function = config.task.rpartition(":")
    task = f"{_absolute(script)}:{function}" if colon and script.endswith(".py") else config.task
    data_dir, checkpoint_dir = _absolute(config.data_dir), _absolute(config.checkpoint_dir)
    return replace(config, task=task, dataset=dataset, data_dir=data_dir, checkpoint_dir=checkpoint_dir)


def _absolute(path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute()) if path else ""
    except RuntimeError as error:  # `~name` of a user whom this machine does not know
        raise ConfigError(f"the home directory in {path!r} is not known; write the whole path") from error


def from_flags(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among a command's options: those of `Config` by name, those of the recipe in a table of their own.

    Raises:
        ConfigError: a `..._kwargs` that is no JSON object.
    """
    tables = {f"{what}_kwargs": parse_kwargs(what, values.get(f"{what}_kwargs")) for what in _EXAMPLES}
    return _nested({name: values.get(name) for name in KEYWORDS} | tables)


def from_keywords(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that a Python program gives by the names of the flags: those of the recipe in a table of their
    own, paths as texts.

    Raises:
        ConfigError: A name is unknown.
    """
    for name in values:
        if name not in KEYWORDS:
            raise ConfigError(f"unknown setting {name!r}; {_nearest(name, KEYWORDS)}")
    recipe, kwargs = values.get("recipe"), values.get("recipe_kwargs")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ConfigError(f"recipe_kwargs must be a table, not {_said(kwargs)}")
    table = recipe if isinstance(recipe, Mapping) else {"name": recipe}
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values.items()}
    return _nested(plain | {"recipe": table.get("name"), "recipe_kwargs": {**table, **(kwargs or {})}})


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a file has them: the recipe in a table. `recipe_kwargs` override single fields."""
    recipe = {f.name: values.get(f.name) for f in fields(Recipe)} | {"name": values.get("recipe")}
    recipe |= values.get("recipe_kwargs") or {}
    given = {name: value for name, value in recipe.items() if value is not None}
    return {f.name: values.get(f.name) for f in fields(Config)} | {"recipe": given or None}


def parse_kwargs(what: str, text: str | None) -> dict[str, Any] | None:
    """The value of `--sampler-kwargs` and its like.

    Raises:
        ConfigError: not a JSON object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text.removeprefix(MARK), parse_constant=_no_number)
        check_depth(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--{what}-kwargs is not JSON ({error}); write it as {_EXAMPLES[what]}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--{what}-kwargs must be a JSON object, not {_said(text)}; write it as {_EXAMPLES[what]}")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


_EXAMPLES = {
    "task": "'{\"width\": 32}'",
    "model": "'{\"stem_stride\": 2}'",
    "sampler": "'{\"batch\": 20}'",
    "recipe": "'{\"crop\": 4}'",
}


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


def _merge(base: T, values: Mapping[str, Any], source: str) -> T:
    """`base` with the given fields replaced, each checked against its type."""
    hints = get_type_hints(type(base))
    changes: dict[str, Any] = {}
    where = f" in {source}" if source else ""
    for name, value in values.items():
        if name not in hints:
            raise ConfigError(f"unknown setting {name!r}{where}; {_nearest(name, hints)}")
        try:
            check_depth(value)
        except ValueError as error:
            raise ConfigError(f"{name}{where}: {error}") from error
        if hints[name] is Recipe:
            changes[name] = _recipe(getattr(base, name), value, where)
        else:
            changes[name] = _typed(name, value, hints[name], where)
    return replace(base, **changes)


def _recipe(base: Recipe, value: Any, where: str) -> Recipe:
    """A recipe by its name, or the one so far (or the one a table names) with the table's fields replaced."""
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, Mapping):
        raise ConfigError(f"recipe{where} must be a name or a table, as in: [recipe] epochs = 8; not {_said(value)}")
    name = table.get("name", base.name)
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(f"unknown recipe {_said(name)}{where}; {_nearest(_said(name), RECIPES)}")
    if "epochs" in table:
        table = {"steps": 0, **table}  # else the steps of a named recipe would outvote the epochs that were asked for
    return _merge(RECIPES[name] if "name" in table else base, table, f"recipe{where}")


def _typed(name: str, value: Any, hint: Any, where: str) -> Any:
    if value is None and type(None) in get_args(hint):
        return None
    if hint in (int, float) and isinstance(value, int) and abs(value) > MOST_INTEGER:
        low, high = _AT_LEAST.get(name, -MOST_INTEGER), _AT_MOST.get(name) or _SENSIBLE.get(name, MOST_INTEGER)
        raise ConfigError(f"{name}{where} must be from {low:.10g} to {high:.10g}, not {_said(value)}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_args(hint) == (float, ...):
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if not _storable(numbers):
            raise ConfigError(f"{name}{where} must hold finite numbers, not {_said(value)}")
        return tuple(_typed(name, number, float, where) for number in numbers)
    if get_args(hint) == (str, ...):
        names = _split(value.removeprefix(MARK)) if isinstance(value, str) else value
        if isinstance(names, (list, tuple)) and all(isinstance(item, str) for item in names):
            return tuple(item.strip() for item in names if item.strip())
        raise ConfigError(f"{name}{where} must be a list of names, not {_said(value)}")
    optional = [kind for kind in get_args(hint) if kind in (bool, int)]
    kind = optional[0] if optional else dict if get_args(hint) else hint
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        expected = {int: "a whole number", float: "a number", str: "text", dict: "a table", bool: "true or false"}.get(
            kind, kind.__name__
        )
        raise ConfigError(f"{name}{where} must be {expected}, not {_said(value)}")
    if kind is dict and not _storable(value):
        raise ConfigError(f"{name}{where} must hold finite numbers, texts, true and false, not {_said(value)}")
    return value


def _said(value: Any) -> str:
    """Return a value as it is shown in a message, of limited length."""
    try:
        return limited(repr(value), LONGEST_SHOWN)
    except ValueError:  # Python does not write numbers of thousands of digits; a file may have them as hexadecimal
        return "numbers of thousands of digits"


def _storable(value: Any) -> bool:
    """Return True if `value` (nested tables, lists, plain values) can be stored as JSON: no NaN, infinity or date."""
    if isinstance(value, Mapping):
        return all(map(_storable, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_storable, value))
    if isinstance(value, (int, float)):
        return abs(value) <= MOST_INTEGER if isinstance(value, int) else math.isfinite(value)
    return value is None or isinstance(value, str)


def _split(text: str) -> list[str]:
    """The parts between commas, except those in parentheses: `relu,max(x, sin(x))` has two."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


_AT_LEAST: Mapping[str, float] = {
    "n_trials": 1,
    "timeout": 0,
    "seed": 0,
    "training_seed": 0,
    "split_seed": 0,
    "units": 1,
    "limit_train": 0,
    "limit_val": 0,
    "width": 0,
    "checkpoint_seconds": 0,
    "trial_timeout": 0,
    "max_retries": 0,
    "workers": 0,
    "gpus_per_worker": 0,
    "threads": 0,
    "epochs": 1,
    "steps": 0,
    "batch_size": 2,  # batch normalisation cannot train on one image
    "learning_rate": 1e-12,
    "momentum": 0,
    "weight_decay": 0,
    "warmup": 0,
    "clip_norm": 0,
    "drop_factor": 0,
    "label_smoothing": 0,
    "crop": 0,
    "cutout": 0,
}
_AT_MOST: Mapping[str, float] = {
    "n_trials": 2**31 - 1,  # as much as an integer of SQL holds
    "momentum": 0.999999,
    "warmup": 1,
    "drop_factor": 1,
    "label_smoothing": 0.999999,
    "seed": 2**31 - 1,
    "training_seed": 2**31 - 1,
    "split_seed": 2**31 - 1,
}
# Nothing useful lies beyond these. Some of what does ends the process (a million threads) or takes all memory.
_SENSIBLE: Mapping[str, float] = {
    "timeout": 10**9,
    "units": 100,  # `space` knows better
    "limit_train": 2**31 - 1,
    "limit_val": 2**31 - 1,
    "width": 2**14,
    "checkpoint_seconds": 10**9,
    "trial_timeout": 10**9,
    "max_retries": 10**6,
    "workers": 10_000,
    "gpus_per_worker": 1024,
    "threads": 1024,
    "epochs": 10**6,
    "steps": 10**9,
    "batch_size": 2**20,
    "learning_rate": 10**6,
    "weight_decay": 10**6,
    "clip_norm": 10**9,
    "crop": 256,
    "cutout": 4096,
}
_ONE_OF: Mapping[str, Iterable[str]] = {
    "direction": ("", *Direction),
    "pool": ("ray", "inline"),
    "pruner": tuple(PRUNERS),
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
}


def _check_ranges(config: Config, stored: Config | None = None) -> None:
    values, kept = _numbers(config), _numbers(stored) if stored else {}
    for name, low in _AT_LEAST.items():
        if values[name] is not None:
            _check_number(name, values[name], low, new=values[name] != kept.get(name))
    for name, accepted in _ONE_OF.items():
        if values[name] not in accepted:
            raise ConfigError(f"unknown {name} {values[name]!r}; {_nearest(values[name], accepted)}")
    _check_task(config)
    if not config.baselines:
        raise ConfigError("--baselines must name functions, or be all or none")
    if config.gpus_per_worker > 1 and config.gpus_per_worker % 1:
        raise ConfigError(f"--gpus-per-worker must be a part of one GPU, or whole GPUs, not {config.gpus_per_worker!r}")
    if not stored or config.study_name != stored.study_name:
        _check_name(config.study_name)


def _check_task(config: Config) -> None:
    """Check that there is no setting of another task than the one that is named: it would have no effect."""
    if config.task == IMAGES:
        objectives = [metric.name for metric in DECLARATION.metrics if metric.split == "val"]
        if config.objective not in ("", *objectives):
            raise ConfigError(f"unknown objective {config.objective!r}; {_nearest(config.objective, objectives)}")
        if config.task_kwargs:
            raise ConfigError("--task-kwargs are options of a task of your own; name it with --task, or leave them out")
        return
    default = Config()
    images = [
        field.name for field in fields(ImageConfig) if getattr(config, field.name) != getattr(default, field.name)
    ]
    if images:
        raise ConfigError(
            f"--{images[0].replace('_', '-')} is a setting of image trainings and has no effect on the task "
            f"{config.task}; leave it out, or make it an option of your function: --task-kwargs"
        )


def _numbers(config: Config) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in fields(config)} | asdict(config.recipe)


def _check_number(name: str, value: float, low: float, new: bool) -> None:
    high = _AT_MOST.get(name, math.inf)
    if new:
        high = min(high, _SENSIBLE.get(name, math.inf))
    if low <= value <= high and value < math.inf:  # a NaN is neither
        return
    limit = f"at least {low:g}" if value < low else f"at most {high:.10g}"
    if name in _AT_MOST:
        limit = f"from {low:g} to {high:.10g}"
    if not math.isfinite(value):
        limit = "a finite number"
    raise ConfigError(f"{_flag(name)} must be {limit}, not {value!r}")


def _check_name(name: str) -> None:
    if name.strip() != name or len(name) > NAME_LENGTH or name.startswith("-") or not is_plain(name):
        raise ConfigError(
            f"--study-name must be at most {NAME_LENGTH} characters of UTF-8, all visible (no control characters), "
            f"without blanks around them or a - before them, not {limited(repr(name), LONGEST_SHOWN)}"
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _nearest(word: str, known: Iterable[str]) -> str:
    # As search_space.nearest, which cannot be had without importing torch.
    names = [str(name) for name in known if name != ""]
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    return (f"did you mean {close[0]!r}? " if close else "") + f"accepted: {', '.join(names)}"
