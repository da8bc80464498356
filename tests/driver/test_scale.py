"""What keeps a million trials as cheap as a thousand: indexes, statements, memory, and a thousand simulated workers."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from benchmarks import simulate
from benchmarks import store as benchmark
from searcher.driver import leases, session
from searcher.driver.state import SearchState
from searcher.records import Kind, Study, Trial, TrialState
from searcher.reports.mirrors import marked
from searcher.reports.status import status
from searcher.settings.config import Config
from searcher.store import replay
from searcher.store.lease import Lease, LeaseLost
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.made import OBJECTIVES, changed, create, point, result
from tests.support.pools import QUICK, PoolContract, act
from workers.contract import Job, WorkersError
from workers.pools.simulated import SimulatedPool

pytestmark = pytest.mark.slow

CONFIG = Config.of(sampler="random", units=2, n_trials=300, baselines=("relu", "swish"))
COMPLETE, FAILED, WAITING = TrialState.COMPLETE, TrialState.FAILED, TrialState.WAITING


def hasty(folder: Path) -> Store:
    """A store that does not wait for the disk: these tests are not about power cuts, and have thousands of commits."""
    store = Store(f"sqlite:///{folder}/hasty.db", create=True)
    event.listen(store._engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    store._engine.dispose()
    return store


def filled(store: Store, trials: int, name: str = "s", objective: str = "val_loss") -> Study:
    study = create(store, name, 0, objective, CONFIG.to_dict(), {})
    benchmark.fill(store, study, 0, trials)
    return store.study(name)


@contextmanager
def statements(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """What the store sends to its database, with its parameters."""
    sent: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, text: str, parameters: Any, _x: Any, _m: bool) -> None:
        sent.append((text, parameters))

    event.listen(store._engine, "before_cursor_execute", note)
    yield sent
    event.remove(store._engine, "before_cursor_execute", note)


# Reading ----------------------------------------------------------------------------------------------------------


def work(store: Store, text: str, parameters: Any) -> int:
    """What a statement costs the database: SQLite counts its steps, PostgreSQL the pages that it touches."""
    with store._engine.connect() as connection:
        if store._engine.dialect.name == "postgresql":
            [(plan,)] = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", parameters)
            return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])
        steps: list[None] = []
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(lambda: steps.append(None), 1)
        connection.exec_driver_sql(text, parameters).all()
        driver.set_progress_handler(None, 1)
        return len(steps)


def costs(store: Store, study: Study) -> dict[str, int]:
    """Of all that is read of a study while people watch it and when it is resumed, by statement."""
    with leases.held_lease(store, study), statements(store) as sent:
        assert len(marked(store, study, store.leaderboard(study, 15))) == 15
        found = status(store, study.name)
        assert found.best and found.relu and found.failures and found.driver.live
        assert found.counts in [summary.counts for summary in store.studies()]
        assert found.done == store.size(study) and replay.open_trials(store, study) == []
        next(replay.ended(store, study, curves=True))
    return {text: work(store, text, parameters) for text, parameters in sent if text.startswith("SELECT")}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_reading_costs_the_same_of_ten_thousand_trials_and_of_one(
    store: Store, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail without the index on val_loss, and with a count by state over the trials."""
    monkeypatch.setattr("searcher.reports.status.FAILURES", 5)  # both have more
    few = costs(store, filled(store, 1_000, "few", objective))
    many = costs(store, filled(store, 10_000, "many", objective))
    assert len(many) >= 9 and few.keys() == many.keys()
    for text, steps in many.items():
        assert steps < 2.5 * few[text] + 50, text


RESULTS = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"),
        st.sampled_from([COMPLETE, COMPLETE, COMPLETE, FAILED]),
        st.sampled_from([0.1, 0.2, 0.3, 0.4]),
        st.sampled_from([0.5, 0.625, 0.75]),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(RESULTS, st.sampled_from(OBJECTIVES), st.integers(1, 9))
