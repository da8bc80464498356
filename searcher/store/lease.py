"""The lease of a study. Only its holder may write to the study, and must renew it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from searcher import SearcherError


def in_words(holder: str) -> str:
    """Return the description of a driver without the part that older versions added for programs."""
    return holder.partition(" (")[0]


def process_of(holder: str) -> str:
    """Return the process and the machine of a driver's description, without the time of its start."""
    return holder.partition(", started ")[0]


@dataclass(frozen=True, slots=True)
class ProcessId:
    """The identity of a process.

    Attributes:
        pid: the number of the process.
        machine: the name of its machine.
        boot: a digest of the machine's boot and of the namespaces of process numbers and times; empty if not known.
        began: when the process began, in ticks since the boot; empty if not known.
    """

    pid: int
    machine: str
    boot: str = ""
    began: str = ""


class StudyBusy(SearcherError):
    """Another driver holds the study's lease.

    Attributes:
        holder: that driver, in words.
        process: the identity of its process; None if an older version drives the study.
        generation: the generation of its lease.
        expires_in: seconds until its lease expires.
    """

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
    """No process drives the study."""


def _new_writer() -> int:
    return secrets.randbelow(2**31 - 2**20) + 2**20  # fits an SQL integer; older versions wrote generations, from 1


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to one study.

    Attributes:
        study_id: the id of the study in the database.
        generation: counts the drivers of the study. Copies of a study may have drivers of the same generation.
        writer: a random number, different for all drivers of the study and of its copies.
    """

    study_id: int
    generation: int
    writer: int = field(default_factory=_new_writer)


@dataclass(frozen=True, slots=True)
class Position:
    """The last batch written to a study.

    Attributes:
        serial: the number of the batch.
        writer: the `Lease.writer` of the driver that wrote it.
    """

    serial: int
    writer: int


@dataclass(frozen=True, slots=True)
class Driver:
    """The driver of a study, or the last one that it had.

    Attributes:
        holder: the driver, in words; empty if the study never had one.
        generation: the generation of its lease.
        writer: the `Lease.writer` that wrote the last batch.
        live: True if its lease has not expired.
        asked_to_stop: True if `searcher stop` has asked it to end.
        since: seconds since it took the lease, by the database's clock.
        heard: seconds since its last write, by the database's clock; None if it gave the lease back.
    """

    holder: str
    generation: int
    writer: int
    live: bool
    asked_to_stop: bool
    since: float
    heard: float | None
