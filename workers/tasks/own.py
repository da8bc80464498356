"""A user's own task: a training function, named `package.module:function` or `path/to/file.py:function`.

    def train(activation, report, *, width=32):
        model = MyNet(width, activation)        # activation(channels, dim=1) makes a module
        for step in range(1, 21):
            ...
            report(step, val_mse=error)         # raises an exception to stop the training
        return {"val_mse": error}

    train.metrics = {"val_mse": "minimize"}
    train.steps = 20                            # needed by pruners

A Python program can also give the function object (see `given`), which only workers in its own process can call.
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
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from search_space import SpaceError, load_primitives, nearest
from search_space.modules import CodeName, code_name, files_digest, import_module, look_into, raised
from workers.checkpoint import SavedState
from workers.contract import (
    SPLITS,
    Declaration,
    Direction,
    Job,
    Learned,
    Metric,
    Outcome,
    Point,
    TaskConfig,
    Verdict,
    WorkersError,
)
from workers.learned import learned_parameters
from workers.tasks.base import Ended, check_cutoffs, interrupter
from workers.tasks.images.models import default_device
from workers.tasks.images.networks.sites import Activations, activation_of
from workers.text import limited
from workers.validation import LARGEST, LARGEST_INTEGER, checked_metrics

FORM = "package.module:function or path/to/file.py:function"
METRICS = 'train.metrics = {"val_mse": "minimize"}'  # an example, for messages
MAXOUT = "maxout takes several inputs for each channel"
OBJECTS = "__main__"  # the module in the names of function objects
GIVEN = ("activation", "report")  # the arguments of a training function, besides its options

_objects: dict[str, list[Callable[..., Any]]] = {}  # function objects by name, once for each session that uses them
_lock = threading.Lock()


@contextmanager
def given(function: Callable[..., Any]) -> Iterator[str]:
    """Make a function object known to the workers of this process for the length of the block, and yield its name.

    The name is `package.module:function` if the function can be imported, otherwise `__main__:function`.

    Raises:
        WorkersError: the function has no name, or another function of that name is in use.
    """
    name = getattr(function, "__name__", "")
    if not inspect.isfunction(function) or not name.isidentifier():
        raise WorkersError(
            f"the task {limited(repr(function), 200)} is not a function with a name; write it with def, and give its "
            "options as task_kwargs"
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
    """Return True if a task's name is the name of a function object."""
    code = code_name(task)
    return code is not None and code.module == OBJECTS


def is_given(task: str) -> bool:
    """Return True if this process has the function object of that name."""
    return bool(_objects.get(task))


def check_name(text: str) -> None:
    """Raise WorkersError if a text cannot be the name of a user's task."""
    code = code_name(text)
    if code is None or not code.module or not code.attribute.isidentifier():
        raise WorkersError(f"unknown task {limited(repr(text), 200)}; accepted: images, {FORM}")


def describe(config: TaskConfig) -> Declaration:
    """Import the function and return its declaration.

    Raises:
        WorkersError: the function cannot be imported, or its declaration is not accepted.
    """
    try:
        return _declaration(config)
    except SpaceError as error:  # a module cannot be imported
        raise WorkersError(f"task {config.task}: {error}") from error


def _declaration(config: TaskConfig) -> Declaration:
    function = _function(config.task)
    options = _options(function, config)
    metrics, asked = _metrics(function, config)
    names = [metric.name for metric in metrics]
    objective = getattr(function, "objective", None) or next((n for n in names if n.startswith("val_")), names[0])
    tie_breaker = getattr(function, "tie_breaker", "")
    for what, name in (("objective", objective), ("tie_breaker", tie_breaker or objective)):
        if name not in names:
            raise WorkersError(
                f"task {config.task}: its {what} {name!r} is not one of its metrics; {nearest(str(name), names)}"
            )
    steps = getattr(function, "steps", 0)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= LARGEST_INTEGER:
        raise WorkersError(
            f"task {config.task}: its steps are {limited(repr(steps), 200)}; accepted: the number of the last step "
            "that it reports, as in: train.steps = 20"
        )
    return Declaration(metrics, objective, tie_breaker, (), steps, options, _digest(config.task), asked)


