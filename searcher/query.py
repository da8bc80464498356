"""A person's own SQL, read only.

SQLite: an authorizer admits reading and nothing else (`mode=ro` alone would let ATTACH and VACUUM INTO write), and a
progress handler ends a query that runs too long. PostgreSQL: the text becomes the body of a server-side cursor, sent
as a single statement, in a read-only transaction whose snapshot has been taken, so that it cannot be made writable
again.
"""

from __future__ import annotations

import math
import sqlite3
import time
from contextlib import closing
from typing import Any

from sqlalchemy.engine import URL

from searcher import SearcherError
from searcher.database import CONNECT_SECONDS, StoreError, connect, masked, parse_url

TIME_LIMIT_SECONDS = 30.0
MAX_ROWS = 1_000_000
_CELL_BYTES = 10_000_000  # longest text a query may make

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_UNSAFE_FUNCTIONS = {"load_extension", "fts3_tokenizer", "writefile", "readfile", "edit"}

Rows = list[dict[str, Any]]


class QueryRefused(SearcherError):
    """A query that would write, that runs too long, or that the database does not understand."""


def run_query(url: str | URL, sql: str, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> Rows:
    """The rows of one SELECT, columns in order. Numbers that are not finite come back as text.

    Raises:
        QueryRefused: anything but one reading statement, a mistake in it, more than 30 s or a million rows.
        StoreError: the database cannot be used.
    """
    parsed = parse_url(url)
    connect(parsed, create=False).dispose()  # the plain errors about databases that are not there or not ours
    if parsed.get_backend_name() == "sqlite":
        return _query_sqlite(str(parsed.database), sql, time_limit_seconds)
    return _query_postgresql(parsed, sql, time_limit_seconds)


def _query_sqlite(path: str, sql: str, time_limit_seconds: float) -> Rows:
    end = time.monotonic() + time_limit_seconds
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA query_only = ON")
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _CELL_BYTES)
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        try:
            cursor = connection.execute(sql)
            names = [column[0] for column in cursor.description or ()]
            return _rows(names, cursor.fetchmany(MAX_ROWS + 1))
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise QueryRefused(_refusal(str(error), time_limit_seconds)) from error


def _authorize(action: int, _first: str | None, second: str | None, *_: object) -> int:
    if action not in _READING or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _UNSAFE_FUNCTIONS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _query_postgresql(url: URL, sql: str, time_limit_seconds: float) -> Rows:
    import psycopg

    target = url.set(drivername="postgresql").render_as_string(hide_password=False)
    options = f"-c default_transaction_read_only=on -c statement_timeout={int(time_limit_seconds * 1000)}"
    try:
        connection = psycopg.connect(target, options=options, connect_timeout=CONNECT_SECONDS)
    except psycopg.Error as error:
        raise StoreError(f"PostgreSQL does not answer at {masked(url)}: {str(error).splitlines()[0]}") from error
    with closing(connection):
        connection.read_only = True
        connection.execute("SELECT 1")  # takes the snapshot: from here the transaction stays read-only
        try:
            with connection.cursor("searcher_query") as cursor:
                cursor.execute(sql.strip().rstrip(";").encode())
                names = [column.name for column in cursor.description or ()]
                return _rows(names, cursor.fetchmany(MAX_ROWS + 1))
        except (psycopg.Error, ValueError) as error:
            raise QueryRefused(_refusal(str(error).splitlines()[0], time_limit_seconds)) from error


def _refusal(text: str, time_limit_seconds: float) -> str:
    if "interrupted" in text or "statement timeout" in text:
        return f"the query ran longer than {time_limit_seconds:g} s and was stopped; narrow it with WHERE or LIMIT"
    if "not authorized" in text or "prohibited" in text or "read-only" in text:
        return f"only reading is allowed here ({text}); write one SELECT"
    return f"the query was refused: {text}; write one SELECT, as in: SELECT * FROM leaderboard"


def _rows(names: list[str], rows: list[tuple[Any, ...]]) -> Rows:
    if not names:
        raise QueryRefused("the query returns no columns; write one SELECT, as in: SELECT * FROM leaderboard")
    if len(rows) > MAX_ROWS:
        raise QueryRefused(f"the query returns more than {MAX_ROWS} rows; narrow it with WHERE or LIMIT")
    return [dict(zip(names, map(_plain, row), strict=True)) for row in rows]


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
