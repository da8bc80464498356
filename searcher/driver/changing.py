"""Delete, rename or retry a study that nobody drives. Whoever does it holds the study's lease meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from searcher import SearcherError
from searcher.driver.journal import Journal
from searcher.driver.leases import held_lease
from searcher.records import Study, Trial
from searcher.settings.checking import check_study_name
from searcher.store import changing
from searcher.store.lease import StudyBusy
from searcher.store.store import Store

log = logging.getLogger("searcher")


class ChangeRefused(SearcherError):
    """A study cannot be changed as asked; nothing was written."""


@dataclass(frozen=True, slots=True)
class Retried:
    """The FAILED trials of a study.

    Attributes:
        waiting: trials that wait again.
        kept: trials that stay FAILED, because later trainings depend on what they ended as.
    """

    waiting: tuple[Trial, ...] = ()
    kept: tuple[Trial, ...] = ()


def check_undriven(store: Store, study: Study, before_waiting: Callable[[StudyBusy], None] | None = None) -> None:
    """Raise StudyBusy if a live driver has the study.

    Args:
        before_waiting: called before the wait for a lease whose holder may be dead.
    """
    with held_lease(store, study, before_waiting, drives=False):
        pass


def delete(store: Store, study: Study) -> None:
    """Delete a study with its trials and learning curves.

    Raises:
        StudyBusy: a live driver has the study.
    """
    with held_lease(store, study, drives=False) as lease:
        changing.delete(store, lease, study)
    for path in Journal.paths(study):  # a copy of the study in another database may need it
        log.warning("results that an outage kept from the database stay in %s", path)


def rename(store: Store, study: Study, name: str) -> None:
    """Give a study another name.

    Raises:
        StudyBusy: a live driver has the study.
        ConfigError: no study can have that name.
        StoreConflict: another study has it.
        ChangeRefused: results of an outage are not written yet; they are found by the study's name.
    """
    check_study_name(name)
    _check_journals(store, study)
    with held_lease(store, study, drives=False) as lease:
        changing.rename(store, lease, study, name)


def retry(store: Store, study: Study) -> Retried:
    """Set the FAILED trials of a study back to WAITING, so that a resume trains them.

    A search is told nothing of FAILED trials, and the others keep their order, so a resume rebuilds the same sampler as
    before. A confirmation has chosen learning rates, or dropped functions, without its failed trainings; there they
    stay as they are.

    Raises:
        StudyBusy: a live driver has the study.
        ChangeRefused: results of an outage are not written yet.
        StoreError: the settings of the study are not ones of this version.
    """
    from searcher.driver.session import stored_settings  # imports torch, which `delete` and `rename` do not need

    stored_settings(study, None, {})  # raises an error if the study cannot be resumed
    _check_journals(store, study)
    with held_lease(store, study, drives=False) as lease:
        failed = changing.failed_trials(store, study)
        kept = tuple(trial for trial in failed if _decides(study, trial))
        waiting = tuple(trial for trial in failed if trial not in kept)
        if waiting:
            changing.reopen(store, lease, study, waiting)
    return Retried(waiting, kept)


def _decides(study: Study, trial: Trial) -> bool:
    """Return True if other trainings of a confirmation depend on how this one ended."""
    if not isinstance(study.config.get("design"), dict):
        return False
    from searcher.confirmation import Confirmation  # imports torch

    plan = Confirmation.of(study)
    return plan.until_sure or any(trial.task_config in one.tuning for one in plan.configurations)


def _check_journals(store: Store, study: Study) -> None:
    if Journal.paths(study):
        raise ChangeRefused(
            f"study {study.name!r} has results on this machine that an outage kept from the database; nothing was "
            f"written. Write them first: searcher resume {store.typed(study.name)}"
        )
