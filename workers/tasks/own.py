"""A task of a person's own: a training function, named `package.module:function` or `path/to/file.py:function`.

    def train(activation, report, *, width=32):
        model = MyNet(width, activation)        # activation(channels, dim=1) makes a module
        for step in range(1, 21):
            ...
            report(step, val_mse=error)         # ends the training where that is called for
        return {"val_mse": error}

    train.metrics = {"val_mse": "minimize"}
    train.steps = 20                            # a pruner needs it

A Python program can also give the function itself (see `given`), which only workers of its own process can call.
docs/tasks.md explains the contract.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from search_space import load_primitives, nearest
from search_space.modules import CodeName, code_name, import_module, look_into, raised, source_digest
from workers.checkpoint import SavedState
from workers.contract import (
    SPLITS,
    Declaration,
    Direction,
    Job,
    Metric,
    Outcome,
    Point,
    TaskConfig,
    Verdict,
    WorkersError,
)
from workers.tasks.base import Ended, check_cutoffs, interrupter
from workers.tasks.images.models import default_device
from workers.tasks.images.networks.sites import Activations, activation_of
from workers.text import limited
from workers.validation import LARGEST_INTEGER, checked_metrics

FORM = "package.module:function or path/to/file.py:function"
METRICS = 'train.metrics = {"val_mse": "minimize"}'  # an example, for messages
OBJECTS = "__main__"  # the module in the names of functions that are given as objects
GIVEN = ("activation", "report")  # what a training function is called with, besides its options

_objects: dict[str, list[Callable[..., Any]]] = {}  # by name: the function, once for each session that uses it
_lock = threading.Lock()


@contextmanager
def given(function: Callable[..., Any]) -> Iterator[str]:
    """Give a function object to the workers of this process for the length of the block, and return its name.

    A function that can be imported is named `package.module:function`, like any other. The name of another one is
    `__main__:function`.

    Raises:
        WorkersError: It has no name, or another function of that name is in use.
    """
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or not name.isidentifier():
        raise WorkersError(
            f"the task {limited(repr(function), 200)} is no function with a name; write it with def, and give options "
            "as task_kwargs"
        )
    if _importable(function):
        yield f"{function.__module__}:{name}"
        return
    task = f"{OBJECTS}:{name}"
    with _lock:
        users = _objects.setdefault(task, [])
        if users and users[0] is not function:
            raise WorkersError(
                f"a search that runs in this process has another function named {name!r} as its task; rename one"
            )
        users.append(function)
    try:
        yield task
    finally:
        users.remove(function)


def _importable(function: Callable[..., Any]) -> bool:
    module = sys.modules.get(function.__module__)
    return function.__module__ != OBJECTS and getattr(module, function.__name__, None) is function


def names_object(task: str) -> bool:
    """Return True if a task's name is one of a function that was given as an object."""
    code = code_name(task)
    return code is not None and code.module == OBJECTS


def is_given(task: str) -> bool:
    """Return True if this process has the function object of that name."""
    return bool(_objects.get(task))


def check_name(text: str) -> None:
    """Raise WorkersError if a text cannot name a task."""
    code = code_name(text)
    if code is None or not code.module or not code.attribute.isidentifier():
        raise WorkersError(f"unknown task {limited(repr(text), 200)}; accepted: images, {FORM}")


def describe(config: TaskConfig) -> Declaration:
    """Import the function and return what it declares.

    Raises:
        WorkersError: The function cannot be imported, or what it declares is not accepted.
        SpaceError: The module cannot be imported.
    """
    function = _function(config.task)
    options = _options(function, config)
    metrics = _metrics(function, config)
    names = [metric.name for metric in metrics]
    objective = getattr(function, "objective", None) or next((n for n in names if n.startswith("val_")), names[0])
    tie_breaker = getattr(function, "tie_breaker", "")
    for what, name in (("objective", objective), ("tie_breaker", tie_breaker or objective)):
        if name not in names:
            raise WorkersError(
                f"{config.task}: its {what} {name!r} is not one of its metrics; {nearest(str(name), names)}"
            )
    steps = getattr(function, "steps", 0)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= LARGEST_INTEGER:
        raise WorkersError(
            f"{config.task}: its steps are {steps!r}; accepted: whole numbers, of the last step reported"
        )
    return Declaration(metrics, objective, tie_breaker, (), steps, options, _digest(config.task))


