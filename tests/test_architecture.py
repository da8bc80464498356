"""Who may import whom (docs/design.md), and what may not be written anywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT

SOURCES = [ROOT / "cli.py", *(f for d in ("search_space", "workers", "searcher") for f in (ROOT / d).rglob("*.py"))]

# A module (or package) and what it must not import.
FORBIDDEN = {
    "search_space": {"workers", "searcher", "cli", "ray", "sqlalchemy", "optuna", "typer", "rich"},
    "workers": {"searcher", "cli", "sqlalchemy", "optuna", "typer", "rich"},
    "workers.job": {"torch", "ray", "numpy", "search_space"},
    "workers.pool": {"ray"},
    "workers.train": {"ray"},
    "searcher": {"cli", "typer", "searcher.commands"},
    "searcher.trial": {"torch", "ray", "numpy", "sqlalchemy", "search_space", "workers"},
    "searcher.store": {"torch", "ray", "search_space"},
    "searcher.database": {"torch", "ray", "search_space", "workers"},
    "searcher.schema": {"torch", "ray", "search_space", "workers"},
    "searcher.config": {"torch", "ray", "search_space", "sqlalchemy"},
    "searcher.report": {"torch", "ray", "search_space"},
    "searcher.samplers": {"workers", "sqlalchemy", "ray"},
}  # searcher.commands is a part of the command line
SAMPLERS_MAY_SEE = {"searcher", "searcher.trial"}  # and each other, and search_space


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(source: str) -> Iterator[str]:
    """Full names of what a file imports, wherever it does, annotations-only imports left out."""
    tree = ast.parse(source)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def broken_rules(module: str, source: str) -> list[str]:
    found = list(imports(source))
    broken = []
    for owner, forbidden in FORBIDDEN.items():
        if within(module, owner) and not within(module, "searcher.commands"):
            broken += [f"{module} imports {name}" for name in found if any(within(name, f) for f in forbidden)]
    if module.startswith("searcher.samplers"):
        ours = {name for name in found if name.startswith("searcher.") and name[9:10].islower()}
        for name in ours:
            if not name.startswith(("searcher.samplers", "searcher.trial")):
                broken.append(f"{module} imports {name}")
    return broken


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    assert broken_rules(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("search_space.grammar", "import workers.job"),
        ("workers.train", "def f():\n    from searcher import store"),
        ("workers.job", "import torch.nn"),
        ("searcher.store", "from search_space import key"),
        ("searcher.samplers.rnn", "from searcher.store import Store"),
        ("searcher.search", "import cli"),
        ("searcher.report", "from searcher.commands.console import print_rows"),
    ],
)
def test_the_test_can_fail(module: str, source: str) -> None:
    assert broken_rules(module, source)


def calls(source: str) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_nothing_is_evaluated_or_unpickled_and_only_the_command_line_prints(path: Path) -> None:
    called = calls(path.read_text())
    assert not called & {"eval", "exec", "compile", "pickle.load", "pickle.loads", "torch.load", "yaml.load"}
    if path.name != "cli.py" and "commands" not in path.parts:
        assert "print" not in called


def test_files_and_functions_stay_small() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert len(text.splitlines()) <= 450, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                last = node.end_lineno or node.lineno  # the options of a command are a table, not code
                assert last - node.body[0].lineno < 60, f"{path}:{node.lineno} {node.name}"
