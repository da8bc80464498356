"""Nanoseconds an element of activation functions, forward and forward with backward, in five ways:

* ours: `Activation` as a module;
* exported: the module of the file that `code(function, "torch")` writes;
* eager: what a person would write by hand, operation by operation;
* compiled: torch.compile of that, its compile time aside (where there is a compiler);
* native: torch's own kernel, where it has one.

All are run in turn, in another order each round, since the speed of a shared machine drifts; each figure is the median
of the rounds, a ratio to native the median of the rounds' ratios. The share of copy bandwidth is that of a
forward pass, which reads and writes each element once, as `x.clone()` does.

    python -m benchmarks.activations --elements 524288
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space import Activation, baseline, code
from searcher.reports.cost import Apply, timed

CHANNELS = 8
WARM_UP = 3
beta = torch.ones(CHANNELS, 1, 1, requires_grad=True)

# Name or expression: what a person would write, and torch's own module.
FUNCTIONS: Mapping[str, tuple[Apply, Callable[[], nn.Module] | None]] = {
    "relu": (lambda x: torch.clamp(x, min=0), nn.ReLU),
    "relu6": (lambda x: torch.clamp(x, 0, 6), nn.ReLU6),
    "leaky_relu": (lambda x: torch.where(x > 0, x, 0.01 * x), nn.LeakyReLU),
    "prelu": (lambda x: torch.where(x > 0, x, 0.25 * beta * x), lambda: nn.PReLU(CHANNELS)),
    "elu": (lambda x: torch.where(x > 0, x, torch.expm1(x)), nn.ELU),
    "selu": (lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * torch.expm1(x)), nn.SELU),
    "swish1": (lambda x: x * torch.sigmoid(x), nn.SiLU),
    "gelu": (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), nn.GELU),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), nn.Mish),
    "softplus": (lambda x: torch.log1p(torch.exp(x)), nn.Softplus),
    "softsign": (lambda x: x / (1 + torch.abs(x)), nn.Softsign),
    "-softplus(-x)": (lambda x: torch.log(torch.sigmoid(x)), nn.LogSigmoid),
    "hard_sigmoid": (lambda x: torch.clamp(x / 6 + 0.5, 0, 1), nn.Hardsigmoid),
    "hard_swish": (lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1), nn.Hardswish),
    "min(max(x, -1), 1)": (lambda x: torch.clamp(x, -1, 1), nn.Hardtanh),
    "sigmoid": (lambda x: 1 / (1 + torch.exp(-x)), nn.Sigmoid),
    "tanh": (lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1), nn.Tanh),
    "swish": (lambda x: x * torch.sigmoid(beta * x), None),
    "squareplus": (lambda x: 0.5 * (x + torch.sqrt(x**2 + 4)), None),
    "squared_relu": (lambda x: torch.relu(x) ** 2, None),
    "smelu": (lambda x: torch.where(x.abs() < 1, (x + 1) ** 2 / 4, torch.relu(x)), None),
    "snake": (lambda x: x + torch.sin(beta * x) ** 2 / beta, None),
    "sine": (torch.sin, None),
    "golu": (lambda x: x * torch.exp(-torch.exp(-x)), None),
    "telu": (lambda x: x * torch.tanh(torch.exp(x)), None),
    "xielu": (lambda x: torch.where(x > 0, 0.8 * beta * x * x, 0.8 * beta * (torch.expm1(x) - x)) + 0.5 * x, None),
    "dyt": (lambda x: torch.tanh(0.5 * beta * x), None),
    "derf": (lambda x: torch.erf(0.5 * beta * x + beta - 1), None),
    "cos(x) - x": (lambda x: torch.cos(x) - x, None),
    "max(x, sigmoid(x))": (lambda x: torch.maximum(x, torch.sigmoid(x)), None),
    "x * tanh(x)": (lambda x: x * torch.tanh(x), None),
    "x * asinh(x)^2": (lambda x: x * torch.asinh(x) ** 2, None),
    "min(x, sin(x))": (lambda x: torch.minimum(x, torch.sin(x)), None),
    "beta * x + (1 - beta) * tanh(x)": (lambda x: beta * x + (1 - beta) * torch.tanh(x), None),
    "exp(-x^2)": (lambda x: torch.exp(-(x**2)), None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--elements", type=int, default=64 * CHANNELS * 32 * 32, help="of the input, images of 32x32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; one is less noisy on a shared machine")
    parser.add_argument("--only", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS), metavar="FUNCTION")
    parser.add_argument("--no-compile", action="store_true", help="leave out the column that takes longest")
    parser.add_argument("-f", "--format", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # the compiler's own
    beta.data = beta.data.to(arguments.device, getattr(torch, arguments.dtype))
    rows = max(1, arguments.elements // (CHANNELS * 32 * 32))
    x = torch.randn(rows, CHANNELS, 32, 32, device=arguments.device, dtype=getattr(torch, arguments.dtype))
    report(x.requires_grad_(), arguments)


def report(x: Tensor, arguments: argparse.Namespace) -> None:
    why = "left out" if arguments.no_compile else compiler_missing(x.device)
    machine = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": torch.cuda.get_device_name() if x.is_cuda else f"{os.cpu_count()} cores, {arguments.threads} used",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "input": f"{tuple(x.shape)} {arguments.dtype}",
        "no compiled column": why,
    }
    if arguments.format == "table":
        print("; ".join(f"{name}: {value}" for name, value in machine.items() if value))
        print(HEAD, flush=True)
    figures = []
    for name in arguments.only:
        figures.append(measure(name, x, arguments.rounds, compiled=not why))
        if arguments.format == "table":
            print(line(figures[-1]), flush=True)
    if arguments.format == "json":
        print(json.dumps({**machine, "functions": figures}, indent=2))


def compiler_missing(device: torch.device) -> str:
    """Why torch.compile does not work here; empty if it does."""
    try:
        torch.compile(lambda x: x * torch.sigmoid(x))(torch.randn(8, device=device))
    except (RuntimeError, ImportError, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def measure(name: str, x: Tensor, rounds: int, compiled: bool) -> dict[str, Any]:
    """Nanoseconds an element of each way, forward and both, and the ratios to the native kernel."""
    eager, native = FUNCTIONS[name]
    expression = name if " " in name or "(" in name else baseline(name).expression
    modules = {"ours": Activation(expression, CHANNELS), "exported": exported(expression)}
    ways: dict[str, Apply] = {way: module.to(x.device, x.dtype) for way, module in modules.items()}
    ways |= {"copy": torch.clone, "eager": eager}
    if compiled:
        torch._dynamo.reset()  # it keeps, and limits, what was compiled for one line of code
        ways["compiled"] = torch.compile(eager)
    if native:
        ways["native"] = native().to(x.device, x.dtype)
    forward, both = (
        timed(ways, x, rounds, backward=backward, clear=[beta], warm_up=WARM_UP, elements=2_000_000)
        for backward in (False, True)
    )
    found: dict[str, Any] = {"function": name}
    for kind, times in (("forward", forward), ("both", both)):
        found |= {f"{way}_{kind}": median(taken) / x.numel() * 1e9 for way, taken in times.items()}
        for way in ("ours", "exported") if native else ():
            ratios = [one / other for one, other in zip(times[way], times["native"], strict=True)]
            found[f"{way}_ratio_{kind}"] = median(ratios)
    found["copy_share"] = found["copy_forward"] / found["ours_forward"]
    return found


def exported(expression: str) -> nn.Module:
    """Return the module that an exported file defines, imported from the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "exported.py"
        file.write_text(code(expression, "torch", name="Exported", channels=CHANNELS))
        spec = importlib.util.spec_from_file_location("exported", file)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    made: nn.Module = module.Exported()
    return made


WAYS = ("ours", "exported", "eager", "compiled", "native")
RATIOS = ("ours", "exported")  # each to native
HEAD = (
    "| function | "
    + " | ".join([*WAYS, *(f"{way} / native" for way in RATIOS)])
    + " | "
    + " | ".join([*(f"{way}, both" for way in WAYS), *(f"{way} / native, both" for way in RATIOS)])
    + " | copy bandwidth |\n|"
    + "---|" * (2 * len(WAYS) + 2 * len(RATIOS) + 2)
)


def line(figures: dict[str, Any]) -> str:
    def cells(kind: str) -> list[str]:
        numbers = [figures.get(f"{way}_{kind}") for way in WAYS]
        ratios = [figures.get(f"{way}_ratio_{kind}") for way in RATIOS]
        return [
            *("-" if n is None else f"{n:.2f}" for n in numbers),
            *("-" if ratio is None else f"{ratio:.2f}x" for ratio in ratios),
        ]

    name = figures["function"]
    share = f"{figures['copy_share']:.0%}"
    return "| " + " | ".join([name, *cells("forward"), *cells("both"), share]) + " |"


if __name__ == "__main__":
    sys.exit(main())
