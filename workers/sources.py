"""Data sets by name: which files make one, where they are looked for, and a user's own.

`KNOWN` are those that are found by name. Beside them `npz:FILE` is a file of the user's, and `package.module:function`
a function of the user's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search_space import SpaceError, nearest
from search_space.modules import code_name, import_module
from workers import cache, formats
from workers.cache import Stored
from workers.formats import Arrays
from workers.job import WorkersError

DEBIAN = Path("/usr/share/datasets")
OWN = "npz:FILE or package.module:function for your own"


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a data set lies on disk. Every pattern must match at least one file in one folder; `subfolders`
    are looked in beside the folder itself."""

    name: str
    subfolders: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[Sequence[Path]], Arrays]


@dataclass(frozen=True, slots=True)
class Known:
    """A published data set; `train` and `test` are the numbers of images that it was published with."""

    title: str
    classes: int
    shape: tuple[int, int, int]
    train: int
    test: int
    layouts: tuple[Layout, ...] = ()
    package: str = ""  # of Debian


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a data set."""

    layout: Layout
    folder: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Raw:
    """A data set before it is split; `origin` says where it is from."""

    title: str
    classes: int
    stored: Stored
    origin: str


# Kaggle's copy writes a full stop where the published names have a hyphen; a gzip file need not be called so.
_FASHION = (
    Layout(
        "IDX files",
        ("FashionMNIST/raw",),
        ("train-images?idx3-ubyte*", "train-labels?idx1-ubyte*"),
        ("t10k-images?idx3-ubyte*", "t10k-labels?idx1-ubyte*"),
        formats.read_idx,
    ),
)
# https://www.cs.toronto.edu/~kriz/cifar.html describes the batches; Parquet is how the hub has them.
_BATCHES = tuple(f"data_batch_{n}" for n in range(1, 6))
_CIFAR10 = (
    Layout("Python batches", ("cifar-10-batches-py",), _BATCHES, ("test_batch",), formats.read_cifar_python(b"labels")),
    Layout(
        "binary batches",
        ("cifar-10-batches-bin",),
        tuple(f"{batch}.bin" for batch in _BATCHES),
        ("test_batch.bin",),
        formats.read_cifar_binary(1),
    ),
    Layout("Parquet", ("plain_text",), ("train-*.parquet",), ("test-*.parquet",), formats.read_parquet("label")),
)
_CIFAR100 = (
    Layout("Python batches", ("cifar-100-python",), ("train",), ("test",), formats.read_cifar_python(b"fine_labels")),
    Layout("binary batches", ("cifar-100-binary",), ("train.bin",), ("test.bin",), formats.read_cifar_binary(2)),
    Layout("Parquet", (), ("train-*.parquet",), ("test-*.parquet",), formats.read_parquet("fine_label")),
)

KNOWN: Mapping[str, Known] = {
    "digits": Known("Digits of scikit-learn", 10, (1, 8, 8), 1_797, 0),
    "fashion-mnist": Known("Fashion-MNIST", 10, (1, 28, 28), 60_000, 10_000, _FASHION, package="dataset-fashion-mnist"),
    "cifar10": Known("CIFAR-10", 10, (3, 32, 32), 50_000, 10_000, _CIFAR10),
    "cifar100": Known("CIFAR-100", 100, (3, 32, 32), 50_000, 10_000, _CIFAR100),
}


def check_name(name: str) -> None:
    """Raises WorkersError if that is no name of a data set; a user's own may still not be there."""
    if name not in KNOWN and not (name.startswith("npz:") and name[4:]) and not _is_function(name):
        raise WorkersError(f"unknown dataset {name!r}; {nearest(name, KNOWN)}; {OWN}")


def read(name: str, data_dir: str = "") -> Raw:
    """All images of a data set, from the cache if they are the files' that they were decoded from.

    Raises:
        WorkersError: no such data set, it is not here, or its files are not what they should be.
    """
    check_name(name)
    if name == "digits":
        return _digits()
    if name.startswith("npz:"):
        return _npz(name)
    if name not in KNOWN:
        return _function(name)
    known, found = KNOWN[name], find(name, data_dir)
    stored = cache.through_cache(name, (*found.train, *found.test), lambda: _decoded(known, found))
    title = f"{known.title} ({stored.encoding})" if stored.encoding else known.title
    return Raw(title, known.classes, stored, f"{found.folder} ({found.layout.name})")


