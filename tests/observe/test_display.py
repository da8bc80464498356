"""What others have written (names, exceptions, cells) cannot reach a terminal or a log as control characters."""

from __future__ import annotations

import csv
import io
import json
import logging
import sqlite3
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from searcher.commands.console import Format, print_rows
from searcher.display import headline, is_plain, shown
from searcher.driver import session
from searcher.observe import logs
from searcher.records import Kind, Trial, TrialState
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.commands import Capture, Cli
from tests.support.made import result
from tests.support.searches import SETTINGS, judge, run
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool
from workers.text import LIMIT, limited

pytestmark = pytest.mark.slow

# ESC, BEL, newline, carriage return, C1's CSI, NEL, DEL, separators, overrides and isolates, zero width, a soft hyphen.
HOSTILE = "a\x1b[2J\x07\nok  forged: line\r\x9b31m\x85\x7f\u2028\u2029\u202e\u2066\u200b\ufeff\xadz"
FORGED = ("ok  forged", "12:00:00 forged")


def hidden(text: str) -> set[str]:
    """The characters that must not be on a terminal."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("searcher")
    before = root.handlers[:], root.level, own.level, sys.excepthook
    yield
    for handler in set(root.handlers) - set(before[0]):
        handler.close()
    root.handlers, root.level, own.level, sys.excepthook = before


def test_each_hidden_character_is_escaped_and_each_visible_one_kept() -> None:
    """Rows E6, R9: all of Unicode."""
    for character in map(chr, range(0x110000)):
        one = f"a{character}b"
        if hidden(character) or character == "\n":
            assert shown(one).isascii() and shown(one).isprintable() and not is_plain(one)
        else:
            assert shown(one) == one and is_plain(one)
    assert shown("a\nb\x1b\tc", lines=True) == "a\nb\\x1b\\tc"
    assert shown(shown(HOSTILE)) == shown(HOSTILE), "once is enough"


@pytest.fixture
def edited(sqlite_url: str) -> str:
    """A database into which someone has written hostile text wherever it holds text of others."""
    store = Store(sqlite_url, create=True)
    study = session.create_study(store, SETTINGS.replace(study_name="s", baselines=("none",), n_trials=3))
    lease = store.acquire(study, "process 1 on host, started then")
    bad = {"reason": HOSTILE, "worker": HOSTILE, "expression": "x"}
    failed = Trial(0, Kind.CANDIDATE, key="k0", seed=0, state=TrialState.FAILED, finish_order=0, **bad)
    done = result(replace(failed, number=1, key="k1"), 0.5, finish_order=1)
    store.commit(lease, Batch(added=[failed, done]))
    store.close()
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE searcher_study SET name = ?", [HOSTILE])
        connection.execute("UPDATE searcher_trial SET expression = ? WHERE number = 1", [HOSTILE])
        connection.execute("UPDATE searcher_lease SET holder = ?", [f"process 7 on {HOSTILE}, started then"])
        connection.execute("UPDATE searcher_task_config SET data_digest = ?", [HOSTILE])
        versions = json.dumps({"torch": HOSTILE, "searcher": HOSTILE})
        connection.execute("UPDATE searcher_study SET versions = ?", [versions])
    return sqlite_url


COMMANDS = [
    ("studies",),
    ("status", HOSTILE),
    ("top", HOSTILE),
    ("top", HOSTILE, "-f", "markdown"),
    ("top", HOSTILE, "-f", "yaml"),
    ("top", HOSTILE, "-f", "json"),
    ("trial", HOSTILE, "0"),
    ("trial", HOSTILE, "9"),
    ("trial", HOSTILE, "0", "-f", "yaml"),
    ("stop", HOSTILE, "--no-wait"),
    ("stop", HOSTILE, "--within", "0"),
    ("resume", HOSTILE, "--pool", "inline"),
    ("top", "another"),
    ("launch", "--study-name", HOSTILE, "--pool", "inline"),
    ("db", "check"),
    ("query", 'SELECT name, reason, expression AS "e\x1b[1m\nx" FROM searcher_study, searcher_trial'),
    ("query", f"SELECT '{HOSTILE}' AS a, nope"),
    ("query", "SELECT reason FROM searcher_trial", "-f", "markdown"),
    ("--log-format", "json", "top", "another"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[:30].encode("unicode_escape").decode())
def test_no_command_prints_what_is_hidden(edited: str, words: tuple[str, ...], cli: Cli) -> None:
    """Rows E6, R9: names, reasons, cells, heads, holders, versions and errors of every command; no line is forged."""
    done = cli(*words, "--storage", edited)
    assert "Traceback" not in done.stderr
    assert hidden(done.stdout + done.stderr) == set()
    # A traceback keeps its lines; it stands alone, after a table.
    lines = [] if words[:3] == ("trial", HOSTILE, "0") else (done.stdout + done.stderr).splitlines()
    assert not [line for line in lines if line.strip().startswith(FORGED)]


def test_a_copy_says_nothing_hidden(edited: str, cli: Cli) -> None:
    """Row R9: `db copy`, and what it says of a name that is taken."""
    with closing(sqlite3.connect(edited.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE searcher_lease SET expires_at = 0")
    for _ in range(2):
        done = cli("db", "copy", edited, "sqlite:///copy.db")
        assert hidden(done.stdout + done.stderr) == set()
    assert done.returncode == 1 and "has a study of that name already" in done.stderr


def test_data_for_programs_is_what_the_database_holds(edited: str, cli: Cli) -> None:
    """Row R9: JSON and YAML escape by their own rules, CSV in a file or a pipe is as it is."""
    sql = "SELECT reason FROM searcher_trial WHERE number = 0"
    printed = {
        output: cli("query", sql, "--storage", edited, "-f", output).stdout for output in ("json", "yaml", "csv")
    }
    assert json.loads(printed["json"]) == yaml.safe_load(printed["yaml"]) == [{"reason": HOSTILE}]
    assert list(csv.reader(io.StringIO(printed["csv"], newline="")))[1] == [HOSTILE]
    assert hidden(printed["json"] + printed["yaml"]) == set()
    cli("export", HOSTILE, "out.csv", "--storage", edited)
    exported = io.StringIO(Path("out.csv").read_bytes().decode(), newline="")
    assert next(csv.DictReader(exported))["reason"] == HOSTILE


def test_text_of_other_languages_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Row R9: only what is hidden is escaped."""
    for output in (Format.table, Format.yaml, Format.markdown, Format.csv):
        print_rows([{"имя": "слой 日本語 é"}], output)
        printed = capsys.readouterr().out
        assert "имя" in printed and "слой 日本語 é" in printed


