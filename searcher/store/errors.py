"""Interpret a database's error by its code: whether the operation may succeed later, and what to do about it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

# SQLSTATEs or their first characters (PostgreSQL's documentation, appendix A) for a lost server or connection:
# connection exceptions, time-outs of an idle client, operator intervention (a shutdown, a crash, a start).
SILENT = ("08", "25P03", "25P04", "57P")
# The same for a server that cannot do it now: it is not the primary yet; other transactions conflict; connections,
# memory or disk are used up; a lock is held; the statement was cancelled; the operating system failed.
BUSY = ("25006", "40", "53", "55P03", "57", "58")
# A refused connection has no SQLSTATE, only a text. With these texts, waiting will not help.
_LASTING = ("authentication failed", "does not exist", "pg_hba", "no password supplied", "permission denied", "invalid")

DAMAGED = "this database is damaged; restore a copy, or recover what can be read with: sqlite3 FILE .recover"
GONE = "this file was removed or replaced while it was in use; put it back, or restore a copy, then resume"
EDITED = "a row is not as this program wrote it; if somebody edited it, see: searcher db check"
ASK_FOR_RIGHTS = "ask who owns the database for the right; docs/cluster.md has the roles"

_SQLITE_ERRORS: Mapping[int, str] = {  # by primary result code
    sqlite3.SQLITE_BUSY: "another process has kept this database locked; stop it or try again",
    sqlite3.SQLITE_LOCKED: "another process has kept this database locked; stop it or try again",
    sqlite3.SQLITE_PROTOCOL: "another process has kept this database locked; stop it or try again",
    sqlite3.SQLITE_CANTOPEN: "this file cannot be opened; check the path and the rights of its directory",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_FORMAT: DAMAGED,
    sqlite3.SQLITE_FULL: "the disk is full; make room, then resume",
    sqlite3.SQLITE_IOERR: "the disk fails to read or write this file; check the disk, then resume",
    sqlite3.SQLITE_NOTADB: "this file is not a SQLite database, or is damaged; name another file, or restore a copy",
    sqlite3.SQLITE_PERM: "this file may not be opened; check the rights of the file and of its directory",
    sqlite3.SQLITE_READONLY: "this database cannot be written to; check the rights of the file and of its directory",
}
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
# Our statements cannot fail in these ways on tables of our revision, so the file is damaged. These errors are known by
# their text only: SQLite has one code for all mistakes in a statement, and Python none for text that is not UTF-8.
_NOT_AS_MADE = ("no such column", "no such table", "Could not decode")

_POSTGRESQL_ERRORS: Mapping[str, str] = {  # by SQLSTATE
    "22021": "another program has written text in another encoding; correct it with that program",
    "22P05": "this database cannot hold this text; a database with the encoding UTF8 can",
    "25006": f"this user may only read, or the server is a standby; {ASK_FOR_RIGHTS}",
    "42501": ASK_FOR_RIGHTS,
    "53100": "the server's disk is full; make room there",
}
_REFUSED_CONNECTIONS: Mapping[str, str] = {  # by their text
    "authentication failed": "check the user and the password",
    "no password supplied": "name a file that has the password: ?passfile=FILE, of mode 0600",
    "no pg_hba.conf entry": "the server rejects this connection; check the user and sslmode, or its pg_hba.conf",
    "resolve host": "check the name of the host",
    "Connection refused": "check host and port, and that the server runs",
    "FATAL:  database": "check the name, or have the database created first",
    "FATAL:  role": "check the user",
    "permission denied": ASK_FOR_RIGHTS,
}


def sqlite_code(error: BaseException | None) -> int:
    """Return the extended result code of an exception of sqlite3; 0 if Python itself raised it."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0)


def sqlstate(error: BaseException | None) -> str:
    """Return the SQLSTATE of an exception of psycopg; empty if the error is not from the server."""
    return str(getattr(error, "sqlstate", "") or "")


def may_pass(url: URL, error: DBAPIError) -> bool:
    """Return True if the same statement may succeed later without a change by the user."""
    if url.get_backend_name() == "sqlite":
        return sqlite_code(error.orig) & 0xFF in _LOCKED
    if state := sqlstate(error.orig):
        return state.startswith(SILENT + BUSY)
    broken = isinstance(error, (OperationalError, InterfaceError))
    return broken and not any(sign in str(error.orig) for sign in _LASTING)


def plain(url: URL, shown: str, error: DBAPIError) -> str:
    """Describe the error in one line and say what to do. `shown` is the URL without its password."""
    text = str(error.orig).strip()
    if url.get_backend_name() == "sqlite":
        return plain_sqlite(url, shown, text, sqlite_code(error.orig))
    first = text.splitlines()[0] if text else type(error.orig).__name__
    if state := sqlstate(error.orig):
        silent = state.startswith(SILENT)
        advice = EDITED if state.startswith("23") else _POSTGRESQL_ERRORS.get(state, "")  # 23: constraints
    else:
        silent = may_pass(url, error)
        advice = next((message for sign, message in _REFUSED_CONNECTIONS.items() if sign in text), "")
    return f"{'PostgreSQL does not answer at ' if silent else ''}{shown}: {first}{advice and f'; {advice}'}"


def plain_sqlite(url: URL, shown: str, text: str, code: int) -> str:
    """Describe an error of SQLite in one line and say what to do.

    Args:
        shown: the URL without its password.
        text: SQLite's message.
        code: SQLite's extended result code.
    """
    primary = code & 0xFF
    missing = primary == sqlite3.SQLITE_IOERR and not Path(str(url.database)).exists()
    if code == sqlite3.SQLITE_READONLY_DBMOVED or missing:
        return f"{url.database}: {GONE}"
    if primary in _SQLITE_ERRORS:
        return f"{url.database}: {_SQLITE_ERRORS[primary]}"
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return f"{shown}: {text}; {EDITED}"
    if text.startswith(_NOT_AS_MADE):
        return f"{url.database}: {DAMAGED} ({text[:200]})"
    return f"{shown}: {text}"


def undecodable(url: URL, shown: str, error: UnicodeDecodeError) -> str:
    """Describe in one line that the driver could not decode a text. `shown` is the URL without its password."""
    if url.get_backend_name() == "sqlite":  # the text is SQLite's message, which quotes the damaged schema
        return f"{url.database}: {DAMAGED} ({error.object[:200].decode(errors='backslashreplace')})"
    return f"{shown} has text in it that is not UTF-8: {error.object[:50]!r}"
