"""Copy studies from one database into another, of either kind: all of them or none.

One snapshot of the source is read, in batches. One transaction of the target writes everything, and is committed after
both sides were read again and have the same rows. A copy keeps everything except the study's id: name, numbers, orders,
times, and the position of its last driver.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from searcher import SearcherError
from searcher.records import Study
from searcher.store import database, schema
from searcher.store.database import plain_errors
from searcher.store.rows import utc
from searcher.store.store import Store

BATCH = 5_000  # rows in memory at a time
TABLES = [table for table in schema.metadata.sorted_tables if "study_id" in table.c and table is not schema.lease]
_INSTANTS = {t: [c.name for c in t.c if isinstance(c.type, sa.DateTime)] for t in schema.metadata.sorted_tables}

Report = Callable[[str, int, int], None]  # the study, how many of its rows are copied, the number of all


class CopyRefused(SearcherError):
    """Nothing was written: a study is driven, its name is taken, or the copy would differ from the original."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The size and the checksum of a study in a database. With equal checksums the rows are equal."""

    study: str
    trials: int
    points: int
    checksum: str


def copy(source: str | URL, target: str | URL, names: Sequence[str], report: Report) -> list[Contents]:
    """Copy studies and return the contents of each.

    Args:
        names: the studies; empty means all.
        report: called after each batch of rows.

    Raises:
        CopyRefused, UnknownStudy: nothing was written.
        StoreError: a database cannot be used. Nothing was written, unless the database stopped during the commit.
    """
    store = Store(source)
    engine = database.engine_of(source, create=False)
    try:
        studies = _chosen(store, names)
        with _transaction(target) as new:
            database.make_current(new)
            _refuse_taken(new, studies)
            with plain_errors(source), _snapshot(engine) as old:  # closed before the commit, as closing may fail
                copied = [_copied(old, new, study, report) for study in studies]
        return copied
    finally:
        engine.dispose()
        store.close()


def _chosen(store: Store, names: Sequence[str]) -> list[Study]:
    studies = [store.study(name) for name in dict.fromkeys(names)] or [found.study for found in store.studies()]
    if not studies:
        raise CopyRefused(f"there are no studies in {store.shown_url}; nothing was written")
    for study in studies:
        driver = store.driver(study)
        if driver.live:
            raise CopyRefused(
                f"study {study.name!r} is being driven by {driver.holder}; nothing was written. Stop it first: "
                f"searcher stop {store.typed(study.name)}"
            )
    return studies


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose reads all see the same moment. SQLite always does that, PostgreSQL on request."""
    options = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with engine.execution_options(**options).connect() as connection:
        _permit_long_pauses(connection)
        yield connection


@contextmanager
def _transaction(url: str | URL) -> Iterator[Connection]:
    """Begin a transaction on the target. If it fails, remove a SQLite file that was created for it, unless another
    process has written to that file."""
    parsed = database.parse_url(url)
    engine = database.engine_of(parsed, create=True)
    path = Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None
    made = path is not None and _made(path)
    try:
        with plain_errors(parsed), engine.execution_options(writes=True).begin() as connection:
            _permit_long_pauses(connection)
            yield connection
    except BaseException:
        engine.dispose()
        if path and made and not path.stat().st_size:
            for leftover in (path, path.with_name(f"{path.name}-journal")):
                leftover.unlink(missing_ok=True)
        raise
    engine.dispose()


def _made(path: Path) -> bool:
    """Create the file and return True; return False if it exists."""
    try:
        path.touch(exist_ok=False)
    except OSError:  # it exists, or cannot be created, for which SQLite has a better message
        return False
    return True


def _permit_long_pauses(connection: Connection) -> None:
    """Permit long pauses in the transaction: one side waits while the other works."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '1h'"))


