"""Complete words for the shell: names of studies, and the names that options take.

A completion must be fast and must not fail. So the tables of networks and data sets are not read, because importing
them takes seconds: their names are repeated here, and a test compares them. The names of studies are read without
SQLAlchemy, for the same reason. A SQLite file is opened to be read only, so that none is created.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from typing import Any

from typer import Context

from searcher import DEFAULT_STORAGE
from searcher.pruners import PRUNERS
from searcher.settings.declared import Declared

Completer = Callable[[Context, list[str], str], list[str]]

MODELS = (
    *("resnet8", "resnet20", "resnet32", "resnet56", "resnet110", "preresnet164", "wrn-28-10", "densenet-100-12"),
    *("all-cnn", "inception", "lecture", "vit-4-64"),
)
DATASETS = ("digits", "fashion-mnist", "cifar10", "cifar100")
TARGETS = ("torch", "jax", "sympy", "latex", "markdown", "onnx")
SPACES = ("swish2017", "small1", "large1")
SAMPLERS = ("random", "rnn", "optuna:tpe", "optuna:gp", "optuna:nsgaii", "optuna:random", "optuna:bruteforce")
REPRODUCTIONS = ("lecture", "swish2017")
SCALES = ("smoke", "cpu", "full")
PRESETS = ("quick", "paper")

_MOST = 200  # names of studies


def recipes() -> Sequence[str]:
    from workers.tasks.images.recipes import RECIPES

    return tuple(RECIPES)


# By the name of the setting, what its flag offers.
_OF_SETTINGS: dict[str, Callable[[], Iterable[str]]] = {
    "model": lambda: MODELS,
    "models": lambda: MODELS,
    "dataset": lambda: DATASETS,
    "datasets": lambda: DATASETS,
    "sampler": lambda: SAMPLERS,
    "space": lambda: SPACES,
    "recipe": recipes,
    "pruner": lambda: PRUNERS,
    "task": lambda: ("images",),
    "objective": lambda: ("val_loss", "val_acc"),
}


def among(names: Iterable[str]) -> Completer:
    """Return a completer that offers these names."""
    return _completer(lambda _: names)


def of_setting(setting: Declared) -> Completer | None:
    """Return the completer of a setting's flag; None if any text may stand there."""
    if setting.facts.one_of:
        return among(setting.facts.one_of)
    names = _OF_SETTINGS.get(setting.name)
    return _completer(lambda _: names()) if names else None


def _completer(names: Callable[[Context], Iterable[str]]) -> Completer:
    def complete(ctx: Context, args: list[str], incomplete: str) -> list[str]:
        del args
        with suppress(Exception):  # a shell shows the traceback in the middle of what is typed
            return [name for name in names(ctx) if name and name.startswith(incomplete)]
        return []

    return complete


def _names_of_studies(ctx: Context) -> Iterable[str]:
    """Return the names of the latest studies that need no quotes in a shell."""
    url = str(ctx.params.get("storage") or DEFAULT_STORAGE)
    read = _of_sqlite if url.startswith("sqlite") else _of_postgresql
    names = read(url, f"SELECT name FROM searcher_study ORDER BY id DESC LIMIT {_MOST}")
    return [name for (name,) in names if shlex.quote(name) == name]


studies = _completer(_names_of_studies)


def _of_sqlite(url: str, statement: str) -> list[Any]:
    import sqlite3
    from pathlib import Path

    path = Path(url.partition(":///")[2].partition("?")[0]).absolute()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=0.5)) as connection:
        return connection.execute(statement).fetchall()


def _of_postgresql(url: str, statement: str) -> list[Any]:
    import psycopg

    with psycopg.connect(url.replace("+psycopg://", "://", 1), connect_timeout=2) as connection:
        return connection.execute(statement).fetchall()
