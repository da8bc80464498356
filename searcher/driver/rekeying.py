"""`searcher db rekey` makes a study's keys anew in the store, by today's rules (searcher/driver/keys.py).

Keys are computed first, page by page, while the lease is kept. Then one transaction changes them, opens the trials
whose citations no longer hold, and closes the gaps that these leave in the order of ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain

from search_space import KEY_RULES, SpaceError, parse
from searcher import SearcherError
from searcher.driver.journal import Journal
from searcher.driver.keys import PresentKeys
from searcher.driver.leases import held_lease, renewed
from searcher.records import Study, Trial
from searcher.store import replay
from searcher.store.rekeying import write_keys
from searcher.store.store import Store

Report = Callable[[str, int, int], None]  # study, its trials that are keyed, all of them


class RekeyRefused(SearcherError):
    """The study cannot be keyed anew now; nothing was written."""


@dataclass(frozen=True, slots=True)
class Reopened:
    """A trial that cited the result of another function, and now waits to be trained. `cited` is that function's
    trial."""

    study: str
    number: int
    expression: str
    cited: int
    cited_expression: str


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What was done to a study: how many trials have another key than before, and which wait to be trained."""

    study: str
    trials: int
    changed: int
    reopened: tuple[Reopened, ...]


def check_primitives(study: Study, loaded: Collection[str]) -> None:
    """Refuse to key a study whose words cannot all be read: unread functions would keep the keys of older rules for
    ever, for the study is then marked as keyed by today's.

    Args:
        loaded: the modules of primitives that have been imported. What a database names is not imported unasked.

    Raises:
        RekeyRefused: the study names modules that are not among them.
    """
    named = study.config.get("primitives")
    missing = [name for name in (named if isinstance(named, list) else ()) if name not in loaded]
    if missing:
        raise RekeyRefused(
            f"study {study.name!r} has functions with the primitives of {', '.join(map(str, missing))}, which are not "
            "loaded; nothing was written. If you know them, name them: searcher db rekey --primitives "
            f"{','.join(map(str, missing))}"
        )


def rekey(store: Store, study: Study, report: Report) -> Rekeyed:
    """Key a study anew, in one transaction. A study that today's rules keyed stays as it is.

    Raises:
        StudyBusy: a live driver has the study.
        RekeyRefused: results of an outage are still to be written; a function cannot be read.
        StoreError: the database cannot be used.
    """
    if Journal.left(study):
        raise RekeyRefused(
            f"study {study.name!r} has results on this machine that an outage kept from the database; nothing was "
            f"written. Write them first: searcher resume {store.typed(study.name)}"
        )
    keys, texts, new = PresentKeys(study), dict[int, str](), dict[int, str]()
    total = store.size(study)
    with held_lease(store, study) as lease:
        with renewed(store, lease):
            for trial in _trials(store, study):
                _check_readable(study, trial)
                found = keys.of(trial)
                texts[trial.number] = trial.expression
                if found != trial.key:
                    new[trial.number] = found
                report(study.name, len(texts), total)
        reopened = [trial for trial, _ in keys.broken]
        write_keys(store, lease, study, new, reopened, KEY_RULES)
    told = (Reopened(study.name, t.number, t.expression, cited, texts[cited]) for t, cited in keys.broken)
    return Rekeyed(study.name, len(texts), len(new), tuple(told))


def _check_readable(study: Study, trial: Trial) -> None:
    """Refuse a function whose text cannot be read, perhaps because a module no longer registers a word of it. Only
    `maxout`, which is no expression, has a key of its own."""
    try:
        parse(trial.expression)
    except SpaceError as error:
        if trial.name == "maxout":
            return
        why = str(error).partition("\n")[0]
        raise RekeyRefused(
            f"trial {trial.number} of study {study.name!r} cannot be read: {trial.expression!r} ({why}); nothing was "
            "written. If a module of primitives has changed since, put it back as it was"
        ) from error


def _trials(store: Store, study: Study) -> Iterator[Trial]:
    """Yield all trials: first those that have ended, in that order, then the open ones."""
    return chain((trial for trial, _ in replay.ended(store, study, curves=False)), replay.open_trials(store, study))
