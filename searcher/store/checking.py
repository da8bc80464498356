"""Check a database: find rows that break the rules that hold for every study. Nothing is written.

Constraints of the tables enforce most of the rules. A file that is damaged, was edited or was restored in parts may
break them all the same, and no constraint can express the others. Each rule is one statement, so a search may run
meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from searcher import SearcherError
from searcher.findings import Finding
from searcher.records import Kind, StudyKind, TrialState
from searcher.store import database, schema
from searcher.store.database import StoreError, StoreUnavailable, plain_errors
from searcher.store.errors import DAMAGED
from searcher.store.store import MAX_BATCHES, Store

_OPEN = "state IN ('WAITING', 'RUNNING')"
_JUDGED = ", ".join(f"'{state}'" for state in TrialState if state.judged)
_STATES = ", ".join(f"'{state}'" for state in TrialState)
_KINDS = ", ".join(f"'{kind}'" for kind in Kind)
_CITED = f"""
    SELECT 1 FROM searcher_trial AS cited
    WHERE cited.study_id = searcher_trial.study_id AND cited.number = searcher_trial.cites
      AND cited.cites IS NULL AND cited.key = searcher_trial.key AND cited.state = searcher_trial.state
      AND cited.state IN ({_JUDGED}) AND cited.finish_order < searcher_trial.finish_order
      AND cited.task_config = searcher_trial.task_config AND cited.seed = searcher_trial.seed
      AND COALESCE(cited.value, -1) = COALESCE(searcher_trial.value, -1)
      AND COALESCE(cited.tie_merit, -1) = COALESCE(searcher_trial.tie_merit, -1)
"""
_FINISHED = f"""
    SELECT 1 FROM searcher_trial
    WHERE searcher_trial.study_id = {{table}}.study_id AND searcher_trial.number = {{table}}.number AND NOT {_OPEN}
"""
_OF_TRIAL = "task.study_id = searcher_trial.study_id AND task.number = searcher_trial.task_config"
_TASK = f"SELECT 1 FROM searcher_task_config AS task WHERE {_OF_TRIAL}"
_MERIT = f"""
    (SELECT CASE task.direction WHEN 'maximize' THEN value ELSE -value END
     FROM searcher_task_config AS task WHERE {_OF_TRIAL})
"""
# By what is wrong: the table, and the condition that finds the wrong rows. PostgreSQL orders NaN above all numbers.
_RULES: dict[str, tuple[sa.Table, str]] = {
    "trials of an unknown state or kind": (schema.trial, f"state NOT IN ({_STATES}) OR kind NOT IN ({_KINDS})"),
    "COMPLETE trials without values": (
        schema.trial,
        "state = 'COMPLETE' AND (value IS NULL OR merit IS NULL OR metrics IS NULL)",
    ),
    "trials with numbers that are not finite or out of range": (
        schema.trial,
        "NOT (abs(value) <= 1e300) OR NOT (abs(tie_merit) <= 1e300) OR NOT (seconds BETWEEN 0 AND 1e300)",
    ),
    "trials whose merit is not the value of their objective": (
        schema.trial,
        f"(value IS NULL) <> (merit IS NULL) OR merit <> {_MERIT}",
    ),
    "trials without a task configuration": (
        schema.trial,
        f"NOT EXISTS ({_TASK})",
    ),
    "trials that are open but have ended, or the reverse": (
        schema.trial,
        f"({_OPEN}) <> (finish_order IS NULL) OR ({_OPEN}) <> (finished_at IS NULL)",
    ),
    "trials that cite no judged trial of the same function": (
        schema.trial,
        f"cites IS NOT NULL AND NOT EXISTS ({_CITED})",
    ),
    "points of learning curves whose trial has not ended or is not there": (
        schema.point,
        f"NOT EXISTS ({_FINISHED.format(table='searcher_point')})",
    ),
    "learned parameters whose trial has not ended or is not there": (
        schema.learned,
        f"NOT EXISTS ({_FINISHED.format(table='searcher_learned')})",
    ),
}


def examine(url: str | URL) -> Iterator[Finding]:
    """Yield findings about a database: what it contains, and what is wrong with it.

    Raises:
        StoreError: the database cannot be read, or has no tables of this version.
    """
    engine = database.connect(url, create=False)
    try:
        with plain_errors(url):
            wrong = list(_file(engine))
            yield from wrong or [Finding("database", True, f"{database.masked(url)}, {_server(engine)}")]
            if wrong:
                return  # anything else that is read from it may be wrong too
            wrong = list(_tables(engine))
            yield from wrong or [Finding("tables", True, f"as schema {schema.HEAD} makes them")]
            with closing(Store(url)) as store:
                yield from _studies(engine, store)
    finally:
        engine.dispose()


@contextmanager
def explained_damage(url: str | URL) -> Iterator[None]:
    """Turn an exception whose cause is a damaged SQLite file into a StoreError that says so.

    Values from a damaged file may be anything (an unknown state, a text instead of a number) and may raise many
    exceptions. So if the block raises an exception of such a kind, the file is checked.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        if isinstance(error, SearcherError) or not (found := _damage(url)):
            raise
        path = database.parse_url(url).database
        raise StoreError(f"{path}: {DAMAGED} ({found[:200]})") from error


