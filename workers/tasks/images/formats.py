"""Read files of images and labels into arrays. Every reader takes the paths of one part's files.

No file is trusted: sizes, types and ranges are checked, and an error becomes a WorkersError that names the file. As a
pickle can run any code, CIFAR's pickles are read by an unpickler that accepts arrays and plain values only.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from workers.contract import WorkersError
from workers.tasks.images.reading import all_of, check_fits, naming, opened, up_to

IDX_IMAGES, IDX_LABELS = 0x803, 0x801  # magic numbers: unsigned bytes in three dimensions, and in one
CIFAR_SHAPE = (3, 32, 32)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
DEFLATED_MOST = 1032  # Deflate cannot unpack to more than this many times the packed size
PIXELS = "whole numbers from 0 to 255, or finite floating-point numbers"


@dataclass(frozen=True, slots=True)
class Arrays:
    """Images and their labels.

    Attributes:
        images: `(n, channels, height, width)`, uint8 or float32, or data of another shape.
        labels: `(n,)`, int64.
        encoding: such as "JPEG", if the pixels differ from the published ones because of it; otherwise empty.
        standardised: True if the network is to get standardised values, False for the values as they are.
        note: a remark for the user if `standardised` was guessed and may be wrong.
    """

    images: np.ndarray
    labels: np.ndarray
    encoding: str = ""
    standardised: bool = True
    note: str = ""


def read_idx(files: Sequence[Path]) -> Arrays:
    """Read Yann LeCun's IDX format, plain or gzip: a file of images, then a file of labels."""
    images, labels = _idx(files[0], IDX_IMAGES), _idx(files[1], IDX_LABELS)
    return checked(images, labels, f"{files[0]} and {files[1].name}")


def read_cifar_python(label: bytes) -> Callable[[Sequence[Path]], Arrays]:
    """Return a reader of CIFAR's Python batches: pickled dictionaries with `data`, `(n, 3072)` uint8, and a list of
    labels named `label`."""

    def read(files: Sequence[Path]) -> Arrays:
        return joined([_python_batch(file, label) for file in files])

    return read


def read_cifar_binary(label_bytes: int) -> Callable[[Sequence[Path]], Arrays]:
    """Return a reader of CIFAR's binary batches: records with `label_bytes` bytes of labels, of which the last is used,
    and 3,072 bytes of pixels."""

    def read(files: Sequence[Path]) -> Arrays:
        return joined([_binary_batch(file, label_bytes) for file in files])

    return read


def read_npz(file: Path, standardise: bool | None = None) -> tuple[Arrays, Arrays | None]:
    """Read an .npz file. Return its training part, and its test part or None.

    Its arrays are `images` and `labels`, or `x` and `y`, or `x_train` and `y_train` with or without `x_test` and
    `y_test`.

    Args:
        standardise: as in `workers.tasks.images.data.load`.
    """
    with naming(file, "is not an .npz file of numbers, or is cut short"), zipfile.ZipFile(file) as archive:
        arrays = _members(archive, file.stat().st_size)
    if {"x_train", "y_train", "x_test", "y_test"} == set(arrays):
        test = checked(arrays["x_test"], arrays["y_test"], f"{file}, test part", standardise)
        return checked(arrays["x_train"], arrays["y_train"], f"{file}, training part", standardise), test
    for images, labels in (("images", "labels"), ("x", "y"), ("x_train", "y_train")):
        if {images, labels} == set(arrays):
            return checked(arrays[images], arrays[labels], str(file), standardise), None
    raise WorkersError(
        f"{file} has the arrays {sorted(arrays)}; needed are images and labels, or x and y, or x_train and y_train, "
        "these with or without x_test and y_test, and no others"
    )


