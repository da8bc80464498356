"""Data sets: real files in every layout, splits, the cache, what is refused, downloads from a server of the test's."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from searcher.commands.data import _bar  # a download of seconds shows it
from searcher.driver.session import check
from searcher.settings.config import Config
from tests.support import ROOT
from tests.support.commands import Cli
from tests.support.datafiles import (
    CPU,
    TEST,
    Images,
    batch,
    cut,
    drawn,
    encoded,
    here,
    idx,
    parquet,
    write_cifar10_binary,
    write_cifar10_parquet,
    write_cifar10_python,
    write_cifar100,
    write_fashion,
)
from tests.support.made import image_job
from workers.contract import WorkersError
from workers.tasks.images import cache, fetch, formats, sources
from workers.tasks.images.cache import Stored
from workers.tasks.images.config import Recipe
from workers.tasks.images.data import Dataset, Part, check_name, limited, load
from workers.tasks.images.data import _split as split  # a rule for any counts, which no data set has
from workers.tasks.images.fetch import Download
from workers.tasks.images.sources import KNOWN, Raw, find
from workers.tasks.images.train import train

__all__ = ["here"]  # a fixture of every test

torch.set_num_threads(1)

REAL = Path(os.environ.get("SEARCHER_DATA") or ROOT.parent / "shared" / "data") / "cifar10"


def rows(part: Part) -> list[int]:
    listed: list[int] = part.rows.tolist()
    return listed


def assert_is(data: Dataset, images: Images) -> None:
    """Every image is in one part, with its label; those published to test with are the test part."""
    count = len(images.train)
    assert sorted(rows(data.train) + rows(data.val)) == list(range(count))
    assert rows(data.test) == list(range(count, count + len(images.test)))
    shape = (-1, *data.shape)
    every = np.concatenate([images.train.reshape(shape), images.test.reshape(shape)])
    assert data.train.pixels.raw.dtype == torch.uint8 and np.array_equal(data.train.pixels.raw.numpy(), every)
    labels = images.train_labels + images.test_labels
    for part in (data.train, data.val, data.test):
        assert part.labels.tolist() == [labels[row] for row in rows(part)]


# Digits


def pixels(part: Part) -> list[tuple[int, ...]]:
    """The images as they were: whole numbers from 0 to 16."""
    return [tuple(row) for row in part.pixels.raw[part.rows].flatten(1).int().tolist()]


def images_of(part: Part) -> torch.Tensor:
    return torch.cat([images for images, _ in part.batches(300)])


def test_digits_are_split_in_three() -> None:
    data = load("digits", 0, CPU)
    assert (len(data.train), len(data.val), len(data.test)) == (1000, 500, 297)
    assert (data.name, data.classes, data.channels, data.shape) == ("digits", 10, 1, (1, 8, 8))
    assert data.place, "decoded once for all processes"
    for part in (data.train, data.val, data.test):
        assert images_of(part).shape == (len(part), 1, 8, 8) and images_of(part).dtype == torch.float32
        assert part.labels.shape == (len(part),) and part.labels.dtype == torch.int64


def test_every_image_is_in_one_part_only() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    source = Counter(zip(map(tuple, bunch.data.astype(int).tolist()), bunch.target.tolist(), strict=True))
    data = load("digits", 0, CPU)
    parts = (data.train, data.val, data.test)
    assert source == Counter(row for part in parts for row in zip(pixels(part), part.labels.tolist(), strict=True))


def test_normalised_by_the_training_part_alone() -> None:
    data = load("digits", 0, CPU)
    chosen = images_of(data.train)
    assert abs(float(chosen.mean())) < 1e-5 and abs(float(chosen.std()) - 1) < 1e-4
    for part in (data.val, data.test):
        assert abs(float(images_of(part).mean())) > 1e-3
        for end in (torch.min, torch.max):
            assert float(end(images_of(part))) == float(end(chosen)), "one scale for all parts"


def test_digits_are_what_they_ever_were() -> None:
    """To the last bit: the arithmetic of numpy on all images at once."""
    from sklearn.datasets import load_digits

    data = load("digits", 3, CPU)
    images = load_digits().images[:, None].astype(np.float32)
    training = images[data.train.rows.numpy()]
    mean, deviation = (f(axis=(0, 2, 3), keepdims=True) for f in (training.mean, training.std))
    scaled = torch.from_numpy((images - mean) / deviation)
    for part in (data.train, data.val, data.test):
        assert torch.equal(images_of(part), scaled[part.rows])
        at = torch.tensor([5, 0, 5])
        picked, labels = part.batch(at)
        assert torch.equal(picked, scaled[part.rows[at]]) and torch.equal(labels, part.labels[at])


def test_split_seed() -> None:
    first, other = load("digits", 0, CPU), load("digits", 1, CPU)
    load.cache_clear()
    again = load("digits", 0, CPU)
    assert again is not first and torch.equal(images_of(again.train), images_of(first.train))
    assert torch.equal(again.val.labels, first.val.labels) and torch.equal(again.test.rows, first.test.rows)
    assert len(set(rows(first.test)) & set(rows(other.test))) < 100
    assert set(rows(first.val)) != set(rows(other.val))


# Layouts


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dot", [True, False])
def test_fashion_mnist(here: Path, zipped: bool, dot: bool) -> None:
    images = write_fashion(here / "mine", zipped, dot)
    data = load("fashion-mnist", 0, CPU, str(here / "mine"))
    assert_is(data, images)
    assert (data.title, data.classes, data.shape) == ("Fashion-MNIST", 10, (1, 28, 28))


def test_a_file_is_gzip_if_its_content_is(here: Path) -> None:
    images = write_fashion(here, zipped=True)
    for file in here.glob("*.gz"):
        file.rename(file.with_suffix(""))
    assert_is(load("fashion-mnist", 0, CPU, "."), images)


@pytest.mark.parametrize("how", ["python2", 2, 4, 5])
def test_cifar10_as_python_batches(here: Path, how: int | str) -> None:
    images = write_cifar10_python(here / "cifar-10-batches-py", how)
    data = load("cifar10", 0, CPU, str(here))
    assert_is(data, images)
    assert (data.title, data.classes, data.shape) == ("CIFAR-10", 10, (3, 32, 32))


def test_the_pickles_of_this_test_are_such_as_python_reads(here: Path) -> None:
    images = write_cifar10_python(here)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core is no more called so
        found = pickle.loads((here / "test_batch").read_bytes(), encoding="bytes")
    assert np.array_equal(found[b"data"], images.test.reshape(TEST, -1)) and found[b"labels"] == images.test_labels


def test_cifar10_as_binary_batches(here: Path) -> None:
    images = write_cifar10_binary(here / "cifar-10-batches-bin")
    assert_is(load("cifar10", 0, CPU, str(here)), images)


def test_cifar10_as_parquet(here: Path) -> None:
    images = write_cifar10_parquet(here / "cifar10")
    data = load("cifar10", 0, CPU, str(here))
    assert_is(data, images)
    assert data.title == "CIFAR-10"


def test_pictures_that_are_jpeg_are_in_the_title(here: Path) -> None:
    write_cifar10_parquet(here, "JPEG")
    assert load("cifar10", 0, CPU, str(here)).title == "CIFAR-10 (JPEG)"
    load.cache_clear()
    assert load("cifar10", 0, CPU, str(here)).title == "CIFAR-10 (JPEG)", "from the cache too"


@pytest.mark.parametrize("layout", ["python", "binary", "parquet"])
def test_cifar100(here: Path, layout: str) -> None:
    images = write_cifar100(here / ("cifar100" if layout == "parquet" else f"cifar-100-{layout}"), layout)
    data = load("cifar100", 0, CPU, str(here))
    assert_is(data, images)
    assert (data.title, data.classes) == ("CIFAR-100", 100)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no CIFAR-10 in {REAL}; SEARCHER_DATA names the folder above")
def test_the_real_cifar10_as_jpeg(here: Path) -> None:
    """The test images alone, on both sides: decoding all takes long."""
    (here / "train-00000-of-00001.parquet").symlink_to(next(REAL.glob("test-*.parquet")))
    (here / "test-00000-of-00001.parquet").symlink_to(next(REAL.glob("test-*.parquet")))
    data = load("cifar10", 0, CPU, str(here))
    assert data.title == "CIFAR-10 (JPEG)" and len(data.test) == 10_000
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert data.train.pixels.mean.flatten().tolist() == pytest.approx([125.3, 123.0, 113.9], abs=2)  # as published


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="no package dataset-fashion-mnist")
def test_debians_fashion_mnist_is_found_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    files = find("fashion-mnist")
    found = formats.read_idx(files.test)
    assert found.images.shape == (10_000, 1, 28, 28) and np.bincount(found.labels).tolist() == [1000] * 10


# Where they are looked for


def test_the_named_folder_comes_first_then_the_environment_then_the_usual_places(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [here / "nowhere" / "fashion-mnist", here / "cache" / "data" / "fashion-mnist"]
    places += [here / "data" / "FashionMNIST" / "raw", here / "environment", here / "named"]
    monkeypatch.setenv("SEARCHER_DATA", str(here / "environment"))
    for place in places[:-1]:
        write_fashion(place)
        assert find("fashion-mnist").folder == place
    write_fashion(places[-1])
    assert find("fashion-mnist", str(places[-1])).folder == places[-1]
    assert find("fashion-mnist").folder == here / "environment"


def test_a_named_folder_is_the_only_one_that_is_looked_in(here: Path) -> None:
    write_fashion(here / "data" / "fashion-mnist")
    (here / "empty").mkdir()
    with pytest.raises(WorkersError, match=r"looked in \S+/empty, and for fashion-mnist"):
        load("fashion-mnist", 0, CPU, "empty")


def test_files_of_that_name_in_a_usual_place_may_be_anothers(here: Path) -> None:
    """MNIST's are called like Fashion-MNIST's."""
    write_fashion(here / "data")
    with pytest.raises(WorkersError, match="Fashion-MNIST is not here"):
        find("fashion-mnist")
    assert find("fashion-mnist", "data").folder == here / "data"


def test_what_is_not_here_is_said_with_where_and_what_to_do(here: Path) -> None:
    with pytest.raises(WorkersError) as caught:
        load("cifar10", 0, CPU)
    for part in (str(here / "data"), str(here / "cache/data"), "data_batch_1.bin", "train-*.parquet", "--data-dir"):
        assert part in str(caught.value)
    assert "searcher data fetch cifar10" in str(caught.value)
    with pytest.raises(WorkersError, match="apt install dataset-fashion-mnist"):
        load("fashion-mnist", 0, CPU)


def test_a_missing_file_is_named(here: Path) -> None:
    write_cifar10_python(here)
    (here / "data_batch_3").unlink()
    with pytest.raises(WorkersError, match=r"has Python batches without data_batch_3"):
        load("cifar10", 0, CPU, str(here))


def test_names() -> None:
    for bad in ("digit", "npz:", "a.b:", ":f", "a b:f", ""):
        with pytest.raises(WorkersError, match=f"unknown dataset '{bad}'; .*accepted: digits, .*npz:FILE"):
            load(bad, 0, CPU)
    with pytest.raises(WorkersError, match="did you mean 'digits'"):
        load("digit", 0, CPU)
    for good in (*KNOWN, "npz:my file.npz", "mine:get", "a.b.c:get"):
        check_name(good)


def test_data_that_are_not_here_are_missed_before_anything_starts(here: Path) -> None:
    for local in (Config.of(dataset="cifar10"), Config.of(dataset="cifar10", pool="inline", address="h:1")):
        with pytest.raises(WorkersError, match="CIFAR-10 is not here"):
            check(local)
    with pytest.raises(WorkersError, match="limit_train must be 0"):
        check(Config.of(limit_train=5))
    check(Config.of(dataset="cifar10", address="h:1"))  # they may be there on the nodes of the cluster


# A user's own


def own_arrays(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(1).integers(0, 256, (count, 6, 7), np.uint8), np.arange(count) % 3


def test_npz(here: Path) -> None:
    images, labels = own_arrays()
    np.savez(here / "a.npz", images=images, labels=labels)
    data = load("npz:a.npz", 0, CPU)
    assert (len(data.train), len(data.val), len(data.test)) == (43, 5, 12)
    assert (data.classes, data.shape, data.title) == (3, (1, 6, 7), "a.npz")
    assert np.array_equal(data.train.pixels.raw[:, 0].numpy(), images)
    np.savez_compressed(here / "b.npz", x=images, y=labels[:, None])
    assert torch.equal(load("npz:b.npz", 0, CPU).train.labels, data.train.labels)


def test_npz_with_a_test_part(here: Path) -> None:
    images, labels = own_arrays()
    np.savez(here / "k.npz", x_train=images[:50], y_train=labels[:50], x_test=images[50:], y_test=labels[50:])
    data = load("npz:k.npz", 0, CPU)
    assert rows(data.test) == list(range(50, 60)) and len(data.train) == 45
    np.savez(here / "k.npz", x_train=images, y_train=labels)
    load.cache_clear()
    assert len(load("npz:k.npz", 0, CPU).test) == 12


def test_pixels_may_be_floating_point_numbers(here: Path) -> None:
    images, labels = own_arrays()
    np.savez(here / "f.npz", images=images / 255, labels=labels.astype(float))
    data = load("npz:f.npz", 0, CPU)
    assert data.train.pixels.raw.dtype == torch.float32 and data.place
    assert float(images_of(data.train).mean()) == pytest.approx(0, abs=1e-5)
    assert float(images_of(data.train).std(unbiased=False)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "read_as"),
    [
        ((60, 8, 9), (1, 8, 9)),
        ((60, 8, 9, 1), (1, 8, 9)),
        ((60, 8, 9, 3), (3, 8, 9)),
        ((60, 8, 9, 4), (4, 8, 9)),
        ((60, 3, 8, 9), (3, 8, 9)),
        ((60, 1, 8, 3), (1, 8, 3)),
        ((60, 16, 8, 9), (16, 8, 9)),
    ],
)
def test_where_the_channels_are(shape: tuple[int, ...], read_as: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = formats.checked(images, np.zeros(60, int), "x").images
    assert found.shape[1:] == read_as
    assert Counter(found[7].ravel().tolist()) == Counter(images[7].ravel().tolist())
    if len(shape) == 4 and shape[3] == read_as[0]:
        assert np.array_equal(found[7, 1 % read_as[0]], images[7, :, :, 1 % read_as[0]])


def write_module(here: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """The module `my_data`, in the current directory."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(here)])
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    (here / "my_data.py").write_text("import numpy as np\nimport torch\n" + body)


