"""Plan a confirmation: from what a person asks for, and a search, to functions, seeds and task configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import product
from statistics import median
from typing import Any

from search_space import load_primitives
from searcher.confirmation import Configuration, Confirmation, Function
from searcher.display import without_folders
from searcher.driver import session
from searcher.driver.keys import key_of
from searcher.evidence import Samples, ranked
from searcher.evidence.paired import chosen_rope
from searcher.evidence.sequential import LOOKS
from searcher.records import Kind, Study, StudyTask
from searcher.settings import loading
from searcher.settings.checking import NAME_LENGTH
from searcher.settings.config import LARGEST_SEED, Config, ConfigError, differences
from searcher.settings.confirm import ALL, ConfirmSettings
from searcher.settings.plan import baseline_trial, study_task, training_seed, with_sets
from searcher.store import queries
from searcher.store.store import Store, StudyExists
from workers.contract import Declaration, Metric
from workers.tasks.base import IMAGES
from workers.tasks.images.config import Evaluation

SEEDS = 10
TOP = 3
FACTOR = 3.0  # between two learning rates that are tried
RECENT = 200  # trainings of a search, by which the time is estimated
RATES = ("learning_rate", "lr")  # what a task of one's own may call its learning rate


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asks for.

    Attributes:
        settings: the settings of the confirmation.
        training: the settings of the trainings, which are the search's if there is one, and of how they are run.
        expressions: functions to confirm, by name or as formulas.
        search: the search whose functions are confirmed; None: no search.
        others: the settings, by name, in which a further configuration differs from the search's. Without a search
            they are in `training`.
        reproduces: the published experiment that this is a part of, and its scale; mostly empty.
    """

    settings: ConfirmSettings
    training: Config
    expressions: tuple[str, ...] = ()
    search: Study | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    reproduces: str = ""


@dataclass(frozen=True, slots=True)
class NewConfirmation:
    """A confirmation that can be stored: its plan, its task configurations, and the settings of the study."""

    confirmation: Confirmation
    tasks: tuple[StudyTask, ...]
    settings: Config


def variants(wanted: Wanted) -> list[Config]:
    """Return the settings of each configuration, the search's own first.

    Raises:
        ConfigError: networks or data sets are named for a task of one's own.
    """
    training, models, datasets = wanted.training, wanted.settings.models, wanted.settings.datasets
    if training.training.task != IMAGES and (models or datasets):
        flag = "--models" if models else "--datasets"
        raise ConfigError(f"{flag} are for image trainings and have no effect on the task {training.training.task}")
    changed = loading.merged(training, wanted.others)
    images = changed.training.images
    found = [training] if wanted.search else []
    if not wanted.search or wanted.others or models or datasets:
        pairs = product(datasets or (images.dataset,), models or (images.model,))
        found += [_variant(changed, dataset, model, wanted) for dataset, model in pairs]
    distinct = {str(one.training): one for one in found}
    return list(distinct.values())


def _variant(settings: Config, dataset: str, model: str, wanted: Wanted) -> Config:
    """Return the settings with another data set and network. The size of a network belongs to it, so another network
    than the search's has its own size, unless one was asked for."""
    if settings.training.task != IMAGES:
        return settings
    other = wanted.search and model != wanted.training.training.images.model
    own = {"width": 0, "model_kwargs": {}, "match": ""} if other else {}
    kept = {name: value for name, value in own.items() if name not in wanted.others}
    return settings.replace(dataset=dataset, model=model, **kept)


