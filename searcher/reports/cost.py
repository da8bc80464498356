"""Measure what an activation costs on this machine: time for each element, and memory that backward needs.

All functions of a measurement and ReLU are timed in turn, in another order in each round, because the speed of a shared
machine drifts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from search_space import SpaceError
from searcher.display import headline
from workers.contract import WorkersError
from workers.tasks.images.models import default_device
from workers.tasks.images.networks.sites import Activations, activation_of

Apply = Callable[[Tensor], Tensor]
Row = Mapping[str, Any]
Times = dict[str, list[float]]

RELU = "max(x, 0)"
SHAPES = {"cpu": (64, 16, 16, 16), "cuda": (256, 64, 32, 32)}  # batch, channels, height, width
ROUNDS = 11
WARM_UP = 2  # rounds that are not counted
ELEMENTS = 500_000  # that a round takes each function through, at least


@dataclass(frozen=True, slots=True)
class Cost:
    """What one function costs.

    Attributes:
        expression: the function, as it was given.
        forward_ns: nanoseconds for each element, forward without a graph. Median of the rounds; None if not measured.
        both_ns: the same, forward and backward.
        forward_ratio, both_ratio: these times, divided by ReLU's of the same rounds.
        saved_bytes: memory that is kept from forward to backward, in bytes for each element: of the function's input,
            if it needs this, and of what else it keeps. Parameters do not count.
        device: where it was measured.
        shape: of the input: batch, channels, height, width.
        dtype: of the input.
        threads: of the CPU.
        note: why nothing was measured; otherwise empty.
    """

    expression: str
    forward_ns: float | None
    both_ns: float | None
    forward_ratio: float | None
    both_ratio: float | None
    saved_bytes: float | None
    device: str
    shape: tuple[int, ...]
    dtype: str
    threads: int
    note: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Return the fields as plain values; the shape as text, as in `64x16x16x16`."""
        return asdict(self) | {"shape": "x".join(map(str, self.shape))}


