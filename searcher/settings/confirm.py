"""This module defines the settings of a confirmation, beside those of its trainings and of how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from searcher.settings.checking import check_values, typed
from searcher.settings.config import LARGEST_SEED, Config, ConfigError
from searcher.settings.declared import declared, keywords
from workers.settings import setting

MOST_SEEDS = 10_000
ALL = ("all",)


@dataclass(frozen=True, slots=True)
class ConfirmSettings:
    """These settings decide which functions are confirmed, how often each is trained, and under what."""

    top: int | None = setting(
        None,
        help="Confirm this many of the search's best functions; 3, or 0 if --expression is given.",
        at_least=0,
        at_most=10_000,
    )
    baselines: tuple[str, ...] = setting(
        ALL, help="Known functions to compare with: relu,swish1,...; all: those of the search; modern; none."
    )
    reference: str = setting("relu", help="The function that all others are compared with.")
    seeds: int | None = setting(
        None,
        help="Training seeds for each function; 10, or at most 40 with --until-sure.",
        at_least=2,
        at_most=MOST_SEEDS,
    )
    first_seed: int | None = setting(
        None,
        help="The first training seed; not given: the one after the search's.",
        at_least=0,
        at_most=LARGEST_SEED - 2 * MOST_SEEDS,
    )
    models: tuple[str, ...] = setting((), help="Further networks to compare on: resnet20,all-cnn,...")
    datasets: tuple[str, ...] = setting((), help="Further data sets to compare on: fashion-mnist,cifar10,...")
    until_sure: bool = setting(False, help="Look after 5, 10, 20 and 40 seeds, and train decided functions no further.")
    tune_lr: int = setting(
        0,
        help="Try this many learning rates for each function first (3, 5, ...), and choose by validation; 0: none.",
        at_least=0,
        at_most=21,
    )
    vary_split: bool = setting(False, help="Split the data anew for each training seed.")
    alpha: float = setting(0.05, help="Accepted probability of any false verdict.", at_least=1e-9, sensible_at_most=0.5)
    rope: float | None = setting(
        None,
        help="Differences of at most this count as none; not given: 0.005 for fractions, 0.01 for nats.",
        at_least=1e-12,
        sensible_at_most=1e12,
    )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> ConfirmSettings:
        """Return the settings with the values that a person gives, by name. None: not given.

        Raises:
            ConfigError: a value is not accepted.
        """
        by_name = {one.name: one for one in declared(cls)}
        changes = {name: typed(by_name[name], value, "") for name, value in given.items() if value is not None}
        found = replace(cls(), **changes)
        check_values(found)
        if found.tune_lr and (found.tune_lr < 3 or found.tune_lr % 2 == 0):
            raise ConfigError(
                f"--tune-lr must be 0 or an odd number from 3, so that the usual rate is in the middle, "
                f"not {found.tune_lr}"
            )
        if not found.reference.strip():
            raise ConfigError("--reference must name a function, as in --reference relu")
        return found


# What a person can name for a confirmation. `models` and `datasets` take the place of two settings of trainings.
CONFIRMATION = (
    *keywords(ConfirmSettings),
    *(
        setting
        for setting in keywords(Config)
        if setting.section in ("training", "run") and setting.name not in ("model", "dataset")
    ),
)
