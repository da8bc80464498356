"""Collect what a search, or a design that is no confirmation, has found."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from typing import Any

from searcher.display import headline
from searcher.evidence import EvidenceError, compare, remarks, sentence
from searcher.records import Study, StudyTask, TrialState
from searcher.reports.comparing import samples_of
from searcher.reports.finding import Training
from searcher.reports.mirrors import marked
from searcher.reports.report import Row
from searcher.reports.words import label_of, task_words
from searcher.store import queries
from searcher.store.store import Store

REASONS = 5  # the most frequent reasons of infeasible functions


def facts(store: Store, study: Study, leaders: int) -> dict[str, Any]:
    """Return the settings of a search, how its trials ended, and its best functions beside ReLU."""
    boards = [_board(store, study, task, leaders) for task in study.tasks]
    config, first = study.config, boards[0]
    return {
        "sampler": config.get("sampler"),
        "space": config.get("space"),
        "units": config.get("units"),
        "seed": config.get("seed"),
        "training_seeds": _seeds(first),
        "objective": study.objective.name,
        "direction": str(study.objective.direction),
        "unit": study.objective.unit,
        "metrics": [metric.name for metric in study.task.shown],
        "totals": asdict(queries.totals(store, study)),
        "reasons": _reasons(store, study),
        "leaderboard": first,
        "others": [
            {"configuration": task_words(task.config), "objective": task.objective.name, "leaderboard": board}
            for task, board in zip(study.tasks[1:], boards[1:], strict=True)
            if board
        ],
        "against_relu": _against_relu(store, study, first),
    }


def _board(store: Store, study: Study, task: StudyTask, leaders: int) -> list[dict[str, Any]]:
    """Return the first functions and all baselines, with their values by seed."""
    rows = store.leaderboard(study, leaders, baselines=True, task_config=task.number)
    if task.number == 0:
        rows = marked(store, study, rows)
    found: dict[str, dict[str, float]] = {}
    for trial in queries.trials_of(store, study, [row["key"] for row in rows]):
        mine = trial.task_config == task.number and trial.cites is None
        if mine and trial.state is TrialState.COMPLETE and trial.value is not None:
            found.setdefault(trial.key, {}).setdefault(str(trial.seed), trial.value)
    return [{**row, "label": label_of(row), "values": found.get(row["key"], {})} for row in rows]


def _seeds(board: list[dict[str, Any]]) -> list[int]:
    return sorted({int(seed) for row in board for seed in row["values"]})


def _reasons(store: Store, study: Study) -> list[dict[str, Any]]:
    """Return why functions were infeasible, the most frequent reason first. Reasons that differ by a number only, as in
    `at epoch 2`, are one."""
    counts: Counter[str] = Counter()
    for reason, trials in queries.infeasible_reasons(store, study):
        counts[re.sub(r"\d+", "n", headline(reason))] += trials
    return [{"reason": reason, "count": n} for reason, n in counts.most_common(REASONS)]


def _against_relu(store: Store, study: Study, board: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the best function beside ReLU; None if one of them is missing or both are one."""
    relu: Row | None = next((row for row in board if row["name"] == "relu"), None)
    if relu is None or board[0]["key"] == relu["key"]:
        return None
    best, merit = board[0], study.objective.merit
    name = study.objective.name
    keys = {best["key"]: best["label"], relu["key"]: "relu"}
    known = [Training(study, trial) for trial in queries.trials_of(store, study, list(keys)) if trial.task_config == 0]
    samples = samples_of(known, study.objective, keys, task_words(study.task.config))
    found: dict[str, Any] = {
        "best": best["label"],
        "value": best[name],
        "relu": relu[name],
        "better_by": merit(best[name]) - merit(relu[name]),
        "seeds": min(best["n_trials"], relu["n_trials"]),
        "sentence": "",
        "remarks": [],
        "comparison": None,
    }
    try:
        evidence = compare(samples, "relu")
    except EvidenceError:
        return found
    (comparison,) = evidence.comparisons
    said = {"sentence": sentence(comparison, evidence), "remarks": list(remarks(comparison, evidence))}
    return found | said | {"comparison": asdict(comparison)}


def winner(found: dict[str, Any]) -> dict[str, Any] | None:
    """Return the best function of a search; None if no training ended with a value."""
    board = found["leaderboard"]
    if not board:
        return None
    best = board[0]
    return {
        "label": best["label"],
        "expression": best["expression"],
        "key": best["key"],
        "name": best["name"],
        "beats_reference": bool(found["against_relu"] and found["against_relu"]["better_by"] > 0),
        "reference": "relu",
        "confirmed": False,
    }
