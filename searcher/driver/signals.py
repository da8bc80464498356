"""Stop a session by a signal."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from typing import Any

log = logging.getLogger("searcher")


class StopSignal:
    """Turns the first signal of the block, such as Ctrl-C, into a request to stop; the second raises KeyboardInterrupt.

    Python lets only the main thread handle signals: in another thread the block changes nothing.

    Args:
        numbers: the signals.
    """

    def __init__(self, numbers: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)) -> None:
        self._numbers = numbers
        self._requested = False
        self._former: dict[int, Any] = {}

    def requested(self) -> bool:
        """Return True if a signal was received."""
        return self._requested

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._numbers:
            self._former[number] = signal.signal(number, self._request)

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _request(self, number: int, _: object) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        log.warning("stopping (%s); once more to stop at once", signal.Signals(number).name)
