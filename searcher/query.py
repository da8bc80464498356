"""A person's own SQL, read only, as rows that come one by one.

The query runs in a process of its own (`searcher/reader.py`), which is killed when its time is up and has little
memory. SQLite: the file is opened for reading, and an authorizer admits reading and nothing else (`mode=ro` alone
would let ATTACH and VACUUM INTO write). PostgreSQL: the text becomes the body of a server-side cursor, sent as a single
statement, in a read-only transaction whose snapshot has been taken, so that it cannot be made writable again; it is
never committed. What a function of the server does outside of transactions, only missing grants prevent: see
docs/operations.md.
"""

from __future__ import annotations

import json
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
from searcher.database import CONNECT_SECONDS, StoreError, connect, masked, parse_url, plain_sqlite

TIME_LIMIT_SECONDS = 30.0
MAX_ROWS = 1_000_000
GRACE_SECONDS = {"sqlite": 0.5, "postgresql": 5.0}  # in which the process may end by itself, and have the server end it
_READER = Path(__file__).with_name("reader.py")
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
        cut: whether there are more rows than were asked for; known once the last has come.

    Raises (here and between rows):
        QueryRefused: anything but one reading statement, a mistake in it.
        QueryStopped: too much time or memory.
        StoreError: the database cannot be used.
    """

    def __init__(self, process: subprocess.Popen[str], url: URL, seconds: float) -> None:
        self._process, self._url, self._seconds = process, url, seconds
        self._end = time.monotonic() + seconds
        self._lines = iter(process.stdout or ())
        self.cut = False
        self.names = _distinct(self._next() or [])
        if not self.names:
            raise QueryRefused(f"the query returns no columns; {_EXAMPLE}")

    def __iter__(self) -> Rows:
        while (row := self._next()) is not None:
            yield dict(zip(self.names, row, strict=True))

    def _next(self) -> list[Any] | None:
        line = next(self._lines, "")
        said = json.loads(line if line.endswith("\n") else "{}")  # the process may be killed in the middle of a line
        if isinstance(said, list):
            return said
        if "cut" not in said:
            raise self._failure(said)
        self.cut = said["cut"]
        return None

    def _failure(self, said: dict[str, str]) -> SearcherError:
        if "unavailable" in said and self._url.get_backend_name() == "sqlite":
            return StoreError(plain_sqlite(self._url, said["unavailable"]))
        if "unavailable" in said:
            return StoreError(f"{masked(self._url)} does not answer: {said['unavailable']}")
        if "refused" in said:
            return _refusal(said["refused"], self._seconds)
        if time.monotonic() >= self._end:
            return QueryStopped(_too_long(self._seconds))
        return QueryStopped(f"the query's process has died (status {self._process.wait()}); narrow the query")


@contextmanager
def opened_query(
    url: str | URL, sql: str, time_limit_seconds: float = TIME_LIMIT_SECONDS, limit: int = MAX_ROWS
) -> Iterator[Answer]:
    """Runs a query. It ends with the block, and with its time limit, whoever is waiting for whom: while it lasts a
    SQLite file cannot be written to."""
    if "\0" in sql:  # where PostgreSQL would stop reading
        raise QueryRefused(f"the query has a NUL character in it; {_EXAMPLE}")
    parsed = parse_url(url)
    connect(parsed, create=False).dispose()  # the plain errors about databases that are not there or not ours
    end = time.time() + time_limit_seconds
    task = {"sql": sql, "seconds": time_limit_seconds, "end": end, "limit": limit, **_target(parsed)}
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
        QueryRefused, QueryStopped, StoreError: as an `Answer` does; and more than a million rows.
    """
    with opened_query(url, sql, time_limit_seconds) as answer:
        rows = list(answer)
    if answer.cut:
        raise QueryStopped(f"the query returns more than {MAX_ROWS} rows; narrow it with WHERE or LIMIT")
    return rows


def _target(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"path": Path(str(url.database)).absolute().as_uri() + "?mode=ro"}
    _, arguments = url.get_dialect()().create_connect_args(url)
    return {"connect": {**arguments, "connect_timeout": CONNECT_SECONDS}}


def _distinct(names: list[str]) -> list[str]:
    distinct: list[str] = []
    for name in names:
        free, n = name, 1
        while free in distinct:
            n += 1
            free = f"{name}_{n}"
        distinct.append(free)
    return distinct


def _refusal(text: str, seconds: float) -> SearcherError:
    if "canceling statement" in text:
        return QueryStopped(_too_long(seconds))
    if "out of memory" in text:
        return QueryStopped("the query needs too much memory; narrow it with WHERE or LIMIT")
    if "too big" in text:
        return QueryStopped("the query makes a text or a row that is too long; choose fewer columns, or parts of them")
    if any(sign in text for sign in ("not authorized", "prohibited", "read-only", "permission denied")):
        return QueryRefused(f"only reading is allowed here ({text}); write one SELECT")
    return QueryRefused(f"the query was refused: {text}; {_EXAMPLE}")


def _too_long(seconds: float) -> str:
    return f"the query ran longer than {seconds:g} s and was stopped; narrow it with WHERE or LIMIT, or raise --timeout"