def _members(archive: zipfile.ZipFile, file_size: int) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Raises:
        ValueError: the file claims a size that is impossible.
        Exception: zipfile and numpy raise many kinds for damaged files.
    """
    found: dict[str, np.ndarray] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise ValueError(f"it has {info.filename} twice")
        packed = min(info.compress_size, file_size)
        if info.compress_type not in METHODS:
            raise ValueError(
                f"{info.filename} is compressed by method {info.compress_type}, which Python cannot read; write the "
                "file with numpy.savez_compressed"
            )
        if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > DEFLATED_MOST * packed:
            raise ValueError(
                f"{info.filename} claims {info.file_size:,} bytes, more than {packed:,} can be unpacked to"
            )
        with archive.open(info) as content:
            _check_claim(content, info)
        check_fits(info.file_size + sum(array.nbytes for array in found.values()))
        with archive.open(info) as content:
            found[name] = np.lib.format.read_array(content, allow_pickle=False)
    return found


def _check_claim(content: IO[bytes], info: zipfile.ZipInfo) -> None:
    """Raise ValueError if the size in an array's header is not the number of bytes that follow, because numpy allocates
    memory by the header."""
    version = np.lib.format.read_magic(content)
    if version not in _HEADERS:
        raise ValueError(f"{info.filename} has version {version} of numpy's format, which arrays of numbers do not use")
    shape, _, kind = _HEADERS[version](content)
    promised, there = math.prod(shape) * kind.itemsize, info.file_size - content.tell()
    if promised != there and not kind.hasobject:
        raise ValueError(f"{info.filename} promises {promised:,} bytes of numbers and has {there:,}")


_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def checked(images: Any, labels: Any, where: str, standardise: bool | None = None) -> Arrays:
    """Check a user's arrays or tensors and return them in the form of `Arrays`.

    Pictures are `(n, h, w)`, `(n, channels, h, w)` or, with one, three or four channels and more than four rows,
    `(n, h, w, channels)`. Other data, such as token numbers `(n, length)`, keep their shape. Labels are `(n,)` or
    `(n, 1)`.

    Args:
        where: the source, for messages.
        standardise: as in `workers.tasks.images.data.load`.

    Raises:
        WorkersError: the arrays have another form.
    """
    given = np.asarray(images)
    pictures = _are_pictures(given, standardise)
    values = _values(_channels_first(given) if pictures else given, where, pictures, standardise)
    numbers = _labels(np.asarray(labels), where)
    if len(values) != len(numbers):
        raise WorkersError(f"{where}: {len(values)} images but {len(numbers)} labels")
    if not len(values):
        raise WorkersError(f"{where}: there are no images")
    standardised, note = pictures if standardise is None else standardise, ""
    if pictures and standardise is None and given.dtype.kind in "ui" and given.dtype != np.uint8:
        note = (
            f"{where}: whole numbers of type {given.dtype} and shape {given.shape} are taken for pixels and "
            "standardised; --no-standardise keeps them as they are, --standardise says that they are pixels"
        )
    return Arrays(values, numbers, standardised=standardised, note=note)


def _are_pictures(values: np.ndarray, standardise: bool | None) -> bool:
    """Return True if values are pictures, by their shape. Integers that are not bytes may be token numbers: unless the
    user says so with `standardise`, they are pictures if height and width are greater than 1."""
    if values.ndim not in (3, 4) or values.dtype.kind not in "ui" or values.dtype == np.uint8:
        return values.ndim in (3, 4)
    return min(_channels_first(values).shape[2:]) > 1 if standardise is None else standardise


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if images.shape[3] in (1, 3, 4) and images.shape[1] > 4 else images


def _values(values: np.ndarray, where: str, pictures: bool, standardise: bool | None) -> np.ndarray:
    flat = values.dtype == np.uint8 and not pictures and standardise is not False
    if values.ndim < 2 or 0 in values.shape[1:] or flat:
        raise WorkersError(
            f"{where}: images of shape {values.shape}; (n, height, width), (n, channels, height, width) or "
            "(n, height, width, channels) is needed; data that are not images may have other shapes from (n, length) "
            "on, and bytes are taken for pixels unless --no-standardise is given"
        )
    if values.dtype.kind == "f":
        return _finite(values, where)
    if values.dtype.kind in "ui" and (standardise is False or not pictures):
        return _whole(values, where)
    if values.dtype.kind not in "ui" or (values.dtype != np.uint8 and len(values) and not _are_bytes(values)):
        remedy = "; --no-standardise keeps other whole numbers as they are" if values.dtype.kind in "ui" else ""
        raise WorkersError(f"{where}: pixels of type {values.dtype}; {PIXELS} are needed{remedy}")
    return np.ascontiguousarray(values.astype(np.uint8))


def _finite(values: np.ndarray, where: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        bad = int(np.argmin(np.isfinite(single.reshape(len(single), -1)).all(axis=1)))
        raise WorkersError(f"{where}: image {bad} has pixels that are not finite; {PIXELS} are needed")
    return np.ascontiguousarray(single)


def _whole(values: np.ndarray, where: str) -> np.ndarray:
    """Return integers in a type that torch can use as indices: signed integers and bytes as they are, others as
    int64."""
    if values.dtype.kind == "u" and values.dtype != np.uint8:
        if values.dtype.itemsize == 8 and len(values) and values.max() > np.iinfo(np.int64).max:
            raise WorkersError(f"{where}: whole numbers up to {values.max()}; they must be below 2^63")
        values = values.astype(np.int64)
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))


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


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Concatenate the arrays of several files."""
    encodings = {part.encoding for part in parts if part.encoding}
    return Arrays(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        ", ".join(sorted(encodings)),
    )