def functions(store: Store | None, wanted: Wanted) -> tuple[list[Function], Function]:
    """Return the functions, best first, and the reference among them.

    Raises:
        ConfigError: there is nothing to compare with the reference.
        SpaceError: a function is unknown by its name, or no expression.
    """
    found = [*_leaders(store, wanted), *(_named(text, store, wanted) for text in wanted.expressions)]
    found += _baselines(store, wanted)
    known = {function.label: function for function in found}
    reference = known.get(wanted.settings.reference) or _named(wanted.settings.reference, store, wanted)
    distinct = dict[str, Function]()
    for function in (*found, reference):  # the search may have found a function that has a name
        first = distinct.setdefault(function.key, function)
        distinct[function.key] = replace(first, name=first.name or function.name)
    if len(distinct) < 2:
        raise ConfigError(
            f"there is no function to compare with {reference.label}; name some: --expression 'x * tanh(x)', "
            "or --baselines swish1,gelu"
        )
    return list(distinct.values()), distinct[reference.key]


def _leaders(store: Store | None, wanted: Wanted) -> list[Function]:
    top = wanted.settings.top
    if not (store and wanted.search):
        if top:
            raise ConfigError("--top takes the best functions of a search; name it: searcher confirm STUDY --top 3")
        return []
    top = (0 if wanted.expressions else TOP) if top is None else top
    if not top:
        return []
    several = wanted.search.config.get("replicates")
    board = _by_bound(store, wanted.search) if several else store.leaderboard(wanted.search, 2 * top + 100)
    return [_of_row(row, wanted.search) for row in board if row["kind"] == Kind.CANDIDATE][:top]


def _by_bound(store: Store, search: Study) -> list[dict[str, Any]]:
    """Return the leaderboard of a search with replicates in the order of `searcher top`: by what a function's mean
    surely reaches, so that one lucky training does not lead."""
    board = {row["key"]: row for row in store.leaderboard(search)}
    finished = (trial for trial in store.trials(search) if trial.key in board)
    return [board[one.function] for one in ranked(Samples.of_trials(search.objective, finished))]


def _baselines(store: Store | None, wanted: Wanted) -> list[Function]:
    names = wanted.settings.baselines
    if names != ALL:
        return [_named(name, store, wanted) for name in with_sets(names, wanted.training.training.images.site)]
    if not (store and wanted.search):
        return []
    board = store.leaderboard(wanted.search, 0, baselines=True)
    return [_of_row(row, wanted.search) for row in board if row["kind"] == Kind.BASELINE]


def _of_row(row: dict[str, Any], search: Study) -> Function:
    name = "" if row["name"] == "own" else row["name"]
    found = key_of(row["expression"], row["key"])  # older rules may have made the stored one
    return Function(row["expression"], found, name, row[search.objective.name], row["number"])


def _named(text: str, store: Store | None, wanted: Wanted) -> Function:
    """Return a function that is given by its name or as a formula, with its value in the search, if it has one."""
    site = wanted.training.training.images.site
    trial = baseline_trial(0, "maxout" if text.strip() == "maxout(2)" else text, 0, site)
    name = "" if trial.name == "own" else trial.name
    if trial.name == "maxout" and wanted.training.training.task != IMAGES:
        session.check_training(wanted.training, maxout=True)
    rows = store.functions(wanted.search, [trial.key]) if store and wanted.search else []
    searched = _of_row(rows[0], wanted.search) if rows and wanted.search else Function("", "")
    return Function(trial.expression, trial.key, name, searched.searched, searched.trial)


def check(store: Store | None, wanted: Wanted) -> None:
    """Check the functions and seeds that a person asks for, before workers are started.

    Raises:
        ConfigError, SpaceError: what was asked for cannot be done.
    """
    load_primitives({name: None for config in variants(wanted) for name in config.training.primitives})
    functions(store, wanted)
    _seeds(store, wanted)


