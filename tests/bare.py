"""A Python that has torch and NumPy, but none of this project's other dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT

ABSENT = (
    *("aiohttp", "requests"),
    *("alembic", "filelock", "joblib", "matplotlib", "onnx", "optuna", "pandas", "PIL", "prometheus_client", "psutil"),
    *("psycopg", "pyarrow", "ray", "rich", "safetensors", "scipy", "sklearn", "sqlalchemy", "typer", "yaml"),
)

# To Python they are not installed: no finder finds them, whoever asks.
PREAMBLE = f"""
import runpy, sys
absent = {ABSENT!r}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, *rest)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
"""


def command(code: str) -> list[str]:
    return [sys.executable, "-c", PREAMBLE + code]


def module(name: str, *arguments: str) -> list[str]:
    """The command `python -m name arguments` of such a Python."""
    return [
        *command(f"sys.argv[0] = {name!r}; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"),
        *arguments,
    ]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SEARCHER_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
