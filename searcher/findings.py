"""The findings of a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report of a check.

    Attributes:
        what: the thing that was checked.
        ok: False if something that a search may need is missing or wrong.
        found: the finding in words.
    """

    what: str
    ok: bool
    found: str
