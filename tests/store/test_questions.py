"""The ten questions of docs/results.md: each is one statement that both databases answer alike."""

from __future__ import annotations

import re
from typing import Any

import pytest

from searcher.driver import session
from searcher.store import copying
from searcher.store.query import run_query
from searcher.store.store import Store
from tests.support import ROOT
from tests.support.searches import SETTINGS, run

pytestmark = pytest.mark.slow

TEXT = (ROOT / "docs" / "results.md").read_text()
QUESTIONS = re.findall(r"^([^\n]+):\n\n```sql\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with two searches whose results are made up."""
    url = f"sqlite:///{tmp_path_factory.mktemp('searched')}/searcher.db"
    store = Store(url, create=True)
    for seed, name in enumerate(("digits-rnn-1", "digits-rnn-2")):
        settings = SETTINGS.replace(study_name=name, seed=seed)
        run(store, session.create_study(store, settings), settings)
    store.close()
    return url


def test_there_are_ten() -> None:
    assert len(QUESTIONS) >= 10 and TEXT.count("```sql") == len(QUESTIONS)


def test_both_databases_give_the_same_answer(searched: str, postgresql_url: str) -> None:
    copying.copy(searched, postgresql_url, [], lambda *_: None)
    for question, statement in QUESTIONS:
        answers = [rounded(run_query(url, statement)) for url in (searched, postgresql_url)]
        assert answers[0], f"{question}: no rows"
        assert answers[0] == answers[1], question


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """SQLite reads the last digit of a number in JSON less exactly, and has no type for JSON."""
    return [
        {name: float(f"{value:.12g}") if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]


def test_what_the_answers_say(searched: str) -> None:
    answers = {question: run_query(searched, statement) for question, statement in QUESTIONS}
    best, curve = answers[QUESTIONS[0][0]], answers[QUESTIONS[1][0]]
    assert best[0]["val_acc"] == max(row["val_acc"] for row in best) > 0.5
    assert curve[0]["step"] == 1 and curve[0]["train_loss"] > curve[0]["val_loss"]
    beats = answers["What beats ReLU"]
    store = Store(searched)
    relu = store.baseline(store.study("digits-rnn-1"), "relu")
    store.close()
    assert relu and all(row["value"] < relu["val_loss"] for row in beats)
