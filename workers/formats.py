"""Files that people have on disk, read into arrays. Every reader takes the paths of one part's files.

Nothing of a file is believed: sizes, types and ranges are checked, and what is wrong becomes a WorkersError that names
the file. A pickle can run any code, so those of CIFAR are read by an unpickler that knows arrays and nothing else.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.job import WorkersError

IDX_IMAGES, IDX_LABELS = 0x803, 0x801  # unsigned bytes in three dimensions, in one
CIFAR_SHAPE = (3, 32, 32)
PIXELS = "whole numbers from 0 to 255, or finite floating-point numbers"


@dataclass(frozen=True, slots=True)
class Arrays:
    """Images `(n, channels, height, width)`, uint8 or float32, and labels `(n,)`, int64.

    `encoding` is set where the pixels are not the published ones, as after "JPEG".
    """

    images: np.ndarray
    labels: np.ndarray
    encoding: str = ""


def read_idx(files: Sequence[Path]) -> Arrays:
    """Yann LeCun's IDX format, plain or gzip: a file of images, then a file of labels."""
    images, labels = _idx(files[0], IDX_IMAGES), _idx(files[1], IDX_LABELS)
    return checked(images, labels, f"{files[0]} and {files[1].name}")


def read_cifar_python(label: bytes) -> Callable[[Sequence[Path]], Arrays]:
    """The Python batches: dictionaries with `data`, `(n, 3072)` uint8, and the list of that name with labels."""

    def read(files: Sequence[Path]) -> Arrays:
        return _joined([_python_batch(file, label) for file in files])

    return read


def read_cifar_binary(label_bytes: int) -> Callable[[Sequence[Path]], Arrays]:
    """The binary batches: records of so many bytes with labels, of which the last counts, and 3,072 with pixels."""

    def read(files: Sequence[Path]) -> Arrays:
        return _joined([_binary_batch(file, label_bytes) for file in files])

    return read


def read_parquet(label: str) -> Callable[[Sequence[Path]], Arrays]:
    """The hub's Parquet: a column `img` (or `image`) of encoded 32x32 pictures and a column with labels."""

    def read(files: Sequence[Path]) -> Arrays:
        return _joined([_parquet(file, label) for file in _all_shards(files)])

    return read


def read_npz(file: Path) -> tuple[Arrays, Arrays | None]:
    """A training part and, if there is one, a test part: `images` and `labels` (or `x` and `y`), or `x_train`,
    `y_train` with `x_test`, `y_test`."""
    try:
        with zipfile.ZipFile(file) as archive:
            arrays = {name.removesuffix(".npy"): _member(archive, name) for name in archive.namelist()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise WorkersError(f"{file} is no .npz file of numbers, or is cut short: {error}") from error
    if {"x_train", "y_train", "x_test", "y_test"} == set(arrays):
        test = checked(arrays["x_test"], arrays["y_test"], f"{file}, test part")
        return checked(arrays["x_train"], arrays["y_train"], f"{file}, training part"), test
    for images, labels in (("images", "labels"), ("x", "y"), ("x_train", "y_train")):
        if {images, labels} == set(arrays):
            return checked(arrays[images], arrays[labels], str(file)), None
    raise WorkersError(
        f"{file} has the arrays {sorted(arrays)}; needed are images and labels, or x and y, or x_train and y_train, "
        "these with or without x_test and y_test, and no others"
    )


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as content:
        return np.lib.format.read_array(content, allow_pickle=False)


def checked(images: Any, labels: Any, where: str) -> Arrays:
    """Arrays or tensors as a person has them, in the form that the rest works with.

    Images are `(n, h, w)`, `(n, channels, h, w)` or, with one, three or four channels and more than four rows,
    `(n, h, w, channels)`; labels `(n,)` or `(n, 1)`.

    Raises:
        WorkersError: they are not that.
    """
    pixels, numbers = _pixels(np.asarray(images), where), _labels(np.asarray(labels), where)
    if len(pixels) != len(numbers):
        raise WorkersError(f"{where}: {len(pixels)} images but {len(numbers)} labels")
    if not len(pixels):
        raise WorkersError(f"{where}: there are no images")
    return Arrays(pixels, numbers)


def _pixels(images: np.ndarray, where: str) -> np.ndarray:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3, 4) and images.shape[1] > 4:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise WorkersError(
            f"{where}: images of shape {images.shape}; (n, height, width), (n, channels, height, width) or "
            "(n, height, width, channels) is needed"
        )
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = images.astype(np.float32)
        if not np.isfinite(values).all():
            bad = int(np.argmin(np.isfinite(values).all(axis=(1, 2, 3))))
            raise WorkersError(f"{where}: image {bad} has pixels that are not finite; {PIXELS} are needed")
        return np.ascontiguousarray(values)
    if images.dtype.kind not in "ui" or (images.dtype != np.uint8 and len(images) and not _are_bytes(images)):
        raise WorkersError(f"{where}: pixels of type {images.dtype}; {PIXELS} are needed")
    return np.ascontiguousarray(images.astype(np.uint8))


