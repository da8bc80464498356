"""A person's own SQL can read everything and change nothing, and takes bounded time and memory."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import yaml

from searcher.commands import sql as command
from searcher.records import Kind, Trial
from searcher.store import query
from searcher.store.database import MIGRATION_LOCK, StoreError, connect
from searcher.store.query import QueryRefused, QueryStopped, opened_query, run_query
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.commands import Cli
from tests.support.made import create, result
from tests.support.postgres import fresh_database

pytestmark = pytest.mark.slow

ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t)"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of each kind that no test here can change."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/searcher.db"
    else:
        url = fresh_database(request.getfixturevalue("postgresql_server"))
    store = Store(url, create=True)
    study = create(store, "s", 3, "val_loss", {"units": [1, 2]}, {})
    lease = store.acquire(study, "me")
    trials = [result(Trial(n, Kind.CANDIDATE, "x", f"k{n}", 0), 0.5, finish_order=n) for n in range(3)]
    store.commit(lease, Batch(added=trials))
    store.close()
    return url


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def test_reading(filled: str) -> None:
    assert run_query(filled, "SELECT COUNT(*) AS n FROM searcher_trial") == [{"n": 3}]
    assert run_query(filled, "SELECT rank, key FROM leaderboard ORDER BY rank LIMIT 1;") == [{"rank": 1, "key": "k0"}]
    assert run_query(filled, "WITH t AS (SELECT 1 AS one) SELECT one FROM t -- all") == [{"one": 1}]
    assert run_query(filled, "SELECT number FROM searcher_trial WHERE 1 = 0") == []
    assert run_query(filled, "SELECT 1 AS a, 2 AS a, 3 AS a") == [{"a": 1, "a_2": 2, "a_3": 3}]
    (row,) = run_query(filled, "SELECT config FROM searcher_study")
    assert json.loads(row["config"]) == {"units": [1, 2]}


WRITES = [
    "INSERT INTO searcher_study (name) VALUES ('x')",
    "UPDATE searcher_trial SET val_acc = 1",
    "DELETE FROM searcher_trial",
    "DELETE FROM searcher_trial RETURNING number",
    "/* SELECT */ DELETE FROM searcher_trial",
    "DROP TABLE searcher_trial",
    "DROP VIEW leaderboard",
    "ALTER TABLE searcher_trial ADD COLUMN x INTEGER",
    "CREATE TABLE x (y INTEGER)",
    "CREATE TEMPORARY TABLE x (y INTEGER)",
    "CREATE INDEX i ON searcher_trial (key)",
    "SELECT 1; DELETE FROM searcher_trial",
    "SELECT 1; COMMIT; DELETE FROM searcher_trial",
    "SELECT 1\0; DELETE FROM searcher_trial",
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
    "PRAGMA temp_store_directory = '.'",
    "PRAGMA wal_checkpoint",
    "PRAGMA optimize",
    "SELECT * FROM pragma_journal_mode",
    "SELECT load_extension('x')",
    "SELECT writefile('x', 'y')",
    "SELECT readfile('/etc/passwd')",
    "SELECT edit('x')",
    "SELECT fts3_tokenizer('simple', x'0000000000000000')",
    "REPLACE INTO searcher_version VALUES ('x')",
    "CREATE TRIGGER t AFTER INSERT ON searcher_trial BEGIN DELETE FROM searcher_point; END",
    "CREATE TEMP TRIGGER t AFTER INSERT ON searcher_trial BEGIN DELETE FROM searcher_point; END",
    "CREATE VIRTUAL TABLE f USING fts5(x)",
    "CREATE TEMP VIEW searcher_trial AS SELECT 1",
    "UPDATE sqlite_master SET sql = ''",
    "DELETE FROM sqlite_master",
    "SAVEPOINT s",
    "WITH t AS (SELECT 1) DELETE FROM searcher_trial",
]
POSTGRESQL = [
    "SET default_transaction_read_only = off",
    "SET TRANSACTION READ WRITE",
    "SET ROLE postgres",
    "RESET ROLE",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/x')",
    "SELECT nextval('searcher_study_id_seq')",
    "SELECT setval('searcher_study_id_seq', 99)",
    "COPY searcher_trial TO '/tmp/x'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/x'",
    "COPY searcher_trial FROM PROGRAM 'cat /etc/passwd'",
    "SELECT * INTO copied FROM searcher_trial",
    "SELECT * FROM searcher_trial FOR UPDATE",
    "WITH d AS (DELETE FROM searcher_trial RETURNING 1) SELECT * FROM d",
    "MERGE INTO searcher_trial USING (SELECT 1) AS o ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE searcher_point",
    "GRANT ALL ON searcher_trial TO PUBLIC",
    "DO $$ BEGIN DELETE FROM searcher_trial; END $$",
    "CALL nothing()",
    "LOCK TABLE searcher_trial",
    "PREPARE p AS DELETE FROM searcher_trial",
    "EXECUTE p",
    "LISTEN x",
    "NOTIFY x",
    "FETCH ALL FROM searcher_query",
    "CREATE EXTENSION dblink",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "EXPLAIN ANALYZE DELETE FROM searcher_trial",
    "SELECT query_to_xml('DELETE FROM searcher_trial', false, false, '')",
    "SELECT * FROM dblink('dbname=postgres', 'DELETE FROM searcher_trial') AS t(x int)",
    # What a superuser might do outside of the transaction, were the role not put off:
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT set_config('role', 'none', true), pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_reload_conf()",
    "SELECT pg_switch_wal()",
    "SELECT pg_stat_reset()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    "SELECT pg_create_physical_replication_slot('x')",
]


def contents(url: str) -> list[object]:
    """Every row of every table, and the tables."""
    engine = connect(url, create=False)
    with engine.connect() as connection:
        names = sorted(sa.inspect(connection).get_table_names())
        rows: list[object] = [connection.execute(sa.text(f"SELECT * FROM {name}")).fetchall() for name in names]
    engine.dispose()
    return [names, *rows]


def fingerprint(directory: Path) -> dict[str, str]:
    files = [path for path in directory.iterdir() if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_writing_is_refused_and_changes_nothing(filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail without the authorizer (`mode=ro`, query_only and no write to any file hold most still), and on
    PostgreSQL without the role, or with the text sent as it is and not as a cursor's."""
    monkeypatch.chdir(tmp_path)
    sqlite = filled.startswith("sqlite")
    home = file_of(filled).parent if sqlite else tmp_path
    before, files = contents(filled), fingerprint(home)
    admitted = []
    for sql in [*WRITES, *(SQLITE if sqlite else POSTGRESQL)]:
        try:
            admitted.append((sql, run_query(filled, sql)))
        except (QueryRefused, QueryStopped):
            assert fingerprint(home) == files, sql
    assert admitted == []
    assert contents(filled) == before
    assert fingerprint(home) == files and not list(tmp_path.iterdir())


