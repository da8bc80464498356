"""Write log records as text for people or as JSON lines for machines, to stderr and to a file.

Records of all libraries get the study of the present context (`about`). Records about a trial or a worker have these in
`extra`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
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

WAIT_SECONDS = 1.5  # a wait that is shorter is not mentioned

_FACTS = ("study", "trial", "worker")
_about: ContextVar[dict[str, Any] | None] = ContextVar("about", default=None)


class LogFormat(StrEnum):
    text = "text"
    json = "json"


class LogError(SearcherError):
    """The log file cannot be written."""


def set_up(verbose: int = 0, form: LogFormat = LogFormat.text, file: Path | None = None) -> None:
    """Set up logging to stderr and, if `file` is given, to a file.

    Args:
        verbose: 0 logs this program's records from INFO and records of libraries from WARNING; 1 logs all from INFO; 2
            logs all from DEBUG.
        form: text or JSON.
        file: the log file; records are appended.

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
    """Let only errors and messages for the user (`say`) through to stderr from now on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Stderr):
            handler.addFilter(lambda record: record.levelno >= logging.ERROR or _is_message(record))


def structured() -> bool:
    """Return True if stderr has JSON records, so that nothing else may be written to it."""
    return any(isinstance(h, _Stderr) and isinstance(h.formatter, _Json) for h in logging.getLogger().handlers)


def say(message: str, level: int = logging.INFO) -> None:
    """Show a message to the user: a plain line if logs are text, a normal record if they are JSON."""
    log.log(level, "%s", message, extra={"said": True})


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Log what the program does in the block, such as `starting Ray`, if it takes longer than `WAIT_SECONDS` and a user
    waits at a terminal. Elsewhere, what is on stderr must not depend on how fast the machine is."""
    if not (sys.stderr and sys.stderr.isatty()):
        yield
        return
    timer = threading.Timer(WAIT_SECONDS, log.info, ("%s ...", what))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback to stderr, as Python does at the end of a program, with control characters escaped."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(shown(limited(text), lines=True))


@contextmanager
def about(study: str) -> Iterator[None]:
    """Add the study to all log records of the block."""
    former = _about.set({"study": study})
    try:
        yield
    finally:
        _about.reset(former)


class Printed(TextIOBase):
    """A file that takes the place of stdout while a search runs, because stdout is for results. It turns lines that a
    user's own modules print, for example, into log records. Lines of Ray, which describe each dead worker at length,
    are logged at DEBUG."""

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if len(self._line) > LIMIT:  # the line may never end
            lines, self._line = [*lines, self._line], ""
        for line in filter(str.strip, map(without_colours, lines)):
            log.log(logging.DEBUG if "(raylet)" in line else logging.INFO, "%s", line)
        return len(text)


def _is_message(record: logging.LogRecord) -> bool:
    return hasattr(record, "said")


class _Text(logging.Formatter):
    """Formats a record so that only its first line begins at the margin. Further lines (a traceback, a list at the end
    of a message) are indented, so that no text in a record can look like another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        lines = limited(record.message).split("\n  ") if _is_message(record) else [limited(record.message)]
        record.message = "\n  ".join(map(shown, lines))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return indent(shown(limited(super().formatException(ei)), lines=True), "    ")


class _Terminal(_Text):
    """Formats messages for the user without the time."""

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
    """Writes to the present `sys.stderr`, which a progress bar replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _PrivateFile(logging.FileHandler):
    """A log file that only its owner can read. If the disk is full, the log ends and the search goes on."""

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
