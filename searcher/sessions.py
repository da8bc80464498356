"""A session of a study, from what a person asks for to the end. The command line and the Python API are built on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from searcher import confirming
from searcher.driver import approval, leases, session
from searcher.driver.journal import Journal
from searcher.driver.loop import Progress
from searcher.records import Study, StudyKind
from searcher.settings import loading
from searcher.settings.config import LOCAL, Config, ConfigError, TrainingSettings
from searcher.settings.confirm import ConfirmSettings
from searcher.settings.declared import declared
from searcher.store import database
from searcher.store.checking import opened
from searcher.store.lease import Lease, StudyBusy
from searcher.store.store import Store, StudyExists, UnknownStudy
from workers.contract import TaskConfig
from workers.pools.base import InlinePool, Pool
from workers.tasks.base import IMAGES
from workers.tasks.images.models import mirror_caveat

log = logging.getLogger("searcher")


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for.

    Attributes:
        storage: the URL of the database.
        given: settings by name, as `loading.from_flags` and `loading.from_keywords` return them; None: not given.
        experiment: the file with more settings.
        preset: the settings to start from.
        trust_code: run the code that the stored settings name, though this user has not approved it before.
    """

    storage: str
    given: Mapping[str, Any]
    experiment: Path | None = None
    preset: str = "quick"
    trust_code: bool = False

    def settings(self) -> Config:
        """Return the settings of a new study.

        Raises:
            ConfigError: A setting is unknown or has a value that is not accepted.
        """
        return loading.load(self.experiment, self.given, self.preset)


@dataclass(frozen=True, slots=True)
class Caller:
    """What the command line does in another way than a Python program.

    Attributes:
        check: find what is wrong with settings, and return the digest of the data; see `session.check`.
        approve: refuse stored code that its user has not approved; see `approval.check`.
        patience: called before a lease is waited for that may be a dead process's.
        muted: makes a context in which the code of a person's own may print.
    """

    check: Callable[[Config], str] = session.check
    approve: Callable[[str, str, Config, Sequence[TaskConfig]], None] = approval.check
    patience: Callable[[StudyBusy], None] | None = None
    muted: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True, slots=True)
class Session:
    """A study that this process may write to, with workers for it.

    Attributes:
        finished: all its trials had ended when the session began, so nothing will run.
    """

    store: Store
    lease: Lease
    study: Study
    settings: Config
    pool: Pool
    finished: bool = False

    def run(self, should_stop: Callable[[], bool]) -> Generator[Progress, None, None]:
        """Search until the study is done, its time is up or it is to stop; see `Search.run`.

        Args:
            should_stop: asked about once a second.
        """
        self._log_what_begins()
        return session.search(self.store, self.lease, self.study, self.settings, self.pool, should_stop)

    def _log_what_begins(self) -> None:
        if self.finished:
            return
        study, training, search = self.study, self.settings.training, self.settings.search
        proposer = f"sampler {search.sampler}" if study.kind is StudyKind.SEARCH else "of a design"
        log.info("study %s: %d trials, %s, in %s", study.name, study.n_trials, proposer, self.store.shown_url)
        if modules := training.primitives:
            log.info("with the primitives of %s: %s", ", ".join(modules), session.own_primitives(self.settings))
        images = training.images
        pictures = search.skip_mirrors and training.task == IMAGES
        if pictures and (why := mirror_caveat(images.model, images.model_kwargs, images.site)):
            log.warning("--skip-mirrors: a function and its mirror -f(-x) need not do equally well here: %s", why)


@contextmanager
def launched(request: Request, caller: Caller, *, resume: bool = False) -> Iterator[Session]:
    """Make a new study, and hold a session of it for the length of the block.

    Args:
        resume: if there is a study of that name, wait for its driver to end, and go on with it.

    Raises:
        StudyExists: There is a study of that name.
        SearcherError, WorkersError, SpaceError: What was asked for cannot be done; nothing has been written.
    """
    settings = request.settings()
    name = settings.study_name
    with ExitStack() as stack:
        try:
            if resume and _existing(request.storage, name):
                raise StudyExists(name, name)
            digest = caller.check(settings)
            approval.remember(settings)
            if typed := _existing(request.storage, name):
                raise StudyExists(name, typed)
            found = stack.enter_context(_new(request.storage, settings, digest, caller))
        except StudyExists:  # another process may have made it since we looked
            if not resume or not name:
                raise
            log.warning("study %r exists: going on with its stored settings", name)
            approval.remember(settings)
            found = stack.enter_context(resumed(request, name, caller, wait=True))
        yield found


@contextmanager
def _new(storage: str, settings: Config, digest: str, caller: Caller) -> Iterator[Session]:
    code = approval.files_to_send(settings)
    with closing(session.make_pool(settings, code)) as pool, opened(storage, create=True) as store:
        with caller.muted():
            declared = session.declared(settings, pool)
        study = session.create_study(store, settings, digest, declared)
        with leases.held_lease(store, study) as lease:
            yield Session(store, lease, study, settings, pool)


