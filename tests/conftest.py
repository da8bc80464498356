"""Fixtures that several test files share: real databases, and the command line as a user calls it."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from hypothesis import settings

from cli import main

from .postgres import Server

ROOT = Path(__file__).parents[1]

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30

settings.register_profile("busy machines", deadline=None)
settings.load_profile("busy machines")

Cli = Callable[..., "Done"]


def pytest_configure(config: pytest.Config) -> None:
    """Put the tests' files into memory if there is room: most tests wait for the disk when they commit, and no test
    cuts the power. `--basetemp` puts them elsewhere."""
    if config.option.basetemp is None and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test `fast` that is not marked `slow`: `pytest -m fast` is what one runs after each change."""
    for item in items:
        if item.get_closest_marker("slow") is None:
            item.add_marker("fast")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A test has one core: others run beside it, and threads that wait for a core cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Journals of this test run are its own."""
    os.environ["SEARCHER_STATE"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def new_folder() -> Iterator[Callable[[], Path]]:
    """Makes folders for the data of PostgreSQL servers, which run as another user. Whenever pytest starts, it takes the
    rights to its folder from other users, so a server of another test run with its data there would end."""
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as root:
        Path(root).chmod(0o755)
        numbers = count()

        def make() -> Path:
            folder = Path(root) / str(next(numbers))
            folder.mkdir()
            return folder

        yield make


@pytest.fixture(scope="session")
def postgresql_server(new_folder: Callable[[], Path]) -> Iterator[str]:
    """A PostgreSQL server of this test run's own; the URL of its first database."""
    server = Server(new_folder())
    yield server.url
    server.close()


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    return fresh_database(postgresql_server)


def fresh_database(postgresql_server: str, encoding: str = "UTF8") -> str:
    """The URL of a new database on that server."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        form = "" if encoding == "UTF8" else f" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        connection.execute(sa.text(f"CREATE DATABASE {name}{form}"))
    engine.dispose()
    return sa.make_url(postgresql_server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/searcher.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


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
        patch.setenv("COLUMNS", "160")
        patch.setattr(sys, "argv", ["searcher", *args])
        patch.setattr(sys, "path", list(sys.path))  # folders that a command looks into are its own
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
    return Done(status, out.text(), err.text())


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `searcher ARGS` in an empty directory, which the test is in too."""
    monkeypatch.chdir(tmp_path)
    return partial(called, tmp_path)
