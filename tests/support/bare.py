"""A Python that has torch and NumPy, but none of this project's other dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import ROOT

ABSENT = (
    *("aiohttp", "requests"),
    *("alembic", "filelock", "joblib", "matplotlib", "onnx", "optuna", "pandas", "PIL", "prometheus_client", "psutil"),
    *("psycopg", "pyarrow", "ray", "rich", "safetensors", "scipy", "sklearn", "sqlalchemy", "typer", "yaml"),
)

# To Python they are not installed: no finder finds them, whoever asks, nor what is written about them beside them.
PREAMBLE = """
import runpy, sys
absent = {absent!r}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, *rest)
    def find_distributions(self, *context):
        found = getattr(self.finder, "find_distributions", lambda *_: ())(*context)
        return (one for one in found if one.name.replace("-", "_") not in absent)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
"""


def command(code: str, absent: Sequence[str] = ABSENT) -> list[str]:
    """Return the command that runs this code in a Python without the packages `absent`."""
    return [sys.executable, "-c", PREAMBLE.format(absent=tuple(absent)) + code]


def module(name: str, *arguments: str, absent: Sequence[str] = ABSENT) -> list[str]:
    """Return the command `python -m name arguments` of such a Python."""
    code = f"sys.argv[0] = {name!r}; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return [*command(code, absent), *arguments]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SEARCHER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
