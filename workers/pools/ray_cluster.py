"""Join a Ray cluster or start one on this machine, and watch whether it still answers.

This module and `workers/pools/ray_actors.py` set every option that Ray would choose by itself; docs/cluster.md explains
each choice.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray

from workers.pools import ray_local
from workers.pools.ray_local import RayUnavailable, short_message

CONNECT_SECONDS = 30.0  # how long an --address may take to answer; a busy machine joins a cluster in 10 s and more
PORT_SECONDS = 5.0  # how long the port of an --address may take to be opened
SILENT_SECONDS = 15.0  # how long a cluster may be silent before it counts as lost; a study's lease lasts as long
LOOK_SECONDS = 1.0  # how often the ports are tried


def connect(address: str, workers: int, code: Sequence[Path] = ()) -> None:
    """Join the cluster at `address`; if that is "local", start one on this machine for `workers` workers.

    Args:
        code: Python files and folders of packages that workers on other machines import.

    Raises:
        RayUnavailable: nothing answers at `address` within 30 s; Ray cannot start here with so many workers; or the
            address is `ray://` and grpc is missing.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        ray_local.start(workers, **quiet)
        return
    if address.startswith("ray://") and not find_spec("grpc"):
        raise RayUnavailable(f"{address} needs ray[default]: pip install 'activation-searcher[cluster]'")
    check_port(address)
    os.environ.setdefault("RAY_CLIENT_RECONNECT_GRACE_PERIOD", f"{SILENT_SECONDS:.0f}")  # read for ray:// only
    with tempfile.TemporaryDirectory() as copies:
        if code:
            _copy(code, Path(copies))
            quiet["runtime_env"] = {"working_dir": copies}  # with it, Ray adds no folder of this process to the path
        elif not address.startswith("ray://"):  # the server of Ray's client does the same by itself
            quiet["job_config"] = ray_local.job_config()
        _within(CONNECT_SECONDS, lambda: ray.init(address=address, **quiet), address)


def _copy(code: Sequence[Path], folder: Path) -> None:
    for path in code:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        else:
            shutil.copy(path, folder)


class ClusterMonitor:
    """Tells whether the cluster answers: its head, and the node that this process is attached to.

    Ray notices a lost cluster after 60 s (`gcs_rpc_server_reconnect_timeout_s`), and then ends this process without a
    message. The monitor therefore tries the ports itself, which needs no Ray.

    Attributes:
        lost: True once the cluster counts as lost.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._ports = _required_ports(address)
        self._looked = time.monotonic()
        self._silent: float | None = None  # when a look first found no answer
        self.lost = False

    def answers(self, *, now: bool = False) -> bool:
        """Return True if the cluster answered when it was last tried, up to a second ago. `now` tries it again first.

        Raises:
            RayUnavailable: it has not answered for 15 s.
        """
        if now or time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            if all(_port_answers(host, port) for host, port in self._ports):
                self._silent = None
            elif self._silent is None:  # not counted from the last answer: a busy driver may not have tried for long
                self._silent = self._looked
            elif self._looked - self._silent >= SILENT_SECONDS:
                raise self.lost_error(f"no answer for {self._looked - self._silent:.0f} s")
        return self._silent is None

    def lost_error(self, why: str) -> RayUnavailable:
        """Note that the cluster is lost, and return the error to raise."""
        self.lost = True
        return RayUnavailable(
            f"the Ray cluster at {self._address!r} has gone ({why}); what it was training waits. Resume on a cluster, "
            "with --address, or on this machine, with --address local or --pool inline"
        )


@contextmanager
def connection_errors(cluster: ClusterMonitor) -> Iterator[None]:
    """Turn a ConnectionError of a call to Ray into RayUnavailable. Only Ray's client (ray://) raises such errors."""
    try:
        yield
    except ConnectionError as error:
        raise cluster.lost_error(short_message(error)) from error


def workers_that_fit(gpus_per_worker: float) -> int:
    """Return how many workers the live nodes have room for; a worker must fit on one node.

    Raises:
        RayUnavailable: the cluster has no CPUs, or fewer GPUs than one worker needs.
    """
    if ray.cluster_resources().get("CPU", 0.0) < 1:
        raise RayUnavailable(
            "this Ray cluster has no CPUs yet; start its nodes, or say with --workers how many to wait for"
        )
    check_gpus(gpus_per_worker)
    return max(1, _room(gpus_per_worker))


