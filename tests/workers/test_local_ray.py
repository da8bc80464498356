"""A Ray that a search starts on this machine: its folder, its token, its ports, and what it imports."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clusters import plain_environment
from tests.support.commands import Cli, called

pytestmark = pytest.mark.slow

SEARCHER = Path(sysconfig.get_path("scripts")) / "searcher"
SMALL = ("--study-name", "s", "--n-trials", "3", "--workers", "1", "--limit-train", "100", "--width", "4")
LAUNCH = ("launch", *SMALL, "--epochs", "1", "--baselines", "relu")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name, for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="s-", dir="/tmp") as name:
        yield Path(name)


def run(place: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a user's shell starts it; the packages are found where they are installed."""
    found = {name: value for name, value in plain_environment().items() if name not in ("PYTHONPATH", "TMPDIR")}
    return subprocess.run(
        command, cwd=place, env=found | environment, capture_output=True, text=True, timeout=300, check=False
    )


def is_complete(place: Path) -> bool:
    (study,) = json.loads(called(place, "studies", "-f", "json").stdout)
    return bool(study["done"] == 3 and study["failed"] == 0 and study["complete"])


@pytest.mark.parametrize("length", [46, 90])  # at 42 it depends on the digits of the process number
def test_a_folder_that_is_too_deep_for_sockets_is_seen(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, short: Path, length: int
) -> None:
    deep = short / ("d" * (length - len(f"{short}/")))
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert f"ray folder: Ray works below /tmp: TMPDIR, {deep}, is {length} characters long" in cli("doctor").stdout


def test_a_folder_that_is_too_deep_for_sockets_is_not_used(tmp_path: Path, short: Path) -> None:
    """Row E4: a TMPDIR of more than 41 characters. The next tests cover RAY_TMPDIR, and folders that cannot be made."""
    deep = short / ("d" * (46 - len(f"{short}/")))
    deep.mkdir()
    done = run(tmp_path, SEARCHER, *LAUNCH, TMPDIR=str(deep))
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "TMPDIR" in line]
    assert f"Ray works below /tmp: TMPDIR, {deep}, is 46 characters long" in line and "RAY_TMPDIR=FOLDER" in line
    assert is_complete(tmp_path)


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/dev/null/x", "cannot be created, because /dev/null is not a directory"),
        ("/proc/x", "cannot be made"),
        ("/tmp/" + "d" * 50, "is 55 characters long; the sockets in it leave room for 4"),
        ("/tmp/" + "ф" * 30, "is 65 characters long"),
    ],
)
def test_a_folder_that_ray_cannot_use_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch, folder: str, why: str) -> None:
    """Row R12: `RAY_TMPDIR=/dev/null/x`. Covers one that is too long, counted in bytes, and `searcher doctor`."""
    if folder == "/proc/x" and os.access("/proc", os.W_OK):
        why = "Ray "  # root may write everywhere, until it tries
    monkeypatch.setenv("RAY_TMPDIR", folder)
    done = cli(*LAUNCH)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if folder in line]
    assert why in line and "--pool inline" in line
    if "Ray " not in why:
        examined = cli("doctor")
        assert examined.returncode == 1 and why in examined.stdout and "NO  ray folder" in examined.stdout
    studies = cli("studies")
    assert studies.returncode == 1 and "there is no database" in studies.stderr, "nothing was begun"


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out during startup. This could happen because ..."),
        RuntimeError("Failed to start GCS.\n\nTraceback"),
        SystemExit(1),
        ValueError("The configured object store size exceeds /dev/shm size"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_ray_that_does_not_start_is_said(cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Row R12: a Ray that is slow to start. Covers whatever else Ray raises then."""

    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", init)
    done = cli(*LAUNCH)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "Ray does not start on this machine" in done.stderr and "--pool inline" in done.stderr


OPEN = """
import os, psutil
os.umask(0)
from workers.pools.ray_actors import RayPool
pool = RayPool(1)
me = psutil.Process()
for process in [me, *me.children(recursive=True)]:
    for at in process.net_connections():
        if at.status == "LISTEN":
            print(at.laddr.ip, process.name())
pool.close()
"""


def test_a_local_ray_is_for_its_user_only(short: Path) -> None:
    """Row R7: in a fresh HOME, whatever the umask is: the token's mode, and the interfaces that Ray listens on."""
    done = run(short, sys.executable, "-c", OPEN, HOME=str(short), RAY_TMPDIR=str(short))
    assert done.returncode == 0, done.stderr
    addresses = {line.split()[0] for line in done.stdout.splitlines()}
    assert "gcs_server" in done.stdout and "raylet" in done.stdout
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, done.stdout
    token = short / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    assert len(token.read_text()) == 64 and [path.name for path in token.parent.iterdir()] == ["auth_token"]


def test_a_token_is_made_once_and_kept_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R7: a token that an earlier Ray has left for all to read. Covers tokens that are somewhere else."""
    from workers.pools.ray_local import make_token

    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".ray" / "auth_token"
    for name, value in (("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN_PATH", "/x"), ("RAY_AUTH_TOKEN", "f00d")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            make_token()
        assert not file.exists(), name
    make_token()
    made = file.read_text()
    file.chmod(0o644)
    make_token()
    assert file.read_text() == made and stat.S_IMODE(file.stat().st_mode) == 0o600


NAMES = ("workers", "searcher", "search_space", "cli")


def written(place: Path, names: tuple[str, ...], as_packages: bool) -> None:
    for name in names:
        file = place / name / "__init__.py" if as_packages else place / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise RuntimeError('a file of the user')\n")


@pytest.mark.parametrize("as_packages", [False, True])
def test_files_of_the_user_do_not_hide_the_program(tmp_path: Path, as_packages: bool) -> None:
    """Row E7: `workers.py` and `cli.py` in the working directory. Covers `searcher.py`, `search_space.py`, packages of
    these names, the driver, Ray's workers, and a network of the user's beside them."""
    written(tmp_path, NAMES, as_packages)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(activation, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), activation(4), nn.Linear(4, classes))\n"
    )
    without_width = [word for word in LAUNCH if word not in ("--width", "4")]
    done = run(tmp_path, SEARCHER, *without_width, "--model", "net:make")
    assert done.returncode == 0, done.stderr
    assert is_complete(tmp_path)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_python_m_finds_the_program_too(tmp_path: Path, name: str) -> None:
    """Row E7: `python -m cli` looks into the working directory first. Covers what PYTHONPATH puts before us: one line
    says what it is."""
    written(tmp_path, (name,), False)
    shown = run(tmp_path, sys.executable, "-m", "cli", "--help")
    assert shown.returncode == 0 and "launch" in shown.stdout, shown.stderr
    hidden = run(tmp_path, SEARCHER, "--help", PYTHONPATH=str(tmp_path))
    assert hidden.returncode == 1 and hidden.stderr.count("\n") == 1
    assert f"{tmp_path}/{name}.py hides this program's package '{name}'; rename it" in hidden.stderr
