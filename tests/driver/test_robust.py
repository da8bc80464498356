"""What goes wrong in a worker: the same bits whatever was before, memory, the GPU, hangs, a user's bad code."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from search_space import space
from searcher.driver import leases, session
from searcher.records import Trial, TrialState
from searcher.settings.config import Config
from searcher.store.store import Store
from tests.support import ROOT, made, pools
from tests.support.commands import Cli
from tests.support.made import changed, image_job, measures
from tests.support.pools import PATIENCE, QUICK, Desk, act, collect, emptied, eventually, gone, untimed
from workers.contract import Health, Job, Outcome, Verdict, WorkersError
from workers.pools.base import InlinePool, guarded
from workers.tasks.images.config import Recipe
from workers.tasks.images.recipes import RECIPES

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

WORKER = """
import json, sys, psutil
from workers.pools.base import evaluate
from workers.pools.ray_actors import Worker
worker, process = Worker(int(sys.argv[1]), evaluate), psutil.Process()
for job in sys.stdin:
    [outcome] = worker.run(job)
    print(json.dumps([outcome, process.memory_info().rss]))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def in_one_worker(jobs: list[Job], threads: int = 1) -> list[tuple[Outcome, int]]:
    """What a worker in a process of its own makes of the jobs, one after the other, and its bytes after each."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(threads)],
        input="".join(f"{job.to_json()}\n" for job in jobs),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [(Outcome.from_json(outcome), size) for outcome, size in found]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.gate.touch()  # no job of a failed test goes on


# The same bits

SMALL = changed(QUICK, width=4, limit_train=300)
AUGMENTED = Recipe(epochs=1, crop=1, flip=True, cutout=3, label_smoothing=0.1, clip_norm=1.0)
JOBS = [
    changed(SMALL, number=1, expression="x * sigmoid(beta * x)", recipe=AUGMENTED),
    changed(SMALL, number=2, recipe=replace(RECIPES["onecycle"], epochs=1, batch_size=50)),
    changed(SMALL, number=3, expression="maxout", recipe=Recipe(epochs=1, schedule="cosine", precision="bfloat16")),
    changed(SMALL, number=4, model="lecture", model_kwargs={"pooling": "stochastic"}),  # draws from torch
]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_gives_the_same_bits_in_any_process_and_after_any_others(threads: int) -> None:
    jobs = JOBS[: 4 // threads]  # two threads take turns with whatever else runs here, which is slow
    other = changed(QUICK, expression="x * tanh(x)", seed=7)
    first = in_one_worker(jobs, threads)
    second = in_one_worker([other, *reversed(jobs)], threads)[:0:-1]
    assert all(outcome.verdict is Verdict.COMPLETE for outcome, _ in first)
    assert [untimed(outcome) for outcome, _ in first] == [untimed(outcome) for outcome, _ in second]


# Memory


def test_three_hundred_children_leave_nothing_in_their_worker() -> None:
    """A list in workers/tasks/images/train.py that keeps each child, say, is seen."""
    grammar, draw = space("swish2017", 1), Random(0)
    expressions: dict[str, None] = {}
    while len(expressions) < 300:
        expressions[str(grammar.decode(grammar.sample(draw)))] = None
    tiny = image_job(0, "x", limit_train=20, width=2, recipe=Recipe(steps=1, batch_size=10))
    sizes = [size for _, size in in_one_worker([replace(tiny, expression=text) for text in expressions])]
    assert len(sizes) == 300
    grown = statistics.median(sizes[-50:]) - statistics.median(sizes[50:100])
    # 5 MB are caches of what was worked out about expressions, of limited sizes; a kept child each would be 35 MB.
    assert grown < 15e6, f"{grown / 1e6:.1f} MB in 225 children"


def raises(error: BaseException) -> Callable[[Job], Outcome]:
    def run(job: Job) -> Outcome:
        raise error

    return run


def wrapped(job: Job) -> Outcome:
    """As the trial of a user's network on two images has it."""
    try:
        torch.empty(10**15)
    except RuntimeError as error:
        raise WorkersError("model 'm:Net' fails on two 1x8x8 images") from error
    raise AssertionError


