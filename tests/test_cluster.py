"""A search on a cluster: a real Ray head with its job server on loopback, token authentication on, and PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from searcher.store import Store
from searcher.trial import TrialState
from workers.ray_pool import RayPool, RayUnavailable

from .conftest import ROOT

RAY = Path(sysconfig.get_path("scripts")) / "ray"


@dataclass(frozen=True)
class Cluster:
    """Where it listens, and the environment of whoever holds its token."""

    address: str
    job_server: str
    environment: Mapping[str, str]

    def submit(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run(RAY, "job", "submit", "--address", self.job_server, "--", *command, **environment)

    def searcher(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(sys.executable, "-m", "cli", *arguments)

    def _run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**self.environment, **environment}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A Ray head that is this test run's own: its ports, its directory, its token, its process group."""
    directory = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    token = directory / "token"
    token.write_text("f00d" * 16)
    gcs, jobs, client, agent = _free_ports(4)
    environment = {
        **_environment(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = f"start --head --block --num-cpus 2 --num-gpus 0 --port {gcs} --temp-dir {directory}/r".split()
    command += f"--include-dashboard true --dashboard-host 127.0.0.1 --dashboard-port {jobs}".split()
    command += f"--ray-client-server-port {client} --dashboard-agent-listen-port {agent}".split()
    log = directory / "log"
    with log.open("w") as output:
        head = subprocess.Popen(
            [RAY, *command, "--object-store-memory", "100000000"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        ready = Cluster(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{jobs}", environment)
        end = time.monotonic() + 90
        while _status(ready, token.read_text()) != 200:
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield ready
    finally:
        _end(head)
        shutil.rmtree(directory, ignore_errors=True)


def _environment() -> dict[str, str]:
    """This process's, without what may be set there for another cluster or database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SEARCHER_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [server.getsockname()[1] for server in held]


def _status(cluster: Cluster, token: str) -> int:
    """What the job server says to that token; 0 if it does not answer."""
    request = urllib.request.Request(f"{cluster.job_server}/api/version")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def _end(head: subprocess.Popen[bytes]) -> None:
    """Ends the head with everything that it started; Ray's workers have process groups of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(head.pid).children(recursive=True)
        head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(started, timeout=5)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=5)
    head.wait(5)


def _assert_complete(url: str, name: str, n_trials: int) -> None:
    store = Store(url)
    try:
        (summary,) = [summary for summary in store.studies() if summary.study.name == name]
        trials = store.trials(summary.study)
    finally:
        store.close()
    assert [trial.number for trial in trials] == list(range(n_trials))
    assert all(trial.state.finished for trial in trials)
    assert any(trial.state is TrialState.COMPLETE for trial in trials)
    assert summary.holder == ""


def test_a_ray_job_and_a_driver_outside_search_at_the_same_time(cluster: Cluster, postgresql_url: str) -> None:
    small = f"--n-trials 6 --sampler random --epochs 1 --workers 1 --storage {postgresql_url}".split()
    job = (sys.executable, "-m", "cli", "launch", "--address", "auto", "--study-name", "job", *small)
    outside = ("launch", "--address", cluster.address, "--study-name", "outside", *small)
    with ThreadPoolExecutor(2) as both:
        ends = both.submit(cluster.submit, *job), both.submit(cluster.searcher, *outside)
    for name, end in zip(("job", "outside"), ends, strict=True):
        done = end.result()
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Best by val_loss" in done.stdout
        _assert_complete(postgresql_url, name, 6)


def test_whoever_has_not_the_token_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    assert _status(cluster, "") == 401
    assert _status(cluster, "beef" * 16) == 403
    wrong = tmp_path / "token"
    wrong.write_text("beef" * 16)
    mark = tmp_path / "mark"
    job = cluster.submit("touch", str(mark), RAY_AUTH_TOKEN_PATH=str(wrong))
    assert job.returncode == 1
    assert "token" in job.stderr
    assert not mark.exists()


def test_gpus_that_a_cluster_has_not_are_missed_before_anything_is_written(cluster: Cluster, tmp_path: Path) -> None:
    database = tmp_path / "searcher.db"
    where = ("--address", cluster.address, "--storage", f"sqlite:///{database}")
    asked = cluster.searcher("launch", "--gpus-per-worker", "0.5", *where)
    assert asked.returncode == 1
    assert asked.stderr.startswith("searcher: 0.5 GPUs a worker were asked for, this Ray cluster has 0;")
    assert not database.exists()


def test_a_closed_port_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(RayUnavailable, match=f"no Ray cluster answers at '{address}'"):
        RayPool(address=address)


def test_a_port_that_says_nothing_is_given_up() -> None:
    """In a process of its own, because the thread that Ray waits in cannot be ended."""
    give_up = "import sys; from workers import ray_pool as p; p.CONNECT_SECONDS = 2.0; p.RayPool(address=sys.argv[1])"
    with socket.create_server(("", 0)) as server:  # Ray looks for it at this machine's address, not on loopback
        address = f"127.0.0.1:{server.getsockname()[1]}"
        given_up = subprocess.run(
            [sys.executable, "-c", give_up, address],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert given_up.returncode == 1
    assert f"RayUnavailable: no Ray cluster answered at '{address}' within 2 s" in given_up.stderr.splitlines()[-1]
