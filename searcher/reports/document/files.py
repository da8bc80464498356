"""Write the report of a study to files."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from searcher import UsageError
from searcher.display import as_json
from searcher.records import Study
from searcher.reports.document import html, markdown
from searcher.reports.document.data import report_data
from searcher.reports.document.illustrations import drawn
from searcher.reports.report import ReportError
from searcher.store.store import Store

ENDINGS = (".html", ".md", ".json")


def check(path: Path, *, force: bool) -> None:
    """Check that a report can be written under this name.

    Raises:
        UsageError: the name has another ending.
        ReportError: the file exists, or its folder does not.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"cannot write a report to {path.name!r}; accepted: names that end in {', '.join(ENDINGS)}")
    if path.is_dir():
        raise ReportError(f"{path} is a folder; name a file in it")
    if path.exists() and not force:
        raise ReportError(f"{path} exists; --force replaces it")
    if not path.parent.is_dir():
        raise ReportError(f"cannot write {path}: there is no folder {path.parent}")


def write(store: Store, study: Study, path: Path, *, force: bool = False, costs: bool = True) -> list[Path]:
    """Write the report of a study, in the format that the name ends in. With Markdown, the pictures are files in a
    folder beside it.

    Args:
        force: replace files that exist.
        costs: measure what the leading functions cost on this machine.

    Returns:
        The files that were written.

    Raises:
        UsageError, ReportError: as in `check`, or a file cannot be written.
    """
    check(path, force=force)
    contents = contents_of(report_data(store, study, costs=costs), path)
    for file in contents:
        if file.exists() and not force:
            raise ReportError(f"{file} exists; --force replaces it")
    for file, text in contents.items():
        try:
            file.parent.mkdir(exist_ok=True)
            with file.open("w" if force else "x", encoding="utf-8", newline="\n") as out:
                out.write(text)
        except FileExistsError:
            raise ReportError(f"{file} exists; --force replaces it") from None
        except OSError as error:
            raise ReportError(f"cannot write {file}: {error.strerror or error}") from error
    return list(contents)


def contents_of(data: Mapping[str, Any], path: Path) -> dict[Path, str]:
    """Return the text of each file of a report, the report itself last."""
    match path.suffix.lower():
        case ".json":
            return {path: as_json(data, indent=2) + "\n"}
        case ".html":
            return {path: html.page(data)}
        case _:
            folder = path.with_name(f"{path.stem}-pictures")
            found = {one["kind"]: svg for one in data["pictures"] if (svg := drawn(one))}
            files = {folder / f"{kind}.svg": svg for kind, svg in found.items()}
            names = {kind: urllib.parse.quote(f"{folder.name}/{kind}.svg") for kind in found}
            return {**files, path: markdown.text(data, names)}
