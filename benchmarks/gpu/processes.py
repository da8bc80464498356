"""Processes that end when the one that started them does, however that ends."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

_PR_SET_PDEATHSIG = 1


def follow_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def start(method: str, target: Callable[..., object], *args: Any) -> BaseProcess:
    """Start `target(*args)` in a process of its own.

    Args:
        method: `fork`, which imports nothing anew, or `spawn`.
    """
    process = multiprocessing.get_context(method).Process(target=_following, args=(target, *args))
    with warnings.catch_warnings():
        # NumPy's BLAS has threads, and restarts them after a fork.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    return process


def _following(target: Callable[..., object], *args: Any) -> None:
    follow_parent()
    target(*args)


def end(process: BaseProcess, seconds: float) -> bool:
    """Return whether the process ends by itself within so many seconds; if not, kill it."""
    process.join(max(0.0, seconds))
    if process.is_alive():
        process.kill()
        process.join()
        return False
    return True
