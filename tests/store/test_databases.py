"""Databases over the years and in both kinds: old ones upgraded, checks, copies, and tables of others beside ours.

`databases` holds a real database for each revision of the schema, as a SQLite file and as a dump of PostgreSQL by
pg_dump. The code of that revision has made them: a random search on 200 digits whose trials came to an end in every
way, resumed with a time limit that none of its trainings could keep, resumed with Ray workers, and ended by `kill -9`
of its driver while four trials were running. There must be one for every revision but the newest, which is added with
the next migration: until then the code in the tree makes such databases itself. Those of revision 0003 are those of
0002, upgraded by the code of 0003.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from searcher.doctor import Finding
from searcher.driver import session
from searcher.store import copying, database, postgresql
from searcher.store.checking import examine
from searcher.store.schema import HEAD, REVISIONS, VERSION_TABLE
from searcher.store.store import Store
from tests.support import ROOT, searches
from tests.support.commands import Cli
from tests.support.databases import DATABASES, OLD, put
from tests.support.searches import SETTINGS
from workers.contract import Job, Outcome
from workers.pools.base import InlinePool

pytestmark = pytest.mark.slow

Rows = dict[str, list[dict[str, Any]]]


def run(url: str, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def contents(url: str) -> Rows:
    """Every row that is ours, read without our code."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        tables = [name for name in sa.inspect(connection).get_table_names() if name.startswith("searcher_")]
        found = {
            name: [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {name}")).mappings()]
            for name in ([*tables, "leaderboard"] if tables else [])
        }
    engine.dispose()
    return {name: sorted(rows, key=str) for name, rows in found.items()}


def narrowed(rows: Rows, to: Rows) -> Rows:
    """Of `rows`, the tables and columns that `to` has."""
    columns = {name: list(there[0]) for name, there in to.items()}
    return {
        name: sorted(({column: row[column] for column in columns[name]} for row in rows[name]), key=str) for name in to
    }


def in_older_form(rows: Rows) -> Rows:
    """The rows as revisions before 0004 had them: with the loss and the accuracy as columns."""
    if "searcher_task_config" not in rows:
        return rows
    tasks = {task["study_id"]: task for task in rows["searcher_task_config"]}
    return {
        **rows,
        "searcher_study": [row | {"objective": tasks[row["id"]]["objective"]} for row in rows["searcher_study"]],
        "searcher_trial": [row | values_of(row, "val_loss", "val_acc") for row in rows["searcher_trial"]],
        "searcher_epoch": [
            row | {"epoch": row["step"]} | values_of(row, "train_loss", "val_loss", "val_acc")
            for row in rows["searcher_point"]
        ],
        "leaderboard": [row | values_of(row, "val_loss", "val_acc") for row in rows["leaderboard"]],
    }


def values_of(row: dict[str, Any], *names: str) -> dict[str, float | None]:
    """Metrics of a row, which SQLite's driver gives as text."""
    metrics = json.loads(row["metrics"]) if isinstance(row["metrics"], str) else row["metrics"] or {}
    return {name: metrics.get(name) for name in names}


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An old database's file, and the URL at which it is now."""
    kind = "sqlite" if request.param.endswith(".db") else "postgresql"
    url = str(request.getfixturevalue(f"{kind}_url"))
    put(request.param, url)
    return request.param, url


def upgraded(url: str) -> str:
    """The newest of the old databases, brought up to date."""
    put(OLD[-2] if url.startswith("sqlite") else OLD[-1], url)
    database.connect(url, create=True).dispose()
    return url


# Old databases --------------------------------------------------------------------------------------------------------


def test_there_is_an_old_database_for_each_revision() -> None:
    for kind in ("db", "sql"):
        kept = {path.stem for path in DATABASES.glob(f"*.{kind}")}
        assert set(REVISIONS[:-1]) <= kept <= set(REVISIONS)
    assert len(OLD) == 2 * len({Path(name).stem for name in OLD})


def test_an_old_database_is_upgraded_and_its_study_goes_on(old: tuple[str, str], cli: Cli) -> None:
    """Seen to fail with a 0002 that deletes the leases' holders, and with a 0003 that fills no tallies."""
    name, url = old
    before = contents(url)
    ended = {row["state"] for row in before["searcher_trial"]}
    assert ended == {"COMPLETE", "PRUNED", "INFEASIBLE", "FAILED", "RUNNING"}
    assert before[VERSION_TABLE] == [{"version_num": Path(name).stem}]
    storage = ("--storage", url)
    if not name.startswith(HEAD):
        refused = cli("top", "old", *storage)
        assert refused.returncode == 1 and "searcher db upgrade --storage" in refused.stderr
        assert contents(url) == before

    assert cli("db", "upgrade", *storage).returncode == 0
    after = contents(url)
    assert after.pop(VERSION_TABLE) == [{"version_num": HEAD}] and before.pop(VERSION_TABLE)
    assert narrowed(in_older_form(after), before) == before
    checked = cli("db", "check", *storage)
    assert checked.returncode == 0 and "48 of 60 trials decided, 4 open, nobody drives it" in checked.stdout
    board = json.loads(cli("top", "old", *storage, "-f", "json").stdout)
    assert {row["number"]: row["val_loss"] for row in board} == {
        row["number"]: row["val_loss"] for row in in_older_form(before)["leaderboard"]
    }
    (status,) = json.loads(cli("status", "old", *storage, "-f", "json").stdout)
    assert (status["done"], status["total"], status["complete"], status["failed"]) == (48, 60, 9, 2)

    resumed = cli("resume", "old", *storage, "-q", "--pool", "inline")
    assert resumed.returncode == 0, resumed.stderr
    trials = {row["number"]: row for row in contents(url)["searcher_trial"]}
    assert sorted(trials) == list(range(60)) and all(row["finished_at"] for row in trials.values())
    now = in_older_form(contents(url))
    was = narrowed({"searcher_trial": now["searcher_trial"]}, {"searcher_trial": before["searcher_trial"]})
    decided = [row for row in before["searcher_trial"] if row["state"] != "RUNNING"]
    assert len(decided) == 48 and all(row in was["searcher_trial"] for row in decided)
    assert "60 of 60 trials decided, 0 open" in cli("db", "check", *storage).stdout


def test_an_upgrade_waits_for_the_drivers_of_the_older_searcher(old: tuple[str, str], cli: Cli) -> None:
    """Seen to fail with leases not looked at: the old driver goes on, and the tallies are wrong from then on."""
    _, url = old
    engine = sa.create_engine(database.parse_url(url))
    expiry = "UPDATE searcher_lease SET expires_at = {} + 0.0"
    with engine.begin() as connection:
        connection.execute(sa.text(expiry.format(f"{database.clock(engine.dialect.name)} + 60")))
    before = contents(url)
    refused = cli("db", "upgrade", "--storage", url)
    assert refused.returncode == 1 and "study 'old' is being driven by" in refused.stderr
    assert contents(url) == before
    with engine.begin() as connection:
        connection.execute(sa.text(expiry.format("0")))
    assert cli("db", "upgrade", "--storage", url).returncode == 0
    engine.dispose()


def test_a_driver_counts_anew_what_was_changed_beside_the_tallies(database_url: str) -> None:
    """Seen to fail with the tallies left as they are: the next commit of a driver would make one negative."""
    store = Store(upgraded(database_url))
    study = store.study("old")
    engine = sa.create_engine(store.url)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM searcher_tally"))
    store.release(store.acquire(study, "me"))
    assert sum(store.counts(study).values()) == 52
    assert all(finding.ok for finding in examine(database_url))
    engine.dispose()
    store.close()


# `db check` -----------------------------------------------------------------------------------------------------------

UNHELD = {  # by a constraint; and what is said of it
    "DELETE FROM searcher_trial WHERE number = 47": "its 51 values of number are 51, from 0 to 51, not 0 to 50",
    "UPDATE searcher_trial SET finish_order = 99 WHERE number = 50": "48 values of finish_order are 48, from 0 to 99",
    "UPDATE searcher_trial SET cites = 51 WHERE number = 49": "3 trials that cite no judged trial of the same function",
    "UPDATE searcher_trial SET value = 1, merit = -1 WHERE number = 9": "the same function, the first of trial 9",
    "UPDATE searcher_trial SET key = 'another' WHERE number = 46": "3 trials that cite",
    "UPDATE searcher_trial SET finished_at = NULL WHERE number = 0": "1 trials that are open but have ended",
    "INSERT INTO searcher_point VALUES (1, 51, 1, '{}')": "1 points of learning curves whose trial has not ended",
    "INSERT INTO searcher_learned VALUES (1, 51, 0, 'a', 'beta', 1, 1, 1, 0, 1, 1, 1, 1, 1, '[1]')": (
        "1 learned parameters whose trial has not ended"
    ),
    "DELETE FROM searcher_lease": "it has no lease",
    "UPDATE searcher_tally SET trials = 3 WHERE state = 'FAILED'": "its tally is 9 COMPLETE, 3 FAILED, 24 INFEASIBLE",
    "UPDATE searcher_study SET n_trials = 40": "it has 51 trials, more than its total of 40",
    "UPDATE searcher_trial SET task_config = 7 WHERE number = 1": "1 trials without a task configuration",
    "UPDATE searcher_trial SET merit = value WHERE number = 2": "1 trials whose merit is not the value of their",
    "UPDATE searcher_study SET config = '[1]'": "not a JSON object",
    "DROP INDEX ix_searcher_trial_failed": "to repair: add_index ix_searcher_trial_failed",
    "DROP VIEW leaderboard": "the view leaderboard is missing",
}
HELD = {
    "UPDATE searcher_trial SET value = NULL, merit = NULL WHERE number = 0": "1 COMPLETE trials without values",
    "UPDATE searcher_trial SET value = {inf} WHERE number = 1": "3 trials with numbers that are not finite",
    "UPDATE searcher_trial SET tie_merit = {inf} WHERE number = 2": "or out of range, the first of trial 1",
    "UPDATE searcher_trial SET seconds = -1 WHERE number = 3": "3 trials with numbers",
    "UPDATE searcher_trial SET state = 'LOST' WHERE number = 12": "1 trials of an unknown state or kind",
    "UPDATE searcher_trial SET finish_order = 48 WHERE number = 51": "1 trials that are open but have ended",
    "UPDATE searcher_trial SET study_id = 9 WHERE number = 47": "study with id 9, which does not exist: its 1 values",
}


def checked(cli: Cli, url: str) -> str:
    """What is found to be wrong."""
    done = cli("db", "check", "--storage", url)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_what_no_constraint_holds_is_found(database_url: str, cli: Cli) -> None:
    """Seen to fail with each rule left out in turn."""
    run(upgraded(database_url), *UNHELD)
    said = checked(cli, database_url)
    assert [found for found in UNHELD.values() if found not in said] == []


@pytest.mark.parametrize("infinite", ["'NaN'", "'-Infinity'"])
def test_what_constraints_hold_is_found_without_them(postgresql_url: str, cli: Cli, infinite: str) -> None:
    """Seen to fail with each rule left out in turn."""
    drop = (
        "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname) FROM pg_constraint "
        "WHERE conname LIKE '%searcher%' AND contype IN ('c', 'f', 'u')"
    )
    engine = sa.create_engine(upgraded(postgresql_url))
    with engine.connect() as connection:
        dropped = list(connection.execute(sa.text(drop)).scalars())
    engine.dispose()
    run(postgresql_url, *dropped, *(damage.format(inf=infinite) for damage in HELD))
    said = checked(cli, postgresql_url)
    assert [found for found in HELD.values() if found not in said] == []
    assert "to repair: add_constraint searcher_trial ck_searcher_trial_complete" in said


@pytest.mark.parametrize("damage", HELD)
def test_what_constraints_hold_is_found_in_a_file_written_without_them(sqlite_url: str, cli: Cli, damage: str) -> None:
    """Seen to fail without SQLite's own checks."""
    with closing(sqlite3.connect(upgraded(sqlite_url).removeprefix("sqlite:///"))) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(damage.format(inf="9e999"))
        connection.commit()
    assert "NO  database: " in checked(cli, sqlite_url)


def test_a_database_that_has_lost_its_version_is_not_taken_for_an_empty_one(database_url: str, cli: Cli) -> None:
    run(upgraded(database_url), f"DELETE FROM {VERSION_TABLE}")
    assert "has no searcher tables" in checked(cli, database_url)


def test_a_damaged_file_is_found(sqlite_url: str, cli: Cli) -> None:
    """Seen to fail without PRAGMA integrity_check: the index is never read."""
    file = Path(upgraded(sqlite_url).removeprefix("sqlite:///"))
    with closing(sqlite3.connect(file)) as connection:
        index = "SELECT rootpage FROM sqlite_schema WHERE name = 'ix_searcher_trial_failed'"
        page = connection.execute(index).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    data = bytearray(file.read_bytes())
    data[page * size - 1] ^= 0xFF
    file.write_bytes(data)
    assert "ix_searcher_trial_failed" in checked(cli, sqlite_url)


def test_a_database_is_whole_while_a_search_writes_to_it(database_url: str) -> None:
    """Seen to fail with trials and tallies counted by two statements."""
    store = Store(database_url, create=True)
    settings = SETTINGS.replace(n_trials=100_000)
    study = session.create_study(store, settings)
    seen: list[Finding] = []

    def at_work() -> set[str]:
        return {finding.found for finding in seen if finding.what.startswith("study")}

    begun = threading.Event()

    def judge(job: Job) -> Outcome:
        begun.set()
        return searches.judge(job)

    pool = InlinePool(run=judge)
    enough = partial(searches.run, store, study, settings, pool, lambda: len(at_work()) > 9)
    searching = threading.Thread(target=enough)
    searching.start()
    assert begun.wait(60)
    while searching.is_alive():
        seen += examine(database_url)
    searching.join()
    store.close()
    assert [finding for finding in seen if not finding.ok] == []
    assert len(at_work()) > 9


# `db copy` ------------------------------------------------------------------------------------------------------------


def add_study(url: str, name: str) -> None:
    store = Store(url)
    searches.run(store, session.create_study(store, SETTINGS.replace(study_name=name)), SETTINGS)
    store.close()


def of_the_study(rows: Rows) -> Rows:
    """Without what is the database's own: ids, points in time as SQLite has them, who last drove."""
    own = {"id", "study_id", "expires_at"}
    stripped = {
        name: [{column: plain(value) for column, value in row.items() if column not in own} for row in there]
        for name, there in rows.items()
    }
    return {name: sorted(there, key=str) for name, there in stripped.items()}


def plain(value: Any) -> Any:
    """A value as SQLite's driver gives it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return json.dumps(value) if isinstance(value, dict | list) else value


def copied(cli: Cli, source: str, target: str, *options: str) -> list[dict[str, Any]]:
    done = cli("db", "copy", source, target, "-f", "json", *options)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_there_and_back_again_nothing_has_changed(sqlite_url: str, postgresql_url: str, cli: Cli) -> None:
    """Seen to fail with points in time that are written without their zone: nine hours are lost in Tokyo."""
    name = sa.make_url(postgresql_url).database
    database.connect(postgresql_url, create=True).dispose()
    run(postgresql_url, f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    add_study(postgresql_url, "there before")  # so that the copy has another id
    add_study(upgraded(sqlite_url), "second")
    back = sqlite_url.replace("searcher.db", "back.db")
    there = copied(cli, sqlite_url, postgresql_url)
    assert [(study["study"], study["trials"], study["points"]) for study in there] == [
        ("old", 52, 38),
        ("second", 40, len(contents(sqlite_url)["searcher_point"]) - 38),
    ]
    again = copied(cli, postgresql_url, back, "--study", "second", "--study", "old")
    assert sorted(again, key=str) == sorted(there, key=str)
    assert of_the_study(contents(back)) == of_the_study(contents(sqlite_url))
    in_postgresql = of_the_study(contents(postgresql_url))
    for table, rows in of_the_study(contents(sqlite_url)).items():
        assert all(row in in_postgresql[table] for row in rows)
    for url in (postgresql_url, back):
        assert cli("db", "check", "--storage", url).returncode == 0
        assert cli("resume", "old", "--storage", url, "-q", "--pool", "inline").returncode == 0
        (status,) = json.loads(cli("status", "old", "--storage", url, "-f", "json").stdout)
        assert (status["done"], status["waiting"], status["running"]) == (60, 0, 0)


def urls(kinds: str, directory: Path, postgresql_url: str) -> tuple[str, str]:
    sqlite = f"sqlite:///{directory}/searcher.db"
    return (sqlite, postgresql_url) if kinds == "sqlite-postgresql" else (postgresql_url, sqlite)


@pytest.fixture(params=["sqlite-postgresql", "postgresql-sqlite"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, postgresql_url: str) -> tuple[str, str]:
    """A database with the old study, and an empty one of the other kind."""
    source, target = urls(request.param, tmp_path, postgresql_url)
    return upgraded(source), target


def refused(cli: Cli, source: str, target: str, *options: str) -> str:
    """What is said; the target is as it was, be that an empty database or none."""
    file = Path(target.removeprefix("sqlite:///"))
    there = file.exists()
    before = contents(target) if there or not target.startswith("sqlite") else None
    done = cli("db", "copy", source, target, *options)
    assert done.returncode == 1 and done.stdout == ""
    assert file.exists() == there
    assert before is None or contents(target) == before
    return done.stderr


def test_what_cannot_be_copied_leaves_the_target_as_it_was(pair: tuple[str, str], cli: Cli) -> None:
    """Seen to fail with no look at the lease, and with none at the names."""
    source, target = pair
    assert "no study 'other' in" in refused(cli, source, target, "--study", "old", "--study", "other")
    store = Store(source)
    lease = store.acquire(store.study("old"), "process 7 on elsewhere")
    told = refused(cli, source, target)
    assert "driven by process 7 on elsewhere" in told and "searcher stop old --storage" in told
    store.release(lease)
    store.close()
    copied(cli, source, target)
    add_study(source, "new")
    assert "has a study of that name already: old; nothing was written" in refused(cli, source, target)
    assert [study["study"] for study in copied(cli, source, target, "--study", "new")] == ["new"]


def test_a_file_that_another_process_fills_meanwhile_stays(
    pair: tuple[str, str], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail with the file removed whatever is in it."""
    url = f"sqlite:///{tmp_path}/both.db"
    made = copying._made

    def slowly(path: Path) -> bool:
        ours = made(path)
        monkeypatch.setattr(copying, "_made", made)
        copying.copy(pair[0], url, ["old"], lambda *_: None)  # another copy is faster
        return ours

    monkeypatch.setattr(copying, "_made", slowly)
    refused = cli("db", "copy", pair[0], url)
    assert refused.returncode == 1 and "a study of that name already: old" in refused.stderr
    assert [study["name"] for study in contents(url)["searcher_study"]] == ["old"]


def test_an_older_source_is_to_be_upgraded_first(old: tuple[str, str], tmp_path: Path, cli: Cli) -> None:
    name, url = old
    if name.startswith(HEAD):
        pytest.skip("it is not older")
    assert f"searcher db upgrade --storage {shlex.quote(database.masked(url))}" in refused(
        cli, url, f"sqlite:///{tmp_path}/new.db"
    )


TRIGGERS = {  # on a point of a learning curve in the target: one that changes it a little, one that takes time
    "sqlite": (
        "CREATE TRIGGER tamper AFTER INSERT ON searcher_point WHEN new.step = 4 BEGIN UPDATE searcher_point SET "
        "metrics = json_set(metrics, '$.train_loss', (metrics ->> 'train_loss') + 1e-15) "
        "WHERE study_id = new.study_id AND number = new.number; END",
        "CREATE TRIGGER slow AFTER INSERT ON searcher_point BEGIN SELECT COUNT(*) FROM (WITH RECURSIVE t(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 500000) SELECT n FROM t); END",
    ),
    "postgresql": (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.metrics = json_build_object("
        "''train_loss'', (new.metrics ->> ''train_loss'')::float8 + 1e-15); RETURN new; END'; "
        "CREATE TRIGGER tamper BEFORE INSERT ON searcher_point FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); RETURN new; END'; "
        "CREATE TRIGGER slow BEFORE INSERT ON searcher_point FOR EACH ROW EXECUTE FUNCTION f()",
    ),
}


def test_what_the_target_does_not_take_leaves_no_tables_there(pair: tuple[str, str], cli: Cli) -> None:
    """Seen to fail with tables that are made in a transaction of their own."""
    source, target = pair
    first = "PRAGMA ignore_check_constraints = ON"
    if not source.startswith("sqlite"):
        first = "ALTER TABLE searcher_trial DROP CONSTRAINT ck_searcher_trial_state"
    run(source, first, "UPDATE searcher_trial SET state = 'LOST' WHERE number = 7")
    said = refused(cli, source, target)
    assert database.masked(target) in said and "ck_searcher_trial_state" in said


def with_trigger(target: str, which: int) -> None:
    database.connect(target, create=True).dispose()
    run(target, TRIGGERS[sa.make_url(target).get_backend_name()][which])


def test_a_copy_that_differs_is_not_kept(pair: tuple[str, str], cli: Cli) -> None:
    """Seen to fail with both checksums taken of what was read at the source."""
    source, target = pair
    with_trigger(target, 0)
    assert "the copy would differ from the original" in refused(cli, source, target)


def test_one_side_may_be_slow(postgresql_url: str, sqlite_url: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the time limit of a search's transactions, as a copy of a million trials did."""
    source = upgraded(postgresql_url)
    with_trigger(sqlite_url, 1)
    monkeypatch.setitem(postgresql.SETTINGS, "idle_in_transaction_session_timeout", "1s")
    assert [study["trials"] for study in copied(cli, source, sqlite_url)] == [52]


def test_what_was_committed_is_said_to_be_copied(postgresql_url: str, cli: Cli) -> None:
    """The source goes away in the very commit. Seen to fail with its connection closed after that: status 1, and a
    complete copy."""
    source, target = upgraded(postgresql_url), sa.make_url(postgresql_url).set(database=f"t{time.time_ns()}")
    engine = sa.create_engine(source, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {target.database}")
    engine.dispose()
    url = target.render_as_string(hide_password=False)
    database.connect(url, create=True).dispose()
    cut = f"PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{sa.make_url(source).database}'"
    run(
        url,
        f"CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {cut}; RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON searcher_study DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION cut()",
    )
    assert [study["study"] for study in copied(cli, source, url)] == ["old"]
    assert len(contents(url)["searcher_trial"]) == 52


def being_written(target: str) -> bool:
    """Whether another process holds locks that only a writer has."""
    engine = sa.create_engine(target, **({"connect_args": {"timeout": 0}} if target.startswith("sqlite") else {}))
    try:
        with engine.connect() as connection:
            if target.startswith("sqlite"):
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                return False
            held = "SELECT COUNT(*) FROM pg_locks WHERE relation = 'searcher_point'::regclass AND mode ~ 'RowExclusive'"
            return bool(connection.execute(sa.text(held)).scalar())
    except sa.exc.OperationalError:
        return True
    finally:
        engine.dispose()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_copy_that_is_cut_short_leaves_the_target_as_it_was(
    pair: tuple[str, str], number: signal.Signals, status: int
) -> None:
    """Seen to fail with the target in autocommit."""
    source, target = pair
    with_trigger(target, 1)
    before = contents(target)
    command = [sys.executable, "-m", "cli", "db", "copy", source, target]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, by children too
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE) as process:
        while not being_written(target):
            assert process.poll() is None, "it was to be at work"
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    if number is signal.SIGINT:
        assert errors.decode().strip() == "Interrupted; nothing was written."
    assert contents(target) == before


def test_a_large_study_is_copied_in_batches(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with the rows of a table read at once."""
    monkeypatch.setattr(copying, "BATCH", 500)
    names = list(contents(upgraded(sqlite_url))["searcher_trial"][0])
    given = {"number": "n.number", "state": "'WAITING'", "finish_order": "NULL", "finished_at": "NULL"}
    values = ", ".join(given.get(name, name if name != "study_id" else "1") for name in names)
    run(
        sqlite_url,
        "WITH RECURSIVE n(number) AS (SELECT 52 UNION ALL SELECT number + 1 FROM n WHERE number < 10051) "
        f"INSERT INTO searcher_trial ({', '.join(names)}) SELECT {values} FROM n, searcher_trial AS t "
        "WHERE t.number = 0",
    )
    tracemalloc.start()
    (study,) = copying.copy(sqlite_url, f"sqlite:///{tmp_path}/large.db", (), lambda *_: None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert study.trials == 10_052
    assert peak < 6e6


# Beside other programs' tables ----------------------------------------------------------------------------------------


def optunas(url: str) -> dict[str, Any]:
    """What a real Optuna finds, and the version of its tables."""
    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name="theirs", storage=storage)
    found = {"values": [trial.value for trial in study.trials], "version": storage.get_current_version()}
    storage.engine.dispose()
    return found


def test_optuna_and_we_share_a_database(database_url: str, tmp_path: Path, cli: Cli) -> None:
    """Optuna keeps the version of its tables where Alembic does by default, in `alembic_version`, and so does MLflow,
    which is not installed: Optuna stands for it. Seen to fail with our versions kept there too."""
    storage = optuna.storages.RDBStorage(database_url)
    theirs = optuna.create_study(study_name="theirs", storage=storage, sampler=optuna.samplers.RandomSampler(seed=1))
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    storage.engine.dispose()
    before = optunas(database_url)
    assert len(before["values"]) == 3

    database.connect(database_url, create=True).dispose()
    add_study(database_url, "ours")
    assert cli("db", "upgrade", "--storage", database_url).returncode == 0
    ours = contents(database_url)
    assert optunas(database_url) == before
    storage = optuna.storages.RDBStorage(database_url)
    storage.upgrade()
    more = optuna.load_study(study_name="theirs", storage=storage)
    more.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    storage.engine.dispose()
    assert contents(database_url) == ours
    assert optunas(database_url)["values"][:3] == before["values"]
    assert cli("db", "check", "--storage", database_url).returncode == 0
    other = f"sqlite:///{tmp_path}/other.db"
    assert [study["study"] for study in copied(cli, database_url, other)] == ["ours"]
    engine = sa.create_engine(other)
    tables = sa.inspect(engine).get_table_names()
    engine.dispose()
    assert all(name.startswith("searcher_") for name in tables)
