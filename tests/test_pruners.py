"""Stopping early what is bad: cut-offs, the training that heeds them, the search that hands them out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_space import key, parse
from searcher.driver import leases, session
from searcher.pruners import PRUNERS, Pruner, Rule
from searcher.records import Kind, Objective, Study, Trial, TrialState
from searcher.samplers.contract import observation_of
from searcher.settings.config import Config
from searcher.store.store import Store
from workers.contract import Cutoff, Epoch, Job, Outcome, Recipe, Verdict
from workers.pools.base import InlinePool
from workers.tasks.images.train import train

HALVING = PRUNERS["halving"]
assert HALVING


def told(number: int, state: TrialState = TrialState.COMPLETE) -> Trial:
    return Trial(number, Kind.CANDIDATE, "x", str(number), 0, state=state)


def curve(*losses: float) -> list[Epoch]:
    return [Epoch(number, loss, loss, 1 / (1 + loss)) for number, loss in enumerate(losses, start=1)]


def pruner(
    losses: Sequence[Sequence[float]], rule: Rule = HALVING, objective: Objective = Objective.VAL_LOSS
) -> Pruner:
    made = Pruner(rule, Objective(objective))
    for number, values in enumerate(losses):
        whole = len(values) == max(map(len, losses))
        made.tell(told(number, TrialState.COMPLETE if whole else TrialState.PRUNED), curve(*values))
    return made


@pytest.mark.parametrize(
    ("name", "epochs", "rungs"),
    [
        ("halving", 1, {}),
        ("halving", 2, {1: 0.4}),
        ("halving", 4, {1: 0.4, 2: 0.3, 3: 0.2}),
        ("halving", 8, {1: 0.4, 3: 0.3, 6: 0.2}),
        ("halving", 12, {2: 0.4, 5: 0.3, 9: 0.2}),
        ("halving", 200, {33: 0.4, 83: 0.3, 150: 0.2}),
        ("median", 1, {}),
        ("median", 4, {1: 0.5, 2: 0.5, 3: 0.5}),
    ],
)
def test_rungs(name: str, epochs: int, rungs: dict[int, float]) -> None:
    rule = PRUNERS[name]
    assert rule
    assert rule.rungs(epochs) == rungs
    made = pruner([[1.0] * epochs] * 10, rule)
    assert [cutoff.epoch for cutoff in made.cutoffs()] == list(rungs)
    assert made.first_rung == min(rungs, default=0)


def test_there_are_no_cutoffs_before_a_whole_training_and_enough_curves() -> None:
    made = Pruner(HALVING, Objective.VAL_LOSS)
    for number in range(9):
        made.tell(told(number, TrialState.PRUNED), curve(2.0))
    made.tell(told(9, TrialState.INFEASIBLE), curve(2.0, 2.0))
    assert made.cutoffs() == ()
    assert made.first_rung == 0
    made.tell(told(10), curve(2, 2, 2, 2))
    assert [cutoff.epoch for cutoff in made.cutoffs()] == [1]  # only one of ten has come to the second rung
    assert made.first_rung == 1
    assert not pruner([[1.0] * 4] * 4).cutoffs()


LOSSES = st.integers(0, 40).map(lambda tenths: tenths / 10)


@given(st.lists(st.lists(LOSSES, min_size=4, max_size=4), min_size=5, max_size=30), st.randoms())
def test_the_share_goes_on_and_the_order_does_not_matter(losses: list[list[float]], draw: object) -> None:
    for objective in Objective:
        cutoffs = pruner(losses, objective=objective).cutoffs()
        # On these curves both losses agree.
        for cutoff, share in zip(cutoffs, (0.4, 0.3, 0.2), strict=True):
            kept = [values for values in losses if not cutoff.missed(curve(*values[: cutoff.epoch]))]
            best = sorted(min(values[: cutoff.epoch]) for values in losses)
            assert len(kept) >= share * len(losses)
            assert max(min(values[: cutoff.epoch]) for values in kept) == best[math.ceil(share * len(losses)) - 1]
        shuffled = list(losses)
        draw.shuffle(shuffled)  # type: ignore[attr-defined]
        assert pruner(shuffled, objective=objective).cutoffs() == cutoffs


def test_those_that_were_stopped_count_as_worse() -> None:
    losses = [[1.0, 0.9, 0.8, 0.7]] * 3 + [[2.0]] * 4 + [[1.1, 1.0, 0.9, 0.8]] * 3
    assert [cutoff.limit for cutoff in pruner(losses).cutoffs()] == [1.1, 0.9, 0.8]


def test_baselines_tell_how_long_a_training_is_and_nothing_more() -> None:
    made = pruner([[3.0] * 4] * 10)
    before = made.cutoffs()
    for number in range(10, 20):
        made.tell(replace(told(number), kind=Kind.BASELINE), curve(0, 0, 0, 0))
    assert made.cutoffs() == before


def test_a_rung_that_no_candidate_has_reached_has_no_cutoff() -> None:
    """Seen to fail with an IndexError, in the search and in each that went on with it."""
    for rule in ("halving", "median"):
        made = pruner([[3.0]] * 5, PRUNERS[rule] or HALVING)
        made.tell(replace(told(5), kind=Kind.BASELINE), curve(*[1.0] * 8))
        assert [cutoff.epoch for cutoff in made.cutoffs()] == [1]


def test_late_in_a_training_the_objective_alone_counts() -> None:
    cutoffs = pruner([[float(n)] * 4 for n in range(1, 11)]).cutoffs()
    assert [(cutoff.epoch, cutoff.train_loss, cutoff.limit) for cutoff in cutoffs] == [(1, 4, 4), (2, 3, 3), (3, 0, 2)]


def test_a_child_is_measured_by_the_best_it_has_reached() -> None:
    cutoff = Cutoff(2, 1.0, "val_loss", 1.0)
    assert not cutoff.missed(curve(0.9, 5.0))
    assert cutoff.missed(curve(1.1, 1.2))
    assert not cutoff.missed(curve(5.0))  # not there yet
    assert not cutoff.missed(curve(5.0, 5.0, 5.0))  # past it


@pytest.mark.parametrize(("train_loss", "val_acc", "missed"), [(2, 0.4, True), (2, 0.6, False), (0.9, 0.4, False)])
def test_one_that_is_good_at_either_goes_on(train_loss: float, val_acc: float, missed: bool) -> None:
    assert Cutoff(1, 1.0, "val_acc", 0.5).missed([Epoch(1, train_loss, 9.0, val_acc)]) is missed


# Training -------------------------------------------------------------------------------------------------------------

JOB = Job(0, "x * sigmoid(x)", limit_train=200, recipe=Recipe(epochs=3))


def test_a_child_that_misses_a_cutoff_is_stopped_with_the_curve_of_one_that_is_not() -> None:
    whole = train(JOB)
    stopped = train(replace(JOB, cutoffs=(Cutoff(1, 0, "val_loss", 1e9), Cutoff(2, 0, "val_acc", 0))))
    assert whole.verdict is Verdict.COMPLETE
    assert stopped.verdict is Verdict.PRUNED
    assert stopped.curve == whole.curve[:2]
    assert (stopped.val_loss, stopped.val_acc) == (whole.curve[1].val_loss, whole.curve[1].val_acc)
    assert stopped.reason.startswith("stopped after epoch 2: ")
    assert stopped.reason.endswith("; behind in train_loss (0.0000) and in val_acc (1.0000)")


def test_cutoffs_that_are_met_change_nothing() -> None:
    generous = replace(JOB, cutoffs=(Cutoff(1, 0, "val_loss", 1e9), Cutoff(2, 1e9, "val_acc", 0)))
    assert train(generous) == train(JOB)


def test_a_child_that_guesses_is_stopped_after_the_first_rung() -> None:
    guessing = replace(JOB, recipe=Recipe(epochs=3, learning_rate=0.0), guess_epoch=1)
    stopped = train(guessing)
    assert stopped.verdict is Verdict.PRUNED
    assert len(stopped.curve) == 1
    assert "no better than guessing" in stopped.reason
    learning = replace(JOB, limit_train=1000, recipe=Recipe(epochs=2), guess_epoch=1)
    assert train(learning).verdict is Verdict.COMPLETE


def test_cutoffs_travel_as_text() -> None:
    job = replace(JOB, cutoffs=(Cutoff(1, 0.5, "val_loss", 0.25), Cutoff(3, 1, "val_acc", 0.5)), guess_epoch=1)
    assert Job.from_json(job.to_json()) == job


# The search -----------------------------------------------------------------------------------------------------------

SETTINGS = Config(
    sampler="random", n_trials=80, units=1, baselines=("relu", "sigmoid"), pool="inline", pruner="halving"
)


def learn(job: Job) -> Outcome:
    """Four epochs that need no time; each function has its own losses, and heeds the cut-offs."""
    digest = int(key(parse(job.expression)), 16) % 1000 / 500
    points: list[Epoch] = []
    for number in range(1, 5):
        points.append(Epoch(number, 1 + digest / number, 1 + digest / number, 0.5))
        if any(cutoff.missed(points) for cutoff in job.cutoffs):
            break
    verdict = Verdict.COMPLETE if len(points) == 4 else Verdict.PRUNED
    return Outcome(verdict, val_loss=points[-1].val_loss, val_acc=0.5, curve=tuple(points))


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url, create=True)
    yield opened
    opened.close()


def run(store: Store, study: Study, settings: Config, turns: int = 10**9) -> list[Job]:
    """A session of so many turns; the jobs it gave out."""
    jobs: list[Job] = []

    def noting(job: Job) -> Outcome:
        jobs.append(job)
        return learn(job)

    asked = iter(range(turns))
    pool = InlinePool(run=noting)
    with leases.held_lease(store, study) as lease:
        for _ in session.search(store, lease, study, settings, pool, lambda: next(asked, None) is None):
            pass
    pool.close()
    return jobs


@pytest.mark.parametrize("objective", list(Objective))
def test_the_search_hands_out_cutoffs_and_keeps_what_was_reached(store: Store, objective: Objective) -> None:
    settings = replace(SETTINGS, objective=str(objective))
    study = session.create_study(store, settings)
    jobs = run(store, study, settings)
    trials = {trial.number: trial for trial in store.trials(study)}
    assert len(trials) == 80
    for job in jobs:
        baseline = trials[job.number].kind is Kind.BASELINE
        assert bool(job.guess_epoch) != baseline
        assert not (baseline and job.cutoffs)
    assert {cutoff.epoch for job in jobs for cutoff in job.cutoffs} == {1, 2, 3}
    pruned = [trial for trial in trials.values() if trial.state is TrialState.PRUNED]
    if objective is Objective.VAL_LOSS:
        assert 10 < len(pruned) < 70
    else:
        assert not pruned  # all have the same accuracy, so none is worse than another
    for trial in pruned:
        reached = store.curve(study, trial.number if trial.cites is None else trial.cites)
        assert len(reached) < 4
        assert trial.val_loss == reached[-1].val_loss
        assert observation_of(trial, Objective.VAL_LOSS).reward > 0
    ranked = {row["number"] for row in store.leaderboard(study)}
    assert ranked == {t.number for t in trials.values() if t.state is TrialState.COMPLETE and t.cites is None}


def test_interrupted_and_resumed_prunes_the_same(store: Store) -> None:
    whole = session.create_study(store, replace(SETTINGS, study_name="whole"))
    run(store, whole, SETTINGS)
    parts = session.create_study(store, replace(SETTINGS, study_name="parts"))
    while len(store.trials(parts)) < 80 or not all(trial.state.finished for trial in store.trials(parts)):
        run(store, parts, SETTINGS, turns=11)
    first, second = ([replace(t, seconds=0.0) for t in store.trials(study)] for study in (whole, parts))
    assert first == second
    assert store.curves(whole) == store.curves(parts)
