"""Activations beside the bandwidth of a copy, torch's own modules and torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.activations import CHANNELS, FUNCTIONS, beta, compiler_missing
from benchmarks.gpu.measuring import Cases, Run, Skip, device_seconds, interleaved, wall_seconds
from benchmarks.gpu.results import Figures, ratios, spread
from search_space import Activation, baseline

Apply = Callable[[Tensor], Tensor]

NAMES = (
    *("relu", "swish1", "swish", "gelu", "mish", "elu"),
    *("max(x, sigmoid(x))", "x * tanh(x)", "cos(x) - x", "beta * x + (1 - beta) * tanh(x)"),
)
BACKWARD_COPIES = 2.5  # forward and backward must move five tensors (x, y; x, dy, dx), a copy moves two


def activations(run: Run) -> Cases:
    """Forward, and forward with backward: ours, ours operation by operation, torch's own module."""
    names, types = (NAMES[1:3], ("float32",)) if run.small else (NAMES, ("float32", "bfloat16"))
    for (name, dtype), seconds in run.shared([(name, dtype) for dtype in types for name in names]):
        yield f"{name}, {dtype}", partial(_measure, run, name, dtype, seconds, False)


def compiled(run: Run) -> Cases:
    """The same beside torch.compile, whose compile time is apart."""
    if run.small:
        raise Skip("a compile takes longer than everything else; left out with --small")
    if reason := compiler_missing(torch.device(run.device)):
        raise Skip(f"torch.compile does not work here: {reason}")
    for name, seconds in run.shared(NAMES):
        yield f"{name}, float32", partial(_measure, run, name, "float32", seconds, True)


def _measure(run: Run, name: str, dtype: str, seconds: float, with_compiler: bool) -> Figures:
    kind = getattr(torch, dtype)
    beta.data = beta.data.to(run.device, kind)
    x = torch.randn(run.sizes.elements // (CHANNELS * 1024), CHANNELS, 32, 32, device=run.device, dtype=kind)
    ways = _ways(name, x)
    found: Figures = {"elements": x.numel()}
    if with_compiler:
        ways["compiled"], found["compile_seconds"] = _compile(name, x, run)
    for backward, share in ((False, 0.4), (True, 0.6)):
        found |= _figures(ways, x.requires_grad_(backward), run, seconds * share)
    return found


def _ways(name: str, x: Tensor) -> dict[str, Apply]:
    expression = name if " " in name else baseline(name).expression
    ways: dict[str, Apply] = {
        "copy": torch.clone,
        "ours": Activation(expression, CHANNELS).to(x.device, x.dtype),
        "ours_by_operations": Activation(expression, CHANNELS, native=False).to(x.device, x.dtype),
    }
    if own := FUNCTIONS[name][1]:
        ways["torch"] = own().to(x.device, x.dtype)
    return ways


def _compile(name: str, x: Tensor, run: Run) -> tuple[Apply, float]:
    """The function written by hand and compiled, and the seconds that compiling both passes takes."""
    torch._dynamo.reset()  # it limits how much is compiled for one line of code
    apply = torch.compile(FUNCTIONS[name][0])

    def both() -> None:
        with torch.no_grad():
            apply(x)
        _passes(apply, x.detach().requires_grad_(), torch.ones_like(x), 1)

    return apply, wall_seconds(both, run.device)


def _figures(ways: Mapping[str, Apply], x: Tensor, run: Run, seconds: float) -> Figures:
    """Nanoseconds an element of each way, and its share of the bandwidth of a copy: 1 is as fast as memory allows."""
    backward = x.requires_grad
    kind = "both" if backward else "forward"
    upstream, count = torch.randn_like(x), run.sizes.passes
    work = {name: partial(_passes, apply, x, upstream, count) for name, apply in ways.items()}
    if backward:
        work["copy"] = partial(_passes, torch.clone, x.detach(), upstream, count)
    with torch.set_grad_enabled(backward):
        times = interleaved(work, run, seconds, device_seconds)
    least = [taken * (BACKWARD_COPIES if backward else 1.0) for taken in times["copy"]]
    found: Figures = {}
    for name, taken in times.items():
        if name != "copy" or not backward:
            found[f"{name}_{kind}_ns"] = spread([one / count / x.numel() * 1e9 for one in taken])
        if name != "copy":
            found[f"{name}_{kind}_of_copy"] = ratios(least, taken)
    return found


def _passes(apply: Apply, x: Tensor, upstream: Tensor, count: int) -> None:
    """Evaluate so many times; with the slopes, if x asks for them."""
    for _ in range(count):
        y = apply(x)
        if x.requires_grad:
            y.backward(upstream)
            x.grad = beta.grad = None
            if isinstance(apply, nn.Module):
                apply.zero_grad(set_to_none=True)
