"""Read the status of a study from the database. The database does the counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from searcher.display import headline, label
from searcher.records import Study, StudyKind, TrialState
from searcher.reports.report import Row
from searcher.store import queries
from searcher.store.lease import Driver
from searcher.store.store import Store

RECENT = 200  # latest trials from which the rate is computed
FAILURES = 1000  # latest failed trials whose reasons are counted
FUNCTIONS = 30  # of a design
SHOWN = 10  # lines of running trials, and of failures


@dataclass(frozen=True, slots=True)
class Failure:
    """A reason why trials failed.

    Attributes:
        reason: its first line.
        count: number of trials that failed for it, among the latest thousand failures.
        number: one of these trials.
    """

    reason: str
    count: int
    number: int


@dataclass(frozen=True, slots=True)
class Status:
    """The present status of a study.

    Attributes:
        study: the study.
        driver: its driver, or the last one.
        counts: number of trials by state.
        running: numbers and expressions of the first running trials; the driver updates them about once a second.
        failures: the most frequent reasons why trials failed.
        rate: trials decided per hour, from the latest trials of the driver; None if nobody drives the study or too few
            trials have ended.
        best, relu: the leaderboard's first row and the row of ReLU. A design has none: it compares functions over all
            seeds, and a single training of it says nothing.
        trainings: of a design, the labels of its first functions, each with the number of trainings that have ended.
    """

    study: Study
    driver: Driver
    counts: Mapping[TrialState, int]
    running: tuple[tuple[int, str], ...]
    failures: tuple[Failure, ...]
    rate: float | None
    best: Row | None
    relu: Row | None
    trainings: tuple[tuple[str, int], ...] = ()

    @property
    def done(self) -> int:
        """Number of trials that have ended."""
        return sum(n for state, n in self.counts.items() if state.finished)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the study's total at this rate; None without a rate."""
        return 3600 * (self.study.n_trials - self.done) / self.rate if self.rate else None


def status(store: Store, name: str) -> Status:
    """Return the status of a study.

    Raises:
        UnknownStudy: there is no study of that name.
        StoreError: the database cannot be read.
    """
    study = store.study(name)
    driver = store.driver(study)
    design = study.kind is StudyKind.DESIGN
    best = [] if design else store.leaderboard(study, 1)
    functions = queries.ended_by_function(store, study, FUNCTIONS) if design else []
    return Status(
        study=study,
        driver=driver,
        counts=store.counts(study),
        running=tuple(queries.running(store, study, SHOWN)),
        failures=_failures(store, study),
        rate=_rate(store, study, driver),
        best=best[0] if best else None,
        relu=None if design else store.baseline(study, "relu"),
        trainings=tuple((label(name, expression), ended) for name, expression, ended in functions),
    )


def _failures(store: Store, study: Study) -> tuple[Failure, ...]:
    totals: Counter[str] = Counter()
    first: dict[str, int] = {}
    for number, reason in queries.failure_reasons(store, study, FAILURES):
        line = headline(reason)  # without the traceback, which differs between equal failures
        totals[line] += 1
        first[line] = number
    return tuple(Failure(reason, n, first[reason]) for reason, n in totals.most_common(SHOWN))


def _rate(store: Store, study: Study, driver: Driver) -> float | None:
    if not driver.live:
        return None
    times = queries.end_times(store, study, RECENT)
    newest = max(times, default=None)
    own = [time for time in times if newest and (newest - time).total_seconds() <= driver.since]  # of this session
    seconds = (max(own) - min(own)).total_seconds() if own else 0.0
    return 3600 * (len(own) - 1) / seconds if seconds else None


def as_facts(found: Status) -> dict[str, Any]:
    """Return the status as plain values, for JSON."""
    driver, best, relu = found.driver, found.best, found.relu
    return {
        "study": found.study.name,
        "done": found.done,
        "total": found.study.n_trials,
        **{str(state).lower(): found.counts.get(state, 0) for state in TrialState},
        "driver": driver.holder if driver.live else "",
        "driver_since_seconds": driver.since if driver.live else None,
        "driver_heard_seconds": driver.heard,
        "asked_to_stop": driver.live and driver.asked_to_stop,
        "trials_per_hour": found.rate,
        "seconds_left": found.seconds_left,
        "running_trials": [{"number": number, "expression": expression} for number, expression in found.running],
        "failures": [{"reason": f.reason, "count": f.count, "number": f.number} for f in found.failures],
        "trainings": [{"function": function, "ended": ended} for function, ended in found.trainings],
        "best": best["expression"] if best else None,
        **{f"best_{metric.name}": best[metric.name] if best else None for metric in found.study.task.shown},
        **{f"relu_{metric.name}": relu[metric.name] if relu else None for metric in found.study.task.shown},
    }