def planned(
    store: Store | None, wanted: Wanted, digests: Sequence[str], declared: Callable[[Config], Declaration]
) -> NewConfirmation:
    """Return the plan.

    Args:
        store: the store of the search.
        digests: of the data of each of `variants(wanted)`; empty if not known.
        declared: returns what a task measures.

    Raises:
        ConfigError, SpaceError: what was asked for cannot be done.
    """
    chosen, reference = functions(store, wanted)
    tasks: list[StudyTask] = []
    configurations = []
    settings = variants(wanted)
    for name, config, digest in zip(_names(settings), settings, digests, strict=True):
        declaration = declared(config)
        rates = _rates(config, declaration, wanted.settings.tune_lr)
        numbers = [len(tasks) + n for n in range(len(rates) or 1)]
        tuning = [len(rates) + n for n in numbers] if rates else []
        configurations.append(Configuration(name, tuple(numbers), tuple(tuning), rates))
        for tested in (True, False) if rates else (True,):
            for rate in rates or (None,):
                task = _task(_with_rate(config, declaration, rate), declaration, wanted.settings, tested=tested)
                tasks.append(replace(task, number=len(tasks), data_digest=digest))
    _check_metric([(one.name, tasks[one.task_configs[0]].objective) for one in configurations])
    seeds, looks = _seeds(store, wanted)
    plan = Confirmation(
        metric=tasks[0].objective,
        functions=tuple(chosen),
        reference=reference.key,
        configurations=tuple(configurations),
        seeds=seeds,
        looks=looks,
        tuning_metric=tasks[-1].objective if wanted.settings.tune_lr else None,
        tuning_seed=seeds[-1] + 1,
        alpha=wanted.settings.alpha,
        rope=chosen_rope(wanted.settings.rope, tasks[0].objective),
        search=wanted.search.name if wanted.search else "",
        searched=wanted.search.objective if wanted.search else None,
        search_seed=training_seed(wanted.training) if wanted.search else None,
        reproduces=wanted.reproduces,
    )
    stored = wanted.training.replace(study_name=_free_name(store, wanted), n_trials=plan.most_trainings)
    return NewConfirmation(plan, tuple(tasks), stored.replace(pruner="none", baselines=("none",), sampler="random"))


def _check_metric(compared: Sequence[tuple[str, Metric]]) -> None:
    """Raise ConfigError if configurations, given with their names, are compared by different metrics."""
    (first, metric), *others = compared
    for name, other in others:
        if other != metric:
            raise ConfigError(
                f"{first} is compared by {metric.name} ({metric.direction}), and {name} by {other.name} "
                f"({other.direction}); make a confirmation of each"
            )


def create(store: Store, wanted: Wanted, plan: NewConfirmation) -> tuple[Study, Config]:
    """Create the study of a plan, and return it with its settings.

    Raises:
        StudyExists: the name that was asked for is taken.
    """
    settings = plan.settings
    while True:
        try:
            return session.create_design(store, plan.confirmation, plan.tasks, settings), settings
        except StudyExists:  # another confirmation may have taken the free name in the meantime
            if wanted.training.study_name or settings.study_name not in store.names():
                raise
            settings = settings.replace(study_name=_free_name(store, wanted))


def _task(config: Config, declared: Declaration, wanted: ConfirmSettings, *, tested: bool) -> StudyTask:
    """Return a task configuration: one that is compared, by a test metric if the task has one, or, without `tested`,
    one of the tuning, which sees validation metrics only."""
    task = study_task(config, declared)
    if config.training.task == IMAGES:
        evaluation = Evaluation(tested, wanted.vary_split)
        measured = config.training.images.task_config(config.training.primitives, evaluation)
        task = replace(task, config=measured, declared=evaluation.declaration)
    elif wanted.vary_split:
        raise ConfigError(
            f"--vary-split is for image trainings; the task {config.training.task} can split its data by report.seed"
        )
    if tested and (objective := _tested(task, task.objective)):
        tie_breaker = _tested(task, task.tie_breaker)
        return replace(task, objective=objective, tie_breaker=tie_breaker)
    return task if tested else replace(task, declared=task.declared.without_test)


def _tested(task: StudyTask, metric: Metric | None) -> Metric | None:
    """Return the same metric of the test split; None if the task has none."""
    return metric and task.declared.metric(f"test_{metric.name.partition('_')[2]}")


