"""`searcher status`, `searcher stop`, and what a resumed study may change: as a user types it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from searcher.driver import leases, session
from searcher.driver.process import identity, is_dead
from searcher.settings.config import Config
from searcher.store.lease import ProcessId, StudyBusy
from searcher.store.store import Store
from tests.support import ROOT
from tests.support.commands import Cli
from workers.tasks.images.data import load

pytestmark = pytest.mark.slow

FAST = ("--pool", "inline", "--limit-train", "100", "--width", "4", "--epochs", "1", "--baselines", "relu")


@pytest.fixture
def running(tmp_path: Path, database_url: str, cli: Cli) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A search in a process of its own, with results."""
    command = [sys.executable, "-m", "cli", "launch", "--study-name", "s", "--storage", database_url, *FAST]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--n-trials", "5000"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < end:
            shown = cli("status", "s", "--storage", database_url, "-f", "json")
            if shown.returncode == 0 and json.loads(shown.stdout)[0]["done"] > 3:
                break
            time.sleep(0.3)
        try:
            yield database_url, process
        finally:
            process.kill()


def test_a_search_is_seen_and_stopped_from_elsewhere(running: tuple[str, subprocess.Popen[str]], cli: Cli) -> None:
    """Seen to fail with `ResultWriter.asked_to_stop` never set: `stop` gives up after its seconds, with status 1."""
    url, process = running
    (facts,) = json.loads(cli("status", "s", "--storage", url, "-f", "json").stdout)
    assert f"process {process.pid} on " in facts["driver"] and facts["driver_since_seconds"] > 0
    assert 3 < facts["done"] < facts["total"] == 5000
    assert facts["done"] == sum(facts[state] for state in ("complete", "pruned", "infeasible", "failed"))
    assert facts["trials_per_hour"] > 0 and facts["seconds_left"] > 0
    shown = cli("status", "s", "--storage", url).stdout
    assert "searcher stop s" in shown and f"process {process.pid}" in shown and "ReLU: val_loss" in shown
    stopped = cli("stop", "s", "--storage", url, "--within", "30")
    assert stopped.returncode == 0, stopped.stderr
    assert f"asked process {process.pid}" in stopped.stderr and "searcher resume s" in stopped.stdout
    assert process.wait(20) == 130
    assert process.stderr and "as `searcher stop` has asked; nothing is lost" in process.stderr.read()
    after = cli("status", "s", "--storage", url).stdout
    assert "has ended" in after and "searcher resume s" in after
    again = cli("stop", "s", "--storage", url)
    assert again.returncode == 1 and "nobody drives study 's'" in again.stderr


def test_a_driver_that_does_not_answer_is_not_waited_for_without_end(sqlite_url: str, cli: Cli) -> None:
    assert cli("launch", "--study-name", "s", "--storage", sqlite_url, *FAST, "--n-trials", "2").returncode == 0
    store = Store(sqlite_url)
    store.acquire(store.study("s"), "process 1 on elsewhere, started 2")
    store.close()
    asked = cli("stop", "s", "--storage", sqlite_url, "--within", "0.5")
    assert asked.returncode == 1 and "has not stopped within 0.5 s (its last write was" in asked.stderr
    assert "asked to stop" in cli("status", "s", "--storage", sqlite_url).stdout
    assert cli("stop", "s", "--storage", sqlite_url, "--no-wait").returncode == 0


def test_the_best_is_said_where_there_is_no_relu(sqlite_url: str, cli: Cli) -> None:
    flags = ("--study-name", "s", "--storage", sqlite_url, *FAST[:-1], "none", "--n-trials", "3", "--sampler", "random")
    late = cli("launch", *flags, "--timeout", "0.001")
    assert late.returncode == 0 and "No trial has ended yet." in late.stdout
    assert cli("resume", "s", "--storage", sqlite_url, "--timeout", "0").returncode == 0
    (facts,) = json.loads(cli("status", "s", "--storage", sqlite_url, "-f", "json").stdout)
    (first,) = json.loads(cli("top", "s", "--storage", sqlite_url, "-f", "json", "--limit", "1").stdout)
    assert facts["best"] == first["expression"] and facts["relu_val_loss"] is None
    assert f"{first['expression']}: val_loss" in cli("status", "s", "--storage", sqlite_url).stdout


