"""Connections: opening a database, its migrations, and its errors in plain words."""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError

from searcher import DEFAULT_STORAGE, SearcherError, UsageError
from searcher.store import errors, postgresql
from searcher.store.lease import in_words
from searcher.store.schema import HEAD, REVISIONS, VERSION_TABLE

BUSY_SECONDS = 30.0  # how long a write waits for another process's
DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
SECRETS = ("password", "sslpassword")  # of the options after the question mark
MIGRATION_LOCK = 0x5EA2C4E2  # PostgreSQL advisory lock: one migration at a time


class StoreError(SearcherError):
    """The database cannot be used; the message names it (without its password) and the way out."""


class BadStorageUrl(StoreError, UsageError):
    """What was given as the storage names no database of a kind that is supported."""


class StoreUnavailable(StoreError):
    """The database does not answer, or is locked, and may be back in a moment."""


class StoreConflict(StoreError):
    """What was to be written contradicts what is there."""


class StoreRefused(StoreError):
    """A value that the database cannot hold: a number out of its range, a text that its encoding lacks."""


def storage_flag(url: URL) -> str:
    """What a command needs to find this database: nothing if the environment or the default says it."""
    if url.render_as_string(hide_password=False) == os.environ.get("SEARCHER_STORAGE", DEFAULT_STORAGE):
        return ""
    return f" --storage {shlex.quote(masked(url))}"


def masked(url: str | URL) -> str:
    """A database URL as it may be shown: without its password.

    Raises:
        BadStorageUrl: not a database URL.
    """
    parsed = parse_url(url)
    hidden = parsed.update_query_dict({name: "***" for name in SECRETS if name in parsed.query})
    return hidden.render_as_string(hide_password=True)


def parse_url(url: str | URL) -> URL:
    """Raises BadStorageUrl if `url` names no SQLite file or PostgreSQL database."""
    accepted = "use sqlite:///FILE.db or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # The text is not shown: it can hold a password that could not be told apart from the rest.
        raise BadStorageUrl(f"the storage is not a database URL; {accepted}") from None
    if parsed.drivername not in DRIVERS:
        raise BadStorageUrl(f"storage of kind {parsed.drivername!r} is not supported; {accepted}")
    if "@" in (parsed.host or ""):  # what comes before it is the rest of a password
        raise BadStorageUrl(f"the storage has a second @ before its host; {accepted}, an @ in a password being %40")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadStorageUrl(f"a store must outlive the process, an in-memory database does not; {accepted}")
    return parsed


