"""Torch's own kernels for forms that expressions write out: x * sigmoid(x) is one pass over memory as `F.silu`.

`KERNELS` is a table: a form, and what computes it. Every form is an identity of real functions, found by its shape
alone, never by numbers, up to the order of the operands of +, *, max and min. Five things differ from evaluation
operation by operation: rounding; overflow within a factor of 10 of the largest number of the type; GELU of infinity,
which torch makes NaN on CPUs with AVX-512; the slope at a kink, which is torch's own: that of leaky_relu at 0 is its
slope for x < 0, that of elu is 1, that of hardtanh is 0 at both ends; and the second derivative of hard_sigmoid, which
torch has none of.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search_space.expression import Expression, parse
from search_space.matching import match
from search_space.primitives import FUNCTIONS, Value

# In forms: a is any subtree with x; b and c are any but a number; p is one without x (a parameter, 0.25 * beta);
# m and n are numbers.
VARIABLES = ("a", "b", "c", "p", "m", "n")

_NAMES = frozenset(VARIABLES)
_LARGEST = 65_504.0  # of float16: kernels refuse a number beyond their type


@dataclass(frozen=True, slots=True)
class Kernel:
    """One row: forms that are the same function, and what computes it.

    `apply` takes what the variables of the form stand for, in the order of `VARIABLES`; `when` takes the numbers among
    them and says whether the identity holds for these.
    """

    name: str
    forms: tuple[str, ...]
    apply: Callable[..., Tensor]
    when: Callable[..., bool] = lambda *_: True


def _prelu(a: Tensor, p: Tensor) -> Tensor:
    lowered = torch.is_autocast_enabled(a.device.type)  # which would have F.prelu in another type
    if lowered or (a.dim() < 2 and p.numel() > 1):  # F.prelu takes channels at dimension 1: a vector has none
        return torch.relu(a) + p * F.hardtanh(a, -math.inf, 0.0)
    dim = a.dim() - p.dim() if p.numel() > 1 else 1
    if dim != 1:
        return F.prelu(a.movedim(dim, 1), p.flatten().to(a.dtype)).movedim(1, dim)
    return F.prelu(a, p.flatten().to(a.dtype))


_HARD_SIGMOID = (
    *("min(max(a / 6 + 0.5, 0), 1)", "min(max(0.16666666666666666 * a + 0.5, 0), 1)"),
    *("min(max(a + 3, 0), 6) / 6", "min(max((a + 3) / 6, 0), 1)", "0.16666666666666666 * min(max(a + 3, 0), 6)"),
)
_ERF = ("1 + erf(0.7071067811865476 * a)", "1 + erf(a / 1.4142135623730951)")
_TANH = ("1 + tanh(0.7978845608028654 * (a + 0.044715 * a^3))",)
_HALVES = ("0.5 * a * ({})", "a * (0.5 * ({}))", "0.5 * (a * ({}))", "a / 2 * ({})", "a * ({}) / 2", "a * (({}) / 2)")


def _halved(gates: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(half.format(gate) for gate in gates for half in _HALVES)


# The first row that fits is taken, larger subtrees before smaller ones.
_ROWS = (
    Kernel("silu", ("a * sigmoid(a)", "a / (1 + exp(-a))"), F.silu),
    Kernel("gelu", _halved(_ERF), F.gelu),
    Kernel("gelu_tanh", _halved(_TANH), lambda a: F.gelu(a, approximate="tanh")),
    Kernel("mish", ("a * tanh(softplus(a))",), F.mish),
    Kernel("logsigmoid", ("-softplus(-a)",), F.logsigmoid),
    Kernel(
        "selu",
        (
            "1.0507009873554805 * max(a, 0) + 1.7580993408473766 * expm1(min(a, 0))",
            "1.0507009873554805 * (max(a, 0) + 1.6732632423543772 * expm1(min(a, 0)))",
        ),
        F.selu,
    ),
    Kernel("elu", ("max(a, 0) + expm1(min(a, 0))", "max(a, 0) + min(expm1(a), 0)"), F.elu),
    Kernel("elu_alpha", ("max(a, 0) + m * expm1(min(a, 0))",), F.elu),
    Kernel("celu", ("max(a, 0) + m * expm1(min(a, 0) / m)",), torch.celu, lambda m: m > 0),
    Kernel("leaky_relu", ("max(a, 0) + m * min(a, 0)",), F.leaky_relu),
    Kernel("leaky_relu", ("max(a, m * a)",), F.leaky_relu, lambda m: 0 <= m <= 1),
    Kernel("prelu", ("max(a, 0) + p * min(a, 0)",), _prelu),
    Kernel("hardswish", (*(f"a * ({gate})" for gate in _HARD_SIGMOID), "a * min(max(a + 3, 0), 6) / 6"), F.hardswish),
    Kernel("hardsigmoid", _HARD_SIGMOID, F.hardsigmoid),
    Kernel("hardtanh", ("min(max(a, m), n)",), F.hardtanh, lambda m, n: m < n),
    Kernel("hardtanh", ("max(min(a, n), m)",), F.hardtanh, lambda m, n: m < n),
    # No known functions, but fewer passes over memory, in the backward pass above all: the slope of hardtanh is one
    # pass where that of clamp is three, that of a product two where that of a power is three.
    Kernel("at_most", ("min(a, m)",), lambda a, m: F.hardtanh(a, -math.inf, m)),
    Kernel("at_least", ("max(a, m)",), lambda a, m: F.hardtanh(a, m, math.inf), lambda m: m != 0),
    Kernel("square", ("a^2",), lambda a: a * a),
    Kernel("reciprocal", ("1 / a",), torch.reciprocal),
    Kernel("sqrt_above", ("sqrt(a^2 + m)",), lambda a, m: torch.sqrt(a * a + m), lambda m: m > 0.001),
    Kernel("add_scaled", ("a + m * b",), lambda a, b, m: torch.add(a, b, alpha=m)),
    Kernel("subtract_scaled", ("a - m * b",), lambda a, b, m: torch.sub(a, b, alpha=m)),
    Kernel("add_product", ("a + b * c",), torch.addcmul),
)
KERNELS: Mapping[str, Kernel] = {row.name: row for row in _ROWS}

# What each operation of a program computes, by its name: the words of the language, and the kernels.
OPERATIONS: dict[str, Callable[..., Value]] = {
    **{name: row.apply for name, row in FUNCTIONS.items()},
    **{name: row.apply for name, row in KERNELS.items()},
}

_FORMS: dict[str, list[tuple[Expression, Kernel]]] = defaultdict(list)  # by the form's root
for _row in _ROWS:
    for _text in _row.forms:
        _form = parse(_text, VARIABLES)
        _FORMS[_form.op].append((_form, _row))


def with_kernels(tree: Expression) -> Expression:
    """The tree with every form of the table as one node, named like its row; constants are folded before."""
    done: dict[Expression, Expression] = {}

    def rewrite(node: Expression) -> Expression:
        if node.args and node not in done:
            found = _kernel(node)
            done[node] = Expression(found.op if found else node.op, tuple(map(rewrite, (found or node).args)))
        return done.get(node, node)

    return rewrite(tree)


def _kernel(node: Expression) -> Expression | None:
    """The node as one kernel of what its variables stand for; None if no row fits."""
    for form, row in _FORMS[node.op]:
        for found in match(form, node, _NAMES, _may_be):
            taken = [found[name] for name in VARIABLES if name in found]
            if row.when(*(arg.value for arg in taken if arg.op == "number")):
                return Expression(row.name, tuple(taken))
    return None


def _may_be(variable: str, node: Expression) -> bool:
    if variable in ("m", "n"):
        return node.op == "number" and abs(node.value) <= _LARGEST  # false for NaN
    if variable in ("b", "c"):
        return node.op != "number"
    has_x = any(leaf.op == "x" for leaf in node.leaves())
    return has_x if variable == "a" else not has_x and bool(node.betas)
