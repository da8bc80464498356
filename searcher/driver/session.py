"""Puts a search together: checked settings, a pool, a study, a session of it."""

from __future__ import annotations

import logging
import platform
import re
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from search_space import KEY_RULES, SpaceError, load_primitives
from searcher import UsageError, __version__
from searcher.display import shown
from searcher.driver.journal import Journal
from searcher.driver.loop import Progress, Search
from searcher.proposers import Design, Proposer, SamplerProposer
from searcher.records import Study, StudyKind, StudyTask, Trial
from searcher.samplers.contract import Sampler
from searcher.samplers.registry import make_sampler
from searcher.settings import loading
from searcher.settings.checking import NAME_LENGTH, check_on_resume
from searcher.settings.config import Config, ConfigError, differences
from searcher.settings.plan import (
    baseline_trials,
    check_pruner,
    grammar_of,
    left_out,
    study_task,
    task_config_of,
    training_seed,
)
from searcher.store.database import StoreError
from searcher.store.lease import Lease
from searcher.store.rows import edited
from searcher.store.store import Store, StudyExists
from workers.contract import Declaration, Job, Verdict, WorkersError
from workers.failure import failure
from workers.pools.base import InlinePool, Pool, usable_cpus
from workers.tasks.base import IMAGES
from workers.tasks.images.augment import check_augmented
from workers.tasks.images.config import DECLARATION, ImageConfig
from workers.tasks.images.data import Dataset, check_name, load
from workers.tasks.images.doubts import doubts
from workers.tasks.images.models import build, check_model
from workers.tasks.images.networks.sites import activation_of
from workers.tasks.own import MAXOUT, is_given, names_object
from workers.tasks.own import check_name as check_task_name

MATTERS = ("searcher", "torch", "scikit-learn")  # whose version can change what a training comes to

log = logging.getLogger("searcher")


def check(settings: Config) -> str:
    """Find everything that can be known to be wrong before anything is started or written.

    Returns:
        The digest of the data; empty where it is not known yet.

    Raises:
        ConfigError, SpaceError, SamplerError: an unknown name, an option that is not taken.
        WorkersError: data that are not on this machine, where the networks are trained on it, or not what they should
            be; a network that cannot be built for them.
    """
    first = baseline_trials(settings)
    _sampler(settings).ask(0)
    images = settings.training.images
    if settings.training.task != IMAGES:
        _check_own(settings, first)
        return ""
    try:
        check_name(images.dataset)
        check_model(images.model, images.match)
    except WorkersError as error:
        raise ConfigError(str(error)) from error
    if settings.run.pool == "inline" or settings.run.address == "local":
        wider = {trial.expression for trial in first if trial.name == "maxout"}  # than functions of one number
        return _check_images(settings, ("x * sigmoid(beta * x)", *wider))  # a parameter: channels are remarked on
    return ""


def _check_own(settings: Config, first: Iterable[Trial]) -> None:
    """Check the name of a task of one's own, and its baselines. Its code is run by workers only."""
    try:
        check_task_name(settings.training.task)
    except WorkersError as error:
        raise ConfigError(str(error)) from error
    if any(trial.name == "maxout" for trial in first):
        raise ConfigError(f"--baselines maxout: {MAXOUT}, which only the image task provides; leave it out")
    check_function(settings)


def check_function(settings: Config) -> None:
    """Check where the task is a function object of a Python program.

    Raises:
        ConfigError: This is another program, or its workers are other processes.
    """
    task = settings.training.task
    if not names_object(task):
        return
    if not is_given(task):
        raise ConfigError(
            f"the task {task} is a function of a Python program and cannot be imported here; go on with the "
            "study in that program: searcher.search(task=FUNCTION, study_name=NAME, resume=True)"
        )
    if settings.run.pool != "inline":
        raise ConfigError(
            f"the task {task} is a function object, which only --pool inline can call; to train it with "
            "--pool ray put it into a file and name it: --task FILE.py:FUNCTION"
        )


