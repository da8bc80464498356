"""Collect what the report of a study says, as plain values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from search_space import SpaceError, code
from searcher import __version__
from searcher.display import OWN, as_json, headline
from searcher.records import Study, StudyKind, TrialState
from searcher.reports import published
from searcher.reports.confirmed import Confirmed, is_confirmation, plan_of
from searcher.reports.document import confirmation, illustrations, reproduction, search, story
from searcher.reports.learned import LearnedFunction
from searcher.reports.words import metric_facts, task_words
from searcher.store import queries
from searcher.store.store import Store

VERSION = 1  # of the structure of these values
LANGUAGE = "torch"  # of the best function's code
LEADERS = 50  # functions of a search in a report; its baselines are in it too
MEASURED = 12  # functions whose cost is measured


def report_data(store: Store, study: Study, *, costs: bool = True) -> dict[str, Any]:
    """Return what the report of a study says. All values are plain, finite and the same for the same database, but the
    costs, which are measured.

    Args:
        costs: measure what the leading functions cost on this machine, which takes some seconds.

    Raises:
        StoreError: the database cannot be read.
    """
    confirmed = Confirmed.of(store, study) if is_confirmation(study) else None
    data: dict[str, Any] = {
        "report": VERSION,
        "searcher": __version__,
        "study": _study(store, study),
        "metric": metric_facts(confirmed.plan.metric if confirmed else study.objective),
        "search": None if confirmed else search.facts(store, study, LEADERS),
        "confirmation": confirmation.facts(confirmed) if confirmed else None,
        "related": _related(store, study, confirmed),
    }
    won = confirmation.winner(data["confirmation"]) if confirmed else search.winner(data["search"])
    data["published"] = published.facts(confirmed) if confirmed else None
    data["winner"] = won
    learned = _learned(store, study, won)
    data["code"] = _code(won, study, learned)
    data["pictures"] = illustrations.pictures_of(store, study, costs=costs)
    data["costs"] = illustrations.costs_of(_leaders(data) if costs else [], data["pictures"])
    data["reproduction"] = reproduction.facts(study, confirmed.plan if confirmed else None)
    said = {"title": story.title(data), "headline": story.headline(data), "story": story.sentences(data)}
    plain: dict[str, Any] = json.loads(as_json({**said, "facts": story.key_facts(data), **data}))
    return plain


def _study(store: Store, study: Study) -> dict[str, Any]:
    counts = store.counts(study)
    kind = "confirmation" if is_confirmation(study) else str(study.kind)
    return {
        "name": study.name,
        "kind": kind,
        "created": f"{study.created_at:%Y-%m-%d %H:%M} UTC" if study.created_at else "",
        "n_trials": study.n_trials,
        "ended": sum(n for state, n in counts.items() if state.finished),
        "states": {str(state): counts.get(state, 0) for state in TrialState},
        "tasks": [task_words(task.config) for task in study.tasks],
    }


def _related(store: Store, study: Study, confirmed: Confirmed | None) -> list[dict[str, Any]]:
    """Return the search of a confirmation, or the confirmations of a search, in short."""
    if confirmed:
        name = confirmed.plan.search
        if not name or name not in store.names():
            return []
        known = store.study(name)
        facts = search.facts(store, known, 10)
        data: dict[str, Any] = {"study": _study(store, known), "metric": metric_facts(known.objective), "search": facts}
        data["winner"] = search.winner(facts)
        short = {"leaderboard": facts["leaderboard"], "metrics": facts["metrics"]}
        return [{"study": name, "kind": "search", "story": story.of_search_in_short(data), **short}]
    if study.kind is not StudyKind.SEARCH:
        return []
    designs = [summary.study for summary in store.studies() if is_confirmation(summary.study)]
    return [
        {
            "study": design.name,
            "kind": "confirmation",
            "story": story.of_confirmation_in_short(confirmation.facts(Confirmed.of(store, design))),
        }
        for design in designs
        if plan_of(design).search == study.name
    ]


def _leaders(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the labels and expressions of the functions whose costs are of interest, the best first."""
    if data["confirmation"]:
        return [(one["label"], one["expression"]) for one in data["confirmation"]["functions"]][:MEASURED]
    board: Sequence[dict[str, Any]] = data["search"]["leaderboard"]
    found = [*board[:5], *(row for row in board[5:] if row["name"] == "relu")]
    return [(row["label"], row["expression"]) for row in found]


def _learned(store: Store, study: Study, winner: dict[str, Any] | None) -> LearnedFunction | None:
    """Return the best function as its first training has learned it; None if it has no learned parameters."""
    number = queries.first_learned(store, study, winner["expression"]) if winner else None
    try:
        return None if number is None else LearnedFunction.of(store, study, number)
    except SpaceError:  # the function needs primitives that are not registered here
        return None


def _code(winner: dict[str, Any] | None, study: Study, learned: LearnedFunction | None) -> dict[str, Any] | None:
    """Return the best function as code, as `searcher code` prints it, with what a training has made of its parameters;
    the reason if there is none."""
    if winner is None:
        return None
    expression = winner["expression"]
    name = winner["name"] if winner["name"] not in ("", OWN) else ""
    found: dict[str, Any] = {"language": LANGUAGE, "expression": expression, "text": "", "why_not": "", "learned": []}
    starts = None
    if learned:
        starts = [[value] for value in learned.medians]
        found |= {"learned": [asdict(one) for one in learned.parameters], "learned_by": learned.where}
    try:
        return found | {"text": code(expression, LANGUAGE, name=name, betas=starts)}
    except SpaceError as error:
        why = headline(str(error))
        if primitives := study.tasks[0].config.primitives:
            why += f"; it may need the study's own primitives: searcher code --primitives {','.join(primitives)}"
        return found | {"why_not": why}
