"""Parquet files of data sets: each shard once, under all names and with all columns that the hub has given them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from searcher.driver.session import check
from searcher.settings.config import Config
from tests.support.commands import Cli
from tests.support.datafiles import (
    CPU,
    Images,
    batch,
    drawn,
    encoded,
    here,
    parquet,
    records,
    write_cifar10_binary,
    write_cifar10_parquet,
    write_cifar10_python,
    write_fashion,
)
from workers.contract import WorkersError
from workers.tasks.images.classes import CIFAR10, CIFAR100, FASHION
from workers.tasks.images.data import load
from workers.tasks.images.doubts import doubts
from workers.tasks.images.sources import KNOWN

__all__ = ["here"]  # a fixture of every test
HEX, OTHER_HEX = "0123456789abcdef", "fedcba9876543210"


def renamed(folder: Path, *names: str) -> None:
    """Give the two training shards, and the test shard if there is a third name, these names."""
    old = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet")
    for before, after in zip(old, names, strict=False):
        (folder / after).parent.mkdir(exist_ok=True)
        (folder / before).rename(folder / after)


def copied(folder: Path, name: str, copy: str) -> None:
    (folder / copy).parent.mkdir(exist_ok=True)
    shutil.copy(folder / name, folder / copy)


def assert_whole(images: Images, folder: str = ".", name: str = "cifar10") -> None:
    """All images are there once, in order, with their labels."""
    data = load(name, 0, CPU, folder)
    raw = data.train.pixels.raw.numpy()
    assert np.array_equal(raw.reshape(len(raw), -1), np.concatenate([images.train, images.test]).reshape(len(raw), -1))
    labels = images.train_labels + images.test_labels
    for part in (data.train, data.val, data.test):
        assert part.labels.tolist() == [labels[row] for row in part.rows.tolist()]


ONE = "train-00000-of-00002"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard is missing": (lambda f: (f / f"{ONE}.parquet").unlink(), "has 1 of the 2 files .*; number 0 is missing"),
    "a fingerprint, one missing": (
        lambda f: [renamed(f, f"{ONE}-{HEX}.parquet"), (f / "train-00001-of-00002.parquet").unlink()],
        f"has 1 of the 2 files that {ONE}-{HEX}.parquet is one of; number 1 is missing",
    ),
    "two fingerprints": (
        lambda f: [renamed(f, f"{ONE}-{HEX}.parquet"), copied(f, f"{ONE}-{HEX}.parquet", f"{ONE}-{OTHER_HEX}.parquet")],
        f"{ONE}-{OTHER_HEX}.parquet and .*{ONE}-{HEX}.parquet are both shard 0",
    ),
    "with and without a fingerprint": (
        lambda f: copied(f, f"{ONE}.parquet", f"{ONE}-{HEX}.parquet"),
        "are both shard 0",
    ),
    "two fingerprints in place of two shards": (
        lambda f: [
            copied(f, f"{ONE}.parquet", f"{ONE}-{HEX}.parquet"),
            (f / "train-00001-of-00002.parquet").unlink(),
        ],
        "are both shard 0",
    ),
    "a browser's copy": (
        lambda f: copied(f, f"{ONE}.parquet", f"{ONE} (1).parquet"),
        rf"{ONE} \(1\).parquet does not have the name of a shard",
    ),
    "only a browser's copy": (lambda f: renamed(f, f"{ONE} (1).parquet"), "does not have the name of a shard"),
    "the Finder's copy": (
        lambda f: copied(f, f"{ONE}.parquet", f"{ONE} copy.parquet"),
        "does not have the name of a shard",
    ),
    "a file manager's copy": (
        lambda f: copied(f, f"{ONE}.parquet", f"Copy of {ONE}.parquet"),
        "does not have the name of a shard",
    ),
    "a copy of a test file": (
        lambda f: copied(f, "test-00000-of-00001.parquet", "test-00000-of-00001 (2).parquet"),
        r"test-00000-of-00001 \(2\).parquet does not have the name",
    ),
    "a renamed copy": (lambda f: copied(f, f"{ONE}.parquet", "train_new.parquet"), "does not have the name of a shard"),
    "two numbers of shards": (
        lambda f: copied(f, f"{ONE}.parquet", "train-00000-of-00003.parquet"),
        "are from two sets of train files",
    ),
    "one file beside shards": (lambda f: copied(f, f"{ONE}.parquet", "train.parquet"), "are from two sets of train"),
    "two layouts": (lambda f: copied(f, f"{ONE}.parquet", "train/0000.parquet"), "are from two sets of train files"),
    "with the set's name": (lambda f: copied(f, f"{ONE}.parquet", f"cifar10-{ONE}.parquet"), "are from two sets"),
    "beyond the last": (
        lambda f: renamed(f, "train-00002-of-00002.parquet"),
        "has 2 of the 2 files .*; number 0 is missing",
    ),
    "a huge number": (
        lambda f: [renamed(f, "train-00000-of-99999999999.parquet"), (f / "train-00001-of-00002.parquet").unlink()],
        "has 1 of the 99999999999 files",
    ),
    "a gap in a folder": (lambda f: renamed(f, "train/0000.parquet", "train/0002.parquet"), "number 1 is missing"),
    "a link to nothing": (
        lambda f: [renamed(f, "train/0000.parquet"), (f / "train/0001.parquet").symlink_to("/nowhere")],
        "train/0001.parquet is a link to a file that does not exist",
    ),
    "nothing but a link to nothing": (
        lambda f: [(f / f"{ONE}.parquet").unlink(), (f / f"{ONE}.parquet").symlink_to("/nowhere")],
        f"{ONE}.parquet is a link to a file that does not exist",
    ),
    "a folder with the name of a shard": (
        lambda f: [renamed(f, "train/0000.parquet"), (f / "train/0001.parquet").mkdir()],
        "train/0001.parquet is not a file",
    ),
    "a copy in a folder": (
        lambda f: renamed(f, "train/0000.parquet", "train/0000 (1).parquet"),
        r"train/0000 \(1\).parquet does not have the name of a shard",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_shard_must_be_there_once(here: Path, name: str) -> None:
    """Row D1: each of 0 to N - 1 once, by whatever name. Covers missing shards, doubles under two fingerprints and as
    copies of browsers and file managers, two sets in one folder. Doubles by content are in the tests below."""
    damage, message = BROKEN[name]
    write_cifar10_parquet(here)
    damage(here)
    with pytest.raises(WorkersError, match=message) as caught:
        load("cifar10", 0, CPU, str(here))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        (f"{ONE}-{HEX}.parquet", f"train-00001-of-00002-{OTHER_HEX}.parquet"),  # each shard has its own
        ("train/0000.parquet", "train/0001.parquet", "test/0000.parquet"),
        ("train/0001.parquet", "train/0002.parquet", "train/0000.parquet"),
        ("train/train-00000-of-00002.parquet", "train/train-00001-of-00002.parquet"),
        ("train/part-0.parquet", "train/part-1.parquet", "test/data-00000-of-00001.parquet"),
        (f"cifar10-{ONE}.parquet", "cifar10-train-00001-of-00002.parquet", "cifar10-test.parquet"),
        ("plain_text/train/0000.parquet", "plain_text/train/0001.parquet", "plain_text/test/0000.parquet"),
        ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test.parquet"),
        ("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"),
    ],
)
def test_names_that_the_hub_has_given(here: Path, names: tuple[str, ...]) -> None:
    """Row D3: other layouts of the hub are found, and their shards are read by number."""
    images = write_cifar10_parquet(here)
    for name in names:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
    if names[2:] == ("train/0000.parquet",):  # three training shards, the last of which comes first
        copied(here, "test-00000-of-00001.parquet", "test.parquet")
        renamed(here, *names)
        raw = load("cifar10", 0, CPU, ".").train.pixels.raw.numpy()
        assert np.array_equal(raw, np.concatenate([images.test, images.train, images.test]))
        return
    renamed(here, *names)
    assert_whole(images)


def test_files_that_are_no_shards_are_left_alone(here: Path) -> None:
    """Row D1: only files of the split count, not others beside them."""
    images = write_cifar10_parquet(here)
    for other in ("training-notes.parquet", "validation-00000-of-00001.parquet", f"{ONE}.parquet.part"):
        (here / other).write_text("not Parquet")
    renamed(here, "train/0000.parquet", "train/0001.parquet")
    (here / "train" / "._0000.parquet").write_text("what macOS leaves")
    (here / "train" / "README.md").touch()
    assert_whole(images)


def test_a_copy_of_an_idx_file_is_not_taken_for_it(here: Path) -> None:
    """Row D1: the copy that a browser made of an interrupted download sorts before the file itself."""
    images = write_fashion(here)
    for file in list(here.glob("*.gz")):
        (here / f"{file.name.removesuffix('.gz')} (1).gz").write_bytes(b"cut short")
        (here / f"{file.name}.1").write_bytes(b"as wget names it")
    assert_whole(images, name="fashion-mnist")
    for file in here.glob("*ubyte.gz"):
        file.unlink()
    with pytest.raises(WorkersError, match="Fashion-MNIST is not here"):
        load("fashion-mnist", 1, CPU, ".")


# Known sizes, and images in two parts


@pytest.mark.parametrize("write", [write_cifar10_parquet, write_cifar10_python, write_cifar10_binary, write_fashion])
def test_a_known_set_of_another_size_is_said(
    here: Path, write: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    """Row D1: known sizes are compared when a search starts, whatever the layout; `data check` is tested below."""
    write(here)
    name = "fashion-mnist" if write is write_fashion else "cifar10"
    known = KNOWN[name]
    [said] = doubts(load(name, 0, CPU, str(here)))
    assert said.startswith(f"{known.title} was published with {known.train:,} + 10,000 images, and 100 + 20 are in ")
    check(Config.of(dataset=name, data_dir=str(here)))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [said]


def test_whole_sets_raise_no_doubts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doubts(load("digits", 0, CPU)) == []
    monkeypatch.setitem(KNOWN, "cifar10", replace(KNOWN["cifar10"], train=100, test=20))
    write_cifar10_parquet(here)
    assert doubts(load("cifar10", 0, CPU, str(here), limit_train=40, limit_val=10)) == []


def doubled_batches(folder: Path) -> None:
    write_cifar10_python(folder)
    shutil.copy(folder / "data_batch_1", folder / "data_batch_2")


def doubled_binary(folder: Path) -> None:
    images = write_cifar10_binary(folder)
    (folder / "test_batch.bin").write_bytes(records(images.train[:20], images.train_labels[:20]))


def doubled_shards(folder: Path) -> None:
    images = write_cifar10_parquet(folder)
    parquet(folder / "test-00000-of-00001.parquet", images.train[:20], images.train_labels[:20])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (doubled_batches, r"\d+ of the 10 validation images of cifar10 are also training images \(from "),
        (doubled_binary, "20 of the 20 test images of cifar10 are also training or validation images"),
        (doubled_shards, "20 of the 20 test images of cifar10 are also training or validation images"),
    ],
)
def test_images_in_two_parts_are_said(here: Path, cli: Cli, write: Callable[[Path], object], message: str) -> None:
    """Row D1: doubles by content, in files whose names are right: a batch twice, training images to test with."""
    write(here)
    said = doubts(load("cifar10", 0, CPU, str(here)))[1:]
    assert len(said) == 1 and re.match(message, said[0])
    done = cli("data", "check", "cifar10", "--data-dir", ".", "-f", "json")
    assert done.returncode == 0 and json.loads(done.stdout)[0]["warnings"][1:] == said
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and "was published with 50,000 + 10,000 images" in lines[0] and said[0] in lines[1]


def test_own_data_with_images_in_two_parts(here: Path) -> None:
    """Row D1: a file of one's own, in which every image is there twice."""
    images, labels = np.random.default_rng(0).integers(0, 256, (100, 6, 6), np.uint8), np.arange(100) % 2
    np.savez(here / "a.npz", images=np.concatenate([images, images]), labels=np.concatenate([labels, labels]))
    assert len(doubts(load("npz:a.npz", 0, CPU))) == 2
    np.savez(here / "b.npz", images=images, labels=labels)
    assert doubts(load("npz:b.npz", 0, CPU)) == []


