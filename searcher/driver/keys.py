"""Keys of studies that older rules keyed.

A study records which rules made its keys (`versions["keys"]`; none: the first). The first rules gave one key to some
functions that differ: one of them was never trained, and cites the result of the other. A search that goes on with such
a study keys it anew in memory and leaves the stored keys as they are; `searcher db rekey` changes the store
(searcher/driver/rekeying.py).
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
    """Return the key of a trial's function by today's rules, or the stored one if its text cannot be read here:
    `maxout(2)` is no expression, and a primitive of a user's own is unknown while its module is not loaded."""
    try:
        return key(parse(trial.expression))
    except SpaceError:
        return trial.key


class PresentKeys:
    """Computes the keys of a study's trials by today's rules, and finds the citations that do not hold by them.

    Trials are asked for in the order in which they ended: a cited trial comes before those that cite it.

    Attributes:
        broken: the trials whose function is not the one that they cite, each with the number of the cited trial.
        changed: how many trials have another key than the store says.
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

    def say_what_changed(self, typed: str) -> None:
        """Log that the study was keyed anew, if it was. `typed` is the study as one types it."""
        if self.changed:
            log.warning(
                "older rules keyed study %s; its %d trials are keyed anew in memory, the database keeps its keys. %d "
                "trials cite the result of another function: to have them trained, stop and run: searcher db rekey %s",
                self._study.name,
                len(self._found),
                len(self.broken),
                typed,
            )
