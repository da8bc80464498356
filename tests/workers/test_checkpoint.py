"""Long trainings that are interrupted: they go on from a checkpoint, to the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from tests.support.made import changed, image_config, image_job
from workers.contract import Job, Outcome, Verdict
from workers.tasks.images.config import Recipe
from workers.tasks.images.data import load
from workers.tasks.images.train import train

pytestmark = pytest.mark.slow

AUGMENTED = Recipe(epochs=4, schedule="cosine", label_smoothing=0.1, crop=1, flip=True, cutout=2, clip_norm=1.0)
JOBS = {
    "quick": image_job(0, "x * sigmoid(beta * x)", limit_train=320, recipe=Recipe(epochs=4)),
    "augmented": image_job(0, "relu", limit_train=320, recipe=AUGMENTED),
    "adamw": image_job(
        0, "relu", limit_train=320, recipe=Recipe(epochs=4, optimizer="adamw", learning_rate=0.01, schedule="warmup")
    ),
    "no momentum": image_job(0, "tanh(x)", limit_train=320, recipe=Recipe(epochs=4, momentum=0.0)),
    "dropout": image_job(0, "max(x, 0)", limit_train=320, model="all-cnn", width=4, recipe=Recipe(epochs=4)),
    "maxout": image_job(0, "maxout(2)", limit_train=320, recipe=Recipe(steps=19)),
}
STEPS = 5  # an epoch of 320 images


def stopped_after(steps: int, job: Job) -> Outcome:
    """A session of so many steps."""
    asked = count()
    return train(job, stopped=lambda: next(asked) >= steps)


@pytest.mark.parametrize("name", JOBS)
def test_a_resumed_training_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    whole = train(changed(JOBS[name], checkpoint_dir=str(tmp_path / "never"), checkpoint_seconds=1e9))
    assert whole.verdict is Verdict.COMPLETE, whole.reason
    job = changed(JOBS[name], checkpoint_dir=str(tmp_path / "kept"), checkpoint_seconds=0)
    first = stopped_after(STEPS + 2, job)
    assert first.verdict is Verdict.FAILED
    assert first.curve == whole.curve[:1]
    second = stopped_after(2 * STEPS + 1, job)  # two epochs more: the first is not trained again
    assert second.curve == whole.curve[:3]
    assert train(job) == whole
    assert not list((tmp_path / "kept").iterdir())
    assert not (tmp_path / "never").exists()


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    job = changed(JOBS["quick"], recipe=Recipe(epochs=40), checkpoint_dir=str(tmp_path), checkpoint_seconds=0)
    script = "import sys, time, torch; torch.set_num_threads(1); from pathlib import Path\n"
    script += "from workers.contract import Job\n"
    script += "from workers.tasks.images.train import train\n"
    script += "def wait(): time.sleep(300 * any(Path(sys.argv[2]).glob('*.safetensors')))\n"  # to be killed
    script += "train(Job.from_json(sys.argv[1]), stopped=wait)"
    child = subprocess.Popen([sys.executable, "-c", script, job.to_json(), str(tmp_path)])
    while not list(tmp_path.glob("*.safetensors")):
        assert child.poll() is None, "it ended without a checkpoint"
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert list(tmp_path.glob("*.safetensors"))
    asked = count()
    resumed = train(job, stopped=lambda: next(asked) < 0)
    assert next(asked) < 40 * STEPS  # some epochs were not trained again
    assert resumed == train(changed(job, checkpoint_dir=str(tmp_path / "other")))


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "of another network"])
def test_a_damaged_checkpoint_is_not_used_and_said(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = changed(JOBS["quick"], checkpoint_dir=str(tmp_path), checkpoint_seconds=0)
    stopped_after(STEPS + 1, job)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if damage == "of another network":
        stopped_after(STEPS + 1, changed(job, width=4))
        (other,) = set(tmp_path.iterdir()) - {file}
        content = other.read_bytes()
    file.write_bytes({"truncated": content[:-9], "empty": b"", "garbage": b"x" * 999}.get(damage, content))
    asked = count()
    assert train(job, stopped=lambda: next(asked) < 0).verdict is Verdict.COMPLETE
    assert next(asked) == 4 * STEPS  # all of them
    assert f"the checkpoint {file} is not used: " in caplog.text


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    job = changed(JOBS["quick"], checkpoint_dir=str(tmp_path / "file" / "below"), checkpoint_seconds=0)
    assert train(job) == train(JOBS["quick"])
    assert "no checkpoint could be written" in caplog.text


def test_other_data_and_other_code_do_not_share_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with a digest of the job alone: the weights of one were trained on with the other."""
    monkeypatch.syspath_prepend(tmp_path)
    source = """
import numpy, torch
def data():
    draw = numpy.random.default_rng(SEED)
    return draw.random((600, 1, 8, 8)), numpy.arange(600) % 2
def network(activation, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), activation(8), torch.nn.Linear(8, classes))
"""
    own = {"dataset": "own_of_checkpoints:data", "model": "own_of_checkpoints:network", "limit_train": 0}
    job = changed(JOBS["quick"], **own, checkpoint_dir=str(tmp_path / "kept"), checkpoint_seconds=0)  # type: ignore[arg-type]
    digests = set()
    for number, value in enumerate(["0", "1", "1 * 1"], start=1):  # the data; the code alone
        (tmp_path / "own_of_checkpoints.py").write_text(source.replace("SEED", value))
        sys.modules.pop("own_of_checkpoints", None)
        load.cache_clear()
        digests.add(stopped_after(7, job).data_digest)
        assert len(list((tmp_path / "kept").iterdir())) == number
    assert len(digests) == 2


def test_what_is_forgotten_below_the_cache_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHER_CACHE", str(tmp_path))
    job = changed(JOBS["quick"], checkpoint_seconds=0)
    stopped_after(STEPS + 1, job)
    (old,) = (tmp_path / "checkpoints").iterdir()
    os.utime(old, (0, 0))
    stopped_after(STEPS + 1, changed(job, seed=1))
    (new,) = (tmp_path / "checkpoints").iterdir()
    assert new != old


def test_jobs_that_compute_something_else_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    job = changed(JOBS["quick"], checkpoint_dir=str(tmp_path), checkpoint_seconds=0)
    others = [changed(job, seed=1), changed(job, split_seed=1), changed(job, expression="tanh(x)")]
    others += [changed(job, recipe=replace(image_config(job).recipe, learning_rate=0.05))]
    for number, each in enumerate([job, *others], start=1):
        stopped_after(STEPS + 1, each)
        assert len(list(tmp_path.iterdir())) == number
    stopped_after(1, changed(job, number=7, timeout_seconds=99.0))
    assert len(list(tmp_path.iterdir())) == len(others) + 1
