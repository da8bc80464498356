"""Data of one's own that are no images: numbers stay as they are, and a switch says otherwise."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from searcher.settings import loading
from searcher.settings.config import ConfigError
from tests.support.commands import Cli
from tests.support.datafiles import CPU, here
from tests.support.made import image_job
from workers.contract import WorkersError
from workers.tasks.images import formats
from workers.tasks.images.config import Recipe
from workers.tasks.images.data import Dataset, load
from workers.tasks.images.doubts import doubts
from workers.tasks.images.train import train

__all__ = ["here"]  # a fixture of every test

LABELS = np.arange(60) % 3
IDS = np.random.default_rng(0).integers(0, 1000, (60, 12))
IDS[:, 0] = LABELS  # what there is to learn
MODULE = """
import numpy as np
import torch
from torch import nn

draw = np.random.default_rng(0)
labels = np.arange(60) % 3
ids = draw.integers(0, 200, (60, 12))
ids[:, 0] = labels


def tokens():
    return ids, labels


def as_row():
    return ids[:, None], labels


def tensors():
    whole = torch.tensor(ids, dtype=torch.int32)
    return (whole[:40], labels[:40]), (whole[40:], labels[40:])


def features():
    return draw.normal(7, 3, (60, 5)), labels


def pixels():
    return draw.integers(0, 256, (60, 3, 8, 8)), labels


def large():
    return draw.integers(0, 70_000, (60, 4, 8)), labels


class Net(nn.Module):
    def __init__(self, shape, classes, words=200):
        super().__init__()
        self.embed, self.act = nn.Embedding(words, 8), nn.ReLU()
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        assert x.dtype == torch.int64
        return self.head(self.act(self.embed(x).flatten(1, -2)).mean(1))


def dense(activation, shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 8), activation(8), nn.Linear(8, classes))


def normalising(activation, in_channels, image_size, classes):
    class Scale(nn.Module):
        def forward(self, x):
            return x / 255

    size = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(Scale(), nn.Flatten(), nn.Linear(size, 8), activation(8), nn.Linear(8, classes))
"""


@pytest.fixture(autouse=True)
def module(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `mine`, in the current directory; other test files have others of that name."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(here)])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (here / "mine.py").write_text(MODULE)
    yield
    sys.modules.pop("mine", None)


def seen(data: Dataset) -> torch.Tensor:
    """All examples as a network gets them, in the order of their rows."""
    rows = torch.arange(len(data.train.pixels.raw))
    return data.train.pixels.pick(rows)


def own(function: str, **options: Any) -> Dataset:
    return load(f"mine:{function}", 0, CPU, **options)


KINDS = ["int8", "uint16", "int16", "int32", "uint32", "int64", "uint64", ">i8", ">i4"]


@pytest.mark.parametrize("shape", [(60, 12), (60, 1, 12), (60, 12, 1), (60, 1, 1, 12), (60, 2, 2, 3, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_token_numbers_stay_as_they_are(shape: tuple[int, ...], kind: str) -> None:
    """Row D4: whole numbers of any type but uint8 whose shape is no picture's. Covers functions; files are below."""
    ids = (IDS % 128 if kind == "int8" else IDS).astype(kind).reshape(shape)
    found = formats.checked(ids, LABELS, "mine")
    assert not found.standardised and found.note == "" and found.images.shape == shape
    assert found.images.dtype.kind == "i" and np.array_equal(found.images, ids)


@pytest.mark.parametrize("function", ["tokens", "tensors", "as_row"])
@pytest.mark.parametrize("name", ["Net", "dense"])
def test_a_network_gets_the_numbers(function: str, name: str) -> None:
    """Row D4: what a network is given is int64, for embeddings; with a network that takes `activation` and without."""
    data = own(function)
    assert seen(data).dtype == torch.int64 and data.shape == ((1, 12) if function == "as_row" else (12,))
    assert seen(data)[:, ..., 0].flatten().tolist() == LABELS.tolist() and doubts(data) == []
    job = image_job(0, "max(x, 0)", f"mine:{function}", model=f"mine:{name}", recipe=Recipe(epochs=8, batch_size=8))
    if name == "dense":
        with pytest.raises(WorkersError, match=r"'mine:dense' fails on two (1x)?12 images: RuntimeError"):
            train(job, CPU)  # a linear layer takes no whole numbers
        return
    outcome = train(job, CPU)
    assert (
        outcome.verdict == "COMPLETE"
        and outcome.curve[-1].metrics["train_loss"] < outcome.curve[0].metrics["train_loss"]
    )


