"""Open databases, bring their tables to the newest migration, and turn their exceptions into plain errors."""

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

BUSY_SECONDS = 30.0  # how long a write waits while another process holds the lock of a SQLite file
DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
SECRETS = ("password", "sslpassword")  # options of a URL that must not be shown
MIGRATION_LOCK = 0x5EA2C4E2  # an advisory lock of PostgreSQL, so that one migration runs at a time


class StoreError(SearcherError):
    """The database cannot be used. The message names it, without its password, and says what to do."""


class BadStorageUrl(StoreError, UsageError):
    """The storage is not a URL of a supported database."""


class StoreUnavailable(StoreError):
    """The database does not answer or is locked; the same operation may succeed later."""


class StoreConflict(StoreError):
    """The rows to be written contradict rows in the database."""


class StoreRefused(StoreError):
    """The database cannot hold a value: a number is out of its range, or its encoding lacks a character."""


def storage_flag(url: URL) -> str:
    """Return the `--storage` flag that a command needs to find this database; empty if the environment or the default
    names it."""
    if url.render_as_string(hide_password=False) == os.environ.get("SEARCHER_STORAGE", DEFAULT_STORAGE):
        return ""
    return f" --storage {shlex.quote(masked(url))}"


def masked(url: str | URL) -> str:
    """Return a database URL without its password.

    Raises:
        BadStorageUrl: `url` is not the URL of a supported database.
    """
    parsed = parse_url(url)
    hidden = parsed.update_query_dict({name: "***" for name in SECRETS if name in parsed.query})
    return hidden.render_as_string(hide_password=True)


def parse_url(url: str | URL) -> URL:
    """Return the parsed URL of a SQLite file or a PostgreSQL database.

    Raises:
        BadStorageUrl: `url` is not the URL of a supported database.
    """
    accepted = "use sqlite:///FILE.db or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # The text is not shown, because it may contain a password that cannot be found in it.
        raise BadStorageUrl(f"the storage is not a database URL; {accepted}") from None
    if parsed.drivername not in DRIVERS:
        raise BadStorageUrl(f"storage of kind {parsed.drivername!r} is not supported; {accepted}")
    if "@" in (parsed.host or ""):  # the text before it is part of a password
        raise BadStorageUrl(f"the storage has a second @ before its host; {accepted}; write @ in a password as %40")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise BadStorageUrl(f"a store must outlive the process, and an in-memory database does not; {accepted}")
    return parsed


def connect(url: str | URL, *, create: bool) -> Engine:
    """Return an engine for a database whose tables exist and are current.

    Args:
        create: create the file and the tables if they are missing, and upgrade older tables. Otherwise they must exist.

    Raises:
        StoreError: there is no database, its tables are missing or of another version, or access is denied.
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
    """Turn an error about the host or the options of a URL into BadStorageUrl."""
    try:
        yield
    except UnicodeDecodeError:  # a ValueError too, but its cause is a damaged file
        raise
    except (ArgumentError, ValueError) as error:  # ?timeout=abc, ?port=abc, a host of two dots
        raise BadStorageUrl(f"{masked(url)} is not accepted: {str(error).splitlines()[0]}") from error


def engine_of(url: str | URL, *, create: bool) -> Engine:
    """Return an engine for a database that may have no searcher tables.

    Args:
        create: accept a SQLite file that does not exist yet.

    Raises:
        StoreError: the file does not exist or cannot be created, or psycopg is missing for PostgreSQL.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        _check_file(parsed, create)
    return _engine(parsed)


def make_current(connection: Connection) -> None:
    """Create the tables, or upgrade older ones to the newest migration, in the connection's transaction.

    Raises:
        StoreError: a newer version made the tables, or a driver of an older version is running.
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
    """Raise StoreError if a driver of the older version is running: it would go on and not fill the new tables."""
    if not sa.inspect(connection).has_table("searcher_lease"):
        return
    live = sa.text(
        "SELECT study.name, lease.holder FROM searcher_lease AS lease JOIN searcher_study AS study "
        f"ON study.id = lease.study_id WHERE lease.expires_at > {clock(connection.dialect.name)}"
    )
    if driven := connection.execute(live).first():
        raise StoreError(
            f"{masked(connection.engine.url)} has tables of an older searcher, and study {driven.name!r} is being "
            f"driven by {in_words(driven.holder)}; stop that first (after a kill, wait 15 s), then upgrade"
        )


def clock(dialect: str) -> str:
    """Return SQL for the seconds since 1970 by the database's clock, which is the only clock that all drivers share."""
    if dialect == "sqlite":
        return "(julianday('now') - 2440587.5) * 86400.0"
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def new_id(connection: Connection) -> dict[str, int]:
    """Return the id of a new study as a value to insert; empty if the database finds one by itself.

    No id is given twice: a driver that was suspended while its study was deleted would take a new study of that id for
    its own. PostgreSQL's sequences never repeat. SQLite takes the next id after those that are there, so the greatest
    deleted one is kept in the file's `user_version` (`keep_id`).
    """
    if connection.dialect.name != "sqlite":
        return {}
    greatest = connection.execute(sa.text("SELECT coalesce(max(id), 0) FROM searcher_study")).scalar_one()
    return {"id": max(greatest, _kept_id(connection)) + 1}