def train(job: Job, device: torch.device | None = None, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Call the function once.

    Args:
        device: `report.device`: CUDA if there is one, else the CPU, if not given.
        stopped: asked at each report; true ends the training as FAILED.

    Raises:
        WorkersError: The task is not the one that the study began with, or did not keep its contract.
    """
    declared = describe(job.task)
    if (began := job.task.parameters.get("digest", "")) not in ("", declared.digest):
        raise WorkersError(
            f"the code of task {job.task.task} has changed since the study began (digest {declared.digest}, then "
            f"{began}); put it back as it was, or start another study"
        )
    load_primitives(job.task.primitives)
    activation = _Factory(activation_of(job.expression))
    report = Report(job, declared, device or default_device(), interrupter(job, stopped))
    _set_seeds(job.seed)
    given = {"activation": activation, "report": report}
    function = _function(job.task.task)
    taken = {name: value for name, value in given.items() if name in inspect.signature(function).parameters}
    try:
        found = function(**taken, **job.task.parameters.get("options", {}))
        report.end()
        _check_used(job, activation)
        metrics = report.result(found)
    except Ended as ended:
        verdict, reason, metrics = ended.verdict, ended.reason, report.latest if ended.verdict is Verdict.PRUNED else {}
    else:
        verdict, reason = Verdict.COMPLETE, ""
    if verdict is not Verdict.FAILED:
        report.state.remove()
    return Outcome(verdict, reason, metrics, tuple(report.curve))


class Report:
    """What a training function tells its progress to, and asks about its circumstances.

    Attributes:
        seed: The seed of the training. The generators of torch, numpy and Python are seeded with it already.
        device: Where to train.
        curve: What was reported so far.
        state: The checkpoint of this training.
    """

    def __init__(self, job: Job, declared: Declaration, device: torch.device, interrupt: Callable[[], None]) -> None:
        self.seed, self.device = job.seed, device
        self.curve: list[Point] = []
        self.state = SavedState(job, device)
        self._job, self._declared, self._interrupt = job, declared, interrupt
        self._ended: Ended | None = None

    def __call__(self, step: int, **metrics: float) -> None:
        """Report values of declared metrics at a step, which must be greater than the last one.

        It raises what ends the training: the pruner has stopped it, its time is up, a value is not finite, or the
        report is not accepted. The verdict stands even if the function catches it.
        """
        self.end()
        with self._remembered():
            last = self.curve[-1].step if self.curve else -1
            if isinstance(step, bool) or not isinstance(step, int) or not last < step <= LARGEST_INTEGER:
                raise Ended(Verdict.FAILED, f"report({step!r}) after step {last}; accepted: whole numbers that grow")
            self.curve.append(Point(step, self._values(metrics, f" of step {step}", whole=False)))
            self._interrupt()
            check_cutoffs(self._job.cutoffs, self.curve)

    def save(self, state: Any) -> None:
        """Write a checkpoint: nested dictionaries and lists of tensors, numbers and texts. At most one in
        `--checkpoint-seconds`, so it can be called at every step."""
        self.state.save_if_due(state, self.curve)

    def load(self) -> Any:
        """Return the state that was saved last, and go on after the step that was reported last before it. None if
        this training begins."""
        state, curve = self.state.restore()
        self.curve[:] = curve
        return state

    def end(self) -> None:
        """Raise again what a report has raised, if one has."""
        if self._ended:
            raise self._ended

    @property
    def latest(self) -> dict[str, float]:
        """The values that were reported last."""
        return dict(self.curve[-1].metrics) if self.curve else {}

    def result(self, found: object) -> dict[str, float]:
        """Return what the function has returned as the metrics of a result. A single number is the objective's."""
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            found = {self._declared.objective: found}
        return self._values(found, " that the task returned", whole=True)

    def _values(self, metrics: object, where: str, whole: bool) -> dict[str, float]:
        if isinstance(metrics, Mapping):
            self._check_finite(metrics, where)
        try:
            return checked_metrics(metrics, self._declared, where, whole)
        except ValueError as error:
            advice = " (write float(value))" if _has_tensor(metrics) else ""
            raise Ended(Verdict.FAILED, f"{self._job.task.task}: {error}{advice}") from error

    def _check_finite(self, metrics: Mapping[Any, Any], where: str) -> None:
        for name, value in metrics.items():
            if isinstance(value, (float, np.floating)) and not np.isfinite(value) and self._declared.metric(str(name)):
                raise Ended(Verdict.INFEASIBLE, f"{name}{where} is not finite")

    def _remembered(self) -> _Remembered:
        return _Remembered(self)


class _Remembered:
    """Keeps what ends a training, so that it stands even if the function catches it."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Ended):
            self._report._ended = error


class _Factory:
    """`activation(channels, dim=1)` makes the activation of one place in a network.

    Attributes:
        made: How many were made.
        places: The shapes of the first input of each that has been called.
    """

    def __init__(self, activations: Activations) -> None:
        if activations.expansion > 1:
            raise WorkersError("maxout takes several inputs a channel, which a task of one's own does not prepare")
        self._make = activations
        self.made = 0
        self.places: list[tuple[int, ...]] = []

    def __call__(self, channels: int, dim: int = 1) -> nn.Module:
        if isinstance(channels, Tensor):
            raise WorkersError("activation(channels) makes a module, to be called with tensors; it was given a tensor")
        module = self._make(channels, dim)
        self.made += 1
        handle = module.register_forward_pre_hook(lambda _, inputs: seen(inputs))

        def seen(inputs: tuple[Any, ...]) -> None:
            self.places.append(tuple(inputs[0].shape))
            handle.remove()

        return module


def _check_used(job: Job, activation: _Factory) -> None:
    if not activation.places:
        what = "called none of the modules that activation(channels) made" if activation.made else "made no activation"
        raise WorkersError(
            f"task {job.task.task} {what}: its result says nothing about the function. Use activation(channels) in "
            "place of each nn.ReLU()"
        )


def _function(task: str) -> Callable[..., Any]:
    check_name(task)
    code = code_name(task)
    assert code is not None  # noqa: S101 - check_name has seen to it
    function = _object(task) if names_object(task) else _imported(task, code)
    parameters = inspect.signature(function).parameters
    if "activation" not in parameters:
        raise WorkersError(
            f"task {task} takes no argument `activation`; write: def {code.attribute}(activation, report)"
        )
    if fixed := [n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY]:
        raise WorkersError(f"task {task}: its argument {fixed[0]!r} is positional only; leave out the /")
    return function


def _object(task: str) -> Callable[..., Any]:
    if not is_given(task):
        raise WorkersError(f"the task {task} is a function object of another process, and cannot be imported")
    return _objects[task][0]


def _imported(task: str, code: CodeName) -> Callable[..., Any]:
    module = _file_module(Path(code.module)) if code.module.endswith(".py") else import_module(code.module)
    function = getattr(module, code.attribute, None)
    if not callable(function):
        there = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        raise WorkersError(f"task {task}: there is no function {code.attribute!r}; {nearest(code.attribute, there)}")
    return cast("Callable[..., Any]", function)


def _file_module(path: Path) -> ModuleType:
    """Import a file; its folder is where it finds its neighbours. A file that has changed is imported anew."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkersError(f"the file {path} of the task cannot be read: {error.strerror}") from error
    name = f"searcher_task_{path.stem}_{hashlib.sha256(str(path).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    look_into(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkersError(f"the file {path} of the task is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file may raise anything, SystemExit for one
        del sys.modules[name]
        raise WorkersError(f"the file {path} of the task cannot be imported: {raised(error)}") from error
    return module


def _digest(task: str) -> str:
    code = code_name(task)
    assert code is not None  # noqa: S101 - the function has been imported
    if names_object(task):
        return _source_digest(_object(task))
    if code.module.endswith(".py"):
        return hashlib.sha256(Path(code.module).read_bytes()).hexdigest()[:16]
    return source_digest(code.module)


def _source_digest(function: Callable[..., Any]) -> str:
    """Return a digest of a function's source; empty where it is not known, as for one made by `exec`."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _options(function: Callable[..., Any], config: TaskConfig) -> dict[str, Any]:
    """Return the options that the function takes, with the values given or its defaults, as plain values."""
    parameters = inspect.signature(function).parameters
    taken = {n: p for n, p in parameters.items() if n not in GIVEN and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    given = config.parameters.get("options", {})
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in given:
        if name in GIVEN or (name not in taken and not any_name):
            accepted = nearest(name, taken) if taken else "it takes none"
            raise WorkersError(f"task {config.task} has no option {name!r}; {accepted}")
    if missing := [n for n, p in taken.items() if p.default is p.empty and n not in given]:
        raise WorkersError(f"task {config.task} needs {missing[0]!r}: --task-kwargs '{{\"{missing[0]}\": ...}}'")
    return {name: given[name] if name in given else _plain(facts.default) for name, facts in taken.items()} | {
        name: value for name, value in given.items() if name not in taken
    }


def _plain(value: Any) -> Any:
    """Return a default as it is if JSON has it, else its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return limited(repr(value), 200)
    return value


def _metrics(function: Callable[..., Any], config: TaskConfig) -> tuple[Metric, ...]:
    named = getattr(function, "metrics", None)
    if named is None and (asked := config.parameters.get("objective")):
        named = dict([asked])
    if not isinstance(named, Mapping) or not named:
        raise WorkersError(
            f"task {config.task} declares no metrics; write for example: {METRICS}, or give --objective NAME "
            "--direction minimize"
        )
    return tuple(_metric(config.task, name, facts) for name, facts in named.items())


def _metric(task: str, name: object, facts: object) -> Metric:
    direction, unit = facts if isinstance(facts, (tuple, list)) and len(facts) == 2 else (facts, "")
    if not isinstance(name, str) or not name.isidentifier() or len(name) > 100 or name.split("_")[0] not in SPLITS:
        raise WorkersError(
            f"task {task}: the metric {limited(repr(name), 200)} does not say what it is measured on; accepted: names "
            "that begin with train_, val_ or test_"
        )
    if direction not in list(Direction) or not isinstance(unit, str) or len(unit) > 100:
        raise WorkersError(
            f"task {task}: the metric {name} is {limited(repr(facts), 200)}; accepted: minimize, maximize, or a pair "
            'of one of these and a unit: ("minimize", "nats")'
        )
    return Metric(name, Direction(str(direction)), unit or ("fraction" if name.endswith("_acc") else ""))


def _set_seeds(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _has_tensor(metrics: object) -> bool:
    return isinstance(metrics, Mapping) and any(isinstance(value, Tensor) for value in metrics.values())
