"""torch.compile for activations: all operations of an expression in one kernel, where the run is long enough for it.

Compiling takes seconds, and an expression that is one kernel already gains nothing. What a compile costs and saves here
is measured, once a process and device, with one expression that is really compiled; what it would save for another is
predicted from that: so much for each operation that joins another's kernel.
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
_ONE_KERNEL = "max(x, 0)"  # of those that read and write: no compiled one is cheaper
_ELEMENTS, _ROUNDS = 1 << 20, 7
_MIN_COMPILE_SECONDS = 1.0  # seconds: no compile takes less, so that nothing need be known of the host


@dataclass(frozen=True, slots=True)
class Host:
    """What torch.compile costs and saves on one device. `broken`: why it does not work there."""

    compile_seconds: float = 0.0  # one expression, forward and backward, and the forward pass of an evaluation
    saved_ns: float = 0.0  # an element, forward and backward, for each operation that joins another's kernel
    floor_ns: float = 0.0  # the cost of one kernel
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Whether to compile an expression, and why. Nanoseconds are an element's, forward and backward, in float32."""

    compile: bool
    eager_ns: float  # measured; NaN for what is one kernel already
    compiled_ns: float  # predicted, or measured where it was compiled; NaN where it was out of the question
    compile_seconds: float
    reason: str


@lru_cache
def host(device: str = "cpu") -> Host:
    """Compiles one expression and remembers what that took: some seconds, once."""
    module = Activation(_PROBE.format(random.Random().random()))  # a number that no cache of the compiler has seen
    module.to(device)
    operations = len(module.program.steps)
    eager = nanoseconds(module, device)
    start = time.perf_counter()
    module.compiled = True
    try:
        _run_both(module, device)
    except (RuntimeError, ImportError, OSError) as error:  # no compiler, no Triton, no room for its files
        return Host(broken=next(iter(str(error).splitlines()), type(error).__name__))
    seconds = time.perf_counter() - start
    saved = (eager - nanoseconds(module, device)) / (operations - 1)
    return Host(seconds, saved, nanoseconds(Activation(_ONE_KERNEL), device))


def plan(
    expression: Expression | str, elements: int, passes: int, *, device: str = "cpu", known: Host | None = None
) -> Plan:
    """Whether compiling pays: what it saves over the run must exceed what it costs.

    Args:
        expression: a tree, or its text.
        elements: all elements that the activations of the model see in one pass.
        passes: forward and backward passes of the run.
        device: where it runs.
        known: what a compile costs and saves, `host(device)` if not given.

    Raises:
        ParseError: text that is no expression.
    """
    module = Activation(expression).to(device)
    operations = len(module.program.steps)
    if operations < 2:
        return Plan(False, float("nan"), float("nan"), 0.0, "it is one kernel already")
    eager = nanoseconds(module, device, min(elements, _ELEMENTS))
    if known is None and (whole := eager * 1e-9 * elements * passes) < _MIN_COMPILE_SECONDS:
        return Plan(False, eager, float("nan"), 0.0, f"it takes {whole:.3g} s in all, a compile some seconds")
    costs = known or host(device)
    if costs.broken:
        return Plan(False, eager, float("nan"), 0.0, f"torch.compile does not work here: {costs.broken}")
    compiled = max(costs.floor_ns, eager - (operations - 1) * costs.saved_ns)
    return _decided(Plan(False, eager, compiled, costs.compile_seconds, ""), elements * passes)


def compile_activations(model: nn.Module) -> str | None:
    """Every `Activation` of the model through torch.compile, from its next call on; why not, if that does not work.

    Copies, pickles and the state are those of the model before.
    """
    activations = _activations(model)
    for device in {_device(module, model) for module in activations}:
        if broken := host(device).broken:
            return broken
    for module in activations:
        module.compiled = True
    return None


def compile_where_it_pays(model: nn.Module, example: Tensor | tuple[Any, ...], passes: int) -> dict[str, Plan]:
    """The activations for which `plan` says so are compiled; a plan for each expression. The saving is then measured,
    and what turns out slower goes on as before.

    Args:
        model: any module with `Activation`s in it; changed in place.
        example: an input, a whole batch, or a tuple of the arguments; it goes through a copy of the model.
        passes: forward and backward passes of the run.
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
    """An element's time, forward and backward, in float32; the fastest of some passes."""
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
    """A pass of training and one of evaluation: each has a kernel of its own."""
    x = _input(module, device)
    with torch.no_grad():
        module(x)
    x.requires_grad_()
    gradients(module(x), [x, *module.parameters()])


def _input(module: Activation, device: str, elements: int = 0) -> Tensor:
    """Normal numbers, about so many, in the shape of a batch of images; no size is 1, which the compiler sets apart."""
    channels = max(2, module.channels)
    draw = torch.Generator(device).manual_seed(0)  # the user's own is not to be drawn from
    return torch.randn(2, channels, max(2, elements // (8 * channels)), 4, device=device, generator=draw)


def _measured(predicted: Plan, module: Activation, elements: int, device: str) -> Plan:
    """The plan with what a compile of this very module takes and what it leaves."""
    module.compiled = True
    start = time.perf_counter()
    _run_both(module, device)
    seconds = time.perf_counter() - start
    compiled = nanoseconds(module, device, min(elements, _ELEMENTS))
    faster = compiled < predicted.eager_ns  # the cost is spent: nothing else counts now
    reason = f"measured: {predicted.eager_ns:.3g} ns an element, {compiled:.3g} ns compiled in {seconds:.3g} s"
    return Plan(faster, predicted.eager_ns, compiled, seconds, reason)


def _decided(found: Plan, elements: int) -> Plan:
    saved = (found.eager_ns - found.compiled_ns) * 1e-9 * elements
    pays = saved > found.compile_seconds
    verb = "saves" if pays else "would save"
    reason = f"it {verb} {saved:.3g} s over the run, a compile takes {found.compile_seconds:.3g} s"
    return replace(found, compile=pays, reason=reason)


def _elements(model: nn.Module, example: Tensor | tuple[Any, ...]) -> Counter[Expression]:
    """Elements that the activations of each expression see in one pass, by a dry run of a copy."""
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
    """Where the activation runs: where its parameter is, else the model's first."""
    near = next((parameter for owner in (module, model) for parameter in owner.parameters()), None)
    return "cpu" if near is None else str(near.device)


def _wait(x: Tensor) -> None:
    """Until the device has done what it was asked for."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