def find(name: str, data_dir: str = "") -> Found:
    """The files of a known data set. In a `data_dir`, and only there, if one is given; else in SEARCHER_DATA, in
    `data` of the current directory, where `searcher data fetch` puts them, and where Debian's packages do.

    Raises:
        WorkersError: they are not there, or not all of them; the message says where they were looked for.
    """
    incomplete: list[str] = []
    for layout, place in _places(name, data_dir):
        matches = {pattern: _files(place, pattern) for pattern in (*layout.train, *layout.test)}
        if all(matches.values()):
            return Found(layout, place, _flat(matches, layout.train), _flat(matches, layout.test))
        if any(matches.values()):
            missing = ", ".join(pattern for pattern, files in matches.items() if not files)
            incomplete.append(f"{place} has {layout.name} without {missing}")
    raise WorkersError(_not_here(name, data_dir, incomplete))


def _bases(data_dir: str) -> tuple[list[Path], list[Path]]:
    """The folders that a person names, and the usual places."""
    named = data_dir or os.environ.get("SEARCHER_DATA", "")
    usual = [] if data_dir else [Path("data").absolute(), cache.folder() / "data", DEBIAN]
    return [Path(named).expanduser().absolute()] if named else [], usual


def _places(name: str, data_dir: str) -> Iterator[tuple[Layout, Path]]:
    """Every folder that may have the files of a layout. A folder that a person names may have them itself; in a usual
    place that could be the files of another data set (MNIST's are called like Fashion-MNIST's)."""
    named, usual = _bases(data_dir)
    for base in (*named, *usual):
        for layout in KNOWN[name].layouts:
            inside = [base, *(base / sub for sub in layout.subfolders)]
            below = [base / name, *(base / name / sub for sub in layout.subfolders)]
            yield from ((layout, place) for place in (*(inside if base in named else inside[1:]), *below))


def _files(folder: Path, pattern: str) -> list[Path]:
    """Files, in order. A plain file stands before the gzip one beside it; of these the first counts."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file() and path.suffix != ".part")
    return found if pattern.endswith(".parquet") else found[:1]


def _flat(matches: dict[str, list[Path]], patterns: Sequence[str]) -> tuple[Path, ...]:
    return tuple(file for pattern in patterns for file in matches[pattern])


def _not_here(name: str, data_dir: str, incomplete: list[str]) -> str:
    known = KNOWN[name]
    looked = ", ".join(str(base) for bases in _bases(data_dir) for base in bases)
    inside = {name: None} | {sub: None for layout in known.layouts for sub in layout.subfolders}
    what = "; ".join(f"{layout.name}: {', '.join((*layout.train, *layout.test))}" for layout in known.layouts)
    ways = [f"searcher data fetch {name}", *([f"apt install {known.package}"] if known.package else [])]
    return (
        f"{known.title} is not here; looked in {looked}, and for {', '.join(inside)} in them"
        + "".join(f"; {one}" for one in dict.fromkeys(incomplete))
        + f"; needed is one of: {what}. Get it with {' or '.join(ways)}, or say where it is (--data-dir, SEARCHER_DATA)"
    )


def _decoded(known: Known, found: Found) -> Stored:
    train, test = (_of_known(found.layout.read(files), known, files) for files in (found.train, found.test))
    return _together(train, test)


def _of_known(arrays: Arrays, known: Known, files: Sequence[Path]) -> Arrays:
    where = f"{files[0]} and what is beside it" if len(files) > 1 else str(files[0])
    if arrays.images.shape[1:] != known.shape:
        raise WorkersError(
            f"{where}: images of shape {arrays.images.shape[1:]}; those of {known.title} are {known.shape}"
        )
    _check_range(arrays.labels, known.classes, f"{where}: labels of {known.title}")
    return arrays


def _check_range(labels: np.ndarray, classes: int, what: str) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        bad = labels[(labels < 0) | (labels >= classes)][0]
        raise WorkersError(f"{what} must be from 0 to {classes - 1}; {bad} is among them")


def _together(train: Arrays, test: Arrays | None) -> Stored:
    """One array, the test part's images last."""
    if test is None:
        return Stored(train.images, train.labels, 0, train.encoding)
    return Stored(
        np.concatenate([train.images, test.images]),
        np.concatenate([train.labels, test.labels]),
        len(test.labels),
        train.encoding or test.encoding,
    )


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images[:, None].astype(np.float32), bunch.target.astype(np.int64)
    return Raw(KNOWN["digits"].title, 10, Stored(images, labels), "inside scikit-learn")


