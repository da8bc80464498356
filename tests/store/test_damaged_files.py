"""Damaged, hostile and odd files: one line that names the file, never a traceback, and no giant allocation."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import resource
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from tests.support.commands import Cli
from tests.support.datafiles import (
    CPU,
    drawn,
    encoded,
    here,
    idx,
    python2_pickle,
    write_cifar10_binary,
    write_cifar10_parquet,
    write_cifar10_python,
    write_fashion,
)
from workers.contract import WorkersError
from workers.tasks.images import fetch
from workers.tasks.images.data import load

__all__ = ["here"]  # a fixture of every test
MOST = 100 << 20  # bytes that may be allocated for a file that cannot be read; each claims far more


@contextmanager
def little_memory() -> Iterator[None]:
    """The block may neither hold much memory at once nor ask the system for much."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    tracemalloc.start()
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (4 << 30), limits[1]))
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        tracemalloc.stop()


def refused(name: str, file: str, data_dir: str = "") -> str:
    """The line that refuses a data set; it names the file."""
    with little_memory(), pytest.raises(WorkersError) as caught:
        load(name, 0, CPU, data_dir)
    line = str(caught.value)
    assert file in line and "\n" not in line and len(line) < 1000
    return line


# .npz


def npy(array: np.ndarray, claim: tuple[int, ...] | None = None) -> bytes:
    """An array as numpy writes it; `claim` is the shape that its header has instead."""
    out = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": claim or array.shape}
    np.lib.format.write_array_header_2_0(out, header)
    return out.getvalue() + array.tobytes()


IMAGES, LABELS = np.random.default_rng(1).integers(0, 256, (60, 6, 7), np.uint8), np.arange(60) % 3
GIANT = (10**9, 8, 8, 1000)  # 58 TiB of bytes


def zipped(images: bytes, method: int = zipfile.ZIP_DEFLATED, labels: bytes = npy(LABELS)) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", labels)
    return out.getvalue()


def patched(content: bytes, at: int, central: int, value: bytes) -> bytes:
    """The first member's field changed in its own header (at that offset) and in the directory (at `central`)."""
    begin = content.index(b"PK\x01\x02")
    changed = bytearray(content)
    changed[at : at + len(value)] = changed[begin + central : begin + central + len(value)] = value
    return bytes(changed)


def twice() -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        for array in (IMAGES, IMAGES + 1):
            archive.writestr("images.npy", npy(array))
        archive.writestr("labels.npy", npy(LABELS))
    return out.getvalue()


GOOD = zipped(npy(IMAGES))
NPZ: dict[str, tuple[bytes, str]] = {
    "Deflate64": (
        patched(GOOD, 8, 10, struct.pack("<H", 9)),
        "images.npy is compressed by method 9, which Python cannot read",
    ),
    "unknown compression": (patched(GOOD, 8, 10, struct.pack("<H", 99)), "by method 99"),
    "encrypted": (patched(GOOD, 6, 8, struct.pack("<H", 1)), "is encrypted, password required"),
    "strongly encrypted": (patched(GOOD, 6, 8, struct.pack("<H", 0x41)), "strong encryption"),
    "newer zip": (patched(GOOD, 4, 6, struct.pack("<H", 990)), "zip file version"),
    "claims 58 TiB": (zipped(npy(IMAGES, GIANT)), "promises 64,000,000,000,000 bytes of numbers and has 2,520"),
    "claims 58 TiB, stored": (zipped(npy(IMAGES, GIANT), zipfile.ZIP_STORED), "promises 64,000,000,000,000 bytes"),
    "claims a negative size": (zipped(npy(IMAGES, (-60, 6, 7))), "promises -2,520 bytes"),
    "labels claim 58 TiB": (zipped(npy(IMAGES), labels=npy(LABELS, (8 * 10**12,))), "labels.npy promises 64,000,000"),
    "both claim 3 GiB": (
        patched(zipped(npy(IMAGES, (3 << 30,))), 22, 24, struct.pack("<I", (3 << 30) + len(npy(IMAGES)) - IMAGES.size)),
        "more than 2,6.. can be unpacked to",
    ),
    "member twice": (twice(), "has images.npy twice"),
    "not an array": (zipped(b"hello"), "magic string"),
    "version 9": (zipped(b"\x93NUMPY\x09\x00" + bytes(200)), "version"),
    "header of nonsense": (zipped(b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16), "multi-line|header"),
    "objects": (zipped(npy(LABELS).replace(b"'<i8'", b"'|O' ")), "allow_pickle"),
    "records": (zipped(npy(np.zeros(60, "u1,u1"))), r"\(60,\)"),
    "damaged inside": (GOOD[:200] + bytes(100) + GOOD[300:], ""),
    "wrong checksum": (patched(GOOD, 14, 16, b"abcd"), "Bad CRC-32"),
    "no directory": (GOOD[:-30], "not a zip file"),
    "no end": (GOOD[:-100], "not a zip file"),
    "empty": (b"", "not a zip file"),
    "no members": (zipped(b"")[-22:][:4] + bytes(18), r"has the arrays \[\]"),
    "name in no encoding": (patched(patched(GOOD, 6, 8, struct.pack("<H", 0x800)), 30, 46, b"\xff\xfe"), ""),
    "gzip": (gzip.compress(GOOD), "not a zip file"),
    "tar": (bytes(10240), "not a zip file"),
}


