"""Run a user's own SQL query, read only, and return its rows one by one.

The query runs in its own process (`searcher/store/query_process.py`), which has little memory and is killed when its
time is up. SQLite: the file is opened for reading, and an authorizer permits reading only (with `mode=ro` alone, ATTACH
and VACUUM INTO could write). PostgreSQL: the query becomes a server-side cursor, sent as a single statement, in a
read-only transaction that is never committed. The transaction's snapshot is taken first, so that the query cannot make
the transaction writable. Functions of the server that act outside of transactions can be prevented by grants only: see
docs/security.md.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from sqlalchemy.engine import URL

from searcher import SearcherError, UsageError
from searcher.store import errors, postgresql
from searcher.store.database import StoreError, connect, masked, parse_url

TIME_LIMIT_SECONDS = 30.0
MAX_ROWS = 1_000_000
ALL_BYTES = 1 << 62
KEPT_BYTES = 100_000_000  # the most that `run_query` keeps in memory; `opened_query` yields rows one by one
GRACE_SECONDS = {"sqlite": 0.5, "postgresql": 5.0}  # time after the limit in which the process may end by itself
_QUERY_PROGRAM = Path(__file__).with_name("query_process.py")
_EXAMPLE = "write one SELECT, as in: SELECT * FROM leaderboard"

Rows = Iterator[dict[str, Any]]


class QueryRefused(UsageError):
    """The query would write, or the database rejects it as wrong."""


class QueryStopped(SearcherError):
    """The query took too long or needed too much memory."""


class Answer:
    """The rows of a query; they can be read once, in order. Numbers that are not finite come as text.

    Attributes:
        names: the names of the columns. If two columns have the same name, the second is called `name_2`.
        count: number of rows read so far.
        cut: True if the query has more rows than the limit; known after the last row.
        large: True if the limit was the size of the rows.

    Raises (the constructor and the iteration):
        QueryRefused: the text is not one reading statement, or has a mistake.
        QueryStopped: the query took too much time or memory.
        StoreError: the database cannot be used.
    """

    def __init__(self, process: subprocess.Popen[str], url: URL, seconds: float) -> None:
        self._process, self._url, self._seconds = process, url, seconds
        self._end = time.monotonic() + seconds
        self._lines = iter(process.stdout or ())
        self.count, self.cut, self.large = 0, False, False
        self.names = _distinct(self._next() or [])
        if not self.names:
            raise QueryRefused(f"the query returns no columns; {_EXAMPLE}")

    def __iter__(self) -> Rows:
        while (row := self._next()) is not None:
            self.count += 1
            yield dict(zip(self.names, row, strict=True))

    def _next(self) -> list[Any] | None:
        line = next(self._lines, "")
        answer = json.loads(line if line.endswith("\n") else "{}")  # the process may be killed in the middle of a line
        if isinstance(answer, list):
            return answer
        if "cut" not in answer:
            raise self._failure(answer)
        self.cut, self.large = answer["cut"], answer["large"]
        return None

    def _failure(self, answer: dict[str, Any]) -> SearcherError:
        late = time.monotonic() >= self._end
        if not answer:
            if late:
                return QueryStopped(_too_long(self._seconds))
            return QueryStopped(f"the query's process has died (status {self._process.wait()}); narrow the query")
        kind, text, code = answer["failed"], answer["text"], answer["code"]
        if kind == "connection":
            return StoreError(f"{masked(self._url)} does not answer: {text}")
        if kind == "memory":
            return QueryStopped(_TOO_MUCH)
        if kind == "row":
            return QueryStopped(_TOO_LARGE)
        if self._url.get_backend_name() == "sqlite":
            return _sqlite_failure(self._url, text, code or 0)
        return _postgresql_failure(self._url, text, code or "", self._end - time.monotonic(), self._seconds)


@contextmanager
def opened_query(
    url: str | URL,
    sql: str,
    time_limit_seconds: float = TIME_LIMIT_SECONDS,
    limit: int = MAX_ROWS,
    most_bytes: int = ALL_BYTES,
) -> Iterator[Answer]:
    """Run a query for the length of the block. The query ends with the block or at its time limit, even if nobody reads
    its rows, because a SQLite file cannot be written to meanwhile.

    Args:
        limit: the largest number of rows.
        most_bytes: the largest size of all rows: their JSON, and 32 bytes for each value.
    """
    if "\0" in sql:  # PostgreSQL would ignore the text after it
        raise QueryRefused(f"the query has a NUL character in it; {_EXAMPLE}")
    parsed = parse_url(url)
    connect(parsed, create=False).dispose()  # raises a plain error if the database is missing or has no tables of ours
    end = time.time() + time_limit_seconds
    task = {"sql": sql, "seconds": time_limit_seconds, "end": end, "limit": limit, "most_bytes": most_bytes}
    task |= _target(parsed, time_limit_seconds)
    isolated = ["-I", "-S"] if "path" in task else ["-I"]
    with subprocess.Popen(
        [sys.executable, *isolated, str(_QUERY_PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        timer = threading.Timer(time_limit_seconds + GRACE_SECONDS[parsed.get_backend_name()], process.kill)
        timer.start()
        try:
            with cast(IO[str], process.stdin) as stdin:
                json.dump(task, stdin)  # not an argument, because it contains the password
            yield Answer(process, parsed, time_limit_seconds)
        finally:
            timer.cancel()
            process.kill()


def run_query(url: str | URL, sql: str, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> list[dict[str, Any]]:
    """Return all rows of a query.

    Raises:
        QueryRefused, StoreError: as in `Answer`.
        QueryStopped: as in `Answer`, or the query returns more than a million rows or 100 MB.
    """
    with opened_query(url, sql, time_limit_seconds, most_bytes=KEPT_BYTES) as answer:
        rows = list(answer)
    if answer.large:
        raise QueryStopped(f"the query returns more than {KEPT_BYTES:,} bytes; narrow it with WHERE or LIMIT")
    if answer.cut:
        raise QueryStopped(f"the query returns more than {MAX_ROWS} rows; narrow it with WHERE or LIMIT")
    return rows


def _target(url: URL, seconds: float) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"path": Path(str(url.database)).absolute().as_uri() + "?mode=ro"}
    _, arguments = url.get_dialect()().create_connect_args(url)
    own = {"statement_timeout": f"{1000 * seconds:.0f}", "default_transaction_read_only": "on"}
    statements = ["SET statement_timeout = 0", postgresql.set_up(postgresql.SETTINGS | own)]
    return {"connect": {**arguments, **postgresql.ARGUMENTS}, "set_up": statements}


def _distinct(names: list[str]) -> list[str]:
    """Return the names without duplicates: the second `n` becomes `n_2`."""
    distinct: dict[str, None] = {}
    latest: dict[str, int] = {}  # the last number that was added to a name
    for name in names:
        free, n = name, latest.get(name, 1)
        while free in distinct:
            n += 1
            free = f"{name}_{n}"
        latest[name] = n
        distinct[free] = None
    return list(distinct)


_UNAVAILABLE = (  # primary result codes of SQLite that are about the file, not about the query
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM),
)
_TOO_MUCH = "the query needs too much memory; narrow it with WHERE or LIMIT"
_TOO_LARGE = "the query makes a text or a row that is too long; choose fewer columns, or parts of them"


def _sqlite_failure(url: URL, text: str, code: int) -> SearcherError:
    primary = code & 0xFF
    read_only = primary == sqlite3.SQLITE_READONLY
    if primary in _UNAVAILABLE or (read_only and code != primary):  # such as a journal that cannot be rolled back
        return StoreError(errors.plain_sqlite(url, masked(url), text, code))
    if primary == sqlite3.SQLITE_NOMEM:
        return QueryStopped(_TOO_MUCH)
    if primary == sqlite3.SQLITE_TOOBIG:
        return QueryStopped(_TOO_LARGE)
    # For a function that is not permitted, SQLite's code is the same as for any mistake in a statement.
    if primary == sqlite3.SQLITE_AUTH or read_only or text.startswith("not authorized to use function"):
        return _only_reading(text)
    return _refused(text)


def _postgresql_failure(url: URL, text: str, state: str, seconds_left: float, seconds: float) -> SearcherError:
    if state == "57014" and seconds_left < 1:
        return QueryStopped(_too_long(seconds))
    if state == "57014":
        return QueryStopped(f"the query was cancelled on the server: {text}")
    if state == "53200":
        return QueryStopped(_TOO_MUCH)
    if state == "25006":
        return _only_reading(text)
    if state == "42501":
        return QueryRefused(f"this user may not do that: {text}; {errors.ASK_FOR_RIGHTS}")
    if state.startswith((*errors.SILENT, "53", "58", "XX")):
        return StoreError(f"{masked(url)}: {text}")
    return _refused(text)


def _only_reading(text: str) -> QueryRefused:
    return QueryRefused(f"only reading is allowed here ({text}); write one SELECT")


def _refused(text: str) -> QueryRefused:
    return QueryRefused(f"the query was refused: {text}; {_EXAMPLE}")


def _too_long(seconds: float) -> str:
    return f"the query ran longer than {seconds:g} s and was stopped; narrow it with WHERE or LIMIT, or raise --timeout"
