"""Faults in large numbers, on both databases: what the tests in tests/faults do a few times, for an hour or more.

    python -m benchmarks.soak --out /tmp/soak.json                    # everything
    python -m benchmarks.soak --parts workers drivers --kills 500 --driver-kills 50
    python -m benchmarks.soak --parts parser --parser-seconds 600

Real processes, real signals, a real PostgreSQL server that it starts itself. Progress goes to stderr; the last line on
stdout is the verdict as JSON, which is in the file too. The exit status is 0 if everything held.

Parts: `workers`, kill -9 of working Ray workers; `drivers`, kill -9 of the driver, then resume; `pauses`, a driver is
stopped past its lease while another takes over; `outages`, the database goes away for 10 s (a lock, SQLite) and 5, 30
and 120 s (PostgreSQL stopped at once); `histories`, random histories of the store against a model; `parser`, the parser
under a coverage-guided fuzzer (needs `pip install atheris`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support import harness
from tests.support.harness import Tell
from tests.support.histories import explore
from tests.support.outages import Breakdown, locked, survives
from tests.support.postgres import Server
from workers.pools.ray_actors import RayPool

PARTS = ("workers", "drivers", "pauses", "outages", "histories", "parser")
Fact = dict[str, Any]

FUZZ = """
import sys, time
from array import array
import atheris

with atheris.instrument_imports(include=["search_space"]):
    from search_space import ParseError, parse

seconds = array("d")

def one(data):
    text = atheris.FuzzedDataProvider(data).ConsumeUnicodeNoSurrogates(1200)
    tree, begun = None, time.perf_counter()
    try:
        tree = parse(text)
    except ParseError:
        pass
    seconds.append(time.perf_counter() - begun)
    if tree is not None:
        assert str(parse(str(tree))) == str(tree)
    if time.monotonic() > end:
        done()

def done():
    slowest = sorted(seconds)
    print(f"{len(seconds)} {slowest[int(0.99 * len(seconds))]} {slowest[-1]}", flush=True)
    sys.stdout.flush()
    import os
    os._exit(0)

