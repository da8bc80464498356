"""The steps from settings to a running search: check the settings, make the pool and the study, run a session."""

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
from search_space.modules import code_name, files_digest
from searcher import UsageError, __version__
from searcher.confirmation import Confirmation, ConfirmationProposer
from searcher.display import shown
from searcher.driver.journal import Journal
from searcher.driver.loop import Progress, Search
from searcher.observe import logs
from searcher.proposers import Design, Proposer, ReplicatingProposer, SamplerProposer
from searcher.records import Study, StudyKind, StudyTask
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
from workers.tasks.images.optimizers import check_optimizer
from workers.tasks.own import MAXOUT, is_given, names_object
from workers.tasks.own import check_name as check_task_name

AFFECT_RESULTS = ("searcher", "torch", "scikit-learn")  # packages whose version can change results

SILENT_SECONDS = 10.0  # after which a person is told what is waited for

log = logging.getLogger("searcher")


def check(settings: Config) -> str:
    """Find all errors that can be found before anything is started or written.

    Returns:
        The digest of the data; empty if it is not known yet.

    Raises:
        ConfigError, SpaceError, SamplerError: a name or an option is unknown.
        WorkersError: the data are missing or damaged (checked only if trainings run on this machine), or the network
            cannot be built for them.
    """
    first = baseline_trials(settings)
    with logs.waiting(f"making the sampler {settings.search.sampler}"):
        _sampler(settings).ask(0)
    return check_training(settings, maxout=any(trial.name == "maxout" for trial in first))


def check_training(settings: Config, *, maxout: bool = False) -> str:
    """Check what the settings say about a training, as `check` does.

    Args:
        maxout: check that networks can be built with maxout too.
    """
    if settings.training.task != IMAGES:
        _check_own(settings, maxout)
        return ""
    images = settings.training.images
    try:
        check_name(images.dataset)
        check_model(images.model, images.match, images.site)
        if maxout:
            activation_of("maxout(2)", images.site)
        check_optimizer(images.recipe)
    except WorkersError as error:
        raise ConfigError(str(error)) from error
    if settings.run.on_cluster:
        return ""
    # The first one has a beta: parameters can need special layers.
    with logs.waiting(f"checking the data {images.dataset} and the network {images.model}"):
        return _check_images(settings, ("x * sigmoid(beta * x)", *(["maxout(2)"] if maxout else [])))


def _check_own(settings: Config, maxout: bool) -> None:
    """Check the name of a user's own task, and its baselines. Only workers run its code."""
    try:
        check_task_name(settings.training.task)
    except WorkersError as error:
        raise ConfigError(str(error)) from error
    if maxout:
        raise ConfigError(f"--baselines maxout: {MAXOUT}, which only the image task provides; leave it out")
    check_function(settings)


