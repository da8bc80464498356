"""Find and read data sets by name: published ones (`KNOWN`), and a user's own.

A user's own data set is a file, `npz:FILE`, or a function, `package.module:function`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from search_space import SpaceError, nearest
from search_space.modules import code_name, import_module, raised
from workers.contract import WorkersError
from workers.tasks.images import cache, classes, formats, parquet, shards
from workers.tasks.images.cache import Stored
from workers.tasks.images.formats import Arrays
from workers.tasks.images.parquet import Columns
from workers.tasks.images.reading import is_file

DEBIAN = Path("/usr/share/datasets")
GENERIC_FOLDERS = ("data", "default")  # folders of the Hugging Face hub that do not have the name of a data set
OWN = "npz:FILE or package.module:function for your own"


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which the files of a data set are stored.

    Attributes:
        name: the name of the layout, for messages.
        subfolders: folders that are searched besides the folder itself.
        train, test: patterns of file names. Each must match at least one file, all in the same folder.
            `train-*.parquet` stands for all names that `shards.py` knows.
        read: reads the files of a part.
    """

    name: str
    subfolders: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[Sequence[Path]], Arrays]


@dataclass(frozen=True, slots=True)
class Known:
    """A published data set.

    Attributes:
        title: its name for people.
        classes: number of classes.
        shape: channels, height and width of an image.
        train, test: numbers of published images.
        layouts: the ways in which its files may be stored.
        package: the name of its Debian package; empty if there is none.
    """

    title: str
    classes: int
    shape: tuple[int, int, int]
    train: int
    test: int
    layouts: tuple[Layout, ...] = ()
    package: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a data set that were found.

    Attributes:
        name: the name of the data set.
        layout: how the files are stored.
        folder: the folder of the files.
        train, test: the files of each part.
    """

    name: str
    layout: Layout
    folder: Path
    train: tuple[Path, ...]
    test: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Raw:
    """A data set before it is split.

    Attributes:
        title: its name for people.
        classes: number of classes.
        stored: its arrays.
        origin: where it comes from, for messages.
    """

    title: str
    classes: int
    stored: Stored
    origin: str


SHARDS = "-*.parquet"  # the end of a pattern that stands for all names of shards (workers/tasks/images/shards.py)


def _parquet(subfolder: str, shape: tuple[int, int, int], labels: tuple[str, ...], names: tuple[str, ...]) -> Layout:
    """Return the layout of the hub's Parquet files; `subfolder` is the name of the data set's configuration there."""
    folders = (subfolder,) if subfolder else ()
    read = parquet.read_parquet(Columns(shape, labels, names))
    return Layout("Parquet", folders, (f"train{SHARDS}",), (f"test{SHARDS}",), read)


# The names in Kaggle's copy have a full stop in place of a hyphen. A gzip file may have any name.
_FASHION = (
    Layout(
        "IDX files",
        ("FashionMNIST/raw",),
        ("train-images?idx3-ubyte", "train-labels?idx1-ubyte"),
        ("t10k-images?idx3-ubyte", "t10k-labels?idx1-ubyte"),
        formats.read_idx,
    ),
    _parquet("fashion_mnist", (1, 28, 28), ("label", "labels"), classes.FASHION),
)
# https://www.cs.toronto.edu/~kriz/cifar.html describes the batches.
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
    _parquet("plain_text", (3, 32, 32), ("label", "labels"), classes.CIFAR10),
)
_CIFAR100 = (
    Layout("Python batches", ("cifar-100-python",), ("train",), ("test",), formats.read_cifar_python(b"fine_labels")),
    Layout("binary batches", ("cifar-100-binary",), ("train.bin",), ("test.bin",), formats.read_cifar_binary(2)),
    _parquet("", (3, 32, 32), ("fine_label", "fine_labels", "label", "labels"), classes.CIFAR100),
)

KNOWN: Mapping[str, Known] = {
    "digits": Known("Digits of scikit-learn", 10, (1, 8, 8), 1_797, 0),
    "fashion-mnist": Known("Fashion-MNIST", 10, (1, 28, 28), 60_000, 10_000, _FASHION, package="dataset-fashion-mnist"),
    "cifar10": Known("CIFAR-10", 10, (3, 32, 32), 50_000, 10_000, _CIFAR10),
    "cifar100": Known("CIFAR-100", 100, (3, 32, 32), 50_000, 10_000, _CIFAR100),
}


def check_name(name: str) -> None:
    """Raise WorkersError if this cannot be the name of a data set. Whether a user's own exists is not checked."""
    if name not in KNOWN and not (name.startswith("npz:") and name[4:]) and not _is_function(name):
        raise WorkersError(f"unknown dataset {name!r}; {nearest(name, KNOWN)}; {OWN}")