def _check_images(settings: Config, expressions: Iterable[str]) -> str:
    """Load the data here, and make a network with each function. Returns the digest of the data."""
    images = settings.training.images
    cpu, limits = torch.device("cpu"), (images.limit_train, images.limit_val)
    data = load(images.dataset, images.split_seed, cpu, settings.run.data_dir, *limits, standardise=images.standardise)
    for doubt in doubts(data):
        log.warning("%s", doubt)
    check_augmented(images.recipe, data.shape)
    if (size := images.recipe.batch_size) > (found := len(data.train)):
        log.warning("there are %d training images, --batch-size is %d: an epoch is one step", found, size)
    for expression in expressions:
        _try_network(images, data, expression)
    return data.digest


def _try_network(images: ImageConfig, data: Dataset, expression: str) -> None:
    """Make the network once, as each worker will."""
    made, width = activation_of(expression), images.width or None
    try:
        build(
            *(images.model, made, data.shape, data.classes, width, images.model_kwargs, data.train.pixels.dtype),
            match=images.match,
            note=log.warning,
        )
    except WorkersError:
        raise
    except (MemoryError, RuntimeError) as error:  # how torch says that it has not that much memory
        why = failure(error).reason.partition("\n")[0]
        raise WorkersError(f"model {images.model!r} cannot be made in the size that was asked for: {why}") from error


def own_primitives(settings: Config) -> str:
    """The names that the modules of the settings register."""
    return ", ".join(row.name for row in load_primitives(settings.training.primitives))


def declared(settings: Config, pool: Pool) -> Declaration:
    """Ask a worker what the task measures. The image task is known without.

    Raises:
        ConfigError: The task cannot be imported, or does not keep its contract.
        WorkersError: The worker could not answer.
    """
    if settings.training.task == IMAGES:
        return DECLARATION
    pool.submit(Job(0, "", task=task_config_of(settings), describe=True))
    while not (answers := pool.wait(1.0)):
        pass
    [(_, answer)] = answers
    if answer.verdict is Verdict.COMPLETE and answer.declaration:
        return answer.declaration
    reason = answer.reason.partition("\n")[0]
    ours = f"{WorkersError.__name__}: "
    if reason.startswith(ours):
        raise ConfigError(reason.removeprefix(ours))
    raise WorkersError(f"task {settings.training.task} cannot be asked what it measures: {reason}")


def create_study(store: Store, settings: Config, digest: str = "", declaration: Declaration = DECLARATION) -> Study:
    """Make a new search, named by the settings or, if they name none, `<data or task>-<sampler>-<n>`.

    Args:
        digest: of its data.
        declaration: what its task measures.

    Raises:
        StudyExists: the name is taken.
        ConfigError: an objective that the task does not have.
    """
    task = study_task(settings, declaration, digest)
    settings = settings.replace(objective=task.objective.name, direction=str(task.objective.direction))
    if left := left_out(settings):
        log.warning("half of %d trials are for baselines; left out: %s", settings.search.n_trials, ", ".join(left))
    while True:
        named = settings.replace(study_name=settings.study_name or _free_name(store, settings))
        try:
            return store.create_study(
                named.study_name,
                StudyKind.SEARCH,
                named.search.n_trials,
                [task],
                named.to_dict(),
                versions(),
                baseline_trials(named),
            )
        except StudyExists:  # another search may just have been given the name that was free
            if settings.study_name or named.study_name not in store.names():
                raise