def test_token_numbers_in_a_file(here: Path) -> None:
    """Row D4: the same rule for npz:FILE, from the cache too."""
    np.savez(here / "ids.npz", x=IDS, y=LABELS)
    for _ in range(2):
        data = load("npz:ids.npz", 0, CPU)
        assert torch.equal(seen(data), torch.from_numpy(IDS)) and data.place
        load.cache_clear()
    standardised = load("npz:ids.npz", 0, CPU, standardise=True)
    assert seen(standardised).dtype == torch.float32
    assert float(seen(standardised)[standardised.train.rows].mean()) == pytest.approx(0, abs=1e-6)
    np.savez(here / "bytes.npz", x=IDS.astype(np.uint8), y=LABELS)
    with pytest.raises(WorkersError, match=r"shape \(60, 12\); .* bytes are taken for pixels unless --no-standardise"):
        load("npz:bytes.npz", 0, CPU)
    kept = load("npz:bytes.npz", 0, CPU, standardise=False)
    assert torch.equal(seen(kept), torch.from_numpy(IDS.astype(np.uint8)).long())


def test_floating_point_numbers_that_are_no_pictures() -> None:
    """Row D4: a table of features stays as it is, or has each feature standardised if that is asked for."""
    plain, scaled = own("features"), own("features", standardise=True)
    assert seen(plain).dtype == torch.float32 and float(seen(plain).mean()) == pytest.approx(7, abs=1)
    training = seen(scaled)[scaled.train.rows]
    assert training.mean(0).tolist() == pytest.approx([0] * 5, abs=1e-5)
    assert training.std(0, unbiased=False).tolist() == pytest.approx([1] * 5, abs=1e-5)
    job = image_job(0, "max(x, 0)", "mine:features", model="mine:dense", recipe=Recipe(epochs=1, batch_size=8))
    assert train(job, CPU).verdict == "COMPLETE"


def test_whole_numbers_that_are_taken_for_pixels_are_said(cli: Cli) -> None:
    """Row D4: nothing is standardised silently that may be no pixels."""
    data = own("pixels")
    assert data.train.pixels.standardised and data.train.pixels.raw.dtype == torch.uint8
    [said] = doubts(data)
    assert "int64 and shape (60, 3, 8, 8) are taken for pixels and standardised; --no-standardise keeps them" in said
    assert doubts(own("pixels", standardise=True)) == [], "the person has said so"
    [found] = json.loads(cli("data", "check", "mine:pixels", "-f", "json").stdout)
    assert found["warnings"] == [said] and found["standardised"] is True
    with pytest.raises(WorkersError, match=r"pixels of type int64; .* --no-standardise keeps other whole numbers"):
        own("large")


@pytest.mark.slow
def test_pictures_that_are_not_standardised(here: Path, cli: Cli) -> None:
    """Row D4: the switch for images. Bytes and whole numbers reach the network as int64, others as float32."""
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    for name, values in (("bytes", images), ("floats", images / 255)):
        np.savez(here / f"{name}.npz", images=values, labels=LABELS)
    kept, floats = (load(f"npz:{name}.npz", 0, CPU, standardise=False) for name in ("bytes", "floats"))
    assert torch.equal(seen(kept), torch.from_numpy(images)[:, None].long())
    assert torch.equal(seen(floats), torch.from_numpy((images / 255).astype(np.float32))[:, None])
    assert own("large", standardise=False).shape == (4, 8) and doubts(own("pixels", standardise=False)) == []
    small = ("--n-trials", "2", "--epochs", "1", "--pool", "inline", "--sampler", "random", "--no-standardise")
    done = cli("launch", "--dataset", "npz:bytes.npz", "--model", "mine:normalising", *small)
    assert done.returncode == 0, done.stderr
    assert cli("launch", "--dataset", "npz:floats.npz", *small).returncode == 0
    done = cli("launch", "--dataset", "npz:bytes.npz", *small)
    assert done.returncode == 1 and done.stderr.count("searcher: ") == 1 and "Traceback" not in done.stderr
    assert "model 'resnet8' takes images" in done.stderr and "(1, 8, 8) of int64" in done.stderr
    [found] = json.loads(cli("data", "check", "npz:bytes.npz", "--no-standardise", "-f", "json").stdout)
    assert found["standardised"] is False and "mean" not in found