def measure(
    expressions: Sequence[str],
    device: torch.device | None = None,
    *,
    shape: tuple[int, int, int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    threads: int = 1,
    rounds: int = ROUNDS,
    tell: Callable[[float], object] = float,
) -> list[Cost]:
    """Measure functions beside ReLU, each as a training uses it.

    A function that cannot be measured has a note instead of numbers: a text that is no expression, an expression with
    primitives that are not registered, or Maxout, whose cost is mostly that of the wider layer before it.

    Args:
        expressions: the functions, as texts.
        device: where to measure; None: CUDA if there is a GPU, otherwise the CPU, as for trainings.
        shape: the shape of the input; None: 262,144 elements on a CPU, 16,777,216 on a GPU.
        threads: how many threads a CPU uses. One is least noisy on a shared machine.
        rounds: how often each function is timed.
        tell: is told the part of the work that is done, from 0 to 1.

    Returns:
        A cost for each expression, in their order.
    """
    device = device or default_device()
    shape = shape or SHAPES.get(device.type, SHAPES["cpu"])
    modules, notes = _modules(expressions, shape[1])
    with _threads(threads), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        x = torch.randn(shape, device=device, dtype=dtype).requires_grad_()
        for module in modules.values():
            module.to(device, dtype)
        saved = {text: saved_bytes(module, x) for text, module in modules.items()}
        parameters = [parameter for module in modules.values() for parameter in module.parameters()]
        forward = timed(modules, x, rounds, backward=False, tell=lambda part: tell(part / 3))
        both = timed(modules, x, rounds, backward=True, clear=parameters, tell=lambda part: tell((1 + 2 * part) / 3))
    where = f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
    found = []
    for text in expressions:
        name = _normal(text)
        found.append(
            Cost(
                text,
                forward_ns=_ns(forward, name, x.numel()),
                both_ns=_ns(both, name, x.numel()),
                forward_ratio=_ratio(forward, name),
                both_ratio=_ratio(both, name),
                saved_bytes=saved.get(name),
                device=where,
                shape=shape,
                dtype=str(dtype).removeprefix("torch."),
                threads=threads,
                note=notes.get(text, ""),
            )
        )
    return found


def with_costs(rows: Sequence[Row], **options: Any) -> list[dict[str, Any]]:
    """Return the rows of a leaderboard with fields for the cost of each function, `cost_forward_ns` and others.

    Args:
        options: as in `measure`.
    """
    costs = measure([row["expression"] for row in rows], **options)
    return [
        {**row, **{f"cost_{name}": value for name, value in cost.to_plain().items() if name != "expression"}}
        for row, cost in zip(rows, costs, strict=True)
    ]


def in_words(row: Row) -> str:
    """Return how the costs in a row of `with_costs` were measured, in a line."""
    device, threads = row["cost_device"], row["cost_threads"]
    cores = "" if device.startswith("cuda") else f", {threads} thread{'s' * (threads != 1)}"
    return (
        f"Costs: time for each element, and times ReLU's; kept: memory for backward, bytes for each element. "
        f"Measured on {device}{cores}, {row['cost_dtype']}, input {row['cost_shape']}."
    )


def _modules(expressions: Sequence[str], channels: int) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return the modules by their normal forms, ReLU's among them, and why other texts have none."""
    modules: dict[str, nn.Module] = {RELU: activation_of(RELU)(channels)}
    notes: dict[str, str] = {}
    for text in expressions:
        try:
            made = activation_of(text)
        except (SpaceError, WorkersError) as error:
            notes[text] = headline(str(error))
            continue
        if made.expression is None:
            notes[text] = f"its layer must be {made.expansion} times as wide: no cost for each element"
        else:
            modules.setdefault(str(made.expression.normal()), made(channels))
    return modules, notes


def _normal(text: str) -> str:
    """Return the normal form of an expression; of other texts, themselves."""
    try:
        made: Activations = activation_of(text)
    except (SpaceError, WorkersError):
        return text
    return text if made.expression is None else str(made.expression.normal())


def _ns(times: Times, name: str, elements: int) -> float | None:
    return median(times[name]) / elements * 1e9 if name in times else None


def _ratio(times: Times, name: str) -> float | None:
    return median(times[name]) / median(times[RELU]) if name in times else None


def timed(
    ways: Mapping[str, Apply],
    x: Tensor,
    rounds: int,
    *,
    backward: bool,
    clear: Sequence[Tensor] = (),
    warm_up: int = WARM_UP,
    elements: int = ELEMENTS,
    tell: Callable[[float], object] = float,
) -> Times:
    """Return the seconds that each way takes for x in each round. A round takes each way in turn, some times.

    Args:
        ways: what is timed, by name.
        x: the input, which requires a gradient.
        rounds: number of rounds, `warm_up` rounds before them aside.
        backward: time forward and backward; otherwise forward without a graph.
        clear: tensors beside x whose gradients are dropped after each backward, as they are after a step of a training.
        elements: a small input is taken several times, for so many elements in all.
        tell: is told the part of the rounds that is done.
    """
    upstream, times, draw = torch.randn_like(x), {way: list[float]() for way in ways}, random.Random()

    def once(apply: Apply) -> None:
        if backward:
            result = apply(x)
            if result.requires_grad:  # a constant has no backward
                torch.autograd.backward(result, upstream)
            for tensor in (x, *clear):
                tensor.grad = None
        else:
            apply(x)

    passes = max(1, min(1_000, elements // x.numel()))
    with torch.set_grad_enabled(backward):
        for turn in range(warm_up + rounds):
            for way, apply in draw.sample(list(ways.items()), len(ways)):  # each after each other: caches are shared
                _wait(x)
                start = time.perf_counter()
                for _ in range(passes):
                    once(apply)
                _wait(x)
                if turn >= warm_up:
                    times[way].append((time.perf_counter() - start) / passes)
            tell((turn + 1) / (warm_up + rounds))
    return times


def saved_bytes(module: nn.Module, x: Tensor) -> float:
    """Return the memory that is kept from forward to backward, in bytes for each element of x.

    A tensor that is kept twice counts once. Parameters do not count, because they are kept in any case.
    """
    kept: dict[int, Tensor] = {}  # by the place of its memory; the tensors stay, so that no place is used again

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = module(x)
    for parameter in module.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total / x.numel()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Use so many threads of the CPU in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()