def check_gpus(gpus_per_worker: float) -> None:
    """Raise RayUnavailable if the whole cluster has fewer GPUs."""
    there = ray.cluster_resources().get("GPU", 0.0)
    if gpus_per_worker > there:
        raise RayUnavailable(
            f"{gpus_per_worker:g} GPUs a worker were asked for, this Ray cluster has {there:g}; "
            "use --gpus-per-worker 0 to train on CPUs, or say with --workers how many to wait for"
        )


def describe_missing_workers(missing: int, workers: int, gpus_per_worker: float, shared: bool) -> str:
    """Say what workers that have not started are waiting for.

    Args:
        missing: number of workers that have not started.
        workers: number of all workers.
        gpus_per_worker: GPUs of a worker.
        shared: True if the cluster may have other users.
    """
    total = ray.cluster_resources()
    each = f"1 CPU and {gpus_per_worker:g} GPUs each" if gpus_per_worker else "1 CPU each"
    cpus, gpus = (f"{total.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU"))
    if gpus_per_worker > total.get("GPU", 0.0):
        what = f"waiting for a GPU that the cluster does not have ({missing} of {workers} workers, {each})"
    elif (lacking := min(missing, workers - _room(gpus_per_worker))) > 0:
        has = f"{cpus} and {gpus}" if gpus_per_worker else cpus
        what = f"waiting for room for {lacking} of {workers} workers ({each}; the cluster has {has} in all)"
    elif not shared:
        return f"{missing} of {workers} workers are starting"
    else:
        now = ray.available_resources()
        free = f"{now.get('CPU', 0.0):g} of {cpus}"
        if gpus_per_worker:
            free += f", {now.get('GPU', 0.0):g} of {gpus}"
        return f"{missing} of {workers} workers are starting, or wait for what others use ({free} are free)"
    return f"{what}; start nodes, or stop with Ctrl-C"


def _room(gpus_per_worker: float) -> int:
    """Return how many workers the live nodes could hold if nothing else ran on them; a worker must fit on one node."""
    found = 0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        fit = int(has.get("CPU", 0.0))
        if gpus_per_worker:
            fit = min(fit, _on_gpus(has.get("GPU", 0.0), gpus_per_worker))
        found += fit
    return found


def _on_gpus(gpus: float, gpus_per_worker: float) -> int:
    """Return how many workers fit on `gpus` GPUs. A fraction of a GPU must come from one GPU, not from two."""
    if gpus_per_worker > 1:
        return int(gpus / gpus_per_worker)
    return int(gpus) * int(1 / gpus_per_worker + 1e-9)


def check_port(address: str) -> None:
    """Raise RayUnavailable at once if the port at `address` is closed; Ray itself would keep trying."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port
    except ValueError as error:
        raise RayUnavailable(
            f"{address!r} is no Ray address: {error}; use HOST:PORT, ray://HOST:PORT or auto"
        ) from error
    if not parts.hostname or not port:
        return  # "auto", or an address that only Ray can judge
    try:
        socket.create_connection((parts.hostname, port), timeout=PORT_SECONDS).close()
    except OSError as error:
        raise RayUnavailable(
            f"no Ray cluster answers at {address!r} ({error}); start one with: ray start --head"
        ) from error


def _within(seconds: float, attempt: Callable[[], object], address: str) -> None:
    """Call `attempt` in a thread, and abandon the thread after `seconds`: `attempt` itself has no time-out.

    Raises:
        RayUnavailable: `attempt` raised an exception or has not returned in time.
    """
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            attempt()
        except BaseException as error:  # the caller's thread raises it below
            failures.append(error)

    thread = threading.Thread(target=guarded, daemon=True, name="ray-connect")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise RayUnavailable(
            f"no Ray cluster answered at {address!r} within {seconds:g} s; is it a Ray head's GCS port, "
            "and is its token ours (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)?"
        )
    if failures:
        why = short_message(failures[0])
        raise RayUnavailable(f"cannot join the Ray cluster at {address!r}: {why}") from failures[0]


def _required_ports(address: str) -> list[tuple[str, int]]:
    """Return the host and port of each server that this process needs: the head and the own node, or, with Ray's client
    (ray://), the client's server alone."""
    if address.startswith("ray://"):
        parts = urlsplit(address)
        return [(parts.hostname or "", parts.port or 10001)]
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    nodes = {node["NodeID"]: node for node in ray.nodes()}
    own = nodes.get(context.get_node_id(), {})
    near = [(own["NodeManagerAddress"], int(own["NodeManagerPort"]))] if own else []
    return [(host.strip("[]"), int(port)), *near]


def _port_answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=LOOK_SECONDS).close()
    except OSError:
        return False
    return True
