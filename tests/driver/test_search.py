"""The loop, with children that take no time: budgets, citations, retries, resuming, leases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from search_space import Choices, Expression, Grammar, key, parse
from searcher.driver import leases, session
from searcher.driver.failures import EveryTrialFails
from searcher.driver.loop import Search, StopAsked
from searcher.records import Kind, TrialState
from searcher.samplers.contract import Observation, Pending
from searcher.samplers.random import RandomSampler
from searcher.settings import loading
from searcher.settings.plan import grammar_of
from searcher.store.database import StoreError
from searcher.store.lease import Lease, LeaseLost, NotDriven
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.made import proposing
from tests.support.searches import (
    SETTINGS,
    CountingJudge,
    ThreadPool,
    completed,
    in_sessions,
    judge,
    never,
    run,
    run_and_die,
    untimed,
)
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = Store(sqlite_url, create=True)
    yield opened
    opened.close()


def test_a_study_ends_with_its_exact_total(store: Store) -> None:
    _, trials = completed(store)
    assert [trial.number for trial in trials] == list(range(40))
    assert all(trial.state.finished for trial in trials)
    assert sorted(t.finish_order for t in trials if t.finish_order is not None) == list(range(40))
    assert [trial.name for trial in trials[:2]] == ["relu", "swish"]
    assert all(trial.kind is Kind.CANDIDATE for trial in trials[2:])
    states = Counter(trial.state for trial in trials)
    assert states[TrialState.COMPLETE] > 10
    assert states[TrialState.INFEASIBLE] > 2


@pytest.mark.parametrize("sampler", ["random", "rnn", "optuna:tpe"])
def test_the_same_seed_gives_the_same_table(store: Store, sampler: str) -> None:
    first, second, other = (
        completed(store, SETTINGS.replace(sampler=sampler, study_name=name, seed=seed))[1]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert untimed(first) == untimed(second)
    assert [t.expression for t in first] != [t.expression for t in other]


@pytest.mark.parametrize("sampler", ["random", "rnn", "optuna:tpe"])
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(
    store: Store, sampler: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.replace(sampler=sampler, study_name="whole")
    _, whole = completed(store, settings)
    sessions, parts = in_sessions(store, settings, how, monkeypatch)
    assert sessions > 3
    assert untimed(parts) == untimed(whole)


def test_a_killed_session_leaves_rows_that_the_next_one_takes_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study = session.create_study(store, SETTINGS)
    run_and_die(store, study, SETTINGS, after=6, monkeypatch=monkeypatch)
    left = [t for t in store.trials(study) if not t.state.finished]
    assert left, "the kill was to leave work behind"
    run(store, study, SETTINGS)
    assert Counter(t.state.finished for t in store.trials(study)) == {True: 40}


def test_no_function_is_trained_twice_and_citations_repeat_the_result(store: Store) -> None:
    small = SETTINGS.replace(unary=("x", "neg", "sin"), binary=("add", "sub", "max"))
    judged = CountingJudge()
    _, trials = completed(store, small, pool=InlinePool(run=judged))
    assert max(judged.runs.values()) == 1
    cited = [trial for trial in trials if trial.cites is not None]
    assert len(cited) > 10
    for trial in cited:
        source = trials[trial.cites or 0]
        assert source.cites is None
        assert (trial.key, trial.state, trial.reason) == (source.key, source.state, source.reason)
        assert (trial.metrics, trial.merit, trial.tie_merit) == (source.metrics, source.merit, source.tie_merit)
        assert trial.seconds == 0


def test_what_cannot_be_trained_through_is_recorded_untrained(store: Store) -> None:
    small = SETTINGS.replace(unary=("x", "sqrt", "sin"), binary=("sub", "div"))
    judged = CountingJudge()
    _, trials = completed(store, small, pool=InlinePool(run=judged))
    refused = [t for t in trials if t.reason.startswith("not trained: ") and t.cites is None]
    assert {t.reason.split()[3] for t in refused} >= {"value", "is", "has"}  # not finite, constant, a pole
    for trial in refused:
        assert (trial.state, trial.value, trial.seconds) == (TrialState.INFEASIBLE, None, 0)
        assert trial.key not in judged.runs
    assert not {t.cites for t in trials} & {t.number for t in refused}, "another way of writing it may do"
    assert len({t.key for t in refused}) < len(refused), "refused once is refused again"
    assert sorted(t.finish_order for t in trials if t.finish_order is not None) == list(range(40))


def test_the_preflight_can_be_switched_off_and_spares_baselines(store: Store) -> None:
    small = SETTINGS.replace(unary=("x", "sqrt"), binary=("mul",), n_trials=6, baselines=("sign",))
    judged = CountingJudge()
    _, trials = completed(store, small, pool=InlinePool(run=judged))
    assert judged.runs[trials[0].key] == 1
    assert not judged.runs[key(parse("sqrt(x) * sqrt(x)"))]
    _, trials = completed(store, small.replace(preflight=False), pool=InlinePool(run=judged))
    assert judged.runs[key(parse("sqrt(x) * sqrt(x)"))] == 1
    assert not any(t.reason.startswith("not trained") for t in trials)


def test_in_parallel_too_no_function_is_trained_twice(store: Store) -> None:
    small = SETTINGS.replace(unary=("x", "neg", "sin"), binary=("add", "sub", "max"), n_trials=120)
    judged = CountingJudge(seconds=0.01)
    _, trials = completed(store, small, pool=ThreadPool(judged))
    assert max(judged.runs.values()) == 1
    assert [trial.number for trial in trials] == list(range(120))
    assert all(trial.state.finished for trial in trials)


class CheckingPool(ThreadPool):
    """Checks at every submission that all results given out so far are in the store."""

    def __init__(self, run: Callable[[Job], Outcome], store: Store) -> None:
        super().__init__(run)
        self.given: set[int] = set()
        self.store = store

    def submit(self, *jobs: Job) -> None:
        trials = self.store.trials(self.store.studies()[0].study)
        for job in jobs:
            assert trials[job.number].state is TrialState.WAITING, "a row must be there before its job is"
        durable = {trial.number for trial in trials if trial.state.finished}
        assert self.given <= durable, "a result must be durable before the next job is given out"
        super().submit(*jobs)

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        ended = super().wait(timeout_seconds)
        self.given |= {job.number for job, _ in ended}
        return ended


def test_results_are_durable_before_more_work_is_given_out(store: Store) -> None:
    completed(store, pool=CheckingPool(CountingJudge(seconds=0.002), store))


class FailsAtFirst:
    """Fails the first `times` runs of each trial."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.runs: Counter[int] = Counter()

    def __call__(self, job: Job) -> Outcome:
        self.runs[job.number] += 1
        if self.runs[job.number] <= self.times:
            return Outcome(Verdict.FAILED, f"the worker process died ({job.number})")
        return judge(job)