ARRAYS = "images, labels = np.arange(60 * 48).reshape(60, 3, 4, 4) % 256, np.arange(60) % 3\n"


@pytest.mark.parametrize(
    ("returned", "tests"),
    [
        ("images, labels", 12),
        ("torch.tensor(images).float().requires_grad_(), torch.tensor(labels)", 12),
        ("images.tolist(), list(labels)", 12),
        ("(images[:40], labels[:40]), (images[40:], labels[40:])", 20),
        ("[(images, labels), (torch.tensor(images[:9]), labels[:9])]", 9),
    ],
)
def test_a_function_of_the_users(here: Path, monkeypatch: pytest.MonkeyPatch, returned: str, tests: int) -> None:
    write_module(here, monkeypatch, f"def get():\n    {ARRAYS}    return {returned}\n")
    data = load("my_data:get", 0, CPU)
    assert len(data.test) == tests and data.shape == (3, 4, 4) and data.classes == 3
    assert data.train.pixels.raw[0].int().flatten().tolist() == list(range(48))
    outcome = train(
        image_job(0, "max(x, 0)", dataset="my_data:get", width=1, recipe=Recipe(epochs=1, batch_size=4)), CPU
    )
    assert "val_acc" in outcome.metrics


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("get = 3", "has no function 'get'"),
        ("def put(): pass", "has no function 'get'"),
        ("def get(where): pass", "the function fails: TypeError"),
        ("def get(): raise OSError('no disk')", "the function fails: OSError: no disk"),
        ("def get(): return 7", r"returns int; \(images, labels\) is needed"),
        ("def get(): return [1, 2, 3]", "returns list of 3"),
        ("def get(): return [[1, 2], [3], [4]], [0, 1, 2]", "these are not arrays"),
        ("def get(): return 'ab', 'cd'", r"images of shape \(\)"),
        (f"{ARRAYS}def get(): return images, labels[1:]", "60 images but 59 labels"),
        (f"{ARRAYS}def get(): return (images, labels), (images[:, :1], labels)", r"to test \(1, 4, 4\)"),
        (f"{ARRAYS}def get(): return (images, labels), (images / 9, labels)", "those to test float32"),
        (f"{ARRAYS}def get(): return (images[labels < 2], labels[labels < 2]), (images, labels)", "image of class 2"),
    ],
)
def test_a_function_that_cannot_serve(here: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str) -> None:
    write_module(here, monkeypatch, f"{body}\n")
    with pytest.raises(WorkersError, match=f"dataset 'my_data:get': .*{message}|^my_data:get: .*{message}"):
        load("my_data:get", 0, CPU)


