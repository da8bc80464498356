"""`searcher delete`, `rename` and `retry`, on SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest

from searcher.driver import changing, leases, session
from searcher.records import Study, Trial, TrialState
from searcher.store import changing as stored
from searcher.store.checking import examine
from searcher.store.lease import LeaseLost
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support import confirmations
from tests.support.commands import Cli
from tests.support.searches import SETTINGS, completed, judge, run
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool

LEARNING = SETTINGS.replace(study_name="s", sampler="rnn", sampler_kwargs={"batch": 2}, n_trials=16, max_retries=0)


def failing(job: Job) -> Outcome:
    """Break the machine in two trials."""
    return Outcome(Verdict.FAILED, f"no disk {job.number}") if job.number in (5, 9) else judge(job)


def with_failures(store: Store) -> Study:
    study, trials = completed(store, LEARNING, pool=InlinePool(run=failing))
    assert [trial.number for trial in trials if trial.state is TrialState.FAILED] == [5, 9]
    return study


def goes_on(store: Store, study: Study, total: int) -> list[Trial]:
    """Go on with a study up to that total, as `searcher resume --n-trials` does."""
    with leases.held_lease(store, study) as lease:
        study = session.extended(store, lease, study, total)
    run(store, study, LEARNING.replace(n_trials=total))
    return store.trials(study)


def functions(trials: list[Trial]) -> list[tuple[str, TrialState]]:
    return [(trial.expression, trial.state) for trial in trials]


def test_failed_trials_run_once_more(store: Store, cli: Cli) -> None:
    """The sampler of later sessions is told the same, however the sessions are cut."""
    study, url = with_failures(store), store.url.render_as_string(hide_password=False)
    before = store.trials(study)
    done = cli("retry", "s", "--storage", url)
    assert done.returncode == 0, done.stderr
    assert "2 trials (5, 9) wait to run once more" in done.stdout and "searcher resume s" in done.stdout
    waiting = [trial for trial in store.trials(study) if trial.state is TrialState.WAITING]
    assert [(trial.number, trial.reason, trial.retries) for trial in waiting] == [
        (5, "no disk 5", 1),
        (9, "no disk 9", 1),
    ]
    assert all(finding.ok for finding in examine(url))
    assert "no trial of study 's' has failed" in cli("retry", "s", "--storage", url).stdout
    trials = goes_on(store, study, 16)
    assert not any(trial.state is TrialState.FAILED for trial in trials)
    others = sorted((t for t in trials if t.number not in (5, 9)), key=lambda t: t.finish_order or 0)
    order = sorted((t for t in before if t.number not in (5, 9)), key=lambda t: t.finish_order or 0)
    assert [t.number for t in others] == [t.number for t in order]
    in_parts = functions(goes_on(store, study, 22))
    cli("delete", "s", "--yes", "--storage", url)
    again = with_failures(store)
    assert cli("retry", "s", "--storage", url).returncode == 0
    assert functions(goes_on(store, again, 22)) == in_parts
    assert all(finding.ok for finding in examine(url))


@pytest.mark.parametrize(("looks", "again"), [((6,), True), ((3, 6), False)])
def test_a_confirmation_keeps_the_failures_on_which_others_depend(
    sqlite_url: str, looks: tuple[int, ...], again: bool
) -> None:
    """With several looks, functions were dropped without the failed training."""
    store = Store(sqlite_url, create=True)
    study = confirmations.make(store, *confirmations.plan(looks=looks))
    settings = confirmations.SETTINGS.replace(max_retries=0)
    run(store, study, settings, InlinePool(run=confirmations.Judge(failed={("sin", 1)})))
    study = store.study("c")
    found = changing.retry(store, study)
    assert [trial.number for trial in (found.waiting if again else found.kept)] == [2]
    assert not (found.kept if again else found.waiting)
    run(store, study, settings, InlinePool(run=confirmations.Judge()))
    assert any(trial.state is TrialState.FAILED for trial in store.trials(study)) is not again
    assert all(trial.state.finished for trial in store.trials(study))
    store.close()


def test_settings_that_no_longer_load_change_nothing(store: Store, cli: Cli) -> None:
    settings = LEARNING.replace(n_trials=16)
    study = session.create_study(store, settings)
    bad = store.create_study("old", study.kind, 4, study.tasks, {**study.config, "no_such_setting": 1}, study.versions)
    url = store.url.render_as_string(hide_password=False)
    done = cli("retry", "old", "--storage", url)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "the settings of study 'old'" in done.stderr and "no_such_setting" in done.stderr
    assert store.trials(bad) == []


def test_a_study_is_renamed_and_deleted(store: Store, cli: Cli) -> None:
    study, _ = completed(store, LEARNING)
    plan = {"search": "s", "functions": []}
    store.create_study("c", session.StudyKind.DESIGN, 1, study.tasks, {**study.config, "design": plan}, {})
    url = store.url.render_as_string(hide_password=False)

    def call(*args: str, status: int = 0) -> str:
        done = cli(*args, "--storage", url)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert "study 'c' exists" in call("rename", "s", "c", status=1)
    assert "at most 200 characters" in call("rename", "s", "a\tb", status=2)
    assert "study 's' is now 'my study'" in call("rename", "s", "my study")
    assert store.study("my study").config["study_name"] == "my study"
    assert store.study("c").config["design"]["search"] == "my study"
    assert "--yes" in call("delete", "my study", status=2)
    with leases.held_lease(store, store.study("my study")) as lease, leases.renewed(store, lease):
        assert "is being driven by process" in call("delete", "my study", "--yes", status=1)
    assert "is deleted" in call("delete", "my study", "--yes")
    assert store.names() == ["c"]
    assert "no study 'my study'" in call("delete", "my study", "--yes", status=1)


def test_a_driver_that_slept_cannot_write_to_a_later_study(store: Store) -> None:
    """The id of a deleted study is never given again."""
    study = session.create_study(store, LEARNING)
    asleep = store.acquire(study, "a suspended process")
    lease = store.acquire(study, "searcher delete", evict=asleep.generation)
    stored.delete(store, lease, study)
    later = session.create_study(store, LEARNING)
    assert store.acquire(later, "a new process").generation == asleep.generation
    with pytest.raises(LeaseLost):
        store.commit(asleep, Batch(added=[replace(store.trials(later)[0], number=len(store.trials(later)))]))
