"""Logs: lines for people, or JSON for machines, which say what study, trial and worker they are about."""

from __future__ import annotations

import json
import logging
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from searcher.driver import leases, session
from searcher.driver.loop import Progress
from searcher.observe import logs
from searcher.observe.progress import Display, log_events
from searcher.records import Kind, Trial, TrialState
from searcher.store.store import Store
from tests.support.commands import Capture, Cli
from tests.support.outages import through_an_outage
from tests.support.searches import FAST, SETTINGS, judge, never
from workers.contract import Job, Outcome
from workers.pools.base import InlinePool

pytestmark = pytest.mark.slow
LAUNCH = ("launch", "--study-name", "s", *FAST, "--n-trials", "4")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("searcher")
    before = root.handlers[:], root.level, own.level
    yield
    for handler in set(root.handlers) - set(before[0]):
        handler.close()
    root.handlers, root.level, own.level = before


def records(text: str) -> list[dict[str, Any]]:
    """Seen to fail with a `print` to stderr, or a plain formatter, in any place that a command comes to."""
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_is_a_record_and_says_what_it_is_about(cli: Cli, tmp_path: Path) -> None:
    done = cli("--log-format", "json", "-vv", "--log-file", "run.log", *LAUNCH)
    assert done.returncode == 0, done.stderr
    lines = records(done.stderr)
    for line in lines:
        assert list(line)[:4] == ["time", "level", "logger", "message"]
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 60
        assert line["time"].endswith("+00:00")
    own = [line for line in lines if line["logger"] == "searcher"]
    assert {line["study"] for line in own} == {"s"}
    ended = {line["trial"]: line["level"] for line in own if "trial" in line}
    assert ended == dict.fromkeys(range(4), "debug")
    assert own[-2]["message"] == "all 4 trials have ended"
    assert records((tmp_path / "run.log").read_text()) == lines
    assert stat.S_IMODE((tmp_path / "run.log").stat().st_mode) == 0o600


def test_what_others_print_while_a_search_runs_is_not_among_its_results(cli: Cli, tmp_path: Path) -> None:
    """Seen to fail without `logs.Printed`."""
    (tmp_path / "chatty.py").write_text(
        "from torch import nn\n"
        "def net(activation, in_channels, classes):\n"
        "    print('hello', 'from', 'a network')\n"
        "    return nn.Sequential(nn.Conv2d(in_channels, 2, 3), activation(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "        nn.Linear(2, classes))\n"
    )
    done = cli("--log-format", "json", *LAUNCH, "--model", "chatty:net", "--width", "0")
    assert done.returncode == 0, done.stderr
    assert "rank" in done.stdout and "hello" not in done.stdout
    said = [line for line in records(done.stderr) if line["message"] == "hello from a network"]
    assert len(said) >= 4


def test_a_file_is_appended_to_and_errors_are_in_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("before\n")
    done = cli("--log-file", "run.log", "top", "s")
    assert done.returncode == 1 and done.stderr.startswith("searcher: there is no database")
    text = (tmp_path / "run.log").read_text()
    assert text.startswith("before\n") and " ERROR there is no database" in text
    refused = cli("--log-file", "nowhere/run.log", "top", "s")
    assert refused.returncode == 1 and "cannot write the log nowhere/run.log: No such file" in refused.stderr


def test_errors_are_records_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHER_LOG_FORMAT", "json")
    (line,) = records(cli("top", "s").stderr)
    assert line["level"] == "error" and line["message"].startswith("there is no database")
    assert cli("--log-format", "xml", "top", "s").returncode == 2


def test_text_is_plain_and_quiet_is_quiet(cli: Cli) -> None:
    done = cli(*LAUNCH)
    assert done.returncode == 0 and " study s: 4 trials, sampler rnn, in sqlite:///searcher.db\n" in done.stderr
    assert done.stderr.splitlines()[-1].split()[1:3] == ["s", "4/4,"]
    quiet = cli("--log-file", "run.log", "resume", "s", "--n-trials", "5", "--pool", "inline", "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "all 5 trials have ended" in Path("run.log").read_text()


def test_a_trial_that_fails_is_said_with_its_worker_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(form=logs.LogFormat.json)
    failed = Trial(
        7, Kind.CANDIDATE, "x", "k", 0, state=TrialState.FAILED, reason="it died\nTraceback: ...", worker="node:12"
    )
    again = replace(failed, number=3, state=TrialState.WAITING, worker="", retries=1)
    progress = Progress(9, Counter(), 9, 9, 0, 1, 1.0, None, ended=(failed,), again=(again,))
    log_events(progress)
    retried, ended = records(capsys.readouterr().err)
    assert (retried["level"], retried["trial"]) == ("warning", 3) and "worker" not in retried
    assert retried["message"].endswith("runs again: it died")
    assert (ended["level"], ended["trial"], ended["worker"]) == ("warning", 7, "node:12")
    assert ended["message"] == "trial 7, x, has ended: FAILED, it died"


def test_an_outage_is_said_when_it_begins_and_ends(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the thread that waits for the database, too. Seen to fail without the copied context: it names no study."""

    def slow(job: Job) -> Outcome:
        time.sleep(0.05)
        return judge(job)

    logs.set_up(form=logs.LogFormat.json)
    store = Store(sqlite_url, create=True)
    settings = SETTINGS.replace(n_trials=60)
    study = session.create_study(store, settings)
    pool = InlinePool(run=slow)
    with leases.held_lease(store, study) as lease:
        for _ in through_an_outage(sqlite_url, session.search(store, lease, study, settings, pool, never)):
            pass
    pool.close()
    store.close()
    begins, ends = [line for line in records(capsys.readouterr().err) if "database" in line["message"]]
    assert "the search goes on and holds its results" in begins["message"]
    assert ends["message"].startswith("the database is back after ")
    assert begins["study"] == ends["study"] == study.name


class Terminal(Capture):
    def isatty(self) -> bool:
        return True


def test_nothing_is_drawn_between_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with a bar wherever stderr is a terminal."""
    for form, escapes in ((logs.LogFormat.json, False), (logs.LogFormat.text, True)):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        logs.set_up(form=form)
        with Display("s[/2]") as display:
            display.update(Progress(9, Counter(), 9, 9, 0, 1, 1.0, None, ended=()))
            logging.getLogger("searcher").warning("beside the bar")
        assert ("\x1b" in terminal.text()) is escapes
        assert "beside the bar" in terminal.text()
        assert form is logs.LogFormat.json or "s[/2]" in terminal.text()


def test_what_json_cannot_hold_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(form=logs.LogFormat.json)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("searcher").exception("an %s", "error", extra={"trial": Path("x")})
    (line,) = records(capsys.readouterr().err)
    assert line["message"] == "an error" and line["trial"] == "x" and "ValueError: two\nlines" in line["traceback"]
