"""The identity of a driver's process. It is stored with the lease, and tells whether the process has ended."""

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
    """Return this process in words, for people."""
    try:
        since = psutil.Process().create_time()
    except psutil.Error:  # /proc is missing, or shows another namespace
        since = time.time()
    started = datetime.fromtimestamp(round(since), UTC)
    return f"process {os.getpid()} on {socket.gethostname()}, started {started:%Y-%m-%dT%H:%M:%SZ}"


def identity(pid: int | None = None) -> ProcessId:
    """Return what `is_dead` knows a process by: this one, if none is named."""
    pid = os.getpid() if pid is None else pid
    boot, began = _boot(), _began(pid)
    known = bool(boot and began and began != ENDED)
    return ProcessId(pid, socket.gethostname(), boot if known else "", began if known else "")


def _boot() -> str:
    """Return what tells where a process number means the same process: the boot, and the namespaces of process numbers
    and of times, in which start times are counted. Empty where that is not known: without Linux, or where /proc shows
    the processes of another namespace."""
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
    """Return when a process began, in ticks since the boot: the wall clock may be set back. `ENDED` if it has and its
    parent has not waited for it yet; empty if nothing can be read, which says nothing about it."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return ENDED if facts[0] == "Z" else facts[19]


def is_dead(process: ProcessId) -> bool:
    """Return True only if it is proven that a driver's process is gone. Where nothing proves it, the lease is waited
    for: a driver on another machine or in another namespace, and a process that this user may not see.
    """
    if not process.boot or (process.boot, process.machine) != (_boot(), socket.gethostname()):
        return False
    try:
        os.kill(process.pid, 0)  # only asks whether it is there
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is there, and another user's
        return False
    now = _began(process.pid)
    return bool(now) and now != process.began  # its number may be another process's now