def create_design(store: Store, design: Design, tasks: Sequence[StudyTask], settings: Config) -> Study:
    """Make a new study of kind `design`: a fixed list of trainings.

    Args:
        tasks: the task configurations that the stages of the design name by number.
        settings: the study's name, and how it is run.

    Raises:
        StudyExists: the name is taken.
        ConfigError: a stage names a task configuration that there is not.
    """
    numbers = {number for stage in design.stages for number in stage.task_configs}
    if unknown := numbers - set(range(len(tasks))):
        raise ConfigError(f"a stage names task configuration {min(unknown)}; there are {len(tasks)}, from 0")
    total = len(design)
    stored = settings.replace(n_trials=total).to_dict() | {"design": design.to_plain()}
    return store.create_study(settings.study_name, StudyKind.DESIGN, total, tasks, stored, versions())


def _free_name(store: Store, settings: Config) -> str:
    training = settings.training
    named = training.images.dataset if training.task == IMAGES else training.task
    data = shown(re.split(r"[:/\\]", named)[-1].removesuffix(".npz"))
    stem = f"{data[: NAME_LENGTH // 2]}-{settings.search.sampler.replace(':', '-')}"
    taken = set(store.names())
    return next(name for n in range(1, len(taken) + 2) if (name := f"{stem}-{n}") not in taken)


def make_pool(settings: Config) -> Pool:
    """The workers that the settings ask for; whoever asks closes it.

    Raises:
        RayUnavailable: no cluster, or not what was asked of it.
    """
    run = settings.run
    if run.pool == "inline":
        return InlinePool(run.threads or usable_cpus())
    from workers.pools.ray_actors import RayPool

    return RayPool(run.workers, run.gpus_per_worker, run.address, run.threads)


