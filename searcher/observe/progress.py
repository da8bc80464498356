"""Show a running search on stderr: a bar on a terminal or in a notebook, otherwise a line every few seconds."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import ExitStack
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from searcher.display import headline, label, metrics_line, shown
from searcher.driver.loop import Progress as SearchProgress
from searcher.observe import logs
from searcher.records import Trial, TrialState

LINE_SECONDS = 5.0  # the least time between two plain lines, except before the last one

log = logging.getLogger("searcher")


class Display:
    """Shows the progress of one search: as a bar if stderr is a terminal or a notebook, otherwise as plain lines."""

    def __init__(self, study: str, quiet: bool = False) -> None:
        self._study, self._quiet = study, quiet
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
        )
        self._task = self._bar.add_task(shown(study), total=None, left="?")
        self._last_line = 0.0
        self._latest: SearchProgress | None = None
        self._printed: SearchProgress | None = None
        self._first = ExitStack()  # the wait for the first progress

    def __enter__(self) -> Self:
        console = Console(stderr=True)
        if sys.stderr and not self._quiet and not logs.structured() and _shows_bars(console):
            self._live = Live(self._bar, console=console, refresh_per_second=4, redirect_stdout=False)
            self._live.start()
        else:
            self._first.enter_context(logs.waiting("the workers start, and train the first functions"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._first.close()
        if self._live:
            self._live.stop()
        elif self._latest and self._latest is not self._printed:
            self._line(self._latest)

    def update(self, progress: SearchProgress) -> None:
        """Show the next progress of the search, and log its events."""
        self._latest = progress
        self._first.close()
        log_events(progress)
        if self._live:
            left = _clock(time_left(progress))
            self._bar.update(self._task, total=progress.total, completed=progress.done, left=left)
            self._live.update(Group(self._bar, *(Text(shown(line), no_wrap=True) for line in describe(progress))))
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._line(progress)

    def _line(self, progress: SearchProgress) -> None:
        self._last_line, self._printed = time.monotonic(), progress
        if not self._quiet:
            left, said = _clock(time_left(progress)), "; ".join(describe(progress))
            log.info("%s %d/%d, %s left, %s", self._study, progress.done, progress.total, left, said)


def _shows_bars(console: Console) -> bool:
    """Return True for a terminal, and for a notebook with the widgets that Rich needs for a bar."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return sys.stderr.isatty()


def log_events(progress: SearchProgress) -> None:
    """Log a record for each trial that ended or whose run failed since the last progress."""
    for trial in progress.again:
        reason = headline(trial.reason)
        log.warning("a run of trial %d has failed, it runs again: %s", trial.number, reason, extra=_about(trial))
    for trial in progress.ended:
        level = logging.WARNING if trial.state is TrialState.FAILED else logging.DEBUG
        log.log(
            level,
            "trial %d, %s, has ended: %s%s, %s",
            trial.number,
            trial.expression,
            trial.state,
            "" if trial.cites is None else f" as trial {trial.cites} has",
            headline(trial.reason) or metrics_line(trial.metrics),
            extra=_about(trial),
        )
    if progress.ended and progress.done == progress.total:
        log.info("all %d trials have ended", progress.total)


def _about(trial: Trial) -> dict[str, Any]:
    return {"trial": trial.number, "worker": trial.worker or None}


def describe(progress: SearchProgress) -> tuple[str, ...]:
    """Return two lines: the counts and the rate, and the best function so far, which a design does not have."""
    infeasible = progress.counts[TrialState.INFEASIBLE]
    pruned = progress.counts[TrialState.PRUNED] - progress.mirrors
    failed = progress.counts[TrialState.FAILED]
    counts = [
        f"{progress.proposed} proposed",
        f"{progress.unique} unique",
        f"{progress.trained} trained",
        f"{infeasible} infeasible",
        *([f"{pruned} stopped early"] if pruned else []),
        *([f"{progress.mirrors} mirrors left untrained"] if progress.mirrors else []),
        *([f"{failed} failed"] if failed else []),
        f"{rate(progress):,.0f} trials/h",
    ]
    if outage := progress.outage:
        counts.append(f"DATABASE DOES NOT ANSWER since {_clock(outage.seconds)}, {outage.held} results held")
    best = progress.best
    found = f"best {label(best.name, best.expression)}, {metrics_line(best.metrics)}" if best else "none yet"
    return (", ".join(counts),) if progress.design else (", ".join(counts), found)


def rate(progress: SearchProgress) -> float:
    """Return the number of trials decided per hour in this session."""
    return 3600 * progress.session_done / max(progress.seconds, 1e-9)


def time_left(progress: SearchProgress) -> float:
    """Return the seconds until the study's total, at this session's rate."""
    return 3600 * (progress.total - progress.done) / max(rate(progress), 1e-9)


def _clock(seconds: float) -> str:
    if seconds > 359_999:
        return "?"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
