"""PostgreSQL databases, roles and environments that are set up in other ways than ours."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from searcher.driver import session
from searcher.records import Kind, Trial, TrialState
from searcher.store import database, postgresql
from searcher.store.query import run_query
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.commands import Cli
from tests.support.made import result
from tests.support.postgres import fresh_database
from tests.support.searches import SETTINGS, judge, run
from workers.contract import Job, Outcome
from workers.pools.base import InlinePool

pytestmark = pytest.mark.slow

FAST = ("--pool", "inline", "--limit-train", "100", "--width", "4", "--epochs", "1", "--baselines", "relu")
CYRILLIC = "слой не найден"
AS_TOLD = {
    "DateStyle": "SQL, DMY",
    "extra_float_digits": "-15",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "statement_timeout": "300ms",
    "lock_timeout": "300ms",
    "idle_in_transaction_session_timeout": "300ms",
    "idle_session_timeout": "300ms",
    "transaction_timeout": "300ms",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "off",
    "client_encoding": "LATIN1",
}


def odd(url: str) -> str:
    """The database, with everything set in an unusual way for all its sessions that begin from now on."""
    name = sa.make_url(url).database
    with psycopg.connect(sa.make_url(url).set(database="postgres").render_as_string(False), autocommit=True) as server:
        for setting, value in AS_TOLD.items():
            with suppress(psycopg.errors.UndefinedObject):  # of another version of PostgreSQL
                server.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    return url


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "LATIN9", "WIN1251", "KOI8R", "EUC_JP", "MULE_INTERNAL"])
def test_a_search_runs_in_a_database_of_any_encoding(postgresql_server: str, encoding: str, cli: Cli) -> None:
    """Row E1: launch, status, query, copies and checks. Of encodings that cannot be translated, one line says so."""
    url = fresh_database(postgresql_server, encoding)
    done = cli("launch", "--study-name", "s", *FAST, "--n-trials", "3", "--storage", url)
    if encoding == "MULE_INTERNAL":
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "MULE_INTERNAL" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert cli("db", "check", "--storage", url).returncode == 0
    assert cli("status", "s", "--storage", url).returncode == 0
    assert run_query(url, "SELECT COUNT(*) AS n FROM searcher_trial") == [{"n": 3}]
    copied = cli("db", "copy", url, "sqlite:///copy.db")
    assert copied.returncode == 0 and "have the same rows" in copied.stdout


def raising(text: str) -> InlinePool:
    def child(job: Job) -> Outcome:
        if job.number % 3 == 1:
            raise RuntimeError(text)
        return judge(job)

    return InlinePool(run=child)


ODD_TEXTS = [CYRILLIC, "naïve", "日本語", "\0 in it", "\ud83d alone", "🙂", "\x98\x91"]
HELD = {  # as they are; all others as escapes
    "LATIN1": {"naïve", "\x98\x91"},
    "LATIN2": {"\x98\x91"},
    "WIN1251": {CYRILLIC},
    "WIN1252": {"naïve"},
    "KOI8R": {CYRILLIC},
    "EUC_JP": set[str](),
    "SQL_ASCII": {CYRILLIC, "naïve", "日本語", "🙂", "\x98\x91"},
    "UTF8": {CYRILLIC, "naïve", "日本語", "🙂", "\x98\x91"},
}


@pytest.mark.parametrize("encoding", HELD)
def test_what_the_database_cannot_hold_is_escaped_in_reasons(postgresql_server: str, encoding: str) -> None:
    """Row E2: any text of an exception, NUL and lone surrogates too, in databases of single and of several bytes."""
    store = Store(fresh_database(postgresql_server, encoding), create=True)
    settings = SETTINGS.replace(n_trials=8, max_retries=0)
    for number, text in enumerate(ODD_TEXTS):
        study = session.create_study(store, settings.replace(study_name=f"s{number}"))
        run(store, study, settings, raising(text))
        trials = store.trials(study)
        assert all(trial.state.finished for trial in trials)
        reasons = {t.reason.partition("\n")[0] for t in trials if t.state is TrialState.FAILED}
        escaped = text.replace("\0", r"\x00").encode("ascii", "backslashreplace").decode()
        assert reasons == {f"RuntimeError: {text if text in HELD[encoding] else escaped}"}
    store.close()


def test_names_that_the_database_cannot_hold_are_refused(postgresql_server: str, cli: Cli) -> None:
    """Row E2: a study's name is not changed; one line says what the database lacks, before any work begins."""
    url = fresh_database(postgresql_server, "LATIN1")
    assert cli("db", "upgrade", "--storage", url).returncode == 0
    done = cli("launch", "--study-name", CYRILLIC, *FAST, "--n-trials", "3", "--storage", url)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "this database cannot hold this text; a database with the encoding UTF8 can" in done.stderr
    assert run_query(url, "SELECT COUNT(*) AS n FROM searcher_study") == [{"n": 0}]


