"""What a person reads: tables in 80 columns, hints, completion, and the end of a search that trained nothing."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from threading import Event

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import cli as program
from search_space import SPACES, TARGETS
from searcher.commands import completion
from searcher.commands.hints import BARE, HABITS, options
from searcher.commands.tables import Long, fitting
from searcher.display import cut, without_colours
from searcher.driver import session
from searcher.observe import logs
from searcher.records import TrialState
from searcher.reports.report import conclusion
from searcher.samplers.optuna import SAMPLERS
from searcher.samplers.registry import BUILT_IN
from searcher.settings.config import Config
from searcher.settings.loading import PRESETS, merged
from searcher.settings.template import experiment
from searcher.store.store import Store
from tests.support.commands import Capture, Cli
from tests.support.searches import SETTINGS, completed, run
from workers.contract import Job, Outcome, Verdict
from workers.pools.base import InlinePool
from workers.tasks.images.models import NETWORKS
from workers.tasks.images.sources import KNOWN

SMALL = ("--epochs", "1", "--limit-train", "100", "--width", "4")
LONG = "beta1 * max(x, tanh(x) + sin(x)) + (1 - beta1) * min(x, cos(x)) * tanh(x)"


class Terminal(Capture):
    """A stream of a terminal."""

    def isatty(self) -> bool:
        return True


def in_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int, *args: str) -> str:
    """Return what a command prints in a terminal of so many columns."""
    monkeypatch.setattr("tests.support.commands.Capture", Terminal)
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.commands.COLUMNS", str(columns))
        done = cli(*args)
    assert done.returncode == 0, done.stderr
    return without_colours(done.stdout)


def all_options() -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of the program with their options."""
    left: list[tuple[str, object]] = [("searcher", get_command(program.app))]
    while left:
        name, command = left.pop()
        if isinstance(command, TyperGroup):
            left += [(f"{name} {child}", one) for child, one in command.commands.items()]
        else:
            context = command.make_context(name, [], resilient_parsing=True)  # type: ignore[attr-defined]
            yield name, options(command, context)  # type: ignore[arg-type]


def test_no_hint_names_an_option_that_does_not_exist() -> None:
    there = {flag for _, flags in all_options() for flag in flags}
    assert set(HABITS) <= there and set(BARE) <= there
    assert not {f"--{word}" for words in HABITS.values() for word in words if len(word) > 1} & {*HABITS} - there


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("launch --lr 0.1", "No such option: --lr; it is --learning-rate"),
        ("launch --n_trials 3", "No such option: --n_trials; it is --n-trials"),
        ("launch --gpus 1", "; it is --gpus-per-worker"),
        ("launch -n 3", "No such option: -n; it is --n-trials"),
        ("launch --db x", "; it is --storage"),
        ("confirm s --bs 3", "; it is --batch-size"),
        ("top s --n 3", "; it is --limit"),
        ("top --name s", "; the name of the study is typed without an option"),
        ("data check digits --lr 1", "; launch, confirm have --learning-rate"),
        ("launch --bathc-size 3", "; did you mean --batch-size?"),
        ("studies --nosuchthing", "No such option: --nosuchthing\n"),
    ],
)
def test_habits_get_the_right_hint(cli: Cli, typed: str, hint: str) -> None:
    done = cli(*typed.split())
    assert done.returncode == 2 and hint in done.stderr


def test_completion_offers_the_names_there_are() -> None:
    offered = (completion.MODELS, completion.DATASETS, completion.TARGETS, completion.SPACES, completion.PRESETS)
    assert [*map(set, offered)] == [*map(set, (NETWORKS, KNOWN, TARGETS, SPACES, PRESETS))]
    assert set(completion.SAMPLERS) == {*BUILT_IN, *(f"optuna:{name}" for name in SAMPLERS)}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/there.db"
    store = Store(url, create=True)
    session.create_study(store, SETTINGS.replace(study_name="small"))
    store.close()

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_SEARCHER_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        out = Capture()
        with redirect_stdout(out), pytest.raises(SystemExit):
            program.app(prog_name="searcher")  # as the console script is called
        return out.text().replace('"', " ").split()

    assert "small" in complete(f"searcher top --storage {url} sm")
    monkeypatch.setenv("SEARCHER_STORAGE", url)
    assert "small" in complete("searcher status ")
    assert "resnet20" in complete("searcher launch --model resnet2")
    assert "halving" in complete("searcher launch --pruner ")
    assert "jax" in complete("searcher code relu --to j")
    for url in ("sqlite:///nothing.db", "postgresql://nobody@127.0.0.1:1/none", "nonsense"):
        monkeypatch.setenv("SEARCHER_STORAGE", url)
        assert "small" not in complete("searcher top ")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == ["there.db"]


def test_long_expressions_are_cut_in_the_middle() -> None:
    assert cut("abc", 3) == "abc"
    assert cut(LONG, 21) == "beta1 * ma… * tanh(x)" and len(cut(LONG, 21)) == 21
    row = {"rank": 1, "function": Long(LONG, after="  (mirror of relu)"), "val_loss": "0.1234", "spared": "x" * 30}
    names = [str(column.header) for column in fitting([row], 60, ["spared"]).columns]
    assert names == ["rank", "function", "val_loss"]
    assert [str(column.header) for column in fitting([row], 200, ["spared"]).columns][-1] == "spared"


