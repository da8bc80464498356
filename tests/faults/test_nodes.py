"""Nodes of a real Ray cluster are lost, and the whole cluster: nothing is lost with them, nothing is there twice."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from searcher.records import TrialState
from searcher.store.store import Store
from tests.support import harness
from tests.support.clusters import Cluster, Node, running_cluster
from tests.support.commands import Cli

pytestmark = pytest.mark.slow

DRIVER = """
import sys, time
from pathlib import Path
from tests.support import harness
from workers.pools.ray_actors import RayPool

def child(job):
    if not Path(job.data_dir, "hurry").exists():
        time.sleep(0.8)
    return harness.child(job)

pool = RayPool(3, 0, sys.argv[3], 1, run=child)
try:
    harness.drive(sys.argv[1], sys.argv[2], pool)
finally:
    pool.close()
"""
TRIALS, FEW = 150, 30


def until(holds: Callable[[], object], driver: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if driver.poll() is not None or time.monotonic() > end:
            driver.kill()
            raise AssertionError(driver.communicate())
        time.sleep(0.02)


def at_work(node: Node, directory: Path) -> set[int]:
    """The node's processes that have begun trials."""
    return {process.pid for process in node.started()} & {pid for _, pid in harness.runs(directory)}


def test_a_node_that_is_lost_and_comes_back(postgresql_url: str, tmp_path: Path) -> None:
    """Seen to fail with the job of an actor that died dropped in `RayPool._replace_dead`."""
    study = harness.make_study(postgresql_url, tmp_path, n_trials=TRIALS)
    observer = harness.Observer(postgresql_url, study)
    begun = time.monotonic()
    with running_cluster("--num-cpus 1") as cluster:
        node = cluster.join("--num-cpus 2")
        with cluster.driver("-c", DRIVER, postgresql_url, study.name, cluster.address) as driver:
            until(lambda: at_work(cluster.head, tmp_path) and len(at_work(node, tmp_path)) == 2, driver)
            node.kill()
            before = len(harness.runs(tmp_path))
            until(lambda: len(harness.runs(tmp_path)) > before + 5, driver)  # on the other node
            again = cluster.join("--num-cpus 2")
            until(lambda: at_work(again, tmp_path), driver)
            (tmp_path / "hurry").touch()
            _, said = driver.communicate(timeout=300)
            assert driver.returncode == 0, said
    observer.close()
    seconds = time.monotonic() - begun
    found = harness.judged("a node lost", postgresql_url, study, tmp_path, 2, observer.changed, seconds)
    assert found.trials == TRIALS
    assert found.holds, found


LAUNCH = "from workers.pools import ray_cluster; ray_cluster.SILENT_SECONDS = 4.0; import cli; cli.main()"


def launched(cluster: Cluster, url: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A driver that gives its cluster up sooner than others."""
    flags = f"--study-name s --n-trials {FEW} --sampler random --epochs 1 --width 4 --limit-train 300"
    flags += " --baselines relu --workers 2"
    return cluster.driver("-c", LAUNCH, "launch", *flags.split(), "--address", cluster.address, "--storage", url)


def test_a_cluster_that_goes_away(sqlite_url: str, tmp_path: Path, cli: Cli) -> None:
    """Seen to fail with `ClusterMonitor.answers` always true: the process ends after 60 s with Ray's message only."""
    Store(sqlite_url, create=True).close()
    store = Store(sqlite_url)

    def finished() -> int:
        return sum(trial.state.finished for summary in store.studies() for trial in store.trials(summary.study))

    with running_cluster("--num-cpus 2") as cluster, launched(cluster, sqlite_url) as driver:
        until(lambda: finished() >= 2, driver)
        cluster.head.kill()
        killed = time.monotonic()
        _, said = driver.communicate(timeout=300)
        assert time.monotonic() - killed < 45, "4 s of silence, 5 s until Ray has shut down; it would end this at 60 s"
        assert driver.returncode == 1
        assert f"\nsearcher: the Ray cluster at '{cluster.address}' has gone (no answer for" in said
        assert "Go on with: searcher resume s" in said and "Traceback" not in said
    trials = store.trials(store.study("s"))
    assert not any(trial.state in (TrialState.RUNNING, TrialState.FAILED) for trial in trials), "ready to resume"
    assert not any(trial.retries for trial in trials), "what the cluster has lost is no fault of the function"
    done = cli("resume", "s", "--storage", sqlite_url, "--pool", "inline", "--address", "local")
    assert done.returncode == 0, done.stderr
    trials = store.trials(store.study("s"))
    assert [trial.number for trial in trials] == list(range(FEW))
    assert all(trial.state.finished for trial in trials)
    store.close()