def test_what_needs_images_is_refused_before_anything_starts(cli: Cli) -> None:
    """Row D4: networks of this project and augmentation want images; a search says so at once, a worker too."""
    for more, message in (
        ((), "model 'resnet8' takes images, (channels, height, width) of floating-point numbers; an example of these"),
        (("--model", "mine:Net", "--recipe", "he2016"), "the recipe has crop, flip, which are for images"),
    ):
        done = cli("launch", "--dataset", "mine:tokens", "--pool", "inline", *more)
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and done.stderr.count("searcher: ") == 1
    job = image_job(0, "max(x, 0)", "mine:tokens", model="mine:Net", recipe=Recipe(flip=True))
    with pytest.raises(WorkersError, match=r"the recipe has flip, .* the shape \(12,\)"):
        train(job, CPU)


def test_a_search_on_token_numbers_and_one_of_an_older_version(cli: Cli, sqlite_url: str, tmp_path: Path) -> None:
    """Row D4: the setting is part of what a study measures. A study whose settings do not have it, nor `limit_val`,
    took all whole numbers for pixels, and goes on so, on the same data."""
    small = ("--epochs", "1", "--pool", "inline", "--sampler", "random", "--model", "mine:Net", "--n-trials", "2")
    new = ("launch", "--study-name", "new", "--dataset", "mine:tokens", *small, "--storage", sqlite_url)
    assert cli(*new).returncode == 0
    (tmp_path / "e.toml").write_text("standardise = true")
    other = cli("resume", "new", "e.toml", "--storage", sqlite_url)
    assert other.returncode == 2 and "standardise: None in the study, True asked for" in other.stderr
    done = cli("resume", "new", "--n-trials", "3", "--pool", "inline", "--storage", sqlite_url)
    assert done.returncode == 0, done.stderr

    old = ("launch", "--study-name", "old", "--dataset", "mine:as_row", *small, "--storage", sqlite_url)
    done = cli(*old, "--standardise", "--model", "mine:normalising")
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as database:
        [[text]] = database.execute("SELECT config FROM searcher_study WHERE name = 'old'").fetchall()
        settings = {name: v for name, v in json.loads(text).items() if name not in ("standardise", "limit_val")}
        database.execute("UPDATE searcher_study SET config = ? WHERE name = 'old'", [json.dumps(settings)])
    done = cli("resume", "old", "--n-trials", "3", "--pool", "inline", "--storage", sqlite_url)
    assert done.returncode == 0, done.stderr
    assert cli("trial", "old", "2", "--storage", sqlite_url).returncode == 0


def test_the_setting_in_files_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    for content, flag, value in (("", None, None), ("standardise = false", None, False), ("", True, True)):
        file.write_text(content)
        settings = loading.load(file, loading.from_flags({"standardise": flag}))
        assert settings.training.images.standardise is value
        stored = json.loads(json.dumps(settings.to_dict()))
        assert loading.load(None, stored).training.images.standardise is value, "stored and read"
        again = loading.load(None, {}, before=stored)
        assert again.training.images.standardise is value
    file.write_text("standardise = 1")
    with pytest.raises(ConfigError, match=r"standardise in .* must be true or false, not 1"):
        loading.load(file, {})


FEATURES = """

class Rows(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.first, self.act, self.head = nn.Linear(shape[0], 8), nn.ReLU(), nn.Linear(8, classes)

    def forward(self, x):
        assert x.dtype == torch.float32
        return self.head(self.act(self.first(x)))
"""


@pytest.mark.parametrize(("data", "dimension"), [("tokens", -1), ("features", 1)])
def test_surgery_shows_a_network_for_data_that_are_no_images(
    cli: Cli, tmp_path: Path, data: str, dimension: int
) -> None:
    (tmp_path / "mine.py").write_text(MODULE + FEATURES)
    model = {"tokens": "mine:Net", "features": "mine:Rows"}[data]
    done = cli("surgery", model, "x * sigmoid(beta * x)", "--dataset", f"mine:{data}", "-f", "json")
    assert done.returncode == 0, done.stderr
    ((row,),) = [found["activations"] for found in json.loads(done.stdout)]
    assert (row["place"], row["channels"], row["dimension"]) == ("act", 8, dimension)
