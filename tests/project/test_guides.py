"""The guides: followed literally in an empty directory, from the first block to the last."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.commands import called

pytestmark = pytest.mark.slow

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
BLOCK = re.compile(r"^```(python|console run ?\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(guide: Path) -> Iterator[tuple[str, str]]:
    for found in BLOCK.finditer(guide.read_text()):
        yield found[1], found[2]


def packages(guide: Path) -> list[str]:
    """The packages whose commands a guide has, beside those that need none."""
    kinds = dict.fromkeys(kind.removeprefix("console run").strip() for kind, _ in blocks(guide))
    return ["", *(kind for kind in kinds if kind not in ("", "python"))]


CASES = [(guide, package) for guide in GUIDES for package in packages(guide)]


@pytest.mark.filterwarnings("default")  # of the packages
@pytest.mark.parametrize(("guide", "package"), CASES, ids=[f"{g.stem} {p}".strip() for g, p in CASES])
def test_a_guide_can_be_followed(guide: Path, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python that begins with the name of a file is that file; other Python is run, and so is each command."""
    if package and not find_spec(package):
        pytest.skip(f"{package} is not installed")
    monkeypatch.setattr("searcher.driver.session.usable_cpus", lambda: 1)  # other tests run beside this one
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    ran = 0
    for kind, text in blocks(guide):
        if kind == "python" and (name := re.match(r"# (\w+\.py)\n", text)):
            (tmp_path / name[1]).write_text(text)
        elif kind == "python" and not package:
            exec(compile(text, guide.name, "exec"), {"__name__": "guide"})
        elif kind == f"console run {package}".strip():
            for line in text.splitlines():
                command = line.removeprefix("$ ")
                done = called(tmp_path, *shlex.split(command)[1:])
                assert done.returncode == 0, f"{command}\n{done.stderr}"
                ran += 1
    assert ran
