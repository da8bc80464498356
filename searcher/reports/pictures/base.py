"""What the pictures share: their table's row, the records that they are made of, and what they say when there are
none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from search_space import Expression, SpaceError, parse
from searcher import SearcherError
from searcher.records import Study, Trial, TrialState
from searcher.reports.confirmed import Confirmed, is_confirmation
from searcher.store.store import Store
from workers.contract import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = Mapping[str, Any]
SEARCH, CONFIRMATION = "search", "confirmation"


class NothingToDraw(SearcherError):
    """A study has nothing yet that a picture could show."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A kind of picture.

    Attributes:
        title: what it shows, in words.
        of: the kinds of studies that have it.
        data: reads what it shows from the store, as plain values.
        draw: draws these data.
        fits: tells if a study may have it; more than its kind decides.
    """

    title: str
    of: frozenset[str]
    data: Callable[[Store, Study], dict[str, Any]]
    draw: Callable[[Data], Figure]
    fits: Callable[[Study], bool] = bool


def kind_of(study: Study) -> str:
    """Return what a study is to the pictures: a confirmation, or a search."""
    return CONFIRMATION if is_confirmation(study) else SEARCH


def finished_trials(store: Store, study: Study) -> list[Trial]:
    """Return the trials that have ended under the first task configuration, in the order in which they ended.

    Raises:
        NothingToDraw: there are none.
    """
    found = [trial for trial in store.trials(study) if trial.finish_order is not None and trial.task_config == 0]
    if not found:
        raise NothingToDraw(f"no trial of study {study.name!r} has ended yet")
    return sorted(found, key=lambda trial: trial.finish_order or 0)


def complete(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials with a result of their own."""
    return [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.value is not None and trial.cites is None
    ]


def no_result(study: Study) -> NothingToDraw:
    """Return the error that no function of a study was trained to the end."""
    return NothingToDraw(f"no function of study {study.name!r} has been trained to the end yet")


def ranked(store: Store, study: Study, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the ranked functions as plain values, the first `limit` of them and all baselines.

    Raises:
        NothingToDraw: there are none.
    """
    rows = store.leaderboard(study, limit, baselines=limit is not None)
    if not rows:
        raise no_result(study)
    return [
        {
            "rank": row["rank"],
            "expression": row["expression"],
            "name": known_name(row["name"]),
            "baseline": row["kind"] == "baseline",
            "value": row[study.objective.name],
            "trainings": row["n_trials"],
            "number": row["number"],
        }
        for row in rows
    ]


def leaders(store: Store, study: Study, number: int) -> list[dict[str, Any]]:
    """Return the best `number` candidates, and all baselines, by their ranks.

    Raises:
        NothingToDraw: there are none.
    """
    rows = ranked(store, study, number)
    marks = [row for row in rows if row["baseline"]]
    if len(rows) - len(marks) < number and marks:  # baselines are among the first
        rows = ranked(store, study, number + len(marks))
    candidates = [row for row in rows if not row["baseline"]][:number]
    return [row for row in rows if row["baseline"] or row in candidates]


def leading(store: Store, study: Study, number: int) -> tuple[Metric, str, list[dict[str, Any]]]:
    """Return the leaders of a search, or all functions of a confirmation under its first configuration.

    Returns:
        The metric of the values, the name of the configuration (empty for a search), and the functions by their ranks,
        baselines among them. The only baseline of a confirmation is its reference.

    Raises:
        NothingToDraw: there are none.
    """
    if not is_confirmation(study):
        return study.objective, "", leaders(store, study, number)
    found = Confirmed.of(store, study)
    metric, samples = found.plan.metric, found.samples[0]
    merits = {one.label: samples.merits(one.label) for one in found.plan.functions}
    order = sorted(
        (one for one in found.plan.functions if merits[one.label]), key=lambda one: -fmean(merits[one.label])
    )
    if not order:
        raise no_result(study)
    rows = [
        {
            "rank": rank,
            "expression": one.expression,
            "name": one.name,
            "baseline": one.key == found.plan.reference,
            "value": metric.merit(fmean(merits[one.label])),
            "trainings": len(merits[one.label]),
        }
        for rank, one in enumerate(order, 1)
    ]
    return metric, samples.configuration, rows


def known_name(name: str) -> str:
    """Return the name of a known function; empty for a baseline of the user's own, which has none."""
    return "" if name == "own" else name


def label(row: Data) -> str:
    """Return what people call a function: its name, or the expression."""
    return str(row["name"] or row["expression"])


def baselines(rows: Sequence[Data]) -> list[dict[str, Any]]:
    """Return names and values of the baselines among ranked functions, best first."""
    return [{"name": label(row), "value": row["value"]} for row in rows if row["baseline"]]


def tree_of(text: str) -> Expression | None:
    """Return an expression as a tree; None for Maxout and for primitives that are not registered here."""
    try:
        return parse(text)
    except SpaceError:
        return None


def front(costs: Sequence[float], merits: Sequence[float]) -> list[int]:
    """Return the indices of the Pareto front in the order of their costs: what no other beats in one without losing in
    the other."""
    found: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -merits[i])):
        if not found or merits[index] > merits[found[-1]]:
            found.append(index)
    return found