def test_the_first_of_the_leaderboard_are_those_of_the_view(
    tmp_path_factory: pytest.TempPathFactory, results: list[Any], objective: str, limit: int
) -> None:
    """Also where a function was trained more than once, and with ties. Seen to fail when as many trainings were looked
    at as functions asked for, and those taken for certain."""
    store = hasty(tmp_path_factory.mktemp("rank"))
    study = create(store, "s", 0, objective, {}, {})
    trials = [
        result(
            Trial(n, Kind.CANDIDATE, key, key, 0, cites=0 if cites else None),
            loss,
            acc,
            objective,
            state=state,
            finish_order=n,
        )
        for n, (key, state, loss, acc, cites) in enumerate(results)
    ]
    store.commit(store.acquire(study, "me"), Batch(added=trials))
    whole = store.leaderboard(study)
    first = store.leaderboard(study, limit)
    assert [row["number"] for row in first] == [row["number"] for row in whole][:limit]
    assert [row["rank"] for row in first] == [row["rank"] for row in whole][:limit]
    assert [list(row) for row in first] == [list(row) for row in whole][:limit]
    store.close()


def test_a_baseline_is_found_wherever_it_ranks(store: Store) -> None:
    study = filled(store, 2_000)
    [relu] = [row for row in store.leaderboard(study) if row["name"] == "relu"]
    assert store.baseline(study, "relu") == {name: value for name, value in relu.items() if name != "rank"}
    assert store.baseline(study, "gelu") is None
    shown = store.leaderboard(study, 3, baselines=True)
    assert [row["rank"] for row in shown] == sorted({1, 2, 3, relu["rank"]})


# Writing ----------------------------------------------------------------------------------------------------------


def counted(store: Store, study: Study) -> Counter[TrialState]:
    """By state, from the trials themselves."""
    return Counter(trial.state for trial in store.trials(study))


