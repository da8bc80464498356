"""Candidates a second through the whole loop, with a child that does nothing, beside Ray Tune.

What is compared, on the same machine in the same run, with the same number of workers:

* searcher: propose, key, record, submit to a Ray actor, return, record in SQLite (synchronous=FULL), tell.
* Ray Tune, class API with `reuse_actors=True`: sample, start or reset an actor, one `step`, log the result.
* Ray Tune, function API: the same with a function that reports once.

The rate is taken between the first and the last result, so that starting up is left out of all three. Only candidates
that went to a worker count: what searcher answers from its store or refuses untrained does not. Both are run in turn,
several rounds of them, since the speed of a shared machine drifts. The last line is the median ratio of searcher to Ray
Tune with `reuse_actors`.

    python -m benchmarks.overhead --candidates 500

With several numbers of workers, Ray Tune is left out, and how the driver's cost grows is shown: candidates a second,
the part of their time for which workers are busy, and the driver's CPU time for a candidate (of the whole process,
Ray's threads in it included). Children sleep, so that there can be more workers than cores; expressions are of two
units. Of `--rounds` the one with the most candidates a second is shown.

    python -m benchmarks.overhead --workers 1 2 4 8 16 --child-seconds 0.05
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import ray
from ray import tune

from searcher.driver import leases, session
from searcher.settings.config import Config
from searcher.store.store import Store
from tests.support.made import measures, point
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import Evaluate
from workers.pools.ray_actors import RayPool

OPTIONS = {"input1": 1, "input2": 1, "unary1": 25, "unary2": 25, "binary": 10}


def nothing(job: Job) -> Outcome:
    """A child that does nothing, and reports what a child reports."""
    loss = 0.1 + job.number % 7
    return Outcome(Verdict.COMPLETE, metrics=measures(loss, 0.5), curve=(point(1, loss, loss, 0.5),), parameters=1)


def rate(ends: list[float]) -> float:
    """Results a second between the first and the last."""
    return (len(ends) - 1) / (ends[-1] - ends[0])


@dataclass(frozen=True)
class Sleep:
    """A child that does nothing for so long."""

    seconds: float

    def __call__(self, job: Job) -> Outcome:
        time.sleep(self.seconds)
        return nothing(job)


@dataclass(frozen=True)
class Speed:
    """Of a search: candidates a second, and the driver's CPU seconds a candidate."""

    rate: float
    driver: float


def searcher_speed(candidates: int, workers: int, directory: Path, run: Evaluate = nothing, units: int = 1) -> Speed:
    settings = Config.of(sampler="random", units=units, n_trials=2 * candidates, baselines=("none",), workers=workers)
    store = Store(f"sqlite:///{directory}/overhead.db", create=True)
    study = session.create_study(store, settings)
    pool = RayPool(workers, run=run)
    ends: list[float] = []
    driver: list[float] = []
    with leases.held_lease(store, study) as lease:
        for progress in session.search(store, lease, study, settings, pool, lambda: len(ends) >= candidates):
            now = time.perf_counter()
            ends += [now for trial in progress.ended if trial.trained]
            driver.append(time.process_time())
    pool.close()
    held = sum(trial.trained and trial.state.finished for trial in store.trials(study))
    if held < len(ends):
        raise RuntimeError(f"{len(ends)} results were counted, {held} are in the store")
    store.close()
    return Speed(rate(ends), (driver[-1] - driver[0]) / len(ends))


class Ends(tune.Callback):
    """When each trial of Ray Tune ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.times.append(time.perf_counter())


class Nothing(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.config = config

    def step(self) -> dict[str, Any]:
        return {"val_loss": 0.1, "val_acc": 0.5, "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to restore."""


def nothing_reported(config: dict[str, Any]) -> None:
    tune.report({"val_loss": 0.1, "val_acc": 0.5})


def tune_rate(trainable: Any, candidates: int, workers: int, directory: Path, reuse_actors: bool) -> float:
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ends = Ends()
    tuner = tune.Tuner(
        trainable,
        param_space={name: tune.choice(list(range(n))) for name, n in OPTIONS.items()},
        tune_config=tune.TuneConfig(
            num_samples=candidates,
            reuse_actors=reuse_actors,
            metric="val_loss",
            mode="min",
        ),
        run_config=tune.RunConfig(storage_path=str(directory), verbose=0, callbacks=[ends]),
    )
    results = tuner.fit()
    ray.shutdown()
    if len(results) != candidates or results.errors:
        raise RuntimeError(f"Ray Tune ended {len(results)} of {candidates} trials, with errors {results.errors[:1]}")
    return rate(ends.times)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--candidates", type=int, default=500, help="for searcher and for Ray Tune's class API")
    parser.add_argument(
        "--function-candidates", type=int, default=40, help="for Ray Tune's function API, which is slow"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--child-seconds", type=float, default=0.05, help="with several numbers of workers")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="make the databases here and delete them again; the speed of this disk counts (default: %(default)s)",
    )
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "sqlalchemy"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(packages, flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder.resolve()) as name:
        if len(arguments.workers) > 1:
            growth(arguments, Path(name))
        else:
            comparison(arguments, Path(name))


def growth(arguments: argparse.Namespace, directory: Path) -> None:
    """A table: a row for each number of workers."""
    seconds = arguments.child_seconds
    print(f"children of {1000 * seconds:g} ms\n")
    print("| workers | candidates/s | workers busy | driver's CPU ms a candidate |\n|---|---|---|---|", flush=True)
    for workers in arguments.workers:
        speeds = []
        for number in range(arguments.rounds):
            place = directory / f"{workers}-{number}"
            place.mkdir()
            speeds.append(searcher_speed(arguments.candidates, workers, place, Sleep(seconds), units=2))
        best = max(speeds, key=lambda speed: speed.rate)
        busy = best.rate * seconds / workers
        print(f"| {workers} | {best.rate:.1f} | {busy:.0%} | {1000 * best.driver:.2f} |", flush=True)


def comparison(arguments: argparse.Namespace, directory: Path) -> None:
    """searcher and Ray Tune in turn, and the ratio."""
    [workers] = arguments.workers
    print(f"{workers} workers", flush=True)
    n, ratios = arguments.candidates, []
    for number in range(1, arguments.rounds + 1):
        place = directory / f"round{number}"
        place.mkdir()
        ours = searcher_speed(n, workers, place).rate
        print(f"searcher                         {ours:8.2f} candidates/s ({n})", flush=True)
        reused = tune_rate(Nothing, n, workers, place / "class", True)
        print(f"Ray Tune, class, reuse_actors    {reused:8.2f} candidates/s ({n})", flush=True)
        ratios.append(ours / reused)
    n = arguments.function_candidates
    function = tune_rate(nothing_reported, n, workers, directory / "function", False)
    print(f"Ray Tune, function               {function:8.2f} candidates/s ({n})", flush=True)
    print(f"searcher / Ray Tune, function: {ours / function:.0f}x", flush=True)
    print(f"searcher / Ray Tune, class: {', '.join(f'{ratio:.1f}' for ratio in ratios)}; the median:", flush=True)
    print(f"{median(ratios):.1f}x")


if __name__ == "__main__":
    sys.exit(main())
