"""The functions of the expression language, and the primitives of the search space.

`FUNCTIONS` are the functions of the language: name -> torch function. `UNARY` and `BINARY` are the primitives of
Ramachandran, Zoph and Le 2017 (arXiv 1710.05941, section 2), written in that language.

The paper does not define everything. Here eps is 1e-6, sinc is sin(x)/x, the square root of a negative number is NaN,
and every beta starts at 1 (docs/search-space.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from search_space.sinc import sinc

EPS = 1e-6

Value = Any  # a Tensor, or a Python number for a constant operand; at least one operand is a Tensor


class SpaceError(ValueError):
    """An argument is not accepted. The message names the value, and says what is accepted."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function of the language.

    Attributes:
        name: how it is written.
        arity: the number of operands, 1 or 2.
        apply: computes it; for two operands, one may be a Python number.
        meaning: a line for tables.
    """

    name: str
    arity: int
    apply: Callable[..., Value]
    meaning: str


def _within(number: float, tensor: Tensor) -> float:
    """Return the number, or infinity if it is beyond the range of the tensor's type. Torch would raise an error."""
    return math.copysign(math.inf, number) if abs(number) > torch.finfo(tensor.dtype).max else number


def _maximum(a: Value, b: Value) -> Value:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.maximum(a, b)
    tensor, number = (a, b) if isinstance(a, Tensor) else (b, a)
    # The gradient of relu at its kink is 0, and of clamp 1. ReLU networks are usually trained with relu.
    return torch.relu(tensor) if number == 0 else torch.clamp_min(tensor, _within(number, tensor))


def _minimum(a: Value, b: Value) -> Value:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.minimum(a, b)
    tensor, number = (a, b) if isinstance(a, Tensor) else (b, a)
    return -torch.relu(-tensor) if number == 0 else torch.clamp_max(tensor, _within(number, tensor))


def _power(a: Value, b: Value) -> Value:
    return a ** (b if isinstance(b, Tensor) else _within(b, a))


def _sqrt(a: Tensor) -> Tensor:
    # The slope of sqrt at 0 is infinite. For x < 0, it would turn the slope 0 of sqrt(max(x, 0)) into NaN, so it is set
    # to 0.
    zero = a == 0
    return torch.where(zero, 0.0, torch.sqrt(torch.where(zero, 1.0, a)))  # torch.where keeps the memory format


def _softplus(a: Tensor) -> Tensor:
    # Above 40, the difference between log(1 + exp(a)) and a is smaller than the resolution of float64.
    return torch.nn.functional.softplus(a, threshold=40.0)


WORDS: dict[str, Function] = {
    row.name: row
    for row in (
        Function("+", 2, lambda a, b: a + b, "sum"),
        Function("-", 2, lambda a, b: a - b, "difference"),
        Function("*", 2, lambda a, b: a * b, "product"),
        Function("/", 2, lambda a, b: a / b, "quotient"),
        Function("^", 2, _power, "power"),
        Function("neg", 1, lambda a: -a, "negation, written -a"),
        Function("abs", 1, torch.abs, "absolute value"),
        Function("sign", 1, torch.sign, "-1, 0 or 1; its slope is 0"),
        Function("sqrt", 1, _sqrt, "square root; NaN below 0; its slope at 0 is taken as 0"),
        Function("log", 1, torch.log, "natural logarithm"),
        Function("exp", 1, torch.exp, "exponential"),
        Function("expm1", 1, torch.expm1, "exp(a) - 1, exact near 0"),
        Function("sin", 1, torch.sin, "sine"),
        Function("cos", 1, torch.cos, "cosine"),
        Function("sinh", 1, torch.sinh, "hyperbolic sine"),
        Function("cosh", 1, torch.cosh, "hyperbolic cosine"),
        Function("tanh", 1, torch.tanh, "hyperbolic tangent"),
        Function("asinh", 1, torch.asinh, "inverse hyperbolic sine"),
        Function("atan", 1, torch.atan, "inverse tangent"),
        Function("sinc", 1, sinc, "sin(a)/a, and 1 at 0"),
        Function("sigmoid", 1, torch.sigmoid, "1/(1 + exp(-a))"),
        Function("softplus", 1, _softplus, "log(1 + exp(a))"),
        Function("erf", 1, torch.erf, "error function"),
        Function("max", 2, _maximum, "the greater of two"),
        Function("min", 2, _minimum, "the smaller of two"),
    )
}
FUNCTIONS: Mapping[str, Function] = WORDS  # a read-only view; only search_space/registry.py adds functions

# The paper's 25 unary functions of x, in its order: name -> text.
UNARY: Mapping[str, str] = {
    "x": "x",
    "neg": "-x",
    "abs": "abs(x)",
    "square": "x^2",
    "cube": "x^3",
    "sqrt": "sqrt(x)",
    "scale": "beta * x",
    "shift": "x + beta",
    "log_abs": "log(abs(x) + eps)",
    "exp": "exp(x)",
    "sin": "sin(x)",
    "cos": "cos(x)",
    "sinh": "sinh(x)",
    "cosh": "cosh(x)",
    "tanh": "tanh(x)",
    "asinh": "asinh(x)",
    "atan": "atan(x)",
    "sinc": "sinc(x)",
    "max0": "max(x, 0)",
    "min0": "min(x, 0)",
    "sigmoid": "sigmoid(x)",
    "softplus": "softplus(x)",
    "gauss": "exp(-x^2)",
    "erf": "erf(x)",
    "beta": "beta",
}

# The paper's 10 binary functions of a and b, in its order: name -> text.
BINARY: Mapping[str, str] = {
    "add": "a + b",
    "mul": "a * b",
    "sub": "a - b",
    "div": "a / (b + eps)",
    "max": "max(a, b)",
    "min": "min(a, b)",
    "gate": "sigmoid(a) * b",
    "rbf": "exp(-beta * (a - b)^2)",
    "laplace": "exp(-beta * abs(a - b))",
    "mix": "beta1 * a + (1 - beta1) * b",
}


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name, such as `did you mean 'b'? accepted: a, b, c`."""
    from difflib import get_close_matches

    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    return (f"did you mean {close[0]!r}? " if close else "") + f"accepted: {', '.join(names)}"