end = time.monotonic() + float(sys.argv[1])
atheris.Setup([sys.argv[0], "-max_len=1200", "-rss_limit_mb=0", sys.argv[2]], one)
atheris.Fuzz()
"""


def said(part: str, of: int) -> Tell:
    """Says on stderr how far a part is, about twenty times."""
    begun = time.monotonic()

    def tell(done: int) -> None:
        if done % max(1, of // 20) == 0:
            print(f"{part}: {done}/{of}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)

    return tell


def workers(url: str, directory: Path, a: argparse.Namespace, name: str) -> Fact:
    pool = RayPool(3, 0, "local", 1, run=harness.child)
    try:
        return harness.kill_workers(url, directory, pool, a.kills, tell=said(name, a.kills)).facts()
    finally:
        pool.close()


def drivers(url: str, directory: Path, a: argparse.Namespace, name: str) -> Fact:
    return harness.kill_drivers(url, directory, a.driver_kills, tell=said(name, a.driver_kills)).facts()


def pauses(url: str, directory: Path, a: argparse.Namespace, name: str) -> Fact:
    return harness.pause_drivers(url, directory, a.pauses, tell=said(name, a.pauses)).facts()


def histories(url: str, directory: Path, a: argparse.Namespace, name: str) -> Fact:
    explore(url, a.histories, 50, said(name, a.histories), database=None)
    return {"what": "random histories of the store", "histories": a.histories, "steps": 50, "holds": True}


def attempted(act: Callable[[], Fact], **known: Any) -> Fact:
    """What `act` has found; what it raises is a finding too, so that the other parts run."""
    begun = time.monotonic()
    try:
        found = act()
    except Exception as error:
        found = {"holds": False, "failure": f"{type(error).__name__}: {error}"[:2000]}
    return {**known, "seconds": round(time.monotonic() - begun, 1), **found}


def outage(what: str, url: str, breakdown: Breakdown) -> Fact:
    survives(url, breakdown)
    return {"what": what, "holds": True}


def outages(directory: Path, seconds: list[int]) -> Iterator[Fact]:
    url = f"sqlite:///{directory}/searcher.db"
    lock = Breakdown(lambda: locked(url), 10)
    yield attempted(lambda: outage("SQLite locked", url, lock), part="outages", outage_seconds=10)
    for away in seconds:
        server = Server(Path(tempfile.mkdtemp(dir=directory)) / "pg")
        stopped = Breakdown(server.stopped, away)
        act = partial(outage, "PostgreSQL stopped", server.url, stopped)
        yield attempted(act, part="outages", outage_seconds=away)
        server.close()


def parser(directory: Path, seconds: float) -> Fact:
    if not find_spec("atheris"):
        return {"what": "parser fuzzed", "holds": False, "failure": "atheris is not installed: pip install atheris"}
    corpus = directory / "corpus"
    corpus.mkdir()
    for number, text in enumerate(
        ("x * sigmoid(beta * x)", "max(x, 0)^2 / (1 + exp(-x))", "-(x - 3e-2) * tanh(beta1)")
    ):
        (corpus / str(number)).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(seconds), str(corpus)],
        env={**os.environ, "PYTHONPATH": str(harness.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not done.stdout:
        return {"what": "parser fuzzed", "holds": False, "failure": done.stderr[-2000:]}
    inputs, p99, longest = done.stdout.split()[-3:]
    facts = {
        "inputs": int(inputs),
        "p99_ms": round(1000 * float(p99), 3),
        "longest_ms": round(1000 * float(longest), 1),
    }
    return {"what": "parser fuzzed", **facts, "seconds": seconds, "holds": facts["p99_ms"] <= 5}


@contextmanager
def databases(directory: Path) -> Iterator[dict[str, Callable[[], str]]]:
    """What makes a fresh database of each kind."""
    server = Server(directory / "pg")
    try:
        yield {
            "sqlite": lambda: f"sqlite:///{tempfile.mkdtemp(dir=directory)}/searcher.db",
            "postgresql": lambda: server.url,  # studies have names of their own
        }
    finally:
        server.close()


def facts(a: argparse.Namespace, directory: Path) -> Iterator[Fact]:
    """One for each part and database, as they come."""
    per_database = {"workers": workers, "drivers": drivers, "pauses": pauses, "histories": histories}
    with databases(directory) as fresh:
        for part in (part for part in a.parts if part in per_database):
            for kind in a.databases:
                place = Path(tempfile.mkdtemp(dir=directory))
                act = partial(per_database[part], fresh[kind](), place, a, f"{part}, {kind}")
                yield attempted(act, part=part, database=kind)
    if "outages" in a.parts:
        yield from outages(directory, a.outages)
    if "parser" in a.parts:
        yield attempted(partial(parser, directory, a.parser_seconds), part="parser")


def main() -> None:
    reader = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    reader.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    reader.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    reader.add_argument("--kills", type=int, default=500, help="of workers, on each database")
    reader.add_argument("--driver-kills", type=int, default=50)
    reader.add_argument("--pauses", type=int, default=100)
    reader.add_argument("--outages", type=int, nargs="*", default=[5, 30, 120], help="seconds without PostgreSQL")
    reader.add_argument("--histories", type=int, default=10_000)
    reader.add_argument("--parser-seconds", type=float, default=600)
    reader.add_argument("--out", type=Path)
    a = reader.parse_args()
    os.environ["PYTHONPATH"] = str(harness.ROOT)  # of workers
    found: list[Fact] = []
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        os.environ["SEARCHER_STATE"] = f"{folder}/state"
        for fact in facts(a, Path(folder)):
            found.append(fact)
            print(json.dumps(fact), file=sys.stderr, flush=True)
    verdict = {
        "holds": all(fact["holds"] for fact in found),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            **{p: version(p) for p in ("activation-searcher", "ray", "sqlalchemy")},
        },
        "facts": found,
    }
    text = json.dumps(verdict, indent=2)
    if a.out:
        a.out.write_text(f"{text}\n")
    print(json.dumps(verdict))
    sys.exit(not verdict["holds"])


if __name__ == "__main__":
    main()
