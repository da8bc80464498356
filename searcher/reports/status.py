"""The status of a study, as the database knows it. It is read only, and the database does the counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from searcher.display import headline
from searcher.records import Study, TrialState
from searcher.reports.report import Row
from searcher.store import queries
from searcher.store.lease import Driver
from searcher.store.store import Store

RECENT = 200  # latest trials that the rate is taken over
FAILURES = 1000  # latest failed trials whose reasons are looked at
SHOWN = 10  # most lines of what runs, and of what failed


@dataclass(frozen=True, slots=True)
class Failure:
    """Why trials failed: the first line of their reason, how many of the latest thousand, and one of them."""

    reason: str
    count: int
    number: int


@dataclass(frozen=True, slots=True)
class Status:
    """A study now. `rate` is in trials decided an hour, over the driver's latest; None where nobody drives or too few
    have ended. `running` are numbers and expressions of the trials being trained, as of the driver's last word."""

    study: Study
    driver: Driver
    counts: Mapping[TrialState, int]
    running: tuple[tuple[int, str], ...]
    failures: tuple[Failure, ...]
    rate: float | None
    best: Row | None
    relu: Row | None

    @property
    def done(self) -> int:
        return sum(n for state, n in self.counts.items() if state.finished)

    @property
    def seconds_left(self) -> float | None:
        """Until the total, at this rate."""
        return 3600 * (self.study.n_trials - self.done) / self.rate if self.rate else None


def status(store: Store, name: str) -> Status:
    """The status of a study.

    Raises:
        UnknownStudy: there is none of that name.
        StoreError: the database cannot be read.
    """
    study = store.study(name)
    driver = store.driver(study)
    best = store.leaderboard(study, 1)
    return Status(
        study=study,
        driver=driver,
        counts=store.counts(study),
        running=tuple(queries.running(store, study, SHOWN)),
        failures=_failures(store, study),
        rate=_rate(store, study, driver),
        best=best[0] if best else None,
        relu=store.baseline(study, "relu"),
    )


def _failures(store: Store, study: Study) -> tuple[Failure, ...]:
    totals: Counter[str] = Counter()
    first: dict[str, int] = {}
    for number, reason in queries.failure_reasons(store, study, FAILURES):
        line = headline(reason)  # reasons differ in their tracebacks
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
    """As plain values, for JSON."""
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
        "best": best["expression"] if best else None,
        **{f"best_{metric.name}": best[metric.name] if best else None for metric in found.study.task.shown},
        **{f"relu_{metric.name}": relu[metric.name] if relu else None for metric in found.study.task.shown},
    }