# Columns


def written(
    folder: Path, images: Images, picture: Callable[[np.ndarray], Any], names: tuple[str, str], labels: Any
) -> None:
    """The two parts of a set in one file each; `labels` makes a column of numbers."""
    parts = {"train": (images.train, images.train_labels), "test": (images.test, images.test_labels)}
    for split, (pixels, numbers) in parts.items():
        columns = {names[0]: [picture(one) for one in pixels], names[1]: labels(numbers)}
        pq.write_table(pa.table(columns), folder / f"{split}-00000-of-00001.parquet")


def struct_of(pixels: np.ndarray) -> dict[str, Any]:
    return {"bytes": encoded(pixels), "path": None}


def numbers(labels: list[int]) -> list[int]:
    return labels


@pytest.mark.parametrize(
    ("name", "column", "labels"),
    [
        ("cifar10", "label", numbers),
        ("cifar10", "labels", numbers),
        ("cifar10", "label", lambda rows: [CIFAR10[row] for row in rows]),
        ("cifar10", "label", lambda rows: [CIFAR10[row].upper() for row in rows]),
        ("cifar10", "label", lambda rows: pa.array([CIFAR10[row] for row in rows]).dictionary_encode()),
        ("cifar10", "labels", lambda rows: pa.array([str(row) for row in rows], pa.large_string())),
        ("cifar10", "label", lambda rows: pa.array([CIFAR10[row] for row in rows], pa.string_view())),
        ("cifar10", "label", lambda rows: [CIFAR10[row].encode() for row in rows]),
        ("cifar10", "label", lambda rows: pa.array([str(row) for row in rows], pa.large_binary())),
        ("cifar100", "fine_label", numbers),
        ("cifar100", "fine_labels", numbers),
        ("cifar100", "label", lambda rows: [CIFAR100[row] for row in rows]),
        ("fashion-mnist", "label", numbers),
        ("fashion-mnist", "label", lambda rows: [FASHION[row].replace("-", " - ") for row in rows]),
    ],
)
@pytest.mark.parametrize("picture", [struct_of, encoded])
@pytest.mark.parametrize("image", ["img", "image"])
def test_columns_that_the_hub_has(
    here: Path, name: str, column: str, labels: Callable[[list[int]], Any], picture: Callable[..., Any], image: str
) -> None:
    """Row D3: pictures in `img` or `image`, bare or in a struct; labels as numbers, as names of classes, as a
    dictionary, for each set that the hub has in Parquet."""
    classes = KNOWN[name].classes
    images = drawn(classes, 10 * classes, classes, KNOWN[name].shape)
    written(here, images, picture, (image, column), labels)
    assert_whole(images, name=name)