def test_no_such_module() -> None:
    with pytest.raises(WorkersError, match=r"'not_there:get': module 'not_there' cannot be .* current directory"):
        load("not_there:get", 0, CPU)


# Splits

CLASSES = st.lists(st.integers(20, 60), min_size=2, max_size=6)  # images of each class
SEEDS = st.integers(0, 2**32 - 1)


def unsplit(counts: list[int], tests: list[int]) -> Raw:
    labels = np.concatenate([np.repeat(np.arange(len(part)), part) for part in (counts, tests) if part])
    return Raw("", len(counts), Stored(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, sum(tests)), "here")


@settings(max_examples=50, deadline=None)
@given(counts=CLASSES, published=st.booleans(), seed=SEEDS)
def test_laws_of_splits(counts: list[int], published: bool, seed: int) -> None:
    raw = unsplit(counts, [3] * len(counts) if published else [])
    labels = raw.stored.labels
    parts = split("mine", raw, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels))), "complete and disjoint"
    for again, part in zip(split("mine", raw, seed), parts, strict=True):
        assert np.array_equal(again, part)
    if published:
        assert parts[2].tolist() == list(range(sum(counts), len(labels)))
    rest = np.concatenate(parts[:2])
    assert len(parts[1]) == -(-len(rest) // 10)
    for part, of in ((parts[0], rest), (parts[1], rest), *([] if published else [(parts[2], np.concatenate(parts))])):
        share = np.bincount(labels[of]) / len(of)
        assert np.abs(np.bincount(labels[part]) - share * len(part)).max() <= 1 + 1e-9, "stratified"


@settings(max_examples=50, deadline=None)
@given(counts=CLASSES, seed=SEEDS, data=st.data())
def test_laws_of_limits(counts: list[int], seed: int, data: st.DataObject) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    among = np.random.default_rng(seed).permutation(len(labels))
    number = data.draw(st.integers(len(counts), len(labels)))
    try:
        chosen = limited(among, labels, number, seed)
    except WorkersError as error:
        least = int(str(error).rpartition(" ")[2])
        assert number < least
        with pytest.raises(WorkersError):
            limited(among, labels, least - 1, seed)
        number, chosen = least, limited(among, labels, least, seed)
    assert np.bincount(labels[chosen], minlength=len(counts)).all(), "no class without an image"
    assert len(set(chosen.tolist())) == number and set(chosen.tolist()) <= set(among.tolist())
    assert np.array_equal(chosen, limited(among, labels, number, seed))
    larger = limited(among, labels, data.draw(st.integers(number, len(labels))), seed)
    assert set(chosen.tolist()) <= set(larger.tolist()), "nested"
    got = np.bincount(labels[chosen], minlength=len(counts))
    lowest, highest = (got - 0.5) / counts, (got + 0.5) / counts
    assert lowest.max() <= highest.min() + 1e-12, "no class has had its turn before another's (Sainte-Laguë)"


def test_another_seed_takes_other_images_and_equal_classes_are_taken_equally() -> None:
    labels = np.arange(1000) % 10
    one, other = (limited(np.arange(1000), labels, 250, seed) for seed in (0, 1))
    assert set(one.tolist()) != set(other.tolist())
    assert np.bincount(labels[one]).tolist() == [25] * 10
    assert sorted(np.bincount(labels[one[:37]]).tolist()) == [3] * 3 + [4] * 7


def test_a_limit_of_training_images(here: Path) -> None:
    write_cifar10_binary(here)
    every, some = (load("cifar10", 0, CPU, str(here), limit) for limit in (0, 30))
    assert len(every.train) == 90 and len(some.train) == 30
    assert set(rows(some.train)) < set(rows(every.train)) and some.train.labels.bincount().tolist() == [3] * 10
    assert rows(some.val) == rows(every.val) and rows(some.test) == rows(every.test)
    assert images_of(some.train).mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert not torch.equal(some.train.pixels.mean, every.train.pixels.mean), "what is not trained on is not seen"


def test_a_limit_of_validation_images(here: Path) -> None:
    """Row D5: the same rules as for training images: each class in proportion, a smaller limit's images among those of
    a larger one; the other parts stay as they are."""
    write_cifar10_binary(here)
    every, some = (load("cifar10", 0, CPU, str(here), 0, limit) for limit in (0, 10))
    assert set(rows(every.val)) == set(rows(some.val)), "the limit is all there are"
    digits = [load("digits", 0, CPU, "", 300, limit) for limit in (0, 100, 37)]
    assert [len(data.val) for data in digits] == [500, 100, 37]
    assert set(rows(digits[2].val)) < set(rows(digits[1].val)) < set(rows(digits[0].val))
    counts = [data.val.labels.bincount() for data in digits]
    assert (counts[0] / 5 - counts[1]).abs().max() <= 1 and counts[2].min() >= 3
    for data in digits:
        assert rows(data.train) == rows(digits[0].train) and rows(data.test) == rows(digits[0].test)
        assert torch.equal(data.train.pixels.mean, digits[0].train.pixels.mean)
    assert len({data.digest for data in digits}) == 3, "other validation images are other data"
    assert load("digits", 0, CPU).digest == "46010228ed1188df", "as it was before there was a limit"


@pytest.mark.parametrize("limit", [-1, 9, 501])
def test_a_limit_of_validation_images_that_cannot_be(limit: int) -> None:
    """Row D5: the message names the limit that was given."""
    expected = rf"limit_val must be 0 .* from 10 \(classes\) to 500 \(validation images\), not {limit}"
    with pytest.raises(WorkersError, match=expected):
        load("digits", 0, CPU, "", 0, limit)


@pytest.mark.slow
def test_a_limit_of_validation_images_is_part_of_what_a_study_measures(cli: Cli, sqlite_url: str) -> None:
    """Row D5: as a flag, in a file, and in `data check`; another limit is another measurement."""
    small = ("--epochs", "1", "--pool", "inline", "--sampler", "random", "--n-trials", "2", "--limit-train", "100")
    launch = ("launch", "--study-name", "s", *small, "--storage", sqlite_url)
    done = cli(*launch, "--limit-val", "20")
    assert done.returncode == 0, done.stderr
    [trial] = json.loads(cli("trial", "s", "0", "--storage", sqlite_url, "-f", "json").stdout)
    assert trial["limit_val"] == 20 and trial["val_acc"] * 20 == pytest.approx(round(trial["val_acc"] * 20))
    Path("e.toml").write_text("limit_val = 30\n")
    other = cli("resume", "s", "e.toml", "--storage", sqlite_url)
    assert other.returncode == 2 and "limit_val: 20 in the study, 30 asked for" in other.stderr
    for limit, status, message in (("5", 1, "limit_val must be 0"), ("-1", 2, "--limit-val must be at least 0")):
        refused = cli("launch", *small, "--limit-val", limit)
        assert refused.returncode == status and message in refused.stderr.splitlines()[-1]
    [found] = json.loads(cli("data", "check", "digits", "--limit-val", "37", "-f", "json").stdout)
    assert [part["images"] for part in found["parts"]] == [1000, 37, 297]


@pytest.mark.parametrize("limit", [-1, 9, 1001])
def test_a_limit_that_cannot_be(limit: int) -> None:
    with pytest.raises(WorkersError, match=rf"0 \(no limit\) or from 10 \(classes\) to 1000 .*, not {limit}"):
        load("digits", 0, CPU, "", limit)


def test_a_limit_that_leaves_a_class_without_images() -> None:
    """Seen to fail: the rarest class was trained with nothing."""
    labels = np.repeat([0, 1, 2], [5000, 20, 5000])
    with pytest.raises(
        WorkersError, match=r"limit_train 100 leaves no .* of the rarest class.* of each is (\d+)$"
    ) as caught:
        limited(np.arange(len(labels)), labels, 100, 0)
    least = int(str(caught.value).rpartition(" ")[2])
    assert np.bincount(labels[limited(np.arange(len(labels)), labels, least, 0)])[1] == 1


def test_moments_of_bytes_are_those_of_numpy(here: Path) -> None:
    images = write_cifar10_binary(here)
    data = load("cifar10", 0, CPU, str(here))
    training = images.train[data.train.rows.numpy()].astype(np.float64)
    assert data.train.pixels.mean.flatten().tolist() == pytest.approx(training.mean(axis=(0, 2, 3)))
    assert data.train.pixels.deviation.flatten().tolist() == pytest.approx(training.std(axis=(0, 2, 3)))


def test_moments_of_numbers_that_are_large_and_close_together(here: Path) -> None:
    """Seen to fail with sums in single precision: the mean off by 0.03, flat channels scaled up."""
    draw = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    pixels = np.stack([draw.normal(30_000, 50, (20_000, 4, 4)), np.full((20_000, 4, 4), 0.1)], axis=1)
    np.savez(here / "far.npz", images=pixels.astype(np.float32), labels=labels)
    seen = images_of(load("npz:far.npz", 0, CPU).train)
    assert seen.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0, 0], abs=1e-3)
    assert seen.std(dim=(0, 2, 3)).tolist() == pytest.approx([1, 0], abs=1e-3)


