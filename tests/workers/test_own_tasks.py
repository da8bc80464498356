"""Tasks of a person's own: the contract, what breaks it, and how the command line reports it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from searcher.driver import session
from searcher.driver.failures import Failures
from searcher.records import Kind, Trial
from searcher.settings.config import Config
from tests.support import ROOT
from tests.support.commands import Cli, Done
from workers.contract import Cutoff, Declaration, Direction, Job, Limit, Metric, Outcome, TaskConfig, Verdict
from workers.contract import WorkersError as Refused
from workers.failure import failure
from workers.pools.base import InlinePool, guarded
from workers.tasks import own
from workers.tasks.base import run
from workers.validation import validated

MSE = Metric("val_mse", Direction.MINIMIZE)
NUMBERS = count()
HEAD = """\
import random
import numpy as np
import torch
from torch import nn

def fit(activation, report, steps=6, width=4):
    x = torch.linspace(-1, 1, 16)[:, None]
    net = nn.Sequential(nn.Linear(1, width), activation(width), nn.Linear(width, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for step in range(1, steps + 1):
        loss = (net(x) - x.square()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step, val_mse=loss.item())
    return loss.item()

"""
GOOD = """
def train(activation, report, *, width=4):
    return {"val_mse": fit(activation, report, width=width)}

train.metrics = {"val_mse": "minimize"}
train.steps = 6
"""
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a file with a task into the current directory, and return the task's name. `declared` adds the metrics."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEARCHER_CACHE", str(tmp_path / "cache"))
    paths, loaded = list(sys.path), set(sys.modules)

    def call(source: str, declared: bool = True) -> str:
        file = tmp_path / f"own_task_{next(NUMBERS)}.py"
        file.write_text(HEAD + source + ('\ntrain.metrics = {"val_mse": "minimize"}\n' if declared else ""))
        return f"{file}:train"

    yield call
    sys.path[:] = paths
    for name in {name for name in sys.modules if name.startswith(("own_task", "searcher_task"))} - loaded:
        del sys.modules[name]


def job_of(task: str, expression: str = "max(x, 0)", options: dict[str, Any] | None = None, **rest: Any) -> Job:
    return Job(0, expression, task=TaskConfig(task, {"options": options or {}}), **rest)


def trained(task: str, **job: Any) -> Outcome:
    """Train as a worker does, and validate the result as the driver does."""
    job_ = job_of(task, **job)
    return validated(guarded(run, job_), own.describe(job_.task))


def describe(task: str, **parameters: Any) -> Declaration:
    return own.describe(TaskConfig(task, parameters))


# What a function declares


def test_a_worker_on_another_machine_must_have_the_same_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Config.of(task=write(GOOD, declared=False))
    there = replace(describe(settings.training.task), digest="0123456789abcdef")
    answer = Outcome(Verdict.COMPLETE, declaration=there)
    with (
        closing(InlinePool(run=lambda _: answer)) as pool,
        pytest.raises(Refused, match="the workers have another file"),
    ):
        session.declared(settings, pool)
    with closing(InlinePool()) as pool:
        assert session.declared(settings, pool).metrics == (MSE,)


def test_a_declaration(write: Write) -> None:
    declared = describe(write(GOOD, declared=False), options={"width": 8})
    assert declared.metrics == (MSE,)
    assert (declared.objective, declared.steps, declared.options) == ("val_mse", 6, {"width": 8})
    assert len(declared.digest) == 16


def test_a_metric_may_have_a_unit_and_an_accuracy_is_a_fraction(write: Write) -> None:
    source = 'def train(activation): ...\ntrain.metrics = {"val_nll": ("minimize", "nats"), "val_acc": "maximize"}\n'
    source += 'train.objective, train.tie_breaker = "val_acc", "val_nll"\n'
    declared = describe(write(source, declared=False))
    assert [metric.unit for metric in declared.metrics] == ["nats", "fraction"]
    assert (declared.objective, declared.tie_breaker) == ("val_acc", "val_nll")


def test_a_module_is_found_in_the_current_directory(write: Write, tmp_path: Path) -> None:
    file = Path(write(GOOD, declared=False).rpartition(":")[0])
    assert describe(f"{file.stem}:train").metrics == (MSE,)


def test_the_digest_covers_files_beside_the_function(write: Write, tmp_path: Path) -> None:
    (tmp_path / "own_task_helper.py").write_text("WIDTH = 4\n")
    task = write("import own_task_helper\ndef train(activation): ...\n")
    before = describe(task).digest
    (tmp_path / "own_task_helper.py").write_text("WIDTH = 5\n")
    assert describe(task).digest != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def train(:", r"cannot be imported: SyntaxError: .*line 18\)$"),
        ("1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(line 18\)$"),
        ("raise SystemExit(3)", r"cannot be imported: SystemExit: 3 \(line 18\)$"),
        ("import nowhere_at_all", r"No module named 'nowhere_at_all' \(line 18\)$"),
        ("raise ValueError('a\\nb')", r"cannot be imported: ValueError: a \(line 18\)$"),
        ("def trian(activation): ...", r"has no function 'train'; did you mean 'trian'\? accepted: fit, trian$"),
        ("train = 3", r"has no function 'train'; accepted: fit$"),
        ("def train(report): ...", r"takes no argument `activation`; write: def train\(activation, report\)$"),
        ("train = print", r"takes no argument `activation`"),
        ("def train(activation, /): ...", r"'activation' is positional only; leave out the /$"),
        ("def train(activation, width): ...", r"needs 'width': --task-kwargs '\{\"width\": \.\.\.\}'$"),
        ("def train(activation): ...", r"declares no metrics; write for example: train.metrics = "),
        ("def train(activation): ...\ntrain.metrics = 'val_mse'", r"declares no metrics; write"),
        ("def train(activation): ...\ntrain.metrics = {'loss': 'minimize'}", r"names that begin with train_, val_ or"),
        ("def train(activation): ...\ntrain.metrics = {'val_mse': 'down'}", r"is 'down'; accepted: minimize, maximize"),
        (
            "def train(activation): ...\ntrain.metrics = {'val_mse': 'minimize'}\ntrain.objective = 'val_mes'",
            r"its objective 'val_mes' is not one of its metrics; did you mean 'val_mse'\?",
        ),
        (
            "def train(activation): ...\ntrain.metrics = {'val_mse': 'minimize'}\ntrain.steps = 2.5",
            r"its steps are 2.5; accepted: the number of the last step that it reports",
        ),
    ],
)
def test_what_cannot_be_a_task_is_one_line(write: Write, source: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        describe(write(source, declared=False))
    assert "\n" not in str(refused.value)
    assert not failure(refused.value).reason.count("\n"), "a worker sends no traceback with it"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("nowhere.py:train", r"the file nowhere.py of the task cannot be read: No such file"),
        (".py:train", r"cannot be read"),
        ("nowhere_at_all:train", r"no module 'nowhere_at_all': Python finds no"),
        ("train", r"unknown task 'train'; accepted: images, package.module:function or path"),
        ("my.py:", r"unknown task 'my.py:'; accepted"),
        (":train", r"unknown task ':train'; accepted"),
        ("npz:train", r"unknown task 'npz:train'; accepted"),
    ],
)
def test_what_names_no_task(write: Write, task: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        describe(task)


@pytest.mark.parametrize("name", ["wdith", "activation", "report"])
def test_options_that_the_function_does_not_take(write: Write, name: str) -> None:
    task = write(GOOD, declared=False)
    with pytest.raises(Refused, match=rf"has no option '{name}'; .*accepted: width$"):
        describe(task, options={name: 8})
    with pytest.raises(Refused, match=r"has no option 'width'; it takes none$"):
        describe(write("def train(activation): ..."), options={"width": 8})
    open_ = write("def train(activation, **more): ...")
    assert describe(open_, options={"width": 8}).options == {"width": 8}


# A training


def test_a_training(write: Write) -> None:
    outcome = trained(write(GOOD, declared=False))
    assert outcome.verdict is Verdict.COMPLETE and not outcome.reason
    assert [point.step for point in outcome.curve] == [1, 2, 3, 4, 5, 6]
    assert outcome.metrics == outcome.curve[-1].metrics


def test_the_same_seed_gives_the_same_bits_and_another_one_others(write: Write) -> None:
    task = write(
        "def train(activation, report):\n"
        "    return fit(activation, report) + random.random() + float(np.random.rand()) + report.seed\n"
    )
    first, again, other = (trained(task, seed=seed).metrics["val_mse"] for seed in (3, 3, 4))
    assert first == again != other


def test_the_activation_and_the_options_matter(write: Write) -> None:
    task = write(GOOD, declared=False)
    results = {
        trained(task, **how).metrics["val_mse"] for how in ({}, {"expression": "sin(x)"}, {"options": {"width": 9}})
    }
    assert len(results) == 3


def test_it_is_observed_how_the_activation_is_used(write: Write) -> None:
    source = """
import copy
def train(activation):
    flat, wide, unused = activation(3), activation(5, dim=-1), activation(7)
    copied = copy.deepcopy(flat)
    for _ in range(3):
        copied(torch.zeros(4, 3)), wide(torch.zeros(2, 6, 5))
    return 0.5
"""
    found = own.observe(job_of(write(source)))
    assert found.outcome.metrics == {"val_mse": 0.5}
    assert (found.made, found.shapes) == (3, ((4, 3), (2, 6, 5)))


USE = "def train(activation, report):\n    fit(activation, report)\n"
INT = 2**31 - 1


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{'val_msee': 1.0}", "the metric 'val_msee' that the task returned was not declared; declared: val_mse$"),
        ("{'val_mse': 1.0, 3: 1.0}", "the metric 3 that the task returned was not declared"),
        ("{}", "the metric val_mse is missing that the task returned; declared: val_mse$"),
        ("'good'", "the metrics that the task returned are 'good'; accepted: a mapping from val_mse to numbers$"),
        ("None", "the metrics that the task returned are None; accepted: a mapping"),
        ("True", "the metrics that the task returned are True; accepted: a mapping"),
        ("{'val_mse': '0.5'}", "val_mse that the task returned is '0.5'; accepted: numbers from -1e"),
        ("{'val_mse': True}", "val_mse that the task returned is True; accepted: numbers"),
        ("{'val_mse': None}", "val_mse that the task returned is None; accepted: numbers"),
        ("torch.tensor(0.5)", r"tensor\(0.5000\); accepted: a mapping .* \(of a tensor, give float\(value\)\)$"),
        ("{'val_mse': torch.tensor(0.5)}", r"tensor\(0.5000\); accepted: .* \(of a tensor, give float\(value\)\)$"),
        ("{'val_mse': torch.zeros((), device='meta')}", r"device='meta'.*\(of a tensor, give float\(value\)\)$"),
        ("{'val_mse': torch.tensor(float('nan'))}", r"tensor\(nan\); .* \(of a tensor, give float\(value\)\)$"),
    ],
)
def test_results_that_are_not_accepted(write: Write, returned: str, message: str) -> None:
    outcome = trained(write(f"{USE}    return {returned}\n"))
    assert outcome.verdict is Verdict.FAILED and outcome.permanent and not outcome.metrics
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(outcome.reason)


@pytest.mark.parametrize(
    ("returned", "value"), [("0.5", 0.5), ("1", 1.0), ("np.float32(0.5)", 0.5), ("{'val_mse': np.int64(2)}", 2.0)]
)
def test_results_that_are_accepted(write: Write, returned: str, value: float) -> None:
    assert trained(write(f"{USE}    return {returned}\n")).metrics == {"val_mse": value}


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')", "-float('inf')", "np.float32('nan')", "1e301"])
@pytest.mark.parametrize("how", ["return {'val_mse': VALUE}", "return VALUE", "report(9, val_mse=VALUE)"])
def test_a_value_that_is_not_finite_is_infeasible(write: Write, value: str, how: str) -> None:
    outcome = trained(write(f"{USE}    {how.replace('VALUE', value)}\n"))
    assert outcome.verdict is Verdict.INFEASIBLE
    assert outcome.reason.startswith("val_mse") and "is not finite: " in outcome.reason
    assert outcome.curve[-1].step == 6 and not outcome.metrics


def test_other_metrics_each_time(write: Write) -> None:
    task = write(f"{USE}    return {{'val_mse': 0.5}} if report.seed else {{'val_mae': 0.5}}\n")
    assert trained(task, seed=1).verdict is Verdict.COMPLETE
    assert "'val_mae' that the task returned was not declared" in trained(task, seed=0).reason


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("report(6, val_mse=1.0)", f"reported step 6 after step 6; accepted: whole numbers from 7 to {INT}"),
        ("report(2, val_mse=1.0)", f"reported step 2 after step 6; accepted: whole numbers from 7 to {INT}"),
        ("report(7.5, val_mse=1.0)", "reported step 7.5 after step 6"),
        ("report('7', val_mse=1.0)", "reported step '7' after step 6"),
        ("report(True, val_mse=1.0)", "reported step True after step 6"),
        ("report(2**31, val_mse=1.0)", "reported step 2147483648 after step 6"),
        ("report(7, val_mes=1.0)", "the metric 'val_mes' of step 7 was not declared; declared: val_mse"),
        ("report(7, val_mse='low')", "val_mse of step 7 is 'low'; accepted: numbers"),
        ("report(7, val_mse=torch.ones(()))", "(of a tensor, give float(value))"),
    ],
)
@pytest.mark.parametrize("caught", ["", "Exception", "bare", "bare and raises"])
def test_reports_that_are_not_accepted(write: Write, call: str, message: str, caught: str) -> None:
    """The verdict stands whatever the function does with the exception."""
    handlers = {
        "": f"    {call}\n",
        "Exception": f"    try:\n        {call}\n    except Exception:\n        pass\n",
        "bare": f"    try:\n        {call}\n    except:\n        pass\n",
        "bare and raises": f"    try:\n        {call}\n    except:\n        raise RuntimeError('mine')\n",
    }
    outcome = trained(write(f"{USE}{handlers[caught]}    return 0.5\n"))
    assert outcome.verdict is Verdict.FAILED and outcome.permanent
    assert message in outcome.reason and "mine" not in outcome.reason
    assert outcome.curve[-1].step == 6


def test_the_first_step_may_be_zero_but_not_less(write: Write) -> None:
    source = (
        "def train(activation, report, *, first):\n    report(first, val_mse=1.0)\n    return fit(activation, report)\n"
    )
    task = write(source)
    assert trained(task, options={"first": 0}).verdict is Verdict.COMPLETE
    assert f"reported step -1; accepted: whole numbers from 0 to {INT}" in trained(task, options={"first": -1}).reason


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return 0.5",
            r"made no activation: its result says nothing about the function. Use activation\(channels\) in",
        ),
        ("activation(3)\n    return 0.5", r"called none of the modules that activation\(channels\) made: its result"),
        ("activation(torch.zeros(3))\n    return 0.5", r"makes a module, which is then called with a tensor"),
    ],
)
def test_a_function_that_does_not_use_the_activation(write: Write, body: str, message: str) -> None:
    outcome = trained(write(f"def train(activation):\n    {body}\n"))
    assert outcome.verdict is Verdict.FAILED and outcome.permanent
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(outcome.reason)


def test_maxout_is_refused(write: Write) -> None:
    outcome = trained(write(GOOD, declared=False), expression="maxout(2)")
    assert outcome.permanent and outcome.reason.startswith("maxout takes several inputs for each channel")


def test_an_exception_of_the_function_is_kept_with_its_own_lines(write: Write) -> None:
    """Also where torch calls itself many times below them."""
    source = (
        "def train(activation):\n    net = nn.Sequential(nn.Sequential(nn.Linear(3, 3)))\n    net(torch.zeros(2, 4))\n"
    )
    task = write(source)
    outcome = trained(task)
    headline, _, rest = outcome.reason.partition("\n")
    assert outcome.verdict is Verdict.FAILED and not outcome.permanent
    assert headline.startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert f'File "{task.rpartition(":")[0]}", line 20, in train\n    net(torch.zeros(2, 4))' in rest
    assert "linear.py" in rest


def test_a_function_that_has_changed_is_not_trained(write: Write) -> None:
    job = job_of(write(GOOD, declared=False))
    outcome = guarded(run, replace(job, task=replace(job.task, parameters={"digest": "0" * 16})))
    assert outcome.verdict is Verdict.FAILED
    assert "has changed since the study began (digest " in outcome.reason


# How a training is ended


def test_a_training_stops_when_it_is_told_to(write: Write) -> None:
    outcome = own.train(job_of(write(GOOD, declared=False)), stopped=lambda: True)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, "stopped")
    assert len(outcome.curve) == 1 and not outcome.permanent


@pytest.mark.parametrize("caught", ["Exception", ""])
def test_a_time_out(write: Write, caught: str) -> None:
    source = f"""
import time
def train(activation, report):
    for step in range(1000):
        time.sleep(0.01)
        try:
            report(step, val_mse=0.5)
        except {caught}:
            pass
    return fit(activation, lambda *_, **__: None)
"""
    outcome = trained(write(source), timeout_seconds=0.05)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, "timed out after 0.05 s")
    assert 0 < len(outcome.curve) < 1000 and not outcome.permanent


def test_a_function_that_never_reports_is_given_up(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pools.base.GRACE_SECONDS", 0.1)
    pool = InlinePool()
    task = write("import time\ndef train(activation):\n    time.sleep(2)\n    return 0.5\n")
    pool.submit(job_of(task, timeout_seconds=0.1))
    ended: list[tuple[Job, Outcome]] = []
    while not ended:
        ended = pool.wait(10.0)
    assert ended[0][1].reason == "timed out after 0.1 s and hangs"


def test_a_cut_off_prunes(write: Write) -> None:
    cutoff = Cutoff(2, (Limit(MSE, 0.0),))  # a loss of 0 would be just good enough
    outcome = trained(write(GOOD, declared=False), cutoffs=(cutoff,))
    assert outcome.verdict is Verdict.PRUNED and outcome.reason.startswith("stopped after step 2: val_mse 0.")
    assert [point.step for point in outcome.curve] == [1, 2]
    assert outcome.metrics == outcome.curve[-1].metrics


def test_the_verdict_of_a_cut_off_stands(write: Write) -> None:
    source = USE.replace("    fit", "    try:\n        fit") + "    except:\n        pass\n    return 0.0\n"
    outcome = trained(write(source), cutoffs=(Cutoff(2, (Limit(MSE, 0.0),)),))
    assert outcome.verdict is Verdict.PRUNED and outcome.metrics["val_mse"] > 0


def test_a_permanent_failure_is_not_tried_again() -> None:
    trial = Trial(0, Kind.CANDIDATE, "x", "x", 0)
    failed = Outcome(Verdict.FAILED, "it returned a string")
    assert Failures(2).retried(trial, failed)
    assert Failures(2).retried(trial, replace(failed, permanent=True)) is None
    assert Outcome.from_json(replace(failed, permanent=True).to_json()).permanent


# Checkpoints

SAVING = """
def train(activation, report):
    x = torch.linspace(-1, 1, 16)[:, None]
    net = nn.Sequential(nn.Linear(1, 4), activation(4), nn.Dropout(0.2), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    best, first = float("inf"), 1
    if state := report.load():
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["tensor"])
        best, first = state["best"], state["step"] + 1
    for step in range(first, 9):
        loss = (net(x) - x.square()).square().mean() * (1 + random.random() + np.random.rand())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = min(best, loss.item())
        report(step, val_mse=loss.item())
        report.save({"net": net.state_dict(), "tensor": optimizer.state_dict(), "best": best, "step": step})
        if step == DIES_AT:
            raise RuntimeError("the machine dies")
    return {"val_mse": best}
"""
KILLED = """\
        if step == 4 and Path("begun").read_text() == "1 ":
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(write: Write, tmp_path: Path) -> None:
    """The generators of torch, numpy and Python go on too. Seen to fail without numpy's."""
    how: dict[str, Any] = {"checkpoint_dir": str(tmp_path / "kept"), "checkpoint_seconds": 0.0}
    task = write(SAVING.replace("DIES_AT", "0"))
    whole = trained(task, **how)
    assert whole.verdict is Verdict.COMPLETE and not list((tmp_path / "kept").iterdir())
    file = Path(task.rpartition(":")[0])
    source = file.read_text()
    file.write_text(source.replace("step == 0", "step == 4 and first == 1"))
    died = trained(task, **how)
    assert died.reason.startswith("RuntimeError: the machine dies") and len(list((tmp_path / "kept").iterdir())) == 1
    gone_on = trained(task, **how)
    assert [point.step for point in gone_on.curve] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert replace(gone_on, seconds=0.0) == replace(whole, seconds=0.0)
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("state", ["{'net': nn.Linear(1, 1)}", "{(1, 2): 3}", "{'a': {1, 2}}", "{'a': np.zeros(2)}"])
def test_a_state_that_cannot_be_saved_is_refused_at_once(write: Write, state: str) -> None:
    """Not only when the first checkpoint is due, after a minute."""
    outcome = trained(write(f"{USE}    report.save({state})\n    return 0.5\n"))
    assert outcome.permanent
    assert outcome.reason.startswith(
        "report.save takes nested dictionaries with texts as keys, lists, tensors, numbers"
    )


def test_a_damaged_checkpoint_costs_a_warning(write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    how: dict[str, Any] = {"checkpoint_dir": str(tmp_path / "kept"), "checkpoint_seconds": 0.0}
    task = write(SAVING.replace("DIES_AT", "4"))
    trained(task, **how)
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        trained(task, **how)
    assert "is not used: " in caplog.text


# The command line

SEARCH = ("--pool", "inline", "--sampler", "random", "--n-trials", "4", "--baselines", "relu", "-q")
slow = pytest.mark.slow


def launch(cli: Cli, task: str, *args: str) -> Done:
    return cli("launch", "--study-name", "s", "--task", task, *SEARCH, *args)


def refused(done: Done, message: str, status: int = 2) -> None:
    """A command ended with one line on stderr."""
    assert done.returncode == status, done
    assert message in done.stderr
    assert done.stderr.count("\n") == 1 and not done.stdout and "Traceback" not in done.stderr


@slow
@pytest.mark.parametrize(
    ("source", "flags", "message"),
    [
        ("1 / 0", (), "cannot be imported: ZeroDivisionError: division by zero (line 18)"),
        ("raise SystemExit", (), "cannot be imported: SystemExit"),
        ("def train(:", (), "cannot be imported: SyntaxError"),
        ("def trian(activation): ...", (), "has no function 'train'; did you mean 'trian'?"),
        ("def train(report): ...", (), "takes no argument `activation`"),
        ("def train(activation, width): ...", (), "needs 'width': --task-kwargs"),
        (GOOD, ("--task-kwargs", '{"wdith": 3}'), "has no option 'wdith'; did you mean 'width'?"),
        (GOOD, ("--objective", "val_mes"), "unknown objective 'val_mes'"),
        (GOOD, ("--direction", "maximize"), "--direction maximize contradicts the task"),
        (GOOD, ("--direction", "up"), "unknown direction 'up'; accepted: minimize, maximize"),
        (GOOD, ("--baselines", "relu,maxout"), "--baselines maxout: maxout takes several inputs for each channel"),
        (GOOD.replace("train.steps = 6", ""), ("--pruner", "median"), "write below the function: train.steps = 20"),
        ("def train(activation): ...", (), "or give --objective NAME --direction minimize"),
        ("def train(activation): ...", ("--objective", "val_mse"), "or give --objective NAME --direction minimize"),
        (
            "def train(activation): ...\ntrain.metrics = {'test_mse': 'minimize'}",
            (),
            "declares metrics of the test split only",
        ),
        (
            "def train(activation): ...\ntrain.metrics = {'val_mse': 'minimize', 'test_mse': 'minimize'}",
            ("--objective", "test_mse"),
            "unknown objective 'test_mse'",
        ),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    cli: Cli, write: Write, source: str, flags: tuple[str, ...], message: str
) -> None:
    refused(launch(cli, write(source, declared=False), *flags), message)
    assert cli("top", "s").returncode == 1


@slow
@pytest.mark.parametrize("task", ["nowhere.py:train", "nowhere_at_all:train", "train"])
def test_a_task_that_is_not_there(cli: Cli, write: Write, task: str) -> None:
    refused(launch(cli, task), "nowhere" if "nowhere" in task else "unknown task 'train'; accepted: images, package")


@slow
def test_a_search_with_a_task(cli: Cli, write: Write) -> None:
    """What the file prints is no result; equal functions are trained once; the table has the task's metric."""
    task = write("print('imported')\n" + GOOD, declared=False)
    done = launch(cli, task, "--n-trials", "12", "--unary", "x,max0", "--binary", "add,max", "--no-preflight")
    assert done.returncode == 0, done.stderr
    assert "imported" not in done.stdout and "val_mse" in done.stdout
    rows = json.loads(cli("query", "SELECT state, cites, metrics FROM searcher_trial", "-f", "json").stdout)
    assert len(rows) == 12 and {row["state"] for row in rows} == {"COMPLETE"}
    assert any(row["cites"] is not None for row in rows)
    assert len(json.loads(cli("top", "s", "-f", "json").stdout)) >= 2


@slow
def test_a_task_that_declares_no_metrics_is_searched_by_the_objective_asked_for(cli: Cli, write: Write) -> None:
    task = write("def train(activation, report):\n    return -fit(activation, report)\n", declared=False)
    source = Path(task.rpartition(":")[0])
    source.write_text(source.read_text().replace("val_mse=", "val_score=-"))
    done = launch(cli, task, "--objective", "val_score", "--direction", "maximize")
    assert done.returncode == 0, done.stderr
    assert "val_score" in done.stdout
    values = [row["val_score"] for row in json.loads(cli("top", "s", "-f", "json").stdout)]
    assert values == sorted(values, reverse=True) and values
    longer = cli("resume", "s", "--n-trials", "6", "-q")
    assert longer.returncode == 0, longer.stderr


@slow
def test_an_objective_that_the_function_reports_but_does_not_return_is_named(cli: Cli, write: Write) -> None:
    """Seen to fail: the database refused the row, and the message spoke of edited rows."""
    source = "def train(activation, report):\n    loss = fit(activation, report)\n    return {'val_mse': loss}\n"
    declared = '\ntrain.metrics = {"train_mse": "minimize", "val_mse": "minimize"}\n'
    done = launch(cli, write(source + declared, declared=False), "--objective", "train_mse")
    assert done.returncode == 1
    assert "the metric train_mse, by which the study is ranked, is missing" in done.stderr


@slow
def test_a_mistake_of_the_function_ends_the_search_soon(cli: Cli, write: Write, tmp_path: Path) -> None:
    """Not nine runs: a run of the same function would end in the same way."""
    runs = tmp_path / "runs"
    task = write(f"{USE}    with open({str(runs)!r}, 'a') as file: file.write('x')\n    return 'good'\n")
    done = launch(cli, task, "--n-trials", "20")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the first 3 trials of this session all failed, in the same way: task " in done.stderr
    assert "are 'good'; accepted: a mapping from val_mse to numbers" in done.stderr
    assert runs.read_text() in ("xxx", "xxxx"), "the fourth may have begun"


@slow
def test_the_traceback_of_the_function_is_kept_with_the_trial(cli: Cli, write: Write) -> None:
    source = "def train(activation, report):\n    fit(activation, report)\n    raise RuntimeError('mine')\n"
    task = write(source)
    done = launch(cli, task, "--max-retries", "1")
    assert done.returncode == 1 and "RuntimeError: mine" in done.stderr and "Traceback" not in done.stderr
    shown = cli("trial", "s", "0").stdout
    assert "RuntimeError: mine" in shown and f"{task.rpartition(':')[0]}" in shown and "in train" in shown
    assert json.loads(cli("trial", "s", "0", "-f", "json").stdout)[0]["retries"] == 1


@slow
def test_infeasible_functions_are_told_to_the_sampler_and_ranked_nowhere(cli: Cli, write: Write) -> None:
    task = write("def train(activation, report):\n    fit(activation, report)\n    return float('nan')\n")
    done = launch(cli, task)
    assert done.returncode == 0, done.stderr
    assert {t["state"] for t in json.loads(cli("query", "SELECT state FROM searcher_trial", "-f", "json").stdout)} == {
        "INFEASIBLE"
    }


@slow
def test_a_task_that_has_changed_is_shown_on_resume(cli: Cli, write: Write) -> None:
    task = write(GOOD, declared=False)
    file = Path(task.rpartition(":")[0])
    assert launch(cli, task).returncode == 0
    before = file.read_text()
    changed = before.replace("width=4):\n    return", "width=5):\n    return").replace(
        "train.steps = 6", "train.steps = 7"
    )
    assert changed != before
    file.write_text(changed)
    asked = cli("resume", "s", "--n-trials", "6")
    assert asked.returncode == 1 and "or has changed since" in asked.stderr
    done = cli("resume", "s", "--n-trials", "6", "--trust-code")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "steps: 6 in the study, 7 now" in done.stderr
    assert "options: {'width': 4} in the study, {'width': 5} now" in done.stderr
    assert "digest: " in done.stderr and "put it back as it was, or start another study" in done.stderr
    file.write_text(before)
    assert cli("resume", "s", "--n-trials", "6", "-q").returncode == 0


@slow
def test_a_training_that_was_killed_goes_on_when_the_search_is_resumed(cli: Cli, write: Write, tmp_path: Path) -> None:
    """The first training ends its process with `kill -9` after step 4; the next session begins it at step 5."""
    begun = tmp_path / "begun"
    dies = '        if step == DIES_AT:\n            raise RuntimeError("the machine dies")\n'
    note = '    with open("begun", "a") as file:\n        file.write(f"{first} ")\n'
    assert dies in SAVING
    source = SAVING.replace(dies, KILLED).replace("    for step in", f"{note}    for step in")
    task = write(f"import os, signal\nfrom pathlib import Path\n{source}")
    (tmp_path / "s.toml").write_text(f"checkpoint_seconds = 0\ncheckpoint_dir = '{tmp_path}/kept'\n")
    command = [sys.executable, "-m", "cli", "launch", "s.toml", "--study-name", "s", "--task", task, *SEARCH]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert begun.read_text() == "1 " and len(list((tmp_path / "kept").iterdir())) == 1
    resumed = cli("resume", "s", "-q")
    assert resumed.returncode == 0, resumed.stderr
    assert begun.read_text().split()[:2] == ["1", "5"]
    (trial,) = json.loads(cli("trial", "s", "0", "-f", "json").stdout)
    assert trial["state"] == "COMPLETE" and [point["step"] for point in trial["curve"]] == [1, 2, 3, 4, 5, 6, 7, 8]


@slow
def test_a_pruner_that_is_asked_for_on_resume_needs_steps(cli: Cli, write: Write) -> None:
    task = write(GOOD.replace("train.steps = 6", ""), declared=False)
    assert launch(cli, task).returncode == 0
    done = cli("resume", "s", "--n-trials", "6", "--pruner", "halving", "-q")
    refused(done, "--pruner halving needs the number of steps")


@slow
def test_a_search_with_a_pruner(cli: Cli, write: Write) -> None:
    task = write(GOOD, declared=False)
    done = launch(cli, task, "--n-trials", "30", "--pruner", "median")
    assert done.returncode == 0, done.stderr
    states = [row["state"] for row in json.loads(cli("query", "SELECT state FROM searcher_trial", "-f", "json").stdout)]
    assert "PRUNED" in states and "COMPLETE" in states


# searcher task check


def checked(cli: Cli, task: str, *args: str) -> tuple[int, dict[str, Any], str]:
    """Return the exit status, what was found, and stderr."""
    done = cli("task", "check", task, *args, "-f", "json")
    return done.returncode, json.loads(done.stdout)[0], done.stderr


def test_a_task_is_checked(cli: Cli, write: Write) -> None:
    task = write(GOOD, declared=False)
    status, found, errors = checked(cli, task, "--task-kwargs", '{"width": 3}', "--expression", "swish")
    assert (status, errors) == (0, "")
    assert found["ready"] and not found["problems"] and not found["remarks"]
    assert found["metrics"] == [{"name": "val_mse", "direction": "minimize", "unit": ""}]
    assert (found["objective"], found["options"]) == ("val_mse", {"width": 3})
    assert (found["steps_declared"], found["steps_reported"]) == (6, 6)
    assert found["same_seed_same_result"] is True and found["other_seed_same_result"] is False
    assert (found["activations_made"], found["first_inputs"]) == (1, [[16, 3]])
    assert found["seconds"] > 0
    text = cli("task", "check", task).stdout
    for line in ("val_mse minimize", "the same result to the last bit", "1 made, 1 called", "(16, 4)", "yes"):
        assert line in text


COUNTING = (
    "runs = []\ndef train(activation, report):\n    runs.append(1)\n    return fit(activation, report) + len(runs)\n"
)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (COUNTING, "the same seed gives another result (val_mse is "),
        (f"{USE}    return 'good'\n", "the training ended as FAILED: task "),
        (f"{USE}    return float('nan')\n", "the training ended as INFEASIBLE: val_mse that the task returned is not"),
        ("def train(activation): return 0.5\n", "made no activation"),
        (f"{USE}    raise SystemExit(4)\n", "the training ended as FAILED: SystemExit: 4"),
        (f"{USE}    return 0.5 if report.seed == 0 else 'good'\n", "another seed ended as FAILED: task "),
    ],
)
def test_a_task_is_not_ready(cli: Cli, write: Write, source: str, problem: str) -> None:
    status, found, errors = checked(cli, write(source))
    assert status == 1 and not found["ready"]
    assert problem in found["problems"][0] and found["problems"][0] in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "remark"),
    [
        ("def train(activation): return float(activation(3)(torch.rand(2, 3)).sum())\n", "it never calls report"),
        (f"{USE}    return random.random()\n", "it does not declare its steps, which a pruner needs: train.steps = 6"),
        (f"{USE}    return random.random()\ntrain.steps = 5\n", "its last report is of step 6, and it declares 5"),
        (f"{USE}    activation(3)\n    return random.random()\n", "1 of 2 activations were made and never called"),
        ("def train(activation): return float(activation(3)(torch.ones(2, 3)).sum())\n", "another seed gives the same"),
    ],
)
def test_what_may_not_be_meant_is_remarked_on(cli: Cli, write: Write, source: str, remark: str) -> None:
    status, found, _ = checked(cli, write(source))
    assert status == 0 and found["ready"]
    assert any(remark in text for text in found["remarks"])


