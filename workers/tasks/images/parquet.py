"""Read data sets from the Hugging Face hub: Parquet files with a column of encoded pictures and one of labels."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.contract import WorkersError
from workers.tasks.images.formats import Arrays, checked, joined
from workers.tasks.images.reading import check_fits, naming

PICTURES = ("img", "image")  # names that the column with pictures may have
_BYTES, _TEXT = ("binary", "large_binary", "binary_view"), ("string", "large_string", "string_view")  # Arrow's types
MODES = {1: "L", 3: "RGB"}  # Pillow's mode by the number of channels, with 8 bits for each


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns in the files of a data set.

    Attributes:
        shape: the shape of a picture: channels (1 or 3), height, width.
        labels: names that the column with labels may have.
        classes: names of the classes in the order of their numbers, for files whose labels are text.
    """

    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    classes: tuple[str, ...]


def read_parquet(columns: Columns) -> Callable[[Sequence[Path]], Arrays]:
    """Return a reader of the shards of one part of a data set."""

    def read(files: Sequence[Path]) -> Arrays:
        return joined([_parquet(file, columns) for file in files])

    return read


def _parquet(file: Path, columns: Columns) -> Arrays:
    with naming(file, "is not a Parquet file, or is cut short"):
        pictures, labels = _columns(file, columns)
        numbers = _numbers(labels, columns, file)
        check_fits(len(labels) * math.prod(columns.shape))
        images = np.empty((len(labels), *columns.shape), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures, which are refused here anyway
        formats = {_decode(data.as_py(), images[row], f"{file}, row {row}") for row, data in enumerate(pictures)}
    found = checked(images, numbers, str(file))
    return Arrays(found.images, found.labels, "JPEG" if "JPEG" in formats else "")


def _columns(file: Path, columns: Columns) -> tuple[Any, Any]:
    """Read the columns of encoded pictures and of labels, and no others.

    Raises:
        WorkersError: a column or a package is missing, or the file does not fit into memory.
    """
    try:
        import PIL.Image  # noqa: F401 (imported here so that both packages give the same message)
        import pyarrow.parquet as pq
    except ImportError:
        raise WorkersError(
            f"{file}: Parquet files need pyarrow and pillow: pip install 'activation-searcher[parquet]'"
        ) from None
    with pq.ParquetFile(file) as parquet:
        names = parquet.schema_arrow.names
        wanted = [next((n for n in known if n in names), None) for known in (PICTURES, columns.labels)]
        if None in wanted:
            raise WorkersError(
                f"{file} has the columns {names}; {' or '.join(PICTURES)} with pictures and "
                f"{' or '.join(columns.labels)} with labels are needed"
            )
        check_fits(_claimed(parquet.metadata))
        table = parquet.read(columns=wanted)
    return _encoded(table.column(wanted[0]), f"{file}: {wanted[0]!r}"), table.column(wanted[1])


def _claimed(metadata: Any) -> int:
    """Return the size of the unpacked columns in bytes, as the file claims it."""
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _encoded(pictures: Any, where: str) -> Any:
    """Return the column of encoded pictures, which the file has as bytes, or as `bytes` in a struct."""
    import pyarrow as pa
    from pyarrow import compute

    kind = pictures.type
    if pa.types.is_struct(kind) and "bytes" in kind.names:
        return compute.struct_field(pictures, "bytes") if len(pictures) else pictures
    if not any(getattr(pa.types, f"is_{name}")(kind) for name in _BYTES):
        raise WorkersError(f"{where} must be a struct with bytes, or bytes, not {kind}")
    return pictures


def _decode(data: Any, image: np.ndarray, where: str) -> str:
    """Decode a picture into `image` and return the name of its format.

    Raises:
        WorkersError: it cannot be decoded, or its size or colours are wrong.
    """
    from PIL import Image

    channels, height, width = image.shape
    mode = MODES[channels]
    with (
        naming(f"{where}:", "the picture cannot be decoded"),
        Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as found,
    ):
        kind, size = str(found.format), found.size[::-1]
        bands = channels if found.mode == "P" else len(found.getbands())
        if size == (height, width) and found.mode in (mode, "P"):
            values = np.asarray(found.convert(mode))  # replaces the numbers of a palette by colours
            image[:] = values.reshape(height, width, channels).transpose(2, 0, 1)
            return kind
    colours = "red, green and blue" if channels == 3 else "grey"
    other = "" if (*size, bands) != (height, width, channels) else f", not of mode {found.mode}"
    raise WorkersError(
        f"{where}: a picture of shape {(*size, bands)}; {(height, width, channels)}, {colours}, is needed{other}"
    )


def _numbers(labels: Any, columns: Columns, file: Path) -> np.ndarray:
    """Return labels as numbers. A text is the name of a class, or its number."""
    import pyarrow as pa

    if labels.null_count:
        raise WorkersError(f"{file}: labels must have no gaps; {labels.null_count} are missing")
    if pa.types.is_dictionary(labels.type):
        labels = labels.cast(labels.type.value_type)
    if not any(getattr(pa.types, f"is_{kind}")(labels.type) for kind in (*_BYTES, *_TEXT)):
        return np.asarray(labels.to_numpy())
    known, words = _by_name(columns.classes), labels.cast(pa.string()).to_pylist()
    unknown = next((word for word in words if _plain(word) not in known), None)
    if unknown is not None:
        raise WorkersError(f"{file}: the label {unknown!r} is not a class; accepted: {', '.join(columns.classes)}")
    return np.array([known[_plain(word)] for word in words], np.int64)


def _by_name(classes: Sequence[str]) -> Mapping[str, int]:
    return {_plain(text): number for number, name in enumerate(classes) for text in (name, str(number))}


def _plain(word: str) -> str:
    """Return a name in lower case without blanks and signs, so that `T - shirt / top` and `t_shirt_top` are equal."""
    return "".join(character for character in word.casefold() if character.isalnum())