def test_coarse_labels_are_not_read_for_fine_ones(here: Path) -> None:
    """Row D3: a file with both kinds of labels has the fine ones read."""
    images = drawn(100, 1000, 100)
    written(here, images, struct_of, ("img", "fine_label"), numbers)
    for file in here.glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.append_column("coarse_label", pa.array([0] * len(table))), file)
    assert_whole(images, name="cifar100")


def test_pictures_with_a_palette(here: Path) -> None:
    """Row D3: a picture whose pixels are numbers of colours has the colours read."""
    images = drawn(train=100, test=20)
    images.train[:] = images.train // 128 * 255  # 8 colours
    images.test[:] = images.test // 128 * 255

    def picture(pixels: np.ndarray) -> bytes:
        out = BytesIO()
        Image.fromarray(pixels.transpose(1, 2, 0)).quantize(8).save(out, "PNG")
        return out.getvalue()

    written(here, images, picture, ("image", "label"), numbers)
    assert_whole(images)


def test_names_of_classes_are_the_published_ones() -> None:
    assert [len(set(names)) for names in (CIFAR10, CIFAR100, FASHION)] == [10, 100, 10]
    assert list(CIFAR100) == sorted(CIFAR100) and list(CIFAR10[:2]) == ["airplane", "automobile"]


def test_python_batches_beside_parquet_are_read_alone(here: Path) -> None:
    """Row D1: two layouts of one set in a folder are not read as one."""
    write_cifar10_parquet(here)
    images = write_cifar10_python(here)
    (here / "test_batch").write_bytes(batch(images.test, images.test_labels))
    assert_whole(images)
    assert load("cifar10", 0, CPU, ".").origin.endswith("(Python batches)")