@pytest.mark.parametrize("name", NPZ)
def test_npz_files_that_cannot_be_read(here: Path, name: str) -> None:
    """Row D2: members that zipfile cannot open, claimed sizes, damage anywhere. The other readers are tested below."""
    content, message = NPZ[name]
    (here / "bad.npz").write_bytes(content)
    line = refused("npz:bad.npz", "bad.npz")
    assert re.search(message, line), line


@pytest.mark.parametrize("byte", range(0, len(GOOD), 61))
@pytest.mark.parametrize("change", [0xFF, 0x80, 0x01])
def test_npz_files_with_one_byte_changed(here: Path, byte: int, change: int) -> None:
    """Row D2: a changed byte anywhere is read past or refused, never an exception of another library."""
    content = bytearray(GOOD)
    content[byte] ^= change
    (here / "bad.npz").write_bytes(content)
    try:
        load("npz:bad.npz", 0, CPU)
    except WorkersError as error:
        assert "bad.npz" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_files_of_every_compression_are_read(here: Path, method: int) -> None:
    (here / "good.npz").write_bytes(zipped(npy(IMAGES), method))
    assert np.array_equal(load("npz:good.npz", 0, CPU).train.pixels.raw[:, 0].numpy(), IMAGES)


def test_sizes_are_compared_with_the_free_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row D2: a file that is whole but larger than the memory is refused by its size."""
    np.savez(here / "large.npz", images=IMAGES, labels=LABELS)
    write_fashion(here)
    write_cifar10_parquet(here)
    free = type("Free", (), {"available": 1000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    for name, file in (("npz:large.npz", "large.npz"), ("fashion-mnist", "train-images"), ("cifar10", "train-00000")):
        assert "1,000 bytes of memory are free" in refused(name, file, "" if ":" in name else ".")


def test_a_path_that_cannot_be_looked_at(here: Path, cli: Cli) -> None:
    """Row D2: a path that no file can have is answered like a file that is not there."""
    for path in ("x" * 300, "~no such user/a.npz", "a\0b", "/proc/self/mem/x"):
        line = refused(f"npz:{path}", path[-5:] if "\0" not in path else "a")
        assert "no file" in line or "home directory" in line
    for args in (("--dataset", "npz:~no such user/a.npz"), ("--data-dir", "~no such user/data")):
        done = cli("launch", *args)
        assert done.returncode == 2 and done.stderr.startswith("searcher: the home directory in '~no such user/")


# IDX files


def bomb(claim: tuple[int, ...]) -> bytes:
    """16 MiB of zeros in 16 KiB, claimed to be more."""
    return gzip.compress(struct.pack(f">{1 + len(claim)}I", 0x800 + len(claim), *claim) + bytes(16 << 20))


IDX: dict[str, tuple[bytes, str]] = {
    "claims 73 EiB": (
        idx(np.zeros((2, 2, 2), np.uint8)).replace(b"\0\0\0\x02", b"\xff\xff\xff\xff"),
        "memory are free",
    ),
    "claims 3 GiB": (bomb((3 << 10, 1 << 10, 1 << 10)), r"promises 3072 x 1024 x 1024 = 3221225472 .* has 16777216"),
    "has more": (bomb((2, 2, 2)), "promises 2 x 2 x 2 = 8 bytes and has more"),
    "cut gzip": (gzip.compress(idx(np.zeros((9, 28, 28), np.uint8)))[:-5], "cut short"),
    "changed gzip": (gzip.compress(bytes(range(256)) * 99)[:50] + bytes(50), "begin with|cut short"),
    "no deflate": (b"\x1f\x8b\x63" + bytes(30), "cut short"),
    "more after gzip": (gzip.compress(idx(np.zeros((9, 28, 28), np.uint8))) + b"more", "cut short"),
    "xz": (b"\xfd7zXZ\0" + bytes(30), "begins with fd377a58"),
}


@pytest.mark.parametrize("name", IDX)
def test_idx_files_that_cannot_be_read(here: Path, name: str) -> None:
    """Row D2: IDX files that claim more than there is, and gzip that is damaged or unpacks to more than is claimed."""
    content, message = IDX[name]
    write_fashion(here)
    (here / "train-images-idx3-ubyte.gz").write_bytes(content)
    assert re.search(message, refused("fashion-mnist", "train-images-idx3-ubyte.gz", "."))


# Batches of CIFAR


def place(number: int) -> bytes:
    """A pickle that puts a value at that place of the unpickler's memory, for which it would allocate all before."""
    return b"\x80\x02]r" + struct.pack("<I", number) + b"."


