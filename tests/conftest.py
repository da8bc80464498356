"""Fixtures that several test files share: real databases, and the command line as a user calls it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave their core to the tests beside them

import torch
from hypothesis import settings

from searcher.store.store import Store
from tests.support.commands import Cli, called
from tests.support.postgres import Server, fresh_database

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30

settings.register_profile("busy machines", deadline=None)
settings.load_profile("busy machines")


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


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/searcher.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A new store in a database of each kind in turn."""
    opened = Store(database_url, create=True)
    yield opened
    opened.close()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `searcher ARGS` in an empty directory, which the test is in too."""
    monkeypatch.chdir(tmp_path)
    return partial(called, tmp_path)
