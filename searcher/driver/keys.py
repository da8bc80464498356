"""Compute keys by today's rules for studies whose stored keys were made by older rules.

A study records which rules made its keys (`versions["keys"]`; the first rules if it is missing). The first rules gave
the same key to some functions that differ, so that one of them was never trained and cites the result of the other. A
session of such a study computes today's keys in memory and leaves the stored keys as they are; `searcher db rekey`
changes the store (searcher/driver/rekeying.py).
"""

from __future__ import annotations

import logging

from search_space import KEY_RULES, SpaceError, key, parse
from searcher.records import Study, Trial

log = logging.getLogger("searcher")


def is_current(study: Study) -> bool:
    """Return True if today's rules made the study's keys."""
    return str(study.versions.get("keys", 1)) == str(KEY_RULES)


def present_key(trial: Trial) -> str:
    """Return the key of a trial's function by today's rules; see `key_of`."""
    return key_of(trial.expression, trial.key)


def key_of(expression: str, stored: str) -> str:
    """Return the key of a function by today's rules, or the stored key if the text cannot be parsed here: `maxout(2)`
    is not an expression, and a user's own primitive is unknown while its module is not loaded."""
    try:
        return key(parse(expression))
    except SpaceError:
        return stored


class PresentKeys:
    """Computes the keys of a study's trials by today's rules, and finds the citations that are wrong by these rules.

    `of` must be called for the trials in the order in which they ended, so that a cited trial comes first.

    Attributes:
        broken: the trials that cite another function's result, each with the number of the cited trial.
        changed: number of trials whose key differs from the stored one.
    """

    def __init__(self, study: Study) -> None:
        self._study, self._current = study, is_current(study)
        self._found: dict[int, str] = {}  # by number
        self.broken: list[tuple[Trial, int]] = []
        self.changed = 0

    def of(self, trial: Trial) -> str:
        """Return the key of a trial's function."""
        if self._current:
            return trial.key
        found = self._found[trial.number] = present_key(trial)
        self.changed += found != trial.key
        if trial.cites is not None and self._found.get(trial.cites) != found:
            self.broken.append((trial, trial.cites))
        return found

    def log_changes(self, typed: str) -> None:
        """Log that keys of the study differ from the stored ones, if any do. `typed` is the study's name as typed in a
        shell."""
        if self.changed:
            log.warning(
                "older rules made the keys of study %s; the keys of its %d trials are computed anew in memory, and the "
                "database keeps the old ones. %d trials cite the result of another function: to have them trained, "
                "stop and run: searcher db rekey %s",
                self._study.name,
                len(self._found),
                len(self.broken),
                typed,
            )