def test_what_a_role_without_rights_may_not_do_in_any_way(postgresql_url: str) -> None:
    """The statements that undo what `query` itself can do about a superuser."""
    Store(postgresql_url, create=True).close()
    role = f"reader_{os.getpid()}"
    with psycopg.connect(postgresql_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN")
        owner.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        owner.execute("SELECT 1")
        other = owner.info.backend_pid
        url = sa.make_url(postgresql_url).set(username=role).render_as_string(hide_password=False)
        try:
            assert run_query(url, "SELECT current_user AS me, COUNT(*) AS n FROM searcher_trial") == [
                {"me": role, "n": 0}
            ]
            for sly in (
                f"SELECT set_config('role', 'none', true), pg_terminate_backend({other})",
                f"SELECT set_config('session_authorization', 'postgres', true), pg_terminate_backend({other})",
                "SELECT set_config('role', 'postgres', true)",
                "SELECT lo_get(1)",
                "SELECT pg_read_file('PG_VERSION')",
            ):
                with pytest.raises(QueryRefused):
                    run_query(url, sly)
            assert owner.execute("SELECT 1").fetchone() == (1,)
        finally:
            owner.execute(f"DROP OWNED BY {role}")
            owner.execute(f"DROP ROLE {role}")


def test_what_a_query_locks_is_free_when_it_ends(postgresql_url: str) -> None:
    """Also if it held the lock that migrations take, and whatever it has set; a notification is never sent."""
    Store(postgresql_url, create=True).close()
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        other.execute("LISTEN news")
        lock = (
            f"SELECT pg_advisory_lock({MIGRATION_LOCK}), pg_notify('news', 'x'), set_config('work_mem', '1GB', false)"
        )
        assert len(run_query(postgresql_url, lock)) == 1
        end = time.monotonic() + 60  # the server may take a moment to see that its client has gone
        while not (free := other.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATION_LOCK]).fetchone() == (True,)):
            assert time.monotonic() < end
        assert free and list(other.notifies(timeout=0.2)) == []


