"""The file of results: one JSON object a line, each of which is on disk before the next measurement begins.

The first record of a run is its header (`record: "header"`), the last one its end (`record: "end"`). Every other record
is a case of a measurement (`record: "case"`): its `status` is `measured`, and then it has `figures`, or `skipped` or
`failed`, and then it has a `reason`. A figure is a number, or a spread (`median`, `low`, `high`, `rounds`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Figures = dict[str, Any]


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Write one line, and return when it is on disk.

    Raises:
        ValueError: a figure is not finite; JSON has no such numbers.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
        os.fsync(file)
    finally:
        os.close(file)


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """All records of these files. A last line that was cut off by a kill is left out.

    Raises:
        ValueError: a line that is no record; the message names it.
    """
    records = []
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or record.get("record") not in ("header", "case", "end"):
                    raise ValueError("no record of this benchmark")
            except ValueError as error:
                if line.endswith("\n"):
                    raise ValueError(f"{path}, line {number}: {error}") from error
                continue
            records.append(record)
    return records


def spread(values: Sequence[float]) -> dict[str, float]:
    """What is kept of a figure that was measured several times."""
    return {"median": median(values), "low": min(values), "high": max(values), "rounds": len(values)}


def ratios(values: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """The spread of a ratio, taken round by round: what slows a machine for a while slows both sides of a round."""
    return spread([value / other for value, other in zip(values, others, strict=True)])