def _refuse_taken(new: Connection, studies: Sequence[Study]) -> None:
    there = set(new.execute(sa.select(schema.study.c.name)).scalars())
    if taken := [study.name for study in studies if study.name in there]:
        raise CopyRefused(
            f"{database.masked(new.engine.url)} has a study of that name already: {', '.join(taken)}; nothing was "
            "written. Name those to copy with --study, or copy into another database"
        )


def _copied(old: Connection, new: Connection, study: Study, report: Report) -> Contents:
    study_id = _add_study(old, new, study)
    done, total = 0, sum(_count(old, table, study.id) for table in TABLES)
    for table in TABLES:
        for batch in _batches(old, table, study.id):
            with _errors_of(new):
                new.execute(sa.insert(table), [_plain(table, row) | {"study_id": study_id} for row in batch])
            done += len(batch)
            report(study.name, done, total)
    before, after = contents(old, study.id), contents(new, study_id)
    if before != after:
        raise CopyRefused(f"the copy would differ from the original: {after}, not {before}; nothing was written")
    return after


def _add_study(old: Connection, new: Connection, study: Study) -> int:
    """Copy the rows of the study and of its lease, which nobody holds, and return the new id. The position of the last
    driver is kept, because a journal that it left on this machine belongs to the copy too."""
    s, c = schema.study, schema.lease
    with _errors_of(old):
        row = old.execute(sa.select(s).where(s.c.id == study.id)).one()
        lease = old.execute(sa.select(c).where(c.c.study_id == study.id)).one()
    made = {name: value for name, value in _plain(s, row).items() if name != "id"}
    with _errors_of(new):
        with_id = made | database.new_id(new)
        study_id: int = new.execute(sa.insert(s).values(with_id).returning(s.c.id)).scalar_one()
        free = {"study_id": study_id, "expires_at": 0.0, "stop_generation": None}
        new.execute(sa.insert(c).values(_plain(c, lease) | free))
    return study_id


def contents(connection: Connection, study_id: int) -> Contents:
    """Read all rows of a study, and return their number and checksum."""
    s = schema.study
    with _errors_of(connection):
        row = connection.execute(sa.select(s).where(s.c.id == study_id)).one()
    digest, counts = hashlib.sha256(_text(s, [row])), dict.fromkeys(TABLES, 0)
    for table in TABLES:
        for batch in _batches(connection, table, study_id):
            counts[table] += len(batch)
            digest.update(_text(table, batch))
    return Contents(row.name, counts[schema.trial], counts[schema.point], digest.hexdigest()[:16])


def _batches(connection: Connection, table: sa.Table, study_id: int) -> Iterator[Sequence[sa.Row[Any]]]:
    query = sa.select(table).where(table.c.study_id == study_id).order_by(*table.primary_key)
    with _errors_of(connection), connection.execute(query.execution_options(yield_per=BATCH)) as rows:
        yield from rows.partitions()


def _count(connection: Connection, table: sa.Table, study_id: int) -> int:
    with _errors_of(connection):
        query = sa.select(sa.func.count()).select_from(table).where(table.c.study_id == study_id)
        return connection.execute(query).scalar_one()


def _errors_of(connection: Connection) -> AbstractContextManager[None]:
    """Turn exceptions into plain errors that name the connection's own database, as there are two."""
    return plain_errors(connection.engine.url)


def _plain(table: sa.Table, row: sa.Row[Any]) -> dict[str, Any]:
    """Return a row as values, with times in UTC, and 0.0 for -0.0, which SQLite does not keep."""
    values: dict[str, Any] = {
        name: value + 0.0 if isinstance(value, float) else value for name, value in row._mapping.items()
    }
    for name in _INSTANTS[table]:
        if time := values[name]:
            values[name] = utc(time)
    return values


def _text(table: sa.Table, rows: Sequence[sa.Row[Any]]) -> bytes:
    """Return rows as JSON without their first column, the study's id; it is the same from both kinds of database."""
    return json.dumps([list(_plain(table, row).values())[1:] for row in rows], default=datetime.isoformat).encode()