def test_a_channel_of_one_value(here: Path) -> None:
    images, labels = own_arrays()
    for name, pixels in (("bytes", np.full_like(images, 7)), ("floats", np.full(images.shape, 0.1))):
        np.savez(here / f"{name}.npz", images=pixels, labels=labels)
        assert float(images_of(load(f"npz:{name}.npz", 0, CPU).train).abs().max()) < 1e-5


# The cache


def test_decoded_once(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_cifar10_python(here)
    decoded: list[str] = []
    right = sources._decoded
    monkeypatch.setattr(sources, "_decoded", lambda known, found: (decoded.append(known.title), right(known, found))[1])
    for seed in (0, 1, 2):
        assert_is(load("cifar10", seed, CPU, str(here)), images)
    assert decoded == ["CIFAR-10"]
    (here / "test_batch").write_bytes(batch(images.test[::-1], images.test_labels[::-1]))
    os.utime(here / "test_batch", ns=(1, 1))
    images.test, images.test_labels = images.test[::-1], images.test_labels[::-1]
    load.cache_clear()
    assert_is(load("cifar10", 0, CPU, str(here)), images)
    assert len(decoded) == 2
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    load.cache_clear()
    load("cifar10", 0, CPU, str(here))
    assert len(decoded) == 3


def test_images_are_mapped_from_the_cache_and_the_file_never_changes(here: Path) -> None:
    write_cifar10_binary(here)
    first, second = (load("cifar10", seed, CPU, str(here)) for seed in (0, 1))
    file = Path(first.place) / "images.npy"
    before = file.read_bytes()
    for data in (first, second):
        assert {part.pixels.raw.data_ptr() for part in (data.train, data.val, data.test)} == {
            data.train.pixels.raw.data_ptr()
        }
        assert mapped_inode(data.train.pixels.raw) == file.stat().st_ino
    value = int(second.train.pixels.raw[0, 0, 0, 0])
    first.train.pixels.raw[0] = 255 - value
    assert file.read_bytes() == before and int(second.train.pixels.raw[0, 0, 0, 0]) == value


def mapped_inode(tensor: torch.Tensor) -> int:
    """Of the file that the tensor's memory is mapped from; 0: of none."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, inode, *_ = line.split()
        begin, end = (int(address, 16) for address in span.split("-"))
        if begin <= tensor.data_ptr() < end:
            return int(inode)
    raise AssertionError("not mapped at all")


def python(code: str, *args: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


TWO = """
import sys, time
from pathlib import Path
import torch
from workers.tasks.images import sources
from workers.tasks.images.data import load
me, other, folder = sys.argv[1:]
right = sources._decoded
def slow(known, found):
    Path(f"decoded-{me}").touch()
    time.sleep(1)
    return right(known, found)
sources._decoded = slow
Path(f"ready-{me}").touch()
while not Path(f"ready-{other}").exists():
    time.sleep(0.01)
data = load("cifar10", 0, torch.device("cpu"), folder)
print(int(data.train.pixels.raw.long().sum()))
"""


@pytest.mark.slow
def test_two_processes_at_once_decode_once(here: Path) -> None:
    images = write_cifar10_binary(here)
    pair = [python(TWO, me, other, str(here)) for me, other in (("a", "b"), ("b", "a"))]
    printed = [process.communicate(timeout=60) for process in pair]
    total = images.train.sum(dtype=int) + images.test.sum(dtype=int)
    assert [out.strip() for out, _ in printed] == [str(total)] * 2, printed
    assert len(list(here.glob("decoded-*"))) == 1


KILLED = """
import os, sys
import numpy, torch
from workers.tasks.images.data import load
save, calls = numpy.save, []
def killed(*args):
    if calls:
        os._exit(9)
    calls.append(save(*args))
numpy.save = killed
load("cifar10", 0, torch.device("cpu"), sys.argv[1])
"""


@pytest.mark.slow
def test_what_a_killed_worker_leaves_is_not_taken_for_whole(here: Path) -> None:
    images = write_cifar10_binary(here)
    process = python(KILLED, str(here))
    process.communicate(timeout=60)
    assert process.returncode == 9 and list((here / "cache" / "decoded").glob("*/images.npy"))
    assert_is(load("cifar10", 0, CPU, str(here)), images)


FULL = """
import resource, sys
import torch
from workers.tasks.images.data import load
from workers.contract import WorkersError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as on a disk that has no more room
try:
    load("cifar10", 0, torch.device("cpu"), sys.argv[1])
except WorkersError as error:
    print(error)
"""


@pytest.mark.slow
def test_no_room_for_the_cache(here: Path) -> None:
    write_cifar10_binary(here)
    out, error = python(FULL, str(here)).communicate(timeout=60)
    assert f"cannot keep decoded images in {here / 'cache' / 'decoded'}" in out and "SEARCHER_CACHE" in out, error
    assert not [path for path in (here / "cache" / "decoded").iterdir() if path.is_dir()], "nothing is left behind"


def test_a_cache_that_cannot_be_made(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10_binary(here)
    (here / "file").touch()
    monkeypatch.setenv("SEARCHER_CACHE", str(here / "file"))
    with pytest.raises(WorkersError, match=r"cannot keep decoded images in \S+/file/decoded: Not a directory; make"):
        load("cifar10", 0, CPU, str(here))


def test_a_damaged_cache_is_named(here: Path) -> None:
    write_cifar10_binary(here)
    place = Path(load("cifar10", 0, CPU, str(here)).place)
    load.cache_clear()
    os.truncate(place / "images.npy", 1000)
    with pytest.raises(WorkersError, match=rf"{place} are damaged .*; delete that folder"):
        load("cifar10", 0, CPU, str(here))


# What is refused


BAD_FASHION: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut gzip": (lambda f: cut(f / "train-images-idx3-ubyte.gz", -9), "train-images-idx3-ubyte.gz cannot be read"),
    "no gzip": (
        lambda f: (f / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bnonsense"),
        "train-images-idx3-ubyte.gz cannot be read",
    ),
    "empty": (lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(b""), "begin with 00000801, and begins with no"),
    "text": (
        lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>not found</html>"),
        "t10k-labels-idx1-ubyte.gz is not an IDX file of labels",
    ),
    "cut": (
        lambda f: (f / "train-images-idx3-ubyte.gz").write_bytes(idx(drawn(shape=(28, 28)).train)[:-1]),
        "promises 100 x 28 x 28 = 78400 bytes and has 78399",
    ),
    "swapped": (
        lambda f: (f / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros((9, 2, 2), np.uint8))),
        "must begin with 00000801, and begins with 00000803",
    ),
    "fewer labels": (
        lambda f: (f / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(99, np.uint8))),
        "100 images but 99 labels",
    ),
    "no images": (
        lambda f: [
            (f / f"t10k-{kind}-ubyte.gz").write_bytes(idx(np.zeros(shape, np.uint8)))
            for kind, shape in (("images-idx3", (0, 28, 28)), ("labels-idx1", (0,)))
        ],
        "there are no images",
    ),
    "size": (
        lambda f: (f / "train-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((100, 27, 28), np.uint8))),
        r"shape \(1, 27, 28\); those of Fashion-MNIST are \(1, 28, 28\)",
    ),
    "label": (
        lambda f: (f / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.full(100, 10, np.uint8))),
        "labels of Fashion-MNIST must be from 0 to 9; 10 is among them",
    ),
    "one class": (
        lambda f: (f / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.minimum(np.arange(100), 9).astype(np.uint8))),
        "1 of 100 images are of class 0; that is too few",
    ),
    "folder": (
        lambda f: [(f / "train-images-idx3-ubyte.gz").unlink(), (f / "train-images-idx3-ubyte").mkdir()],
        "with",
    ),
}


@pytest.mark.parametrize("name", BAD_FASHION)
def test_idx_files_that_cannot_serve(here: Path, name: str) -> None:
    damage, message = BAD_FASHION[name]
    write_fashion(here)
    damage(here)
    with pytest.raises(WorkersError, match=message):
        load("fashion-mnist", 0, CPU, str(here))


class Evil:
    """What it is unpickled as, a real unpickler would call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


DATA = np.zeros((20, 3072), np.uint8)
BAD_BATCHES: dict[str, tuple[Any, str]] = {
    "system": (Evil(os.system, "touch ran"), "asks for posix.system, and only arrays and plain values"),
    "eval": ({"data": Evil(eval, "open('ran', 'w')")}, "asks for (__builtin__|builtins).eval"),
    "path": ({"labels": Path("x")}, "asks for pathlib"),
    "getattr": (Evil(getattr, "", "join"), "asks for (__builtin__|builtins).getattr"),
    "numpy's own": (Evil(np.fromfile, "x"), "asks for numpy"),
    "objects": ({"data": np.array([[None]]), "labels": [0]}, "an array of"),
    "records": ({"data": np.zeros(3, "u1,u1"), "labels": [0]}, "an array of"),
    "a list": ([1, 2], "'data' must be an array"),
    "no data": ({"labels": [0] * 20}, "'data' must be an array .* nothing of the kind"),
    "shape": ({"data": DATA[:, 1:], "labels": [0] * 20}, r"it is uint8 \(20, 3071\)"),
    "floats": ({"data": DATA.astype(np.int64), "labels": [0] * 20}, r"it is int64 \(20, 3072\)"),
    "no labels": ({"data": DATA, "fine_labels": [0] * 20}, "'labels' must be a list of whole numbers"),
    "text": ({"data": DATA, "labels": ["a"] * 20}, "'labels' must be a list of whole numbers"),
    "fractions": ({"data": DATA, "labels": [0.5] * 20}, "'labels' must be a list of whole numbers"),
    "fewer": ({"data": DATA, "labels": [0] * 19}, "20 images but 19 labels"),
    "range": ({"data": DATA, "labels": [0] * 19 + [10]}, "from 0 to 9; 10 is among them"),
    "negative": ({"data": DATA, "labels": [0] * 19 + [-1]}, "from 0 to 9; -1 is among them"),
    "huge": ({"data": DATA, "labels": [0] * 19 + [10**30]}, "one whole number an image"),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("name", BAD_BATCHES)
def test_pickles_with_anything_else_in_them(here: Path, name: str, protocol: int) -> None:
    content, message = BAD_BATCHES[name]
    write_cifar10_python(here)
    (here / "data_batch_2").write_bytes(pickle.dumps(content, protocol))
    where = "" if name in ("range", "negative") else "data_batch_2.*"
    with pytest.raises(WorkersError, match=f"{where}{message}"):
        load("cifar10", 0, CPU, str(here))
    assert not (here / "ran").exists()


@pytest.mark.parametrize("damage", [lambda c: c[:-200], lambda c: b"", lambda c: b"nonsense", lambda c: c[:3] + c[9:]])
def test_broken_pickles(here: Path, damage: Callable[[bytes], bytes]) -> None:
    write_cifar10_python(here)
    (here / "data_batch_2").write_bytes(damage((here / "data_batch_2").read_bytes()))
    with pytest.raises(WorkersError, match="data_batch_2 is not a Python batch of CIFAR, or is cut short"):
        load("cifar10", 0, CPU, str(here))


@pytest.mark.parametrize("size", [0, 3072, 20 * 3073 - 1, 20 * 3073 + 1])
def test_truncated_binary_batches(here: Path, size: int) -> None:
    write_cifar10_binary(here)
    (here / "data_batch_2.bin").write_bytes(bytes(size))
    with pytest.raises(WorkersError, match=rf"data_batch_2.bin is truncated .* records of 3073 bytes, and has {size} "):
        load("cifar10", 0, CPU, str(here))


def shard(here: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), here / "test-00000-of-00001.parquet")


def pictures(*content: bytes | None) -> list[dict[str, bytes | None]]:
    return [{"bytes": one} for one in content]


GOOD = encoded(np.zeros((3, 32, 32), np.uint8))
BAD_PARQUET: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda f: cut(f / "test-00000-of-00001.parquet", -10), "is not a Parquet file, or is cut short"),
    "missing": (lambda f: (f / "train-00001-of-00002.parquet").unlink(), "has 1 of the 2 files"),
    "columns": (lambda f: shard(f, img=pictures(GOOD), kind=[0]), r"has the columns \['img', 'kind'\]; img or image w"),
    "no struct": (lambda f: shard(f, img=[3], label=[0]), "'img' must be a struct with bytes, or bytes, not int64"),
    "no bytes": (lambda f: shard(f, img=[{"path": "a.png"}], label=[0]), "'img' must be a struct with bytes, or bytes"),
    "gap": (lambda f: shard(f, img=pictures(GOOD, GOOD), label=[0, None]), "have no gaps"),
    "picture gap": (lambda f: shard(f, img=pictures(GOOD, None), label=[0, 1]), "row 1: the picture cannot be decoded"),
    "no picture": (lambda f: shard(f, img=pictures(b"GIF89a"), label=[0]), "row 0: the picture cannot be decoded"),
    "cut picture": (lambda f: shard(f, img=pictures(GOOD[:60]), label=[0]), "row 0: the picture cannot be decoded"),
    "size": (
        lambda f: shard(f, img=pictures(GOOD, encoded(np.zeros((3, 32, 31), np.uint8))), label=[0, 1]),
        r"row 1: a picture of shape \(32, 31, 3\); \(32, 32, 3\), red, green and blue",
    ),
    "text": (lambda f: shard(f, img=pictures(GOOD), label=["cow"]), "'cow' is not a class; accepted: airplane, auto"),
    "empty": (lambda f: parquet(f / "test-00000-of-00001.parquet", np.zeros((0, 3, 32, 32)), []), "struct|no images"),
}