def test_csv_on_a_terminal_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R9: there it is for people."""
    out = Capture()
    monkeypatch.setattr(out, "isatty", lambda: True)
    with redirect_stdout(out):
        print_rows([{"a\x1b": HOSTILE}], Format.csv)
    assert hidden(out.text()) == set() and out.text().count("\n") == 2


@pytest.mark.parametrize(
    "bad", ["\x1b", "\x07", "\n", "\t", "\x7f", "\x9b", "\u202e", "\u2067", "\u200d", "\u2028", "\udc9b"]
)
def test_names_with_hidden_characters_are_refused(bad: str, cli: Cli, tmp_path: Path) -> None:
    """Rows E6, R9: of studies and of baselines, on the command line and in a file."""
    done = cli("launch", "--study-name", f"a{bad}b", "--pool", "inline")
    assert done.returncode == 2 and "--study-name must be" in done.stderr and done.stderr.count("\n") == 1
    other = cli("launch", "--study-name", "s", "--baselines", f"re{bad}lu", "--pool", "inline")
    if bad not in "\n\t":  # blanks are nothing in an expression
        assert other.returncode == 2
    assert other.returncode == 2 and hidden(other.stderr) == set()
    (tmp_path / "e.toml").write_text(f"study_name = {json.dumps(f'a{bad}b')}", encoding="utf-8", errors="replace")
    assert cli("launch", "e.toml").returncode == 2
    assert not (tmp_path / "searcher.db").exists()


def logged(form: logs.LogFormat, file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What the terminal and the file have of hostile records."""
    logs.set_up(0, form, file)
    log = logging.getLogger("searcher")
    log.warning("trial of %s has failed", HOSTILE)
    log.warning("one\n12:00:00 forged\n  12:00:00 forged")
    logs.say(f"settings of {HOSTILE}:\n  seed: 1\n  name: \x1b", logging.ERROR)
    logs.Printed().write(f"\x1b[36m(pid=7)\x1b[0m {HOSTILE}\n12:00:00 forged\n")
    try:
        raise RuntimeError(f"{HOSTILE}\n12:00:00 forged")
    except RuntimeError:
        log.critical("an error in this program", exc_info=True)
    return capsys.readouterr().err, file.read_text(encoding="utf-8")


