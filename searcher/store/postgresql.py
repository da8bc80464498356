"""Connect to PostgreSQL with fixed settings, whatever the server, the database or the role has set.

`ALTER ROLE ... SET`, `ALTER DATABASE ... SET`, a server's configuration and variables like PGOPTIONS and PGTZ may
change how values are written and read, when statements are cancelled and what a transaction may do. A search and its
copies must not depend on them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

CONNECT_SECONDS = 10
IDLE_SECONDS = 15  # how long a transaction may wait for its client before PostgreSQL ends it

# Arguments of libpq. A host that no longer answers is noticed in about CONNECT_SECONDS; the system's own time-outs take
# minutes. The client's encoding is fixed, and the server translates it to and from the database's.
ARGUMENTS = {
    "client_encoding": "utf8",
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": 1000 * CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}

SETTINGS = {
    # How values are written and read.
    "bytea_output": "hex",
    "DateStyle": "ISO, MDY",
    "extra_float_digits": "3",  # fewer than 1 would round
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
    "transform_null_equals": "off",
    # When a statement is cancelled or a session ended. A driver that is suspended in the middle of a transaction must
    # not keep its locks, or no other driver could take over.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "idle_session_timeout": "0",
    # The isolation of transactions, and commits that are on disk before they are acknowledged. Grants decide who may
    # write.
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
}

_SINGLE_BYTE = re.compile(r"LATIN\d+|ISO_8859_\d|WIN\d{3,4}|KOI8[RU]")


def set_up(settings: dict[str, str]) -> str:
    """Return SQL that applies the settings. Settings that the server's version does not have are left out."""
    wanted = ", ".join(f"('{name}', '{value}')" for name, value in settings.items())
    return (
        f"SELECT pg_catalog.set_config(wanted.name, wanted.value, false) FROM (VALUES {wanted}) AS wanted (name, value)"
        " JOIN pg_catalog.pg_settings AS known ON known.name = wanted.name"
    )


def connected(**arguments: Any) -> psycopg.Connection[Any]:
    """Return a new connection with `SETTINGS`.

    Raises:
        psycopg.Error: the server does not answer, or refuses the connection.
    """
    import psycopg

    connection = psycopg.connect(**arguments)
    try:
        connection.execute("SET statement_timeout = 0")  # otherwise the next statement may be cancelled
        connection.execute(set_up(SETTINGS))
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def codec(server_encoding: str) -> str:
    """Return Python's name of an encoding; a database of `server_encoding` can hold all text in it. That is ASCII where
    Python's and PostgreSQL's characters may differ.

    A database of SQL_ASCII keeps any bytes, and we send UTF-8.
    """
    if server_encoding in ("UTF8", "SQL_ASCII"):
        return "utf-8"
    if not _SINGLE_BYTE.fullmatch(server_encoding):
        return "ascii"
    return server_encoding.replace("WIN", "cp").replace("KOI8", "koi8-")
