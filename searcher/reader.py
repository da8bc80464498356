"""Runs one query. A program of its own, which `searcher/query.py` starts and kills when the time is up.

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
FETCH = 500  # rows that PostgreSQL sends at a time

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_UNSAFE_FUNCTIONS = {"load_extension", "fts3_tokenizer", "writefile", "readfile", "edit"}


class Refused(Exception):
    """How a query ended that has no (more) rows: the kind of failure, and the database's words."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def main() -> None:
    task = json.load(sys.stdin)
    seconds = math.ceil(task["seconds"]) + 1  # should the parent be killed, nobody is left who would kill this one
    for what, most in (("AS", MEMORY_BYTES), ("CPU", seconds), ("FSIZE", 0), ("CORE", 0)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (most, most))
    rows = _sqlite(task) if "path" in task else _postgresql(task)
    try:
        end: dict[str, Any] = {"cut": _send(rows, task["limit"])}
    except MemoryError:
        end = {"refused": "out of memory"}
    except Refused as error:
        end = {error.kind: str(error)}
    _write(json.dumps(end))


def _send(rows: Iterator[Iterable[Any]], limit: int) -> bool:
    """Sends the names and at most `limit` rows; whether there are more."""
    _write(json.dumps(next(rows)))
    sys.stdout.flush()
    for row in islice(rows, limit):
        line = json.dumps([_plain(value) for value in row])
        if len(line) > ROW_BYTES:
            raise Refused("refused", "row too big")
        _write(line)
    return next(rows, None) is not None


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
            no_fault_of_the_query = ("locked", "malformed", "disk I/O", "not a database")
            kind = "unavailable" if any(sign in str(error) for sign in no_fault_of_the_query) else "refused"
            raise Refused(kind, str(error)) from error


def _authorize(action: int, _first: str | None, second: str | None, *_: object) -> int:
    if action not in _READING or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _UNSAFE_FUNCTIONS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _postgresql(task: dict[str, Any]) -> Iterator[Iterable[Any]]:
    import psycopg

    target = task["connect"]
    limits = f"-c default_transaction_read_only=on -c statement_timeout={1000 * task['seconds']:.0f}"
    try:
        connection = psycopg.connect(**target | {"options": f"{target.get('options', '')} {limits}"})
    except psycopg.Error as error:
        raise Refused("unavailable", str(error).splitlines()[0]) from None
    # The time-out counts for each fetch, and a query may set it; this cancels whatever runs, at the end.
    cancel = threading.Timer(max(0.0, task["end"] - time.time()), connection.cancel_safe)
    cancel.daemon = True
    cancel.start()
    with closing(connection):
        connection.read_only = True
        try:
            connection.execute("SELECT 1")  # takes the snapshot: from here the transaction stays read-only
            if connection.info.parameter_status("is_superuser") == "on":
                connection.execute("SET ROLE pg_read_all_data")
            with connection.cursor("searcher_query") as cursor:
                cursor.itersize = FETCH
                cursor.execute(task["sql"].strip().rstrip(";").encode())
                yield [column.name for column in cursor.description or ()]
                yield from cursor
        except (psycopg.Error, ValueError) as error:
            raise Refused("refused", (str(error) or type(error).__name__).splitlines()[0]) from None


def _plain(value: Any) -> Any:
    """A value as JSON can hold it. Numbers that are not finite become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


if __name__ == "__main__":
    main()