@pytest.mark.parametrize("name", BAD_PARQUET)
def test_parquet_that_cannot_serve(here: Path, name: str) -> None:
    damage, message = BAD_PARQUET[name]
    write_cifar10_parquet(here)
    damage(here)
    with pytest.raises(WorkersError, match=message):
        load("cifar10", 0, CPU, str(here))


OWN, OWN_LABELS = own_arrays()
NAN = OWN / 255
NAN[7, 2, 3] = np.nan
BAD_NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "names": ({"a": OWN, "b": OWN_LABELS}, r"has the arrays \['a', 'b'\]; needed are images and labels, or x and y"),
    "half a test part": ({"x_train": OWN, "y_train": OWN_LABELS, "x_test": OWN}, "and no others"),
    "objects": ({"images": np.array([None] * 60), "labels": OWN_LABELS}, "not an .npz file of numbers"),
    "flat": (
        {"images": OWN.reshape(60, -1), "labels": OWN_LABELS},
        r"images of shape \(60, 42\); \(n, height, width\)",
    ),
    "no pixels": ({"images": OWN[:, :0], "labels": OWN_LABELS}, r"images of shape \(60, 1, 0, 7\)"),
    "text": ({"images": OWN.astype(str), "labels": OWN_LABELS}, "pixels of type <U3; whole numbers from 0 to 255"),
    "bool": ({"images": OWN > 9, "labels": OWN_LABELS}, "pixels of type bool"),
    "large": ({"images": OWN.astype(int) + 1, "labels": OWN_LABELS}, "pixels of type int64"),
    "negative": ({"images": OWN.astype(int) - 1, "labels": OWN_LABELS}, "pixels of type int64"),
    "nan": ({"images": NAN, "labels": OWN_LABELS}, "image 7 has pixels that are not finite"),
    "infinite": ({"images": np.full(OWN.shape, 1e300), "labels": OWN_LABELS}, "image 0 has pixels that are not finite"),
    "fractions": ({"images": OWN, "labels": OWN_LABELS + 0.5}, "labels must be whole numbers; 0.5 is among them"),
    "nan labels": ({"images": OWN, "labels": OWN_LABELS * np.nan}, "labels must be whole numbers; nan is among them"),
    "one-hot": ({"images": OWN, "labels": np.eye(3)[OWN_LABELS]}, r"labels of shape \(60, 3\) and type float64"),
    "words": ({"images": OWN, "labels": OWN_LABELS.astype(str)}, "type <U"),
    "below 0": ({"images": OWN, "labels": OWN_LABELS - 1}, "must be from 0 to 59; -1 is among them"),
    "far out": ({"images": OWN, "labels": OWN_LABELS + 10**9}, "must be from 0 to 59; 1000000000 is among them"),
    "from 1": ({"images": OWN, "labels": OWN_LABELS + 1}, "no training image of class 0; classes are counted from 0"),
    "gap": ({"images": OWN, "labels": OWN_LABELS * 2}, "no training image of class 1"),
    "rare": ({"images": OWN, "labels": np.arange(60) // 59}, "1 of 60 images are of class 1; that is too few"),
    "few": ({"images": OWN, "labels": np.arange(60) // 58}, "2 of 60 images are of class 1; that is too few"),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_npz_files_that_cannot_serve(here: Path, name: str) -> None:
    arrays, message = BAD_NPZ[name]
    np.savez(here / "bad.npz", **arrays)
    with pytest.raises(WorkersError, match=rf"bad\.npz.*{message}"):
        load("npz:bad.npz", 0, CPU)


def test_npz_files_that_are_none(here: Path) -> None:
    with pytest.raises(WorkersError, match=rf"no file '{here}/not.npz'; npz:FILE names one"):
        load("npz:not.npz", 0, CPU)
    np.savez(here / "cut.npz", images=OWN, labels=OWN_LABELS)
    cut(here / "cut.npz", -100)
    (here / "text.npz").write_text("hello")
    np.save(here / "one.npy", OWN)
    (here / "one.npy").rename(here / "one.npz")
    for name in ("cut", "text", "one"):
        with pytest.raises(WorkersError, match=f"{name}.npz is not an .npz file of numbers, or is cut short"):
            load(f"npz:{name}.npz", 0, CPU)


# Downloads


@dataclass
class Served:
    """A server's files, what was asked of it, and where it cuts connections: after so many bytes, one a connection."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True


@pytest.fixture
def server() -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path.rpartition("/")[2], self.headers.get("Range", "")
            served.asked.append((name, wanted))
            content = served.files.get(name)
            start = int(wanted[6:-1]) if wanted and served.ranges else 0
            if content is None or (start and start >= len(content)):
                self.send_error(404 if content is None else 416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:][: served.cuts.pop(0) if served.cuts else None])

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{listening.server_port}/files")
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    listening.shutdown()
    thread.join()
    listening.server_close()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def publish(server: Served, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, bytes], to: str = "") -> None:
    """These files are published under that name, and lie on the server."""
    server.files |= files
    downloads = tuple(Download(f"http://published.invalid/{file}", md5(c), to) for file, c in files.items())
    monkeypatch.setattr(fetch, "DOWNLOADS", {**fetch.DOWNLOADS, name: downloads})


def archive(*members: tarfile.TarInfo, folder: Path | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        if folder:
            tar.add(folder, folder.name)
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return out.getvalue()


def quiet(*_: object) -> None:
    """A report that goes nowhere."""


def left(here: Path) -> list[str]:
    """What a fetch left, without its lock."""
    return sorted(
        str(path.relative_to(here)) for path in here.rglob("*") if path.is_file() and ".lock" not in path.name
    )


def test_fetch_list_check_and_train(
    here: Path, cli: Cli, server: Served, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = tmp_path_factory.mktemp("published") / "cifar-10-batches-py"
    images = write_cifar10_python(source)
    publish(
        server, monkeypatch, "cifar10", {"cifar-10-python.tar.gz": archive(folder=source)}, to="cifar-10-batches-py"
    )
    place = here / "cache" / "data" / "cifar10"
    before = json.loads(cli("data", "list", "-f", "json").stdout)
    assert before[2]["where"] == "not here: searcher data fetch cifar10"
    done = cli("data", "fetch", "cifar10", "--url", server.url)
    assert (done.returncode, done.stderr) == (0, "") and f"cifar10 is in {place}\n" in done.stdout
    assert left(place) == sorted(f"cifar-10-batches-py/{file.name}" for file in source.iterdir())
    after = json.loads(cli("data", "list", "-f", "json").stdout)
    assert after[2]["where"] == f"{place / 'cifar-10-batches-py'} (Python batches)"
    assert_is(load("cifar10", 0, CPU), images)
    [checked] = json.loads(cli("data", "check", "cifar10", "-f", "json").stdout)
    assert [part["images"] for part in checked["parts"]] == [90, 10, 20]
    assert (checked["title"], checked["shape"], checked["images"]) == ("CIFAR-10", "3x32x32", 120)
    asked = len(server.asked)
    assert cli("data", "fetch", "cifar10", "--url", server.url).returncode == 0
    assert len(server.asked) == asked, "what is here is not fetched again"


def test_fetch_of_several_files_into_a_folder_that_is_named(
    here: Path, cli: Cli, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion(here / "source")
    files = {file.name: file.read_bytes() for file in (here / "source").iterdir()}
    publish(server, monkeypatch, "fashion-mnist", files)
    done = cli("data", "fetch", "fashion-mnist", "--url", f"{server.url}/", "--data-dir", "mine")
    assert done.returncode == 0 and "Next: searcher data check fashion-mnist --data-dir mine" in done.stdout
    assert sorted(left(here / "mine" / "fashion-mnist")) == sorted(files)
    table = cli("data", "check", "fashion-mnist", "--data-dir", "mine", "--limit-train", "20").stdout
    assert "Fashion-MNIST" in table and str(here / "mine" / "fashion-mnist") in table
    lines = cli("data", "check", "fashion-mnist", "--data-dir", "mine", "-f", "csv").stdout.splitlines()
    assert [row["images"] for row in csv.DictReader(lines)] == ["90", "10", "20"]


CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
ONE = "train-images-idx3-ubyte.gz"


def test_a_cut_connection_is_gone_on_with(here: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "fashion-mnist", {ONE: CONTENT})
    server.cuts = [300_000, 200_000]
    seen: list[tuple[int, int | None]] = []
    fetch.fetch("fashion-mnist", here, lambda _, at, total: seen.append((at, total)), server.url)
    assert server.asked == [(ONE, ""), (ONE, "bytes=300000-"), (ONE, "bytes=500000-")]
    assert (here / "fashion-mnist" / ONE).read_bytes() == CONTENT
    assert seen == sorted(seen) and seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_fetch_that_failed_goes_on_the_next_time(here: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "fashion-mnist", {ONE: CONTENT})
    server.cuts = [1000] * fetch.TRIES
    with pytest.raises(
        WorkersError, match="cut after 4000 of 1024000 bytes; 4000 bytes are downloaded, and the next fetch"
    ):
        fetch.fetch("fashion-mnist", here, quiet, server.url)
    assert left(here) == [f"fashion-mnist/{ONE}.part"]
    fetch.fetch("fashion-mnist", here, quiet, server.url)
    assert server.asked[-1] == (ONE, "bytes=4000-") and (here / "fashion-mnist" / ONE).read_bytes() == CONTENT


def test_a_server_that_gives_no_parts(here: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "fashion-mnist", {ONE: CONTENT})
    server.cuts, server.ranges = [300_000], False
    fetch.fetch("fashion-mnist", here, quiet, server.url)
    assert (here / "fashion-mnist" / ONE).read_bytes() == CONTENT


def test_all_of_it_was_there_but_not_yet_named(here: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "fashion-mnist", {ONE: CONTENT})
    (here / "fashion-mnist").mkdir()
    (here / "fashion-mnist" / f"{ONE}.part").write_bytes(CONTENT)
    fetch.fetch("fashion-mnist", here, quiet, server.url)
    assert left(here) == [f"fashion-mnist/{ONE}"]


@pytest.mark.parametrize("partial", [b"", b"from another day", CONTENT + b"too long"])
def test_a_wrong_checksum(here: Path, server: Served, monkeypatch: pytest.MonkeyPatch, partial: bytes) -> None:
    publish(server, monkeypatch, "fashion-mnist", {ONE: CONTENT})
    if not partial:
        server.files[ONE] = CONTENT[:-1] + b"?"
    (here / "fashion-mnist").mkdir()
    (here / "fashion-mnist" / f"{ONE}.part").write_bytes(partial)
    with pytest.raises(WorkersError, match=rf"is not what was published: its md5 is \w+, not {md5(CONTENT)}; it has"):
        fetch.fetch("fashion-mnist", here, quiet, server.url)
    assert left(here) == [], "nothing that could be taken for good"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, 5 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../escaped"),
        member("/escaped"),
        member("cifar-10-batches-py/../../escaped"),
        member("elsewhere/file"),
        member("cifar-10-batches-py/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("cifar-10-batches-py/link", tarfile.SYMTYPE, "inside"),
        member("cifar-10-batches-py/link", tarfile.LNKTYPE, "../../etc/passwd"),
        member("cifar-10-batches-py/device", tarfile.CHRTYPE),
        member("cifar-10-batches-py/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()}",
)
def test_an_archive_with_what_it_must_not_have(
    here: Path, server: Served, monkeypatch: pytest.MonkeyPatch, evil: tarfile.TarInfo
) -> None:
    content = archive(member("cifar-10-batches-py/good"), evil)
    publish(server, monkeypatch, "cifar10", {"c.tar.gz": content}, to="cifar-10-batches-py")
    with pytest.raises(WorkersError, match=r"is refused: its member|cannot be unpacked"):
        fetch.fetch("cifar10", here / "in", quiet, server.url)
    assert left(here) == ["in/cifar10/c.tar.gz.part"]


@pytest.mark.parametrize(
    "content", [b"no archive", archive(member("cifar-10-batches-py/good"))[:-20]], ids=["text", "cut short"]
)
def test_an_archive_that_is_none(here: Path, server: Served, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    publish(server, monkeypatch, "cifar10", {"c.tar.gz": content}, to="cifar-10-batches-py")
    with pytest.raises(WorkersError, match=r"c.tar.gz.part cannot be unpacked"):
        fetch.fetch("cifar10", here, quiet, server.url)


def test_what_cannot_be_fetched(here: Path, cli: Cli, server: Served) -> None:
    for args, message in (
        (("digits",), "nothing to fetch for 'digits'; these are fetched: fashion-mnist, cifar10, cifar100"),
        (("cifar10", "--url", server.url), "the server answers 404"),
        (("cifar10", "--url", "http://127.0.0.1:1"), "Connection refused"),
        (("cifar10", "--url", "file:///etc"), "must begin with http:// or https://"),
        (("cifar10", "--url", server.url, "--data-dir", "file"), "Not a directory"),
    ):
        (here / "file").touch()
        done = cli("data", "fetch", *args)
        assert done.returncode == 1 and done.stderr.startswith("searcher: ") and message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_no_room_for_a_download(here: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "fashion-mnist", {ONE: CONTENT})
    (here / "fashion-mnist").mkdir()
    (here / "fashion-mnist" / f"{ONE}.part").symlink_to("/dev/full")
    with pytest.raises(WorkersError, match=r"cannot write to \S+/fashion-mnist: No space left on device"):
        fetch.fetch("fashion-mnist", here, quiet, server.url)


def test_one_fetch_at_a_time(here: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "fashion-mnist", {ONE: CONTENT})
    refused: list[str] = []

    def meanwhile(*_: object) -> None:
        with pytest.raises(WorkersError, match="another process is fetching fashion-mnist into") as caught:
            fetch.fetch("fashion-mnist", here, quiet, server.url)
        refused.append(str(caught.value))

    fetch.fetch("fashion-mnist", here, meanwhile, server.url)
    assert refused and (here / "fashion-mnist" / ONE).read_bytes() == CONTENT


# Commands


def test_a_terminal_sees_how_far_a_download_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        with _bar() as report:
            for here in (0, 1_000_000):
                report("a.gz", here, 2_000_000)
        assert ("a.gz" in stream.getvalue() and "1.0/2.0 MB" in stream.getvalue()) is shown


def test_check_says_what_is_in_a_data_set(cli: Cli) -> None:
    [found] = json.loads(cli("data", "check", "digits", "-f", "json").stdout)
    assert (found["classes"], found["shape"]) == (10, "1x8x8") and "digits-" in found["decoded"]
    assert found["parts"][0] == {"part": "train", "images": 1000, "classes": 10, "fewest": 97, "most": 102}
    assert "Digits of scikit-learn" in cli("data", "check", "digits").stdout


def test_check_of_what_is_not_there(cli: Cli) -> None:
    done = cli("data", "check", "cifar10")
    assert done.returncode == 1 and "searcher: CIFAR-10 is not here; looked in" in done.stderr
    assert "npz:FILE, or package.module:function" in cli("data", "list").stdout
