"""Candidates a second through the whole loop, with a child that does nothing, beside Ray Tune.

What is compared, on the same machine in the same run, with the same number of workers:

* searcher: propose, key, record, submit to a Ray actor, return, record in SQLite (synchronous=FULL), tell.
* Ray Tune, class API with `reuse_actors=True`: sample, start or reset an actor, one `step`, log the result.
* Ray Tune, function API: the same with a function that reports once.

The rate is taken between the first and the last result, so that starting up is left out of all three. Only candidates
that went to a worker count: what searcher answers from its store does not. Both are run in turn, several rounds of
them, since the speed of a shared machine drifts. The last line is the median ratio of searcher to Ray Tune with
`reuse_actors`.

    python -m benchmarks.overhead --candidates 500
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import ray
from ray import tune

from searcher import session
from searcher.config import Config
from searcher.store import Store
from workers.job import Epoch, Job, Outcome, Verdict
from workers.ray_pool import RayPool

OPTIONS = {"input1": 1, "input2": 1, "unary1": 25, "unary2": 25, "binary": 10}


def nothing(job: Job) -> Outcome:
    """A child that does nothing, and reports what a child reports."""
    loss = 0.1 + job.number % 7
    return Outcome(Verdict.COMPLETE, val_loss=loss, val_acc=0.5, curve=(Epoch(1, loss, loss, 0.5),), parameters=1)


def rate(ends: list[float]) -> float:
    """Results a second between the first and the last."""
    return (len(ends) - 1) / (ends[-1] - ends[0])


def searcher_rate(candidates: int, workers: int, directory: Path) -> float:
    settings = Config(sampler="random", n_trials=2 * candidates, baselines=("none",), workers=workers)
    store = Store(f"sqlite:///{directory}/overhead.db", create=True)
    study = session.create_study(store, settings)
    pool = RayPool(workers, run=nothing)
    ends: list[float] = []
    with session.held_lease(store, study) as lease:
        for progress in session.search(store, lease, study, settings, pool, lambda: len(ends) >= candidates):
            now = time.perf_counter()
            ends += [now for trial in progress.ended if trial.cites is None]
    pool.close()
    held = sum(trial.cites is None and trial.state.finished for trial in store.trials(study))
    if held < len(ends):
        raise RuntimeError(f"{len(ends)} results were counted, {held} are in the store")
    store.close()
    return rate(ends)


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
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="of searcher and Ray Tune's class API, in turn")
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "sqlalchemy"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{packages}; {arguments.workers} workers", flush=True)
    n, ratios = arguments.candidates, []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        for number in range(1, arguments.rounds + 1):
            directory = Path(name) / f"round{number}"
            directory.mkdir()
            ours = searcher_rate(n, arguments.workers, directory)
            print(f"searcher                         {ours:8.2f} candidates/s ({n})", flush=True)
            reused = tune_rate(Nothing, n, arguments.workers, directory / "class", True)
            print(f"Ray Tune, class, reuse_actors    {reused:8.2f} candidates/s ({n})", flush=True)
            ratios.append(ours / reused)
        n = arguments.function_candidates
        function = tune_rate(nothing_reported, n, arguments.workers, Path(name) / "function", False)
        print(f"Ray Tune, function               {function:8.2f} candidates/s ({n})", flush=True)
    print(f"searcher / Ray Tune, function: {ours / function:.0f}x", flush=True)
    print(f"searcher / Ray Tune, class: {', '.join(f'{ratio:.1f}' for ratio in ratios)}; the median:", flush=True)
    print(f"{median(ratios):.1f}x")


if __name__ == "__main__":
    sys.exit(main())
