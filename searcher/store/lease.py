"""Who may write to a study: one driver at a time, by a lease that it renews."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from searcher import SearcherError


def in_words(holder: str) -> str:
    """A driver without what older searchers wrote behind it for programs."""
    return holder.partition(" (")[0]


def process_of(holder: str) -> str:
    """A driver in short: its process and machine, without when it was started."""
    return holder.partition(", started ")[0]


@dataclass(frozen=True, slots=True)
class ProcessId:
    """What tells a process from all others.

    Attributes:
        pid: Its number.
        machine: The name of its machine.
        boot: Stands for the boot of the machine and the namespaces in which numbers and times of processes are counted.
            Empty where that is not known.
        began: When it began, in ticks since the boot; empty where that is not known.
    """

    pid: int
    machine: str
    boot: str = ""
    began: str = ""


class StudyBusy(SearcherError):
    """Another live driver holds the study. `process` is None if an older searcher drives it."""

    def __init__(
        self, study: str, typed: str, holder: str, process: ProcessId | None, generation: int, expires_in: float
    ) -> None:
        super().__init__(
            f"study {study!r} is being driven by {in_words(holder)}; end that first: searcher stop {typed}, or wait "
            "for it"
        )
        self.holder, self.process, self.generation, self.expires_in = holder, process, generation, expires_in


class LeaseLost(SearcherError):
    """Another driver has taken the study over; nothing was written."""


class NotDriven(SearcherError):
    """Nobody drives the study."""


def _new_writer() -> int:
    return secrets.randbelow(2**31 - 2**20) + 2**20  # what SQL calls an integer; older searchers had generations


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to one study. Its holder is known by `writer` among all drivers of the study and of its
    copies, among which generations occur twice."""

    study_id: int
    generation: int
    writer: int = field(default_factory=_new_writer)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a study has been written: the serial of its last batch, and the `Lease.writer` that wrote it."""

    serial: int
    writer: int


@dataclass(frozen=True, slots=True)
class Driver:
    """Who drives a study, or drove it last. Times are in seconds by the database's clock: how long ago it took the
    study, and how long ago it was last heard of (None once it has given the study back). `writer` wrote last."""

    holder: str
    generation: int
    writer: int
    live: bool
    asked_to_stop: bool
    since: float
    heard: float | None
