"""This module defines the settings of a search. Each setting is declared once, here or, for image trainings, in
workers/tasks/images/config.py; docs/experiments.md explains them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from searcher import UsageError
from searcher.pruners import PRUNERS
from searcher.settings.declared import flat, replaced, values
from workers.contract import Direction
from workers.settings import setting
from workers.tasks.images.config import ImageConfig, Recipe

LOCAL = "local"  # the only address that reaches no other machine and no other user's Ray
LARGEST_SEED = 2**31 - 1
LONGEST_SECONDS = 10**9


class ConfigError(UsageError):
    """A setting that is unknown or has a value that is not accepted."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """These settings decide what one training means. They become the task configuration of the study.

    Attributes:
        images: the settings of the image task, which no other task has.
    """

    task: str = setting(
        "images", help="What judges a function: images, package.module:function or path/to/file.py:function."
    )
    task_kwargs: dict[str, Any] = setting({}, help="Options of your own task", example='{"width": 32}')
    images: ImageConfig = field(default_factory=ImageConfig)
    primitives: tuple[str, ...] = setting((), help="Modules that register primitives of your own: package.module,...")


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """These settings decide what a search proposes, how it ranks functions, and how long it is."""

    objective: str = setting("", help="The metric to rank by: val_loss, val_acc, or one of your own task.")
    direction: str = setting(
        "",
        help="minimize or maximize the objective of a task that declares no metrics.",
        one_of=("", *Direction),
    )
    sampler: str = setting("rnn", help="random, rnn, optuna:tpe and others of Optuna, or package.module:Class.")
    sampler_kwargs: dict[str, Any] = setting({}, help="The sampler's options", example='{"batch": 20}')
    n_trials: int = setting(
        100,
        help="The study's total of trials, baselines included.",
        at_least=1,
        at_most=2**31 - 1,  # as much as an integer of SQL holds
        on_resume=True,
    )
    seed: int = setting(0, help="Seed of the proposals, and of the trainings.", at_least=0, at_most=LARGEST_SEED)
    training_seed: int | None = setting(
        None,
        help="Seed of the weights and the order of the data; the same as --seed if not given.",
        at_least=0,
        at_most=LARGEST_SEED,
    )
    space: str = setting("swish2017", help="Search space: swish2017, small1 or large1.")
    units: int = setting(1, help="Core units, 1 to 3.", at_least=1, sensible_at_most=100)  # the space knows better
    unary: tuple[str, ...] = setting((), help="Unary primitives to choose from: x,neg,sin,...")
    binary: tuple[str, ...] = setting((), help="Binary primitives to choose from: add,mul,max,...")
    preflight: bool = setting(True, help="Refuse candidates that cannot be trained through, untrained.")
    skip_mirrors: bool = setting(False, help="Leave -f(-x) untrained where f is known to the study.")
    baselines: tuple[str, ...] = setting(
        ("all",),
        help="Functions trained first, in at most half of the trials: relu,swish,..., x*tanh(x), all, modern, none.",
    )
    replicates: float = setting(
        0.0,
        help="Share of the trials that train the leaders again, with other seeds; 0: none.",
        at_least=0,
        at_most=0.9,
    )
    pruner: str = setting(
        "none", help="Stop bad candidates early: none, median or halving.", one_of=PRUNERS, on_resume=True
    )


@dataclass(frozen=True, slots=True)
class RunSettings:
    """These settings decide how a search is run. All of them may change when the study is resumed."""

    timeout: float = setting(
        0.0,
        help="Seconds after which no new trial begins; 0: no limit.",
        at_least=0,
        sensible_at_most=LONGEST_SECONDS,
        on_resume=True,
    )
    data_dir: str = setting("", help="Folder with the data set's files; else the usual places.", on_resume=True)
    checkpoint_dir: str = setting(
        "",
        help="Where long trainings keep what they need to go on; else below each machine's cache.",
        on_resume=True,
    )
    checkpoint_seconds: float = setting(
        60.0,
        help="Seconds between two checkpoints of a training, at least; 0: one at the end of each epoch.",
        at_least=0,
        sensible_at_most=LONGEST_SECONDS,
        flag=False,
        on_resume=True,
    )
    trial_timeout: float = setting(
        0.0,
        help="Seconds a child may take; 0: no limit.",
        at_least=0,
        sensible_at_most=LONGEST_SECONDS,
        on_resume=True,
    )
    max_retries: int = setting(
        2,
        help="How often a trial runs again after its worker died.",
        at_least=0,
        sensible_at_most=10**6,
        on_resume=True,
    )
    pool: str = setting(
        "ray",
        help="ray, or inline: one child at a time in this process, without Ray.",
        one_of=("ray", "inline"),
        on_resume=True,
    )
    workers: int = setting(
        0, help="Ray workers; 0: as many as there are CPUs.", at_least=0, sensible_at_most=10_000, on_resume=True
    )
    gpus_per_worker: float = setting(
        0.0,
        help="GPUs per worker; with a fraction, several workers share one.",
        at_least=0,
        sensible_at_most=1024,
        on_resume=True,
    )
    address: str = setting(
        LOCAL,
        help="A running Ray cluster: HOST:PORT, ray://HOST:PORT or auto.",
        variable="SEARCHER_RAY_ADDRESS",
        on_resume=True,
    )
    threads: int = setting(
        0, help="CPU threads per worker; 0: the cores shared out.", at_least=0, sensible_at_most=1024, on_resume=True
    )

    @property
    def on_cluster(self) -> bool:
        """Whether trainings may run on other machines, or on a Ray that others use too."""
        return self.pool == "ray" and self.address != LOCAL


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that decides what a study finds, and how it is run.

    It is stored with the study as one flat table: `{"study_name": ..., "task": ..., "recipe": {...}, ...}`.

    Attributes:
        study_name: the name of the study; empty: the first free of `<data or task>-<sampler>-1`, `-2`, ...
        training: what one training means.
        search: how the search goes.
        run: how it is run.
    """

    study_name: str = setting("", help="Name of the new study; made up if not given.")
    training: TrainingSettings = field(default_factory=TrainingSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    run: RunSettings = field(default_factory=RunSettings)

    @classmethod
    def of(cls, **settings: Any) -> Self:
        """Return the defaults with other values, by the names of the settings: `Config.of(n_trials=8)`.

        The values are not checked; `searcher.settings.loading.load` checks those of a person.

        Raises:
            TypeError: There is no setting of such a name.
        """
        return cls().replace(**settings)

    def replace(self, **settings: Any) -> Self:
        """Return these settings with other values, as in `of`."""
        return replaced(self, settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values by name, for JSON."""
        return {
            name: asdict(value) if isinstance(value, Recipe) else deepcopy(value) for name, value in flat(self).items()
        }


def differences(one: Config, other: Config) -> list[tuple[str, Any, Any]]:
    """Compare what two settings measure.

    Returns:
        The settings that differ, by their keys in a file (`recipe.epochs`), each with both values.
    """
    return [
        (declared.key, ours, theirs)
        for (declared, ours), (_, theirs) in zip(values(one), values(other), strict=True)
        if ours != theirs and not declared.facts.on_resume and declared.name != "study_name"
    ]
