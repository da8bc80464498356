"""Replace a study's stored keys by keys of today's rules (searcher/driver/keys.py): the work of `searcher db rekey`.

The keys are computed first, page by page, while the lease is renewed. Then one transaction writes them, sets the trials
whose citations are wrong back to WAITING, and closes the gaps that these leave in `finish_order`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from search_space import KEY_RULES, SpaceError, parse
from searcher import SearcherError
from searcher.confirmation import Confirmation
from searcher.driver.journal import Journal
from searcher.driver.keys import PresentKeys, key_of
from searcher.driver.leases import held_lease, renewed
from searcher.records import Study, Trial
from searcher.store import replay
from searcher.store.rekeying import write_keys
from searcher.store.store import Store

Report = Callable[[str, int, int], None]  # the study, how many of its trials have a new key, the number of all


class RekeyRefused(SearcherError):
    """The study's keys cannot be computed now; nothing was written."""


@dataclass(frozen=True, slots=True)
class Reopened:
    """A trial that cited the result of another function, and now waits to be trained.

    Attributes:
        study: the name of the study.
        number, expression: the trial and its function.
        cited, cited_expression: the trial that it cited, and the function of that trial.
    """

    study: str
    number: int
    expression: str
    cited: int
    cited_expression: str


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """The changes to a study.

    Attributes:
        study: the name of the study.
        trials: number of its trials.
        changed: number of trials whose key changed.
        reopened: the trials that now wait to be trained.
    """

    study: str
    trials: int
    changed: int
    reopened: tuple[Reopened, ...]


def check_primitives(study: Study, loaded: Collection[str]) -> None:
    """Refuse a study that uses primitives of modules that are not loaded. Their functions could not be parsed and would
    keep old keys for ever, because the study is marked as having keys of today's rules.

    Args:
        loaded: the modules of primitives that were imported. A module is imported only if the user names it, not
            because the database does.

    Raises:
        RekeyRefused: the study names modules that are not in `loaded`.
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
    """Replace the keys of a study, in one transaction. A study with today's keys stays as it is.

    Raises:
        StudyBusy: a live driver has the study.
        RekeyRefused: results of an outage are not written yet, or a function cannot be parsed.
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
        write_keys(store, lease, study, new, reopened, KEY_RULES, _design(study))
    told = (Reopened(study.name, t.number, t.expression, cited, texts[cited]) for t, cited in keys.broken)
    return Rekeyed(study.name, len(texts), len(new), tuple(told))


def _design(study: Study) -> dict[str, Any] | None:
    """Return the plan of a confirmation with keys of today's rules; None for any other study.

    Raises:
        RekeyRefused: functions of the plan are equal by today's rules.
    """
    if not isinstance(study.config.get("design"), dict):
        return None
    plan = Confirmation.of(study)
    keys = {function.key: key_of(function.expression, function.key) for function in plan.functions}
    if len(set(keys.values())) < len(keys):
        raise RekeyRefused(
            f"functions of the confirmation {study.name!r} are equal by today's rules; nothing was written. Make a new "
            "confirmation"
        )
    functions = tuple(replace(function, key=keys[function.key]) for function in plan.functions)
    return replace(plan, functions=functions, reference=keys[plan.reference]).to_plain()


def _check_readable(study: Study, trial: Trial) -> None:
    """Raise RekeyRefused if a trial's expression cannot be parsed, for example because a module no longer registers one
    of its primitives. `maxout` is not an expression and keeps its key."""
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
    """Yield all trials: first the ended ones in the order of their ends, then the open ones."""
    return chain((trial for trial, _ in replay.ended(store, study, curves=False)), replay.open_trials(store, study))