def test_a_copy_does_not_change_texts_to_fit(postgresql_server: str, sqlite_url: str, cli: Cli) -> None:
    """Row E2: a copy is the same or is refused, and the target stays as it was."""
    store = Store(sqlite_url, create=True)
    study = session.create_study(store, SETTINGS.replace(study_name="s"))
    failed = Trial(2, Kind.CANDIDATE, "x", "k", 0, state=TrialState.FAILED, reason=CYRILLIC, finish_order=0)
    lease = store.acquire(study, "me")
    store.commit(lease, Batch(added=[failed]))
    store.release(lease)
    store.close()
    target = fresh_database(postgresql_server, "LATIN1")
    done = cli("db", "copy", sqlite_url, target)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "cannot hold this text" in done.stderr
    engine = sa.create_engine(target)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize("losses", [[0.1 + 0.2, 1 / 3, 5e-324, 1e300], [-0.0]])
def test_a_copy_keeps_every_digit(losses: list[float], postgresql_url: str, sqlite_url: str, cli: Cli) -> None:
    """Row E3: the settings of the source, of the target or of the environment do not round what is copied."""
    store = Store(postgresql_url, create=True)
    study = session.create_study(store, SETTINGS.replace(study_name="s", baselines=("none",)))
    lease = store.acquire(study, "me")
    bare = [Trial(n, Kind.CANDIDATE, "x", f"k{n}", 0) for n in range(len(losses))]
    added = [result(trial, loss, 1 / 3, finish_order=trial.number) for trial, loss in zip(bare, losses, strict=True)]
    store.commit(lease, Batch(added=added))
    store.release(lease)
    store.close()
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for setting in ("extra_float_digits = 0", "TimeZone = 'Asia/Kathmandu'"):
            connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {setting}")
    assert cli("db", "copy", postgresql_url, sqlite_url).returncode == 0
    copy = Store(sqlite_url)
    trials = copy.trials(copy.study("s"))
    assert [repr(trial.value) for trial in trials] == [repr(loss + 0.0) for loss in losses]
    assert [repr(trial.metrics["val_loss"]) for trial in trials] == [repr(loss) for loss in losses]
    again = Store(postgresql_url)
    assert again.trials(again.study("s")) == copy.trials(copy.study("s"))
    assert again.study("s").created_at == copy.study("s").created_at
    first = run_query(postgresql_url, "SELECT value FROM searcher_trial WHERE number = 0")
    assert repr(first) == repr([{"value": losses[0]}])
    copy.close()
    again.close()


def test_nothing_that_others_have_set_shapes_a_session(
    postgresql_url: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row E3 (and R4): a search, its copies and its checks do not depend on what a database, or PGOPTIONS, sets."""
    odd(postgresql_url)
    monkeypatch.setenv("PGOPTIONS", "-c DateStyle=German -c extra_float_digits=-5")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    done = cli("launch", "--study-name", "имя", *FAST, "--n-trials", "3", "--storage", postgresql_url)
    assert done.returncode == 0, done.stderr
    assert cli("db", "check", "--storage", postgresql_url).returncode == 0
    for words in (("status", "имя"), ("studies",), ("top", "имя"), ("export", "имя", "out.csv")):
        assert cli(*words, "--storage", postgresql_url).returncode == 0
    assert cli("db", "copy", postgresql_url, f"sqlite:///{tmp_path}/copy.db").returncode == 0
    engine = database.engine_of(postgresql_url, create=False)
    with engine.connect() as connection:
        for name, value in postgresql.SETTINGS.items():
            found = connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            assert found == {"idle_in_transaction_session_timeout": "15s"}.get(name, value)
        assert connection.exec_driver_sql("SHOW client_encoding").scalar_one() == "UTF8"
    engine.dispose()
    (row,) = run_query(
        postgresql_url,
        "SELECT 0.1::float8 + 0.2::float8 AS x, TIMESTAMPTZ '2026-02-01 00:00:00Z' AS at, 'a\\b' AS text",
    )
    assert row == {"x": 0.1 + 0.2, "at": "2026-02-01 00:00:00+00:00", "text": "a\\b"}


def test_text_that_is_not_utf_8_is_said_to_be(postgresql_server: str, cli: Cli) -> None:
    """Row E1: a database of SQL_ASCII holds any bytes that other programs put there."""
    url = fresh_database(postgresql_server, "SQL_ASCII")
    store = Store(url, create=True)
    session.create_study(store, SETTINGS.replace(study_name="s"))
    store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(r"UPDATE searcher_study SET name = 'caf' || convert_from('\xe9', 'SQL_ASCII')")
    for words in (("studies",), ("top", "s"), ("db", "check"), ("query", "SELECT name FROM searcher_study")):
        done = cli(*words, "--storage", url)
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, (words, done)
        assert done.stderr.count("\n") == 1 and "UTF8" in done.stderr, (words, done)
