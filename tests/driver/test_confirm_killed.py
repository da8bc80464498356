"""A confirmation in processes that are killed at random moments ends with its exact design, and nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from searcher.records import Trial
from searcher.store.store import Store, UnknownStudy
from tests.support.commands import Cli
from tests.support.forks import forking

pytestmark = pytest.mark.slow

KILLS = 10
TASK = """
import time
import torch

def train(activation, report, *, learning_rate=0.1):
    network = torch.nn.Sequential(torch.nn.Linear(1, 8), activation(8), torch.nn.Linear(8, 1))
    x = torch.linspace(-1, 1, 16)[:, None]
    optimizer = torch.optim.SGD(network.parameters(), learning_rate)
    for step in range(1, 6):
        error = (network(x) - torch.sin(3 * x)).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        report(step, val_mse=error.item(), test_mse=error.item())
        time.sleep(0.01)
    return {"val_mse": error.item(), "test_mse": error.item()}

train.metrics = {"val_mse": "minimize", "test_mse": "minimize"}
"""
SEARCH = ("--study-name", "s", "--sampler", "random", "--n-trials", "8", "--pool", "inline", "--threads", "1")
KINDS = {
    "images": (
        ("--limit-train", "100", "--width", "4", "--epochs", "1", "--baselines", "relu,swish1"),
        ("--top", "2", "--seeds", "8", "--models", "lecture"),
    ),
    "a task of one's own": (
        ("--task", "my_task.py:train", "--baselines", "relu,swish1"),
        ("--top", "3", "--until-sure", "--seeds", "20", "--tune-lr", "3"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_confirmation_that_is_killed_ten_times(kind: str, tmp_path: Path, cli: Cli) -> None:
    """Seen to fail with earlier results not told to the proposer."""
    (tmp_path / "my_task.py").write_text(TASK)
    search, confirm = KINDS[kind]
    draw = Random(18)
    with forking(tmp_path, "launch", *SEARCH, *search, "-q") as forks:
        command = ("confirm", "s", *confirm, "-q", "--study-name")
        assert forks.run(*command, "whole") == 0
        once, statuses = forks.ended, list[int]()
        for after in sorted(draw.sample(range(once - KILLS), KILLS)):
            known = _trials(tmp_path, "parts")
            again = ("resume", "parts", "-q") if known else (*command, "parts", "--skip-if-exists")
            statuses.append(forks.run(*again, kill_at=once + after, seconds=draw.uniform(0, 0.1)))
            assert statuses[-1] == -9, f"it ended by itself: {statuses}"
        killed = len(known)
        assert forks.run("resume", "parts", "-q") == 0
        repeated = forks.ended - 2 * once
    whole, parts = _trials(tmp_path, "whole"), _trials(tmp_path, "parts")
    assert killed > len(parts) / 4, "the kills fell into the trainings"
    assert len({(one.key, one.seed, one.task_config) for one in parts}) == len(parts) == once
    assert 0 <= repeated <= KILLS  # an outcome that was not in the store yet
    assert all(one.state.finished for one in parts)
    assert _results(parts) == _results(whole)
    told = [json.loads(cli("evidence", name, "-f", "json").stdout) for name in ("whole", "parts")]
    assert told[0] == told[1]


def _trials(directory: Path, name: str) -> list[Trial]:
    store = Store(f"sqlite:///{directory / 'searcher.db'}")
    try:
        return store.trials(store.study(name))
    except UnknownStudy:
        return []
    finally:
        store.close()


def _results(trials: list[Trial]) -> dict[tuple[str, int, int], object]:
    return {(one.key, one.seed, one.task_config): (one.state, one.reason, one.metrics) for one in trials}
