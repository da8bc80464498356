"""Starting a Ray on this machine: in a folder that can hold its sockets, with a token that nobody else can read, and on
the loopback interface.

docs/cluster.md explains what Ray is told, docs/operations.md what that is for. Ray itself is imported when it is
started, so that `searcher doctor` can ask for the folder.
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

OBJECT_STORE_BYTES = 100_000_000  # Ray would take 30 % of the memory; jobs and outcomes are short texts
WORKERS_PER_CPU = 32  # at most: each is a process with a torch of its own
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # longest path of a Unix socket
USUAL = "/tmp"  # noqa: S108 (where Ray works if nothing is said)
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: as on those systems, where a Ray has one node, on loopback

# What Ray is told, where the environment does not say otherwise.
OPTIONS = {
    "RAY_memory_monitor_refresh_ms": "250",  # a worker is killed before the system kills whatever it likes,
    "RAY_memory_usage_threshold": "0.95",  # when so much of the memory is in use;
    "RAY_task_oom_retries": "0",  # and its job is counted by the search, not repeated by Ray for ever
    "RAY_enable_infeasible_task_early_exit": "0",  # a worker that there is no room for waits
    LOOPBACK: "0",
}

log = logging.getLogger(__name__)


class RayUnavailable(WorkersError):
    """No Ray cluster, not what was asked of it, or no longer there."""


def is_credential(name: str) -> bool:
    """Whether an environment variable leads into the database. Workers have no business there."""
    return name == "SEARCHER_STORAGE" or name.startswith("PG")


def in_short(error: BaseException) -> str:
    """What an exception says in short: the first line, or, if it quotes a traceback, the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1 if any(line.startswith("File ") for line in lines) else 0][:300]


def start(workers: int, **options: Any) -> None:
    """Start Ray for that many workers and connect to it.

    Raises:
        RayUnavailable: it does not start, or not for so many.
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
    except BaseException as error:  # whatever Ray raises when one of its processes is slow or dies
        ray.shutdown()
        raise RayUnavailable(
            f"Ray does not start on this machine: {in_short(error)}. What it says is below {place / 'ray'}; try again, "
            "or do without Ray: --pool inline"
        ) from error


def job_config() -> JobConfig:
    """Return the settings of this process's job. Ray would put the current directory before all others on the path of
    its workers, where a `workers.py` of the user's would hide ours; it does not for jobs that come from a client. A
    worker adds the directory at the end."""
    from ray.job_config import JobConfig

    return JobConfig(_client_job=True)


def folder() -> tuple[Path, str]:
    """Return the folder below which Ray will work, and what the user should know about that (empty: nothing).

    Raises:
        RayUnavailable: RAY_TMPDIR cannot serve; or nothing can.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    place = Path(os.environ.get(name) or USUAL).absolute()
    if not (problem := _problem(place)):
        return place, ""
    if name == "TMPDIR" and not _problem(Path(USUAL)):
        return Path(USUAL), f"Ray works below {USUAL}: TMPDIR, {place}, {problem}. RAY_TMPDIR=FOLDER names another"
    raise RayUnavailable(
        f"Ray cannot work below {place} ({name or 'its usual place'}), which {problem}; name another folder with "
        f"RAY_TMPDIR=FOLDER, of at most {_longest()} characters, or do without Ray: --pool inline"
    )


def _longest() -> int:
    """Return how many bytes the path of the folder may have: Ray adds a session, named by time and process."""
    added = f"/ray/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    return SOCKET_BYTES - len(added)


def _problem(place: Path) -> str:
    """Say why Ray cannot work there; empty if nothing is known against it. Nothing is written."""
    size, most = len(os.fsencode(place)), _longest()
    if size > most:
        return f"is {size} characters long; the sockets in it leave room for {most}"
    there = next(parent for parent in (place / "ray", place, *place.parents) if os.path.lexists(parent))
    if not there.is_dir():
        return f"cannot be made, for {there} is no directory"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"cannot be made or written to, by the rights of {there}"


def make_token() -> None:
    """Make the token that Ray would make by itself, for its owner only: Ray leaves its mode to the umask. A token that
    is there and that others could read is taken from them."""
    ours_to_make = os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    if not ours_to_make or os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    file = Path.home() / ".ray" / "auth_token"
    if file.exists():
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
            log.warning("other users could read Ray's token %s; they cannot any more. To be safe, delete it", file)
        return
    file.parent.mkdir(mode=0o700, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=file.parent)  # of mode 0600
    try:
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_hex(32))
        os.link(unfinished, file)  # whole, and never over another one
    except FileExistsError:
        return  # another search was faster
    finally:
        Path(unfinished).unlink()


@contextmanager
def _environment() -> Iterator[None]:
    """Set what Ray's processes, and so its workers, inherit from this one: options, and no way into the database."""
    from ray._private import ray_constants

    hidden = {name: os.environ.pop(name) for name in tuple(os.environ) if is_credential(name)}
    added = {name: value for name, value in OPTIONS.items() if name not in os.environ}
    former = ray_constants.ENABLE_RAY_CLUSTER
    if LOOPBACK in added:
        ray_constants.ENABLE_RAY_CLUSTER = False  # Ray has read the variable in this process when it was imported
    os.environ.update(added)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = former
        for name in added:
            os.environ.pop(name, None)
        os.environ.update(hidden)