def check_function(settings: Config) -> None:
    """If the task is a function object of a Python program, check that it can be called.

    Raises:
        ConfigError: the object belongs to another program, or the workers are other processes.
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
    """Load the data, build a network with each function, and return the digest of the data."""
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
    """Build the network once, as each worker will."""
    made, width = activation_of(expression, images.site), images.width or None
    try:
        build(
            *(images.model, made, data.shape, data.classes, width, images.model_kwargs, data.train.pixels.dtype),
            match=images.match,
            note=log.warning,
        )
    except WorkersError:
        raise
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError when memory does not suffice
        why = failure(error).reason.partition("\n")[0]
        raise WorkersError(f"model {images.model!r} cannot be made in the size that was asked for: {why}") from error


def own_primitives(settings: Config) -> str:
    """Return the names of the primitives that the modules in the settings register, separated by commas."""
    return ", ".join(row.name for row in load_primitives(settings.training.primitives))


def declared(settings: Config, pool: Pool) -> Declaration:
    """Return the task's declaration of its metrics. The image task's is known; for others, ask a worker.

    Raises:
        ConfigError: the task cannot be imported, or does not keep its contract.
        WorkersError: the worker could not answer.
    """
    if settings.training.task == IMAGES:
        return DECLARATION
    pool.submit(Job(0, "", task=task_config_of(settings), describe=True))
    begun, said = time.monotonic(), False
    with logs.waiting(f"a worker imports the task {settings.training.task}"):
        while not (answers := pool.wait(1.0)):
            if not said and time.monotonic() - begun > SILENT_SECONDS:
                log.warning(
                    "a worker is still importing task %s; if it hangs, stop with Ctrl-C", settings.training.task
                )
                said = True
    [(_, answer)] = answers
    if answer.verdict is Verdict.COMPLETE and answer.declaration:
        _check_same_file(settings.training.task, answer.declaration.digest)
        return answer.declaration
    reason = answer.reason.partition("\n")[0]
    ours = f"{WorkersError.__name__}: "
    if reason.startswith(ours):
        raise ConfigError(reason.removeprefix(ours))
    raise WorkersError(f"task {settings.training.task} cannot be asked what it measures: {reason}")


def _check_same_file(task: str, digest: str) -> None:
    """Check that a worker on another machine has the same file as this one, which a person sees and approves."""
    code = code_name(task)
    if code and code.module.endswith(".py") and not files_digest(code.module).startswith(digest):
        raise WorkersError(
            f"the workers have another file {code.module} than this machine, or other files that it imports; copy it "
            "to the nodes of the cluster, or remove it there: it is then sent to them"
        )


def create_study(store: Store, settings: Config, digest: str = "", declaration: Declaration = DECLARATION) -> Study:
    """Create a study of kind `search`. If the settings have no name for it, it is `<data or task>-<sampler>-<n>`.

    Args:
        digest: the digest of its data; empty if it is not known yet.
        declaration: the metrics of its task.

    Raises:
        StudyExists: the name is taken.
        ConfigError: the task does not have the objective.
    """
    task = study_task(settings, declaration, digest)
    task = replace(task, declared=declaration.without_test)
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
        except StudyExists:  # another search may have taken the free name in the meantime
            if settings.study_name or named.study_name not in store.names():
                raise


def create_design(store: Store, design: Design | Confirmation, tasks: Sequence[StudyTask], settings: Config) -> Study:
    """Create a study of kind `design`: a list of trainings that is known beforehand, or a confirmation.

    Args:
        tasks: the task configurations, to which the design refers by number.
        settings: the study's name, and how it is run.

    Raises:
        StudyExists: the name is taken.
        ConfigError: the design refers to a task configuration that does not exist.
    """
    if unknown := design.task_numbers - set(range(len(tasks))):
        raise ConfigError(f"a stage names task configuration {min(unknown)}; there are {len(tasks)}, from 0")
    total = design.most_trainings
    stored = settings.replace(n_trials=total).to_dict() | {"design": design.to_plain()}
    return store.create_study(settings.study_name, StudyKind.DESIGN, total, tasks, stored, versions())


def _free_name(store: Store, settings: Config) -> str:
    training = settings.training
    named = training.images.dataset if training.task == IMAGES else training.task
    data = shown(re.split(r"[:/\\]", named)[-1].removesuffix(".npz"))
    stem = f"{data[: NAME_LENGTH // 2]}-{settings.search.sampler.replace(':', '-')}"
    taken = set(store.names())
    return next(name for n in range(1, len(taken) + 2) if (name := f"{stem}-{n}") not in taken)


def make_pool(settings: Config, code: Sequence[Path] = ()) -> Pool:
    """Return a new pool as the settings say; the caller closes it.

    Args:
        code: files and folders that a cluster's workers import and that its nodes may not have.

    Raises:
        RayUnavailable: there is no cluster, or it cannot hold the workers.
    """
    run = settings.run
    if run.pool == "inline":
        return InlinePool(run.threads or usable_cpus())
    where = f"joining the Ray cluster at {run.address}" if run.on_cluster else "starting Ray"
    packages = f", with copies of {', '.join(path.name for path in code)}" if code and run.on_cluster else ""
    with logs.waiting(where + packages):
        from workers.pools.ray_actors import RayPool

        return RayPool(run.workers, run.gpus_per_worker, run.address, run.threads, code=code)


def search(
    store: Store,
    lease: Lease,
    study: Study,
    settings: Config,
    pool: Pool,
    should_stop: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> Generator[Progress, None, None]:
    """Run one session of a study; see `Search`. Meanwhile torch uses one thread in this process: the sampler's tensors
    are small, and while workers use all cores, a second thread makes a proposal take ten times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    running = Search(store, lease, study, settings, proposer_of(study, settings), pool, should_stop, clock)
    try:
        yield from running.run()
        if study.kind is StudyKind.DESIGN and running.exhausted:
            store.extend(lease, store.size(study))  # the total was the most that the design might have needed
    finally:
        torch.set_num_threads(threads)


def proposer_of(study: Study, settings: Config) -> Proposer:
    """Return a new proposer of a study."""
    if study.kind is StudyKind.DESIGN:
        return _proposer_of_design(study)
    seed, share = training_seed(settings), settings.search.replicates
    proposer = SamplerProposer(_sampler(settings), grammar_of(settings), seed)
    return ReplicatingProposer(proposer, share, seed) if share else proposer


