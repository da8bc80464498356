"""A person's own SQL, read only, as rows that come one by one.

The query runs in a process of its own (`searcher/store/query_process.py`), which has little memory and is killed when
its time is up. SQLite: the file is opened for reading, and an authorizer admits reading and nothing else (`mode=ro`
alone would let ATTACH and VACUUM INTO write). PostgreSQL: the text becomes the body of a server-side cursor, sent as a
single statement, in a read-only transaction whose snapshot has been taken, so that it cannot be made writable again; it
is never committed. Only missing grants prevent what a function of the server does outside of transactions: see
docs/operations.md.
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
KEPT_BYTES = 100_000_000  # of rows that are kept together; rows that are handed on one by one need not fit
GRACE_SECONDS = {"sqlite": 0.5, "postgresql": 5.0}  # in which the process may end by itself, and have the server end it
_READER = Path(__file__).with_name("query_process.py")
_EXAMPLE = "write one SELECT, as in: SELECT * FROM leaderboard"

Rows = Iterator[dict[str, Any]]


class QueryRefused(UsageError):
    """A query that would write, or that the database does not understand."""


class QueryStopped(SearcherError):
    """A query that takes too long, or too much memory."""


class Answer:
    """The rows of a query, once, in order. Numbers that are not finite come as text.

    Attributes:
        names: of the columns; of those with one name, the second is called `name_2`.
        count: rows that have come.
        cut: whether there are more rows than were asked for; known once the last has come.
        large: whether the rows were cut because of their size.

    Raises (here and between rows):
        QueryRefused: anything but one reading statement, a mistake in it.
        QueryStopped: too much time or memory.
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
        said = json.loads(line if line.endswith("\n") else "{}")  # the process may be killed in the middle of a line
        if isinstance(said, list):
            return said
        if "cut" not in said:
            raise self._failure(said)
        self.cut, self.large = said["cut"], said["large"]
        return None

    def _failure(self, said: dict[str, Any]) -> SearcherError:
        late = time.monotonic() >= self._end
        if not said:
            if late:
                return QueryStopped(_too_long(self._seconds))
            return QueryStopped(f"the query's process has died (status {self._process.wait()}); narrow the query")
        kind, text, code = said["failed"], said["text"], said["code"]
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
    """Runs a query. It ends with the block, and with its time limit, whoever is waiting for whom: while it lasts a
    SQLite file cannot be written to.

    Args:
        limit: the most rows that come.
        most_bytes: what all of them may take, as JSON and 32 bytes more for each value.
    """
    if "\0" in sql:  # where PostgreSQL would stop reading
        raise QueryRefused(f"the query has a NUL character in it; {_EXAMPLE}")
    parsed = parse_url(url)
    connect(parsed, create=False).dispose()  # the plain errors about databases that are not there or not ours
    end = time.time() + time_limit_seconds
    task = {"sql": sql, "seconds": time_limit_seconds, "end": end, "limit": limit, "most_bytes": most_bytes}
    task |= _target(parsed, time_limit_seconds)
    isolated = ["-I", "-S"] if "path" in task else ["-I"]
    with subprocess.Popen(
        [sys.executable, *isolated, str(_READER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        killer = threading.Timer(time_limit_seconds + GRACE_SECONDS[parsed.get_backend_name()], process.kill)
        killer.start()
        try:
            with cast(IO[str], process.stdin) as stdin:
                json.dump(task, stdin)  # not an argument: it holds the password
            yield Answer(process, parsed, time_limit_seconds)
        finally:
            killer.cancel()
            process.kill()


def run_query(url: str | URL, sql: str, time_limit_seconds: float = TIME_LIMIT_SECONDS) -> list[dict[str, Any]]:
    """All rows of a query.

    Raises:
        QueryRefused, QueryStopped, StoreError: as an `Answer` does; and more than a million rows, or 100 MB of them.
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
    """Names of which none is there twice: the second `n` is `n_2`."""
    distinct: dict[str, None] = {}
    latest: dict[str, int] = {}  # the number that a name was given last
    for name in names:
        free, n = name, latest.get(name, 1)
        while free in distinct:
            n += 1
            free = f"{name}_{n}"
        latest[name] = n
        distinct[free] = None
    return list(distinct)


_UNAVAILABLE = (  # primary result codes of SQLite that say nothing about the query
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM),
)
_TOO_MUCH = "the query needs too much memory; narrow it with WHERE or LIMIT"
_TOO_LARGE = "the query makes a text or a row that is too long; choose fewer columns, or parts of them"


def _sqlite_failure(url: URL, text: str, code: int) -> SearcherError:
    primary = code & 0xFF
    read_only = primary == sqlite3.SQLITE_READONLY
    if primary in _UNAVAILABLE or (read_only and code != primary):  # a journal that cannot be rolled back
        return StoreError(errors.plain_sqlite(url, masked(url), text, code))
    if primary == sqlite3.SQLITE_NOMEM:
        return QueryStopped(_TOO_MUCH)
    if primary == sqlite3.SQLITE_TOOBIG:
        return QueryStopped(_TOO_LARGE)
    # A function that is not admitted has the code of every mistake in a statement.
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
