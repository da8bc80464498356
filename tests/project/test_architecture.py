"""Which package may import which (tests/support/architecture.py), and what may not be written anywhere."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import search_space
from tests.support import ROOT
from tests.support.architecture import SOURCES, broken_rules, module_name


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    assert broken_rules(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("search_space.grammar", "import workers.contract"),
        ("search_space.grammar", "import optuna"),
        ("workers.tasks.images.train", "def f():\n    from searcher.store import store"),
        ("workers.tasks.images.train", "from searcher import SearcherError"),
        ("workers.tasks.images.train", "import ray"),
        ("workers.contract", "import torch.nn"),
        ("searcher.records", "from workers.validation import validated"),
        ("searcher.store.store", "from search_space import key"),
        ("searcher.store.store", "from searcher.driver.loop import Search"),
        ("searcher.samplers.rnn", "from searcher.store.store import Store"),
        ("searcher.samplers.rnn", "from searcher import store"),
        ("searcher.evidence.paired", "from searcher.store.store import Store"),
        ("searcher.evidence.paired", "import torch"),
        ("searcher.driver.loop", "import cli"),
        ("searcher.driver.loop", "from searcher import open_store"),
        ("searcher.driver.loop", "from searcher.sessions import Session"),
        ("searcher.sessions", "from searcher.api import search"),
        ("searcher.driver.loop", "import sqlalchemy as sa"),
        ("searcher.settings.config", "from searcher.store import schema"),
        ("searcher.reports.report", "from searcher.commands.console import print_rows"),
        ("searcher.reports.status", "from sqlalchemy import select"),
        ("searcher.commands.space", "import cli"),
    ],
)
def test_the_test_can_fail(module: str, source: str) -> None:
    assert broken_rules(module, source)


def hidden_modules(package: ModuleType) -> list[str]:
    """Return the modules of a package that its own names hide, and the public names that are modules."""
    modules = {path.stem for path in Path(str(package.__file__)).parent.glob("*.py")} - {"__init__", "__main__"}
    hidden = [
        name for name in modules if getattr(package, name, None) is not import_module(f"{package.__name__}.{name}")
    ]
    return sorted(hidden + [name for name in package.__all__ if isinstance(getattr(package, name), ModuleType)])


def test_no_function_of_the_search_space_hides_a_module() -> None:
    """`import search_space.X` gives a module for every file X, and `search_space.f` is never a module."""
    assert hidden_modules(search_space) == []


def test_a_hidden_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sample_package"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from sample_package.key import key\nimport sample_package.other\n__all__ = ['key', 'other']\n"
    )
    (package / "key.py").write_text("def key(): ...\n")
    (package / "other.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    found = hidden_modules(import_module("sample_package"))
    for name in [name for name in sys.modules if name.startswith("sample_package")]:
        del sys.modules[name]
    assert found == ["key", "other"]


# What runs code that comes as data, and the few places where something like it is meant.
EVALUATING = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "importlib.import_module",
    "builtins.eval",
    "builtins.exec",
    "runpy.run_path",
    "runpy.run_module",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "torch.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "pandas.read_pickle",
    "shelve.open",
    *(f"{m}.{f}" for m in ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal") for f in ("load", "loads")),
    "pickle.Unpickler",
    "ray.cloudpickle.loads",
    "ray.cloudpickle.load",
}
MEANT = {"search_space.modules": {"importlib.import_module"}}  # what a user names: searcher/driver/approval.py


def calls(source: str) -> Iterator[tuple[str, set[str]]]:
    """What is called, by its full name however it was imported, and the keywords that are false in the call."""
    tree = ast.parse(source)
    full = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            off = {k.arg for k in node.keywords if k.arg and ast.unparse(k.value) == "False"}
            yield full.get(first, first) + dot + rest, off


def evaluations(module: str, source: str) -> list[str]:
    """Calls that run what they are given, or could."""
    found = []
    for name, off in calls(source):
        arrays = name in ("numpy.load", "numpy.lib.format.read_array") and "allow_pickle" not in off
        if arrays or name in EVALUATING - MEANT.get(module, set()):
            found.append(f"{module} calls {name}")
    if module != "workers.tasks.images.formats":  # whose unpickler finds no class but its own
        classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
        found += [f"{module} derives {c.name}" for c in classes if "Unpickler" in "".join(map(ast.unparse, c.bases))]
    shells = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword) and node.arg == "shell"]
    return found + [f"{module} starts a shell" for _ in shells]


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_nothing_is_evaluated_or_unpickled_and_only_the_command_line_prints(path: Path) -> None:
    assert evaluations(module_name(path), path.read_text()) == []
    if path.name != "cli.py" and "commands" not in path.parts:
        assert "print" not in dict(calls(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "from pickle import loads as read\nread(data)",
        "import pickle as p\ndef f():\n    return p.Unpickler(file).load()",
        "import pickle\nclass Mine(pickle.Unpickler): ...",
        "from torch import load\nload(file, weights_only=True)",
        "import numpy as np\nnp.load(file)",
        "import numpy as np\nnp.load(file, allow_pickle=True)",
        "import joblib\njoblib.load(file)",
        "import marshal\nmarshal.loads(data)",
        "import importlib\nimportlib.import_module(name)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_what_evaluates_is_found(source: str) -> None:
    assert evaluations("searcher.store.store", source)
    assert not evaluations(
        "searcher.store.store", "import numpy as np\nnp.load(file, allow_pickle=False)\nre.compile(text)"
    )


def test_functions_stay_small() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                last = node.end_lineno or node.lineno  # the options of a command are a table, not code
                assert last - node.body[0].lineno < 60, f"{path}:{node.lineno} {node.name}"


@cache
def imports_in_tests() -> list[tuple[str, str, ast.ImportFrom]]:
    """Return each `from ... import` of the tests: the file, the line's text, the statement."""
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "tests").rglob("*.py"))}
    return [
        (file, text.splitlines()[node.lineno - 1], node)
        for file, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
    ]


def test_no_test_imports_another_test_module() -> None:
    names = [(file, f"{node.module}.{alias.name}") for file, _, node in imports_in_tests() for alias in node.names]
    assert len(names) > 1000
    assert not [(file, name) for file, name in names if re.search(r"\b(test_\w+|conftest)\b", name)]


def test_a_private_name_is_imported_with_a_reason() -> None:
    private = [
        (file, line)
        for file, line, node in imports_in_tests()
        if any(re.match("_[^_]", alias.name) for alias in node.names)
    ]
    assert private, "the test looks at nothing"
    assert not [(file, line) for file, line in private if "  # " not in line]
