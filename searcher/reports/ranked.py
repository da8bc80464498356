"""Rank the functions of a study. Where functions were trained with several seeds, noise is taken into account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from searcher.confirmation import Function
from searcher.evidence import Samples, ranked
from searcher.records import Kind, Study, StudyKind, StudyTask, Trial, TrialState
from searcher.reports.confirmed import Confirmed, is_confirmation
from searcher.reports.words import task_words
from searcher.store.store import Store
from workers.contract import Metric


def leaderboard(
    store: Store, study: Study, limit: int | None = None, *, baselines: bool = False
) -> list[dict[str, Any]]:
    """Return a study's functions, best first, as `Store.leaderboard` does.

    In most searches each function has one training seed, and its values rank it. In a design, and in a search with
    replicates, there are several: a function is ranked by what its mean surely reaches, and has three more fields:
    `diverged` (trainings), `bound` (that value) and `tied` (whether the leader is not shown to be better). A design has
    a row for each function and configuration, with a field `configuration`.
    """
    if study.kind is StudyKind.SEARCH and not study.config.get("replicates"):
        return store.leaderboard(study, limit, baselines=baselines)
    board = {
        (task.number, row["key"]): row
        for task in study.tasks
        for row in store.leaderboard(study, task_config=task.number)
    }
    found = []
    for samples, tasks in _samples(store, study):
        for one in ranked(samples):
            task, function = tasks[one.function]
            row = board.get((task.number, function.key)) or _without_value(function, task)
            shown = limit is None or one.rank <= limit or (baselines and row["kind"] == Kind.BASELINE)
            if not shown:
                continue
            found.append(
                {
                    **({"configuration": samples.configuration} if len(study.tasks) > 1 else {}),
                    **row,
                    "rank": one.rank,
                    "diverged": one.diverged,
                    "bound": one.bound,
                    "tied": one.tied,
                }
            )
    return found


@dataclass(frozen=True, slots=True)
class Board:
    """The best functions of all searches that have the same task configuration, data and objective.

    Attributes:
        judged_by: the task configuration in words.
        objective: the metric that ranks them.
        metrics: the metrics of each row.
        rows: the rows of the searches' leaderboards, best first, each with its rank here, its study and `judged_by`. A
            function that several searches have trained has a row for each: their seeds may differ.
    """

    judged_by: str
    objective: Metric
    metrics: tuple[Metric, ...]
    rows: tuple[dict[str, Any], ...]


def across(store: Store, limit: int) -> list[Board]:
    """Rank the functions of all searches of a database. Values of different task configurations or data cannot be
    compared, so each of these has a ranking of its own.

    Args:
        limit: number of rows of a ranking.
    """
    searches = [one.study for one in store.studies() if one.study.kind is StudyKind.SEARCH]
    groups: dict[tuple[str, str, Metric], list[Study]] = {}
    for study in searches:
        groups.setdefault((study.task.config.hash, study.task.data_digest, study.objective), []).append(study)
    found = []
    for (_, _, objective), studies in groups.items():
        rows = [{"study": one.name, **row} for one in studies for row in store.leaderboard(one, limit)]
        rows.sort(key=lambda row: -objective.merit(row[objective.name]))
        if rows:
            task, words = studies[0].task, task_words(studies[0].task.config)
            ranked_rows = [{**row, "rank": rank, "judged_by": words} for rank, row in enumerate(rows[:limit], 1)]
            found.append(Board(words, objective, task.shown, tuple(ranked_rows)))
    return found


def _samples(store: Store, study: Study) -> list[tuple[Samples, dict[str, tuple[StudyTask, Function]]]]:
    """Return the values under each configuration, and the task configuration of each function there."""
    if is_confirmation(study):
        found = Confirmed.of(store, study)
        return [
            (
                samples,
                {
                    one.label: (study.tasks[found.results.chosen(configuration, one.key)], one)
                    for one in found.plan.functions
                },
            )
            for samples, configuration in zip(found.samples, found.plan.configurations, strict=True)
        ]
    trials = store.trials(study)
    if study.kind is StudyKind.SEARCH:  # it ranks what was trained to the end
        finished = {trial.key for trial in trials if trial.state is TrialState.COMPLETE}
        trials = [trial for trial in trials if trial.key in finished]
    return [_of_trials(task, [trial for trial in trials if trial.task_config == task.number]) for task in study.tasks]


def _of_trials(task: StudyTask, trials: list[Trial]) -> tuple[Samples, dict[str, tuple[StudyTask, Function]]]:
    functions = {trial.key: (task, Function(trial.expression, trial.key, trial.name)) for trial in trials}
    return Samples.of_trials(task.objective, trials, str(task.number)), functions


def _without_value(function: Function, task: StudyTask) -> dict[str, Any]:
    """Return the row of a function of which no training finished."""
    return {
        "rank": 0,
        "expression": function.expression,
        "key": function.key,
        "kind": "candidate",
        "name": function.name,
        "n_trials": 0,
        **{metric.name: None for metric in task.shown},
        "state": "INFEASIBLE",
        "number": None,
    }
