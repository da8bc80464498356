"""Rows that somebody has edited by hand: every command says so in one line, and ends."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.commands import Done, called

pytestmark = pytest.mark.slow

FAST = ("--pool", "inline", "--limit-train", "100", "--width", "4", "--epochs", "1", "--baselines", "relu")
COMMANDS = {
    "status": ("status", "s"),
    "studies": ("studies",),
    "top": ("top", "s"),
    "trial": ("trial", "s", "1"),
    "export": ("export", "s", "out.csv", "--force"),
    "stop": ("stop", "s", "--within", "1"),
    "copy": ("db", "copy", "sqlite:///searcher.db", "sqlite:///copy.db"),
    "check": ("db", "check"),
    "resume": ("resume", "s", "--pool", "inline", "--n-trials", "4"),
}
READING = ("status", "studies", "top", "trial", "export", "stop", "copy", "resume")
DEEP = "[" * 3000 + "]" * 3000
SET = "UPDATE searcher_study SET"
# What is done to the rows, and the commands that cannot do their work then; `db check` always finds it.
EDITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "settings that are a list": (f"{SET} config = '[1,2]'", READING),
    "settings that are null": (f"{SET} config = 'null'", READING),
    "settings that are no JSON": (f"{SET} config = '{{'", READING),
    "settings that are deep": (f"{SET} config = '{DEEP}'", READING),
    "versions that are a list": (f"{SET} versions = '[1]'", READING),
    "an unknown kind of study": (f"{SET} kind = 'nope'", READING),
    "no task configuration": ("DELETE FROM searcher_task_config", READING),
    "an unknown objective": ("UPDATE searcher_task_config SET objective = 'nope'", READING),
    "an unknown direction": ("UPDATE searcher_task_config SET direction = 'up'", READING),
    "a declaration of another kind": ("UPDATE searcher_task_config SET declaration = '[1]'", READING),
    "a task that is no JSON": ("UPDATE searcher_task_config SET config = '{{'", READING),
    "a total that is a text": (f"{SET} n_trials = 'many'", ("status", "resume")),
    "a date that is none": (f"{SET} created_at = 'yesterday'", READING),
    "no lease": ("DELETE FROM searcher_lease", ("status", "resume", "stop")),
    "a lease that ends with a word": ("UPDATE searcher_lease SET expires_at = 'soon'", ("status", "resume")),
    "an unknown kind": ("UPDATE searcher_trial SET kind = 'nope' WHERE number = 1", ("trial", "export", "resume")),
    "an unknown state": ("UPDATE searcher_trial SET state = 'NOPE' WHERE number = 1", ("trial", "export", "resume")),
    "choices that are no JSON": ("UPDATE searcher_trial SET choices = '{' WHERE number = 1", ("trial", "export")),
}
# Edits that `db check` has no rule for, each with the words that resume says.
STORED = {
    "$.x": ("1", "unknown setting 'x'"),
    "$.units": ('"a"', "units must be a whole number"),
    "$.threads": ("1000000", "--threads must be at most 1024"),
    "$.space": ('"nope"', "unknown space 'nope'"),
    "$.sampler": ('"nope"', "unknown sampler 'nope'"),
    "$.dataset": ("[1]", "dataset must be text"),
    "$.sampler_kwargs": ('{"batch": 0}', "batch must be positive"),
    "$.baselines": ('["((("]', "((("),
    "$.model_kwargs": (f'{{"a": {"[" * 60}{"]" * 60}}}', "nested more than 50 deep"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a study of three trials that are done."""
    place = tmp_path_factory.mktemp("made")
    assert called(place, "launch", "--study-name", "s", *FAST, "--n-trials", "3").returncode == 0
    return place / "searcher.db"


def edited(made: Path, place: Path, sql: str) -> None:
    for old in place.iterdir():
        old.unlink()
    shutil.copy(made, place / "searcher.db")
    with closing(sqlite3.connect(place / "searcher.db")) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(sql)


def is_one_line(done: Done, command: str) -> bool:
    """Whether it failed with one line; a resume may have begun, and says so in others."""
    lines = done.stderr.splitlines()
    well = done.returncode == 1 and lines[-1].startswith("searcher: ") and "Traceback" not in done.stderr
    return well and (len(lines) == 1 or command == "resume")


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_row_is_said(made: Path, tmp_path: Path, what: str) -> None:
    """Row R12: rows edited by hand, every command. Covers settings, versions, dates, leases and trials."""
    sql, stopped = EDITS[what]
    for command, words in COMMANDS.items():
        edited(made, tmp_path, sql)
        done = called(tmp_path, *words)
        assert done.returncode in (0, 1) and "Traceback" not in done.stderr, (command, done)
        if command in stopped:
            assert is_one_line(done, command), (command, done)
        if command == "check":
            assert done.returncode == 1 and "NO  " in done.stdout, done


@pytest.mark.parametrize("path", STORED)
def test_an_edited_setting_is_the_studys_fault(made: Path, tmp_path: Path, path: str) -> None:
    """Row R12: unknown keys and values in the stored settings; status 1, for who resumes has asked rightly."""
    value, words = STORED[path]
    edited(made, tmp_path, f"{SET} config = json_set(config, '{path}', json('{value}'))")
    done = called(tmp_path, *COMMANDS["resume"])
    assert is_one_line(done, "") and words in done.stderr and "study 's'" in done.stderr, done.stderr
    for command in ("status", "studies", "top", "trial", "export", "copy"):
        done = called(tmp_path, *COMMANDS[command])
        assert done.returncode == 0, (command, done)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SET serial = 9223372036854775807", "9223372036854775807 batches"),
        ("SET serial = -1", "-1 batches"),
        ("SET expires_at = 1e308", "its lease is to last"),
    ],
)
def test_an_edited_lease_is_said(made: Path, tmp_path: Path, sql: str, words: str) -> None:
    """Row R12: a serial of 2^63-1. Covers a lease without end, which would be waited for."""
    edited(made, tmp_path, f"UPDATE searcher_lease {sql}")
    done = called(tmp_path, *COMMANDS["resume"])
    assert done.returncode == 1 and "Traceback" not in done.stderr and words in done.stderr, done.stderr
    if "serial" in sql:
        checked = called(tmp_path, *COMMANDS["check"])
        assert checked.returncode == 1 and words in checked.stdout


def test_a_trial_that_was_opened_by_hand_is_said(made: Path, tmp_path: Path) -> None:
    """Row R12: the trial keeps its learning curve, so its new one has no room. The way out is named."""
    sql = "state = 'WAITING', finish_order = NULL, value = NULL, merit = NULL WHERE number = 1"
    edited(made, tmp_path, f"UPDATE searcher_trial SET {sql}")
    done = called(tmp_path, *COMMANDS["resume"])
    assert is_one_line(done, "resume") and "see: searcher db check" in done.stderr.splitlines()[-1], done.stderr