PICKLES: dict[str, tuple[bytes, str]] = {
    "place 4 billion": (place(2**32 - 1), "asks for place 4294967295 of memory after"),
    "place of text": (b"]p4000000000\n.", "asks for place 4000000000 of memory after"),
    "bytes 8 EiB": (b"\x80\x04\x8e" + struct.pack("<Q", 2**63 - 1) + b"abc.", "9223372036854775807"),
    "text 3 GiB": (b"\x80\x04\x8d" + struct.pack("<Q", 3 << 30) + b"abc.", "3221225472"),
    "bytes 3 GiB": (b"\x80\x03B" + struct.pack("<I", 3 << 30) + b"abc.", "3221225472"),
    "frame 3 GiB": (b"\x80\x04\x95" + struct.pack("<Q", 3 << 30) + b"N.", "not a Python batch of CIFAR"),
    "bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 3 << 30) + b"abc.", "3221225472"),
    "deep": (b"(" * 100_000 + b"l" * 100_000 + b".", "'data' must be an array|not a Python batch"),
    "array of 58 TiB": (
        python2_pickle(np.zeros((20, 3, 32, 32), np.uint8), [0] * 20).replace(
            b"J" + struct.pack("<i", 3072), b"\x8a\x08" + struct.pack("<q", 10**12)
        ),
        "cannot reshape",
    ),
    "not a pickle": (b"<html>", "not a Python batch of CIFAR"),
    "unknown operation": (b"\x80\x02\xfe.", "not a Python batch of CIFAR"),
    "a number of a million digits": (b"I" + b"9" * 1_000_000 + b"\n.", "not a Python batch of CIFAR"),
    "zipped": (gzip.compress(place(2**32 - 1)), "asks for place 4294967295"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_claim_too_much(here: Path, name: str) -> None:
    """Row D2: lengths and places in a pickle are compared with what is there before the unpickler sees them."""
    content, message = PICKLES[name]
    write_cifar10_python(here)
    (here / "data_batch_2").write_bytes(content)
    assert re.search(message, refused("cifar10", "data_batch_2", "."))


def test_a_batch_that_unpacks_to_more_than_the_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row D2: a gzip file in place of a batch is read up to the free memory and no further."""
    write_cifar10_binary(here)
    (here / "data_batch_2.bin").write_bytes(gzip.compress(bytes(16 << 20)))
    free = type("Free", (), {"available": 1 << 20})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert "has more than the 1,048,576 bytes" in refused("cifar10", "data_batch_2.bin", ".")


# Parquet, and the pictures in it


def table(rows: int = 20, picture: bytes | None = None, labels: Any = None) -> pa.Table:
    pixels = drawn(train=rows, test=1).train
    pictures = [{"bytes": picture or encoded(one)} for one in pixels]
    return pa.table({"img": pictures, "label": labels or [row % 10 for row in range(rows)]})


def parquet(content: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(content, out, **options)
    return out.getvalue()


def sealed() -> bytes:
    """A Parquet file whose columns and footer are encrypted."""

    class Keys(encryption.KmsClient):
        def __init__(self, _: object) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, _: str) -> bytes:
            return key

        def unwrap_key(self, key: bytes, _: str) -> bytes:
            return key

    factory = encryption.CryptoFactory(Keys)
    how = encryption.EncryptionConfiguration(footer_key="f", column_keys={"c": ["label"]})
    return parquet(
        table().select(["label"]),
        encryption_properties=factory.file_encryption_properties(encryption.KmsConnectionConfig(), how),
    )


def png(width: int, height: int, bits: int = 8, colours: int = 2, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


FOOTER = parquet(table())
PARQUET: dict[str, tuple[Callable[[], bytes], str]] = {
    "encrypted": (sealed, "ncrypt"),
    "unknown compression": (lambda: FOOTER.replace(b"\x15\x02\x16", b"\x15\x5e\x16"), "not a Parquet file"),
    "compression that is not built in": (
        lambda: FOOTER.replace(b"\x15\x02\x16", b"\x15\x06\x16"),
        "not a Parquet file.*(LZO|ompress|odec)",
    ),
    "damaged": (lambda: FOOTER[:300] + bytes(200) + FOOTER[500:], "not a Parquet file|decoded"),
    "damaged footer": (lambda: FOOTER[:-300] + bytes(200) + FOOTER[-100:], "not a Parquet file"),
    "footer of 4 GiB": (lambda: FOOTER[:-8] + b"\xff\xff\xff\xff" + b"PAR1", "not a Parquet file"),
    "Arrow": (lambda: b"ARROW1\0\0" + bytes(100), "not a Parquet file"),
    "empty": (lambda: b"", "not a Parquet file"),
    "a column of lists": (lambda: parquet(table(labels=[[row] for row in range(20)])), "one whole number an image"),
    "a column of times": (lambda: parquet(table(labels=pa.array(range(20), pa.timestamp("s")))), "one whole number"),
    "many rows in few bytes": (
        lambda: parquet(pa.table({"img": pa.nulls(10**9 // 50, pa.binary()), "label": [0] * (10**9 // 50)})),
        "memory are free",
    ),
    "picture of 100,000 x 100,000": (
        lambda: parquet(table(2, png(100_000, 100_000))),
        "row 0: .*(exceeds limit|shape)",
    ),
    "picture of 10,000 x 10,000": (
        lambda: parquet(table(2, png(10_000, 10_000))),
        r"row 0: a picture of shape \(10000, 10000, 3\); \(32, 32, 3\)",
    ),
    "grey": (
        lambda: parquet(table(2, png(32, 32, colours=0))),
        r"row 0: a picture of shape \(32, 32, 1\); \(32, 32, 3\)",
    ),
    "grey of 16 bits": (lambda: parquet(table(2, png(32, 32, 16, 0))), r"row 0: a picture of shape \(32, 32, 1\)"),
    "with transparency": (lambda: parquet(table(2, png(32, 32, 8, 6))), r"row 0: a picture of shape \(32, 32, 4\)"),
    "no pixels": (lambda: parquet(table(2, png(32, 32))), "row 0: the picture cannot be decoded: "),
    "pixels that are no zlib": (
        lambda: parquet(table(2, encoded(drawn(train=1, test=1).train[0]).replace(b"IDATx", b"IDAT?"))),
        "row 0: the picture cannot be decoded: ",
    ),
    "cut picture": (lambda: parquet(table(2, encoded(drawn(train=1, test=1).train[0])[:200])), "row 0: the picture"),
}


@pytest.mark.parametrize("name", PARQUET)
def test_parquet_files_that_cannot_be_read(
    here: Path, name: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Row D2: damaged and encrypted Parquet files; pictures that are damaged, or whose size is claimed to be giant."""
    make, message = PARQUET[name]
    write_cifar10_parquet(here)
    (here / "test-00000-of-00001.parquet").write_bytes(make())
    if name == "many rows in few bytes":
        free = type("Free", (), {"available": 10**9})
        monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert re.search(message, refused("cifar10", "test-00000-of-00001.parquet", "."))
    assert not recwarn.list, "Pillow's warnings are no lines of ours"


def test_a_grey_picture_of_sixteen_bits_is_not_cut_to_eight(here: Path) -> None:
    """Row D2: Pillow would give numbers up to 65,535, of which only the lower byte would be kept."""
    images = drawn(shape=(1, 28, 28))
    pictures = {"image": [encoded(one) for one in images.train], "label": images.train_labels}
    for split in ("train", "test"):
        pq.write_table(pa.table(pictures), here / f"{split}.parquet")
    assert len(load("fashion-mnist", 0, CPU, ".").test) == 100
    load.cache_clear()
    pictures["image"][3] = png(28, 28, 16, 0, bytes(range(57)) * 28)
    pq.write_table(pa.table(pictures), here / "test.parquet")
    assert "row 3: a picture of shape (28, 28, 1); (28, 28, 1), grey, is needed, not of mode I;16" in refused(
        "fashion-mnist", "test.parquet", "."
    )


# Archives, and the cache


def packed(*members: tarfile.TarInfo, size: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(size)) if size else None)
    return out.getvalue()


def claiming(size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.size = size
    return member


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "claims 58 TiB": (packed(claiming(64 * 10**12)), "cannot be unpacked|are free on the disk"),
    "cut": (packed(claiming(10**5), size=10**5)[:-30], "cannot be unpacked"),
    "changed": (packed(claiming(10**5), size=10**5)[:60] + bytes(60), "cannot be unpacked"),
    "empty": (packed(), "cannot be unpacked: it is empty"),
    "zip": (GOOD, "cannot be unpacked"),
    "nothing": (b"", "cannot be unpacked"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_cannot_be_unpacked(here: Path, name: str) -> None:
    """Row D2: damaged archives, and those that claim more than the disk holds."""
    content, message = ARCHIVES[name]
    (here / "a.tar.gz").write_bytes(content)
    with little_memory(), pytest.raises(WorkersError, match=rf"a\.tar\.gz .*({message})") as caught:
        fetch._unpack(here / "a.tar.gz", here, "cifar-10-batches-py")
    assert "\n" not in str(caught.value) and [file.name for file in here.iterdir()] == ["a.tar.gz"]


def damaged_cache(place: Path, what: str) -> None:
    facts = json.loads((place / "facts.json").read_text())
    content = {
        "labels claim 58 TiB": ("labels.npy", npy(LABELS, (8 * 10**12,))),
        "images claim 58 TiB": ("images.npy", npy(IMAGES, GIANT)),
        "too few labels": ("labels.npy", npy(LABELS[1:])),
        "labels of another type": ("labels.npy", npy(LABELS.astype(np.int32))),
        "objects": ("labels.npy", pickle.dumps([1])),
        "facts are a list": ("facts.json", b"[1, 2]"),
        "facts are missing": ("facts.json", json.dumps({**facts, "tests": None}).encode()),
        "facts are no text": ("facts.json", b"\xff\xfe"),
        "facts are deep": ("facts.json", b"[" * 10**5),
        "nothing": ("images.npy", b""),
    }
    name, changed = content[what]
    (place / name).write_bytes(changed)


@pytest.mark.parametrize(
    "what",
    [
        "labels claim 58 TiB",
        "images claim 58 TiB",
        "too few labels",
        "labels of another type",
        "objects",
        "facts are a list",
        "facts are missing",
        "facts are no text",
        "facts are deep",
        "nothing",
    ],
)
def test_decoded_images_that_are_damaged(here: Path, what: str) -> None:
    """Row D2: the cache of decoded images, .npy and JSON, which a disk may have damaged."""
    np.savez(here / "a.npz", images=IMAGES, labels=LABELS)
    place = Path(load("npz:a.npz", 0, CPU).place)
    load.cache_clear()
    damaged_cache(place, what)
    assert "delete that folder" in refused("npz:a.npz", str(place))


def test_a_home_that_is_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row D2: a cache in the home of somebody whom the machine does not know."""
    np.savez(here / "a.npz", images=IMAGES, labels=LABELS)
    monkeypatch.setenv("SEARCHER_CACHE", "~no such user/cache")
    assert "set SEARCHER_CACHE to a whole path" in refused("npz:a.npz", "~no such user/cache")
