"""A running search on a terminal (a bar) or in a log (a line now and then). Everything goes to stderr."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from searcher.search import Progress as SearchProgress
from searcher.trial import TrialState

LINE_SECONDS = 5.0  # at most one plain line in so long, the last one apart

log = logging.getLogger("searcher")


class Display:
    """Shows the progress of one search. Where stderr is no terminal, plain lines."""

    def __init__(self, study: str, quiet: bool = False) -> None:
        self._study, self._quiet = study, quiet
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last_line = 0.0
        self._latest: SearchProgress | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self._quiet:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed}/{task.total}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[text]}"),
                console=Console(stderr=True),
                transient=False,
            )
            self._task = self._bar.add_task(self._study, total=None, left="", text="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._latest:
            self._line(self._latest)

    def update(self, progress: SearchProgress) -> None:
        self._latest = progress
        if self._bar:
            left = f"{_clock(time_left(progress))} left"
            self._bar.update(
                self._task, total=progress.total, completed=progress.done, left=left, text=describe(progress)
            )
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._line(progress)

    def _line(self, progress: SearchProgress) -> None:
        self._last_line = time.monotonic()
        if not self._quiet:
            left = _clock(time_left(progress))
            log.info("%s %d/%d, %s left, %s", self._study, progress.done, progress.total, left, describe(progress))


def describe(progress: SearchProgress) -> str:
    """The counts, the rate and the best so far, in one line."""
    infeasible = progress.counts[TrialState.INFEASIBLE]
    failed = progress.counts[TrialState.FAILED]
    parts = [
        f"{progress.proposed} proposed",
        f"{progress.unique} unique",
        f"{progress.trained} trained",
        f"{infeasible} infeasible",
        *([f"{failed} failed"] if failed else []),
        f"{rate(progress):,.0f} trials/h",
    ]
    if progress.best:
        best = progress.best
        parts.append(f"best {best.expression} loss {best.val_loss:.4f} acc {best.val_acc:.4f}")
    return " · ".join(parts)


def rate(progress: SearchProgress) -> float:
    """Trials decided an hour in this session."""
    return 3600 * progress.session_done / max(progress.seconds, 1e-9)


def time_left(progress: SearchProgress) -> float:
    """Seconds until the total at this session's rate."""
    return 3600 * (progress.total - progress.done) / max(rate(progress), 1e-9)


def _clock(seconds: float) -> str:
    if seconds > 359_999:
        return "?"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
