"""Start Ray on this machine: in a folder that can hold its sockets, with a token that nobody else can read, and on the
loopback interface.

docs/cluster.md lists the options that Ray is given, docs/security.md the reasons. Ray itself is imported only when it
is started, so that `searcher doctor` can ask for the folder without it.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.contract import WorkersError
from workers.pools.base import usable_cpus

if TYPE_CHECKING:
    from ray.job_config import JobConfig

OBJECT_STORE_BYTES = 100_000_000  # Ray's default is 30 % of the memory, but jobs and outcomes are short texts
WORKERS_PER_CPU = 32  # the maximum: each worker is a process with its own copy of torch
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # longest path of a Unix socket
DEFAULT_FOLDER = "/tmp"  # noqa: S108 (Ray's own default)
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: as on those systems, Ray has one node and uses loopback only

# Options for Ray's processes; a variable in the environment overrides the value here.
OPTIONS = {
    "RAY_memory_monitor_refresh_ms": "250",  # Ray kills a worker before the system kills some other process,
    "RAY_memory_usage_threshold": "0.95",  # once this fraction of the memory is in use;
    "RAY_task_oom_retries": "0",  # the search counts the retries of its job, and Ray does not repeat it
    "RAY_enable_infeasible_task_early_exit": "0",  # a worker waits until there is room for it
    LOOPBACK: "0",
}

log = logging.getLogger(__name__)


class RayUnavailable(WorkersError):
    """There is no Ray cluster, it cannot hold the workers, or it no longer answers."""


def is_credential(name: str) -> bool:
    """Return True if an environment variable gives access to the database, which workers do not need."""
    return name == "SEARCHER_STORAGE" or name.startswith("PG")


def short_message(error: BaseException) -> str:
    """Return the first line of an exception's message, or the last one if it contains a traceback; at most 300
    characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1 if any(line.startswith("File ") for line in lines) else 0][:300]


def start(workers: int, **options: Any) -> None:
    """Start Ray for `workers` workers and connect to it.

    Raises:
        RayUnavailable: Ray does not start, or there are too few CPUs for so many workers.
    """
    import ray

    if workers > (most := WORKERS_PER_CPU * usable_cpus()):
        raise RayUnavailable(
            f"{workers} workers were asked for; a Ray on this machine gets at most {most} ({WORKERS_PER_CPU} for each "
            "CPU). Give fewer --workers, or a cluster: --address HOST:PORT"
        )
    place, note = folder()
    if note:
        log.warning("%s", note)
    try:
        make_token()
        with _environment():
            ray.init(
                address="local",
                num_cpus=max(workers, usable_cpus()),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                job_config=job_config(),
                _temp_dir=str(place / "ray"),
                **options,
            )
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # Ray raises many kinds when one of its processes is slow or dies
        ray.shutdown()
        raise RayUnavailable(
            f"Ray does not start on this machine: {short_message(error)}. Its logs are below {place / 'ray'}; try "
            "again, or do without Ray: --pool inline"
        ) from error


def job_config() -> JobConfig:
    """Return the settings of this process's Ray job, which keep the current directory off the start of the workers'
    import path: a user's `workers.py` would hide our package there. Ray treats jobs of its client in that way. A worker
    adds the directory at the end of the path."""
    from ray.job_config import JobConfig

    return JobConfig(_client_job=True)


def folder() -> tuple[Path, str]:
    """Return the folder below which Ray will work, and a note about it for the user, which may be empty.

    Raises:
        RayUnavailable: the folder that RAY_TMPDIR names cannot be used, or no folder can.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    place = Path(os.environ.get(name) or DEFAULT_FOLDER).absolute()
    if not (problem := _problem(place)):
        return place, ""
    if name == "TMPDIR" and not _problem(Path(DEFAULT_FOLDER)):
        note = f"Ray works below {DEFAULT_FOLDER}: TMPDIR, {place}, {problem}. RAY_TMPDIR=FOLDER names another"
        return Path(DEFAULT_FOLDER), note
    raise RayUnavailable(
        f"Ray cannot work below {place} ({name or 'its usual place'}), which {problem}; name another folder with "
        f"RAY_TMPDIR=FOLDER, of at most {_longest()} characters, or do without Ray: --pool inline"
    )


def _longest() -> int:
    """Return how many bytes long the path of the folder may be: Ray adds the path of a session, which has a time and a
    process number in its name."""
    added = f"/ray/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    return SOCKET_BYTES - len(added)


def _problem(place: Path) -> str:
    """Say why Ray cannot work in `place`; empty if no problem is found. Write nothing."""
    size, most = len(os.fsencode(place)), _longest()
    if size > most:
        return f"is {size} characters long; the sockets in it leave room for {most}"
    there = next(parent for parent in (place / "ray", place, *place.parents) if os.path.lexists(parent))
    if not there.is_dir():
        return f"cannot be created, because {there} is not a directory"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"cannot be created or written: {there} does not permit it"


def make_token() -> None:
    """Create the token that Ray would create by itself, readable for its owner only; Ray leaves its mode to the umask.
    If a token exists that other users can read, make it readable for its owner only."""
    ours_to_make = os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    if not ours_to_make or os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    file = Path.home() / ".ray" / "auth_token"
    if file.exists():
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
            log.warning("other users could read Ray's token %s, and now cannot. To be safe, delete it", file)
        return
    file.parent.mkdir(mode=0o700, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=file.parent)  # of mode 0600
    try:
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_hex(32))
        os.link(unfinished, file)  # the file appears complete, and never replaces another one
    except FileExistsError:
        return  # another search created it first
    finally:
        Path(unfinished).unlink()


@contextmanager
def _environment() -> Iterator[None]:
    """Set the environment that Ray's processes inherit: with the options above, without the database's credentials."""
    from ray._private import ray_constants

    hidden = {name: os.environ.pop(name) for name in tuple(os.environ) if is_credential(name)}
    added = {name: value for name, value in OPTIONS.items() if name not in os.environ}
    former = ray_constants.ENABLE_RAY_CLUSTER
    if LOOPBACK in added:
        ray_constants.ENABLE_RAY_CLUSTER = False  # Ray read the variable when it was imported into this process
    os.environ.update(added)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = former
        for name in added:
            os.environ.pop(name, None)
        os.environ.update(hidden)