class Model:
    """Makes batches that a search could write, at random."""

    def __init__(self, draw: st.DataObject) -> None:
        self.draw, self.trials = draw, dict[int, Trial]()
        self.ended = 0

    def batch(self) -> Batch:
        batch = Batch()
        for number, trial in list(self.trials.items()):
            if not trial.state.finished and self.draw.draw(st.booleans()):
                new = self.moved(trial, self.draw.draw(st.sampled_from(TrialState)))
                batch.changed.append((trial.state, new))
                self.trials[number] = new
        for number in range(len(self.trials), len(self.trials) + self.draw.draw(st.integers(0, 4))):
            trial = Trial(number, Kind.CANDIDATE, "x", f"k{number}", 0)
            self.trials[number] = self.moved(trial, self.draw.draw(st.sampled_from(TrialState)))
            batch.added.append(self.trials[number])
        return batch

    def moved(self, trial: Trial, state: TrialState) -> Trial:
        order = self.ended if state.finished else None
        self.ended += state.finished
        return result(trial, 0.5, state=state, finish_order=order)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_tallies_are_what_counting_gives(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """After any batches, refused ones among them. Seen to fail when a trial's old state was not counted down."""
    store = hasty(tmp_path_factory.mktemp("tally"))
    other = create(store, "other", 9, "val_loss", {}, {}, [Trial(0, Kind.BASELINE, "x", "k", 0)])
    study, model = create(store, "s", 99, "val_loss", {}, {}), Model(data)
    lease = store.acquire(study, "me")
    for _ in range(data.draw(st.integers(1, 6))):
        batch = model.batch()
        store.commit(lease, batch)
        assert store.counts(study) == counted(store, study) == Counter(t.state for t in model.trials.values())
        for trial in list(model.trials.values())[-1:]:
            wrong = COMPLETE if trial.state is FAILED else FAILED
            fresh = replace(trial, number=len(model.trials), state=WAITING, finish_order=None)
            with pytest.raises(LeaseLost, match="no longer as it was left"):
                store.commit(lease, Batch([fresh], [(wrong, replace(trial, finish_order=None, state=WAITING))]))
            assert store.counts(study) == counted(store, study)
    assert store.counts(other) == {WAITING: 1} and store.studies()[0].counts == {WAITING: 1}
    store.close()


def cost(store: Store, study: Study, lease: Lease) -> int:
    """Statements of a transaction that ends four trials and adds four."""
    first = store.size(study)
    fresh = [Trial(first + i, Kind.CANDIDATE, "x", f"k{first + i}", 0) for i in range(4)]
    store.commit(lease, Batch(added=fresh))
    ended = [result(t, 0.5, finish_order=t.number) for t in fresh]
    curves = {t.number: (point(1, 1.0, 1.0, 0.5),) for t in fresh}
    added = [replace(trial, number=trial.number + 4) for trial in fresh]
    with statements(store) as sent:
        store.commit(lease, Batch(added, [(WAITING, trial) for trial in ended], curves))
    store.commit(lease, Batch(changed=[(WAITING, replace(t, finish_order=t.number, state=FAILED)) for t in added]))
    return len([text for text, _ in sent if not text.startswith(("BEGIN", "PRAGMA"))])


def test_a_transaction_is_five_statements_however_long_the_study(store: Store) -> None:
    """The lease, new trials, changed ones, tallies, curves; on PostgreSQL how long locks are waited for, too. Seen to
    fail when each counted the study's trials."""
    study = create(store, "s", 0, "val_loss", {}, {})
    with leases.held_lease(store, study) as lease:
        few = cost(store, study, lease)
    benchmark.fill(store, study, store.size(study), 5_000)
    with leases.held_lease(store, study) as lease:
        assert cost(store, study, lease) == few == 5 + (store.url.get_backend_name() == "postgresql")


# Resuming ---------------------------------------------------------------------------------------------------------


def test_resuming_keeps_of_a_trial_what_later_ones_cite(sqlite_url: str) -> None:
    """Seen to fail with the trials themselves in the state (540 bytes each), and with all of them read at once."""
    store = Store(sqlite_url, create=True)
    study, state = filled(store, 10_000), None
    next(replay.ended(store, study, curves=False))  # what is compiled and cached once
    tracemalloc.start()
    try:
        state = SearchState(study)
        for trial, _ in replay.ended(store, study, curves=False):
            state.finish(trial)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert state.counts == store.counts(study)
    assert kept / 10_000 < 400 and peak - kept < 4_000_000
    store.close()


def test_a_replay_is_in_the_order_of_the_ends_with_the_right_curves(store: Store) -> None:
    """Seen to fail with pages by number."""
    study = create(store, "s", 0, "val_loss", {}, {})
    n = 2 * replay.PAGE + 7
    trials = [replace(benchmark.made_up(i, (), benchmark.Random(i)), finish_order=(37 * i) % n) for i in range(n)]
    curves = {t.number: benchmark.curve(t) for t in trials if t.number % 3 == 0}
    with leases.held_lease(store, study) as lease:
        store.commit(lease, Batch(added=trials, curves=curves))
    told = list(replay.ended(store, study, curves=True))
    assert [trial for trial, _ in told] == sorted(trials, key=lambda t: t.finish_order or 0)
    assert {trial.number: tuple(curve) for trial, curve in told if curve} == curves


@pytest.mark.parametrize("stopped", [False, True])
def test_a_replay_that_takes_long_keeps_the_lease_and_can_be_stopped(tmp_path: Path, stopped: bool) -> None:
    """Seen to fail when nothing was written between two trials, and when nobody was asked."""
    store, hours = hasty(tmp_path), itertools.count(0, 3600)
    study = replace(filled(store, 50), n_trials=0)
    pool = simulated(1, 1.0)
    with leases.held_lease(store, study) as lease, statements(store) as sent:
        assert not list(session.search(store, lease, study, CONFIG, pool, lambda: stopped, lambda: next(hours)))
    renewals = sum(text.startswith("UPDATE searcher_lease") for text, _ in sent)
    assert renewals < 10 if stopped else renewals > 50
    store.close()


# A thousand workers -----------------------------------------------------------------------------------------------


def simulated(workers: int, mean_seconds: float) -> SimulatedPool:
    """One whose caller takes no time: the same in every run."""
    return SimulatedPool(workers, simulate.child_seconds(mean_seconds), simulate.judge, clock=lambda: 0.0)


def search(store: Store, config: Config, pool: SimulatedPool) -> tuple[list[Trial], float]:
    study = session.create_study(store, config)
    with leases.held_lease(store, study) as lease:
        for _ in session.search(store, lease, study, config, pool, lambda: False, pool.time):
            pass
    return store.trials(study), pool.time()


def test_a_simulation_gives_the_same_again(tmp_path: Path) -> None:
    store = hasty(tmp_path)
    config = CONFIG.replace(n_trials=120)
    first, again = (search(store, config, simulated(20, 30.0)) for _ in range(2))
    assert first == again
    other, _ = search(store, config, simulated(5, 30.0))
    assert {t.number for t in other} == {t.number for t in first[0]} and other != first[0]
    store.close()


def test_a_thousand_workers_have_work_at_once_and_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with a second's wait between two handfuls of new jobs, and when what was postponed was gone through
    again in each turn: functions that are being trained kept new ones from being proposed."""
    monkeypatch.setattr("searcher.driver.loop.MAX_PLACED", 20)
    store = hasty(tmp_path)
    config = CONFIG.replace(units=1, n_trials=2000, preflight=False)
    pool = simulated(300, 60.0)
    filled, first, last = simulate.simulate(store, config, pool)
    assert filled == 0.0, "the driver takes no time here"
    assert (last.worked - first.worked) / (300 * (last.seconds - first.seconds)) > 0.98
    trials = store.trials(store.studies()[0].study)
    assert [t.number for t in trials] == list(range(2000)) and all(t.state.finished for t in trials)
    trained = Counter(t.key for t in trials if t.trained)
    assert max(trained.values()) == 1 and len(trained) == len({t.key for t in trials})
    store.close()


def test_workers_go_on_while_the_caller_is_busy() -> None:
    """Seen to fail when the caller's time was not added, and when a worker's next job began only as the caller looked
    for its last one."""
    real = [0.0]
    pool = SimulatedPool(1, lambda job: float(job.number), simulate.judge, clock=lambda: real[0])
    first, second = changed(QUICK, number=3), changed(QUICK, number=4)
    pool.submit(first, second)
    real[0] += 5.0
    assert pool.time() == pool.worked() == 5.0
    assert [job for job, _ in pool.wait(0.0)] == [first] and pool.time() == 5.0
    assert [job for job, _ in pool.wait(10.0)] == [second] and pool.time() == pool.worked() == 7.0
    assert pool.wait(10.0) == [] and (pool.time(), pool.worked(), pool.caller_seconds) == (17.0, 7.0, 5.0)


class TestSimulatedPool:
    """As far as the contract of pools makes sense where nothing really takes time."""

    test_every_job_is_run_once = PoolContract.test_every_job_is_run_once_and_every_outcome_comes_once
    test_a_look_without_waiting = PoolContract.test_a_look_without_waiting_finds_what_has_ended
    test_waiting_for_nothing = PoolContract.test_waiting_for_nothing
    test_an_exception_fails_the_job = PoolContract.test_an_exception_fails_the_job_and_not_the_pool

    @pytest.fixture
    def desk(self, tmp_path: Any) -> Any:
        from tests.support.pools import Desk

        return Desk(tmp_path)

    @pytest.fixture
    def pool(self) -> SimulatedPool:
        return SimulatedPool(3, lambda job: 0.0, act)

    def test_jobs_end_when_their_time_has_come(self, tmp_path: Any) -> None:
        """A worker's second job begins when its first has ended."""
        pool = SimulatedPool(2, lambda job: float(job.number), act, clock=lambda: 0.0)
        jobs = [changed(QUICK, number=n, expression="nothing", dataset=str(tmp_path)) for n in (3, 5, 4, 1)]
        pool.submit(*jobs)
        with pytest.raises(WorkersError, match="holds 4 jobs and takes no more"):
            pool.submit(jobs[0])
        assert pool.wait(2.5) == [] and pool.time() == 2.5 and pool.worked() == 5.0
        seen: list[tuple[float, list[Job]]] = []
        for _ in range(4):
            ended = [job for job, _ in pool.wait(100.0)]
            seen.append((pool.time(), ended))
        assert seen == [(3.0, [jobs[0]]), (5.0, [jobs[1]]), (6.0, [jobs[3]]), (7.0, [jobs[2]])]
        assert pool.worked() == 13.0
