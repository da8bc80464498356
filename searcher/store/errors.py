"""What a database's error means, by its code: whether it may pass by itself, and the way out in plain words."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

# SQLSTATEs, or how they begin (PostgreSQL's documentation, appendix A). The server or the connection has gone:
# connection exceptions, a client that stood still, operator intervention (a shutdown, a crash, a start; also a
# statement that someone, or a time-out that is not ours, has cancelled).
SILENT = ("08", "25P03", "25P04", "57P")
# It answers, but not now: a server that is not the primary yet; conflicts with other transactions; no connection,
# memory or disk left; locks of others; cancelled statements; errors of the system below it.
BUSY = ("25006", "40", "53", "55P03", "57", "58")
# A connection that is refused has no SQLSTATE, its text is all there is. These texts mean that waiting will not help.
_LASTING = ("authentication failed", "does not exist", "pg_hba", "no password supplied", "permission denied", "invalid")

DAMAGED = "this database is damaged; restore a copy, or recover what can be read with: sqlite3 FILE .recover"
GONE = "this file was removed or replaced while it was in use; put it back, or restore a copy, then resume"
EDITED = "a row is not as it was left; if one was edited by hand, see: searcher db check"
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
# Statements of ours on tables of our revision. SQLite has one code for all mistakes in a statement, Python none for
# text that is no UTF-8.
_NOT_AS_MADE = ("no such column", "no such table", "Could not decode")

_POSTGRESQL_ERRORS: Mapping[str, str] = {  # by SQLSTATE
    "22021": "another program has put text there in another encoding; mend it there",
    "22P05": "this database cannot hold such text; one whose encoding is UTF8 can",
    "25006": f"this user may only read, or the server is a standby; {ASK_FOR_RIGHTS}",
    "42501": ASK_FOR_RIGHTS,
    "53100": "the server's disk is full; make room there",
}
_REFUSED_CONNECTIONS: Mapping[str, str] = {  # by their text
    "authentication failed": "check the user and the password",
    "no password supplied": "name a file that has the password: ?passfile=FILE, of mode 0600",
    "no pg_hba.conf entry": "the server admits nobody so from here; check the user and sslmode, or its pg_hba.conf",
    "resolve host": "check the name of the host",
    "Connection refused": "check host and port, and that the server runs",
    "FATAL:  database": "check the name, or have the database made first",
    "FATAL:  role": "check the user",
    "permission denied": ASK_FOR_RIGHTS,
}


def sqlite_code(error: BaseException | None) -> int:
    """The extended result code of an exception of sqlite3; 0 where Python has raised it by itself."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0)


def sqlstate(error: BaseException | None) -> str:
    """The SQLSTATE of an exception of psycopg; empty where the server has not sent it."""
    return str(getattr(error, "sqlstate", "") or "")


def may_pass(url: URL, error: DBAPIError) -> bool:
    """Return True if the same statement may succeed in a moment, with nobody changing it."""
    if url.get_backend_name() == "sqlite":
        return sqlite_code(error.orig) & 0xFF in _LOCKED
    if state := sqlstate(error.orig):
        return state.startswith(SILENT + BUSY)
    broken = isinstance(error, (OperationalError, InterfaceError))
    return broken and not any(sign in str(error.orig) for sign in _LASTING)


def plain(url: URL, shown: str, error: DBAPIError) -> str:
    """The error in one line, with a way out. `shown` is the URL without its password."""
    text = str(error.orig).strip()
    if url.get_backend_name() == "sqlite":
        return plain_sqlite(url, shown, text, sqlite_code(error.orig))
    first = text.splitlines()[0] if text else type(error.orig).__name__
    if state := sqlstate(error.orig):
        silent = state.startswith(SILENT)
        way_out = EDITED if state.startswith("23") else _POSTGRESQL_ERRORS.get(state, "")  # 23: constraints
    else:
        silent = may_pass(url, error)
        way_out = next((message for sign, message in _REFUSED_CONNECTIONS.items() if sign in text), "")
    return f"{'PostgreSQL does not answer at ' if silent else ''}{shown}: {first}{way_out and f'; {way_out}'}"


def plain_sqlite(url: URL, shown: str, text: str, code: int) -> str:
    """What SQLite says, with a way out.

    Args:
        code: its extended result code.
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
    """The error in one line for text that the driver could not decode. `shown` is the URL without its password."""
    if url.get_backend_name() == "sqlite":  # what SQLite itself says quotes the schema, which is damaged then
        return f"{url.database}: {DAMAGED} ({error.object[:200].decode(errors='backslashreplace')})"
    return f"{shown} has text in it that is not UTF-8: {error.object[:50]!r}"
