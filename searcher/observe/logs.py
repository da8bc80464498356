"""Log records as text for people, or as JSON lines for machines; on stderr, and in a file.

A record of any library carries the study that its context is about. Trial and worker come with the records that are
about one (`extra`).
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from io import TextIOBase, TextIOWrapper
from pathlib import Path
from textwrap import indent
from types import TracebackType
from typing import Any, TextIO

from searcher import SearcherError
from searcher.display import as_json, shown, without_colours
from workers.text import LIMIT, limited

log = logging.getLogger("searcher")

_FACTS = ("study", "trial", "worker")
_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


class LogFormat(StrEnum):
    text = "text"
    json = "json"


class LogError(SearcherError):
    """A log file that cannot be written."""


def set_up(verbose: int = 0, form: LogFormat = LogFormat.text, file: Path | None = None) -> None:
    """Says where records go. This program's own from INFO, those of libraries from WARNING; with `verbose` 1 all from
    INFO, with 2 all.

    Raises:
        LogError: the file cannot be written.
    """
    terminal: logging.Handler = _Stderr()
    terminal.setFormatter(_Json() if form is LogFormat.json else _Terminal("%(asctime)s %(message)s", "%H:%M:%S"))
    handlers = [terminal]
    if file:
        try:
            handlers.append(_PrivateFile(file, encoding="utf-8"))
        except OSError as error:
            raise LogError(f"cannot write the log {file}: {error.strerror}; name another with --log-file") from error
        whole = _Text("%(asctime)s %(levelname)s %(message)s")
        handlers[-1].setFormatter(_Json() if form is LogFormat.json else whole)
    logging.basicConfig(
        handlers=handlers, level=[logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)], force=True
    )
    log.setLevel(logging.INFO if verbose < 2 else logging.DEBUG)


def hide_session_messages() -> None:
    """From here on stderr has errors only, and what is said to the user."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Stderr):
            handler.addFilter(lambda record: record.levelno >= logging.ERROR or _is_message(record))


def structured() -> bool:
    """Whether stderr is for machines: nothing but records may go there."""
    return any(isinstance(h, _Stderr) and isinstance(h.formatter, _Json) for h in logging.getLogger().handlers)


def say(message: str, level: int = logging.INFO) -> None:
    """Something for the user: a plain line where logs are text, a record as any where they are JSON."""
    log.log(level, "%s", message, extra={"said": True})


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback to stderr, as Python does at the end of a program, without what must not reach a terminal."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(shown(limited(text), lines=True))


@contextmanager
def about(study: str) -> Iterator[None]:
    """Records of the block are about that study."""
    former = _about.set({"study": study})
    try:
        yield
    finally:
        _about.reset(former)


class Printed(TextIOBase):
    """A stdout for while a search runs, when the real one waits for its results: lines that others print, such as a
    user's own modules, become records. Those of Ray, which tells of each dead worker at length, are for debugging."""

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if len(self._line) > LIMIT:  # it may never end
            lines, self._line = [*lines, self._line], ""
        for line in filter(str.strip, map(without_colours, lines)):
            log.log(logging.DEBUG if "(raylet)" in line else logging.INFO, "%s", line)
        return len(text)


def _is_message(record: logging.LogRecord) -> bool:
    return hasattr(record, "said")


class _Text(logging.Formatter):
    """A record begins a line. What comes after it in other lines (a traceback, a list that a message ends with) is
    indented, so that no text of others can pass for a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        lines = limited(record.message).split("\n  ") if _is_message(record) else [limited(record.message)]
        record.message = "\n  ".join(map(shown, lines))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return indent(shown(limited(super().formatException(ei)), lines=True), "    ")


class _Terminal(_Text):
    """What is said to the user has no time before it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        text = super().formatMessage(record)
        if not _is_message(record):
            return text
        return f"searcher: {record.message}" if record.levelno >= logging.ERROR else record.message


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {name: value for name in _FACTS if (value := getattr(record, name, None)) is not None}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": limited(record.getMessage()),
            **(_about.get() or {}),
            **facts,
        }
        if record.exc_info:
            line["traceback"] = limited(self.formatException(record.exc_info))
        return as_json(line)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is at the moment: a progress bar puts itself in between."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _PrivateFile(logging.FileHandler):
    """Made for its owner only. A full disk ends the log, not what it is about."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        log.warning("the log %s ends here: %s", self.baseFilename, error.strerror)

    def _open(self) -> TextIOWrapper:
        made = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(made, "a", encoding="utf-8")
