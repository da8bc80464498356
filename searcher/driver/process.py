"""The identity of a driver's process. It is stored with the lease, and tells whether the process has ended."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil

ENDED = "ended"


def holder(pid: int | None = None) -> str:
    """Describe a process, this one if none is named, in words from which `is_dead` knows it again."""
    pid = os.getpid() if pid is None else pid
    try:
        since = psutil.Process(pid).create_time()
    except psutil.Error:  # /proc is missing, or shows another namespace
        since = time.time()
    started = datetime.fromtimestamp(round(since), UTC)
    place, began = _place(), _began(pid)
    known_by = f" ({place}-{began})" if place and began and began != ENDED else ""
    return f"process {pid} on {socket.gethostname()}, started {started:%Y-%m-%dT%H:%M:%SZ}{known_by}"


def _place() -> str:
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


def is_dead(holder: str) -> bool:
    """Return True only if it is proven that the driver of those words is gone. Where nothing proves it, the lease is
    waited for: a driver on another machine or in another namespace, and a process that this user may not see.
    """
    words, here = holder.split(), _place()
    if len(words) != 7 or not here or not words[1].isdecimal():  # another version's words
        return False
    pid, machine, (place, _, began) = int(words[1]), words[3].rstrip(","), words[6].strip("()").partition("-")
    if place != here or machine != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)  # only asks whether it is there
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is there, and another user's
        return False
    now = _began(pid)
    return bool(now) and now != began  # its number may be another process's now
