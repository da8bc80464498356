"""Studies that were keyed by older rules: they go on with keys made anew in memory, and `searcher db rekey`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from search_space import KEY_RULES, key, parse
from searcher.driver import keys, leases, session
from searcher.driver.journal import Journal
from searcher.driver.keys import is_current
from searcher.driver.rekeying import RekeyRefused, rekey
from searcher.records import Study, Trial, TrialState
from searcher.reports.confirmed import Confirmed
from searcher.store import database, schema
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support import confirmations
from tests.support.commands import Cli
from tests.support.searches import SETTINGS, judge, run
from workers.pools.base import InlinePool

pytestmark = pytest.mark.slow

OLD_KEY = "0123456789abcdef"
WRONG = ["max(max(x, 0), erf(min(abs(x), beta * x)))", "sign(beta) * max(x, 0)"]  # row K1's kind: they had ReLU's key


def change(store: Store, number: int, **values: Any) -> None:
    execute(store, sa.update(schema.trial).where(schema.trial.c.number == number).values(**values))


def execute(store: Store, statement: sa.Executable) -> None:
    engine = database.engine_of(store.url, create=False)
    with engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()


def as_of_old(store: Store) -> tuple[Study, list[int]]:
    """A finished study of 24 trials in which older rules gave two functions the key of ReLU: they cite it. The numbers
    of these two."""
    study = session.create_study(store, SETTINGS.replace(n_trials=24, study_name="old"))
    run(store, study, SETTINGS.replace(n_trials=24))
    trials = store.trials(study)
    relu = trials[0]
    cited = {trial.cites for trial in trials}
    free = [t for t in trials if t.number > 5 and t.cites is None and t.number not in cited and not t.refused]
    chosen = [free[0], free[-1]]
    for trial, text in zip(chosen, WRONG, strict=True):
        result = {name: getattr(relu, name) for name in ("value", "merit", "tie_merit", "metrics", "parameters")}
        execute(store, sa.delete(schema.point).where(schema.point.c.number == trial.number))
        copy = {"expression": text, "key": relu.key, "state": relu.state, "reason": "", "cites": 0, **result}
        change(store, trial.number, **copy)
    for trial in store.trials(study):
        if trial.key == relu.key:
            change(store, trial.number, key=OLD_KEY)
    versions = {name: version for name, version in study.versions.items() if name != "keys"}
    execute(store, sa.update(schema.study).values(versions=versions))
    with leases.held_lease(store, study) as lease:  # its tally is counted anew
        store.commit(lease, Batch())
    return store.study("old"), [trial.number for trial in chosen]


def whole(store: Store, cli: Cli) -> bool:
    return cli("db", "check", "--storage", store.url.render_as_string(hide_password=False)).returncode == 0


def test_a_new_study_says_by_which_rules_it_is_keyed(store: Store) -> None:
    assert is_current(session.create_study(store, SETTINGS))


def test_an_old_study_goes_on_with_keys_made_anew_in_memory(
    store: Store, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part of row K1: a function that was merged wrongly is trained when it comes again."""
    study, _ = as_of_old(store)
    assert whole(store, cli)
    said: list[str] = []
    monkeypatch.setattr(keys.log, "warning", lambda text, *arguments: said.append(text % arguments))
    before = store.trials(study)
    with leases.held_lease(store, study) as lease:
        study = session.extended(store, lease, study, 40)
        pool = InlinePool(run=judge)
        list(session.search(store, lease, study, SETTINGS.replace(n_trials=40), pool, lambda: False))
        pool.close()
    (text,) = [text for text in said if "older rules made the keys of study old" in text]
    assert "2 trials cite the result of another function" in text and "searcher db rekey old" in text
    after = store.trials(study)
    assert after[:24] == before and len(after) == 40  # what was stored stays
    relus = [t for t in after[24:] if key(parse(t.expression)) == key(parse("max(x, 0)"))]
    assert all(t.cites == 0 and t.key == OLD_KEY for t in relus)
    assert whole(store, cli)  # also: who cites has the key of the cited trial
    assert not is_current(store.study("old"))


def test_rekey_opens_the_trials_whose_citations_do_not_hold(store: Store, cli: Cli) -> None:
    study, wrong = as_of_old(store)
    before = store.trials(study)
    storage = ("--storage", store.url.render_as_string(hide_password=False))
    done = cli("db", "rekey", "old", *storage, "-f", "json")
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert [(row["number"], row["expression"], row["cited"]) for row in listed] == [
        (number, text, 0) for number, text in zip(wrong, WRONG, strict=True)
    ]
    study, after = store.study("old"), store.trials(study)
    assert is_current(study) and whole(store, cli)
    waiting = [t for t in after if t.state is TrialState.WAITING]
    assert [t.number for t in waiting] == wrong
    assert all((t.value, t.cites, t.finish_order, t.reason) == (None, None, None, "") for t in waiting)
    ended = [t for t in after if t.state.finished]
    assert [t.key for t in after] == [key(parse(t.expression)) for t in after]
    by_end = sorted(ended, key=lambda t: t.finish_order or 0)
    assert [t.finish_order for t in by_end] == list(range(22))
    as_before = sorted((t for t in before if t.number not in wrong), key=lambda t: t.finish_order or 0)
    assert [t.number for t in by_end] == [t.number for t in as_before]
    assert [_but_key(t) for t in by_end] == [_but_key(t) for t in as_before]

    run(store, study, SETTINGS.replace(n_trials=24))
    trained = store.trials(study)
    assert all(t.state.finished for t in trained)
    assert all(trained[number].cites is None for number in wrong)
    assert whole(store, cli)
    assert "nothing was written" in cli("db", "rekey", *storage).stdout