RUNAWAYS = {
    "sqlite": [
        f"{ENDLESS} SELECT COUNT(*) FROM t",
        f"{ENDLESS} SELECT n FROM t WHERE n < 0",
        f"{ENDLESS} SELECT n, zeroblob(1000) FROM t",  # in the fetch: rows without end
        # One call each, which nothing in the process interrupts:
        "SELECT instr(zeroblob(9000000), CAST(zeroblob(4500000) || x'01' AS BLOB))",
        "SELECT hex(zeroblob(4000000)) LIKE '%' || hex(zeroblob(20000)) || 'b'",
    ],
    "postgresql": [
        f"{ENDLESS} SELECT COUNT(*) FROM t",
        f"{ENDLESS} SELECT n FROM t WHERE n < 0",
        "SELECT pg_sleep(100)",
        "SELECT pg_sleep(0.1) FROM generate_series(1, 100000)",
        "SELECT set_config('statement_timeout', '0', false) UNION ALL "  # of the fetches that follow the first
        "SELECT CASE WHEN n > 600 THEN pg_sleep(100)::text ELSE 'x' END FROM generate_series(1, 2000) AS n",
    ],
}


def test_a_runaway_query_is_stopped(filled: str) -> None:
    """Seen to fail without the killer, and on PostgreSQL without the cancelling, after which the server goes on."""

    def seconds(sql: str) -> float:
        begun = time.monotonic()
        with (
            pytest.raises(QueryStopped, match=r"ran longer than 1 s"),
            opened_query(filled, sql, time_limit_seconds=1, limit=10**9) as answer,
        ):
            for _ in answer:
                pass
        return time.monotonic() - begun

    backend = filled.split(":")[0]
    with ThreadPoolExecutor(2) as pool:
        took = list(pool.map(seconds, RUNAWAYS[backend]))
    assert max(took) < 1 + 10
    if backend == "postgresql":
        with psycopg.connect(filled, autocommit=True) as other:
            active = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND query ~ '^(DECLARE|FETCH)'"
            end = time.monotonic() + 30
            while other.execute(active).fetchall():
                assert time.monotonic() < end
                time.sleep(0.1)


def test_a_consumer_that_stands_still_does_not_keep_the_database(filled: str) -> None:
    """While rows are read a SQLite file cannot be written to: no longer than the time limit, that is.

    Seen to fail without the killer: the write gives up, the database is locked.
    """
    many = f"{ENDLESS} SELECT n, (SELECT COUNT(*) FROM searcher_trial) AS trials FROM t"
    with opened_query(filled, many, 3, 10**9) as answer:
        rows = iter(answer)
        assert next(rows) == {"n": 1, "trials": 3}
        time.sleep(4)
        store = Store(filled)
        lease = store.acquire(store.study("s"), "me", evict=1)
        store.commit(lease, Batch())
        store.close()
        with pytest.raises(QueryStopped, match="ran longer"):
            for _ in rows:
                pass


HUGE = {
    "sqlite": [
        "SELECT zeroblob(1000000000)",
        "SELECT randomblob(900000000)",
        "SELECT replace(hex(zeroblob(4000000)), '0', 'abcdefghij')",
        "SELECT " + ", ".join(["hex(zeroblob(4900000))"] * 300),
        f"{ENDLESS} SELECT n FROM t ORDER BY zeroblob(9000000)",
    ],
    "postgresql": [
        "SELECT repeat('x', 20000000)",
        "SELECT repeat('x', 2000000000)",
    ],
}


def test_what_would_take_too_much_memory_is_refused(filled: str) -> None:
    """Seen to fail without the limits of the process and of a row: it goes on to the time limit, or comes through."""
    for sql in HUGE[filled.split(":")[0]]:
        with pytest.raises((QueryRefused, QueryStopped), match=r"too much memory|too long; choose|memory alloc|length"):
            run_query(filled, sql)


def test_ten_million_rows_come_one_by_one_and_are_cut(filled: str) -> None:
    """Seen to fail with `fetchall`: nothing comes from SQLite within the time, and memory grows."""
    numbers = f"{ENDLESS} SELECT n, 'row' AS text FROM t LIMIT 10000000"
    tracemalloc.start()
    with opened_query(filled, numbers, limit=50_000) as answer:
        assert sum(row["n"] for row in answer) == 50_000 * 50_001 // 2
        assert answer.cut
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    with opened_query(filled, "SELECT number FROM searcher_trial", limit=3) as answer:
        assert len(list(answer)) == 3 and not answer.cut


def parsed(text: str, output: str) -> list[dict[str, Any]]:
    if output == "csv":
        return [{**row, "n": int(row["n"])} for row in csv.DictReader(io.StringIO(text))]
    if output == "markdown":
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
        return [{"n": int(n), "text": name} for n, name in cells[2:]]
    return list(json.loads(text) if output == "json" else yaml.safe_load(text))


