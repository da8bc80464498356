"""The store's contract, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import math
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from searcher.records import Kind, Study, Trial, TrialState
from searcher.store import database, schema
from searcher.store.database import StoreError
from searcher.store.lease import LeaseLost, Position, StudyBusy
from searcher.store.rows import Batch
from searcher.store.store import Store, StudyExists, UnknownStudy
from tests.support.made import create, point, result


def make_study(store: Store, name: str = "s", objective: str = "val_loss") -> Study:
    return create(store, name, 10, objective, {"sampler": "random", "nested": {"a": [1]}}, {"torch": "2"})


def waiting(number: int, key: str = "k", **changes: object) -> Trial:
    return replace(Trial(number, Kind.CANDIDATE, "x + sin(x)", key, 0, choices=(0, 0, 1)), **changes)  # type: ignore[arg-type]


def complete(trial: Trial, order: int, loss: float = 0.5, acc: float = 0.9, objective: str = "val_loss") -> Trial:
    return result(trial, loss, acc, objective, finish_order=order, seconds=1.5)


def test_a_study_comes_back_as_it_was_made(store: Store) -> None:
    made = make_study(store)
    again = store.study("s")
    assert again == made
    assert (again.config, again.versions) == ({"sampler": "random", "nested": {"a": [1]}}, {"torch": "2"})


def test_a_name_is_taken_once_and_nothing_is_written_the_second_time(store: Store) -> None:
    make_study(store)
    with pytest.raises(StudyExists, match=r"searcher resume s"):
        create(store, "s", 1, "val_acc", {}, {}, [waiting(0)])
    assert len(store.studies()) == 1
    assert store.trials(store.study("s")) == []


def test_an_unknown_study_names_those_there_are(store: Store) -> None:
    make_study(store, "digits-rnn-1")
    with pytest.raises(UnknownStudy, match=r"digits-rnn-1"):
        store.study("digits-rnn-2")
    with pytest.raises(UnknownStudy, match=r"no trial 7"):
        store.trial(store.study("digits-rnn-1"), 7)


def test_trials_and_curves_come_back_as_they_were_written(store: Store) -> None:
    study = make_study(store)
    lease = store.acquire(study, "me")
    first, second = waiting(0), waiting(1, "k2", kind=Kind.BASELINE, choices=None, name="relu")
    store.commit(lease, Batch(added=[first, second]))
    done = complete(first, 0)
    curve = [point(1, 2.0, 1.5, 0.3), point(2, 1.0, 0.5, 0.9)]
    store.commit(lease, Batch(changed=[(TrialState.WAITING, done)], curves={0: curve}))
    assert store.trials(study) == [done, second]
    assert store.trial(study, 0) == done
    assert store.curve(study, 0) == curve
    assert store.curve(study, 1) == []


def test_a_batch_is_written_whole_or_not_at_all(store: Store) -> None:
    study = make_study(store)
    lease = store.acquire(study, "me")
    store.commit(lease, Batch(added=[waiting(0)]))
    wrong = Batch(added=[waiting(1)], changed=[(TrialState.RUNNING, complete(waiting(0), 0))])
    with pytest.raises(LeaseLost, match=r"0 RUNNING"):
        store.commit(lease, wrong)
    assert store.trials(study) == [waiting(0)]


def test_a_number_and_a_place_in_the_order_are_taken_once(store: Store) -> None:
    study = make_study(store)
    lease = store.acquire(study, "me")
    store.commit(lease, Batch(added=[waiting(0), complete(waiting(1), 0)]))
    with pytest.raises(StoreError):
        store.commit(lease, Batch(added=[waiting(0)]))
    with pytest.raises(StoreError):
        store.commit(lease, Batch(added=[complete(waiting(2), 0)]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", ["value", "merit", "seconds"])
def test_numbers_that_are_not_finite_are_refused(store: Store, bad: float, column: str) -> None:
    study = make_study(store)
    lease = store.acquire(study, "me")
    trial = replace(complete(waiting(0), 0), **{column: bad})
    with pytest.raises(StoreError):
        store.commit(lease, Batch(added=[trial]))
    assert store.trials(study) == []


def test_one_driver_at_a_time(store: Store) -> None:
    study = make_study(store)
    first = store.acquire(study, "process 1 on here")
    with pytest.raises(StudyBusy, match=r"process 1 on here") as refusal:
        store.acquire(study, "process 2")
    assert 0 < refusal.value.expires_in <= 15
    store.release(first)
    second = store.acquire(study, "process 2")
    assert second.generation == first.generation + 1


def test_an_overtaken_driver_can_write_nothing(store: Store) -> None:
    study = make_study(store)
    stale = store.acquire(study, "old")
    store.commit(stale, Batch(added=[waiting(0)]))
    current = store.acquire(study, "new", evict=stale.generation)
    for write in (
        lambda: store.commit(stale, Batch()),
        lambda: store.commit(stale, Batch(added=[waiting(1)])),
        lambda: store.commit(stale, Batch(changed=[(TrialState.WAITING, complete(waiting(0), 0))])),
        lambda: store.extend(stale, 99),
    ):
        with pytest.raises(LeaseLost):
            write()
    store.release(stale)  # must not release the other's
    with pytest.raises(StudyBusy, match=r"new"):
        store.acquire(study, "third")
    store.commit(current, Batch())
    assert store.trials(study) == [waiting(0)]
    assert store.study("s").n_trials == 10


def test_who_drives_is_said_by_the_databases_clock(store: Store) -> None:
    study = make_study(store)
    assert (store.driver(study).holder, store.driver(study).live) == ("", False)
    lease = store.acquire(study, "process 1 on here")
    driver = store.driver(study)
    assert (driver.holder, driver.generation, driver.live, driver.asked_to_stop) == (
        "process 1 on here",
        1,
        True,
        False,
    )
    assert 0 <= driver.since < 10 and driver.heard is not None and 0 <= driver.heard < 10
    assert not store.commit(lease, Batch())
    assert store.request_stop(study).asked_to_stop
    assert store.commit(lease, Batch()) and store.commit(lease, Batch(added=[waiting(0)], serial=7))
    assert store.position(lease) == Position(serial=7, writer=lease.writer)
    store.release(lease)
    assert (store.driver(study).live, store.driver(study).heard) == (False, None)
    again = store.acquire(study, "process 2 on here")
    assert not store.driver(study).asked_to_stop and not store.commit(again, Batch())
    with pytest.raises(LeaseLost):
        store.position(lease)


def test_a_lease_that_ran_out_is_free(store: Store) -> None:
    study = make_study(store)
    old = store.acquire(study, "old")
    with store._writer.begin() as connection:
        connection.execute(sa.update(schema.lease).values(expires_at=store._now(plus_seconds=-1)))
    new = store.acquire(study, "new")
    assert new.generation == old.generation + 1


def test_of_many_drivers_at_once_one_gets_the_lease(store: Store) -> None:
    study = make_study(store)
    won: list[int] = []

    def attempt(who: int) -> None:
        try:
            store.acquire(study, str(who))
        except StudyBusy:
            return
        won.append(who)

    threads = [threading.Thread(target=attempt, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


@pytest.mark.parametrize(("objective", "best"), [("val_loss", "b"), ("val_acc", "a")])
def test_the_leaderboard_ranks_by_the_objective(store: Store, objective: str, best: str) -> None:
    study = make_study(store, objective=objective)
    other = make_study(store, "other")
    lease = store.acquire(study, "me")
    trials = [
        complete(waiting(0, "a"), 0, 0.6, 0.95, objective),
        complete(waiting(1, "b"), 1, 0.3, 0.90, objective),
        complete(waiting(2, "b"), 2, 0.5, 0.80, objective),
        replace(complete(waiting(3, "b"), 3, 9.0, 0.1, objective), cites=1),
        replace(waiting(4, "c"), state=TrialState.INFEASIBLE, reason="not finite", finish_order=4),
        waiting(5, "d"),
    ]
    store.commit(lease, Batch(added=trials))
    board = store.leaderboard(study)
    assert [row["rank"] for row in board] == [1, 2]
    assert board[0]["key"] == best
    by_key = {row["key"]: row for row in board}
    assert by_key["b"]["n_trials"] == 2
    assert by_key["b"]["val_loss"] == pytest.approx(0.4)
    assert by_key["b"]["val_acc"] == pytest.approx(0.85)
    assert len(store.leaderboard(study, limit=1)) == 1
    assert store.leaderboard(other) == []


def test_summaries_count_states_and_name_the_driver(store: Store) -> None:
    study = make_study(store)
    lease = store.acquire(study, "process 5 on node")
    store.commit(lease, Batch(added=[waiting(0), complete(waiting(1), 0)]))
    (summary,) = store.studies()
    assert summary.counts == {TrialState.WAITING: 1, TrialState.COMPLETE: 1}
    assert summary.holder == "process 5 on node"
    store.release(lease)
    assert store.studies()[0].holder == ""


# Databases --------------------------------------------------------------------------------------------------------


def test_the_migrations_make_exactly_the_schema(database_url: str) -> None:
    engine = database.connect(database_url, create=True)
    with engine.connect() as connection:
        ours = {table.name for table in schema.metadata.sorted_tables}
        options = {"include_name": lambda name, kind, _: kind != "table" or name in ours, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []
        checks = {
            table.name: {c["name"] for c in sa.inspect(connection).get_check_constraints(table.name)}
            for table in schema.metadata.sorted_tables
        }
    for table in schema.metadata.sorted_tables:
        named = {c.name for c in table.constraints if isinstance(c, sa.CheckConstraint)}
        assert checks[table.name] == named
    engine.dispose()


def test_opening_twice_changes_nothing_and_tables_of_others_are_left_alone(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE studies (id INTEGER)"))  # Optuna's name
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('v3.0.0')"))
    for _ in range(2):
        database.connect(database_url, create=True).dispose()
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "v3.0.0"
        assert connection.execute(sa.text("SELECT version_num FROM searcher_version")).scalar() == schema.HEAD
    engine.dispose()


def test_a_newer_schema_is_refused(database_url: str) -> None:
    database.connect(database_url, create=True).dispose()
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE searcher_version SET version_num = '9999'"))
    engine.dispose()
    for making in (True, False):
        with pytest.raises(StoreError, match=r"'9999'.*upgrade searcher"):
            database.connect(database_url, create=making)


def test_a_database_without_our_tables_is_not_made_ours_by_reading(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE other (id INTEGER)"))
    with pytest.raises(StoreError, match=r"no searcher tables"):
        Store(database_url)
    assert sa.inspect(engine).get_table_names() == ["other"]
    engine.dispose()


def test_bad_sqlite_files(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is not a database, whatever it says" * 100)
    with pytest.raises(StoreError, match=r"garbage\.db.*not a SQLite database"):
        Store(f"sqlite:///{garbage}", create=True)
    with pytest.raises(StoreError, match=r"there is no database"):
        Store(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(StoreError, match=r"there is no directory"):
        Store(f"sqlite:///{tmp_path}/no/where.db", create=True)
    with pytest.raises(StoreError, match=r"is a directory"):
        Store(f"sqlite:///{tmp_path}", create=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["garbage.db"]


def test_a_locked_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    store = Store(f"sqlite:///{tmp_path}/a.db", create=True)
    study = make_study(store)
    blocker = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=r"a\.db: another process has kept this database locked"):
        store.acquire(study, "me")
    blocker.execute("ROLLBACK")
    blocker.close()
    store.acquire(study, "me")
    store.close()


@pytest.mark.parametrize("how", ["removed", "moved", "replaced", "folder"])
def test_a_file_that_is_gone_is_said_to_be_gone(tmp_path: Path, how: str) -> None:
    """Row R11: the disk is not to blame if someone has removed, renamed or replaced the file under a search."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / "a.db"
    store = Store(f"sqlite:///{file}", create=True)
    study = make_study(store)
    lease = store.acquire(study, "me")
    if how == "folder":
        folder.rename(tmp_path / "elsewhere")
    elif how == "removed":
        file.unlink()
    else:
        file.rename(folder / "b.db")
    if how == "replaced":
        Store(f"sqlite:///{file}", create=True).close()
    with pytest.raises(StoreError, match=r"a\.db: this file was removed or replaced") as refusal:
        store.commit(lease, Batch(added=[waiting(0)]))
    assert not isinstance(refusal.value, database.StoreUnavailable)
    store.close()


def test_a_lock_is_told_by_its_code(tmp_path: Path) -> None:
    """Row R11: words in a message, as in the name of a table, make nothing an outage."""
    store = Store(f"sqlite:///{tmp_path}/a.db", create=True)
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute(
            "CREATE TRIGGER t BEFORE INSERT ON searcher_study BEGIN SELECT RAISE(ABORT, 'database is locked, full, "
            "malformed, readonly'); END"
        )
    connection.close()
    with pytest.raises(StoreError) as refusal:
        make_study(store)
    assert not isinstance(refusal.value, database.StoreUnavailable)
    assert "another process" not in str(refusal.value) and "is damaged" not in str(refusal.value)
    store.close()


@pytest.mark.parametrize(
    "url",
    ["nonsense", "mysql://u:canary@h/d", "sqlite://", "sqlite:///:memory:", "postgresql://u:canary@127.0.0.1:1/d"],
)
def test_bad_urls_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(StoreError) as refusal:
        Store(url, create=True)
    assert "canary" not in str(refusal.value)
    assert "canary" not in database.masked("postgresql://u:canary@h/d")
