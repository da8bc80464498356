"""Connections: opening a database, its migrations, and its errors in plain words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from searcher import SearcherError
from searcher.schema import HEAD, REVISIONS, VERSION_TABLE

BUSY_SECONDS = 30.0  # how long a write waits for another process's
CONNECT_SECONDS = 10
IDLE_SECONDS = 15  # how long PostgreSQL lets a transaction wait for its client
# A host that has gone without a word is noticed in as long, where the system's own time-outs take minutes.
_LIBPQ = {
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": 1000 * CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
MIGRATION_LOCK = 0x5EA2C4E2  # PostgreSQL advisory lock: one migration at a time


class StoreError(SearcherError):
    """The database cannot be used; the message names it (without its password) and the way out."""


class StoreUnavailable(StoreError):
    """The database does not answer, or is locked, and may be back in a moment."""


def masked(url: str | URL) -> str:
    """A database URL as it may be shown: without its password.

    Raises:
        StoreError: not a database URL.
    """
    return parse_url(url).render_as_string(hide_password=True)


def parse_url(url: str | URL) -> URL:
    """Raises StoreError if `url` names no SQLite file or PostgreSQL database."""
    accepted = "use sqlite:///FILE.db or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # The text is not shown: it can hold a password that could not be told apart from the rest.
        raise StoreError(f"the storage is not a database URL; {accepted}") from None
    if backend not in ("sqlite", "postgresql"):
        raise StoreError(f"storage of kind {backend!r} is not supported; {accepted}")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StoreError(f"a store must outlive the process, an in-memory database does not; {accepted}")
    return parsed


def connect(url: str | URL, *, create: bool) -> Engine:
    """An engine on a database whose tables are there and current.

    Args:
        create: make the file and the tables where there are none, and upgrade older ones; else the database is
            expected to be there, and is only looked at.

    Raises:
        StoreError: no database, no searcher tables, tables of a newer version, or no access.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(parsed, create)
    engine = _engine(parsed)
    try:
        with plain_errors(parsed):
            _make_current(engine, create)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _make_current(engine: Engine, create: bool) -> None:
    revision, shown = current_revision(engine), masked(engine.url)
    if revision == HEAD:
        return
    if revision is not None and revision not in REVISIONS:
        raise StoreError(
            f"{shown} has schema {revision!r}, newer than this searcher knows ({HEAD!r}); upgrade searcher"
        )
    if not create:
        found = "no searcher tables" if revision is None else f"schema {revision!r}, this searcher needs {HEAD!r}"
        raise StoreError(f"{shown} has {found}; `searcher launch` or `searcher db upgrade` makes them")
    migrate(engine)


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


def current_revision(engine: Engine) -> str | None:
    """The migration that the tables are at; None where there are none."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(VERSION_TABLE):
            return None
        return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def migrate(engine: Engine) -> None:
    """Brings the tables to the newest migration, in one transaction."""
    from alembic import command
    from alembic.config import Config

    with engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _check_file(url: URL, create: bool) -> None:
    path = Path(str(url.database))
    if path.is_dir():
        raise StoreError(f"{path} is a directory; name a file, as in sqlite:///{path}/searcher.db")
    if not path.exists() and not create:
        raise StoreError(
            f"there is no database {path}; give --storage or SEARCHER_STORAGE, or start with `searcher launch`"
        )
    if not path.parent.is_dir():
        raise StoreError(f"there is no directory {path.parent} for the database {path.name}; make it first")
    if not path.exists() and not os.access(path.parent, os.W_OK):
        raise StoreError(f"the directory {path.parent} cannot be written to; name a database elsewhere with --storage")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        engine = sa.create_engine(url, pool_pre_ping=True, connect_args=_LIBPQ)
        event.listen(engine, "connect", _set_up_postgresql)
        return engine
    engine = sa.create_engine(url, paramstyle="named", connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_postgresql(connection: Any, _: object) -> None:
    # A driver that stands still in the middle of a transaction must not keep its locks: another could not take over.
    connection.execute(f"SET idle_in_transaction_session_timeout = {1000 * IDLE_SECONDS}")
    connection.commit()


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    # The journal's header is overwritten and synced where DELETE would unlink the file, which a power cut can undo.
    connection.execute("PRAGMA journal_mode = PERSIST")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that will write takes the write lock at once: a lock asked for half-way can only fail.
    options = connection.get_execution_options()
    if not options.get("writes", False):
        connection.exec_driver_sql("BEGIN")
        return
    patience = options.get("patience", BUSY_SECONDS)
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {1000 * patience:.0f}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


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
        kind = StoreUnavailable if _may_pass(parsed, error) else StoreError
        raise kind(_plain(parsed, error)) from error


# Of PostgreSQL's SQLSTATEs (its documentation, appendix A): connection exceptions, a client that stood still, a
# server that shuts down, has crashed or starts up, one that has no connection left.
_PASSING_STATES = ("08", "25P03", "57P01", "57P02", "57P03", "53300")
# A connection that is refused has no SQLSTATE. These texts mean that waiting will not help.
_LASTING = ("authentication failed", "does not exist", "pg_hba", "no password supplied", "permission denied")


def _may_pass(url: URL, error: DBAPIError) -> bool:
    text = str(error.orig)
    if url.get_backend_name() == "sqlite":
        return "locked" in text
    if state := getattr(error.orig, "sqlstate", None):
        return str(state).startswith(_PASSING_STATES)
    broken = isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError))
    return broken and not any(sign in text for sign in _LASTING)


def _plain(url: URL, error: DBAPIError) -> str:
    text = str(error.orig).strip()
    where = masked(url)
    if url.get_backend_name() == "postgresql":
        first = text.splitlines()[0] if text else type(error.orig).__name__
        if isinstance(error, sa.exc.OperationalError):
            return f"PostgreSQL does not answer at {where}: {first}"
        return f"{where}: {first}"
    for sign, message in _SQLITE_ERRORS.items():
        if sign in text:
            return f"{url.database}: {message}"
    return f"{where}: {text}"


_SQLITE_ERRORS: dict[str, str] = {
    "not a database": "this file is not a SQLite database; name another file",
    "malformed": "this database is damaged; restore a copy, or recover it with: sqlite3 FILE .recover",
    "readonly": "this database cannot be written to; check the rights of the file and of its directory",
    "unable to open": "this file cannot be opened; check the path and the rights of its directory",
    "locked": "another process has kept this database locked; stop it or try again",
    "full": "the disk is full; make room, then resume",
    "disk I/O": "the disk fails to read or write this file; check the disk, then resume",
}
