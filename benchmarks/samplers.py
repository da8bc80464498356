"""What samplers cost when they have been told many trials: milliseconds for a proposal, and for learning from a trial.

Each is told made-up trials of two units, 20 % infeasible. `tell` is the mean over the trials since the row before,
`ask` the mean of 20 proposals, each with a trial told in between: then nothing of the last one can be reused.

    python -m benchmarks.samplers --told 100 1000 10000
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from random import Random

import psutil
import torch

from search_space import Grammar, space
from searcher.records import Kind, Trial, TrialState
from searcher.samplers.contract import Sampler, observation_of
from searcher.samplers.registry import make_sampler
from tests.support.made import image_task, result

ASKED = 20
NAMES = "sampler, told, tell ms, ask ms, MiB more"


def made_up(number: int, grammar: Grammar) -> Trial:
    draw = Random(number)
    choices = grammar.sample(draw)
    trial = Trial(number, Kind.CANDIDATE, "", "", 0, choices=choices)
    if draw.random() < 0.2:
        return Trial(number, Kind.CANDIDATE, "", "", 0, choices=choices, state=TrialState.INFEASIBLE)
    loss = draw.lognormvariate(0, 1)
    return result(Trial(number, trial.kind, "", "", 0, choices=choices), loss)


def grown(sampler: Sampler, grammar: Grammar, begin: int, end: int) -> tuple[float, float]:
    """Milliseconds a tell and an ask, from `begin` told trials on to `end`."""
    trials = [made_up(number, grammar) for number in range(begin, end)]
    start = time.perf_counter()
    for trial in trials[:-ASKED]:
        sampler.tell(observation_of(trial, image_task().objective))
    told = time.perf_counter() - start
    asked = 0.0
    for trial in trials[-ASKED:]:
        start = time.perf_counter()
        sampler.ask(trial.number)
        asked += time.perf_counter() - start
        sampler.tell(observation_of(trial, image_task().objective))
    return 1000 * told / max(1, len(trials) - ASKED), 1000 * asked / ASKED


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--told", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--samplers", nargs="+", default=["random", "rnn", "optuna:tpe", "optuna:nsgaii"])
    arguments = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "optuna"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}\n")
    print(f"| {' | '.join(NAMES.split(', '))} |\n|{'---|' * len(NAMES.split(', '))}", flush=True)
    torch.set_num_threads(1)
    grammar, process = space("swish2017", 2), psutil.Process()
    for name in arguments.samplers:
        sampler = make_sampler(name, grammar, seed=0)
        before, begin = process.memory_info().rss, 0
        for end in sorted(arguments.told):
            tell, ask = grown(sampler, grammar, begin, end)
            begin, more = end, (process.memory_info().rss - before) / 2**20
            print(f"| {name} | {end:,} | {tell:.3f} | {ask:.2f} | {more:.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