def read(name: str, data_dir: str = "", standardise: bool | None = None) -> Raw:
    """Read all images of a data set, from the cache if its files have not changed.

    Args:
        data_dir: as in `find`.
        standardise: as in `workers.tasks.images.data.load`.

    Raises:
        WorkersError: there is no such data set, or its files are missing or damaged.
    """
    check_name(name)
    if name == "digits":
        return _digits()
    if name.startswith("npz:"):
        return _npz(name, standardise)
    if name not in KNOWN:
        return _function(name, standardise)
    known, found = KNOWN[name], find(name, data_dir)
    stored = cache.through_cache(name, (*found.train, *found.test), lambda: _decoded(known, found))
    title = f"{known.title} ({stored.encoding})" if stored.encoding else known.title
    return Raw(title, known.classes, stored, f"{found.folder} ({found.layout.name})")


def find(name: str, data_dir: str = "") -> Found:
    """Find the files of a known data set.

    Args:
        name: a key of `KNOWN`.
        data_dir: the only folder to search. If empty, SEARCHER_DATA, the folder `data` in the current directory, and
            the folders of `searcher data fetch` and of Debian's packages are searched.

    Raises:
        WorkersError: some or all files are missing; the message names the folders that were searched.
    """
    incomplete: list[str] = []
    for layout, place in _places(name, data_dir):
        matches = {pattern: _files(place, pattern, name) for pattern in (*layout.train, *layout.test)}
        if all(matches.values()):
            shards.check_there([file for files in matches.values() for file in files])
            return Found(name, layout, place, _flat(matches, layout.train), _flat(matches, layout.test))
        if any(matches.values()):
            missing = ", ".join(pattern for pattern, files in matches.items() if not files)
            incomplete.append(f"{place} has {layout.name} without {missing}")
    raise WorkersError(_not_here(name, data_dir, incomplete))


def _bases(data_dir: str) -> tuple[list[Path], list[Path]]:
    """Return the folders that the user names, and the usual folders."""
    named = data_dir or os.environ.get("SEARCHER_DATA", "")
    usual = [] if data_dir else [Path("data").absolute(), cache.folder() / "data", DEBIAN]
    return [whole_path(named)] if named else [], usual


