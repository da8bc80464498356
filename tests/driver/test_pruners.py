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
from searcher.records import Kind, Study, Trial, TrialState
from searcher.samplers.contract import Rewards, observation_of
from searcher.settings.config import Config
from searcher.store.store import Store
from tests.support.made import OBJECTIVES, changed, image_job, image_task, measures, point
from workers.contract import Cutoff, Job, Limit, Outcome, Point, Verdict
from workers.pools.base import InlinePool
from workers.tasks.images.config import DECLARATION, Recipe
from workers.tasks.images.train import train

HALVING = PRUNERS["halving"]
assert HALVING


def told(number: int, state: TrialState = TrialState.COMPLETE) -> Trial:
    return Trial(number, Kind.CANDIDATE, "x", str(number), 0, state=state)


def curve(*losses: float) -> list[Point]:
    return [point(number, loss, loss, 1 / (1 + loss)) for number, loss in enumerate(losses, start=1)]


def pruner(losses: Sequence[Sequence[float]], rule: Rule = HALVING, objective: str = "val_loss") -> Pruner:
    made = Pruner(rule, image_task(objective))
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
    assert [cutoff.step for cutoff in made.cutoffs()] == list(rungs)
    assert made.first_rung == min(rungs, default=0)


def test_there_are_no_cutoffs_before_a_whole_training_and_enough_curves() -> None:
    made = Pruner(HALVING, image_task())
    for number in range(9):
        made.tell(told(number, TrialState.PRUNED), curve(2.0))
    made.tell(told(9, TrialState.INFEASIBLE), curve(2.0, 2.0))
    assert made.cutoffs() == ()
    assert made.first_rung == 0
    made.tell(told(10), curve(2, 2, 2, 2))
    assert [cutoff.step for cutoff in made.cutoffs()] == [1]  # only one of ten has come to the second rung
    assert made.first_rung == 1
    assert not pruner([[1.0] * 4] * 4).cutoffs()


def cutoff_at(step: int, train_loss: float, objective: str, badness: float) -> Cutoff:
    """Return a cut-off with two limits; `badness` is a loss, or a share of wrong answers."""
    metrics = [DECLARATION.metric("train_loss"), DECLARATION.metric(objective)]
    values = [train_loss, badness if objective == "val_loss" else 1 - badness]
    return Cutoff(step, tuple(Limit(m, m.merit(v)) for m, v in zip(metrics, values, strict=True) if m))


LOSSES = st.integers(0, 40).map(lambda tenths: tenths / 10)


@given(st.lists(st.lists(LOSSES, min_size=4, max_size=4), min_size=5, max_size=30), st.randoms())
def test_the_share_goes_on_and_the_order_does_not_matter(losses: list[list[float]], draw: object) -> None:
    for objective in OBJECTIVES:
        cutoffs = pruner(losses, objective=objective).cutoffs()
        # On these curves both losses agree.
        for cutoff, share in zip(cutoffs, (0.4, 0.3, 0.2), strict=True):
            kept = [values for values in losses if not cutoff.missed(curve(*values[: cutoff.step]))]
            best = sorted(min(values[: cutoff.step]) for values in losses)
            assert len(kept) >= share * len(losses)
            assert max(min(values[: cutoff.step]) for values in kept) == best[math.ceil(share * len(losses)) - 1]
        shuffled = list(losses)
        draw.shuffle(shuffled)  # type: ignore[attr-defined]
        assert pruner(shuffled, objective=objective).cutoffs() == cutoffs


def test_those_that_were_stopped_count_as_worse() -> None:
    losses = [[1.0, 0.9, 0.8, 0.7]] * 3 + [[2.0]] * 4 + [[1.1, 1.0, 0.9, 0.8]] * 3
    assert [-cutoff.limits[-1].merit for cutoff in pruner(losses).cutoffs()] == [1.1, 0.9, 0.8]


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
        assert [cutoff.step for cutoff in made.cutoffs()] == [1]


def test_late_in_a_training_the_objective_alone_counts() -> None:
    cutoffs = pruner([[float(n)] * 4 for n in range(1, 11)]).cutoffs()
    found = [(cutoff.step, {limit.metric.name: -limit.merit for limit in cutoff.limits}) for cutoff in cutoffs]
    assert found == [
        (1, {"train_loss": 4, "val_loss": 4}),
        (2, {"train_loss": 3, "val_loss": 3}),
        (3, {"val_loss": 2}),
    ]


def test_a_rung_is_where_a_task_reports_next() -> None:
    """A task may report now and then only; a cut-off is looked at where a report comes."""
    task = image_task()
    made = Pruner(HALVING, replace(task, declared=replace(task.declared, steps=100)))
    for number in range(10):
        made.tell(told(number), [point(step, 1.0 + number, 1.0 + number, 0.1) for step in (25, 50, 75, 100)])
    assert [cutoff.step for cutoff in made.cutoffs()] == [25, 50, 75]
    first = made.cutoffs()[0]
    assert first.missed([point(10, 9, 9, 0.1), point(30, 9, 9, 0.1)])
    assert not first.missed([point(10, 9, 9, 0.1)])
    assert not first.missed([point(30, 9, 9, 0.1), point(40, 9, 9, 0.1)])


def test_a_child_is_measured_by_the_best_it_has_reached() -> None:
    cutoff = cutoff_at(2, 1.0, "val_loss", 1.0)
    assert not cutoff.missed(curve(0.9, 5.0))
    assert cutoff.missed(curve(1.1, 1.2))
    assert not cutoff.missed(curve(5.0))  # not there yet
    assert not cutoff.missed(curve(5.0, 5.0, 5.0))  # past it


