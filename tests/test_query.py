"""A person's own SQL can read everything and change nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import sqlalchemy as sa

from searcher.database import connect
from searcher.query import QueryRefused, run_query
from searcher.store import Batch, Store
from searcher.trial import Kind, Objective, Trial, TrialState


@pytest.fixture
def filled(database_url: str) -> str:
    store = Store(database_url, create=True)
    study = store.create_study("s", 3, Objective.VAL_LOSS, {}, {})
    lease = store.acquire(study, "me")
    trials = [
        Trial(n, Kind.CANDIDATE, "x", f"k{n}", 0, state=TrialState.COMPLETE, val_loss=0.5, val_acc=0.5, finish_order=n)
        for n in range(3)
    ]
    store.commit(lease, Batch(added=trials))
    store.close()
    return database_url


def test_reading(filled: str) -> None:
    assert run_query(filled, "SELECT COUNT(*) AS n FROM searcher_trial") == [{"n": 3}]
    assert run_query(filled, "SELECT rank, key FROM leaderboard ORDER BY rank LIMIT 1;") == [{"rank": 1, "key": "k0"}]
    assert run_query(filled, "WITH t AS (SELECT 1 AS one) SELECT one FROM t") == [{"one": 1}]
    assert run_query(filled, "SELECT number FROM searcher_trial WHERE 1 = 0") == []


WRITES = [
    "INSERT INTO searcher_study (name) VALUES ('x')",
    "UPDATE searcher_trial SET val_acc = 1",
    "DELETE FROM searcher_trial",
    "DELETE FROM searcher_trial RETURNING number",
    "DROP TABLE searcher_trial",
    "DROP VIEW leaderboard",
    "ALTER TABLE searcher_trial ADD COLUMN x INTEGER",
    "CREATE TABLE x (y INTEGER)",
    "CREATE TEMPORARY TABLE x (y INTEGER)",
    "CREATE INDEX i ON searcher_trial (key)",
    "SELECT 1; DELETE FROM searcher_trial",
    "SELECT 1; COMMIT; DELETE FROM searcher_trial",
    "COMMIT",
    "BEGIN",
    "ROLLBACK; DELETE FROM searcher_trial",
    "REINDEX searcher_trial",
    "ANALYZE",
    "VACUUM",
    "EXPLAIN DELETE FROM searcher_trial",
    "",
    "nonsense",
]
SQLITE = [
    "ATTACH 'other.db' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "VACUUM INTO 'copy.db'",
    "PRAGMA journal_mode = WAL",
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "PRAGMA user_version = 7",
    "SELECT load_extension('x')",
    "SELECT writefile('x', 'y')",
    "REPLACE INTO searcher_version VALUES ('x')",
    "CREATE TRIGGER t AFTER INSERT ON searcher_trial BEGIN DELETE FROM searcher_epoch; END",
    "SAVEPOINT s",
    "WITH t AS (SELECT 1) DELETE FROM searcher_trial",
]
POSTGRESQL = [
    "SET default_transaction_read_only = off",
    "SET TRANSACTION READ WRITE",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT lo_create(0)",
    "SELECT nextval('searcher_study_id_seq')",
    "SELECT setval('searcher_study_id_seq', 99)",
    "COPY searcher_trial TO '/tmp/x'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/x'",
    "SELECT * INTO copied FROM searcher_trial",
    "SELECT * FROM searcher_trial FOR UPDATE",
    "WITH d AS (DELETE FROM searcher_trial RETURNING 1) SELECT * FROM d",
    "TRUNCATE searcher_epoch",
    "GRANT ALL ON searcher_trial TO PUBLIC",
    "DO $$ BEGIN DELETE FROM searcher_trial; END $$",
    "CALL nothing()",
    "LOCK TABLE searcher_trial",
]


def contents(url: str) -> list[object]:
    """Every row of every table, and the tables."""
    engine = connect(url, create=False)
    with engine.connect() as connection:
        names = sorted(sa.inspect(connection).get_table_names())
        rows: list[object] = [connection.execute(sa.text(f"SELECT * FROM {name}")).fetchall() for name in names]
    engine.dispose()
    return [names, *rows]


@pytest.mark.parametrize("sql", [*WRITES, *SQLITE, *POSTGRESQL])
def test_writing_is_refused_and_changes_nothing(
    filled: str, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (filled.startswith("sqlite") and sql in POSTGRESQL) or (filled.startswith("postgresql") and sql in SQLITE):
        pytest.skip("a statement of the other database")
    monkeypatch.chdir(tmp_path)
    before = contents(filled)
    files = fingerprint(tmp_path)
    with pytest.raises(QueryRefused):
        run_query(filled, sql)
    assert contents(filled) == before
    assert fingerprint(tmp_path) == files


def fingerprint(directory: Path) -> dict[str, str]:
    files = [path for path in directory.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_runaway_query_is_stopped(filled: str) -> None:
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT COUNT(*) FROM t"
    with pytest.raises(QueryRefused, match=r"ran longer than 0\.5 s"):
        run_query(filled, endless, time_limit_seconds=0.5)


def test_numbers_that_are_not_finite_come_as_text(filled: str) -> None:
    infinite = "SELECT 9e999 AS x" if filled.startswith("sqlite") else "SELECT 'Infinity'::float8 AS x"
    assert run_query(filled, infinite) == [{"x": "inf"}]