def test_a_check_shows_where_the_function_raised(cli: Cli, write: Write) -> None:
    done = cli("task", "check", write(f"{USE}    raise RuntimeError('mine')\n"))
    assert done.returncode == 1
    assert "line 20, in train" in done.stdout and "RuntimeError: mine" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("task", "flags", "status", "message"),
    [
        ("nowhere.py:train", (), 1, "nowhere.py of the task cannot be read"),
        ("images", (), 2, "the task `images` is this program's own"),
        ("GOOD", ("--objective", "val_mes"), 2, "unknown objective 'val_mes'"),
        ("GOOD", ("--direction", "maximize"), 2, "contradicts the task"),
        ("GOOD", ("--task-kwargs", "{"), 2, "--task-kwargs is not JSON"),
        ("GOOD", ("--task-kwargs", '{"w": 1}'), 1, "has no option 'w'"),
        ("GOOD", ("--expression", "rleu"), 2, "did you mean 'relu'?"),
    ],
)
def test_a_check_of_what_cannot_be_checked(
    cli: Cli, write: Write, task: str, flags: tuple[str, ...], status: int, message: str
) -> None:
    refused(cli("task", "check", write(GOOD, declared=False) if task == "GOOD" else task, *flags), message, status)


def test_a_check_of_a_task_that_declares_no_metrics(cli: Cli, write: Write) -> None:
    task = write("def train(activation, report):\n    return fit(activation, report)\n", declared=False)
    status, found, _ = checked(cli, task, "--objective", "val_mse", "--direction", "minimize")
    assert status == 0 and found["objective"] == "val_mse"