@contextmanager
def opened(url: str, *, create: bool = False, existing: bool = False) -> Iterator[Store]:
    """Open a store for the length of the block.

    Args:
        create: create the tables, or upgrade older ones.
        existing: the database must exist already.

    Raises:
        StoreError: the database cannot be used.
    """
    if existing:
        database.require(url)
    with explained_damage(url):
        store = Store(url, create=create)
        try:
            yield store
        finally:
            store.close()


def _damage(url: str | URL) -> str:
    """Return the first problem of a SQLite file; empty if none is found."""
    if database.parse_url(url).get_backend_name() != "sqlite":
        return ""
    engine = database.engine_of(url, create=False)
    try:
        with plain_errors(url):
            if wrong := next(_file(engine), None):
                return wrong.found
            return next(chain.from_iterable(_violations(engine).values()), "")
    except StoreUnavailable:
        return ""
    except Exception as error:  # a damaged file may raise any exception
        return str(error)
    finally:
        engine.dispose()


def _read(engine: Engine, statement: sa.Executable) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(statement))


def _server(engine: Engine) -> str:
    version = "sqlite_version()" if engine.dialect.name == "sqlite" else "current_setting('server_version')"
    return f"{engine.dialect.name} {_read(engine, sa.text(f'SELECT {version}'))[0][0]}"


def _file(engine: Engine) -> Iterator[Finding]:
    """Run SQLite's own checks. PostgreSQL has a separate tool for that, pg_amcheck."""
    if engine.dialect.name != "sqlite":
        return
    for (text,) in _read(engine, sa.text("PRAGMA integrity_check")):
        if text != "ok":
            yield from (Finding("database", False, f"{engine.url.database}: {line}") for line in text.splitlines())
    for table, row, parent, _ in _read(engine, sa.text("PRAGMA foreign_key_check")):
        if table in schema.metadata.tables:
            yield Finding("database", False, f"{table}, row {row}: it refers to a row that is not in {parent}")
    for table in schema.metadata.sorted_tables:
        wrong = " OR ".join(f"({column.name} IS NOT NULL AND {_mistyped(column)})" for column in table.c)
        ((n,),) = _read(engine, sa.text(f"SELECT COUNT(*) FROM {table.name} WHERE {wrong}"))
        if n:
            yield Finding("database", False, f"{table.name}: {n} rows with values of another type than their column's")


def _mistyped(column: sa.Column[Any]) -> str:
    """Return SQL that is true for a value of another type than the column's. SQLite accepts such values."""
    name = column.name
    if isinstance(column.type, sa.JSON) or column is schema.trial.c.choices:
        return f"NOT json_valid({name})"
    if isinstance(column.type, sa.DateTime):
        return f"(typeof({name}) <> 'text' OR julianday({name}) IS NULL)"
    if isinstance(column.type, sa.Integer):
        return f"typeof({name}) <> 'integer'"
    return f"typeof({name}) " + ("NOT IN ('real', 'integer')" if isinstance(column.type, sa.Float) else "<> 'text'")