def test_the_data_of_a_study_are_those_of_its_first_outcome(store: Store) -> None:
    """As on a cluster, whose data the driver does not see. Seen to fail with what a worker reports not looked at, and
    with a digest that was not written down."""

    def on_other_data_every_third_time(job: Job) -> Outcome:
        assert job.data_digest in ("", "ours")
        return replace(judge(job), data_digest="theirs" if job.number % 3 == 2 else "ours", worker="node-2:17")

    settings = SETTINGS.replace(max_retries=0)
    study = session.create_study(store, settings)
    run(store, study, settings, InlinePool(run=on_other_data_every_third_time))
    assert store.study(study.name).task.data_digest == "ours"
    for trial in store.trials(study):
        if trial.trained:
            assert (trial.state is TrialState.FAILED) == (trial.number % 3 == 2)
    failed = next(trial for trial in store.trials(study) if trial.state is TrialState.FAILED)
    assert failed.reason == "node-2:17 has other data (digest theirs) than the study (ours)"
    asked = []

    def noted(job: Job) -> Outcome:
        asked.append(job.data_digest)
        return judge(job)

    with leases.held_lease(store, study) as lease:
        longer = session.extended(store, lease, study, 50)
    run(store, longer, settings, InlinePool(run=noted))
    assert set(asked) == {"ours"}


def test_failures_are_retried_so_often_and_no_more(store: Store) -> None:
    settings = SETTINGS.replace(n_trials=8, max_retries=2)
    _, saved = completed(store, settings, pool=InlinePool(run=FailsAtFirst(2)))
    assert all(t.state.judged for t in saved)
    assert {t.retries for t in saved if t.cites is None} == {2}
    judged = FailsAtFirst(3)
    _, lost = completed(store, settings.replace(study_name="lost"), pool=InlinePool(run=judged))
    assert {t.state for t in lost} == {TrialState.FAILED}
    assert {t.reason for t in lost} == {f"the worker process died ({t.number})" for t in lost}
    assert set(judged.runs.values()) == {3}