@pytest.mark.parametrize("output", ["json", "csv", "yaml", "markdown"])
def test_what_is_cut_is_whole_and_says_so(filled: str, output: str, cli: Cli) -> None:
    sql = f"{ENDLESS} SELECT n, 'a' || n AS text FROM t"
    done = cli("query", sql, "--storage", filled, "-f", output, "--limit", "50")
    assert done.returncode == 0
    assert parsed(done.stdout, output) == [{"n": n, "text": f"a{n}"} for n in range(1, 51)]
    assert "cut after 50 rows" in done.stderr and "--limit" in done.stderr


def test_a_table_holds_less(filled: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TABLE_ROWS", 5)
    done = cli("query", f"{ENDLESS} SELECT n FROM t", "--storage", filled)
    assert done.returncode == 0 and "cut after 5 rows; a table holds no more, -f csv" in done.stderr
    assert done.stdout.split()[-1] == "5"


@pytest.mark.parametrize("output", ["json", "csv", "yaml", "markdown"])
def test_no_rows_are_an_answer_too(filled: str, output: str, cli: Cli) -> None:
    printed = cli("query", "SELECT 1 AS n, 2 AS text WHERE 1 = 0", "--storage", filled, "-f", output).stdout
    assert printed and parsed(printed, output) == []


@pytest.mark.parametrize("sql", ["", "DELETE FROM searcher_trial", "SELECT nope FROM searcher_trial", "SELECT"])
def test_what_is_asked_for_wrongly(filled: str, sql: str, cli: Cli) -> None:
    done = cli("query", sql, "--storage", filled)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_the_time_limit_of_the_command(filled: str, cli: Cli) -> None:
    late = cli("query", f"{ENDLESS} SELECT COUNT(*) FROM t", "--storage", filled, "--timeout", "0.5")
    assert (late.returncode, late.stdout) == (1, "")
    assert late.stderr.count("\n") == 1 and "raise --timeout" in late.stderr
    assert cli("query", "SELECT 1", "--storage", filled, "--timeout", "0").returncode == 2


@pytest.fixture
def hot(sqlite_url: str) -> Iterator[str]:
    """A file whose writer was killed in the middle of a transaction: half of it is in the file."""
    Store(sqlite_url, create=True).close()
    write = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('PRAGMA journal_mode = PERSIST'); c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN IMMEDIATE'); "
        "c.execute('UPDATE searcher_version SET version_num = ?', ('half',)); "
        "[c.execute(f'CREATE TABLE t{n} AS SELECT zeroblob(9000) AS z') for n in range(20)]; "
        "print('written', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", write, str(file_of(sqlite_url))], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert b"half" in file_of(sqlite_url).read_bytes()
    yield sqlite_url


def test_a_file_that_was_left_in_a_transaction_can_be_read(hot: str) -> None:
    """Seen to fail without the ordinary connection before: one that only reads cannot roll the journal back."""
    assert run_query(hot, "SELECT COUNT(*) AS n FROM sqlite_master WHERE name LIKE 't%'") == [{"n": 0}]


def test_numbers_that_are_not_finite_come_as_text(filled: str) -> None:
    infinite = "SELECT 9e999 AS x" if filled.startswith("sqlite") else "SELECT 'Infinity'::float8 AS x"
    assert run_query(filled, infinite) == [{"x": "inf"}]


NO_FAULT_OF_THE_FILE = {
    "sqlite": [
        "SELECT json('[')",
        "SELECT json('database disk image is malformed')",
        'SELECT * FROM "disk I/O error"',
        'SELECT "database is locked"."not a database" FROM searcher_trial',
        "SELECT CAST(x'ff' AS TEXT)",
        "SELECT abs(-9223372036854775808)",
        "SELECT nope AS locked FROM searcher_trial",
    ],
    "postgresql": [
        'SELECT * FROM "canceling statement"',
        "SELECT '['::json",
        'SELECT * FROM "out of memory"',
        'SELECT * FROM "permission denied"',
        "SELECT 'too big'::integer",
        "SELECT 'infinity'::timestamp",
    ],
}


def test_a_mistake_in_a_query_is_not_blamed_on_the_database(filled: str, cli: Cli) -> None:
    """Row R11: errors are told by their code. What a query, a name or a value says decides nothing."""
    for sql in NO_FAULT_OF_THE_FILE[filled.split(":")[0]]:
        done = cli("query", sql, "--storage", filled)
        assert done.returncode == 2 and done.stderr.startswith("searcher: the query was refused: "), (sql, done)
        assert "restore a copy" not in done.stderr and done.stderr.count("\n") == 1


