"""Children that do their worst: mathematics that fails, memory that is not given back."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from itertools import product
from pathlib import Path

import psutil
import pytest
import torch

from search_space import parse
from search_space.normal_form import key
from searcher.driver import leases, session
from searcher.records import Kind, StudyKind, Trial, TrialState
from searcher.reports import report
from searcher.settings.config import Config
from searcher.settings.plan import study_task
from searcher.store.store import Store
from tests.support import harness
from tests.support.made import measures
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool
from workers.pools.ray_actors import JOBS_PER_ACTOR, RayPool
from workers.tasks.images import train
from workers.tasks.images.config import DECLARATION, Recipe

pytestmark = pytest.mark.slow

# Poles at 0 and elsewhere, overflow, undefined regions, infinite or undefined slopes, slopes of zero, constants, and
# these with a parameter; alone, and inside of what hides, squares or weighs them.
SEEDS = (
    "1 / x", "x / (x - 1)", "1 / (x^2 - 1)", "1 / sin(x)", "x / tanh(x)", "1 / (exp(x) - 1)", "1 / (x + beta)",
    "exp(exp(x))", "exp(x^2)", "x^9 * exp(x)", "sinh(9 * x)", "cosh(x)^4", "exp(exp(exp(x)))", "exp(88 + x^2)",
    "log(x)", "sqrt(x)", "asinh(x) / x", "log(abs(x))", "log(log(x))", "sqrt(-abs(x))", "x^0.5", "abs(x)^0.5", "x^-0.5",
    "sign(x)", "heaviside(x)", "0 * x", "3", "beta", "min(max(x, 0), 0)", "x - x", "x / x", "1e30 * x", "1e-30 * x",
    "x^31", "1e38 * x * 1e38", "erf(x) / 0", "beta / 0 * x",
)  # fmt: skip
AROUND = ("{}", "{} * x", "max({}, x)", "tanh({})", "sin({})", "x - {}")
TINY = Config.of(sampler="random", pool="inline", limit_train=122, width=2, recipe=Recipe(epochs=1, batch_size=2))


def pathological() -> list[str]:
    texts = (form.format(f"({seed})") for seed, form in product(SEEDS, AROUND))
    return list(dict.fromkeys(str(parse(text)) for text in texts))


@pytest.fixture
def steps_after(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each child that has had a loss that was not finite: the steps that were trained after it."""
    counts: list[int] = []
    ordinary, begin = train._Child._step, train._Child.__init__

    def step(child: train._Child, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = ordinary(child, images, labels)
        if counts and counts[-1] >= 0:
            counts[-1] += 1
        elif not math.isfinite(float(loss)):
            counts[-1] = 0
        return loss

    def fresh(child: train._Child, *arguments: object) -> None:
        counts.append(-1)
        begin(child, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(train._Child, "_step", step)
    monkeypatch.setattr(train._Child, "__init__", fresh)
    return counts


def refused(constant: str) -> None:
    raise AssertionError(f"{constant} in JSON")


def test_two_hundred_functions_that_should_not_be_trained(sqlite_url: str, steps_after: list[int]) -> None:
    """Seen to fail with the losses checked at the ends of epochs only (`steps_after`), and with a reason left out."""
    texts = pathological()
    assert len(texts) >= 200
    trials = [Trial(n, Kind.BASELINE, text, key(parse(text)), 0, name="own") for n, text in enumerate(texts)]
    store = Store(sqlite_url, create=True)
    settings = TINY.replace(study_name="s", n_trials=len(trials))
    task = study_task(settings, DECLARATION)
    study = store.create_study("s", StudyKind.SEARCH, len(trials), [task], settings.to_dict(), {}, trials)
    pool = InlinePool(1)
    try:
        with leases.held_lease(store, study) as lease:
            list(session.search(store, lease, study, settings, pool, lambda: False))
    finally:
        pool.close()
    ended = store.trials(study)
    counts = Counter(trial.state for trial in ended)
    assert set(counts) == {TrialState.COMPLETE, TrialState.INFEASIBLE}, counts
    assert counts[TrialState.INFEASIBLE] > 50
    assert all(trial.reason for trial in ended if trial.state is TrialState.INFEASIBLE)
    assert 0 <= max(steps_after) < 50
    for trial in ended:
        for point in store.curve(study, trial.number):
            assert all(
                map(math.isfinite, (point.metrics["train_loss"], point.metrics["val_loss"], point.metrics["val_acc"]))
            )
    board = store.leaderboard(study)
    losses = [row["val_loss"] for row in board]
    assert losses == sorted(losses) and all(map(math.isfinite, losses))
    rows = report.trial_rows(store, study)
    json.loads("".join(report.as_json(rows)), parse_constant=refused)
    words = {cell.lower() for row in csv.reader(io.StringIO("".join(report.as_csv(rows)))) for cell in row}
    assert not words & {"nan", "inf", "-inf", "infinity"}
    store.close()


def own_bytes() -> int:
    """Of this process's memory, what it shares with no other: code of libraries comes and goes."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def test_the_memory_of_a_driver_is_flat(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Driver and worker are one process here. Seen to fail with 1 MB kept of each trial in `Search._record_end`."""
    monkeypatch.setattr(harness, "CHILD_SECONDS", 0.0)
    study = harness.make_study(sqlite_url, tmp_path, n_trials=700)
    store, pool = Store(sqlite_url), InlinePool(run=harness.child)
    settings = session.stored_settings(study, None, {})
    with leases.held_lease(store, study) as lease:
        searching = session.search(store, lease, study, settings, pool, lambda: False)
        sizes = [own_bytes() for progress in searching if progress.done > 200]
    pool.close()
    store.close()
    assert len(sizes) > 300 and max(sizes) - sizes[0] <= 50 << 20


KEPT: list[bytes] = []  # of the module in the worker's process
MIB = 1 << 20


def leaking_child(job: Job) -> Outcome:
    """Keeps 5 MiB each time; comes to the size of its process, in MiB."""
    KEPT.append(b"x" * (5 * MIB))
    return Outcome(Verdict.COMPLETE, metrics=measures(1.0, 0.5), parameters=own_bytes() // MIB)


def test_a_worker_whose_children_leak_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 of them would leave 2.5 GB. Seen to fail with `Worker._leaks` false."""
    monkeypatch.setenv("PYTHONPATH", str(harness.ROOT))
    pool = RayPool(1, 0, "local", 1, run=leaking_child, leak_bytes=30 * MIB)
    outcomes: list[Outcome] = []
    try:
        for number in range(0, 20, JOBS_PER_ACTOR):
            pool.submit(*(Job(number + n, "x") for n in range(JOBS_PER_ACTOR)))
            while len(outcomes) < number + JOBS_PER_ACTOR:
                outcomes += [outcome for _, outcome in pool.wait(10.0)]
    finally:
        pool.close()
    assert all(outcome.verdict is Verdict.COMPLETE for outcome in outcomes)
    sizes = [outcome.parameters or 0 for outcome in outcomes]
    assert max(sizes) - min(sizes) <= 50
    assert 2 <= len({outcome.worker for outcome in outcomes}) <= 4, "each keeps 35 MiB at most"