def test_tables_fit_80_columns(store: Store, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    url = ("--storage", store.url.render_as_string(hide_password=False))
    many = SETTINGS.replace(study_name="s", units=2, n_trials=30, baselines=("relu", "gelu"), replicates=0.2)
    completed(store, many)
    completed(store, SETTINGS.replace(study_name="other", n_trials=10))
    for command in ("top s", "top --all-studies", "studies", "status s", "space list", "space sample --units 2"):
        where = () if command.startswith("space") else url
        text = in_terminal(cli, monkeypatch, 80, *command.split(), *where)
        assert max(map(len, text.splitlines())) <= 80 or command == "space list", text
    rows = json.loads(cli("top", "s", "-f", "json", *url).stdout)
    longest = max((row["expression"] for row in rows), key=len)
    assert len(longest) > 60
    assert longest in in_terminal(cli, monkeypatch, 80, "top", "s", "--wide", *url)
    narrow = in_terminal(cli, monkeypatch, 80, "top", "s", *url)
    assert longest not in narrow and "…" in narrow and " relu " in narrow and "max(x, 0) " not in narrow
    across = json.loads(cli("top", "--all-studies", "--limit", "4", "-f", "json", *url).stdout)
    assert [row["rank"] for row in across] == [1, 2, 3, 4] and {row["study"] for row in across} <= {"s", "other"}
    assert cli("top", *url).returncode == cli("top", "s", "--all-studies", *url).returncode == 2


def test_a_search_that_trained_nothing_says_why(store: Store) -> None:
    def fail(job: Job) -> Outcome:
        if job.number % 3:
            return Outcome(Verdict.INFEASIBLE, f"training loss is not finite at epoch {job.number % 3}")
        return Outcome(Verdict.FAILED, "no disk\nTraceback")

    settings = SETTINGS.replace(study_name="s", n_trials=12, max_retries=0, preflight=False)
    _, trials = completed(store, settings, pool=InlinePool(run=fail))
    assert not any(trial.state is TrialState.COMPLETE for trial in trials)
    text = conclusion(store, store.study("s"), [])
    assert "4 FAILED: no disk (searcher trial s" in text and "Traceback" not in text
    assert "INFEASIBLE: training loss is not finite at epoch 1 (searcher trial s" in text
    assert "searcher retry s" in text and "--learning-rate 0.01" in text


def test_a_finished_study_is_not_started_again(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("sqlite:///searcher.db", create=True)
    settings = SETTINGS.replace(study_name="s", n_trials=8, pool="ray")
    study = session.create_study(store, settings)
    run(store, study, settings)
    monkeypatch.setattr(session, "make_pool", lambda *_: pytest.fail("a pool was made"))
    done = cli("resume", "s")
    assert done.returncode == 0, done.stderr
    assert (
        "study 's' is finished: all 8 trials have ended, so nothing was started. To go on, give a greater --n-trials"
        in done.stderr
    )
    assert "searcher resume s --n-trials 16" in done.stdout
    store.close()


def test_waits_are_told_of_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(logs, "WAIT_SECONDS", 0.01)
    told = Event()
    monkeypatch.setattr(logs.log, "info", lambda *args: told.set())
    with logs.waiting("starting Ray"):
        assert told.wait(10)
    monkeypatch.setattr(logs.log, "info", lambda *args: pytest.fail("it was quick, or nobody waits"))
    monkeypatch.setattr(sys, "stderr", StringIO())
    with logs.waiting("starting Ray"):
        time.sleep(0.1)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(logs, "WAIT_SECONDS", 60)
    with logs.waiting("starting Ray"):
        pass


@pytest.mark.parametrize("task", ["images", "my_task.py:train"])
def test_the_file_of_init_launches_as_it_is(cli: Cli, task: str) -> None:
    done = cli("init", "first.toml", "--task", task)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert not line.startswith("Next") or "searcher" in line
    again = cli("init", "first.toml", "--task", task)
    assert again.returncode == 1 and "first.toml exists; --force replaces it" in again.stderr
    assert cli("init", "first.toml", "--task", task, "--force").returncode == 0
    quick = ("--n-trials", "2", "--pool", "inline", "-q", *(SMALL if task == "images" else ()))
    launched = cli("launch", "first.toml", *quick)
    assert launched.returncode == 0, launched.stderr
    assert cli("init", "x.txt").returncode == cli("init", "x.toml", "--task", "nothing").returncode == 2
    assert cli("init", "x.toml", "--task", "other.py:fit").returncode == 2 and not Path("x.toml").exists()


def test_every_commented_line_of_init_can_be_used() -> None:
    """A line without its # is valid where it has a value, and means the default."""
    text = experiment("images", "x.toml")
    used = [line.removeprefix("# ") for line in text.splitlines() if " = " in line and not line.endswith(" =")]
    top = "\n".join(line for line in used if line.partition(" ")[0] in Config().to_dict())
    assert merged(Config(), tomllib.loads(top)) == Config() and len(top.splitlines()) > 30
    assert merged(Config(), tomllib.loads(text)) == Config()