FETCHING = "FROM pg_stat_activity WHERE datname = %s AND state = 'active' AND query LIKE 'FETCH%%'"


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("pg_terminate_backend", StoreError, "terminating connection"),  # and not the query's mistake
        (
            "pg_cancel_backend",
            QueryStopped,
            "cancelled on the server",
        ),  # and not late: 57014 has several causes
    ],
)
def test_a_query_that_the_server_ends_is_said_to_be_ended_there(
    postgresql_url: str, function: str, error: type[Exception], message: str
) -> None:
    """Row R11: the other way round."""
    Store(postgresql_url, create=True).close()
    end = f"SELECT {function}(pid) {FETCHING}"
    with psycopg.connect(postgresql_url, autocommit=True) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(run_query, postgresql_url, "SELECT pg_sleep(90)")
        while not server.execute(end, [server.info.dbname]).fetchall():
            assert not asked.done()
            time.sleep(0.1)
        with pytest.raises(error, match=message):
            asked.result()


@pytest.mark.parametrize("output", ["table", "json", "csv", "yaml", "markdown"])
def test_many_columns_of_one_name(filled: str, output: str, cli: Cli) -> None:
    """Row R10: each column has a name of its own, in every format."""
    columns = ["1 AS a"] * 1200 + ["2 AS a_7"] * 400
    done = cli("query", f"SELECT {', '.join(columns)}", "--storage", filled, "-f", output)
    assert done.returncode == 0, done.stderr
    if output == "json":
        (row,) = json.loads(done.stdout)
        assert list(row)[:3] == ["a", "a_2", "a_3"] and list(row)[1199:1202] == ["a_1200", "a_7_2", "a_7_3"]
        assert list(row.values()) == [1] * 1200 + [2] * 400


def lines_run(work: Callable[[], object], file: str) -> int:
    """Return how many lines of one file of Python run: a measure of work that is the same on every machine."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace if frame.f_code.co_filename == file else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("columns", [["1 AS a"], ["1 AS a", "1 AS a_2"]], ids=len)
def test_the_work_for_names_grows_with_their_number(filled: str, columns: list[str]) -> None:
    """Row R10: 1,901 columns of one name had no end, since each number was tried for each of them. Covers names that
    look like the numbered ones."""
    queries = [f"SELECT {', '.join(columns * (count // len(columns)))}" for count in (150, 600)]
    few, many = (lines_run(partial(run_query, filled, sql), query.__file__) for sql in queries)
    assert many < 5 * few


def large(filled: str, rows: int, size: int) -> str:
    text = f"replace(hex(zeroblob({size // 2})), '0', 'z')" if filled.startswith("sqlite") else f"repeat('z', {size})"
    return f"{ENDLESS} SELECT n, {text} AS text FROM t LIMIT {rows}"


def test_a_table_of_large_rows_is_cut_by_its_size(filled: str, cli: Cli) -> None:
    """Row R10: rows that are kept until all are there are bounded together, which is said."""
    done = cli("query", large(filled, 20, 1_000_000), "--storage", filled)
    assert done.returncode == 0
    assert "cut after 3 rows; a table holds at most 4,000,000 bytes, -f csv and the other formats" in done.stderr
    assert done.stdout.count("z") == 3_000_000
    one = cli("query", large(filled, 2, 9_000_000), "--storage", filled)
    assert one.returncode == 0 and "cut after 0 rows" in one.stderr and one.stdout == ""


def test_all_rows_of_a_query_together_are_bounded(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R10: `run_query` too, which keeps them."""
    monkeypatch.setattr("searcher.store.query.KEPT_BYTES", 3_000_000)
    assert len(run_query(filled, large(filled, 2, 1_000_000))) == 2
    with pytest.raises(QueryStopped, match="more than 3,000,000 bytes"):
        run_query(filled, large(filled, 20, 1_000_000))


def test_many_small_values_count_too(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R10: a number of one digit takes far more where it is kept than the three bytes that are sent."""
    monkeypatch.setattr("searcher.store.query.KEPT_BYTES", 3_000_000)
    narrow, wide = (f"{ENDLESS} SELECT {', '.join(['1'] * 500)} FROM t LIMIT {rows}" for rows in (100, 300))
    assert len(run_query(filled, narrow)) == 100
    with pytest.raises(QueryStopped, match="more than 3,000,000 bytes"):
        run_query(filled, wide)


def test_large_rows_go_through_one_by_one(filled: str) -> None:
    """Row R10: what is handed on takes the memory of a few rows."""
    tracemalloc.start()
    with opened_query(filled, large(filled, 15, 9_000_000)) as answer:
        assert sum(len(row["text"]) for row in answer) == 15 * 9_000_000
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()
