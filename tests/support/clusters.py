"""Real Ray clusters that are a test's own: their ports, their directories, their token, their process groups."""

from __future__ import annotations

import contextlib
import os
import random
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support import ROOT

RAY = Path(sysconfig.get_path("scripts")) / "ray"


class Node:
    """A head, or a node that joins one: `ray start --block` and all that it starts."""

    def __init__(self, directory: Path, environment: Mapping[str, str], command: str) -> None:
        self._log = directory / f"log-{len(list(directory.glob('log-*')))}"
        with self._log.open("w") as output:
            self.process = subprocess.Popen(
                [RAY, *command.split(), "--block", "--object-store-memory", "100000000"],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, is_up: Callable[[], bool], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not is_up():
            assert self.process.poll() is None and time.monotonic() < end, self._log.read_text()
            time.sleep(0.1)

    def up(self) -> bool:
        return "Ray runtime started" in self._log.read_text()

    def started(self) -> list[psutil.Process]:
        """What it has started; Ray's workers have process groups of their own."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        """SIGKILL for all of it, as when its machine is lost; workers first, so that the head is not missed before."""
        processes = self.started()
        self.process.kill()
        _kill(processes[::-1])
        self.process.wait(5)

    def end(self) -> None:
        processes = self.started()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        _kill(psutil.wait_procs(processes, timeout=5)[1])
        self.process.wait(5)


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


@dataclass(frozen=True)
class Cluster:
    """Where it listens, and the environment of whoever holds its token."""

    directory: Path
    address: str
    job_server: str
    environment: Mapping[str, str]
    head: Node
    others: list[Node] = field(default_factory=list)

    @property
    def token(self) -> str:
        return Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()

    def join(self, options: str, without: str = "") -> Node:
        """Another node, on this machine too, from when it is up; `without` is taken out of its environment."""
        directory = f"{self.directory}/n{len(self.others)}"
        (agent,) = free_ports(1)
        ports = f"--dashboard-agent-listen-port {agent} --temp-dir {directory}"
        environment = {name: value for name, value in self.environment.items() if name != without}
        node = Node(self.directory, environment, f"start --address {self.address} {ports} {options}")
        self.others.append(node)
        node.wait_until(node.up)
        return node

    @contextlib.contextmanager
    def driver(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """`python ARGUMENTS`, which ends with the block at the latest."""
        with subprocess.Popen(
            [sys.executable, *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def submit(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run(RAY, "job", "submit", "--address", self.job_server, "--", *command, **environment)

    def searcher(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run(sys.executable, "-m", "cli", *arguments, **environment)

    def _run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {**self.environment, **environment}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@contextlib.contextmanager
def running_cluster(options: str = "--num-cpus 2", jobs: bool = False, **environment: str) -> Iterator[Cluster]:
    """A head, and what joins it; with its job server or without.

    `environment` is added to that of Ray's processes and of whoever holds the token.
    """
    directory = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: a socket's path has at most 107 bytes
    token = directory / "token"
    token.write_text("f00d" * 16)
    gcs, server, client, agent = free_ports(4)
    env = {
        **plain_environment(),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",  # where jobs find `searcher`
        **environment,
    }
    command = f"start --head --num-gpus 0 --port {gcs} --temp-dir {directory}/r {options}"
    command += f" --include-dashboard {jobs} --dashboard-host 127.0.0.1 --dashboard-port {server}"
    command += f" --ray-client-server-port {client} --dashboard-agent-listen-port {agent}"
    head = Node(directory, env, command)
    cluster = Cluster(directory, f"127.0.0.1:{gcs}", f"http://127.0.0.1:{server}", env, head)
    try:
        head.wait_until(lambda: head.up() and (not jobs or http_status(cluster, cluster.token) == 200))
        yield cluster
    finally:
        for node in (*cluster.others, head):
            node.end()
        shutil.rmtree(directory, ignore_errors=True)


def plain_environment() -> dict[str, str]:
    """This process's, without what may be set there for another cluster or database."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SEARCHER_", "PG"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def free_ports(n: int) -> list[int]:
    """Below those that the system, and Ray, give out by themselves; another process of the tests looks elsewhere."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + 1_000 * (worker % 8)
    found: list[int] = []
    for port in random.sample(range(first, first + 1_000), 1_000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == n:
            return found
    raise RuntimeError("no free ports")


def http_status(cluster: Cluster, token: str) -> int:
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
