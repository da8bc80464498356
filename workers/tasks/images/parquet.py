"""Data sets of pictures as the hub has them: Parquet files with a column of encoded pictures and one of labels."""

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

PICTURES = ("img", "image")  # names of the column with pictures
_BYTES, _TEXT = ("binary", "large_binary", "binary_view"), ("string", "large_string", "string_view")  # Arrow's types
MODES = {1: "L", 3: "RGB"}  # Pillow's names of grey and coloured pictures with 8 bits a channel, by channels


@dataclass(frozen=True, slots=True)
class Columns:
    """What the files of one data set hold.

    Attributes:
        shape: of a picture: channels (1 or 3), height, width.
        labels: names that the column with labels may have.
        classes: names of the classes in the order of their numbers, for files whose labels are text.
    """

    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    classes: tuple[str, ...]


def read_parquet(columns: Columns) -> Callable[[Sequence[Path]], Arrays]:
    """Return the reader of the shards of one part of a data set."""

    def read(files: Sequence[Path]) -> Arrays:
        return joined([_parquet(file, columns) for file in files])

    return read


def _parquet(file: Path, columns: Columns) -> Arrays:
    with naming(file, "is no Parquet file, or is cut short"):
        pictures, labels = _columns(file, columns)
        numbers = _numbers(labels, columns, file)
        check_fits(len(labels) * math.prod(columns.shape))
        images = np.empty((len(labels), *columns.shape), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about a size that is refused a line later
        formats = {_decode(data.as_py(), images[row], f"{file}, row {row}") for row, data in enumerate(pictures)}
    found = checked(images, numbers, str(file))
    return Arrays(found.images, found.labels, "JPEG" if "JPEG" in formats else "")


def _columns(file: Path, columns: Columns) -> tuple[Any, Any]:
    """Read the bytes of the pictures, and the labels; no other column.

    Raises:
        WorkersError: the columns are not there, the file does not fit into memory, or a package is missing.
    """
    try:
        import PIL.Image  # noqa: F401 (here, so that whichever package is missing gives the same message)
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
    """Bytes of the columns once they are unpacked, by the file's own word."""
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _encoded(pictures: Any, where: str) -> Any:
    """Return the column of encoded pictures; the file has it bare, or as `bytes` in a struct."""
    import pyarrow as pa
    from pyarrow import compute

    kind = pictures.type
    if pa.types.is_struct(kind) and "bytes" in kind.names:
        return compute.struct_field(pictures, "bytes") if len(pictures) else pictures
    if not any(getattr(pa.types, f"is_{name}")(kind) for name in _BYTES):
        raise WorkersError(f"{where} must be a struct with bytes, or bytes, not {kind}")
    return pictures


def _decode(data: Any, image: np.ndarray, where: str) -> str:
    """Decode a picture into `image`, if its size and colours are right; return the name of its format."""
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
            values = np.asarray(found.convert(mode))  # colours in place of a palette's numbers
            image[:] = values.reshape(height, width, channels).transpose(2, 0, 1)
            return kind
    colours = "red, green and blue" if channels == 3 else "grey"
    other = "" if (*size, bands) != (height, width, channels) else f", not of mode {found.mode}"
    raise WorkersError(
        f"{where}: a picture of shape {(*size, bands)}; {(height, width, channels)}, {colours}, is needed{other}"
    )


def _numbers(labels: Any, columns: Columns, file: Path) -> np.ndarray:
    """Return labels as numbers; text is a class's name, or its number."""
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
        raise WorkersError(f"{file}: the label {unknown!r} names no class; accepted: {', '.join(columns.classes)}")
    return np.array([known[_plain(word)] for word in words], np.int64)


def _by_name(classes: Sequence[str]) -> Mapping[str, int]:
    return {_plain(text): number for number, name in enumerate(classes) for text in (name, str(number))}


def _plain(word: str) -> str:
    """A name without case, blanks and signs: `T - shirt / top`, `T-shirt/top` and `t_shirt_top` are one class."""
    return "".join(character for character in word.casefold() if character.isalnum())