def broken(job: Job) -> Outcome:
    raise ValueError("images are (3, 32, 32)")


def test_a_search_in_which_everything_fails_alike_stops_and_can_go_on(store: Store) -> None:
    settings = SETTINGS.replace(n_trials=10, max_retries=1)
    study = session.create_study(store, settings)
    message = r"the first 3 trials .* all failed, in the same way: ValueError: images are \(3, 32, 32\); see: searcher"
    with pytest.raises(EveryTrialFails, match=message):
        run(store, study, settings, InlinePool(run=broken))
    suspects = [t for t in store.trials(study) if t.reason.startswith("ValueError")]
    assert len(suspects) == 3 and all((t.retries, t.state) == (1, TrialState.WAITING) for t in suspects)
    assert 'raise ValueError("images are' in suspects[0].reason, "with where it was raised"
    with pytest.raises(EveryTrialFails, match=message):
        run(store, study, settings, InlinePool(run=broken))
    run(store, study, settings)  # mended: nothing is lost, ReLU above all
    trials = store.trials(study)
    assert len(trials) == 10
    assert all(t.state.judged for t in trials)


class Refusing:
    """A pool whose jobs cannot even be begun, as where a cluster has another version."""

    capacity = 4

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, *jobs: Job) -> None:
        self.jobs += jobs

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        jobs, self.jobs = self.jobs, []
        return [(job, Outcome(Verdict.FAILED, "Ray could not run it: TypeError: 'compile'")) for job in jobs]

    def close(self) -> None: ...


def test_a_search_in_which_nothing_can_be_begun_loses_no_function(store: Store) -> None:
    """Seen to fail where what took no time was no suspect: all trials are FAILED for good."""
    study = session.create_study(store, SETTINGS)
    with pytest.raises(EveryTrialFails, match="Ray could not run it: TypeError: 'compile'"):
        run(store, study, SETTINGS, Refusing())
    assert not any(t.state is TrialState.FAILED for t in store.trials(study))


def test_any_text_can_be_the_reason_of_a_failure(database_url: str) -> None:
    """Seen to fail on PostgreSQL (NUL) and on both (a lone surrogate): the study can never go on."""

    def odd(job: Job) -> Outcome:
        raise ValueError(f"{job.number} of 'a\0b\ud800c'")

    store = Store(database_url, create=True)
    settings = SETTINGS.replace(n_trials=2, max_retries=1)
    study = session.create_study(store, settings)
    run(store, study, settings, InlinePool(run=odd))
    assert store.trial(study, 1).reason.startswith(r"ValueError: 1 of 'a\x00b\ud800c'")
    store.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("the disk is full")])
