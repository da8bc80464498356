"""The command line as a user types it: real processes, real children on digits, a real database file."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, redirect_stdout
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml

from searcher import SearcherError
from searcher.commands import tables
from searcher.commands.console import Format, print_rows
from searcher.records import Trial, TrialState
from searcher.store.store import Store
from tests.support import ROOT
from tests.support.commands import Cli, called

pytestmark = pytest.mark.slow

RESUME = ("resume", "s", "--n-trials", "6", "--pool", "inline")

QUICK = ("--pool", "inline", "--epochs", "1", "--sampler", "random", "--threads", "1", "-q")
SMALL = ("--threads", "1", "--limit-train", "300", "-q")
STATES = {state.value for state in TrialState}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one finished study, `s`."""
    directory = tmp_path_factory.mktemp("searched")
    command = [sys.executable, "-m", "cli", "launch", "--study-name", "s", "--n-trials", "14", *QUICK]
    done = subprocess.run(command, cwd=directory, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (directory / "launch.txt").write_text(done.stdout)
    return directory


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160"}


def call(directory: Path, *args: str) -> str:
    done = called(directory, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [[], ["launch"]], ids=str)
def test_help_needs_nothing_heavy(command: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "cli", *command, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "typer" in imported
    assert not imported & {"torch", "ray", "optuna", "sqlalchemy", "numpy", "pandas", "sklearn", "alembic"}


@pytest.mark.parametrize(
    "command", ["launch", "resume", "studies", "top", "trial", "query", "export", "plot", "doctor"]
)
def test_every_command_says_what_it_does(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        if line.strip().startswith("--") and "--help" not in line:
            assert len(line.split()) > 2, f"an option of {command} without help: {line}"


def test_the_table_at_the_end_is_what_the_store_holds(searched: Path) -> None:
    text = (searched / "launch.txt").read_text()
    for row in json.loads(call(searched, "top", "s", "-f", "json")):
        if row["rank"] <= 15 or row["kind"] == "baseline":
            (line,) = [line for line in text.splitlines() if line.split()[:1] == [str(row["rank"])]]
            assert f"{row['val_loss']:.4f}" in line
            assert f"{row['val_acc']:.4f}" in line
            assert (row["name"] or row["expression"]) in line
    assert "1 seed each: weak evidence" in text
    assert "searcher resume s --n-trials 28" in text


def test_top_is_ranked_finite_and_complete(searched: Path) -> None:
    rows = json.loads(call(searched, "top", "s", "-f", "json"))
    for row in rows:
        assert {"rank", "expression", "key", "kind", "n_trials", "val_acc", "val_loss", "state"} <= set(row)
        assert 0 <= row["val_acc"] <= 1
        assert 0 < row["val_loss"] < 1e300
        assert row["state"] == "COMPLETE"
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["val_loss"] for row in rows] == sorted(row["val_loss"] for row in rows)
    assert sum(row["kind"] == "baseline" for row in rows) == 7
    assert json.loads(call(searched, "top", "s", "-f", "json", "--limit", "2")) == rows[:2]


def test_all_formats_hold_the_same_rows(searched: Path) -> None:
    rows = json.loads(call(searched, "top", "s", "-f", "json"))
    assert yaml.safe_load(call(searched, "top", "s", "-f", "yaml")) == rows
    assert yaml.safe_load(call(searched, "top", "s", "-f", "yaml", "--limit", "3")) == rows[:3]
    from_csv = list(csv.DictReader(call(searched, "top", "s", "-f", "csv").splitlines()))
    assert [row["key"] for row in from_csv] == [row["key"] for row in rows]
    assert [float(row["val_loss"]) for row in from_csv] == [row["val_loss"] for row in rows]
    markdown = call(searched, "top", "s", "-f", "markdown").splitlines()
    assert len(markdown) == len(rows) + 2
    assert markdown[1] == "| " + " | ".join(["---"] * len(rows[0])) + " |"


def test_exports_hold_every_trial(searched: Path) -> None:
    for name in ("all.csv", "all.json", "all.parquet"):
        assert call(searched, "export", "s", name) == f"14 trials written to {name}\n"
        refused = called(searched, "export", "s", name)
        assert refused.returncode == 1 and f"{name} exists; --force replaces it" in refused.stderr
        assert call(searched, "export", "s", name, "--force")
    from_json = json.loads((searched / "all.json").read_text())
    assert [row["number"] for row in from_json] == list(range(14))
    assert {row["state"] for row in from_json} <= STATES
    assert pyarrow.parquet.read_table(searched / "all.parquet").to_pylist() == from_json
    with (searched / "all.csv").open() as file:
        assert [row["expression"] for row in csv.DictReader(file)] == [row["expression"] for row in from_json]


def test_a_trial_shows_its_settings_state_and_curve(searched: Path) -> None:
    text = call(searched, "trial", "s", "0")
    for fact in ("max(x, 0)", "relu", "COMPLETE", "digits", "resnet8", "recipe.learning_rate", "train_loss"):
        assert fact in text
    (card,) = json.loads(call(searched, "trial", "s", "0", "-f", "json"))
    assert card["recipe.epochs"] == len(card["curve"]) == 1
    assert card["curve"][-1]["val_loss"] == card["val_loss"]
    unhappy = json.loads(call(searched, "query", "SELECT * FROM searcher_trial", "-f", "json"))
    infeasible = [row for row in unhappy if row["state"] == "INFEASIBLE"]
    assert infeasible, "the seed was chosen so that one function cannot be trained"
    for row in infeasible:
        assert row["reason"] in call(searched, "trial", "s", str(row["number"]), "-f", "yaml").replace("\n  ", " ")


def test_studies_and_queries(searched: Path) -> None:
    (study,) = json.loads(call(searched, "studies", "-f", "json"))
    assert (study["study"], study["done"], study["total"], study["driver"]) == ("s", 14, 14, "")
    sql = "SELECT state, COUNT(*) AS n FROM searcher_trial GROUP BY state ORDER BY state"
    counted = json.loads(call(searched, "query", sql, "-f", "json"))
    assert sum(row["n"] for row in counted) == 14


def test_primitives_of_a_user_reach_the_workers_and_the_next_session(tmp_path: Path) -> None:
    """A module in the current directory, which neither the console script nor a Ray worker finds by itself."""
    (tmp_path / "my_words.py").write_text(
        "from search_space import register\n"
        "register('bump', 'x * exp(-x^2)')\n"
        "register('wave', lambda a: a + a.sin() / 2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    small = (
        "--unary",
        "wave,bump",
        "--binary",
        "add",
        "--baselines",
        "wave(x)",
        "--epochs",
        "1",
        "--workers",
        "1",
        *SMALL,
    )

    def searcher(*arguments: str) -> subprocess.CompletedProcess[str]:
        # Not -m cli, which would put the current directory on the path.
        command = [sys.executable, "-P", "-c", "from cli import main; main()", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    for command in (("launch", "--study-name", "s", "--primitives", "my_words", "--n-trials", "4", *small), RESUME):
        done = searcher(*command)
        assert done.returncode == 0, done.stderr
    store = Store(f"sqlite:///{tmp_path}/searcher.db")
    trials = store.trials(store.study("s"))
    assert len(trials) == 6 and {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert {"wave(x)", "wave(x) + wave(x)"} <= {trial.expression for trial in trials}


OTHER = "sqlite:///other.db"


def test_what_a_small_study_has_no_room_for_is_said(cli: Cli) -> None:
    small = ("--pool", "inline", "--epochs", "1", "--threads", "1", "--n-trials", "5", "--storage", OTHER)
    small += ("--batch-size", "1001")
    space = ("--unary", "x", "--binary", "add,max", "--sampler", "optuna:bruteforce", "--baselines", "relu,gelu,elu")
    done = cli("launch", "--study-name", "a b", *small, *space)
    assert done.returncode == 0, done.stderr
    assert "there are 1000 training images, --batch-size is 1001: an epoch is one step" in done.stderr
    assert "half of 5 trials are for baselines; left out: elu" in done.stderr
    assert "there is nothing more to propose: 4 of 5 trials are decided" in done.stderr
    assert "4 of 5 trials: " in done.stdout
    assert f"searcher resume 'a b' --storage {OTHER}\n" in done.stdout, "as it can be typed"
    lines = [line for line in done.stderr.splitlines() if "proposed" in line]
    assert len(lines) == len(set(lines)), "the last is not said twice"
    again = cli("launch", "--study-name", "a b", *small)
    assert again.returncode == 1 and "searcher resume 'a b'" in again.stderr
    shown = cli("status", "a b", "--storage", OTHER).stdout.split()
    assert shown[-7:] == ["next", "searcher", "resume", "'a", "b'", "--storage", OTHER]


def test_names_and_dates_are_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PLAIN_WIDTH", 70)
    row = {"study": "digits-optuna-tpe-multivariate-12", "dataset": "d" * 50, "created": "2026-11-25 10:00"}
    with redirect_stdout(io.StringIO()) as printed:
        print_rows([row], Format.table)
    assert row["study"] in printed.getvalue() and row["created"] in printed.getvalue()


def test_the_same_seed_inline_gives_the_same_table(cli: Cli) -> None:
    for name in ("a", "b"):
        done = cli("launch", "--study-name", name, "--n-trials", "8", "--sampler", "rnn", *QUICK[:4], *SMALL)
        assert done.returncode == 0, done.stderr
    one, other = (json.loads(cli("top", name, "-f", "json").stdout) for name in ("a", "b"))
    assert one == other
    assert len(one) > 4


def test_an_experiment_file_is_read_and_flags_override_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(
        'study_name = "f"\nn_trials = 50\nsampler = "random"\npool = "inline"\nobjective = "val_acc"\n'
        'unary = ["x", "sin", "tanh"]\nbinary = ["add"]\nbaselines = ["relu"]\n[recipe]\nepochs = 2\nbatch_size = 100\n'
    )
    done = cli("launch", "e.toml", "--n-trials", "3", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(
        cli(
            "query",
            "SELECT study.config, n_trials, objective FROM searcher_study AS study "
            "JOIN searcher_task_config AS task ON task.study_id = study.id",
            "-f",
            "json",
        ).stdout
    )
    config = json.loads(row["config"])
    assert (row["n_trials"], row["objective"]) == (3, "val_acc")
    assert config["recipe"]["epochs"] == 1
    assert config["recipe"]["batch_size"] == 100
    assert config["unary"] == ["x", "sin", "tanh"]


BAD_LAUNCHES = [
    (("--dataset", "digit"), 2, "did you mean 'digits'"),
    (("--model", "resnet9"), 2, "did you mean 'resnet8'"),
    (("--sampler", "optuna:tpee"), 2, "did you mean 'tpe'"),
    (("--sampler", "optuna:cmaes"), 2, "every decision of a grammar is categorical"),
    (("--unary", "x,sinn"), 2, "did you mean 'sin'"),
    (("--binary", "ad"), 2, "did you mean 'add'"),
    (("--baselines", "rleu"), 2, "did you mean 'relu'"),
    (("--baselines", "relu,x * tanh(x"), 2, "expected ')', not the end\n  x * tanh(x\n            ^ position 10"),
    (("--objective", "val_los"), 2, "did you mean 'val_loss'"),
    (("--pool", "inlin"), 2, "did you mean 'inline'"),
    (("--preset", "papers"), 2, "did you mean 'paper'"),
    (("--units", "4"), 2, "has 1, 2, 3 units, not 4"),
    (("--primitives", "no.such"), 2, "no module 'no.such'"),
    (("--space", "swish2018"), 2, "did you mean 'swish2017'"),
    (("--space", "small1", "--unary", "exp"), 2, "unknown unary primitive 'exp'"),
    (("--baselines", ""), 2, "--baselines must name functions, or be all or none"),
    (("--learning-rate", "inf"), 2, "--learning-rate must be a finite number, not inf"),
    (("--learning-rate", "0"), 2, "--learning-rate must be at least 1e-12, not 0"),
    (("--n-trials", "0"), 2, "--n-trials must be from 1 to 2147483647, not 0"),
    (("--gpus-per-worker", "1.5"), 2, "--gpus-per-worker must be a part of one GPU, or whole GPUs, not 1.5"),
    (("--workers", "-1"), 2, "--workers must be at least 0, not -1"),
    (("--epochs", "0"), 2, "--epochs must be at least 1, not 0"),
    (("--learning-rate", "nan"), 2, "--learning-rate must be"),
    (("--sampler-kwargs", "{"), 2, "not JSON"),
    (("--recipe", "he2015"), 2, "did you mean 'he2016'"),
    (("--recipe-kwargs", "[1]"), 2, "--recipe-kwargs must be a JSON object"),
    (("--recipe-kwargs", '{"crops": 1}'), 2, "did you mean 'crop'"),
    (("--recipe-kwargs", '{"crop": -1}'), 2, "recipe.crop must be at least 0, not -1"),
    (("--recipe-kwargs", '{"drops": ["x"]}'), 2, "recipe.drops must be a number, not 'x'"),
    (("--recipe-kwargs", '{"schedule": "cosin"}'), 2, "did you mean 'cosine'"),
    (("--sampler-kwargs", '{"bacth": 1}'), 2, "did you mean 'batch'"),
    (("--sampler-kwargs", '{"epochs": 2.5}'), 2, "does not accept epochs 2.5; it is 4 if not given"),
    (("--sampler-kwargs", '{"batch": NaN}'), 2, "--sampler-kwargs is not JSON (NaN is no number)"),
    (("--recipe-kwargs", '{"drops": [1e999]}'), 2, "recipe.drops must hold finite numbers, not [inf]"),
    (("--n-trials", "99999999999"), 2, "--n-trials must be from 1 to 2147483647, not 99999999999"),
    (("--study-name", "caf\udce9"), 2, "--study-name must be at most 200 characters of UTF-8"),
    (("--study-name=-x",), 2, "without blanks around them or a - before them, not '-x'"),
    (("--metrics-port", "0", "--metrics-host", "a..b"), 1, "served at a..b:0 (not a name of a machine)"),
    (("--storage", "postgresql://u:canary@a..b/d"), 2, "u:***@a..b/d is not accepted"),
    (("--storage", "postgresql://u:canary@h/d?port=abc"), 2, "port=abc is not accepted"),
    (("--storage", "sqlite:///d?timeout=abc"), 2, "timeout=abc is not accepted"),
    (("missing.toml",), 2, "cannot read the experiment file missing.toml"),
    (("--storage", "mysql://u:canary@h/d"), 2, "use sqlite:///"),
    (("--storage", "sqlite:////no/such/place.db"), 1, "there is no directory /no/such"),
    (("--storage", "postgresql://u:canary@127.0.0.1:1/d"), 1, "PostgreSQL does not answer"),
    (("--address", "127.0.0.1:1"), 1, "no Ray cluster answers"),
    (("--gpus-per-worker", "1"), 1, "this Ray cluster has 0"),
]


@pytest.mark.parametrize(("args", "status", "message"), BAD_LAUNCHES, ids=lambda value: str(value)[:40])
def test_bad_input_gets_one_message_and_writes_nothing(
    cli: Cli, tmp_path: Path, args: tuple[str, ...], status: int, message: str
) -> None:
    done = cli("launch", *args)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("searcher:")]) == 1
    assert "canary" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('dataste = "digits"', "unknown setting 'dataste' in e.toml; did you mean 'dataset'"),
        ("[recipe]\nepoch = 3", "unknown setting 'epoch' in recipe in e.toml; did you mean 'epochs'"),
        ('n_trials = "3"', "n_trials in e.toml must be a whole number, not '3'"),
        ("n_trials = true", "must be a whole number, not True"),
        ("unary = [1]", "must be a list of names"),
        ("preflight = 1", "must be true or false, not 1"),
        ("x = [", "is not TOML"),
        ('[recipe]\nname = ["x"]', "unknown recipe ['x']"),
        ("[model_kwargs]\nx = [nan]", "model_kwargs in e.toml must hold finite numbers"),
    ],
)
def test_bad_experiment_files(cli: Cli, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "e.toml").write_text(text)
    done = cli("launch", "e.toml")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["e.toml"]


def test_existing_and_missing_studies(searched: Path, tmp_path: Path, cli: Cli) -> None:
    storage = f"sqlite:///{searched}/searcher.db"
    again = cli("launch", "--study-name", "s", "--storage", storage, *QUICK)
    assert again.returncode == 1
    assert "searcher resume s" in again.stderr
    assert "--skip-if-exists" in again.stderr
    skipped = cli("launch", "--study-name", "s", "--storage", storage, "--skip-if-exists", "--n-trials", "14", *QUICK)
    assert skipped.returncode == 0, skipped.stderr
    asked = ("--preset", "paper", "--dataset", "digits", "--sampler-kwargs", "{}", *QUICK)
    paper = cli("launch", "--study-name", "s", "--storage", storage, "--skip-if-exists", *asked)
    assert paper.returncode == 2 and "model: resnet8 in the study, resnet20 asked for" in paper.stderr
    for command in (("top", "t"), ("resume", "t"), ("trial", "t", "0"), ("export", "t", "a.csv")):
        done = cli(*command, "--storage", storage)
        assert done.returncode == 1
        assert "no study 't'" in done.stderr
    assert cli("trial", "s", "99", "--storage", storage).returncode == 1
    assert cli("export", "s", "a.xls", "--storage", storage).returncode == 2
    shrunk = cli("resume", "s", "--n-trials", "3", "--storage", storage)
    assert shrunk.returncode == 2
    assert "14 trials already" in shrunk.stderr and "drives" not in shrunk.stderr, "it has not been taken over"
    assert list(tmp_path.iterdir()) == []


def test_names_and_numbers_that_no_database_holds(searched: Path, cli: Cli) -> None:
    storage = f"sqlite:///{searched}/searcher.db"
    odd = cli("status", "caf\udce9", "--storage", storage)
    assert odd.returncode == 1 and r"'caf\udce9' is not UTF-8" in odd.stderr and "Traceback" not in odd.stderr
    for words in (("trial", "s", "9" * 20), ("query", "SELECT 1", "--limit", "9" * 20)):
        assert cli(*words, "--storage", storage).returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", ["top s -f csv", "query 'SELECT * FROM searcher_trial' -f json"])
def test_output_that_cannot_be_written(searched: Path, words: str) -> None:
    command = f"{sys.executable} -m cli {words} > /dev/full"
    done = subprocess.run(command, shell=True, cwd=searched, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "searcher: cannot write the output: No space left on device\n")


def test_streams_that_are_closed_or_full_do_not_end_a_search(searched: Path) -> None:
    """Seen to fail: it died with the first line that it could not say."""
    resume = f"{sys.executable} -m cli --log-file /dev/full resume s --n-trials 14 --pool inline"
    done = subprocess.run(resume, shell=True, cwd=searched, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("the log /dev/full ends here: No space left on device") == 1
    closed = subprocess.run(
        f"{resume.replace('/dev/full', '/dev/null')} 2>&-", shell=True, cwd=searched, env=environment()
    )
    assert closed.returncode == 0


ALL_CLOSED = "<&- >&- 2>&-"


@pytest.mark.parametrize(
    ("words", "status", "closed"),
    [
        ("studies", 0, ">&-"),
        ("studies", 0, "2>&-"),
        ("studies", 0, "<&-"),
        ("top s", 0, ALL_CLOSED),
        ("top s -f json", 0, ">&-"),
        ("trial s 1", 0, ">&-"),
        ("status s", 0, ">&-"),
        ("export s out.csv", 0, ">&-"),
        ("query 'SELECT 1'", 0, "<&- >&-"),
        ("db check", 0, ">&-"),
        ("db copy sqlite:///searcher.db sqlite:///copy.db", 0, ALL_CLOSED),
        ("resume s --n-trials 15 --pool inline", 0, ">&-"),
        ("resume s --n-trials 15 --pool inline", 0, ALL_CLOSED),
        ("--log-format json resume s --n-trials 15 --pool inline", 0, "2>&-"),
        ("show relu", 0, ">&-"),
        ("--help", 0, ">&-"),
        ("top nobody", 1, "2>&-"),
        ("query 'DELETE FROM searcher_trial'", 2, ALL_CLOSED),
        ("no-such-command", 2, ALL_CLOSED),
    ],
)
def test_closed_streams_are_as_the_null_device(
    searched: Path, tmp_path: Path, words: str, status: int, closed: str
) -> None:
    """Row E5: for every command; its exit status is the same, and its files are whole."""
    shutil.copy(searched / "searcher.db", tmp_path)
    command = f"{sys.executable} -m cli {words} {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == status and "Traceback" not in done.stderr, done
    for file in tmp_path.glob("*.db"):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_output_that_a_terminal_cannot_encode_is_escaped(searched: Path) -> None:
    """Row E5: a stream of another encoding does not end a command after its work."""
    sql = "SELECT 'слой' AS text"
    for output in ("table", "csv", "markdown", "yaml"):
        done = subprocess.run(
            [sys.executable, "-m", "cli", "query", sql, "-f", output],
            cwd=searched,
            env=environment() | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
        )
        assert done.returncode == 0 and rb"\u0441\u043b\u043e\u0439" in done.stdout, done


@pytest.mark.parametrize("command", [("top", "s"), ("resume", "s"), ("studies",), ("query", "SELECT 1")])
def test_no_database(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = cli(*command)
    assert done.returncode == 1
    assert "there is no database" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor(cli: Cli, tmp_path: Path) -> None:
    done = cli("doctor")
    assert done.returncode == 0, done.stdout
    for what in ("torch", "ray", "devices", "digits (1,797 images)", "cifar100 (", "sqlite:///searcher.db"):
        assert what in done.stdout
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bad.db").write_text("x" * 2000)
    sick = cli("doctor", "--storage", "sqlite:///bad.db")
    assert sick.returncode == 1
    assert "NO  storage" in sick.stdout


def test_upgrade_makes_the_tables(cli: Cli, tmp_path: Path) -> None:
    assert "is at schema" in cli("db", "upgrade").stdout
    assert (tmp_path / "searcher.db").exists()
    assert json.loads(cli("studies", "-f", "json").stdout) == []


# Stopping, killing, going on -------------------------------------------------------------------------------------


def start(directory: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cli", "launch", "--study-name", "k", "--seed", "3", *args]
    return subprocess.Popen(
        command, cwd=directory, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(directory: Path, finished: int, process: subprocess.Popen[str]) -> None:
    """Until that many trials have ended."""
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        if (directory / "searcher.db").exists():
            try:
                trials = read(directory)
            except SearcherError:  # its tables, or the study, are being made
                trials = []
            if sum(trial.state.finished for trial in trials) >= finished:
                return
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"the search did not get so far: {process.communicate()}")


def read(directory: Path) -> list[Trial]:
    store = Store(f"sqlite:///{directory}/searcher.db")
    try:
        return store.trials(store.study("k"))
    finally:
        store.close()


def assert_exact(directory: Path, total: int) -> None:
    trials = read(directory)
    assert [trial.number for trial in trials] == list(range(total))
    assert all(trial.state.finished for trial in trials)
    assert sorted(trial.finish_order for trial in trials) == list(range(total))


def test_a_killed_driver_is_resumed_to_the_exact_total(tmp_path: Path, cli: Cli) -> None:
    process = start(tmp_path, *QUICK, "--n-trials", "40", "--epochs", "2")
    wait_for(tmp_path, 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    before = [trial for trial in read(tmp_path) if trial.state.finished]
    assert len(before) < 40
    done = cli("resume", "k", "-q")
    assert done.returncode == 0, done.stderr
    assert_exact(tmp_path, 40)
    assert [trial for trial in read(tmp_path) if trial.number in {t.number for t in before}] == before
    extended = cli("resume", "k", "--n-trials", "42", "-q")
    assert extended.returncode == 0, extended.stderr
    assert_exact(tmp_path, 42)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_driver_says_how_to_go_on(tmp_path: Path, cli: Cli, number: signal.Signals) -> None:
    process = start(tmp_path, *QUICK, "--n-trials", "400")
    wait_for(tmp_path, 2, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "searcher resume k" in errors
    assert "Traceback" not in errors
    assert {trial.state for trial in read(tmp_path)} & {TrialState.RUNNING} == set()
    assert cli("resume", "k", "--n-trials", str(len(read(tmp_path)) + 1), "-q").returncode == 0


def test_a_second_driver_is_refused_and_told_who_drives(tmp_path: Path, cli: Cli) -> None:
    process = start(tmp_path, *QUICK, "--n-trials", "200")
    try:
        wait_for(tmp_path, 1, process)
        second = cli("resume", "k", "-q")
        assert second.returncode == 1
        assert f"process {process.pid} on " in second.stderr
        (study,) = json.loads(cli("studies", "-f", "json").stdout)
        assert f"process {process.pid} on " in study["driver"]
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_with_ray_workers_and_the_driver_may_be_killed(tmp_path: Path) -> None:
    """A worker is killed in the middle of a trial, later the driver; the study still ends with its exact total. Ray's
    own words about the worker do not get among the results. Seen to fail without `logs.Printed`."""
    arguments = ("--sampler", "random", "--workers", "2", "--n-trials", "40", "--epochs", "2", "--limit-train", "300")
    process = start(tmp_path, *arguments)
    wait_for(tmp_path, 2, process)
    workers = {int(trial.worker.rsplit(":", 1)[1]) for trial in read(tmp_path) if trial.worker}
    os.kill(workers.pop(), signal.SIGKILL)
    wait_for(tmp_path, 7, process)
    process.send_signal(signal.SIGKILL)
    assert process.communicate(timeout=120)[0] == ""
    resume = [
        sys.executable,
        "-m",
        "cli",
        "resume",
        "k",
    ]  # a process of its own: workers find the package by PYTHONPATH
    resumed = subprocess.run(resume, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert_exact(tmp_path, 40)
    trials = read(tmp_path)
    assert not [trial for trial in trials if trial.state is TrialState.FAILED]
    assert sum(trial.retries for trial in trials) == 1


def test_help_is_printed_in_a_directory_that_has_been_removed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    here = f"os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})"
    command = f"import os, runpy; {here}; runpy.run_module('cli', run_name='__main__')"
    program = [sys.executable, "-c", f"import sys; sys.path[0] = {str(ROOT)!r}; sys.argv[1:] = ['--help']; {command}"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "launch" in done.stdout, done.stderr
