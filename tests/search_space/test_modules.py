"""Which files another machine needs in order to import code that a person names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from search_space import SpaceError
from search_space.modules import portable_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a file that imports a neighbour, a package, and what Python and pip have."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if "pytest-" not in place])  # of other tests
    (tmp_path / "parts" / "inner").mkdir(parents=True)
    (tmp_path / "parts" / "__init__.py").write_text("from parts.inner import value\n")
    (tmp_path / "parts" / "inner" / "__init__.py").write_text("value = 1\n")
    (tmp_path / "neighbour.py").write_text("import torch\n")
    (tmp_path / "stranger.py").write_text("")
    (tmp_path / "colorsys.py").write_text("")
    (tmp_path / "my_task.py").write_text("import colorsys, json, neighbour, numpy\nfrom parts import value\n")
    return tmp_path


@pytest.mark.parametrize("as_file", [True, False])
def test_a_file_travels_with_what_it_imports_from_its_folder(folder: Path, as_file: bool) -> None:
    """`colorsys.py` stays: Python's module of that name is found first here, and would be hidden there."""
    found = portable_files(f"{folder}/my_task.py" if as_file else "my_task")
    assert [path.name for path in found] == ["my_task.py", "neighbour.py", "parts"]
    assert {path.parent for path in found} == {folder}


def test_an_installed_module_does_not_travel(folder: Path) -> None:
    assert portable_files("numpy.linalg") == portable_files("json") == portable_files("no_such_module") == []


@pytest.mark.parametrize("name", ["workers", "random"])
def test_a_file_that_would_hide_a_module_is_refused(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text("")
    with pytest.raises(SpaceError, match=f"would hide the module '{name}'; rename it"):
        portable_files(f"{folder}/{name}.py")
