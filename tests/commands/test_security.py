"""Secrets stay secret, files are private, and what is installed is what was tested.

A password that cannot be mistaken for anything else is given to every command, in each of the ways there are, and is
then looked for in all that was said and written.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import quote, unquote

import psutil
import psycopg
import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from searcher.driver.journal import Journal
from searcher.records import Kind, Trial
from searcher.settings import loading
from searcher.settings.plan import task_config_of
from searcher.store.database import masked
from searcher.store.lease import Lease
from searcher.store.query import opened_query
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support import ROOT
from tests.support.commands import Cli, Done, called
from tests.support.made import create
from tests.support.postgres import Server

pytestmark = pytest.mark.slow

CANARY = "c4n4ryV0gel"  # of the password the part that is the same however it is quoted
PASSWORD = f"{CANARY}/%@:é"
FAST = ("--limit-train", "100", "--width", "4", "--epochs", "1", "--baselines", "relu")


class Guarded(Server):
    """A PostgreSQL that listens on this machine and asks for passwords."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        super().__init__(directory, listen=f"-h 127.0.0.1 -p {self.port}")
        with psycopg.connect(f"{self.url}&port={self.port}", autocommit=True) as connection:
            connection.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("CREATE DATABASE guarded OWNER guarded")
            (directory / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
            connection.execute("SELECT pg_reload_conf()")

    def to(self, user: str = f"guarded:{quote(PASSWORD, safe='')}", database: str = "guarded", query: str = "") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{query}"


@pytest.fixture(scope="module")
def server(new_folder: Callable[[], Path]) -> Iterator[Guarded]:
    made = Guarded(new_folder())
    yield made
    made.close()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where a search works and keeps all that it keeps. The path is short: Ray's sockets are in it."""
    made = Path(tempfile.mkdtemp(prefix="s-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


@contextmanager
def process(place: Path, url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command as a user's shell starts it, all of whose files are in that place."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SEARCHER_STORAGE": url,
        "SEARCHER_STATE": str(place / "state"),
        "SEARCHER_CACHE": str(place / "cache"),
        "RAY_TMPDIR": str(place),
        "TMPDIR": str(place),
    }
    command = [sys.executable, "-m", "cli", "-vv", "--log-format", "json", "--log-file", "run.log", *arguments]
    with (
        (place / "out").open("a") as out,
        subprocess.Popen(command, cwd=place, env=environment, stdout=out, stderr=out, text=True) as started,
    ):
        try:
            yield started
        finally:
            started.kill()


def until(what: str, true: object, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.1)


def leaks(files: Iterable[Path]) -> list[str]:
    """Those that hold the canary."""
    return [str(path) for path in files if path.is_file() and CANARY.encode() in path.read_bytes()]


def dumped(url: str) -> str:
    """All tables of the database, as text."""
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert len(tables) >= 5
        return "\n".join(str(connection.execute(f"SELECT * FROM {name}").fetchall()) for (name,) in tables)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def searched(server: Guarded, place: Path) -> Path:
    """The place of a search with a Ray worker, in which the database went away and came back, which was stopped from
    elsewhere, and resumed without Ray. What it looked like in the outage is kept too."""
    url = server.to()
    settings = ("--checkpoint-dir", "checkpoints", "--checkpoint-seconds", "0.001")
    launch = ("launch", "--study-name", "s", "--n-trials", "100000", "--workers", "1", *settings[:2], *FAST)

    def said(text: str) -> bool:
        return text in (place / "out").read_text()

    with process(place, url, *launch) as driver:
        until("trials end", lambda: said("trial 3, ") or driver.poll() is not None)
        assert driver.poll() is None, (place / "out").read_text()
        server.crash()
        until("the outage is noticed", lambda: said("holds its results"))
        journals = place / "state" / "journals"
        until("results are held", lambda: any(path.stat().st_size > 5000 for path in journals.glob("*.jsonl")))
        (journal,) = journals.iterdir()
        shutil.copy(journal, place / "journal")
        own = [c for c in Path("/proc").iterdir() if c.name.isdigit() and str(place) in _environment(c)]
        (place / "environments").write_text("".join(_environment(c) for c in own if c.name != str(driver.pid)))
        server.start()
        until("the outage is over", lambda: said("the database is back"))
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(180) == 130
    with process(place, url, "resume", "s", "--n-trials", "100001", "--pool", "inline", "--timeout", "1") as driver:
        assert driver.wait(300) == 0
    return place


def _environment(process: Path) -> str:
    try:
        return (process / "environ").read_text()
    except OSError:  # it has ended, or is not ours
        return ""


def test_a_search_writes_its_password_nowhere(searched: Path, server: Guarded) -> None:
    """Seen to fail with the URL's `render_as_string(hide_password=False)` in a log record, in the settings of a study,
    in a journal's first line, and with SEARCHER_STORAGE left in the environment of the workers."""
    names = {path.name for path in searched.rglob("*")}
    assert {"run.log", "out", "journal", "gcs_server.out", "environments"} <= names, names
    assert (searched / "journal").stat().st_size > 1000 and "RAY" in (searched / "environments").read_text()
    assert '"level": "debug"' in (searched / "run.log").read_text()
    assert leaks(searched.rglob("*")) == []
    text = dumped(server.to(query="?sslmode=prefer"))
    assert "max(x, 0)" in text and CANARY not in text


@pytest.fixture
def talkative() -> Iterator[None]:
    """The database's libraries log all that they can."""
    loggers = [logging.getLogger(name) for name in ("psycopg", "sqlalchemy")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


COMMANDS = [
    ("status", "s"),
    ("top", "s"),
    ("trial", "s", "0"),
    ("studies",),
    ("query", "SELECT * FROM searcher_study"),
    ("export", "s", "all.csv", "--force"),
    ("doctor",),
    ("db", "upgrade"),
    ("db", "check"),
    # What cannot be done anyway:
    ("stop", "s"),
    ("resume", "s", "--n-trials", "1", "--pool", "inline"),
    ("launch", "--study-name", "s", "--pool", "inline", *FAST),
    ("query", "SELECT nonsense"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_no_command_says_the_password(
    searched: Path, server: Guarded, command: tuple[str, ...], cli: Cli, tmp_path: Path, talkative: None
) -> None:
    """Whether it can do its work or not. Seen to fail with `masked` returning what it is given."""
    other = f"x{CANARY}"
    urls = {
        "right": server.to(),
        "wrong password": server.to(f"guarded:{other}"),
        "in the query": server.to("guarded", query=f"?password={quote(PASSWORD, safe='')}"),
        "wrong database": server.to(database="nowhere"),
        "wrong host": server.to().replace("127.0.0.1", "no.such.host.invalid"),
        "nobody there": server.to().replace(str(server.port), "1"),
        "no port": server.to().replace(str(server.port), f"{CANARY}"),
        "unknown option": server.to(query="?nonsense=1"),
        "not quoted": f"postgresql://guarded:{CANARY}/@127.0.0.1:{server.port}/guarded",
        "unknown kind": server.to().replace("postgresql", "mysql"),
    }
    for n, (what, url) in enumerate(urls.items()):
        form = ("text", "json")[n % 2]
        done = cli("-vv", "--log-format", form, "--log-file", "run.log", *command, "--storage", url)
        assert CANARY not in done.stdout + done.stderr, what
        assert "Traceback" not in done.stderr, (what, done.stderr)
        can = what in ("right", "in the query") and command not in COMMANDS[-4:]
        assert done.returncode in ({0} if can else {1, 2}), (what, done.stderr)
    assert "connection attempt: " in (tmp_path / "run.log").read_text()
    assert leaks(tmp_path.iterdir()) == []


def test_a_password_file_is_enough(server: Guarded, tmp_path: Path, cli: Cli) -> None:
    passfile = tmp_path / "pgpass"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    passfile.write_text(f"127.0.0.1:{server.port}:guarded:guarded:{escaped}\n")
    passfile.chmod(0o600)
    url = server.to("guarded", query=f"?passfile={quote(str(passfile))}")
    for command in (("db", "upgrade"), ("studies", "-f", "csv"), ("query", "SELECT 1 AS one", "-f", "json")):
        done = cli("-vv", *command, "--storage", url)
        assert done.returncode == 0, done.stderr
        assert CANARY not in done.stdout + done.stderr
    assert json.loads(done.stdout) == [{"one": 1}]
    refused = cli("studies", "--storage", server.to("guarded"))
    assert refused.returncode == 1 and "password" in refused.stderr


def test_a_query_tells_no_process_list_its_password(server: Guarded) -> None:
    """Its process gets the password through a pipe. Seen to fail with the task as an argument."""
    Store(server.to(), create=True).close()
    with opened_query(server.to(), "SELECT 1 AS one FROM pg_sleep(30)"):
        (reader,) = [child for child in psutil.Process().children() if "query_process.py" in " ".join(child.cmdline())]
        assert CANARY not in " ".join(reader.cmdline())


def test_secrets_in_urls_are_masked() -> None:
    shown = masked(f"postgresql://u:{CANARY}@h/d?password={CANARY}2&sslpassword={CANARY}3&passfile=/home/me/.pgpass")
    assert CANARY not in shown and "passfile=" in shown and unquote(shown).count("***") == 3


def test_files_of_this_program_are_their_owners_only(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may hold expressions and host names; a SQLite file and what the user names get the usual mode."""

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(searched / "run.log") == 0o600
    assert mode(searched / "state") == mode(searched / "state" / "journals") == 0o700
    monkeypatch.setenv("SEARCHER_STATE", str(tmp_path / "state"))
    store = Store(f"sqlite:///{tmp_path}/s.db", create=True)
    study = create(store, "s", 1, "val_loss", {}, {})
    store.close()
    journal = Journal.of(study, Lease(study.id, 1))
    old = os.umask(0o022)
    try:
        journal.append(Batch(added=[Trial(0, Kind.BASELINE, "x", "k", 0)]))
    finally:
        os.umask(old)
    assert mode(journal.path) == 0o600 and mode(journal.path.parent) == 0o700


@pytest.fixture
def own_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A state folder of the test's own, and modules that no other test has imported."""
    monkeypatch.setenv("SEARCHER_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("net", "helper", "words"):
        sys.modules.pop(name, None)


def test_code_that_a_database_names_is_not_run_unasked(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_modules: None
) -> None:
    """Seen to fail without `trust.check`: the file is there."""
    small = ("--pool", "inline", *FAST)
    assert cli("launch", "--study-name", "s", *small, "--n-trials", "1").returncode == 0
    attack = {"model": "os:system", "model_kwargs": {"command": "touch owned"}}
    edited(attack)
    refused = cli("resume", "s", "--n-trials", "2", "--pool", "inline")
    assert refused.returncode == 1 and "model os:system, with {'command': 'touch owned'}" in refused.stderr
    assert not (tmp_path / "owned").exists()
    edited({"model": "resnet8", "model_kwargs": {}, "pool": "ray", "address": "ray://127.0.0.1:9"})
    refused = cli("resume", "s", "--n-trials", "2")
    assert refused.returncode == 1 and "cluster ray://127.0.0.1:9" in refused.stderr, "which can run anything here"
    asked = cli("resume", "s", "--n-trials", "2", "--address", "127.0.0.1:9")
    assert asked.returncode == 1 and "no Ray cluster answers at '127.0.0.1:9'" in asked.stderr
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(activation, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), activation(4), nn.Linear(4, classes))\n"
    )
    own = cli("launch", "--study-name", "t", *small[:4], "--model", "net:make", "--n-trials", "2")
    assert own.returncode == 0, own.stderr
    again = ("resume", "t", "--pool", "inline", "--n-trials")
    assert cli(*again, "3").returncode == 0, "what was launched here is resumed here"
    monkeypatch.setenv("SEARCHER_STATE", str(tmp_path / "elsewhere"))
    assert cli(*again, "4").returncode == 1
    assert cli(*again, "4", "--trust-code").returncode == 0
    assert cli(*again, "5").returncode == 0, "once is enough"
    assert stat.S_IMODE((tmp_path / "elsewhere" / "trusted").stat().st_mode) == 0o600


def edited(changes: dict[str, object], name: str = "s") -> None:
    """Changes the stored settings of a study, as whoever can write to the database may."""
    with closing(sqlite3.connect("searcher.db")) as connection, connection:
        (text,) = connection.execute("SELECT config FROM searcher_study WHERE name = ?", [name]).fetchone()
        changed = json.loads(text) | changes
        connection.execute("UPDATE searcher_study SET config = ? WHERE name = ?", [json.dumps(changed), name])
        task = json.dumps(asdict(task_config_of(loading.load(None, {}, before=changed))))
        connection.execute("UPDATE searcher_task_config SET config = ?", [task])  # both agree, as an attacker sees to


@pytest.mark.parametrize("prefix", ["npz", "optuna", "table"])
@pytest.mark.parametrize("setting", ["model", "dataset", "sampler"])
def test_a_reserved_prefix_is_never_a_module(cli: Cli, tmp_path: Path, prefix: str, setting: str) -> None:
    """Row R1: `"model": "npz:Net"` in the store, and an `npz.py` in the working directory. Covers the other settings
    that can name code, the other reserved prefixes, and names that a person gives."""
    small = ("--pool", "inline", *FAST)
    assert cli("launch", "--study-name", "s", *small, "--n-trials", "1").returncode == 0
    (tmp_path / f"{prefix}.py").write_text("open('owned', 'w').close()\ndef Net(*a, **k): raise SystemExit(3)\n")
    edited({setting: f"{prefix}:Net"})
    refused = cli("resume", "s", "--n-trials", "2", "--pool", "inline")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr, refused.stderr
    assert f"{prefix}:Net" in refused.stderr or "Net" in refused.stderr
    given = cli("launch", "--study-name", "t", *small, "--n-trials", "1", f"--{setting}", f"{prefix}:Net")
    assert given.returncode in (1, 2) and "Traceback" not in given.stderr
    assert not (tmp_path / "owned").exists()


NET = (
    "from torch import nn\nfrom helper import WIDTH\n"
    "def make(activation, classes):\n"
    "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(WIDTH), activation(WIDTH), nn.Linear(WIDTH, classes))\n"
)
DATA = (
    "import numpy as np\n"
    "def make():\n"
    "    return np.random.default_rng(0).random((60, 1, 8, 8), np.float32), np.arange(60) % 2\n"
)


@pytest.mark.parametrize("changed", ["net", "helper", "words"])
def test_trust_is_given_to_the_code_and_not_to_its_name(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_modules: None, changed: str
) -> None:
    """Row R2: a study trusted in one folder is resumed in another that has a different file of the same name. Covers a
    module that the named one imports, a module of primitives, and a file that is edited in its place."""
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
        (folder / "net.py").write_text(NET)
        (folder / "helper.py").write_text("WIDTH = 4\n")
        (folder / "words.py").write_text("from search_space import register\nregister('twice', '2 * x')\n")
    store = f"sqlite:///{tmp_path}/searcher.db"
    own = ("--model", "net:make", "--primitives", "words", "--storage", store)
    launch = ("launch", "--study-name", "s", "--pool", "inline", *FAST[:2], *FAST[4:], *own)
    assert called(home, *launch, "--n-trials", "2").returncode == 0

    def resumed(folder: Path, *flags: str) -> Done:
        sys.path[:] = [place for place in sys.path if place not in (str(home), str(other))]
        return called(folder, "resume", "s", "--pool", "inline", "--storage", store, "--n-trials", *flags)

    assert resumed(other, "3").returncode == 0, "the same code, wherever it lies"
    attack = (other / f"{changed}.py").read_text() + "open('owned', 'w').close()\n"
    (other / f"{changed}.py").write_text(attack)
    refused = resumed(other, "4")
    assert refused.returncode == 1 and "--trust-code" in refused.stderr and f"{other}/" in refused.stderr
    assert not (other / "owned").exists()
    assert resumed(home, "4").returncode == 0
    assert resumed(other, "5", "--trust-code").returncode == 0
    assert resumed(other, "6").returncode == 0


def test_an_exception_for_data_is_for_data_only(cli: Cli, tmp_path: Path, own_modules: None) -> None:
    """Row R1: what was trusted as a data set is not trusted as a network. Covers what is trusted with other options."""
    (tmp_path / "net.py").write_text(DATA)
    launch = ("launch", "--study-name", "s", "--pool", "inline", *FAST[4:], "--dataset", "net:make")
    assert cli(*launch, "--n-trials", "2").returncode == 0
    for attack, named in (
        ({"model": "net:make"}, "model net:make"),
        ({"model": "os:system", "dataset": "net:make"}, "model os:system"),
        ({"model": "resnet8", "primitives": ["net"]}, "primitives net"),
    ):
        edited({"primitives": [], **attack})
        refused = cli("resume", "s", "--n-trials", "3", "--pool", "inline")
        assert refused.returncode == 1 and named in refused.stderr and "dataset net:make" not in refused.stderr


def test_a_stored_address_is_not_dialled_unasked(cli: Cli, own_modules: None) -> None:
    """Row R2: the stored `address`. Covers `auto`, at which any user of the machine may have a Ray, and a pool that is
    given while the address is stored."""
    assert cli("launch", "--study-name", "s", "--pool", "inline", *FAST, "--n-trials", "1").returncode == 0
    for address, flags in (("127.0.0.1:9", ()), ("auto", ()), ("127.0.0.1:9", ("--pool", "ray"))):
        edited({"pool": "inline" if flags else "ray", "address": address})
        refused = cli("resume", "s", "--n-trials", "2", *flags)
        assert refused.returncode == 1 and f"cluster {address}" in refused.stderr, refused.stderr
    edited({"pool": "ray", "address": "127.0.0.1:9"})
    for flags in (("--address", "127.0.0.1:9"), ("--trust-code",), ()):
        tried = cli("resume", "s", "--n-trials", "2", *flags)
        assert tried.returncode == 1 and "no Ray cluster answers at '127.0.0.1:9'" in tried.stderr, "once is enough"


def test_a_person_at_a_terminal_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R2: code that is not trusted is asked about where somebody can answer."""
    from searcher.commands.running import check_trust

    monkeypatch.setenv("SEARCHER_STATE", str(tmp_path / "state"))
    settings = loading.load(None, {"model": "os:system", "pool": "inline"})
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for answer, known in (("n\n", False), ("y\n", True), ("", True)):
        with ExitStack() as stack:
            terminal = io.StringIO(answer)
            terminal.isatty = lambda: True  # type: ignore[method-assign]
            monkeypatch.setattr(sys, "stdin", terminal)
            if not known:
                stack.enter_context(pytest.raises(typer.Exit))
            check_trust("s", "s", settings, [])


def needed(name: str, extras: frozenset[str]) -> Iterator[str]:
    """All distributions that one needs here, by name."""
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [(name, extras)]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        yield canonicalize_name(one[0])
        for text in distribution(one[0]).requires or ():
            requirement = Requirement(text)
            environments = [{"extra": extra} for extra in (*one[1], "")]
            if not requirement.marker or any(map(requirement.marker.evaluate, environments)):
                left.append((requirement.name, frozenset(requirement.extras)))


def unpinned(constraints: str) -> set[str]:
    """Distributions of the environment that the constraints do not pin, or not to what is installed."""
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)$", constraints, re.MULTILINE))
    pins = {canonicalize_name(name): version for name, version in pinned.items()}
    return {name for name, version in installed().items() if pins.get(name) != version}


@cache
def installed() -> dict[str, str]:
    """Return the versions of all distributions that the tests need."""
    everything = set(needed("activation-searcher", frozenset({"dev"}))) - {"activation-searcher"}
    return {name: distribution(name).version.partition("+")[0] for name in everything}  # torch's says +cpu


def test_everything_that_is_installed_is_pinned() -> None:
    """Seen to fail with any one line of constraints.txt left out: see the next test."""
    text = (ROOT / "constraints.txt").read_text()
    assert unpinned(text) == set()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines)


@pytest.mark.parametrize("name", ["psycopg-binary", "grpcio", "prometheus_client", "ruff"])
def test_a_pin_that_is_missing_is_noticed(name: str) -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert f"\n{name}==" in text
    assert unpinned(re.sub(rf"(?m)^{name}==.*\n", "", text)) == {canonicalize_name(name)}
    assert unpinned(re.sub(rf"(?m)^{name}==", f"{name}>=", text)) == {canonicalize_name(name)}
