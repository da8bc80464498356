"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report of a check.

    Attributes:
        what: the thing that was looked at.
        ok: False if something is missing that a search may need, or is not as it should be.
        found: what was seen, in words.
    """

    what: str
    ok: bool
    found: str
