"""Two searches of an older version, told again: the default one, and one with a pruner in a small space.

`replays` holds what searcher 165274a found, which measured two fixed numbers: real trainings of 60 trials each.
Here each training is looked up, and everything else is done anew: proposals, refusals, cut-offs, citations, ranking.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from searcher.driver import leases, session
from searcher.records import StudyKind, Trial, TrialState
from searcher.settings import loading
from searcher.store.store import Store
from tests.support.made import measures, point
from workers.contract import Job, Outcome, Point, Verdict
from workers.pools.base import InlinePool

REPLAYS = sorted((Path(__file__).parent / "replays").glob("*.json"))


class Replay:
    """The stored results of one search."""

    def __init__(self, text: str) -> None:
        stored = json.loads(text)
        self.config: dict[str, Any] = stored["config"]
        self.rows = [dict(zip(stored["columns"], row, strict=True)) for row in stored["trials"]]
        self.leaderboard: list[int] = stored["leaderboard"]
        self.curves = {
            int(number): tuple(point(epoch, *values) for epoch, values in enumerate(curve, 1))
            for number, curve in stored["curves"].items()
        }

    def outcome(self, job: Job) -> Outcome:
        """Return what the training came to; a cut-off that would stop it elsewhere is an error."""
        row, curve = self.rows[job.number], self.curves.get(job.number, ())
        assert job.expression == row["expression"]
        if row["state"] == "COMPLETE" or "behind in" in row["reason"]:
            assert self.stopped_at(job, curve) == (None if row["state"] == "COMPLETE" else len(curve))
        metrics = {} if row["val_loss"] is None else measures(row["val_loss"], row["val_acc"])
        return Outcome(Verdict(row["state"]), row["reason"], metrics, curve, row["parameters"])

    @staticmethod
    def stopped_at(job: Job, curve: tuple[Point, ...]) -> int | None:
        lengths = range(1, len(curve) + 1)
        return next((n for n in lengths if any(cutoff.missed(curve[:n]) for cutoff in job.cutoffs)), None)


def as_stored(trial: Trial) -> dict[str, Any]:
    """A trial as the older version wrote it."""
    return {
        "number": trial.number,
        "kind": str(trial.kind),
        "name": trial.name,
        "expression": trial.expression,
        "key": trial.key,
        "choices": None if trial.choices is None else json.dumps(trial.choices),
        "seed": trial.seed,
        "state": str(trial.state),
        "reason": trial.reason,
        "cites": trial.cites,
        "val_loss": trial.metrics.get("val_loss"),
        "val_acc": trial.metrics.get("val_acc"),
        "parameters": trial.parameters,
        "finish_order": trial.finish_order,
    }


@pytest.mark.parametrize("path", REPLAYS, ids=lambda path: path.stem)
def test_a_search_proposes_decides_and_ranks_as_before(path: Any, sqlite_url: str) -> None:
    """Seen to fail with a reward of another scale, and with a cut-off that is one rung late."""
    replay = Replay(path.read_text())
    store = Store(sqlite_url, create=True)
    settings = loading.load(None, {}, before=replay.config)
    study = session.create_study(store, settings)
    pool = InlinePool(run=replay.outcome)
    with leases.held_lease(store, study) as lease:
        for _ in session.search(store, lease, study, settings, pool, lambda: False):
            pass
    pool.close()
    assert study.kind is StudyKind.SEARCH and study.objective.name == replay.config["objective"]
    trials = store.trials(study)
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE}
    assert [as_stored(trial) for trial in trials] == replay.rows
    assert [row["number"] for row in store.leaderboard(study)] == replay.leaderboard
    assert [row["number"] for row in store.leaderboard(study, 5)] == replay.leaderboard[:5]
    store.close()
