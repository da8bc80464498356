"""Use torch's own kernels for parts of expressions. `F.silu` computes x * sigmoid(x) in one pass over memory.

`KERNELS` is a table of forms and the functions that compute them. The form and the function are equal for all real
numbers. Forms are found by matching trees, never by comparing values. The operands of +, *, max and min may have any
order. The results differ from a computation operation by operation in five ways:

* They are rounded differently.
* They overflow at other values, within a factor of 10 of the largest number of the type.
* On CPUs with AVX-512, torch's GELU of infinity is NaN.
* At a kink, the slope is torch's: at 0, leaky_relu has its slope for x < 0 and elu has 1; hardtanh has 0 at both ends.
* Torch has no second derivative of hard_sigmoid.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search_space.expression import Expression, parse
from search_space.matching import match
from search_space.primitives import FUNCTIONS, Value

# In a form, a stands for any subtree that contains x; b and c for any subtree except a number; p for a subtree with
# parameters and without x, such as 0.25 * beta; m and n for numbers.
VARIABLES = ("a", "b", "c", "p", "m", "n")

_NAMES = frozenset(VARIABLES)
_LARGEST = 65_504.0  # the largest float16; kernels refuse numbers that their type cannot hold


@dataclass(frozen=True, slots=True)
class Kernel:
    """Forms of one function, and a fast way to compute it.

    Attributes:
        name: the name of the operation in programs.
        forms: texts in the expression language, with the variables of `VARIABLES`.
        apply: computes the function from the values of the form's variables, in the order of `VARIABLES`.
        when: takes the numbers among these, and returns True if the form equals the function for them.
    """

    name: str
    forms: tuple[str, ...]
    apply: Callable[..., Tensor]
    when: Callable[..., bool] = lambda *_: True


def _prelu(a: Tensor, p: Tensor) -> Tensor:
    lowered = torch.is_autocast_enabled(a.device.type)  # autocast would run F.prelu in another type
    if lowered or (a.dim() < 2 and p.numel() > 1):  # F.prelu takes channels at dimension 1, which a vector lacks
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


# The first row that matches is used. Larger subtrees are tried before smaller ones.
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
    # These are not known activations, but need fewer passes over memory, mostly in the backward pass. The slope of
    # hardtanh takes one pass and the slope of clamp three; the slope of a product takes two, and of a power three.
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

# Name of an operation of a program -> function: the functions of the language, and the kernels.
OPERATIONS: dict[str, Callable[..., Value]] = {
    **{name: row.apply for name, row in FUNCTIONS.items()},
    **{name: row.apply for name, row in KERNELS.items()},
}

_FORMS: dict[str, list[tuple[Expression, Kernel]]] = defaultdict(list)  # by the form's root
for _row in _ROWS:
    for _text in _row.forms:
        _form = parse(_text, VARIABLES)
        _FORMS[_form.op].append((_form, _row))


def with_kernels(tree: Expression, names: Container[str] = KERNELS) -> Expression:
    """Return the tree with every form of the table replaced by one node with the name of the kernel.

    Args:
        tree: an expression whose constants have been folded.
        names: the kernels that may be used.
    """
    done: dict[Expression, Expression] = {}

    def rewrite(node: Expression) -> Expression:
        if node.args and node not in done:
            found = _kernel(node, names)
            done[node] = Expression(found.op if found else node.op, tuple(map(rewrite, (found or node).args)))
        return done.get(node, node)

    return rewrite(tree)


def _kernel(node: Expression, names: Container[str]) -> Expression | None:
    """Return the node as a kernel with its arguments; None if it matches no form of these kernels."""
    for form, row in _FORMS[node.op]:
        for found in match(form, node, _NAMES, _may_be):
            taken = [found[name] for name in VARIABLES if name in found]
            if row.name in names and row.when(*(arg.value for arg in taken if arg.op == "number")):
                return Expression(row.name, tuple(taken))
    return None


def _may_be(variable: str, node: Expression) -> bool:
    """Return True if a variable of a form may stand for this subtree."""
    if variable in ("m", "n"):
        return node.op == "number" and abs(node.value) <= _LARGEST  # False for NaN
    if variable in ("b", "c"):
        return node.op != "number"
    has_x = any(leaf.op == "x" for leaf in node.leaves())
    return has_x if variable == "a" else not has_x and bool(node.betas)
