"""The whole loop with a thousand workers, on a simulated clock: where the driver becomes the limit.

Real are the sampler, the expressions and their keys, the pre-flight, the loop, and the store. Simulated are the workers
(`workers/pools/simulated.py`): a child takes a log-normal time around `--child-seconds`, and comes to what its number
decides. The simulated clock goes on while all wait, and by the seconds that the driver really takes between two calls
of its pool, waiting for the disk included. What Ray costs is left out: see `benchmarks.overhead`.

All figures are taken from when as many trials have been proposed as workers hold, two each, to the last proposal:
utilisation is the share of their time in which workers train; `driver ms` what the driver takes a trial (cited and
refused ones included), `driver busy` the share of the simulated time that this is. `filled` is when all workers had
work for the first time.

    python -m benchmarks.simulate --workers 1000 --child-seconds 60
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random

from benchmarks.store import databases
from searcher.driver import leases, session
from searcher.settings.config import Config
from searcher.store.store import Store
from tests.support.made import measures, point
from workers.contract import Job, Outcome, Verdict
from workers.pools.simulated import SimulatedPool

SPREAD = 0.5  # standard deviation of the logarithm of a child's seconds
EPOCHS = 8
NAMES = "workers, child s, trials, filled s, utilisation, trials/h, driver ms, driver busy"


def child_seconds(mean: float, seed: int = 0) -> Callable[[Job], float]:
    """Log-normal with that mean, by the job's number."""
    centre = math.log(mean) - SPREAD**2 / 2
    return lambda job: Random(f"{seed}/{job.number}").lognormvariate(centre, SPREAD)


def judge(job: Job) -> Outcome:
    """One in five is infeasible; the others have a learning curve of eight points."""
    draw = Random(job.number)
    if draw.random() < 0.2:
        return Outcome(Verdict.INFEASIBLE, "training loss is not finite at epoch 1, step 9")
    loss = draw.lognormvariate(0, 1)
    curve = tuple(point(epoch, loss + 1, loss, 0.5) for epoch in range(1, EPOCHS + 1))
    return Outcome(Verdict.COMPLETE, metrics=measures(loss, 0.5), curve=curve, parameters=9000)


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a simulation is."""

    proposed: int
    seconds: float
    worked: float
    driver: float


def simulate(store: Store, settings: Config, pool: SimulatedPool) -> tuple[float, Moment, Moment]:
    """Runs a study; when all workers had work first, and the moments between which there is work for all."""
    study = session.create_study(store, settings)
    filled, moments = math.nan, list[Moment]()
    marks = [pool.capacity, settings.search.n_trials]
    with leases.held_lease(store, study) as lease:
        for progress in session.search(store, lease, study, settings, pool, lambda: False, pool.time):
            if math.isnan(filled) and not pool.idle:
                filled = pool.time()
            while marks and progress.proposed >= marks[0]:
                marks.pop(0)
                moments.append(Moment(progress.proposed, pool.time(), pool.worked(), pool.caller_seconds))
    first, last = moments
    return filled, first, last


def row(store: Store, settings: Config, workers: int, mean_seconds: float) -> list[str]:
    """A row of the table."""
    pool = SimulatedPool(workers, child_seconds(mean_seconds), judge)
    filled, first, last = simulate(store, settings, pool)
    seconds, driver = last.seconds - first.seconds, last.driver - first.driver
    proposed = last.proposed - first.proposed
    return [
        f"{workers:,}",
        f"{mean_seconds:g}",
        f"{settings.search.n_trials:,}",
        "never" if math.isnan(filled) else f"{filled:.1f}",
        f"{(last.worked - first.worked) / (workers * seconds):.1%}",
        f"{3600 * proposed / seconds:,.0f}",
        f"{1000 * driver / proposed:.2f}",
        f"{driver / seconds:.1%}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1000])
    parser.add_argument("--child-seconds", type=float, nargs="+", default=[60.0], help="mean of a child's seconds")
    parser.add_argument("--trials", type=int, default=0, help="a study; 0: six a worker, 2000 at least")
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--units", type=int, default=2, help="of the search space")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="make the database here and delete it again; the speed of this disk counts (default: %(default)s)",
    )
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "optuna", "sqlalchemy", "psycopg"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    print(f"{arguments.database}, sampler {arguments.sampler}, {arguments.units} units\n")
    print(f"| {' | '.join(NAMES.split(', '))} |\n|{'---|' * len(NAMES.split(', '))}", flush=True)
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder.resolve()) as folder,
        databases([arguments.database], Path(folder)) as [url],
    ):
        store = Store(url, create=True)
        for workers in arguments.workers:
            settings = Config.of(
                sampler=arguments.sampler,
                units=arguments.units,
                n_trials=arguments.trials or max(2000, 6 * workers),
                baselines=("none",),
            )
            for seconds in arguments.child_seconds:
                print(f"| {' | '.join(row(store, settings, workers, seconds))} |", flush=True)
        store.close()


if __name__ == "__main__":
    sys.exit(main())