@dataclass(frozen=True, slots=True)
class Observation:
    """The outcome of a training, and how it used the activation.

    Attributes:
        outcome: how the training ended.
        made: number of activations that the function made.
        shapes: the shape of the first input of each activation that was called, in the order of the first calls.
    """

    outcome: Outcome
    made: int
    shapes: tuple[tuple[int, ...], ...]


def train(job: Job, device: torch.device | None = None, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Call the function once.

    Args:
        device: the value of `report.device`; by default CUDA if there is a GPU, otherwise the CPU.
        stopped: called at each report; if it returns True, the training ends as FAILED.

    Raises:
        WorkersError: the task is not the one with which the study began.
    """
    return observe(job, device, stopped).outcome


def observe(job: Job, device: torch.device | None = None, stopped: Callable[[], bool] = lambda: False) -> Observation:
    """Call the function once, and return how it ended and how it used the activation. See `train`."""
    declared = describe(job.task)
    if (began := job.task.parameters.get("digest", "")) not in ("", declared.digest):
        raise WorkersError(
            f"the code of task {job.task.task} has changed since the study began (digest {declared.digest}, then "
            f"{began}); put it back as it was, or start another study"
        )
    load_primitives(job.task.primitives)
    activation = ActivationFactory(activation_of(job.expression))
    report = Report(job, declared, device or default_device(), interrupter(job, stopped))
    _set_seeds(job.seed)
    outcome = _outcome(job, report, activation)
    if outcome.verdict is not Verdict.FAILED or outcome.permanent:
        report.state.remove()
    return Observation(outcome, activation.made, tuple(activation.shapes.values()))


def _outcome(job: Job, report: Report, activation: ActivationFactory) -> Outcome:
    """Call the function, and return the outcome."""
    verdict, reason, permanent, metrics = Verdict.COMPLETE, "", False, dict[str, float]()
    learned: tuple[Learned, ...] = ()
    try:
        found = _called(job, report, activation)
        report.end()
        _check_used(job, activation)
        metrics = report.result(found)
        learned = learned_parameters(activation.called.items())
    except WorkersError as error:  # the function breaks the contract, and would do so again
        verdict, reason, permanent = Verdict.FAILED, str(error), True
    except Ended as ended:
        verdict, reason, permanent = ended.verdict, ended.reason, ended.permanent
        metrics = report.latest if verdict is Verdict.PRUNED else {}
    return Outcome(verdict, reason, metrics, tuple(report.curve), permanent=permanent, learned=learned)


def _called(job: Job, report: Report, activation: ActivationFactory) -> object:
    """Return the result of the function. If a report has ended the training, raise the report's exception in place of
    any later one."""
    function = _function(job.task.task)
    given = {"activation": activation, "report": report}
    taken = {name: value for name, value in given.items() if name in _parameters(function)}
    try:
        return function(**taken, **job.task.parameters.get("options", {}))
    except BaseException:
        report.end()
        raise


class Report:
    """The object through which a training function reports its progress, and gets its seed, device and checkpoint.

    Attributes:
        seed: the seed of the training. The generators of torch, numpy and Python are seeded with it already.
        device: the device for the training.
        curve: the points reported so far.
        state: the checkpoint of this training.
    """

    def __init__(self, job: Job, declared: Declaration, device: torch.device, interrupt: Callable[[], None]) -> None:
        self.seed, self.device = job.seed, device
        self.curve: list[Point] = []
        self.state = SavedState(job, device)
        self._job, self._declared, self._interrupt = job, declared, interrupt
        self._ended: Ended | None = None

    def __call__(self, step: int, **metrics: float) -> None:
        """Report values of declared metrics at a step, which must be greater than the last one.

        Raises:
            Ended: the training must end, because the pruner stopped it, its time is up, a value is not finite, or the
                report is not accepted. The verdict stands even if the function catches the exception.
        """
        self.end()
        try:
            self._enter(step, metrics)
            self._interrupt()
            check_cutoffs(self._job.cutoffs, self.curve)
        except Ended as ended:
            self._ended = ended
            raise

    def save(self, state: Any) -> None:
        """Write a checkpoint: nested dictionaries and lists of tensors, numbers and texts.

        It is written at most once in `checkpoint_seconds` (a setting, 60 by default), so this can be called at every
        step.

        Raises:
            WorkersError: the state contains something else.
        """
        self.state.save_if_due(state, self.curve)

    def load(self) -> Any:
        """Return the state that was saved last, and continue the curve after the last step reported before it. Return
        None if there is no checkpoint."""
        state, curve = self.state.restore()
        self.curve[:] = curve
        return state

    def end(self) -> None:
        """Raise the exception of an earlier report again, if one has ended the training."""
        if self._ended:
            raise self._ended

    @property
    def latest(self) -> dict[str, float]:
        """The last reported value of each metric."""
        return {name: value for point in self.curve for name, value in point.metrics.items()}

    def result(self, found: object) -> dict[str, float]:
        """Return the function's result as metrics by name. A single number is the value of the objective.

        Raises:
            Ended: the result is not accepted, or a value is not finite.
        """
        name = self._declared.objective
        if isinstance(found, Real) and not isinstance(found, bool):
            found = {name: found}
        metrics = self._values(found, " that the task returned", whole=True)
        if name not in metrics:  # other metrics of the training split may be missing, but not the objective
            raise Ended(Verdict.FAILED, f"task {self._job.task.task} returned no {name}, its objective", True)
        return metrics

    def _enter(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to the curve."""
        least = self.curve[-1].step + 1 if self.curve else 0
        if isinstance(step, bool) or not isinstance(step, Integral) or not least <= step <= LARGEST_INTEGER:
            before = f" after step {least - 1}" if self.curve else ""
            raise Ended(
                Verdict.FAILED,
                f"task {self._job.task.task} reported step {limited(repr(step), 200)}{before}; accepted: whole numbers "
                f"from {least} to {LARGEST_INTEGER}",
                permanent=True,
            )
        self.curve.append(Point(int(step), self._values(metrics, f" of step {step}", whole=False)))

    def _values(self, metrics: object, where: str, whole: bool) -> dict[str, float]:
        if isinstance(metrics, Mapping):
            self._check_finite(metrics, where)
        try:
            return checked_metrics(metrics, self._declared, where, whole)
        except ValueError as error:
            advice = " (of a tensor, give float(value))" if _has_tensor(metrics) else ""
            raise Ended(Verdict.FAILED, f"task {self._job.task.task}: {error}{advice}", permanent=True) from error

    def _check_finite(self, metrics: Mapping[Any, Any], where: str) -> None:
        """Raise Ended as INFEASIBLE if a value is not finite or too large for the tables, which is no fault of the
        code."""
        for name, value in metrics.items():
            number = isinstance(value, (float, np.floating)) and self._declared.metric(str(name)) is not None
            if number and not abs(float(value)) <= LARGEST:
                raise Ended(Verdict.INFEASIBLE, f"{name}{where} is not finite: {float(value):g}")


class ActivationFactory:
    """A callable: `activation(channels, dim=1)` makes the activation module for one place in a network.

    Attributes:
        made: number of activations made.
        shapes: the shape of the first input of each activation that was called, by its number.
    """

    def __init__(self, activations: Activations) -> None:
        self._make = activations
        self.made = 0
        self.shapes: dict[int, tuple[int, ...]] = {}
        self._called: dict[int, nn.Module] = {}

    @property
    def called(self) -> dict[str, nn.Module]:
        """The activations that were called, by their numbers, in the order in which they were made."""
        return {str(number): self._called[number] for number in sorted(self._called)}

    def __call__(self, channels: int, dim: int = 1) -> nn.Module:
        if self._make.expansion > 1:
            raise WorkersError(f"{MAXOUT}; an activation in your own task gets one for each channel")
        if isinstance(channels, Tensor):
            raise WorkersError(
                "activation(channels) makes a module, which is then called with a tensor; it was given a tensor: write "
                "activation(channels)(tensor), and make the module where the network is made"
            )
        module = self._make(channels, dim)
        number, self.made = self.made, self.made + 1

        def note_call(called: nn.Module, inputs: tuple[Any, ...]) -> None:
            """Note the first call. The called module may be a deep copy, which keeps the hook."""
            self.shapes.setdefault(number, tuple(inputs[0].shape))
            self._called.setdefault(number, called)
            handle.remove()

        handle = module.register_forward_pre_hook(note_call)
        return module


def _check_used(job: Job, activation: ActivationFactory) -> None:
    if not activation.shapes:
        what = "called none of the modules that activation(channels) made" if activation.made else "made no activation"
        raise WorkersError(
            f"task {job.task.task} {what}: its result says nothing about the function. Use activation(channels) in "
            "place of each nn.ReLU()"
        )


def _function(task: str) -> Callable[..., Any]:
    check_name(task)
    code = code_name(task)
    assert code is not None  # noqa: S101 - check_name raises otherwise
    function = _object(task) if names_object(task) else _imported(task, code)
    parameters = _parameters(function)
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
    source = _source(code)
    module = _file_module(Path(source)) if source.endswith(".py") else import_module(source)
    function = getattr(module, code.attribute, None)
    if not callable(function):
        there = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        functions = nearest(code.attribute, there) if there else "it has none"
        raise WorkersError(f"task {task}: {code.module} has no function {code.attribute!r}; {functions}")
    return cast("Callable[..., Any]", function)


def _source(code: CodeName) -> str:
    """Return the module or the file to import. A node of a cluster that does not have the file has the copy that the
    driver has sent there."""
    if not code.module.endswith(".py"):
        return code.module
    places = [code.module, *(str(Path(folder, Path(code.module).name)) for folder in sys.path)]
    return next((place for place in places if Path(place).is_file()), code.module)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the arguments of a function; empty for functions in C, whose arguments Python does not know."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _file_module(path: Path) -> ModuleType:
    """Import a file as a module. It can import other files of its folder. A file that has changed is imported anew."""
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
        raise WorkersError(f"the file {path} of the task is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file may raise anything, such as SystemExit
        del sys.modules[name]
        reason = raised(error).partition("\n")[0]
        raise WorkersError(f"the file {path} of the task cannot be imported: {reason}{_line(path, error)}") from error
    return module


def _line(path: Path, error: BaseException) -> str:
    """Say in which line of a file an exception was raised; empty for a syntax error, whose message has the line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" (line {lines[-1]})" if lines else ""


def _digest(task: str) -> str:
    """Return a digest of the function's file and of the files that it imports from its folder."""
    code = code_name(task)
    assert code is not None  # noqa: S101 - the function has been imported
    if names_object(task):
        return _source_digest(_object(task))
    return files_digest(_source(code))[:16]


def _source_digest(function: Callable[..., Any]) -> str:
    """Return a digest of a function's source; empty if the source is not known, as for a function made by `exec`."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _options(function: Callable[..., Any], config: TaskConfig) -> dict[str, Any]:
    """Return the function's options by name, with the given values or else the defaults, as plain values."""
    parameters = _parameters(function)
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
    """Return a default value if JSON can express it, otherwise its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return limited(repr(value), 200)
    return value


def _metrics(function: Callable[..., Any], config: TaskConfig) -> tuple[tuple[Metric, ...], bool]:
    """Return the metrics that the function declares, and False. If it declares none, return the metric that the user
    named, and True."""
    named = getattr(function, "metrics", None)
    asked = config.parameters.get("objective") if named is None else None
    if asked:
        named = dict([asked])
    if not isinstance(named, Mapping) or not named:
        raise WorkersError(
            f"task {config.task} declares no metrics; write for example: {METRICS}, or give --objective NAME "
            "--direction minimize"
        )
    return tuple(_metric(config.task, name, facts) for name, facts in named.items()), bool(asked)


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
    values = metrics.values() if isinstance(metrics, Mapping) else [metrics]
    return any(isinstance(value, Tensor) for value in values)