def connect(url: str | URL, *, create: bool) -> Engine:
    """An engine on a database whose tables are there and current.

    Args:
        create: make the file and the tables where there are none, and upgrade older ones; else the database is
            expected to be there, and is only looked at.

    Raises:
        StoreError: no database, no searcher tables, tables of a newer version, or no access.
    """
    with _good_options(url):
        engine = engine_of(url, create=create)
    try:
        with plain_errors(engine.url):
            with _good_options(url), engine.connect() as connection:
                current = _is_current(connection, create)
            if not current:
                with engine.execution_options(writes=True).begin() as connection:
                    make_current(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def _good_options(url: str | URL) -> Iterator[None]:
    """Turns what a URL's host or options are not accepted for into BadStorageUrl."""
    try:
        yield
    except UnicodeDecodeError:  # of a damaged file
        raise
    except (ArgumentError, ValueError) as error:  # ?timeout=abc, ?port=abc, a host of two dots
        raise BadStorageUrl(f"{masked(url)} is not accepted: {str(error).splitlines()[0]}") from error


def engine_of(url: str | URL, *, create: bool) -> Engine:
    """An engine on a database that may have no tables of ours; `create` admits a SQLite file that is not there yet.

    Raises:
        StoreError: the file is not there, or cannot be made; or psycopg is missing for PostgreSQL.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(parsed, create)
    return _engine(parsed)


def make_current(connection: Connection) -> None:
    """Makes the tables, or brings older ones to the newest migration, in the connection's transaction.

    Raises:
        StoreError: they are of a newer version.
    """
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    if _is_current(connection, create=True):
        return
    _check_undriven(connection)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _check_undriven(connection: Connection) -> None:
    """Raises StoreError if a driver of the older searcher is at work: it would go on, and not keep the newer tables."""
    if not sa.inspect(connection).has_table("searcher_lease"):
        return
    live = sa.text(
        "SELECT study.name, lease.holder FROM searcher_lease AS lease JOIN searcher_study AS study "
        f"ON study.id = lease.study_id WHERE lease.expires_at > {clock(connection.dialect.name)}"
    )
    if driven := connection.execute(live).first():
        raise StoreError(
            f"{masked(connection.engine.url)} has tables of an older searcher, and study {driven.name!r} is being "
            f"driven by {in_words(driven.holder)}; stop that first (15 s after it was killed it is gone), then upgrade"
        )


def clock(dialect: str) -> str:
    """SQL for seconds since 1970 by the database's clock, the only one that all drivers share."""
    if dialect == "sqlite":
        return "(julianday('now') - 2440587.5) * 86400.0"
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def _is_current(connection: Connection, create: bool) -> bool:
    revision, shown = _revision(connection), masked(connection.engine.url)
    if revision == HEAD:
        return True
    if revision is not None and revision not in REVISIONS:
        raise StoreError(
            f"{shown} has schema {revision!r}, newer than this searcher knows ({HEAD!r}); upgrade searcher"
        )
    if not connection.dialect.default_schema_name:  # of PostgreSQL's, the first that the user has a right to
        raise StoreError(f"{shown}: this user may not look into it; {errors.ASK_FOR_RIGHTS}")
    if create:
        return False
    if revision is None:
        raise StoreError(f"{shown} has no searcher tables; `searcher launch` or `searcher db upgrade` makes them")
    raise StoreError(
        f"{shown} has schema {revision!r}, this searcher needs {HEAD!r}; bring it there with: "
        f"searcher db upgrade --storage {shlex.quote(shown)}"
    )


def _revision(connection: Connection) -> str | None:
    """The migration that the tables are at; None where there are none."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def codec(engine: Engine) -> str:
    """Return Python's name of an encoding whose text the database can hold."""
    if engine.dialect.name == "sqlite":
        return "utf-8"
    with engine.connect() as connection:
        return postgresql.codec(connection.exec_driver_sql("SHOW server_encoding").scalar_one())


def is_there(url: str | URL) -> bool:
    """Whether there is a database to look into: always said of PostgreSQL; of SQLite if the file exists.

    Raises:
        StoreError: it is not there and could not be made.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        return True
    _check_file(parsed, create=True)
    return Path(str(parsed.database)).exists()


def require(url: str | URL) -> None:
    """Raises StoreError if `url` is a SQLite file that does not exist."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(parsed, create=False)


def _check_file(url: URL, create: bool) -> None:
    path = Path(str(url.database))
    if path.is_dir():
        raise StoreError(f"{path} is a directory; name a file, as in sqlite:///{path}/searcher.db")
    if not path.exists() and not create:
        raise StoreError(
            f"there is no database {path}; name another (--storage, SEARCHER_STORAGE), or start with `searcher launch`"
        )
    if not path.parent.is_dir():
        raise StoreError(f"there is no directory {path.parent} for the database {path.name}; make it first")
    if not path.exists() and not os.access(path.parent, os.W_OK):
        raise StoreError(f"the directory {path.parent} cannot be written to; name a database elsewhere with --storage")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        if not find_spec("psycopg"):
            raise StoreError("a PostgreSQL database needs psycopg: pip install 'activation-searcher[postgres]'")
        engine = sa.create_engine(url, pool_pre_ping=True, connect_args=postgresql.ARGUMENTS)
        event.listen(engine, "do_connect", _connect_postgresql)
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    engine = sa.create_engine(url, paramstyle="named", connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _connect_postgresql(_dialect: object, _record: object, _positional: object, arguments: dict[str, Any]) -> Any:
    return postgresql.connected(**arguments)


def _begin_postgresql(connection: Connection) -> None:
    if patience := connection.get_execution_options().get("patience"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {1000 * patience:.0f}")


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    # The journal's header is overwritten and synced where DELETE would unlink the file, which a power cut can undo.
    connection.execute("PRAGMA journal_mode = PERSIST")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that will write takes the write lock at once: a lock asked for half-way can only fail.
    options = connection.get_execution_options()
    patience = options.get("patience", BUSY_SECONDS)
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {1000 * patience:.0f}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes", False) else "BEGIN")


class Prepared:
    """A writing statement, compiled once. What SQLAlchemy does for each execution costs more than SQLite's own work;
    in return the parameters must be what the driver takes (for points in time: `stamp`)."""

    def __init__(self, statement: sa.Insert | sa.Update, engine: Engine) -> None:
        self._text = str(statement.compile(engine))

    def execute(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> int:
        """Runs it once for each row of parameters; how many rows of the table were written."""
        return connection.exec_driver_sql(self._text, rows).rowcount if rows else 0

    def first(self, connection: Connection, row: dict[str, Any]) -> sa.Row[Any] | None:
        """Runs it once; the first row that it returns."""
        return connection.exec_driver_sql(self._text, row).first()


def stamp(now: datetime, engine: Engine) -> Any:
    """A point in time as the driver takes it."""
    process = sa.DateTime(timezone=True).dialect_impl(engine.dialect).bind_processor(engine.dialect)
    return process(now) if process else now


@contextmanager
def plain_errors(url: str | URL) -> Iterator[None]:
    """Turns the database's exceptions into StoreError with a way out."""
    try:
        yield
    except DBAPIError as error:
        parsed = parse_url(url)
        if errors.may_pass(parsed, error):
            kind: type[StoreError] = StoreUnavailable
        elif isinstance(error, sa.exc.IntegrityError):
            kind = StoreConflict
        else:
            kind = StoreRefused if isinstance(error, sa.exc.DataError) else StoreError
        raise kind(errors.plain(parsed, masked(parsed), error)) from error
    except OverflowError as error:  # of sqlite3, before the database is asked
        raise StoreRefused(f"{masked(url)} holds no such number: {error}") from error
    except UnicodeDecodeError as error:
        raise StoreError(errors.undecodable(parse_url(url), masked(url), error)) from error
    except UnicodeEncodeError as error:
        raise StoreError(f"{masked(url)} has no such text: {error.object[:200]!r} is not UTF-8") from error
