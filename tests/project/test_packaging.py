"""The distribution: what pyproject.toml declares, what the sdist and the wheel hold, what a missing extra says."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import ROOT, bare
from tests.support.architecture import SOURCES, module_name
from tests.support.commands import called
from tests.support.databases import DATABASES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Mapping[str, list[str]] = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = ("all", "dev", "zoo")  # the other extras are for the packages themselves
OWN = ("activation-searcher", "benchmarks", "cli", "examples", "search_space", "searcher", "tests", "workers")
OWNERS = packages_distributions()  # of each top-level name
ELSEWHERE = [file for folder in ("tests", "benchmarks", "examples") for file in (ROOT / folder).rglob("*.py")]


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements} - {*OWN}


REQUIRED = names(PROJECT["dependencies"])
OPTIONAL = {extra: names(texts) for extra, texts in EXTRAS.items() if extra not in FOR_DEVELOPERS}
DECLARED = REQUIRED.union(*OPTIONAL.values())


@cache
def imported(source: str) -> set[str]:
    """Return the distributions of others that a file imports, wherever it does."""
    tops: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            tops |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            tops.add(str(node.module).partition(".")[0])
    others = tops - sys.stdlib_module_names - {*OWN}
    return {canonicalize_name(owner) for top in others for owner in OWNERS.get(top, [f"unknown-{top}"])}


def undeclared(sources: Mapping[str, str], declared: set[str]) -> list[str]:
    """Return the imports of distributions that are not declared."""
    found = {module: imported(source) - declared for module, source in sources.items()}
    return [f"{module} imports {name}" for module, missing in found.items() for name in sorted(missing)]


def unused(sources: Mapping[str, str], declared: set[str]) -> set[str]:
    """Return what is declared and imported nowhere."""
    return declared.difference(*map(imported, sources.values()))


TEXTS = {module_name(path): path.read_text() for path in SOURCES}


def test_every_import_is_declared_and_everything_declared_is_imported() -> None:
    assert undeclared(TEXTS, DECLARED) == []
    assert unused(TEXTS, DECLARED) == set()


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_a_missing_declaration_is_noticed(name: str) -> None:
    assert undeclared(TEXTS, DECLARED - {name})


def test_an_unused_declaration_is_noticed() -> None:
    assert unused(TEXTS, DECLARED | {"httpx"}) == {"httpx"}
    assert undeclared({"searcher.new": "def f():\n    import httpx.client"}, DECLARED)


def test_what_is_optional_is_not_required_too() -> None:
    for extra, packages in OPTIONAL.items():
        assert packages & REQUIRED == ({"ray"} if extra == "cluster" else set()), extra
    assert Requirement(EXTRAS["all"][0]).extras == {*OPTIONAL}


def test_the_search_space_needs_torch_and_numpy_alone() -> None:
    """The exception is onnx, where an ONNX file is written: test_a_missing_extra_is_named_in_one_line."""
    own = {module: source for module, source in TEXTS.items() if module.startswith("search_space")}
    assert undeclared(own, {"torch", "numpy", "onnx"}) == []
    assert [module for module, source in own.items() if "onnx" in imported(source)] == ["search_space.export"]
    assert undeclared({**own, "search_space.new": "import scipy.special"}, {"torch", "numpy", "onnx"})


@pytest.mark.slow
def test_the_search_space_is_imported_where_only_torch_and_numpy_are(tmp_path: Path) -> None:
    modules = sorted(module for module in TEXTS if module.partition(".")[0] == "search_space")
    code = f"import {', '.join(module for module in modules if not module.endswith('__main__'))}"
    done = bare.run(bare.command(code), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_tests_and_benchmarks_import_is_declared_for_developers() -> None:
    for_developers = DECLARED | names(EXTRAS["dev"]) | names(EXTRAS["zoo"])
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in ELSEWHERE}
    assert undeclared(texts, for_developers) == []


POSTGRESQL = ("--storage", "postgresql://nobody@127.0.0.1:1/none")
LAUNCH = ("launch", "--study-name", "new", "--pool", "inline")
FASHION = ("--dataset", "fashion-mnist", "--data-dir", ".")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and with Parquet files of a data set."""
    made = tmp_path_factory.mktemp("extras")
    (made / "cache").mkdir()
    shutil.copy(DATABASES / "0002.db", made / "searcher.db")
    assert called(made, "db", "upgrade").returncode == 0
    for part in ("train", "test"):
        (made / f"{part}-00000-of-00001.parquet").write_bytes(b"PAR1")
    return made