@pytest.mark.parametrize(("train_loss", "val_acc", "missed"), [(2, 0.4, True), (2, 0.6, False), (0.9, 0.4, False)])
def test_one_that_is_good_at_either_goes_on(train_loss: float, val_acc: float, missed: bool) -> None:
    assert cutoff_at(1, 1.0, "val_acc", 0.5).missed([point(1, train_loss, 9.0, val_acc)]) is missed


# Training -------------------------------------------------------------------------------------------------------------

JOB = image_job(0, "x * sigmoid(x)", limit_train=200, recipe=Recipe(epochs=3))


def test_a_child_that_misses_a_cutoff_is_stopped_with_the_curve_of_one_that_is_not() -> None:
    whole = train(JOB)
    stopped = train(changed(JOB, cutoffs=(cutoff_at(1, 0, "val_loss", 1e9), cutoff_at(2, 0, "val_acc", 0))))
    assert whole.verdict is Verdict.COMPLETE
    assert stopped.verdict is Verdict.PRUNED
    assert stopped.curve == whole.curve[:2]
    assert (stopped.metrics["val_loss"], stopped.metrics["val_acc"]) == (
        whole.curve[1].metrics["val_loss"],
        whole.curve[1].metrics["val_acc"],
    )
    assert stopped.reason.startswith("stopped after step 2: ")
    assert stopped.reason.endswith("; worse than all cut-offs: train_loss 0.0000, val_acc 1.0000")


def test_cutoffs_that_are_met_change_nothing() -> None:
    generous = changed(JOB, cutoffs=(cutoff_at(1, 0, "val_loss", 1e9), cutoff_at(2, 1e9, "val_acc", 0)))
    assert train(generous) == train(JOB)


def test_a_child_that_guesses_is_stopped_after_the_first_rung() -> None:
    guessing = changed(changed(JOB, recipe=Recipe(epochs=3, learning_rate=0.0)), first_rung=1)
    stopped = train(guessing)
    assert stopped.verdict is Verdict.PRUNED
    assert len(stopped.curve) == 1
    assert "no better than guessing" in stopped.reason
    learning = changed(changed(JOB, limit_train=1000, recipe=Recipe(epochs=2)), first_rung=1)
    assert train(learning).verdict is Verdict.COMPLETE


def test_cutoffs_travel_as_text() -> None:
    job = changed(JOB, cutoffs=(cutoff_at(1, 0.5, "val_loss", 0.25), cutoff_at(3, 1, "val_acc", 0.5)), first_rung=1)
    assert Job.from_json(job.to_json()) == job


# The search -----------------------------------------------------------------------------------------------------------

SETTINGS = Config.of(
    sampler="random", n_trials=80, units=1, baselines=("relu", "sigmoid"), pool="inline", pruner="halving"
)


def learn(job: Job) -> Outcome:
    """Four epochs that need no time; each function has its own losses, and heeds the cut-offs."""
    digest = int(key(parse(job.expression)), 16) % 1000 / 500
    points: list[Point] = []
    for number in range(1, 5):
        points.append(point(number, 1 + digest / number, 1 + digest / number, 0.5))
        if any(cutoff.missed(points) for cutoff in job.cutoffs):
            break
    verdict = Verdict.COMPLETE if len(points) == 4 else Verdict.PRUNED
    return Outcome(verdict, metrics=measures(points[-1].metrics["val_loss"], 0.5), curve=tuple(points))


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


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_search_hands_out_cutoffs_and_keeps_what_was_reached(store: Store, objective: str) -> None:
    settings = SETTINGS.replace(objective=str(objective))
    study = session.create_study(store, settings)
    jobs = run(store, study, settings)
    trials = {trial.number: trial for trial in store.trials(study)}
    assert len(trials) == 80
    for job in jobs:
        baseline = trials[job.number].kind is Kind.BASELINE
        assert bool(job.first_rung) != baseline
        assert not (baseline and job.cutoffs)
    assert {cutoff.step for job in jobs for cutoff in job.cutoffs} == {1, 2, 3}
    pruned = [trial for trial in trials.values() if trial.state is TrialState.PRUNED]
    if objective == "val_loss":
        assert 10 < len(pruned) < 70
    else:
        assert not pruned  # all have the same accuracy, so none is worse than another
    for trial in pruned:
        reached = store.curve(study, trial.number if trial.cites is None else trial.cites)
        assert len(reached) < 4
        assert trial.metrics["val_loss"] == reached[-1].metrics["val_loss"]
        assert Rewards().of(observation_of(trial, image_task().objective)) > 0
    ranked = {row["number"] for row in store.leaderboard(study)}
    assert ranked == {t.number for t in trials.values() if t.state is TrialState.COMPLETE and t.cites is None}


def test_interrupted_and_resumed_prunes_the_same(store: Store) -> None:
    whole = session.create_study(store, SETTINGS.replace(study_name="whole"))
    run(store, whole, SETTINGS)
    parts = session.create_study(store, SETTINGS.replace(study_name="parts"))
    while len(store.trials(parts)) < 80 or not all(trial.state.finished for trial in store.trials(parts)):
        run(store, parts, SETTINGS, turns=11)
    first, second = ([replace(t, seconds=0.0) for t in store.trials(study)] for study in (whole, parts))
    assert first == second
    assert store.curves(whole) == store.curves(parts)
