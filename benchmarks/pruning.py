"""What pruners save, and what they lose.

On Fashion-MNIST (4,000 images, resnet8 with stem stride 2), 100 random one-unit functions that are all different and
that the pre-flight admits are trained to the end, with several seeds, for 4 and for 12 epochs; each seed has functions
of its own. Then the same functions go through the search again with a pruner, in the same order, as with two Ray
workers (four jobs at a time): their trainings are read from the first search, and end where a cut-off of the job, or
guessing, says so. That is the same as training them, for a child that is stopped has the curve of one that is not
(tests/driver/test_pruners.py).

A line says how many epochs were trained of those of the search without a pruner, and how many of its best five
functions came to the end.

    python -m benchmarks.pruning --storage sqlite:////tmp/pruning.db --seeds 3 --epochs 4 12

The full trainings take an hour or two on two cores; what is in the database is not trained again, so the command can be
stopped and run again. Fashion-MNIST: see docs/children.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from search_space import Choices, key, preflight
from searcher.driver import leases, session
from searcher.driver.loop import Search
from searcher.pruners import PRUNERS
from searcher.records import Study, Trial, TrialState
from searcher.samplers.contract import generator
from searcher.settings import loading
from searcher.settings.config import Config
from searcher.settings.plan import grammar_of
from searcher.store.store import Store
from tests.support.made import OBJECTIVES, proposing
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import Pool
from workers.tasks.images.data import Part, load
from workers.tasks.images.train import _guesses

FUNCTIONS = 100
BEST = 5


class Listed:
    """A sampler of given proposals."""

    def __init__(self, settings: Config) -> None:
        self._choices = different_functions(settings)

    def ask(self, number: int) -> Choices | None:
        return self._choices[number] if number < len(self._choices) else None

    def tell(self, trial: Trial) -> None:
        """Learns nothing."""


def different_functions(settings: Config) -> list[Choices]:
    grammar, keys, found = grammar_of(settings), set(), []
    number = 0
    while len(found) < FUNCTIONS:
        choices = grammar.sample(generator(settings.search.seed, number))
        number += 1
        expression = grammar.decode(choices)
        if key(expression) not in keys and not preflight(expression):
            keys.add(key(expression))
            found.append(choices)
    return found


class Replay:
    """A pool that knows how every training went: first in, first out, `capacity` at a time."""

    capacity = 4

    def __init__(self, known: Mapping[str, Outcome], val: Part) -> None:
        self._known, self._val, self._held = known, val, deque[Job]()

    def submit(self, *jobs: Job) -> None:
        self._held.extend(jobs)

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        return [(job, self._outcome(job)) for job in [self._held.popleft()]]

    def close(self) -> None:
        """Nothing to free."""

    def _outcome(self, job: Job) -> Outcome:
        whole = self._known[job.expression]
        for epochs in range(1, len(whole.curve)):
            curve = whole.curve[:epochs]
            last = curve[-1]
            guesses = epochs == job.first_rung and _guesses(last.metrics, self._val)
            if guesses or any(cutoff.missed(curve) for cutoff in job.cutoffs):
                metrics = {name: last.metrics[name] for name in OBJECTIVES}
                return Outcome(Verdict.PRUNED, metrics=metrics, curve=curve, seconds=1.0)
        return replace(whole, seconds=1.0)


def run(store: Store, settings: Config, pool: Pool) -> Study:
    """The study of these settings, gone on with if it is there."""
    names = [summary.study.name for summary in store.studies()]
    known = settings.study_name in names
    study = store.study(settings.study_name) if known else session.create_study(store, settings)
    with leases.held_lease(store, study) as lease:
        for progress in Search(
            store, lease, study, settings, proposing(Listed(settings), settings), pool, lambda: False
        ).run():
            if sys.stderr.isatty():
                print(
                    f"\r{settings.study_name}: {progress.done} of {progress.total} ",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
    return study


def outcomes(store: Store, study: Study) -> dict[str, Outcome]:
    """How each training of a study went, by expression."""
    curves = store.curves(study)
    return {
        trial.expression: Outcome(
            Verdict(trial.state.value),
            trial.reason,
            trial.metrics,
            tuple(curves.get(trial.number, ())),
        )
        for trial in store.trials(study)
    }


def epochs_trained(store: Store, study: Study) -> int:
    return sum(map(len, store.curves(study).values()))


def best(store: Store, study: Study) -> list[str]:
    """Expressions of those that came to the end, best first."""
    complete = [trial for trial in store.trials(study) if trial.state is TrialState.COMPLETE]
    return [trial.expression for trial in sorted(complete, key=lambda trial: trial.rank_key)]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--storage",
        default=f"sqlite:///{tempfile.gettempdir()}/pruning.db",
        help="keeps the trainings without a pruner (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=int, nargs="+", default=[4, 12])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    store = Store(arguments.storage, create=True)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"torch {version('torch')}, ray {version('ray')}")
    print(f"\n| epochs | pruner | seed | epochs trained | less training | of the best {BEST} kept |")
    print("|---|---|---|---|---|---|")
    for epochs in arguments.epochs:
        for seed in range(arguments.seeds):
            compare(store, epochs, seed, arguments.workers)


def compare(store: Store, epochs: int, seed: int, workers: int) -> None:
    """Prints a line a pruner."""
    flags = {
        "study_name": f"e{epochs}-s{seed}",
        "n_trials": FUNCTIONS,
        "baselines": ["none"],
        "sampler": "random",
        "dataset": "fashion-mnist",
        "limit_train": 4000,
        "model_kwargs": {"stem_stride": 2},
        "recipe": {"epochs": epochs},
        "seed": seed,
        "workers": workers,
    }
    settings = loading.load(None, flags)
    with closing(session.make_pool(settings)) as pool:
        whole = run(store, settings, pool)
    images = settings.training.images
    val = load(images.dataset, images.split_seed, torch.device("cpu"), limit_train=images.limit_train).val
    known, top = outcomes(store, whole), best(store, whole)[:BEST]
    for pruner in [name for name in PRUNERS if name != "none"]:
        with tempfile.TemporaryDirectory() as directory:
            again = Store(f"sqlite:///{Path(directory) / 'replay.db'}", create=True)
            study = run(again, settings.replace(pruner=pruner), Replay(known, val))
            trained, full = epochs_trained(again, study), epochs_trained(store, whole)
            kept = len(set(top) & set(best(again, study)))
            again.close()
        print(f"\r| {epochs} | {pruner} | {seed} | {trained} of {full} | {full / trained:.2f}x | {kept} |", flush=True)


if __name__ == "__main__":
    main()
