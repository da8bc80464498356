"""Identify a driver's process. The identity is stored with the lease and tells whether the process has ended."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

from searcher.store.lease import ProcessId

ENDED = "ended"


def holder() -> str:
    """Describe this process for people: its number, its machine and when it started."""
    try:
        since = psutil.Process().create_time()
    except psutil.Error:  # /proc is missing, or shows another namespace
        since = time.time()
    started = datetime.fromtimestamp(round(since), UTC)
    return f"process {os.getpid()} on {socket.gethostname()}, started {started:%Y-%m-%dT%H:%M:%SZ}"


def identity(pid: int | None = None) -> ProcessId:
    """Return the identity of a process, by default of this one, for `is_dead`."""
    pid = os.getpid() if pid is None else pid
    boot, began = _boot(), _began(pid)
    known = bool(boot and began and began != ENDED)
    return ProcessId(pid, socket.gethostname(), boot if known else "", began if known else "")


def _boot() -> str:
    """Return a digest of the boot and of the namespaces of process numbers and times: with the same digest, a process
    number and a start time mean the same process. Return an empty text if they are not known: on other systems than
    Linux, and where /proc shows another namespace."""
    proc = Path("/proc")
    try:
        if str((proc / "self").readlink()) != str(os.getpid()):
            return ""
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        namespaces = [(proc / "self/ns" / kind).stat().st_ino for kind in ("pid", "time")]
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespaces}".encode()).hexdigest()[:8]


def _began(pid: int) -> str:
    """Return when a process began, in ticks since the boot (the wall clock may be set back). Return `ENDED` for a
    process that has ended while its parent has not waited for it, and an empty text if nothing can be read."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return ENDED if facts[0] == "Z" else facts[19]


def is_dead(process: ProcessId) -> bool:
    """Return True only if a driver's process has certainly ended. Nothing is certain about processes on another machine
    or in another namespace, and those that this user may not see; their lease must expire."""
    if not process.boot or (process.boot, process.machine) != (_boot(), socket.gethostname()):
        return False
    try:
        os.kill(process.pid, 0)  # only asks whether the process exists
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it exists and belongs to another user
        return False
    now = _began(process.pid)
    return bool(now) and now != process.began  # a later process may have the same number