def _rates(config: Config, declared: Declaration, number: int) -> tuple[float, ...]:
    """Return the learning rates that are tried: the usual one, and others that differ by factors of 3."""
    if not number:
        return ()
    if config.training.task == IMAGES:
        usual: Any = config.training.images.recipe.learning_rate
    else:
        usual = next((value for name in RATES if (value := declared.options.get(name)) is not None), None)
    if isinstance(usual, bool) or not isinstance(usual, (int, float)) or not usual > 0:
        raise ConfigError(
            f"--tune-lr needs to know the usual learning rate; the task {config.training.task} has no option "
            f"{' or '.join(RATES)} with a positive number: add one to your function, as in learning_rate=0.01"
        )
    return tuple(float(f"{usual * FACTOR**power:.6g}") for power in range(-(number // 2), number // 2 + 1))


def _with_rate(config: Config, declared: Declaration, rate: float | None) -> Config:
    if rate is None:
        return config
    if config.training.task == IMAGES:
        return config.replace(recipe=replace(config.training.images.recipe, learning_rate=rate))
    name = next(name for name in RATES if declared.options.get(name) is not None)
    return config.replace(task_kwargs={**config.training.task_kwargs, name: rate})


def _seeds(store: Store | None, wanted: Wanted) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the training seeds, and after how many of them the data are looked at.

    Raises:
        ConfigError: the search chose its functions by trainings with one of these.
    """
    settings, used = wanted.settings, set[int]()
    if store and wanted.search:
        used = queries.training_seeds(store, wanted.search)
    number = settings.seeds or (LOOKS[-1] if settings.until_sure else SEEDS)
    looks = (*(look for look in LOOKS if settings.until_sure and look < number), number)
    free = _first_free(used, number)
    first = free if settings.first_seed is None else settings.first_seed
    seeds = range(first, first + number)
    if shared := used & set(seeds):
        raise ConfigError(
            f"the search chose its functions by trainings with seed {min(shared)}, so these count for nothing in a "
            f"confirmation with seeds {seeds[0]} to {seeds[-1]}; give --first-seed {free}, or leave it out"
        )
    return tuple(seeds), looks


def _first_free(used: Set[int], number: int) -> int:
    """Return the first of so many seeds in a row, and one more for the tuning, that the search has not used: the one
    after the greatest, if there are so many."""
    starts = max(used, default=-1) + 1, 0, *(seed + 1 for seed in sorted(used))
    return next(one for one in starts if one + number <= LARGEST_SEED and used.isdisjoint(range(one, one + number + 1)))


def _names(settings: Sequence[Config]) -> list[str]:
    """Return names for people, all different: `resnet8 on digits`."""
    names = [_name(config) for config in settings]
    for place, config in enumerate(settings):
        if names.count(_name(config)) > 1:
            changed = differences(settings[0], config) or differences(settings[place - 1], config)
            said = ", ".join(f"{name} {value}" for name, _, value in changed if name not in ("dataset", "model"))
            names[place] += f" ({said or 'as in the search'})" if place else ""
    return names


def _name(config: Config) -> str:
    training = config.training
    if training.task != IMAGES:
        return without_folders(training.task)
    return f"{training.images.model} on {training.images.dataset}"


def _free_name(store: Store | None, wanted: Wanted) -> str:
    if wanted.training.study_name:
        return wanted.training.study_name
    stem = f"{wanted.search.name if wanted.search else 'functions'}-confirmed"[: NAME_LENGTH - 10]
    taken = set(store.names()) if store else set()
    return next(name for n in range(1, len(taken) + 2) if (name := f"{stem}-{n}") not in taken)


def seconds_each(store: Store, search: Study) -> float | None:
    """Return how long a training of a search took, the median over the latest ones; None if none was finished."""
    found = queries.training_seconds(store, search, RECENT)
    return median(found) if found else None