def whole_path(path: str) -> Path:
    """Return a path as an absolute path, with `~` replaced by the home directory."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # this machine does not know the user of `~name`
        raise WorkersError(f"the home directory in {path!r} is not known; write the whole path") from error


def _places(name: str, data_dir: str) -> Iterator[tuple[Layout, Path]]:
    """Yield every folder that may have the files of a layout. A folder that the user names may have them directly. A
    usual folder may not, because its files could belong to another data set (files of MNIST and Fashion-MNIST have the
    same names)."""
    named, usual = _bases(data_dir)
    for base in (*named, *usual):
        for layout in KNOWN[name].layouts:
            inside = [base / sub for sub in layout.subfolders]
            own = [base, *inside, *(base / sub for sub in GENERIC_FOLDERS)] if base in named else inside
            below = [base / name / sub for sub in ("", *layout.subfolders, *GENERIC_FOLDERS)]
            yield from ((layout, place) for place in (*own, *below))


def _files(folder: Path, pattern: str, name: str) -> list[Path]:
    """Return the files of a pattern, in order. If there are a plain file and a gzip file, the plain one is used. A
    copy, such as `train-images-idx3-ubyte (1).gz`, does not match."""
    if pattern.endswith(SHARDS):
        return shards.candidates(folder, pattern.removesuffix(SHARDS), name)
    return [path for ending in ("", ".gz") for path in sorted(folder.glob(pattern + ending)) if is_file(path)][:1]


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
    train, test = (_part(known, found, split) for split in ("train", "test"))
    return _together(train, test)


def _part(known: Known, found: Found, split: str) -> Arrays:
    files: Sequence[Path] = found.train if split == "train" else found.test
    if files[0].suffix == ".parquet":
        files = shards.in_order(files, split, found.name)
    return _of_known(found.layout.read(files), known, files)


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
    """Join the parts into one array, with the test images last."""
    if test is None:
        return Stored(train.images, train.labels, 0, train.encoding, standardised=train.standardised, note=train.note)
    return Stored(
        np.concatenate([train.images, test.images]),
        np.concatenate([train.labels, test.labels]),
        len(test.labels),
        train.encoding or test.encoding,
        standardised=train.standardised,
        note=train.note,
    )


def _digits() -> Raw:
    """Read scikit-learn's digits. They are cached, because importing scikit-learn takes longer than a small
    training."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise WorkersError(
            "dataset 'digits' is part of scikit-learn, which is not installed here; install it, or name another data "
            f"set: {OWN}"
        )
    try:
        stored = cache.through_cache("digits", [Path(found.origin)], _digits_of_sklearn)
    except WorkersError:  # the cache cannot be used; reading without it is only slower
        stored = _digits_of_sklearn()
    return Raw(KNOWN["digits"].title, 10, stored, "inside scikit-learn")


def _digits_of_sklearn() -> Stored:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Stored(bunch.images[:, None].astype(np.float32), bunch.target.astype(np.int64))


def _npz(name: str, standardise: bool | None) -> Raw:
    file = whole_path(name.removeprefix("npz:"))
    if not is_file(file):
        raise WorkersError(f"no file {str(file.absolute())!r}; npz:FILE names one with images and labels")
    kind = {None: "npz", True: "npz-standardised", False: "npz-kept"}[standardise]
    stored = cache.through_cache(kind, [file], lambda: _own(*formats.read_npz(file, standardise), str(file)))
    return Raw(file.name, int(stored.labels.max()) + 1, stored, str(file))


def _own(train: Arrays, test: Arrays | None, where: str) -> Stored:
    """Check a user's arrays, and join their parts. The labels decide the number of classes."""
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


def _function(name: str, standardise: bool | None) -> Raw:
    """Read a data set from a user's function, which returns `(images, labels)`, or two such pairs: to train and to
    test."""
    try:
        result = _imported(name)()
    except (WorkersError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's function may raise anything
        raise WorkersError(f"dataset {name!r}: the function fails: {raised(error)}") from error
    if not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise WorkersError(
            f"dataset {name!r}: the function returns {_kind(result)}; (images, labels) is needed, or "
            "((images, labels), (test_images, test_labels))"
        )
    if all(isinstance(part, (tuple, list)) and len(part) == 2 for part in result):
        train, test = (_arrays(part, name, standardise) for part in result)
    else:
        train, test = _arrays(result, name, standardise), None
    stored = _own(train, test, name)
    return Raw(name.partition(":")[2], int(stored.labels.max()) + 1, stored, name)


def _imported(name: str) -> Callable[[], Any]:
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function, None)
    except SpaceError as error:
        cause = error.__cause__ or error
        raise WorkersError(
            f"dataset {name!r}: module {module!r} cannot be imported: {raised(cause)}; it must be "
            "installed, or lie in the current directory"
        ) from error
    if not callable(found):
        raise WorkersError(f"dataset {name!r}: module {module!r} has no function {function!r}")
    return found  # type: ignore[no-any-return]


def _arrays(pair: Any, name: str, standardise: bool | None) -> Arrays:
    """Return a pair of arrays, tensors or lists of numbers in the form of `Arrays`."""
    import torch

    try:
        images, labels = (part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else part for part in pair)
        return formats.checked(images, labels, f"dataset {name!r}", standardise)
    except (ValueError, TypeError) as error:  # lists of unequal lengths, or a type of torch that NumPy does not have
        raise WorkersError(f"dataset {name!r}: these are not arrays: {error}") from error


def _kind(value: Any) -> str:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else type(value).__name__