MISSING = [
    ("cluster", "aiohttp", ("jobs", "list")),
    ("cluster", "grpc", ("launch", "--study-name", "new", "--address", "ray://127.0.0.1:1")),
    ("metrics", "prometheus_client", (*LAUNCH, "--metrics-port", "0")),
    ("onnx", "onnx", ("code", "max(x, 0)", "--to", "onnx", "-o", "out.onnx")),
    ("parquet", "pyarrow", ("export", "old", "out.parquet")),
    ("parquet", "pyarrow", (*LAUNCH, *FASHION)),
    ("parquet", "PIL", (*LAUNCH, *FASHION)),
    ("plot", "matplotlib", ("show", "max(x, 0)", "--plot", "out.png")),
    ("plot", "matplotlib", ("plot", "old", "size", "-o", "out.png")),
    ("postgres", "psycopg", ("query", "SELECT 1", *POSTGRESQL)),
    ("postgres", "psycopg", ("db", "upgrade", *POSTGRESQL)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "package", "words"), MISSING, ids=lambda value: str(value).split()[0])
def test_a_missing_extra_is_named_in_one_line(extra: str, package: str, words: tuple[str, ...], folder: Path) -> None:
    """The command has written nothing. Its status is 1, or 2 where `--to` names a language that cannot be written."""
    before = sorted(folder.iterdir())
    done = bare.run(bare.module("cli", *words, absent=[package]), folder)
    assert (done.returncode, done.stdout) == (2 if extra == "onnx" else 1, "")
    assert re.fullmatch(rf"searcher: .* needs? .*: pip install 'activation-searcher\[{extra}\]'.*\n", done.stderr)
    assert sorted(folder.iterdir()) == before
    assert [study["study"] for study in json.loads(called(folder, "studies", "-f", "json").stdout)] == ["old"]


def test_every_extra_says_that_it_is_missing() -> None:
    in_python = {"pandas"}  # no command needs it: tests/commands/test_api.py has its message
    assert {extra for extra, _, _ in MISSING} | in_python == {*OPTIONAL}


@pytest.mark.slow
def test_the_doctor_does_not_ask_for_extras(folder: Path) -> None:
    """It notes those that are missing, with the command that installs them."""
    done = bare.run(bare.module("cli", "doctor", absent=["psycopg", "pyarrow", "prometheus_client"]), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    for extra in ("postgres", "parquet", "metrics"):
        assert f"not installed, which is fine unless you need it: pip install 'activation-searcher[{extra}]'\n" in text


# What is built --------------------------------------------------------------------------------------------------------

CHECKOUT_ONLY = (".ci/", ".git", ".pre-commit")  # what only a checkout needs


def tracked() -> set[str]:
    """Return the files of the checkout, by their names from its root."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no git checkout: nothing says which files belong to it")
    return {name for name in done.stdout.split("\0") if name and not name.startswith(CHECKOUT_ONLY)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and, in `tree` and `sdist`, the wheels that are built from either."""
    pytest.importorskip("build", reason="the package build is not installed")
    folder = tmp_path_factory.mktemp("built")
    for name in tracked():
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "copy" / name)
    build = [sys.executable, "-m", "build", "--no-isolation", str(folder / "copy"), "--outdir"]
    for words in ([*build, str(folder / "tree"), "--wheel"], [*build, str(folder / "sdist")]):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_sdist_holds_the_checkout(built: Path) -> None:
    (file,) = (built / "sdist").glob("*.tar.gz")
    with tarfile.open(file) as archive:
        held = {entry.name.partition("/")[2] for entry in archive if entry.isfile()}
    made = {name for name in held if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert held - made == tracked()


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_is_the_same_from_the_sdist(built: Path) -> None:
    contents = []
    for source in ("tree", "sdist"):
        (file,) = (built / source).glob("*.whl")
        assert file.name == f"activation_searcher-{PROJECT['version']}-py3-none-any.whl"
        with zipfile.ZipFile(file) as wheel:
            contents.append({name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/RECORD")})
    assert contents[0] == contents[1]
    about = {name.partition(".dist-info/")[2] for name in contents[0] if ".dist-info/" in name}
    assert about == {"METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    packages = {name for name in tracked() if name.startswith(("search_space/", "workers/", "searcher/"))}
    assert {name for name in contents[0] if ".dist-info/" not in name} == packages | {"cli.py"}
    assert {"searcher/py.typed", "searcher/store/migrations/script.py.mako"} <= packages


# Benchmarks -----------------------------------------------------------------------------------------------------------

BENCHMARKS = [
    module_name(path).removesuffix(".__main__")
    for path in (*sorted((ROOT / "benchmarks").glob("*.py")), ROOT / "benchmarks" / "gpu" / "__main__.py")
    if "argparse" in path.read_text()
]


class Parsed(Exception):
    """Ends a program as soon as it has read its arguments."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_write_outside_the_checkout_by_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    def parse(parser: argparse.ArgumentParser, words: object = None) -> None:
        found.update(vars(parse_args(parser, [])))
        raise Parsed

    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    module = importlib.import_module(f"{name}.__main__" if name == "benchmarks.gpu" else name)
    with pytest.raises(Parsed):
        module.main()
    files = [str(value).removeprefix("sqlite:///") for value in found.values() if is_a_place(value)]
    assert all(Path(file).is_relative_to(tempfile.gettempdir()) for file in files), files
    assert "cwd" not in Path(str(module.__file__)).read_text()


def is_a_place(value: object) -> bool:
    return isinstance(value, Path) or str(value).startswith("sqlite:")