def _are_bytes(images: np.ndarray) -> bool:
    return bool(images.min() >= 0 and images.max() <= 255)


def _labels(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "uif":
        raise WorkersError(
            f"{where}: labels of shape {labels.shape} and type {labels.dtype}; one whole number an image is needed"
        )
    if labels.dtype.kind == "f":
        whole = (labels == np.round(labels)) & (np.abs(labels) < 2**53)
        if not whole.all():
            raise WorkersError(f"{where}: labels must be whole numbers; {labels[~whole][0]} is among them")
    return labels.astype(np.int64)


def _joined(parts: Sequence[Arrays]) -> Arrays:
    encodings = {part.encoding for part in parts if part.encoding}
    return Arrays(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        ", ".join(sorted(encodings)),
    )


def _idx(file: Path, magic: int) -> np.ndarray:
    """The array in an IDX file: magic number, sizes, all as big-endian 32-bit numbers, then the bytes."""
    content = _content(file)
    dimensions = magic & 0xFF
    begin = 4 + 4 * dimensions
    if len(content) < begin or int.from_bytes(content[:4], "big") != magic:
        raise WorkersError(
            f"{file} is no IDX file of {'images' if magic == IDX_IMAGES else 'labels'}: it must begin with "
            f"{magic:08x}, and begins with {content[:4].hex() or 'nothing'}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:begin])
    if len(content) - begin != math.prod(shape):
        raise WorkersError(
            f"{file} is truncated or wrong: it promises {' x '.join(map(str, shape))} = {math.prod(shape)} bytes and "
            f"has {len(content) - begin}"
        )
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def _content(file: Path) -> bytes:
    """All of a file, unpacked if it is gzip, whatever its name says."""
    try:
        content = file.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise WorkersError(f"{file} cannot be read, or is cut short: {error}") from error


def _python_batch(file: Path, label: bytes) -> Arrays:
    found = _unpickled(file)
    data = found.get(b"data", found.get("data")) if isinstance(found, dict) else None
    labels = found.get(label, found.get(label.decode())) if isinstance(found, dict) else None
    values = data.values if isinstance(data, _Array) else None
    if values is None or values.dtype != np.uint8 or values.ndim != 2 or values.shape[1] != 3072:
        was = f"{values.dtype} {values.shape}" if values is not None else "nothing of the kind"
        raise WorkersError(f"{file}: 'data' must be an array (n, 3072) of uint8; it is {was}")
    numbers = labels.values if isinstance(labels, _Array) else labels
    if numbers is None or (isinstance(numbers, list) and not all(type(n) is int for n in numbers)):
        raise WorkersError(f"{file}: {label.decode()!r} must be a list of whole numbers")
    return checked(values.reshape(-1, *CIFAR_SHAPE), numbers, str(file))


class _Array:
    """What a pickle calls an array. Of numpy only `frombuffer` is run for it, with a type of plain numbers."""

    def __init__(self, *_: Any) -> None:  # of numpy's _reconstruct: a class, a shape, a type; the state has them again
        self.values: np.ndarray = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        self.values = np.frombuffer(raw, kind.plain).reshape(shape, order="F" if fortran else "C")


class _Type:
    """What a pickle calls a type of numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.plain = np.dtype(code.decode() if isinstance(code, bytes) else str(code))
        if self.plain.kind not in "iu":
            raise pickle.UnpicklingError(f"an array of {code!r}")

    def __setstate__(self, state: Any) -> None:
        if state[1] in (">", b">"):
            self.plain = self.plain.newbyteorder(">")


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """An array as protocol 5 has it."""
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", raw))
    return array


def _to_bytes(text: Any, encoding: Any) -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"an encoding {encoding!r}")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _to_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    """Numbers, text, bytes, lists and dictionaries, which need no import, and arrays; nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays and plain values are read")
        return _ADMITTED[module, name]


def _unpickled(file: Path) -> Any:
    try:
        return _Unpickler(io.BytesIO(_content(file)), encoding="bytes").load()
    except WorkersError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise WorkersError(f"{file} is no Python batch of CIFAR, or is cut short: {error}") from error


def _binary_batch(file: Path, label_bytes: int) -> Arrays:
    content, record = _content(file), label_bytes + 3072
    if not content or len(content) % record:
        raise WorkersError(
            f"{file} is truncated or wrong: it must be records of {record} bytes, and has {len(content)} bytes"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return checked(rows[:, label_bytes:].reshape(-1, *CIFAR_SHAPE), rows[:, label_bytes - 1], str(file))


def _all_shards(files: Sequence[Path]) -> Sequence[Path]:
    """The files, if they are as many as their names (train-00000-of-00002.parquet) promise."""
    for file in files:
        promised = re.search(r"-of-(\d+)\.parquet$", file.name)
        if promised and int(promised[1]) != len(files):
            raise WorkersError(
                f"{file.parent} has {len(files)} of the {int(promised[1])} files that {file.name} is one of"
            )
    return files


def _parquet(file: Path, label: str) -> Arrays:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import compute

    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise WorkersError(f"{file} is no Parquet file, or is cut short: {error}") from error
    column = next((name for name in ("img", "image") if name in table.column_names), None)
    if column is None or label not in table.column_names:
        raise WorkersError(
            f"{file} has the columns {table.column_names}; img with pictures and {label!r} with labels are needed"
        )
    pictures, labels = table.column(column), table.column(label)
    if not (pa.types.is_struct(pictures.type) and "bytes" in pictures.type.names) or labels.null_count:
        raise WorkersError(f"{file}: {column!r} must be a struct with bytes, and {label!r} have no gaps")
    encoded = compute.struct_field(pictures, "bytes").to_pylist() if len(table) else []
    images = np.empty((len(encoded), *CIFAR_SHAPE), np.uint8)
    formats = {_decode(data, images[row], f"{file}, row {row}") for row, data in enumerate(encoded)}
    found = checked(images, labels.to_numpy(), str(file))
    return Arrays(found.images, found.labels, "JPEG" if "JPEG" in formats else "")


def _decode(data: Any, image: np.ndarray, where: str) -> str:
    """Decodes a picture into `image`; the name of its format."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            values = np.asarray(picture)
            kind = str(picture.format)
    except Exception as error:  # what a decoder raises for broken data is without limit
        raise WorkersError(f"{where}: the picture cannot be decoded: {error}") from error
    if values.shape != (32, 32, 3):
        raise WorkersError(f"{where}: a picture of shape {values.shape}; (32, 32, 3), red, green and blue, is needed")
    image[:] = values.transpose(2, 0, 1)
    return kind