TORCH_S = "out of memory: DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000000 bytes."
CUDA_S = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
NUMPY_S = "out of memory: Unable to allocate 909. TiB for an array with shape (1000000000000000,)"


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda _: torch.empty(10**15), TORCH_S),
        (wrapped, TORCH_S),
        (lambda _: np.ones(10**15, np.uint8), NUMPY_S),
        (lambda _: bytearray(10**15), "out of memory: MemoryError"),
        (raises(torch.OutOfMemoryError(CUDA_S)), f"out of memory: {CUDA_S}"),
        (raises(torch.AcceleratorError("CUDA error: out of memory\nCompile with")), "out of memory: CUDA error: out"),
        (raises(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when")), "out of memory: CUDA error: CUBLAS"),
        (raises(OSError(12, "Cannot allocate memory")), "out of memory: [Errno 12]"),
    ],
)
def test_a_child_out_of_memory_says_what_it_asked_for(run: Any, reason: str) -> None:
    outcome = guarded(run, QUICK)
    assert outcome.verdict is Verdict.FAILED and outcome.reason.startswith(reason)
    assert "\n  File " in outcome.reason, "with where it was"
    assert outcome.health is Health.SPENT
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_what_is_raised_from_itself_is_a_failure_like_any_other() -> None:
    """Seen to fail: the chain of causes had no end."""

    def run(_: Job) -> Outcome:
        error = ValueError("again")
        raise error from error

    assert guarded(run, QUICK).reason.startswith("ValueError: again\n")


@pytest.mark.parametrize(
    ("error", "health"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), Health.LOST),
        (RuntimeError("CUDA error: device-side assert triggered"), Health.LOST),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), Health.LOST),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), Health.SOUND),
        (ValueError("images are out of memory"), Health.SOUND),
        (FileNotFoundError(2, "No such file"), Health.SOUND),
        (SystemExit(3), Health.SOUND),
    ],
)
def test_what_an_exception_says_of_the_process(error: BaseException, health: Health) -> None:
    outcome = guarded(raises(error), QUICK)
    assert outcome.verdict is Verdict.FAILED and outcome.health is health
    assert outcome.reason.startswith(f"{type(error).__name__}: {error}\n  File ")


# Workers of Ray


def mishap(job: Job) -> Outcome:
    """What `act` does, and more that can go wrong."""
    outcome = act(job)
    if job.expression == "memory":
        torch.empty(10**15)
    if job.expression == "gpu":
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    return outcome


@pytest.fixture(scope="class")
def ray_pool() -> Iterator[Any]:
    from ray import cloudpickle

    from workers.pools.ray_actors import RayPool

    for module in (sys.modules[__name__], pools, made):
        cloudpickle.register_pickle_by_value(module)  # workers cannot import a test
    pool = RayPool(workers=2, threads=1, run=mishap)
    yield pool
    pool.close()


