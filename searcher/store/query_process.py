"""A program that runs one query. `searcher/store/query.py` starts it, and kills it when its time is up.

One call of an SQL function can run for hours or take any amount of memory, and nothing in its process can end it. So
this process has little memory, can write no file, and may be killed at any moment. For SQLite it imports the standard
library only. It reads the task from standard input and writes lines of JSON to standard output: the names of the
columns, the rows, and an object that says how the query ended.
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
ROW_BYTES = 10_000_000  # the longest row, as JSON
VALUE_BYTES = 32  # added for each value: about what a Python object takes beyond its JSON
FETCH = 500  # rows that PostgreSQL sends at a time

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_UNSAFE_FUNCTIONS = {"load_extension", "fts3_tokenizer", "writefile", "readfile", "edit"}


class Refused(Exception):
    """The query failed.

    Args:
        kind: `database` for an error of the database, `connection` if there was no connection, `memory` or `row` if
            the memory or the longest row was exceeded.
        text: the message.
        code: SQLite's extended result code or PostgreSQL's SQLSTATE, if the error has one.
    """

    def __init__(self, kind: str, text: str, code: int | str | None = None) -> None:
        super().__init__(text)
        self.end = {"failed": kind, "text": text, "code": code}


def main() -> None:
    task = json.load(sys.stdin)
    seconds = math.ceil(task["seconds"]) + 1  # the limit ends this process even if its parent was killed
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
    """Send the names, and at most `limit` rows that take at most `most_bytes` together. Return `cut`, which is True if
    there are more rows, and `large`, which is True if the limit was their size."""
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
    # The server applies its time-out to each fetch, and a query may change it; this timer cancels the whole query.
    cancel = threading.Timer(max(0.0, task["end"] - time.time()), connection.cancel_safe)
    cancel.daemon = True
    cancel.start()
    with closing(connection):
        try:
            for statement in task["set_up"]:
                connection.execute(statement)
            connection.commit()
            connection.read_only = True
            connection.execute("SELECT 1")  # takes the snapshot; after that a transaction cannot be made writable
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
    """Return a value that JSON can hold. Numbers that are not finite become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


if __name__ == "__main__":
    main()
