"""Candidates decided per hour by a whole search on digits, beside a plain script with Ray Tune and Optuna.

What is compared, in the same run, each as a command of its own, starting up included, with the same space, network,
data, epochs, number of workers (of one thread) and kind of sampler (Optuna's TPE):

* searcher, trained: `searcher launch` with a new SQLite file; only candidates that a worker trained are counted, in the
  time of the whole search.
* searcher, decided: the same search; a function known under another name or refused untrained is decided, too.
* searcher, decided, with the pruner: the same again with children that do badly stopped early.
* Ray Tune: `benchmarks.tune_script`, function API and OptunaSearch as the documentation shows; it trains every
  candidate to its end, unless its loss is not finite. By default it gets fewer candidates than searcher, since it is
  slow: enough to run longer, so that starting up weighs less on it than on searcher. A short search has lower ratios.

All runs are one after the other, Ray Tune between the two searches. The last line has the ratios of searcher to Ray
Tune in the order of the list.

    python -m benchmarks.search --candidates 200 --tune-candidates 40
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from searcher.store.store import Store

PRUNER = "halving"


@dataclass(frozen=True)
class Row:
    """A line of the table: so many candidates in so many seconds."""

    side: str
    candidates: int
    seconds: float

    @property
    def per_hour(self) -> float:
        return 3600 * self.candidates / self.seconds


def timed(*command: str) -> float:
    """Seconds that `python -m` of this takes; what it prints goes to stderr."""
    print("$ python -m", *command, file=sys.stderr, flush=True)
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], stdout=sys.stderr, check=True)
    return time.perf_counter() - start


def search(candidates: int, workers: int, directory: Path, *options: str) -> tuple[int, int, float]:
    """Candidates trained, candidates decided, and seconds, of a `searcher launch`."""
    name = f"search{len(options)}"
    url = f"sqlite:///{directory}/{name}.db"
    asked = ["--study-name", name, "--storage", url, "--n-trials", str(candidates), "--baselines", "none"]
    asked += ["--sampler", "optuna:tpe", "--workers", str(workers), "--threads", "1"]
    seconds = timed("cli", "launch", *asked, *options)
    store = Store(url)
    trials = store.trials(store.study(name))
    store.close()
    decided = sum(trial.state.judged for trial in trials)
    if decided != candidates:
        raise RuntimeError(f"{decided} of {candidates} candidates were decided")
    return sum(trial.trained for trial in trials), decided, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--candidates", type=int, default=200, help="for each search of searcher")
    parser.add_argument("--tune-candidates", type=int, default=40, help="for Ray Tune, which is slow")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "optuna", "sqlalchemy"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{packages}; {arguments.workers} workers", flush=True)
    n, workers = arguments.candidates, arguments.workers
    with tempfile.TemporaryDirectory() as name:
        trained, decided, seconds = search(n, workers, Path(name))
        tried = arguments.tune_candidates
        tune_seconds = timed("benchmarks.tune_script", "--candidates", str(tried), "--workers", str(workers))
        _, pruned, pruned_seconds = search(n, workers, Path(name), "--pruner", PRUNER)
    tune = Row("Ray Tune, function, OptunaSearch", tried, tune_seconds)
    ours = [
        Row("searcher, trained", trained, seconds),
        Row("searcher, decided", decided, seconds),
        Row(f"searcher, decided, {PRUNER}", pruned, pruned_seconds),
    ]
    print("\n| side | candidates | seconds | per hour | ratio |\n|---|---|---|---|---|")
    for row in (*ours, tune):
        ratio = row.per_hour / tune.per_hour
        print(f"| {row.side} | {row.candidates} | {row.seconds:.1f} | {row.per_hour:.0f} | {ratio:.1f}x |")
    ratios = ", ".join(f"{row.per_hour / tune.per_hour:.1f}x" for row in ours)
    print(f"\nsearcher / Ray Tune: {ratios}")


if __name__ == "__main__":
    main()