def _idx(file: Path, magic: int) -> np.ndarray:
    """Read the array of an IDX file: a magic number and the sizes, as big-endian 32-bit numbers, then the bytes."""
    dimensions = magic & 0xFF
    with naming(file, "cannot be read, or is cut short"), opened(file) as source:
        head = up_to(4 + 4 * dimensions, source)
        if len(head) < 4 + 4 * dimensions or int.from_bytes(head[:4], "big") != magic:
            raise WorkersError(
                f"{file} is not an IDX file of {'images' if magic == IDX_IMAGES else 'labels'}: it must begin with "
                f"{magic:08x}, and begins with {head[:4].hex() or 'nothing'}"
            )
        shape = struct.unpack(f">{dimensions}I", head[4:])
        promised = math.prod(shape)
        check_fits(promised)
        content = up_to(promised + 1, source)
    if len(content) != promised:
        there = len(content) if len(content) < promised else "more"
        raise WorkersError(
            f"{file} is truncated or wrong: it promises {' x '.join(map(str, shape))} = {promised} bytes and has "
            f"{there}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


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
    """Replaces numpy's array in a pickle. It calls only numpy's `frombuffer`, with a type of plain numbers."""

    def __init__(self, *_: Any) -> None:  # the arguments of numpy's _reconstruct, which the state repeats
        self.values: np.ndarray = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        self.values = np.frombuffer(raw, kind.plain).reshape(shape, order="F" if fortran else "C")


class _Type:
    """Replaces numpy's dtype in a pickle."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.plain = np.dtype(code.decode() if isinstance(code, bytes) else str(code))
        if self.plain.kind not in "iu":
            raise pickle.UnpicklingError(f"an array of {code!r}")

    def __setstate__(self, state: Any) -> None:
        if state[1] in (">", b">"):
            self.plain = self.plain.newbyteorder(">")


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """Return an array as pickle's protocol 5 stores it."""
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", raw))
    return array


def _to_bytes(text: Any, encoding: Any) -> bytes:
    """Return bytes as Python 3 pickles them for Python 2."""
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
    """Reads numbers, text, bytes, lists and dictionaries, which need no import, and arrays; refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays and plain values are read")
        return _ADMITTED[module, name]


def _unpickled(file: Path) -> Any:
    content = all_of(file)
    with naming(file, "is not a Python batch of CIFAR, or is cut short"):
        _check_pickle(content)
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()


def _check_pickle(content: bytes) -> None:
    """Raise ValueError if a pickle claims more bytes than it has, or stores something far beyond the used part of the
    unpickler's memo, because the unpickler would allocate the whole memo up to there."""
    for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= number + 1:
            raise ValueError(f"it asks for place {argument} of memory after {number} operations")


def _binary_batch(file: Path, label_bytes: int) -> Arrays:
    content, record = all_of(file), label_bytes + 3072
    if not content or len(content) % record:
        raise WorkersError(
            f"{file} is truncated or wrong: it must be records of {record} bytes, and has {len(content)} bytes"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return checked(rows[:, label_bytes:].reshape(-1, *CIFAR_SHAPE), rows[:, label_bytes - 1], str(file))
