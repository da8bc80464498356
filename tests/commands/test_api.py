"""The Python API: real searches in this process, and programs that are stopped."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import searcher
from searcher.observe.progress import _shows_bars  # there is no notebook here to look at
from searcher.settings.config import Config
from tests.support import ROOT
from tests.support.commands import Cli

DOCUMENT = ROOT / "docs" / "python.md"
TASK = """
import torch

def train(activation, report, *, width=4):
    network = torch.nn.Sequential(torch.nn.Linear(1, width), activation(width), torch.nn.Linear(width, 1))
    x = torch.linspace(-1, 1, 16)[:, None]
    for step in range(1, 4):
        error = (network(x) - torch.sin(3 * x)).square().mean()
        report(step, val_mse=error.item())
    return {"val_mse": error.item()}

train.metrics = {"val_mse": "minimize"}
"""
SMALL = {"pool": "inline", "sampler": "random", "baselines": "relu,swish", "threads": 1, "quiet": True}
IMAGES = {**SMALL, "limit_train": 100, "width": 4, "epochs": 1}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, which holds the database and a task of a person's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEARCHER_STORAGE", raising=False)
    (tmp_path / "my_task.py").write_text(TASK)
    return tmp_path


def defined(file: str = "my_task.py") -> Callable[..., Any]:
    """Return the function of a program or a notebook, which cannot be imported."""
    found: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(Path(file).read_text(), file, "exec"), found)
    function: Callable[..., Any] = found["train"]
    return function


def run(folder: Path, program: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Results --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_api_and_the_command_line_find_the_same(cli: Cli) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in IMAGES.items() if name != "quiet"]
    assert cli("launch", "--study-name", "typed", "--n-trials", "6", "--seed", "3", *flags, "-q").returncode == 0
    study = searcher.search(study_name="called", n_trials=6, seed=3, **IMAGES)
    typed = searcher.open_store()["typed"]
    assert study.top() == typed.top() and len(study.top()) > 2
    assert {**study.settings, "study_name": "typed"} == typed.settings
    rows = json.loads(cli("top", "called", "-f", "json").stdout)
    assert [
        {"rank": f.rank, "expression": f.expression, "number": f.number, "mirror": f.mirror, **f.metrics}
        for f in study.top()
    ] == [
        {name: row[name] for name in ("rank", "expression", "number", "mirror", "val_loss", "val_acc")} for row in rows
    ]


def test_a_study_is_read_as_records() -> None:
    study = searcher.search(task="my_task.py:train", study_name="s", n_trials=6, **SMALL)
    assert (study.done, study.n_trials, sum(study.counts.values())) == (6, 6, 6)
    assert study.objective == searcher.Metric("val_mse", "minimize") and study.metrics == (study.objective,)
    best = study.best
    assert best == study.top(1)[0] and len(study.top(2)) == 2
    assert best.metrics["val_mse"] == min(trial.value for trial in study.trials() if trial.value is not None)
    assert [trial.number for trial in study.trials()] == list(range(6)) and study.trial(3) == study.trials()[3]
    assert [point.step for point in study.curve(best.number)] == [1, 2, 3]
    with pytest.raises(AttributeError):
        best.rank = 2
    with pytest.raises(searcher.UnknownStudy, match="no trial 6"):
        study.curve(6)
    with pytest.raises(searcher.UsageError, match="limit must be at least 1"):
        study.top(0)


def test_tables_have_the_rows_of_the_command_line(cli: Cli) -> None:
    pytest.importorskip("pandas")
    study = searcher.search(task="my_task.py:train", study_name="s", n_trials=5, **SMALL)
    rows = json.loads(cli("top", "s", "-f", "json").stdout)
    assert study.top_frame().to_dict("records") == rows
    assert list(study.top_frame(1).columns) == list(rows[0])
    trials = study.trials_frame()
    assert list(trials["number"]) == list(range(5)) and trials["val_mse"].min() == study.best.metrics["val_mse"]


def test_without_pandas_a_table_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    study = searcher.search(task="my_task.py:train", study_name="s", n_trials=2, **SMALL)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(searcher.SearcherError, match=r"pip install 'activation-searcher\[pandas\]'"):
        study.top_frame()
    with pytest.raises(searcher.SearcherError, match="needs pandas"):
        study.trials_frame()


def test_a_store_is_a_collection_of_studies() -> None:
    for name in ("b", "a"):
        searcher.search(task="my_task.py:train", study_name=name, n_trials=2, **SMALL)
    with searcher.open_store("sqlite:///searcher.db") as store:
        assert (list(store), len(store), "a" in store, "c" in store) == (["b", "a"], 2, True, False)
        assert [study.name for study in store.studies()] == ["b", "a"]
        assert repr(store["a"]) == "Study('a', 2 trials, minimize val_mse)"
        with pytest.raises(searcher.UnknownStudy, match=r"no study 'c'.*: a, b"):
            store["c"]


def test_a_confirmation_of_a_search_and_of_a_function_object(folder: Path) -> None:
    searcher.search(study_name="s", n_trials=6, **IMAGES)
    run = {"pool": "inline", "threads": 1, "quiet": True}
    found = searcher.confirm("s", top=1, baselines="none", seeds=3, study_name="c", **run)
    assert (found.kind, found.done, found.n_trials) == ("design", 6, 6)
    rows = found.evidence()
    assert [row["seeds"] for row in rows] == [3, 3]
    assert {row["verdict"] for row in rows} >= {"reference"}
    assert any("relu" in text for text in found.conclusions())
    assert [function.n_trials for function in found.top()] == [3, 3]
    with pytest.raises(searcher.UsageError, match="is a search and no confirmation"):
        searcher.open_store()["s"].evidence()
    with pytest.raises(searcher.StudyExists):
        searcher.confirm("s", study_name="c", quiet=True)
    with pytest.raises(searcher.ConfigError, match="seeds must be from 2 to 10000, not 1"):
        searcher.confirm("s", seeds=1)
    with pytest.raises(searcher.ConfigError, match="unknown setting 'sedes'"):
        searcher.confirm("s", sedes=3)
    own = searcher.confirm(task=defined(), expressions=["sin(x)"], seeds=2, **run)
    assert [row["metric"] for row in own.evidence()] == ["val_mse", "val_mse"]


def test_a_store_that_is_not_there_is_not_made(folder: Path) -> None:
    with pytest.raises(searcher.StoreError, match="there is no database"):
        searcher.open_store("sqlite:///other.db")
    assert not (folder / "other.db").exists()


# Going on and stopping ------------------------------------------------------------------------------------------------


def test_an_existing_study_goes_on_only_if_asked() -> None:
    searcher.search(task="my_task.py:train", study_name="s", n_trials=3, **SMALL)
    with pytest.raises(searcher.StudyExists, match=r"give another study_name, or resume=True$"):
        searcher.search(task="my_task.py:train", study_name="s", n_trials=6, **SMALL)
    study = searcher.search(study_name="s", n_trials=6, resume=True, quiet=True)
    assert (study.done, study.n_trials, study.settings["task_kwargs"]) == (6, 6, {})
    with pytest.raises(searcher.ConfigError, match="seed: 0 in the study, 1 asked for"):
        searcher.search(study_name="s", seed=1, resume=True, quiet=True)
    new = searcher.search(task="my_task.py:train", study_name="new", n_trials=2, resume=True, **SMALL)
    assert new.done == 2


def test_progress_is_yielded_and_a_loop_that_is_left_ends_the_search() -> None:
    seen = []
    for progress in searcher.iter_search(task=defined(), study_name="s", n_trials=6, sampler="random"):
        seen += progress.ended
        assert progress.study == "s" and progress.done == len(seen)
        if len(seen) == 2:
            break
    study = searcher.open_store()["s"]
    assert study.done == 2
    rest = list(searcher.iter_search(task=defined(), study_name="s", n_trials=6, resume=True))
    assert study.done == 6 == rest[-1].done and rest[-1].session_done == 4


def test_the_generator_checks_its_settings_at_once() -> None:
    with pytest.raises(searcher.ConfigError, match="n_trials must be from 1"):
        searcher.iter_search(n_trials=0)


@pytest.mark.slow
def test_ctrl_c_keeps_everything(folder: Path) -> None:
    # Below a shell that runs the tests in the background, the program would ignore the signal.
    program = f"""