def test_an_end_before_the_store_knows_what_runs(
    store: Store, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with what runs given up all the same: the end is a LeaseLost, about states the store never saw."""
    study = session.create_study(store, SETTINGS)
    commit = store.commit

    def failing(lease: Lease, batch: Batch, *, short_wait: bool = True) -> bool:
        if any(trial.state is TrialState.RUNNING for _, trial in batch.changed):
            raise error
        return commit(lease, batch, short_wait=short_wait)

    monkeypatch.setattr(store, "commit", failing)
    with pytest.raises(type(error)):
        run(store, study, SETTINGS, ThreadPool(CountingJudge(seconds=1.5)))
    assert {t.state for t in store.trials(study)} == {TrialState.WAITING}


@pytest.mark.parametrize("n_trials", [1, 2])
def test_a_study_too_short_to_be_hopeless_ends(store: Store, n_trials: int) -> None:
    settings = SETTINGS.replace(n_trials=n_trials, max_retries=0)
    _, trials = completed(store, settings, pool=InlinePool(run=broken))
    assert [t.state for t in trials] == [TrialState.FAILED] * n_trials
    assert [t.finish_order for t in trials] == list(range(n_trials))


def test_one_that_works_is_reason_to_go_on(store: Store) -> None:
    _, trials = completed(
        store,
        SETTINGS.replace(n_trials=10, max_retries=0),
        pool=InlinePool(run=lambda job: broken(job) if job.number else judge(replace(job, expression="sin(x)"))),
    )
    assert len(trials) == 10 and sum(t.state is TrialState.FAILED for t in trials) > 3


def test_failed_trials_are_not_told_and_not_cited(store: Store) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.told: list[Observation] = []

        def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices | None:
            return (0, 0, 0, 10, 0) if number < 4 else None

        def tell(self, observation: Observation) -> None:
            self.told.append(observation)

    settings = SETTINGS.replace(baselines=("none",), max_retries=0)
    study = session.create_study(store, settings)
    recorder = Recorder()
    fails_once = iter([Outcome(Verdict.FAILED, "no")])
    pool = InlinePool(run=lambda job: next(fails_once, None) or judge(job))
    with leases.held_lease(store, study) as lease:
        list(Search(store, lease, study, settings, proposing(recorder, settings), pool, never).run())
    pool.close()
    states = [(t.state is TrialState.FAILED, t.cites) for t in store.trials(study)]
    assert states == [(True, None), (False, None), (False, 1), (False, 1)]
    assert [t.number for t in recorder.told] == [1, 2, 3]


def test_samplers_know_what_is_pending(store: Store) -> None:
    """Of trials that were proposed and have not been judged, also of those that an earlier session left."""

    class Recorder(RandomSampler):
        seen: ClassVar[list[tuple[int, ...]]] = []

        def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices:
            assert all(key(parse(trial.expression)) == trial.key for trial in pending)
            self.seen.append((number, *(trial.number for trial in pending)))
            return super().ask(number, pending)

    settings = SETTINGS.replace(baselines=("relu", "tanh"), n_trials=8, preflight=False)
    study = session.create_study(store, settings)
    pool, sampler = Stuck(capacity=4), Recorder(grammar=grammar_of(settings), seed=0)
    with leases.held_lease(store, study) as lease:
        list(Search(store, lease, study, settings, proposing(sampler, settings), pool, lambda: bool(pool.waits)).run())
    assert Recorder.seen[:3] == [(2, 0, 1), (3, 0, 1, 2), (4, 0, 1, 2, 3)]


class Stuck:
    """A pool in which no job ever ends."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.waits = capacity, 0

    def submit(self, *jobs: Job) -> None: ...

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        self.waits += 1
        return []

    def close(self) -> None: ...


def test_a_proposal_need_not_have_the_grammars_shape(store: Store) -> None:
    """A sampler may propose any expression; it is trained, cited and told like others."""
    texts = ["x * sigmoid(1.5 * x)", "sin(sin(sin(sin(x))))", "x * sigmoid(x * 1.5)"]

    class Free:
        any_expression = True
        told: ClassVar[list[Observation]] = []

        def ask(self, number: int, pending: Sequence[Pending] = ()) -> Expression | None:
            return parse(texts[number]) if number < len(texts) else None

        def tell(self, observation: Observation) -> None:
            self.told.append(observation)

    settings = SETTINGS.replace(baselines=("none",))
    study = session.create_study(store, settings)
    pool = InlinePool(run=judge)
    with leases.held_lease(store, study) as lease:
        list(Search(store, lease, study, settings, proposing(Free(), settings), pool, never).run())
    pool.close()
    assert [(t.state, t.choices, t.cites) for t in store.trials(study)] == [
        (TrialState.COMPLETE, None, None),
        (TrialState.COMPLETE, None, None),
        (TrialState.COMPLETE, None, 0),
    ]
    assert [t.expression for t in Free.told][:2] == texts[:2] and Free.told[0].merit == Free.told[2].merit


def test_a_sampler_that_proposes_what_is_known_is_asked_again(store: Store) -> None:
    """Its earlier answers are among the pending trials. Seen to fail with one question for each trial."""
    texts = ["sin(x)", "tanh(x)", "cos(x)", "x * sigmoid(x)"]

    class Avoiding:
        any_expression = True
        asked: ClassVar[Counter[int]] = Counter()

        def ask(self, number: int, pending: Sequence[Pending] = ()) -> Expression | None:
            self.asked[number] += 1
            rejected = sum(trial.number == number for trial in pending)
            return parse(texts[min(rejected, len(texts) - 1)])  # the last of them again and again

        def tell(self, observation: Observation) -> None: ...

    settings = SETTINGS.replace(baselines=("none",), n_trials=6)
    study = session.create_study(store, settings)
    pool = InlinePool(run=judge)
    with leases.held_lease(store, study) as lease:
        list(Search(store, lease, study, settings, proposing(Avoiding(), settings), pool, never).run())
    pool.close()
    assert [t.expression for t in store.trials(study)] == [*texts, texts[-1], texts[-1]]
    assert [t.cites for t in store.trials(study)] == [None, None, None, None, 3, 3]
    assert list(Avoiding.asked.values()) == [1, 2, 3, 4, 5, 5]


def test_an_exhausted_sampler_ends_the_search(store: Store) -> None:
    small = SETTINGS.replace(sampler="optuna:bruteforce", unary=("x", "sin"), binary=("add", "max"))
    _, trials = completed(store, small)
    assert len(trials) == 2 + Grammar(1, unary=("x", "sin"), binary=("add", "max")).size
    assert all(trial.state.finished for trial in trials)


def test_the_time_limit_lets_what_runs_end(store: Store) -> None:
    settings = SETTINGS.replace(timeout=0.3, n_trials=1000)
    judged = CountingJudge(seconds=0.0)
    _, trials = completed(store, settings, pool=InlinePool(run=judged), clock=lambda: 0.1 * judged.runs.total())
    assert 2 <= len(trials) < 50
    assert all(trial.state.finished for trial in trials)


def test_a_driver_that_was_overtaken_stops_and_writes_nothing_more(store: Store) -> None:
    study = session.create_study(store, SETTINGS)
    pool = InlinePool(run=judge)
    lease = store.acquire(study, "first")
    running = session.search(store, lease, study, SETTINGS, pool, never)
    for _ in range(5):
        next(running)
    store.acquire(study, "second", evict=lease.generation)
    before = store.trials(study)
    with pytest.raises(LeaseLost):
        list(running)
    assert store.trials(study) == before
    pool.close()


def test_a_search_that_is_asked_to_stop_ends_and_can_go_on(store: Store) -> None:
    study = session.create_study(store, SETTINGS)
    pool = InlinePool(run=judge)
    with leases.held_lease(store, study) as lease:
        running = session.search(store, lease, study, SETTINGS, pool, never)
        for _ in range(5):
            next(running)
        assert store.request_stop(study).asked_to_stop
        with pytest.raises(StopAsked, match="as `searcher stop` has asked"):
            list(running)
    pool.close()
    assert 0 < len(store.trials(study)) < 40
    assert not any(t.state is TrialState.RUNNING for t in store.trials(study))
    with pytest.raises(NotDriven, match=f"nobody drives study '{study.name}'.*searcher resume"):
        store.request_stop(study)
    run(store, study, SETTINGS)  # the next driver was not asked
    assert len(store.trials(study)) == 40


def test_a_study_is_extended_but_not_cut(store: Store) -> None:
    study, before = completed(store)
    with leases.held_lease(store, study) as lease:
        longer = session.extended(store, lease, study, 50)
        with pytest.raises(Exception, match="has 40 trials already"):
            session.extended(store, lease, study, 39)
    run(store, longer, SETTINGS)
    after = store.trials(study)
    assert after[:40] == before
    assert [trial.number for trial in after] == list(range(50))
    assert store.study(study.name).n_trials == 50


def test_baselines_take_at_most_half(store: Store) -> None:
    _, trials = completed(store, SETTINGS.replace(n_trials=7, baselines=("all",)))
    assert [trial.kind for trial in trials] == [Kind.BASELINE] * 3 + [Kind.CANDIDATE] * 4


def test_progress_counts_what_the_store_holds(store: Store) -> None:
    study = session.create_study(store, SETTINGS)
    judged = CountingJudge()
    last = run(store, study, SETTINGS, InlinePool(run=judged))[-1]
    trials = store.trials(study)
    assert last.done == last.proposed == last.total == 40
    assert sum(judged.runs.values()) == sum(t.trained for t in trials) < 40
    assert last.trained == sum(t.trained and t.state is TrialState.COMPLETE for t in trials)
    assert last.unique == len({t.key for t in trials})
    assert last.counts == Counter(t.state for t in trials)
    assert last.best is not None
    assert last.best.value == min(t.value for t in trials if t.value is not None)


def test_names_are_made_up_one_after_the_other(store: Store) -> None:
    names = [session.create_study(store, SETTINGS).name for _ in range(3)]
    assert names == ["digits-random-1", "digits-random-2", "digits-random-3"]


def test_baselines_may_be_written_out(store: Store) -> None:
    chosen = loading.load(None, {"baselines": "relu, max(x, sin(x)), x", "n_trials": 6, "sampler": "random"})
    _, trials = completed(store, chosen)
    assert [(t.name, t.expression) for t in trials[:3]] == [
        ("relu", "max(x, 0)"),
        ("own", "max(x, sin(x))"),
        ("x", "x"),
    ]