def _tables(engine: Engine) -> Iterator[Finding]:
    """Yield the differences of the tables from those that the migrations create."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    if len(_read(engine, sa.text(f"SELECT version_num FROM {schema.VERSION_TABLE}"))) != 1:
        yield Finding("tables", False, f"{schema.VERSION_TABLE} must have one row")
    ours = schema.metadata.tables
    with engine.connect() as connection:
        named = {"include_name": lambda name, kind, _: kind != "table" or name in ours}
        for change in compare_metadata(MigrationContext.configure(connection, opts=named), schema.metadata):
            kind, *what = change[0] if isinstance(change, list) else change
            if kind == "remove_index":
                continue  # a user's own index does no harm
            names = [getattr(part, "name", part) for part in what]
            yield Finding("tables", False, f"to repair: {kind} {' '.join(n for n in names if isinstance(n, str))}")
        inspector = sa.inspect(connection)
        for table in ours.values():
            there = {check["name"] for check in inspector.get_check_constraints(table.name)}
            for constraint in table.constraints:
                if isinstance(constraint, sa.CheckConstraint) and constraint.name not in there:
                    yield Finding("tables", False, f"to repair: add_constraint {table.name} {constraint.name}")
        if not inspector.has_table(schema.leaderboard.name):  # a view counts as one
            yield Finding("tables", False, f"the view {schema.leaderboard.name} is missing")


def _studies(engine: Engine, store: Store) -> Iterator[Finding]:
    found, counts = _violations(engine), _counts(engine)
    s, held = schema.study.c, schema.lease.c.study_id
    columns = (
        s.id,
        s.name,
        s.kind,
        s.n_trials,
        sa.cast(s.config, sa.Text),
        sa.cast(s.versions, sa.Text),
        held,
        schema.lease.c.serial,
    )
    rows = sa.select(*columns).join(schema.lease, s.id == held, isouter=True).order_by(s.id)
    for study_id, name, kind, total, config, versions, lease, serial in _read(engine, rows):
        states, tally = counts["trial"].get(study_id, {}), counts["tally"].get(study_id, {})
        trials, unfinished = sum(states.values()), sum(states.get(state, 0) for state in ("WAITING", "RUNNING"))
        broken = {
            f"its kind is {kind!r}": kind not in list(StudyKind),
            "its settings or versions are not a JSON object": not (_is_object(config) and _is_object(versions)),
            "it has no lease": lease is None,
            f"its lease says that {serial} batches were written": not 0 <= (serial or 0) < MAX_BATCHES,
            f"its tally is {_described(tally)}; its trials are {_described(states)}": states != tally,
            f"it has {trials} trials, more than its total of {total}": trials > total,
        }
        wrong = [*found.pop(study_id, []), *(text for text, so in broken.items() if so)]
        wrong = wrong or list(_unreadable(store, name))
        if not wrong:
            driver = store.driver(store.study(name))
            driven = "nobody drives it"
            if driver.live:
                driven = f"driven by {driver.holder}, last write {driver.heard or 0:.0f} s ago"
            told = f"{trials - unfinished} of {total} trials decided, {unfinished} open, {driven}"
            yield Finding(f"study {name}", True, told)
        yield from (Finding(f"study {name}", False, text) for text in wrong)
    for study_id, wrong in found.items():
        yield from (Finding(f"study with id {study_id}, which does not exist", False, text) for text in wrong)


def _unreadable(store: Store, name: str) -> Iterator[str]:
    """Say why a study cannot be read, if it cannot."""
    try:
        store.study(name)
    except (StoreError, ValueError) as error:
        yield str(error)


def _violations(engine: Engine) -> dict[int, list[str]]:
    """Return the broken rules in words, by the id of the study."""
    found: dict[int, list[str]] = {}
    for what, (table, condition) in _RULES.items():
        c = table.c
        counted = sa.select(c.study_id, sa.func.count(), sa.func.min(c.number))
        for study_id, n, first in _read(engine, counted.where(sa.text(condition)).group_by(c.study_id)):
            found.setdefault(study_id, []).append(f"{n} {what}, the first of trial {first}")
    for column in (schema.trial.c.number, schema.trial.c.finish_order):
        for study_id, text in _gaps(engine, column):
            found.setdefault(study_id, []).append(text)
    return found


def _gaps(engine: Engine, column: sa.Column[Any]) -> Iterator[tuple[int, str]]:
    """Yield the studies whose values of a column are not 0, 1, 2 and so on."""
    f, study = sa.func, schema.trial.c.study_id
    counts = sa.select(study, f.count(column), f.count(column.distinct()), f.min(column), f.max(column))
    for study_id, n, different, least, most in _read(engine, counts.group_by(study)):
        if n and (n != different or least != 0 or most != n - 1):
            yield study_id, f"its {n} values of {column.name} are {different}, from {least} to {most}, not 0 to {n - 1}"


def _counts(engine: Engine) -> dict[str, dict[int, dict[str, int]]]:
    """Return the number of trials by study and state, as counted (`trial`) and as stored (`tally`). One statement reads
    both, because a search may run meanwhile."""
    t, y = schema.trial.c, schema.tally.c
    both = sa.union_all(
        sa.select(sa.literal("trial"), t.study_id, t.state, sa.func.count()).group_by(t.study_id, t.state),
        sa.select(sa.literal("tally"), y.study_id, y.state, y.trials).where(y.trials > 0),
    )
    found: dict[str, dict[int, dict[str, int]]] = {"trial": {}, "tally": {}}
    for where, study_id, state, n in _read(engine, both):
        found[where].setdefault(study_id, {})[state] = n
    return found


def _described(states: dict[str, int]) -> str:
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "empty"


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