import signal, sys
import searcher
signal.signal(signal.SIGINT, signal.default_int_handler)
{TASK}
once = train
def train(activation, report):
    print("begun")
    import time
    time.sleep(0.1)
    return once(activation, report)
train.metrics = once.metrics
try:
    searcher.search(task=train, study_name="s", n_trials=500, sampler="random", baselines="none")
finally:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    process = run(folder, program)
    assert process.stdout and process.stderr
    for _ in range(3):
        assert process.stdout.readline() == "begun\n", process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, text
    assert text.splitlines()[-1].startswith("KeyboardInterrupt: study 's' was stopped; nothing is lost. Go on with:")
    study = searcher.open_store()["s"]
    assert 2 <= study.done < 500
    assert not {searcher.TrialState.RUNNING, searcher.TrialState.FAILED} & set(study.counts)


def test_a_search_runs_in_any_thread() -> None:
    found: list[searcher.Study] = []

    def work(name: str) -> None:
        found.append(searcher.search(task="my_task.py:train", study_name=name, n_trials=3, **SMALL))

    threads = [threading.Thread(target=work, args=[name]) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(study.name for study in found) == ["a", "b"] and [study.done for study in found] == [3, 3]


def test_a_bar_is_shown_in_a_notebook_that_can_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, file = Console(stderr=True, force_jupyter=True), Console(stderr=True)
    for widgets in (None, ModuleSpec("ipywidgets", None)):
        monkeypatch.setattr("searcher.observe.progress.find_spec", {"ipywidgets": widgets}.get)
        assert _shows_bars(notebook) == (widgets is not None)
        assert not _shows_bars(file)


# Function objects -----------------------------------------------------------------------------------------------------


def test_a_function_of_a_program_is_trained_and_its_study_refused_elsewhere(cli: Cli) -> None:
    study = searcher.search(task=defined(), task_kwargs={"width": 8}, study_name="s", n_trials=3, quiet=True)
    assert study.settings["task"] == "__main__:train" and study.done == 3
    for command in (("resume", "s"), ("launch", "--task", "__main__:train")):
        refused = cli(*command)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1 and "is a function of a Python program and cannot be" in refused.stderr
    assert searcher.search(task=defined(), study_name="s", n_trials=4, resume=True, quiet=True).done == 4


def test_a_function_that_was_changed_does_not_go_on(folder: Path) -> None:
    (folder / "changed.py").write_text(TASK.replace("3 * x", "4 * x"))
    searcher.search(task=defined(), study_name="s", n_trials=2, quiet=True)
    with pytest.raises(searcher.ConfigError, match=r"digest: \w{16} in the study, \w{16} now"):
        searcher.search(task=defined("changed.py"), study_name="s", n_trials=3, resume=True, quiet=True)


def test_a_function_that_can_be_imported_is_named_like_any_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    (folder / "importable_task.py").write_text(TASK)
    importable_task = importlib.import_module("importable_task")
    study = searcher.search(task=importable_task.train, study_name="s", n_trials=2, quiet=True)
    assert study.settings["task"] == "importable_task:train"
    assert searcher.search(study_name="s", n_trials=3, resume=True, quiet=True).done == 3


def test_two_functions_of_one_name_do_not_run_at_once() -> None:
    running = searcher.iter_search(task=defined(), study_name="one", n_trials=4)
    next(running)
    with pytest.raises(searcher.ConfigError, match="another function named 'train'"):
        searcher.search(task=defined(), study_name="two", n_trials=4, quiet=True)
    running.close()
    assert searcher.search(task=defined(), study_name="two", n_trials=2, quiet=True).done == 2


# Bad settings ---------------------------------------------------------------------------------------------------------

BAD = [
    ({"n_trials": 0}, "^n_trials must be from 1 to 2147483647, not 0$"),
    ({"learning_rate": float("nan")}, "^learning_rate must be a finite number, not nan$"),
    ({"n_trial": 5}, "^unknown setting 'n_trial'; did you mean 'n_trials'?"),
    ({"recipe": {"crops": 1}}, "unknown setting 'crops' in recipe; did you mean 'crop'"),
    ({"recipe_kwargs": 3}, "^recipe_kwargs must be a table, not 3$"),
    ({"resume": True}, "^resume=True needs study_name"),
    ({"task": "my_task.py:train", "task_kwargs": {"wide": 1}}, "has no option 'wide'; did you mean 'width'"),
    ({"task": "my_task.py:train", "direction": "maximize"}, "^direction=maximize contradicts .*; leave direction out$"),
    ({"task": "my_task"}, "unknown task 'my_task'"),
    ({"task": lambda activation: 0.0}, "is not a function with a name"),
    ({"preset": "papers"}, "did you mean 'paper'"),
    ({"experiment": "missing.toml"}, "cannot read the experiment file missing.toml"),
]


@pytest.mark.parametrize(("keywords", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_setting_is_named_as_a_keyword(folder: Path, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(searcher.ConfigError, match=message):
        searcher.search(**{"pool": "inline", **keywords})
    assert not (folder / "searcher.db").exists() or not list(searcher.open_store())


def test_a_function_object_is_not_sent_to_ray(folder: Path) -> None:
    with pytest.raises(searcher.ConfigError, match=r"which only pool=inline can call; .*task=FILE.py:FUNCTION$"):
        searcher.search(task=defined(), pool="ray")
    assert not (folder / "searcher.db").exists()


# Names and documents --------------------------------------------------------------------------------------------------


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions, and the public methods of what they return."""
    for name in ("search", "iter_search", "confirm", "open_store"):
        yield name, getattr(searcher, name)
    for kind in (searcher.StoreView, searcher.Study):
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{kind.__name__}.{name}", method


def test_public_names_are_documented() -> None:
    table = DOCUMENT.read_text().split("## Names")[1]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(first))) == sorted(searcher.__all__)
    for name in searcher.__all__:
        found = getattr(searcher, name)
        assert name == "__version__" or (found.__doc__ or "").strip(), name
    assert set(searcher.__all__) <= set(dir(searcher))
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        searcher.serach  # noqa: B018


@pytest.mark.parametrize(("name", "function"), [*functions()], ids=lambda value: getattr(value, "__name__", value))
def test_docstrings_explain_arguments_and_results(name: str, function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    parameters = list(inspect.signature(function, follow_wrapped=False).parameters)
    assert text, name
    if parameters not in ([], ["self"]):
        assert all(f"\n{section}:\n" in text for section in ("Args", "Returns", "Raises")), name


def test_the_signature_shows_every_setting() -> None:
    shown = inspect.signature(searcher.search).parameters
    assert set(Config().to_dict()) | {"epochs", "recipe_kwargs"} <= set(shown)
    assert (shown["n_trials"].default, shown["epochs"].default) == (100, 8)


def test_an_import_needs_nothing_heavy() -> None:
    code = "import sys, searcher; dir(searcher); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "sqlalchemy", "optuna", "ray", "numpy", "rich"}


@pytest.mark.slow
def test_the_python_of_the_document_runs(folder: Path) -> None:
    pytest.importorskip("pandas")
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    process = run(folder, "\n".join(blocks))
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "study 'waves' exists; go on with it" in out and "followed: 6 of 6" in out
    assert [study.done for study in searcher.open_store().studies()] == [6, 8, 10, 6]
