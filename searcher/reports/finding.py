"""Find the trainings of a function in a store, whatever it was called there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from search_space import ALIASES, KNOWN, key, parse
from searcher.display import headline
from searcher.driver import keys as present
from searcher.driver.keys import is_current
from searcher.records import Study, StudyTask, Trial
from searcher.reports.words import task_words
from searcher.store import queries
from searcher.store.store import Store

COLUMNS = (
    *("study", "kind", "number", "expression", "name", "seed", "judged_by", "task_config", "data_digest", "state"),
    *("reason", "cites", "cites_other_function", "objective", "value", "metrics"),
)
MAXOUT = "maxout(2)"  # the text and the key of Maxout, which is no expression


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a person names.

    Attributes:
        label: what it is called in reports: its name if it was named, otherwise the expression.
        expression: as text in normal form.
        key: its key by today's rules.
    """

    label: str
    expression: str
    key: str


@dataclass(frozen=True, slots=True)
class Training:
    """A trial of a function in a study. The trial's key is that of today's rules.

    Attributes:
        wrong: the number of the cited trial, if that is the training of another function by today's rules.
    """

    study: Study
    trial: Trial
    wrong: int | None = None

    @property
    def task(self) -> StudyTask:
        """The task configuration that judged it."""
        return self.study.tasks[self.trial.task_config]


def function_of(text: str) -> Function:
    """Return the function of a formula or of a known name.

    Raises:
        ParseError: the text is neither.
    """
    name = text.strip()
    if name == "maxout":
        return Function(name, MAXOUT, MAXOUT)
    tree = parse(text)
    known = ALIASES.get(name, name) in KNOWN
    return Function(name if known else str(tree), str(tree), key(tree))


def trainings(store: Store, keys: Collection[str], studies: Sequence[Study] | None = None) -> list[Training]:
    """Return the trials of the functions with these keys, study by study, by number.

    The keys of a study may have been made by older rules. Those are computed anew, in memory.

    Args:
        studies: where to look; None means every study of the store.
    """
    found = [summary.study for summary in store.studies()] if studies is None else studies
    return [training for study in found for training in _of_study(store, study, keys)]


def _of_study(store: Store, study: Study, keys: Collection[str]) -> list[Training]:
    if is_current(study):
        return [Training(study, trial) for trial in queries.trials_of(store, study, list(keys))]
    known = {trial.number: replace(trial, key=key_of(trial.expression, trial.key)) for trial in store.trials(study)}
    found = []
    for trial in known.values():
        if trial.key in keys:
            cited = known.get(trial.cites) if trial.cites is not None else None
            found.append(Training(study, trial, cited.number if cited and cited.key != trial.key else None))
    return found


@lru_cache(maxsize=65_536)
def key_of(expression: str, stored: str) -> str:
    """Return what `driver.keys.key_of` returns. The same few functions are asked for again and again."""
    return present.key_of(expression, stored)


def row(found: Training) -> dict[str, Any]:
    """Return a training as a row for people and programs."""
    trial, task = found.trial, found.task
    value = None if found.wrong is not None else trial.value
    return {
        "study": found.study.name,
        "kind": str(found.study.kind),
        "number": trial.number,
        "expression": trial.expression,
        "name": trial.name,
        "seed": trial.seed,
        "judged_by": task_words(task.config),
        "task_config": task.config.hash,
        "data_digest": task.data_digest,
        "state": str(trial.state),
        "reason": headline(trial.reason),
        "cites": trial.cites,
        "cites_other_function": found.wrong is not None,
        "objective": task.objective.name,
        "value": value,
        "metrics": {} if found.wrong is not None else dict(trial.metrics),
    }