@contextmanager
def resumed(request: Request, name: str, caller: Caller, *, wait: bool = False) -> Iterator[Session]:
    """Hold a session of an existing study for the length of the block.

    Args:
        wait: wait for a live driver of the study until it has ended.

    Raises:
        UnknownStudy: There is no study of that name.
        StudyBusy: A live driver holds it.
        CodeNotTrusted: It names code or a cluster that its user has not asked for.
        ConfigError: What was asked for differs from what the study measures.
    """
    with opened(request.storage, create=True, existing=True) as store:
        study = store.study(name)
        settings = session.stored_settings(study, request.experiment, request.given, request.preset)
        session.check_function(settings)
        design = study.kind is StudyKind.DESIGN
        tasks = [task.config for task in study.tasks] if design else []
        if request.trust_code:
            approval.remember(settings, tasks)
        own_address = request.given.get("address") or settings.run.address != study.config.get("address")
        stored = settings.replace(address=LOCAL) if own_address else settings
        caller.approve(study.name, store.typed(study.name), stored, tasks)
        session.check_total(store, study, settings.search.n_trials)  # again under the lease
        with session.stored_settings_errors(study):  # what the trainings of a design need, its workers find out
            digest = "" if design else caller.check(settings)
        session.check_comparable(study, digest)
        finished = _is_finished(store, study, settings)
        with leases.held_lease(store, study, caller.patience, wait=wait, drives=not finished) as lease:
            if finished:
                with closing(InlinePool()) as idle:  # nothing will run, so Ray is not started
                    yield Session(store, lease, study, settings, idle, finished)
                return
            study = session.extended(store, lease, study, settings.search.n_trials)
            with leases.renewed(store, lease):
                pool = session.make_pool(settings, approval.files_to_send(settings, tasks))
            with closing(pool):
                with caller.muted():
                    session.check_task(study, settings, pool)
                yield Session(store, lease, study, settings, pool)


def _is_finished(store: Store, study: Study, settings: Config) -> bool:
    ended = sum(n for state, n in store.counts(study).items() if state.finished)
    longer = settings.search.n_trials != study.n_trials
    return not longer and ended >= study.n_trials and not Journal.paths(study)


@contextmanager
def confirmed(
    request: Request,
    asked: ConfirmSettings,
    caller: Caller,
    *,
    search: str = "",
    expressions: Sequence[str] = (),
    reproduces: str = "",
    resume: bool = False,
) -> Iterator[Session]:
    """Make a new confirmation, and hold a session of it for the length of the block.

    Args:
        request: with a search, its settings of trainings are those of a further configuration.
        asked: the settings of the confirmation.
        search: the name of the search whose functions are confirmed; empty: none.
        expressions: functions to confirm, by name or as formulas.
        reproduces: the published experiment that this is a part of, and its scale; mostly empty.
        resume: if there is a study of that name, wait for its driver to end, and go on with it.

    Raises:
        StudyExists: There is a study of that name.
        UnknownStudy: There is no search of that name.
        SearcherError, WorkersError, SpaceError: What was asked for cannot be done; nothing has been written.
    """
    name = request.given.get("study_name")
    with ExitStack() as stack:
        try:
            if name and (typed := _existing(request.storage, name)):
                raise StudyExists(name, typed)
            made = _new_confirmation(request, asked, caller, search, expressions, reproduces)
            found = stack.enter_context(made)
        except StudyExists:  # another process may have made it since we looked
            if not resume or not name:
                raise
            log.warning("study %r exists: going on with its stored plan", name)
            found = stack.enter_context(resumed(request, name, caller, wait=True))
        yield found


@contextmanager
def _new_confirmation(
    request: Request, asked: ConfirmSettings, caller: Caller, search: str, expressions: Sequence[str], reproduces: str
) -> Iterator[Session]:
    with opened(request.storage, create=True, existing=bool(search)) as store:
        wanted = replace(_wanted(store, request, asked, search, expressions, caller), reproduces=reproduces)
        settings = confirming.variants(wanted)
        with caller.muted():
            confirming.check(store, wanted)
            digests = [session.check_training(one) for one in settings]
        code = [file for one in settings for file in approval.files_to_send(one)]
        with closing(session.make_pool(wanted.training, code)) as pool:
            with caller.muted():
                plan = confirming.planned(store, wanted, digests, lambda one: session.declared(one, pool))
            approval.remember(plan.settings, [task.config for task in plan.tasks])
            study, stored = confirming.create(store, wanted, plan)
            with leases.held_lease(store, study) as lease:
                yield Session(store, lease, study, stored, pool)


def _wanted(
    store: Store,
    request: Request,
    asked: ConfirmSettings,
    search: str,
    expressions: Sequence[str],
    caller: Caller,
) -> confirming.Wanted:
    """Return what a person asks for, with the settings of the search, whose code the person must have approved."""
    if not search:
        return confirming.Wanted(asked, request.settings(), tuple(expressions))
    study = store.study(search)
    if study.kind is not StudyKind.SEARCH:
        raise ConfigError(f"study {search!r} is no search but a {study.kind}; confirm the functions of a search")
    of_trainings = {one.name for one in declared(TrainingSettings)}
    given = {name: value for name, value in request.given.items() if value is not None}
    others = {name: value for name, value in given.items() if name in of_trainings}
    run = {name: value for name, value in given.items() if name not in of_trainings and name != "study_name"}
    settings = session.stored_settings(study, None, run)
    if request.trust_code:
        approval.remember(settings)
    caller.approve(study.name, store.typed(study.name), settings, ())
    named = settings.replace(study_name=given.get("study_name", ""))
    return confirming.Wanted(asked, named, tuple(expressions), study, others)


def _existing(storage: str, name: str) -> str:
    """Return the study as one types it, empty if there is none. The database is opened if it is there, so that what is
    wrong with it is said before workers are started."""
    if not database.is_there(storage):
        return ""
    with opened(storage, create=True) as store:
        try:
            store.study(name)
        except UnknownStudy:
            return ""
        return store.typed(name)
