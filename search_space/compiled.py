"""Compile activations with torch.compile, so that all operations of an expression become one kernel, if that pays.

Compiling takes seconds, and it saves nothing for an expression that is one kernel already. `host` compiles one
expression, once per process and device, and measures what that costs and saves. `plan` predicts from this what a
compile would save for another expression: the same time for each operation that moves into the kernel of another one.
"""

from __future__ import annotations

import copy
import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from search_space.activation import Activation, gradients
from search_space.expression import Expression

_PROBE = "tanh(x + {}) * cos(beta * x) - max(x, sigmoid(x))"
_ONE_KERNEL = "max(x, 0)"  # reads and writes memory once: no compiled expression is faster
_ELEMENTS, _ROUNDS = 1 << 20, 7
_MIN_COMPILE_SECONDS = 1.0  # no compile takes less; for shorter runs, the host need not be measured


@dataclass(frozen=True, slots=True)
class Host:
    """What torch.compile costs and saves on one device.

    Attributes:
        compile_seconds: time to compile one expression: forward and backward pass, and the forward pass of evaluation.
        saved_ns: nanoseconds saved per element (forward and backward) for each operation that moves into the kernel of
            another one.
        floor_ns: nanoseconds per element (forward and backward) of one kernel.
        broken: why torch.compile does not work on this device; empty if it works.
    """

    compile_seconds: float = 0.0
    saved_ns: float = 0.0
    floor_ns: float = 0.0
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision whether to compile an expression, and the reason.

    Attributes:
        compile: the decision.
        eager_ns: nanoseconds per element, forward and backward, in float32, without torch.compile. Measured; NaN if
            the expression is one kernel already.
        compiled_ns: the same with torch.compile. Measured if it was compiled, predicted otherwise; NaN if there was no
            need to predict it.
        compile_seconds: time that the compile takes.
        reason: one sentence for people.
    """

    compile: bool
    eager_ns: float
    compiled_ns: float
    compile_seconds: float
    reason: str


@lru_cache
def host(device: str = "cpu") -> Host:
    """Compile one expression on a device, and measure the costs. The first call takes some seconds; the result is
    cached for the process."""
    module = Activation(_PROBE.format(random.Random().random()))  # a new constant, so that no compiler cache has it
    module.to(device)
    operations = len(module.program.steps)
    eager = nanoseconds(module, device)
    start = time.perf_counter()
    module.compiled = True
    try:
        _run_both(module, device)
    except (RuntimeError, ImportError, OSError) as error:  # such as no compiler, no Triton, or a full disk
        return Host(broken=next(iter(str(error).splitlines()), type(error).__name__))
    seconds = time.perf_counter() - start
    saved = (eager - nanoseconds(module, device)) / (operations - 1)
    return Host(seconds, saved, nanoseconds(Activation(_ONE_KERNEL), device))


def plan(
    expression: Expression | str, elements: int, passes: int, *, device: str = "cpu", known: Host | None = None
) -> Plan:
    """Decide whether to compile an expression: the time saved over the run must be longer than the compile.

    Args:
        expression: a tree, or its text.
        elements: the number of elements that all activations with this expression take in one pass.
        passes: the number of forward and backward passes in the run.
        device: the device on which it runs, such as "cpu" or "cuda:0".
        known: what a compile costs and saves; `host(device)` if not given.

    Raises:
        ParseError: the text is not an expression.
    """
    module = Activation(expression).to(device)
    operations = len(module.program.steps)
    if operations < 2:
        return Plan(False, float("nan"), float("nan"), 0.0, "it is one kernel already")
    eager = nanoseconds(module, device, min(elements, _ELEMENTS))
    if known is None and (whole := eager * 1e-9 * elements * passes) < _MIN_COMPILE_SECONDS:
        reason = f"it takes {whole:.3g} s in total, and a compile takes some seconds"
        return Plan(False, eager, float("nan"), 0.0, reason)
    costs = known or host(device)
    if costs.broken:
        return Plan(False, eager, float("nan"), 0.0, f"torch.compile does not work here: {costs.broken}")
    compiled = max(costs.floor_ns, eager - (operations - 1) * costs.saved_ns)
    return _decided(Plan(False, eager, compiled, costs.compile_seconds, ""), elements * passes)


def compile_activations(model: nn.Module) -> str | None:
    """Let every `Activation` of the model run through torch.compile, from its next call on.

    The structure of the model and its state do not change, so it can be copied, pickled and saved as before.

    Returns:
        None, or the reason why torch.compile does not work on one of the devices. Then nothing has changed.
    """
    activations = _activations(model)
    for device in {_device(module, model) for module in activations}:
        if broken := host(device).broken:
            return broken
    for module in activations:
        module.compiled = True
    return None


def compile_where_it_pays(model: nn.Module, example: Tensor | tuple[Any, ...], passes: int) -> dict[str, Plan]:
    """Compile the activations of a model for which `plan` says that it pays.

    The time saved is measured afterwards. An expression that is slower when compiled runs without torch.compile.

    Args:
        model: any module that contains `Activation`s; changed in place.
        example: an input with a whole batch, or a tuple of the arguments. A copy of the model is run on it once.
        passes: the number of forward and backward passes in the run.

    Returns:
        The text of each expression in the model -> its plan.
    """
    plans: dict[str, Plan] = {}
    for expression, elements in _elements(model, example).items():
        chosen = [module for module in _activations(model) if module.expression == expression]
        device = _device(chosen[0], model)
        found = plan(expression, elements, passes, device=device)
        if found.compile:
            found = _measured(found, chosen[0], elements, device)
        for module in chosen:
            module.compiled = found.compile
        plans[str(expression)] = found
    return plans


def nanoseconds(module: Activation, device: str, elements: int = _ELEMENTS) -> float:
    """Return the nanoseconds per element of a forward and a backward pass in float32: the fastest of seven passes.

    Args:
        module: the activation.
        device: where the module is, such as "cpu" or "cuda:0".
        elements: about how many elements the input has.
    """
    x = _input(module, device, elements).requires_grad_()
    taken = []
    for _ in range(_ROUNDS + 2):
        _wait(x)
        start = time.perf_counter()
        gradients(module(x), [x, *module.parameters()])
        _wait(x)
        taken.append(time.perf_counter() - start)
    return min(taken[2:]) / x.numel() * 1e9


def _run_both(module: Activation, device: str) -> None:
    """Run one pass of evaluation and one of training. Torch compiles a separate kernel for each."""
    x = _input(module, device)
    with torch.no_grad():
        module(x)
    x.requires_grad_()
    gradients(module(x), [x, *module.parameters()])


def _input(module: Activation, device: str, elements: int = 0) -> Tensor:
    """Return about `elements` normally distributed numbers, in the shape of a batch of images.

    No dimension has the size 1, because torch.compile makes special kernels for that size.
    """
    channels = max(2, module.channels)
    draw = torch.Generator(device).manual_seed(0)  # does not change the state of the user's generator
    return torch.randn(2, channels, max(2, elements // (8 * channels)), 4, device=device, generator=draw)


def _measured(predicted: Plan, module: Activation, elements: int, device: str) -> Plan:
    """Compile this module, and return a plan with the measured times."""
    module.compiled = True
    start = time.perf_counter()
    _run_both(module, device)
    seconds = time.perf_counter() - start
    compiled = nanoseconds(module, device, min(elements, _ELEMENTS))
    faster = compiled < predicted.eager_ns  # the compile is done, so its cost does not count any more
    reason = f"measured: {predicted.eager_ns:.3g} ns an element, {compiled:.3g} ns compiled in {seconds:.3g} s"
    return Plan(faster, predicted.eager_ns, compiled, seconds, reason)


def _decided(found: Plan, elements: int) -> Plan:
    """Return the plan with the decision and the reason, for so many elements over the whole run."""
    saved = (found.eager_ns - found.compiled_ns) * 1e-9 * elements
    pays = saved > found.compile_seconds
    verb = "saves" if pays else "would save"
    reason = f"it {verb} {saved:.3g} s over the run, and a compile takes {found.compile_seconds:.3g} s"
    return replace(found, compile=pays, reason=reason)


def _elements(model: nn.Module, example: Tensor | tuple[Any, ...]) -> Counter[Expression]:
    """Run a copy of the model on the example, and count the elements that reach the activations of each expression."""
    seen: Counter[Expression] = Counter()

    def count(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        (x,) = (*args, *kwargs.values())
        seen[module.expression] += x.numel()  # type: ignore[index]

    copied = copy.deepcopy(model).eval()
    for module in _activations(copied):
        module.register_forward_pre_hook(count, with_kwargs=True)
    with torch.no_grad():
        copied(*(example if isinstance(example, tuple) else (example,)))
    return seen


def _activations(model: nn.Module) -> list[Activation]:
    return [module for module in model.modules() if isinstance(module, Activation)]


def _device(module: Activation, model: nn.Module) -> str:
    """Return the device of the activation's parameters; if it has none, of the model's first parameter."""
    near = next((parameter for owner in (module, model) for parameter in owner.parameters()), None)
    return "cpu" if near is None else str(near.device)


def _wait(x: Tensor) -> None:
    """Wait until the device of x has finished all work."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
