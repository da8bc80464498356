"""Training where only torch and NumPy are installed, as on a machine that is lent for a quarter of an hour."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support import bare

pytestmark = pytest.mark.slow

DATA = """
import numpy as np
def images():
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (120, 1, 8, 8), dtype=np.uint8), np.arange(120) % 3
"""

TRAINING = """
import json
from dataclasses import replace
from workers.contract import Job
from workers.tasks.images.config import ImageConfig, Recipe
from workers.pools.base import InlinePool

def outcome(job):
    pool.submit(job)
    while not (ended := pool.wait(60)):
        pass
    return ended[0][1]

pool = InlinePool()
recipe = Recipe(epochs=2, batch_size=16)

def job(dataset, **rest):
    image = ImageConfig(dataset, model_kwargs={"width": 2}, recipe=recipe)
    return Job(0, "x * sigmoid(beta * x)", task=image.task_config(), **rest)

jobs = {
    "own": job("own:images"),
    "npz": job("npz:images.npz"),
    "checkpoint": job("own:images", checkpoint_seconds=0.0),
    "digits": job("digits"),
}
print(json.dumps({name: outcome(job).to_json() for name, job in jobs.items()}))
pool.close()
"""


def test_the_inline_pool_needs_torch_and_numpy_only(tmp_path: Path) -> None:
    """A function's images and a file's are trained with, though neither is split by scikit-learn nor locked by
    filelock; checkpoints are left out and said to be; digits, which lie in scikit-learn, are refused in one line."""
    (tmp_path / "own.py").write_text(DATA)
    draw = np.random.default_rng(1)
    np.savez(
        tmp_path / "images.npz", images=draw.integers(0, 256, (90, 8, 8), dtype=np.uint8), labels=np.arange(90) % 3
    )
    done = bare.run(bare.command(TRAINING), tmp_path)
    assert done.returncode == 0, done.stderr
    outcomes = {name: json.loads(text) for name, text in json.loads(done.stdout).items()}
    for name in ("own", "npz", "checkpoint"):
        assert outcomes[name]["verdict"] == "COMPLETE", outcomes[name]
    assert outcomes["checkpoint"]["metrics"] == outcomes["own"]["metrics"]
    assert "no checkpoints are written or read: safetensors is not installed" in done.stderr
    assert outcomes["digits"]["verdict"] == "FAILED"
    assert outcomes["digits"]["reason"].startswith(
        "WorkersError: dataset 'digits' is part of scikit-learn, which is not installed here; install it, or name "
    )
    assert "\n" not in outcomes["digits"]["reason"]


def test_the_packages_are_really_absent(tmp_path: Path) -> None:
    code = "import importlib.util; print([name for name in absent if importlib.util.find_spec(name)])"
    assert bare.run(bare.command(code), tmp_path).stdout.strip() == "[]"
    done = bare.run(bare.command("import ray"), tmp_path)
    assert "ModuleNotFoundError: No module named 'ray'" in done.stderr
