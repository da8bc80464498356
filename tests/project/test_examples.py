"""The tasks in examples/: each as a search of 12 trials from the command line, two of them killed in the middle."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.commands import Cli

pytestmark = pytest.mark.slow

TOTAL = 12
COMMON = ("--sampler", "random", "--n-trials", str(TOTAL), "--baselines", "relu,tanh", "--threads", "1", "-q")
INLINE = ("--pool", "inline")


@dataclass(frozen=True)
class Example:
    """A task in examples/, and how it is searched.

    Attributes:
        name: The function.
        metric: The objective; `sign` is 1 if a greater value is better, else -1.
    """

    name: str
    metric: str
    sign: int
    flags: tuple[str, ...] = ()

    @property
    def launch(self) -> tuple[str, ...]:
        file = ROOT / "examples" / self.name
        return ("launch", "--study-name", "s", "--task", str(file), *self.flags, *COMMON)


DIABETES = Example("diabetes.py:train", "val_mse", -1)
PICTURE = Example("picture.py:train", "val_psnr", 1)
TEXT = json.dumps({"file": str(ROOT / "README.md"), "steps": 20})
CHARACTERS = Example("characters.py:train", "val_acc", 1, ("--task-kwargs", TEXT, "--objective", "val_acc"))
SCRIPT = Example("script.py:main", "val_error", -1, ("--objective", "val_error", "--direction", "minimize"))


def process(directory: Path, *args: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    command = [sys.executable, "-m", "cli", *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=directory, env=environment, stdout=pipe, stderr=pipe, text=True)


def finished(directory: Path) -> int:
    """Return how many trials have ended; 0 while there is no database."""
    if not (directory / "searcher.db").exists():
        return 0
    with closing(sqlite3.connect(f"file:{directory}/searcher.db?mode=ro", uri=True, timeout=30)) as database:
        try:
            (found,) = database.execute("SELECT COUNT(*) FROM searcher_trial WHERE finish_order IS NOT NULL").fetchone()
        except sqlite3.OperationalError:  # its tables are being made
            return 0
    return int(found)


def check_ranking(cli: Cli, example: Example, printed: str) -> None:
    """All trials have ended, each once, and the table is ranked by the task's own metric."""
    query = "SELECT number, state FROM searcher_trial ORDER BY number"
    trials: list[dict[str, Any]] = json.loads(cli("query", query, "-f", "json").stdout)
    assert [trial["number"] for trial in trials] == list(range(TOTAL))
    states = [trial["state"] for trial in trials]
    assert set(states) <= {"COMPLETE", "INFEASIBLE"} and states[:2] == ["COMPLETE", "COMPLETE"]
    ranked = [row[example.metric] for row in json.loads(cli("top", "s", "-f", "json").stdout)]
    assert len(ranked) >= 3
    assert ranked == sorted(ranked, key=lambda value: -example.sign * value) and ranked[0] != ranked[-1]
    assert example.metric in printed and f"{ranked[0]:.4f}" in printed


def test_characters(cli: Cli) -> None:
    done = cli(*CHARACTERS.launch, *INLINE)
    assert done.returncode == 0, done.stderr
    check_ranking(cli, CHARACTERS, done.stdout)


def test_a_script_with_two_ray_workers(cli: Cli, tmp_path: Path) -> None:
    """What the script prints is no result."""
    running = process(tmp_path, *SCRIPT.launch, "--pool", "ray", "--workers", "2")
    out, errors = running.communicate(timeout=240)
    assert running.returncode == 0, errors
    assert "epoch" not in out
    check_ranking(cli, SCRIPT, out)


@pytest.mark.parametrize("example", [DIABETES, PICTURE], ids=lambda example: str(example.name))
def test_a_search_is_killed_in_the_middle_and_goes_on_to_its_total(cli: Cli, tmp_path: Path, example: Example) -> None:
    running = process(tmp_path, *example.launch, *INLINE)
    end = time.monotonic() + 120
    while (done := finished(tmp_path)) < 3 and running.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    running.kill()  # with -9
    running.communicate()
    assert 3 <= done < TOTAL and finished(tmp_path) < TOTAL
    resumed = cli("resume", "s", "-q")
    assert resumed.returncode == 0, resumed.stderr
    check_ranking(cli, example, resumed.stdout)


def test_a_function_without_second_derivatives_cannot_learn_a_picture(cli: Cli) -> None:
    """The loss of examples/picture.py holds them, so ReLU ends far behind tanh."""
    task = str(ROOT / "examples" / PICTURE.name)
    relu, tanh = (
        json.loads(cli("task", "check", task, "--expression", name, "-f", "json").stdout)[0]["result"]["val_psnr"]
        for name in ("relu", "tanh")
    )
    assert tanh > relu + 10


def test_the_script_still_runs_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "script.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("epoch 14: 0.")