def keep_id(connection: Connection, study_id: int) -> None:
    """Prevent that the id of a study that is deleted is given to another one; see `new_id`."""
    if connection.dialect.name == "sqlite":
        kept = max(study_id, _kept_id(connection))
        connection.exec_driver_sql(f"PRAGMA user_version = {kept:d}")


def _kept_id(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _is_current(connection: Connection, create: bool) -> bool:
    revision, shown = _revision(connection), masked(connection.engine.url)
    if revision == HEAD:
        return True
    if revision is not None and revision not in REVISIONS:
        raise StoreError(
            f"{shown} has schema {revision!r}, newer than this searcher knows ({HEAD!r}); upgrade searcher"
        )
    if not connection.dialect.default_schema_name:  # PostgreSQL names the first schema that the user may use
        raise StoreError(f"{shown}: this user may not read any schema of it; {errors.ASK_FOR_RIGHTS}")
    if create:
        return False
    if revision is None:
        raise StoreError(f"{shown} has no searcher tables; `searcher launch` or `searcher db upgrade` makes them")
    raise StoreError(
        f"{shown} has schema {revision!r}, and this searcher needs {HEAD!r}; upgrade it: "
        f"searcher db upgrade --storage {shlex.quote(shown)}"
    )


def _revision(connection: Connection) -> str | None:
    """Return the newest migration of the tables; None if there are no tables."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def codec(engine: Engine) -> str:
    """Return Python's name of an encoding; the database can hold all text in it."""
    if engine.dialect.name == "sqlite":
        return "utf-8"
    with engine.connect() as connection:
        return postgresql.codec(connection.exec_driver_sql("SHOW server_encoding").scalar_one())


def is_there(url: str | URL) -> bool:
    """Return True if a SQLite file exists; always True for PostgreSQL.

    Raises:
        StoreError: the file does not exist and cannot be created.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        return True
    _check_file(parsed, create=True)
    return Path(str(parsed.database)).exists()


def require(url: str | URL) -> None:
    """Raise StoreError if `url` is a SQLite file that does not exist."""
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
        raise StoreError(f"there is no directory {path.parent} for the database {path.name}; create it first")
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
    if lock_seconds := connection.get_execution_options().get("lock_seconds"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {1000 * lock_seconds:.0f}")


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # _begin_sqlite begins transactions
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    # At a commit, PERSIST overwrites and syncs the journal's header. DELETE unlinks it, which a power cut can undo.
    connection.execute("PRAGMA journal_mode = PERSIST")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that will write takes the write lock at once: after its first read, it might not get the lock.
    options = connection.get_execution_options()
    lock_seconds = options.get("lock_seconds", BUSY_SECONDS)
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {1000 * lock_seconds:.0f}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes", False) else "BEGIN")


class Prepared:
    """An INSERT or UPDATE statement that is compiled once. SQLAlchemy's work for each execution costs more than
    SQLite's own. The parameters must be values as the driver takes them (times come from `stamp`)."""

    def __init__(self, statement: sa.Insert | sa.Update, engine: Engine) -> None:
        self._text = str(statement.compile(engine))

    def execute(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> int:
        """Run the statement once for each row of parameters, and return the number of table rows written."""
        return connection.exec_driver_sql(self._text, rows).rowcount if rows else 0

    def first(self, connection: Connection, row: dict[str, Any]) -> sa.Row[Any] | None:
        """Run the statement once, and return the first row of its result; None if it has none."""
        return connection.exec_driver_sql(self._text, row).first()


def stamp(now: datetime, engine: Engine) -> Any:
    """Return a time as the driver of the database takes it."""
    process = sa.DateTime(timezone=True).dialect_impl(engine.dialect).bind_processor(engine.dialect)
    return process(now) if process else now


@contextmanager
def plain_errors(url: str | URL) -> Iterator[None]:
    """Turn the exceptions of the database into StoreError, with a message that says what to do."""
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
    except OverflowError as error:  # raised by the module sqlite3
        raise StoreRefused(f"{masked(url)} cannot hold a number: {error}") from error
    except UnicodeDecodeError as error:
        raise StoreError(errors.undecodable(parse_url(url), masked(url), error)) from error
    except UnicodeEncodeError as error:
        raise StoreError(f"{masked(url)} cannot hold a text: {error.object[:200]!r} is not UTF-8") from error
