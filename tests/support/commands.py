"""Call the command line as a user does, in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli import main

Cli = Callable[..., "Done"]

COLUMNS = "160"  # of the terminal


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


class Capture(io.TextIOWrapper):
    """A file for what would go to a terminal."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, "utf-8", write_through=True)

    def text(self) -> str:
        return self.bytes.getvalue().decode()


def called(directory: Path, *args: str) -> Done:
    """What `searcher ARGS` does in that directory, in this process: a new one would import torch each time."""
    out, err, status = Capture(), Capture(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(directory)
        patch.setenv("COLUMNS", COLUMNS)
        patch.setattr(sys, "argv", ["searcher", *args])
        patch.setattr(sys, "path", list(sys.path))  # folders that a command looks into are its own
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Done(status, out.text(), err.text())