def test_log_records_cannot_be_forged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row R9: a record begins a line, nothing else does; tracebacks keep their lines, indented."""
    for text in logged(logs.LogFormat.text, tmp_path / "run.log", capsys):
        assert hidden(text) == set()
        assert not [line for line in text.splitlines() if line.startswith(FORGED)]
        assert "\n  seed: 1\n  name: \\x1b\n" in text, "a list of ours has its lines"
        assert "\n    RuntimeError: a\\x1b[2J\\x07\n    ok  forged" in text
        assert "(pid=7) a" in text and r"a\x1b[2J\x07\nok  forged" in text


def test_json_records_hold_the_text_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row R9: JSON has escapes of its own."""
    for text in logged(logs.LogFormat.json, tmp_path / "run.log", capsys):
        assert hidden(text) == set()
        records = [json.loads(line) for line in text.splitlines()]
        assert records[0]["message"] == f"trial of {HOSTILE} has failed"
        assert f"RuntimeError: {HOSTILE}" in records[-1]["traceback"]


# Length ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, LIMIT - 1, LIMIT, LIMIT + 1, 30_000_000])
def test_a_text_is_limited_and_says_what_was_cut(length: int) -> None:
    """Row R14: head and tail are kept."""
    text = "h" * (length // 2) + "t" * (length - length // 2)
    cut = limited(text)
    assert len(cut) <= LIMIT
    if length <= LIMIT:
        assert cut == text
    else:
        head, note, tail = cut.replace(" ... ", "|").replace(" ...", "|").split("|")
        assert set(head) == {"h"} and set(tail.strip()) == {"t"}
        assert note == f"cut: {length - len(head) - len(tail.strip()):,} characters"


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def test_an_exception_of_any_length_leaves_little_behind(
    database_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Row R14: in the database, on stderr and in the log, of retries too, and of what a network prints."""
    logs.set_up(2, logs.LogFormat.text, tmp_path / "run.log")
    store = Store(database_url, create=True)
    settings = SETTINGS.replace(n_trials=6, max_retries=2)

    def child(job: Job) -> Outcome:
        if job.number == 1:
            raise RuntimeError("первый " + "x" * 30_000_000 + " last")
        if job.number == 2:
            raise Broken
        if job.number == 3:
            logs.Printed().write("y" * 30_000_000)
            return Outcome(Verdict.FAILED, reason="z\n" * 15_000_000, worker="w" * 1_000_000)
        return judge(job)

    study = session.create_study(store, settings)
    for progress in run(store, study, settings, InlinePool(run=child)):
        from searcher.observe.progress import log_events

        log_events(progress)
    trials = store.trials(study)
    assert len(trials) == 6 and all(trial.state.finished for trial in trials)
    long, broken, lines = trials[1:4]
    assert long.state is broken.state is lines.state is TrialState.FAILED
    assert long.reason.startswith("RuntimeError: первый xxx") and " characters ..." in long.reason
    assert " last" in long.reason and "in child" in long.reason, "where it was raised is kept"
    assert broken.reason.startswith("Broken: (its text cannot be had: ValueError)")
    assert len(long.reason) <= LIMIT and len(lines.reason) <= LIMIT and len(lines.worker) <= 1000
    store.close()
    assert len(capsys.readouterr().err) < 5 * LIMIT and (tmp_path / "run.log").stat().st_size < 5 * LIMIT
    if database_url.startswith("sqlite"):
        assert Path(database_url.removeprefix("sqlite:///")).stat().st_size < 1_000_000


def test_a_reason_among_others_is_one_short_line() -> None:
    """Rows R9, R14: in progress, status and refusals."""
    assert headline("first\nsecond") == "first"
    assert len(headline("x" * 10**7 + "\n")) < 600 and headline("\x1b") == r"\x1b"


def test_a_traceback_of_this_program_is_escaped_and_limited(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows R9, R14: what Python would print at the end of a program."""
    try:
        raise RuntimeError(HOSTILE + "x" * 10**6)
    except RuntimeError as error:
        logs.print_exception(type(error), error, error.__traceback__)
    printed: Any = capsys.readouterr().err
    assert hidden(printed) == set() and len(printed) < 2 * LIMIT and "RuntimeError" in printed
