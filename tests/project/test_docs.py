"""The documents: their commands run, their tables are current, their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from search_space import registry
from search_space.__main__ import tables
from searcher.records import TrialState
from searcher.settings.config import Config
from tests.support import ROOT
from tests.support.commands import called
from workers.pools import ray_cluster

pytestmark = pytest.mark.slow

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))  # their commands: tests/project/test_guides.py


def run(directory: Path, command: str) -> str:
    """Run a command in this process, and return what it prints."""
    words = shlex.split(command)
    assert words[0] == "searcher"
    done = called(directory, *words[1:])
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def commands(document: Path) -> list[str]:
    """The commands in blocks that begin with ```console run."""
    blocks = re.findall(r"^```console run\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the README's first command has run as it stands."""
    directory = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", directory / "examples")
    words, environment = [sys.executable, "-m", "cli", "launch"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (directory / "launch.txt").write_text(done.stdout)
    return directory


@pytest.fixture(scope="module")
def started_ray() -> Iterator[None]:
    """A Ray in this process, which its searches share: they start one only where there is none."""
    ray_cluster.connect("local", 2)
    yield
    ray.shutdown()


def test_the_main_job(launched: Path) -> None:
    """A ranked table, at least 40 candidates trained beside the baselines, every number read back from the store."""
    trials = json.loads(run(launched, 'searcher query "SELECT * FROM searcher_trial" -f json'))
    assert sorted(t["number"] for t in trials) == list(range(Config().search.n_trials))
    complete = [t for t in trials if t["state"] == TrialState.COMPLETE and t["cites"] is None]
    assert sum(t["kind"] == "candidate" for t in complete) >= 40
    assert sum(t["kind"] == "baseline" for t in complete) == 12
    text = (launched / "launch.txt").read_text()
    results = [json.loads(t["metrics"]) for t in complete]
    stored = {(f"{found['val_loss']:.4f}", f"{found['val_acc']:.4f}") for found in results}
    shown = re.findall(r"(\d+\.\d{4})\s+(\d\.\d{4})\s+\d+\s*$", text, re.MULTILINE)
    assert len(shown) >= 15
    assert set(shown) <= stored


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_run(launched: Path, started_ray: None, document: Path) -> None:
    for command in commands(document):
        run(launched, command)


def test_there_are_commands_to_run() -> None:
    assert len(commands(ROOT / "docs" / "first-search.md")) >= 12
    assert len(commands(ROOT / "docs" / "results.md")) >= 5


def anchors(document: Path) -> set[str]:
    """The names of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", [*DOCUMENTS, *GUIDES], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", document.read_text()):
        if "://" not in target:
            there = document.parent / target if target else document
            assert there.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in anchors(there), f"{document.name}: {target}#{anchor}"


def test_the_task_of_the_document_on_tasks_is_ready(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tasks.md").read_text()
    (source,) = re.findall(r"^```python\n(# my_task.py\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "my_task.py").write_text(source)
    (found,) = json.loads(run(tmp_path, "searcher task check my_task.py:train -f json"))
    assert found["ready"] and not found["remarks"]


def test_the_tables_of_the_search_space_are_current() -> None:
    """If not: write them anew with `python -m search_space`."""
    text = (ROOT / "docs" / "search-space.md").read_text()
    assert text.split("<!-- tables -->\n")[1].strip() == tables().strip()


def test_the_python_of_the_search_space_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block that begins with the name of a file is that file."""
    text = (ROOT / "docs" / "search-space.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert 0 < len(blocks) == text.count("```python\n")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    try:
        for block in blocks:
            if name := re.match(r"# (\w+\.py)\n", block):
                (tmp_path / name[1]).write_text(block)
            else:
                exec(block, found)
    finally:
        registry._unregister("my_primitives")
    assert "class Swish" in capsys.readouterr().out
    assert found["key"](found["parse"]("2 * x * sigmoid(2 * x)")) == found["key"](found["parse"]("x * (1 + tanh(x))"))
    assert found["profile"]("selu").depth.fixed_point == pytest.approx(1.0, abs=1e-6)
    assert found["space"]("swish2017", units=2).size == 156_250_000
    assert "bent" in found["grammar"].unary
    assert "a compile takes some seconds" in found["plans"]["max(x, sigmoid(x))"].reason