def search(
    store: Store,
    lease: Lease,
    study: Study,
    settings: Config,
    pool: Pool,
    should_stop: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Progress, None, None]:
    """One session of a study; see `Search`. Meanwhile this thread has one core for its tensors: they are small, and
    with children on all cores a second thread that waits for its turn makes a proposal take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from Search(store, lease, study, settings, proposer_of(study, settings), pool, should_stop, clock).run()
    finally:
        torch.set_num_threads(threads)


def proposer_of(study: Study, settings: Config) -> Proposer:
    """Return a new proposer of a study."""
    if study.kind is StudyKind.DESIGN:
        return Design.from_plain(study.config["design"])
    return SamplerProposer(_sampler(settings), grammar_of(settings), training_seed(settings))


def extended(store: Store, lease: Lease, study: Study, n_trials: int) -> Study:
    """The study with that total, which may grow but not fall below the trials it has.

    Raises:
        ConfigError: a total below that.
    """
    check_total(store, study, n_trials)
    if n_trials == study.n_trials:
        return study
    store.extend(lease, n_trials)
    return replace(study, n_trials=n_trials)


def check_total(store: Store, study: Study, n_trials: int) -> None:
    """Raises ConfigError if the study has more trials already."""
    last = store.driver(study).writer
    journals = (journal for journal in Journal.left(study) if last in journal.writers)
    left = (trial.number + 1 for journal in journals for batch in journal.batches for trial in batch.added)
    there = max(store.size(study), *left, 0)  # what an outage has kept from the database is the study's too
    if n_trials < there:
        raise ConfigError(f"--n-trials is the study's total and it has {there} trials already; not {n_trials}")


def stored_settings(study: Study, experiment: Path | None, changes: Mapping[str, Any], preset: str = "quick") -> Config:
    """A study's settings for another session, with the changes of a preset, an experiment file and flags to how it is
    run.

    Raises:
        ConfigError: a change of what is measured, or a value that is not accepted.
        StoreError: the stored settings are not what a study can have.
    """
    # Studies of versions without `standardise` took all whole numbers for pixels.
    stored = {"standardise": True, **study.config, "n_trials": study.n_trials}
    stored.pop("design", None)
    with blamed_on(study):
        before = loading.load(None, {}, before=stored)
    _check_task_config(study, before)
    asked = loading.load(experiment, changes, preset, before=stored)
    with blamed_on(study):
        check_on_resume(asked)
    if changed := differences(before, asked):
        lines = "".join(f"\n  {name}: {old} in the study, {new} asked for" for name, old, new in changed)
        raise ConfigError(
            f"study {study.name!r} measures something else than was asked for; its results could not be compared:"
            f"{lines}\n  leave that out, or start another study: searcher launch --study-name NAME"
        )
    return asked


def _check_task_config(study: Study, settings: Config) -> None:
    """Raise StoreError if a search would run another task than its settings say: these are what a user approves."""
    if study.kind is StudyKind.DESIGN:
        return
    stored, expected = study.task.config, task_config_of(settings)
    meant = [name for name in {*stored.parameters, *expected.parameters} if name not in ("digest", "objective")]
    same = all(stored.parameters.get(name) == expected.parameters.get(name) for name in meant)
    if not same or (stored.task, stored.primitives) != (expected.task, expected.primitives):
        raise edited(study.name, f"its task configuration is not the one that its settings say: {stored}")


@contextmanager
def blamed_on(study: Study) -> Iterator[None]:
    """Say of settings that are not accepted that they are the study's: who asked to go on with it asked rightly.

    Raises:
        StoreError: the stored settings are not what a study can have.
    """
    try:
        yield
    except (UsageError, SpaceError) as error:
        made, why = study.versions.get("searcher", "unknown"), " ".join(str(error).split())
        raise StoreError(
            f"the settings of study {study.name!r}, made by searcher {made}, are not ones of this searcher, "
            f"{__version__}: {why}. Upgrade it if it is the older one; else see: searcher db check"
        ) from error


def check_task(study: Study, settings: Config, pool: Pool) -> None:
    """Ask a worker about the task of a study that goes on.

    Raises:
        ConfigError: The task is not the one that the study began with; the message shows the difference.
    """
    task = settings.training.task
    if study.kind is StudyKind.DESIGN or task == IMAGES:
        return
    check_pruner(settings, study.task.declared)
    old, new = study.task.declared, declared(settings, pool)
    changed = [
        f"\n  {name}: {_declared(before)} in the study, {_declared(after)} now"
        for name in ("metrics", "steps", "options", "digest")
        if (before := getattr(old, name)) != (after := getattr(new, name))
    ]
    if changed:
        raise ConfigError(
            f"the task {task} is not the one that study {study.name!r} began with; its results could not be "
            f"compared:{''.join(changed)}\n  put it back as it was, or start another study: searcher launch "
            "--study-name NAME"
        )


def _declared(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{metric.name} {metric.direction}" for metric in value)
    return str(value)


def check_comparable(study: Study, digest: str) -> None:
    """Warns where other software goes on with a study than began it.

    Raises:
        ConfigError: the data are not those that it began with.
    """
    made, began = study.versions, study.task.data_digest
    if digest and began not in ("", digest):
        raise ConfigError(
            f"the data {study.config.get('dataset')!r} of study {study.name!r} have changed since it began (digest "
            f"{digest}, then {began}): its results could not be compared; put the old data back, or start "
            "another study: searcher launch --study-name NAME"
        )
    now = versions()
    changed = [
        f"{name} {made[name]} then, {now[name]} now" for name in MATTERS if made.get(name, now[name]) != now[name]
    ]
    if changed:
        log.warning("study %s goes on with other software: %s", study.name, "; ".join(changed))


def versions() -> dict[str, str]:
    """What a study was made with."""
    found = {
        "searcher": __version__,
        "keys": str(KEY_RULES),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in ("torch", "ray", "optuna", "sqlalchemy", "scikit-learn"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    if commit := _git_commit():
        found["git_commit"] = commit
    return found


def _git_commit() -> str:
    """The commit of the source tree that this runs from; empty if it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _sampler(settings: Config) -> Sampler:
    return make_sampler(
        settings.search.sampler,
        grammar_of(settings),
        seed=settings.search.seed,
        kwargs=settings.search.sampler_kwargs,
    )
