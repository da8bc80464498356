"""Data sets in all layouts, small, for tests: random images, and the files that hold them."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from workers.tasks.images import sources
from workers.tasks.images.data import load

CPU = torch.device("cpu")
TRAIN, TEST = 100, 20  # images of the small CIFARs that are written here, of 10 classes


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory, a cache of the test's own, and no data sets elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEARCHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEARCHER_DATA", raising=False)
    monkeypatch.setattr(sources, "DEBIAN", tmp_path / "nowhere")
    load.cache_clear()
    yield tmp_path
    load.cache_clear()


@dataclass
class Images:
    """Random images, as many of each class."""

    train: np.ndarray
    train_labels: list[int]
    test: np.ndarray
    test_labels: list[int]


def drawn(classes: int = 10, train: int = TRAIN, test: int = TEST, shape: tuple[int, ...] = (3, 32, 32)) -> Images:
    draw = np.random.default_rng(0)
    return Images(
        draw.integers(0, 256, (train, *shape), np.uint8),
        [n % classes for n in range(train)],
        draw.integers(0, 256, (test, *shape), np.uint8),
        [n % classes for n in range(test)],
    )


# Writing the layouts


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder: Path, zipped: bool = True, dot: bool = False) -> Images:
    images = drawn(shape=(28, 28))
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": (images.train, images.train_labels), "t10k": (images.test, images.test_labels)}
    for part, (pixels, labels) in parts.items():
        for kind, array in (("images-idx3", pixels), ("labels-idx1", np.array(labels, np.uint8))):
            name = f"{part}-{kind.replace('-', '.') if dot else kind}-ubyte"
            content = idx(array)
            (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return images


def python2_pickle(pixels: np.ndarray, labels: list[int], key: bytes = b"labels") -> bytes:
    """A batch as Python 2 wrote the published ones, where text is bytes and numpy has its old name."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    array += b"(" + number(1) + number(len(pixels)) + number(3072) + b"\x86" + kind + b"\x89" + text(pixels.tobytes())
    array += b"tb"
    numbers = b"](" + b"".join(map(number, labels)) + b"e"
    items = text(b"batch_label") + text(b"batch") + text(key) + numbers + text(b"data") + array
    return b"\x80\x02}(" + items + b"u."


def batch(pixels: np.ndarray, labels: list[int], key: str = "labels", how: int | str = "python2") -> bytes:
    if how == "python2":
        return python2_pickle(pixels, labels, key.encode())
    flat = pixels.reshape(len(pixels), -1)
    names: dict[Any, Any] = {key: labels, "data": flat, "batch_label": "batch"}
    return pickle.dumps({k.encode(): v for k, v in names.items()} if how == 2 else names, protocol=int(how))


def write_cifar10_python(folder: Path, how: int | str = "python2") -> Images:
    images = drawn()
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(5):
        rows = slice(n * 20, n * 20 + 20)
        (folder / f"data_batch_{n + 1}").write_bytes(batch(images.train[rows], images.train_labels[rows], how=how))
    (folder / "test_batch").write_bytes(batch(images.test, images.test_labels, how=how))
    return images


def records(pixels: np.ndarray, labels: list[int], before: bytes = b"") -> bytes:
    return b"".join(before + bytes([label]) + image.tobytes() for image, label in zip(pixels, labels, strict=True))


def write_cifar10_binary(folder: Path) -> Images:
    images = drawn()
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(5):
        rows = slice(n * 20, n * 20 + 20)
        (folder / f"data_batch_{n + 1}.bin").write_bytes(records(images.train[rows], images.train_labels[rows]))
    (folder / "test_batch.bin").write_bytes(records(images.test, images.test_labels))
    return images


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(out, kind)
    return out.getvalue()


def parquet(file: Path, pixels: np.ndarray, labels: list[Any], label: str = "label", kind: str = "PNG") -> None:
    pictures = [{"bytes": encoded(image, kind), "path": f"{n}.png"} for n, image in enumerate(pixels)]
    pq.write_table(pa.table({"img": pictures, label: labels}), file)


def write_cifar10_parquet(folder: Path, kind: str = "PNG") -> Images:
    """The training images in two files, as large sets are."""
    images = drawn()
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(2):
        rows = slice(n * 50, n * 50 + 50)
        parquet(folder / f"train-0000{n}-of-00002.parquet", images.train[rows], images.train_labels[rows], kind=kind)
    parquet(folder / "test-00000-of-00001.parquet", images.test, images.test_labels, kind=kind)
    return images


def write_cifar100(folder: Path, layout: str) -> Images:
    images = drawn(classes=100, train=1000, test=100)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": (images.train, images.train_labels), "test": (images.test, images.test_labels)}
    for part, (pixels, labels) in parts.items():
        if layout == "python":
            (folder / part).write_bytes(batch(pixels, labels, "fine_labels"))
        elif layout == "binary":
            (folder / f"{part}.bin").write_bytes(records(pixels, labels, before=b"\x13"))  # the coarse label
        else:
            parquet(folder / f"{part}-00000-of-00001.parquet", pixels, labels, "fine_label")
    return images


def cut(file: Path, size: int = -1) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:size])
