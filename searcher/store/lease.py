"""Who may write to a study: one driver at a time, by a lease that it renews."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from searcher import SearcherError


def in_words(holder: str) -> str:
    """A driver without what only programs know it by."""
    return holder.partition(" (")[0]


def process_of(holder: str) -> str:
    """A driver in short: its process and machine, without when it was started."""
    return holder.partition(", started ")[0]


class StudyBusy(SearcherError):
    """Another live driver holds the study."""

    def __init__(self, study: str, typed: str, holder: str, generation: int, expires_in: float) -> None:
        super().__init__(
            f"study {study!r} is being driven by {in_words(holder)}; end that first: searcher stop {typed}, or wait "
            "for it"
        )
        self.holder, self.generation, self.expires_in = holder, generation, expires_in


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