def test_a_lease_is_kept_while_workers_start(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("store.store", "driver.leases"):
        monkeypatch.setattr(f"searcher.{module}.LEASE_SECONDS", 3.0)
    store = Store(sqlite_url, create=True)
    study = session.create_study(store, Config.of(pool="inline"))
    with leases.held_lease(store, study) as lease:
        with leases.renewed(store, lease):
            time.sleep(4)
            with pytest.raises(StudyBusy):
                store.acquire(study, "another")
        end = time.monotonic() + 60
        while store.driver(study).live:
            assert time.monotonic() < end
            time.sleep(0.1)
        store.acquire(study, "another")
    store.close()


def test_only_a_process_that_is_gone_is_dead() -> None:
    """Seen to fail with start times by the wall clock, which may be set back."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        ours, theirs = identity(), identity(process.pid)
        assert not is_dead(ours) and not is_dead(theirs)
        process.kill()
        end = time.monotonic() + 60
        while not is_dead(theirs):  # though its parent has not waited for it yet
            assert time.monotonic() < end
            time.sleep(0.01)
    assert is_dead(theirs)
    assert is_dead(replace(ours, began=str(int(ours.began) + 1))), "its number is another's now"
    for unknown in (replace(theirs, boot="0" * 8), replace(theirs, boot="", began=""), ProcessId(1, "here")):
        assert not is_dead(unknown), "its lease runs out"


def launched(place: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", "launch", "--study-name", "s", *FAST, "--skip-if-exists", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True)


def test_two_launches_at_once_both_end_well(tmp_path: Path, cli: Cli) -> None:
    """Row R15: `launch --skip-if-exists` that loses the race. Covers who comes while the study is driven."""
    cli("db", "upgrade")
    with launched(tmp_path, "--n-trials", "60") as one, launched(tmp_path, "--n-trials", "60") as other:
        said = [process.communicate(timeout=300)[1] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), said
    assert sum("going on with its stored settings" in text for text in said) == 1
    (facts,) = json.loads(cli("status", "s", "-f", "json").stdout)
    assert facts["done"] == facts["total"] == 60


def test_a_study_that_was_made_since_we_looked_goes_on(sqlite_url: str, cli: Cli) -> None:
    """Row R15: between the look and the insert."""
    launch = ("launch", "--study-name", "s", "--storage", sqlite_url, *FAST, "--n-trials")
    assert cli(*launch, "2").returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("searcher.sessions._existing", lambda storage, name: "")
        late = cli(*launch, "4", "--skip-if-exists")
        assert late.returncode == 0 and "study 's' exists: going on with its stored settings" in late.stderr
        refused = cli(*launch, "5")
    assert refused.returncode == 1 and "study 's' exists" in refused.stderr
    assert cli("status", "s", "--storage", sqlite_url, "-f", "csv").stdout.splitlines()[1].startswith("s,4,4,")


def test_a_name_that_was_taken_since_we_looked_is_made_up_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Row R15: two launches without a name. What does not fit is said once."""
    store = Store(sqlite_url, create=True)
    settings = Config.of(pool="inline", n_trials=4)
    assert session.create_study(store, settings).name == "digits-rnn-1"
    caplog.clear()
    known = iter([[], *[["digits-rnn-1"]] * 9])
    monkeypatch.setattr(store, "names", lambda: next(known))
    assert session.create_study(store, settings).name == "digits-rnn-2"
    said = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert said == ["half of 4 trials are for baselines"]
    store.close()


def test_a_study_beyond_todays_bounds_goes_on(sqlite_url: str, cli: Cli) -> None:
    """Row R13: a bound is for new studies; one of an older version keeps its name and its settings."""
    storage = ("--storage", sqlite_url)
    assert cli("launch", "--study-name", "s", *storage, *FAST, "--n-trials", "2").returncode == 0
    name = "old\n" + "name" * 60
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        change = "json_set(config, '$.recipe.cutout', 5000, '$.timeout', 1e12, '$.study_name', ?)"
        connection.execute(f"UPDATE searcher_study SET name = ?, config = {change}", (name, name))
        meant = "json_set(config, '$.parameters.recipe.cutout', 5000)"
        connection.execute(f"UPDATE searcher_task_config SET config = {meant}")
    refused = cli("resume", name, *storage, "--n-trials", "3")
    assert refused.returncode == 1 and "--timeout must be at most 1000000000" in refused.stderr, refused.stderr
    assert "give another" in refused.stderr
    gone_on = cli("resume", name, *storage, "--n-trials", "3", "--timeout", "0")
    assert gone_on.returncode == 0, gone_on.stderr
    assert "3 trials" in gone_on.stdout


def judged_in(wrapper: tuple[str, ...], prepare: str, driver: ProcessId) -> bool:
    """What `is_dead` says of that driver in a process that is started by that command and prepared so."""
    asked = "import os, subprocess, sys\nfrom searcher.driver.process import is_dead\n"
    asked += f"from searcher.store.lease import ProcessId\n{prepare}\n"
    asked += "print(is_dead(ProcessId(int(sys.argv[1]), *sys.argv[2:])))"
    tried = subprocess.run([*wrapper, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this machine does not let us do that: {tried.stderr.strip()}")
    command = [*wrapper, sys.executable, "-c", asked, *map(str, astuple(driver))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return {"True": True, "False": False}[subprocess.check_output(command, env=environment, text=True).strip()]


HIDDEN = """
subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"], check=True)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""


@pytest.mark.parametrize(
    ("wrapper", "prepare"),
    [
        (("unshare", "--mount"), HIDDEN),
        (("unshare", "--time", "--fork", "--boottime", "1000"), ""),
        (("unshare", "--pid", "--fork"), ""),
        (("unshare", "--pid", "--fork", "--mount-proc"), ""),
        (("unshare", "--uts"), "subprocess.run(['hostname', 'another-machine'], check=True)"),
    ],
    ids=["hidepid", "time namespace", "pid namespace", "pid namespace with its own proc", "host name"],
)
def test_a_live_driver_is_not_taken_for_dead(wrapper: tuple[str, ...], prepare: str) -> None:
    """Row R3: `/proc` mounted with hidepid=2 and another user; a driver in another time namespace. Covers another
    process-number namespace, with the old /proc and with its own, and a machine of another name."""
    assert not judged_in(wrapper, prepare, identity())


def test_a_driver_behind_another_proc_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R3: where nothing can be read, or the process is another user's, its lease runs out. Covers the words that
    such a driver leaves for others."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        theirs = identity(process.pid)
        process.kill()
        process.wait()
    assert is_dead(theirs), "the number is free"

    def refused(pid: int, signal: int) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refused)
        assert not is_dead(theirs)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda self: (_ for _ in ()).throw(FileNotFoundError))
        assert not is_dead(theirs) and identity().boot == ""


def test_a_watch_ends_with_the_search(sqlite_url: str, cli: Cli) -> None:
    assert cli("launch", "--study-name", "s", "--storage", sqlite_url, *FAST, "--n-trials", "2").returncode == 0
    watched = cli("status", "s", "--watch", "--storage", sqlite_url)
    assert watched.returncode == 0 and "2 of 2 trials decided" in watched.stdout and "searcher top s" in watched.stdout


def test_a_study_that_is_not_there(sqlite_url: str, cli: Cli) -> None:
    assert cli("launch", "--study-name", "s", "--storage", sqlite_url, *FAST, "--n-trials", "2").returncode == 0
    for command in ("status", "stop"):
        missing = cli(command, "t", "--storage", sqlite_url)
        assert missing.returncode == 1 and "no study 't'" in missing.stderr


def test_other_data_under_the_same_name_are_noticed(sqlite_url: str, cli: Cli, tmp_path: Path) -> None:
    """Seen to fail with a digest of the labels alone."""
    draw = np.random.default_rng(0)
    images, labels = draw.random((60, 1, 8, 8), np.float32), np.arange(60) % 2
    np.savez(tmp_path / "d.npz", x=images, y=labels)
    launch = ("launch", "--study-name", "s", "--storage", sqlite_url, *FAST[:2], *FAST[4:], "--dataset", "npz:d.npz")
    done = cli(*launch, "--n-trials", "2")
    assert done.returncode == 0, done.stderr
    images[:, :, 0, 0] += 1
    np.savez(tmp_path / "d.npz", x=images, y=labels)
    load.cache_clear()  # a new process would have none
    refused = cli("resume", "s", "--n-trials", "3", "--storage", sqlite_url)
    assert refused.returncode == 2 and "have changed since it began" in refused.stderr


def test_a_study_that_a_newer_version_has_made(sqlite_url: str, cli: Cli) -> None:
    """Seen to fail with the stored settings read as if a person had given them: status 2, and nothing of versions."""
    assert cli("launch", "--study-name", "s", "--storage", sqlite_url, *FAST, "--n-trials", "2").returncode == 0
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE searcher_study SET config = json_set(config, '$.telepathy', json('true'))")
        connection.execute("UPDATE searcher_study SET versions = json_set(versions, '$.searcher', '9.1')")
    refused = cli("resume", "s", "--n-trials", "3", "--storage", sqlite_url)
    assert refused.returncode == 1 and "made by searcher 9.1, are not ones of this searcher" in refused.stderr
    assert "unknown setting 'telepathy'" in refused.stderr and "Upgrade" in refused.stderr
    assert cli("top", "s", "--storage", sqlite_url).returncode == 0


def test_what_is_measured_does_not_change_when_a_study_goes_on(sqlite_url: str, cli: Cli, tmp_path: Path) -> None:
    """Seen to fail with `differences` returning nothing: the study goes on with its stored settings, in silence."""
    launch = ("launch", "--study-name", "s", "--storage", sqlite_url, *FAST)
    assert cli(*launch, "--n-trials", "2").returncode == 0
    again = (*launch, "--skip-if-exists", "--n-trials", "3")
    same = cli(*again)
    assert same.returncode == 0, same.stderr
    other = cli(*again, "--epochs", "3", "--model-kwargs", '{"stem_stride": 2}', "--split-seed", "7")
    assert other.returncode == 2
    for line in (
        "recipe.epochs: 1 in the study, 3 asked for",
        "model_kwargs: {} in the study, {'stem_stride': 2} asked for",
        "split_seed: 0 in the study, 7 asked for",
        "--study-name NAME",
    ):
        assert line in other.stderr
    file = tmp_path / "e.toml"
    file.write_text("n_trials = 4\nlimit_train = 100\n[recipe]\nepochs = 1\n")
    assert cli("resume", "s", str(file), "--storage", sqlite_url).returncode == 0
    file.write_text("limit_train = 200\n")
    refused = cli("resume", "s", str(file), "--storage", sqlite_url)
    assert refused.returncode == 2 and "limit_train: 100 in the study, 200 asked for\n  leave" in refused.stderr
    assert cli("status", "s", "--storage", sqlite_url, "-f", "csv").stdout.splitlines()[1].startswith("s,4,4,")
