"""Runs one query. A program of its own, which `searcher/store/query.py` starts and kills when the time is up.

A function of SQL can run for hours, or ask for any amount of memory, in one call that nothing in its process can end.
So this process has little memory, can write no file, and may die at any moment. Only the standard library is imported
for SQLite. The task comes on standard input; lines of JSON leave on standard output: the names of the columns, rows,
and at last an object that says how it ended.
"""

from __future__ import annotations

import json
import math
import resource
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

MEMORY_BYTES = 1 << 30
ROW_BYTES = 10_000_000  # longest row, as it is sent
VALUE_BYTES = 32  # a value takes at least as much more where it is kept
FETCH = 500  # rows that PostgreSQL sends at a time

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_UNSAFE_FUNCTIONS = {"load_extension", "fts3_tokenizer", "writefile", "readfile", "edit"}


class Refused(Exception):
    """A query that has no (more) rows.

    Args:
        kind: `database` for an exception of the driver, `connection` if there was no connection, `memory`, `row`.
        code: the driver's, of an error of the database: SQLite's extended result code, or a SQLSTATE.
    """

    def __init__(self, kind: str, text: str, code: int | str | None = None) -> None:
        super().__init__(text)
        self.end = {"failed": kind, "text": text, "code": code}


def main() -> None:
    task = json.load(sys.stdin)
    seconds = math.ceil(task["seconds"]) + 1  # should the parent be killed, nobody is left who would kill this one
    for what, most in (("AS", MEMORY_BYTES), ("CPU", seconds), ("FSIZE", 0), ("CORE", 0)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (most, most))
    rows = _sqlite(task) if "path" in task else _postgresql(task)
    try:
        end = _send(rows, task["limit"], task["most_bytes"])
    except MemoryError:
        end = {"failed": "memory", "text": "", "code": None}
    except Refused as error:
        end = error.end
    _write(json.dumps(end))


def _send(rows: Iterator[Iterable[Any]], limit: int, most_bytes: int) -> dict[str, Any]:
    """Send the names, and at most `limit` rows that take at most `most_bytes` together. Return whether there are more
    rows, and whether it was their size that ended it."""
    names = list(next(rows))
    _write(_line(names))
    sys.stdout.flush()
    sent = 0
    for row in islice(rows, limit):
        line = _line(row)
        sent += len(line) + VALUE_BYTES * len(names)
        if sent > most_bytes:
            return {"cut": True, "large": True}
        _write(line)
    return {"cut": next(rows, None) is not None, "large": False}


def _line(values: Iterable[Any]) -> str:
    line = json.dumps([_plain(value) for value in values])
    if len(line) > ROW_BYTES:
        raise Refused("row", "row too big")
    return line


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


def _sqlite(task: dict[str, Any]) -> Iterator[Iterable[Any]]:
    with closing(sqlite3.connect(task["path"], uri=True, timeout=task["seconds"])) as connection:
        for setting in ("query_only = ON", "trusted_schema = OFF", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, ROW_BYTES)
        connection.set_authorizer(_authorize)
        try:
            cursor = connection.execute(task["sql"])
            yield [column[0] for column in cursor.description or ()]
            yield from cursor
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise Refused("database", str(error), getattr(error, "sqlite_errorcode", None)) from error


def _authorize(action: int, _first: str | None, second: str | None, *_: object) -> int:
    if action not in _READING or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _UNSAFE_FUNCTIONS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _postgresql(task: dict[str, Any]) -> Iterator[Iterable[Any]]:
    import psycopg

    try:
        connection = psycopg.connect(**task["connect"])
    except psycopg.Error as error:
        raise Refused("connection", str(error).splitlines()[0]) from None
    # The time-out counts for each fetch, and a query may set it; this cancels whatever runs, at the end.
    cancel = threading.Timer(max(0.0, task["end"] - time.time()), connection.cancel_safe)
    cancel.daemon = True
    cancel.start()
    with closing(connection):
        try:
            for statement in task["set_up"]:
                connection.execute(statement)
            connection.commit()
            connection.read_only = True
            connection.execute("SELECT 1")  # takes the snapshot: from here the transaction stays read-only
            if connection.info.parameter_status("is_superuser") == "on":
                connection.execute("SET ROLE pg_read_all_data")
            with connection.cursor("searcher_query") as cursor:
                cursor.itersize = FETCH
                cursor.execute(task["sql"].strip().rstrip(";").encode())
                yield [column.name for column in cursor.description or ()]
                yield from cursor
        except (psycopg.Error, ValueError) as error:
            text = (str(error) or type(error).__name__).splitlines()[0]
            state = getattr(error, "sqlstate", None)
            lost = not state and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
            raise Refused("connection" if lost else "database", text, state) from None


def _plain(value: Any) -> Any:
    """A value as JSON can hold it. Numbers that are not finite become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


if __name__ == "__main__":
    main()
