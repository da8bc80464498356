"""Rank the functions of a study. Where functions were trained with several seeds, noise is taken into account."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from searcher.evidence import Samples, ranked
from searcher.records import Study, StudyKind, StudyTask, Trial
from searcher.reports.confirmed import Confirmed, is_confirmation
from searcher.store.store import Store


def leaderboard(store: Store, study: Study, limit: int | None = None) -> list[dict[str, Any]]:
    """Return a study's functions, best first, as `Store.leaderboard` does.

    In a search each function has one training seed, and its values rank it. In a design there are several: a function
    is ranked by what its mean surely reaches, and has three more fields: `diverged` (trainings), `bound` (that value)
    and `tied` (whether the leader is not shown to be better). A design has a row for each function and configuration,
    with a field `configuration`.
    """
    if study.kind is StudyKind.SEARCH:
        return store.leaderboard(study, limit)
    board = {
        (task.number, row["key"]): row
        for task in study.tasks
        for row in store.leaderboard(study, task_config=task.number)
    }
    found = []
    for samples, tasks in _samples(store, study):
        for one in ranked(samples)[:limit]:
            task, key = tasks[one.function]
            row = board.get((task.number, key)) or _without_value(key, one.function, task)
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


def _samples(store: Store, study: Study) -> list[tuple[Samples, dict[str, tuple[StudyTask, str]]]]:
    """Return the values under each configuration, and the task configuration and key of each function there."""
    if is_confirmation(study):
        found = Confirmed.of(store, study)
        return [
            (
                samples,
                {
                    one.label: (study.tasks[found.results.chosen(configuration, one.key)], one.key)
                    for one in found.plan.functions
                },
            )
            for samples, configuration in zip(found.samples, found.plan.configurations, strict=True)
        ]
    trials = [trial for trial in store.trials(study) if trial.state.judged and trial.cites is None]
    return [_of_trials(task, [trial for trial in trials if trial.task_config == task.number]) for task in study.tasks]


def _of_trials(task: StudyTask, trials: list[Trial]) -> tuple[Samples, dict[str, tuple[StudyTask, str]]]:
    values: defaultdict[str, dict[int, float | None]] = defaultdict(dict)
    for trial in trials:
        values[trial.key][trial.seed] = trial.value if trial.merit is not None else None
    return Samples(task.objective, values, str(task.number)), {key: (task, key) for key in values}


def _without_value(key: str, label: str, task: StudyTask) -> dict[str, Any]:
    """Return the row of a function of which no training finished."""
    return {
        "rank": 0,
        "expression": label,
        "key": key,
        "kind": "candidate",
        "name": "",
        "n_trials": 0,
        **{metric.name: None for metric in task.shown},
        "state": "INFEASIBLE",
        "number": None,
    }