def _but_key(trial: Trial) -> Trial:
    return replace(trial, key="", finish_order=None)


def test_rekey_says_what_it_did(store: Store, cli: Cli) -> None:
    as_of_old(store)
    done = cli("db", "rekey", "--storage", store.url.render_as_string(hide_password=False))
    assert done.returncode == 0
    assert "study 'old': 24 trials, " in done.stdout and "2 wait to be trained" in done.stdout
    assert "searcher resume old" in done.stdout and WRONG[0] in done.stdout


def test_rekey_refuses_a_study_that_is_driven_or_has_results_to_write(store: Store, cli: Cli) -> None:
    study, _ = as_of_old(store)
    storage = ("--storage", store.url.render_as_string(hide_password=False))
    before = store.trials(study)
    with leases.held_lease(store, study) as lease, leases.renewed(store, lease):
        refused = cli("db", "rekey", "old", *storage)
        assert refused.returncode == 1 and "is being driven by" in refused.stderr
        journal = Journal.of(study, lease)
        journal.append(Batch(serial=1))
    with pytest.raises(RekeyRefused, match="searcher resume old"):
        rekey(store, study, lambda *_: None)
    journal.path.unlink()
    unknown = cli("db", "rekey", "none", *storage)
    assert unknown.returncode == 1 and "no study 'none'" in unknown.stderr
    assert store.trials(study) == before and not is_current(store.study("old"))


def test_maxout_keeps_its_key(store: Store) -> None:
    study, _ = as_of_old(store)
    change(store, 1, name="maxout", kind="baseline", expression="maxout(2)", key="maxout(2)")
    rekey(store, study, lambda *_: None)
    assert store.trials(study)[1].key == "maxout(2)"


def test_rekey_refuses_a_text_that_cannot_be_read(store: Store, cli: Cli) -> None:
    """A module may no longer register a word: its functions would keep their old keys in a study keyed anew."""
    study, _ = as_of_old(store)
    change(store, 1, expression="bent(x)")
    before = store.trials(study)
    refused = cli("db", "rekey", "old", "--storage", store.url.render_as_string(hide_password=False))
    assert refused.returncode == 1 and "trial 1 of study 'old' cannot be read: 'bent(x)'" in refused.stderr
    assert store.trials(study) == before and not is_current(store.study("old"))


def test_rekey_asks_for_the_primitives_of_a_study(store: Store, cli: Cli) -> None:
    """A function that cannot be read would keep its old key, in a study that counts as keyed by today's rules."""
    study, _ = as_of_old(store)
    execute(store, sa.update(schema.study).values(config={**study.config, "primitives": ["mine.bents"]}))
    refused = cli("db", "rekey", "old", "--storage", store.url.render_as_string(hide_password=False))
    assert refused.returncode == 1 and "searcher db rekey --primitives mine.bents" in refused.stderr
    assert not is_current(store.study("old"))


def test_the_number_of_the_rules_is_the_one_of_the_keys() -> None:
    """Whoever changes a key changes this number too, and this test with it."""
    assert (KEY_RULES, key(parse("x * sigmoid(beta * x)"))) == (2, "15218bdec2db8e65")


def test_a_confirmation_keeps_its_results(store: Store, cli: Cli) -> None:
    """Seen to fail: the plan kept the old keys, so that no training of it was found any more, and all were repeated."""
    study = confirmations.make(store, *confirmations.plan())
    run(store, study, confirmations.SETTINGS, InlinePool(run=confirmations.Judge()))
    before = Confirmed.of(store, study).rows()
    old = dict(study.config["design"])
    for place, function in enumerate(old["functions"]):
        execute(store, sa.update(schema.trial).where(schema.trial.c.key == function["key"]).values(key=f"old{place}"))
    old |= {"functions": [{**one, "key": f"old{place}"} for place, one in enumerate(old["functions"])]}
    versions = {name: version for name, version in study.versions.items() if name != "keys"}
    config = {**study.config, "design": {**old, "reference": "old0"}}
    execute(store, sa.update(schema.study).values(versions=versions, config=config))
    assert Confirmed.of(store, store.study("c")).rows() == before
    done = cli("db", "rekey", "c", "--storage", store.url.render_as_string(hide_password=False))
    assert done.returncode == 0, done.stderr
    found = Confirmed.of(store, store.study("c"))
    assert found.rows() == before and found.finished
    assert found.plan.reference == key(parse("max(x, 0)")) and whole(store, cli)
    judge = confirmations.Judge()
    run(store, found.study, confirmations.SETTINGS, InlinePool(run=judge))
    assert not judge.runs