def _proposer_of_design(study: Study) -> Proposer:
    """Return the proposer of a confirmation, or of a list of stages.

    Raises:
        PlanError: this version cannot read the plan of the confirmation.
        StoreError: the stored design is neither.
    """
    design = study.config.get("design")
    if isinstance(design, dict):
        return ConfirmationProposer(Confirmation.of(study))
    try:
        return Design.from_plain(design)  # type: ignore[arg-type]
    except (TypeError, KeyError, AttributeError, SpaceError) as error:
        raise edited(study.name, f"its design is not a list of stages: {error}") from error


def extended(store: Store, lease: Lease, study: Study, n_trials: int) -> Study:
    """Set the study's total and return the changed study.

    Raises:
        ConfigError: the study has more trials already.
    """
    check_total(store, study, n_trials)
    if n_trials == study.n_trials:
        return study
    store.extend(lease, n_trials)
    return replace(study, n_trials=n_trials)


def check_total(store: Store, study: Study, n_trials: int) -> None:
    """Raise ConfigError if the study has more than `n_trials` trials already."""
    last = store.driver(study).writer
    journals = (journal for journal in Journal.left(study) if last in journal.writers)
    left = (trial.number + 1 for journal in journals for batch in journal.batches for trial in batch.added)
    there = max(store.size(study), *left, 0)  # trials in the journal of an outage count too
    if n_trials < there:
        raise ConfigError(f"--n-trials is the study's total and it has {there} trials already; not {n_trials}")


def stored_settings(study: Study, experiment: Path | None, changes: Mapping[str, Any], preset: str = "quick") -> Config:
    """Return a study's settings for another session. A preset, an experiment file and flags may change how it is run.

    Args:
        experiment: an experiment file.
        changes: settings from flags, by name.
        preset: the name of a preset.

    Raises:
        ConfigError: a change would change the results, or a value is not accepted.
        StoreError: the stored settings are not valid.
    """
    # Versions without the setting `standardise` treated all integer data as pixels.
    stored = {"standardise": True, **study.config, "n_trials": study.n_trials}
    stored.pop("design", None)
    with stored_settings_errors(study):
        before = loading.load(None, {}, before=stored)
    _check_task_config(study, before)
    asked = loading.load(experiment, changes, preset, before=stored)
    if study.kind is StudyKind.DESIGN and asked.search.n_trials != study.n_trials:
        raise ConfigError(
            f"the total of study {study.name!r} follows from its plan, {study.n_trials} trainings at most; leave "
            "--n-trials out, or make another confirmation"
        )
    with stored_settings_errors(study):
        check_on_resume(asked)
    if changed := differences(before, asked):
        lines = "".join(f"\n  {name}: {old} in the study, {new} asked for" for name, old, new in changed)
        raise ConfigError(
            f"study {study.name!r} measures something else than was asked for; its results could not be compared:"
            f"{lines}\n  leave that out, or start another study: searcher launch --study-name NAME"
        )
    return asked


def _check_task_config(study: Study, settings: Config) -> None:
    """Raise StoreError if a search's stored task differs from its settings, because the user approves the settings."""
    if study.kind is StudyKind.DESIGN:
        return
    stored, expected = study.task.config, task_config_of(settings)
    meant = [name for name in {*stored.parameters, *expected.parameters} if name not in ("digest", "objective")]
    same = all(stored.parameters.get(name) == expected.parameters.get(name) for name in meant)
    if not same or (stored.task, stored.primitives) != (expected.task, expected.primitives):
        raise edited(study.name, f"its task configuration is not the one that its settings say: {stored}")


@contextmanager
def stored_settings_errors(study: Study) -> Iterator[None]:
    """Turn an error about settings into a StoreError that says that they are the study's stored settings, so that the
    user does not look for the error in the command.

    Raises:
        StoreError: the stored settings are not valid.
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
    """Ask a worker whether the task of a study that is resumed is still the same.

    Raises:
        ConfigError: the task differs from the one that the study began with; the message shows the difference.
    """
    task = settings.training.task
    if study.kind is StudyKind.DESIGN or task == IMAGES:
        return
    check_pruner(settings, study.task.declared)
    old, new = study.task.declared.without_test, declared(settings, pool).without_test
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
    """Warn if a study is resumed with other versions of packages that affect its results.

    Args:
        digest: the digest of the data now; empty if it is not known.

    Raises:
        ConfigError: the data differ from those that the study began with.
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
        f"{name} {made[name]} then, {now[name]} now"
        for name in AFFECT_RESULTS
        if made.get(name, now[name]) != now[name]
    ]
    if changed:
        log.warning("study %s goes on with other software: %s", study.name, "; ".join(changed))


def versions() -> dict[str, str]:
    """Return the versions of this program, of the rules for keys, and of the packages that it uses, by name."""
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
    """Return the commit of the source tree that this program runs from; empty if it runs from an installed package."""
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