def _npz(name: str) -> Raw:
    file = Path(name.removeprefix("npz:")).expanduser()
    if not file.is_file():
        raise WorkersError(f"no file {str(file.absolute())!r}; npz:FILE names one with images and labels")
    stored = cache.through_cache("npz", [file], lambda: _own(*formats.read_npz(file), str(file)))
    return Raw(file.name, int(stored.labels.max()) + 1, stored, str(file))


def _own(train: Arrays, test: Arrays | None, where: str) -> Stored:
    """A user's arrays. How many classes there are, only the labels say."""
    if test and test.images.shape[1:] != train.images.shape[1:]:
        raise WorkersError(
            f"{where}: training images are {train.images.shape[1:]} (channels, height, width), those to test "
            f"{test.images.shape[1:]}"
        )
    if test and test.images.dtype != train.images.dtype:
        raise WorkersError(f"{where}: training pixels are {train.images.dtype}, those to test {test.images.dtype}")
    stored = _together(train, test)
    _check_range(stored.labels, len(stored.labels), f"{where}: labels")
    counts = np.bincount(train.labels, minlength=int(stored.labels.max()) + 1)
    if len(counts) < 2:
        raise WorkersError(f"{where}: all labels are 0; two classes at least are needed to tell functions apart")
    if not counts.all():
        raise WorkersError(
            f"{where}: labels go up to {len(counts) - 1}, but there is no training image of class "
            f"{int(np.argmin(counts))}; classes are counted from 0"
        )
    return stored


def _is_function(name: str) -> bool:
    code = code_name(name)
    return code is not None and all(part.isidentifier() for part in (*code.module.split("."), code.attribute))


def _function(name: str) -> Raw:
    """What a function of the user's returns: `(images, labels)`, or a pair of such to train with and to test with."""
    try:
        result = _imported(name)()
    except (WorkersError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's function may raise anything
        raise WorkersError(f"dataset {name!r}: the function fails: {type(error).__name__}: {error}") from error
    if not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise WorkersError(
            f"dataset {name!r}: the function returns {_kind(result)}; (images, labels) is needed, or "
            "((images, labels), (test_images, test_labels))"
        )
    if all(isinstance(part, (tuple, list)) and len(part) == 2 for part in result):
        train, test = (_arrays(part, name) for part in result)
    else:
        train, test = _arrays(result, name), None
    stored = _own(train, test, name)
    return Raw(name.partition(":")[2], int(stored.labels.max()) + 1, stored, name)


def _imported(name: str) -> Callable[[], Any]:
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function, None)
    except SpaceError as error:
        cause = error.__cause__ or error
        raise WorkersError(
            f"dataset {name!r}: module {module!r} cannot be imported: {type(cause).__name__}: {cause}; it must be "
            "installed, or lie in the current directory"
        ) from error
    if not callable(found):
        raise WorkersError(f"dataset {name!r}: module {module!r} has no function {function!r}")
    return found  # type: ignore[no-any-return]


def _arrays(pair: Any, name: str) -> Arrays:
    """Arrays, tensors, or lists of numbers."""
    import torch

    try:
        images, labels = (part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part for part in pair)
        return formats.checked(images, labels, f"dataset {name!r}")
    except (ValueError, TypeError) as error:  # lists of unequal lengths; a type of torch's that NumPy has not
        raise WorkersError(f"dataset {name!r}: these are no arrays: {error}") from error


def _kind(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__