class TestRayPool:
    @pytest.fixture
    def pool(self, ray_pool: Any, desk: Desk) -> Iterator[Any]:
        while not all(actor.ready for actor in ray_pool._actors):
            assert not ray_pool.wait(1)  # actors that start get no jobs, and these tests say who gets which
        yield from emptied(ray_pool, desk)

    @pytest.mark.parametrize("paired", [False, True], ids=["behind", "same call"])
    @pytest.mark.parametrize(("action", "reason"), [("memory", "out of memory: "), ("gpu", "AcceleratorError: CUDA")])
    def test_what_spoils_its_process_ends_it_and_nothing_else(
        self,
        pool: Any,
        desk: Desk,
        action: str,
        reason: str,
        paired: bool,
    ) -> None:
        before = {process(o) for o in collect_all(pool, [desk.job("sleep 0.05") for _ in range(4)]).values()}
        assert len(before) == 2
        for actor in pool._actors:
            actor.quick = paired
        pool._pairs = True
        bad, *good = jobs = [desk.job(action), *(desk.job("sleep 0.05") for _ in range(3))]
        pool.submit(*jobs)
        assert {len(jobs) for actor in pool._actors for _, jobs in actor.calls} == {1 + paired}
        found = collect(pool, 4)
        assert found[bad].verdict is Verdict.FAILED and found[bad].reason.startswith(reason)
        assert all(found[job].verdict is Verdict.COMPLETE for job in good)
        assert all(len(desk.processes(job)) == 1 for job in jobs), "nothing is run twice"
        [spoiled] = desk.processes(bad)
        assert spoiled in before and spoiled not in {process(found[job]) for job in good}
        assert eventually(lambda: gone(spoiled))
        assert before - {spoiled} <= {process(found[job]) for job in good}, "the other worker goes on"

    def test_a_worker_that_ray_kills_for_memory_is_replaced(
        self,
        pool: Any,
        desk: Desk,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its exception is not that of a dead actor."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError

        said, get = "1 worker(s) were killed due to the node running low on memory. It had 23 GB.\nMore", ray.get

        def told(ref: object) -> object:
            try:
                return get(ref)
            except RayActorError:
                raise OutOfMemoryError(said) from None

        monkeypatch.setattr(ray, "get", told)
        bad, good = desk.job("die"), [desk.job("sleep 0") for _ in range(7)]
        found = collect_all(pool, [bad, *good])
        assert found[bad].verdict is Verdict.FAILED
        assert found[bad].reason == f"out of memory: Ray killed the worker process ({said.splitlines()[0]})"
        assert all(found[job].verdict is Verdict.COMPLETE for job in good)

    def test_a_worker_that_is_killed_may_have_been_for_memory(self, pool: Any, desk: Desk) -> None:
        pool.submit(desk.job("die"))
        [outcome] = collect(pool, 1).values()
        assert outcome.reason in (
            "the worker process died: killed, perhaps by the system for want of memory, or crashed",
            "the worker process died or is out of reach: its connection has ended",  # Ray was too busy to see it die
        )


def collect_all(pool: Any, jobs: list[Job]) -> dict[Job, Outcome]:
    found: dict[Job, Outcome] = {}
    for start in range(0, len(jobs), pool.capacity):
        some = jobs[start : start + pool.capacity]
        pool.submit(*some)
        found |= collect(pool, len(some))
    return found


def process(outcome: Outcome) -> int:
    return int(outcome.worker.rpartition(":")[2])


# The worker in this process


def test_memory_is_no_reason_to_end_the_worker_in_this_process(desk: Desk) -> None:
    pool = InlinePool(run=mishap)
    for action, verdict in (("memory", Verdict.FAILED), ("sleep 0", Verdict.COMPLETE)):
        pool.submit(desk.job(action))
        [outcome] = collect(pool, 1).values()
        assert outcome.verdict is verdict
    pool.close()


def test_a_lost_gpu_ends_the_worker_in_this_process(desk: Desk) -> None:
    pool = InlinePool(run=mishap)
    pool.submit(bad := desk.job("gpu"))
    assert collect(pool, 1)[bad].verdict is Verdict.FAILED
    with pytest.raises(
        WorkersError, match=rf"^trial {bad.number} \(gpu\) .*: AcceleratorError: CUDA error: an illegal"
    ):
        pool.submit(desk.job("sleep 0"))
    pool.submit()
    assert pool.wait(0.1) == []
    pool.close()


def test_a_search_that_loses_its_gpu_keeps_count_and_can_go_on(sqlite_url: str) -> None:
    """A trial that does it each time is given up like any other."""
    settings = Config.of(sampler="random", n_trials=8, baselines=("relu", "swish"), pool="inline", max_retries=1)
    with closing(Store(sqlite_url, create=True)) as store:
        study = session.create_study(store, settings)

        def run(job: Job) -> Outcome:
            if job.number == 3:
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            return Outcome(Verdict.COMPLETE, metrics=measures(1.0, 0.5))

        def once() -> list[Trial]:
            pool = InlinePool(run=run)
            try:
                with leases.held_lease(store, study) as lease:
                    list(session.search(store, lease, study, settings, pool, lambda: False))
            finally:
                pool.close()
            return store.trials(study)

        for state in (TrialState.WAITING, TrialState.FAILED):
            with pytest.raises(WorkersError, match=r"trial 3 .* unable to train"):
                once()
            trial = store.trials(study)[3]
            assert (trial.state, trial.retries) == (state, 1) and "illegal memory access" in trial.reason
        assert [trial.state is TrialState.FAILED for trial in once()] == [number == 3 for number in range(8)]


# A user's network, from the command line to the table

NETWORK = '''
import ctypes, sys, time
import torch
from torch import nn

class Net(nn.Module):
    """Does badly with some functions."""

    def __init__(self, activation, in_channels, classes):
        super().__init__()
        self.expression = str(activation.expression)
        self.conv, self.act = nn.Conv2d(in_channels, 4, 3), activation(4)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        if self.expression == "cos(x)":
            torch.empty(10**15)
        if self.training:
            self.misbehave()
        return self.head(self.act(self.conv(x)).mean((2, 3)))

    def misbehave(self):
        if self.expression == "sin(x)":
            raise ValueError("no sines here")
        if self.expression == "sinh(x)":
            sys.exit("no reason")
        if self.expression == "tanh(x)":
            while True:
                time.sleep(0.01)
        if self.expression == "atan(x)":
            ctypes.PyDLL(None).sleep(600)  # in C, and no other thread of Python runs meanwhile

class AlwaysBad(Net):
    def misbehave(self):
        raise ValueError("no trainings here")
'''
FLAGS = ("--study-name", "s", "--sampler", "random", "--epochs", "1", "--threads", "1", "--max-retries", "0", "-q")


def launched(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A search in a process of its own, by a network in the current directory."""
    (folder / "rogue.py").write_text(NETWORK)
    command = [sys.executable, "-m", "cli", "launch", *FLAGS, "--model", "rogue:Net", *flags]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)


def reasons(folder: Path) -> dict[str, str]:
    """Of the failed, by expression; all of the study's trials have ended."""
    with closing(Store(f"sqlite:///{folder}/searcher.db")) as store:
        trials = store.trials(store.study("s"))
    assert all(trial.state.finished for trial in trials)
    assert {trial.number for trial in trials if trial.state is TrialState.COMPLETE} >= {0}
    return {trial.expression: trial.reason for trial in trials if trial.state is TrialState.FAILED}


def test_with_ray_a_search_survives_whatever_a_network_does(tmp_path: Path) -> None:
    baselines = "relu,sin(x),cos(x),sinh(x),tanh(x),atan(x),erf(x),abs(x)"
    done = launched(
        tmp_path,
        "--pool",
        "ray",
        "--workers",
        "2",
        "--trial-timeout",
        "5",
        "--limit-train",
        "100",
        "--baselines",
        baselines,
        "--n-trials",
        "16",
    )
    assert done.returncode == 0, done.stderr
    found = reasons(tmp_path)
    assert set(found) == {"sin(x)", "cos(x)", "sinh(x)", "tanh(x)", "atan(x)"}
    assert found["sin(x)"].startswith("ValueError: no sines here\n") and "in misbehave" in found["sin(x)"]
    assert found["cos(x)"].startswith(TORCH_S)
    assert found["sinh(x)"].startswith("SystemExit: no reason\n")
    assert found["tanh(x)"] == found["atan(x)"] == "timed out after 5 s and was killed"


def test_in_one_process_a_search_goes_on_after_what_raises(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "rogue.py").write_text(NETWORK)
    flags = ("--pool", "inline", "--model", "rogue:Net", "--baselines", "relu,sin(x),cos(x),sinh(x)", "--n-trials", "8")
    done = cli("launch", *FLAGS, *flags)
    assert done.returncode == 0, done.stderr
    found = reasons(tmp_path)
    assert set(found) == {"sin(x)", "cos(x)", "sinh(x)"}
    assert "in misbehave" in cli("trial", "s", "1").stdout, "the trial's card has the traceback"


def test_a_network_that_never_trains_ends_the_search(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "rogue.py").write_text(NETWORK)
    done = cli("launch", *FLAGS, "--pool", "inline", "--model", "rogue:AlwaysBad", "--n-trials", "20")
    assert done.returncode == 1
    assert (
        "all failed, in the same way: ValueError: no trainings here; see: searcher trial s 0. They run again"
        in done.stderr
    )


def test_in_one_process_a_hang_ends_the_search_which_can_go_on(tmp_path: Path, cli: Cli) -> None:
    started = time.monotonic()
    flags = ("--baselines", "relu,tanh(x),abs(x)", "--n-trials", "6", "--limit-train", "100")
    done = launched(tmp_path, "--pool", "inline", "--trial-timeout", "3", *flags)
    assert time.monotonic() - started < 2 * 3 + 3 + PATIENCE, "the thread that hangs does not keep the process"
    assert done.returncode == 1, done.stderr
    assert "searcher: trial 1 (tanh(x)) has left this process unable to train: timed out after 3 s" in done.stderr
    assert "Go on with: searcher resume s" in done.stderr and "Traceback" not in done.stderr
    resumed = cli("resume", "s", "-q")
    assert resumed.returncode == 0, resumed.stderr
    assert reasons(tmp_path) == {"tanh(x)": "timed out after 3 s and hangs"}
