"""How other languages write an expression.

A language is a table: for each function, a template, its precedence, and the precedence that its arguments need.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from search_space.activation import fold_constants
from search_space.expression import Expression, parse
from search_space.kernels import with_kernels

Text = tuple[str, int]  # a text, and its precedence

_SUM, _PRODUCT, _NEGATION, _POWER, _ATOM = 1, 2, 3, 4, 5
_HALF_MAX = 65504  # the largest float16
_LONG = 72  # characters; a longer part of a formula is assigned to a variable on a line of its own


@dataclass(frozen=True, slots=True)
class Form:
    """How a language writes one function.

    Attributes:
        template: for `str.format`, with one field per argument.
        binding: the precedence of the text.
        needs: for each argument, the lowest precedence that it may have without parentheses.
    """

    template: str
    binding: int = _ATOM
    needs: tuple[int, ...] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Language:
    """How a language writes expressions.

    Attributes:
        forms: name of a function -> how it is written.
        number: returns the text of a constant.
        beta: template of a parameter, with its number as the field.
        parentheses: template of parentheses.
        terms: name of a kernel (search_space/kernels.py) -> an expression that computes it.
    """

    forms: Mapping[str, Form]
    number: Callable[[float], Text]
    beta: str = "beta{}"
    parentheses: str = "({})"
    terms: Mapping[str, Expression] = field(default_factory=dict)

    def write(self, node: Expression, args: tuple[Text, ...]) -> Text:
        """Return the text of a node, given the texts of its arguments."""
        if node.op == "number":
            return self.number(node.value)
        if not node.args:
            return self.beta.format(int(node.value)) if node.op == "beta" else node.op, _ATOM
        form = self.forms[node.op]
        pairs = zip(args, form.needs, strict=False)
        shown = [text if binding >= need else self.parentheses.format(text) for (text, binding), need in pairs]
        return form.template.format(*shown), form.binding


_CIRCULAR = ["sin", "cos", "sinh", "cosh", "tanh", "asinh", "atan", "sinc"]
_CALLED = ["abs", "sign", "sqrt", "log", "exp", "expm1", *_CIRCULAR, "sigmoid", "softplus", "erf", "max", "min"]


def _calls(prefix: str, **named: str) -> dict[str, Form]:
    """Return the forms of functions written as calls.

    Args:
        prefix: what stands before each name, such as `torch.`.
        named: our name -> the language's whole name, where it is not the prefix with our name.
    """
    arguments = {name: "({0}, {1})" if name in ("max", "min") else "({0})" for name in _CALLED}
    return {name: Form(named.get(name, prefix + name) + arguments[name]) for name in _CALLED}


def _literal(module: str, infinity: str = "inf") -> Callable[[float], Text]:
    """Return a function that writes numbers in Python. NaN and infinity are attributes of `module`."""

    def write(value: float) -> Text:
        if math.isnan(value):
            return f"{module}.nan", _ATOM
        size = abs(value)
        text = f"{size:.0f}" if size.is_integer() and 0 < size < 1e15 else repr(size)
        text = "0" if str(value) == "0.0" else f"{module}.{infinity}" if math.isinf(size) else text
        return (f"-{text}", _NEGATION) if math.copysign(1, value) < 0 else (text, _ATOM)

    return write


def _tex_number(value: float) -> Text:
    text, _, exponent = _literal("")(value)[0].partition("e")
    power = f"10^{{{int(exponent)}}}" if exponent else ""
    return (text, _ATOM) if not power else (power, _POWER) if text == "1" else (rf"{text} \cdot {power}", _PRODUCT)


_OPERATORS = {
    "+": Form("{0} + {1}", _SUM, (_SUM, _PRODUCT)),
    "-": Form("{0} - {1}", _SUM, (_SUM, _PRODUCT)),
    "*": Form("{0} * {1}", _PRODUCT, (_PRODUCT, _NEGATION)),
    "/": Form("{0} / {1}", _PRODUCT, (_PRODUCT, _NEGATION)),
    "neg": Form("-{0}", _NEGATION, (_POWER, 0)),
    "^": Form("{0}**{1}", _POWER, (_ATOM, _ATOM)),
}
# TORCH and TORCH_TERMS have an entry for each kernel (search_space/kernels.py). The other operations come from `_lower`
# and are the same as in primitives.py: relu has the slope 0 at its kink, and clamp has 1.
TORCH = {
    **_OPERATORS,
    **_calls("torch.", sqrt="_sqrt", sinc="_sinc", max="torch.maximum", min="torch.minimum"),
    "softplus": Form("F.softplus({0}, threshold=40.0)"),
    "max_zero": Form("torch.relu({0})"),
    "min_zero": Form("-torch.relu(-{0})", _NEGATION, (_POWER, 0)),
    "max_constant": Form("torch.clamp_min({0}, {1})"),
    "min_constant": Form("torch.clamp_max({0}, {1})"),
    "within": Form("_within({0}, x)"),
    **{name: Form(f"F.{name}({{0}})") for name in ("silu", "gelu", "mish", "logsigmoid", "selu", "elu")},
    **{name: Form(f"F.{name}({{0}})") for name in ("hardswish", "hardsigmoid")},
    "gelu_tanh": Form('F.gelu({0}, approximate="tanh")'),
    "elu_alpha": Form("F.elu({0}, {1})"),
    "celu": Form("F.celu({0}, {1})"),
    "leaky_relu": Form("F.leaky_relu({0}, {1})"),
    "prelu": Form("_prelu({0}, {1})"),
    "hardtanh": Form("F.hardtanh({0}, {1}, {2})"),
    "at_most": Form("F.hardtanh({0}, -math.inf, {1})"),
    "at_least": Form("F.hardtanh({0}, {1}, math.inf)"),
    "root": Form("torch.sqrt({0})"),
    "reciprocal": Form("torch.reciprocal({0})"),
    "add_scaled": Form("torch.add({0}, {1}, alpha={2})"),
    "subtract_scaled": Form("torch.sub({0}, {1}, alpha={2})"),
    "add_product": Form("torch.addcmul({0}, {1}, {2})"),
}
JAX = {
    **_OPERATORS,
    **_calls("jnp.", abs="_abs", asinh="jnp.arcsinh", atan="jnp.arctan", max="jnp.maximum", min="jnp.minimum"),
    "sqrt": Form("_sqrt({0})"),
    "sinc": Form("_sinc({0})"),
    "sigmoid": Form("jax.nn.sigmoid({0})"),
    "softplus": Form("jax.nn.softplus({0})"),
    "erf": Form("jax.scipy.special.erf({0})"),
    "max_zero": Form("jax.nn.relu({0})"),
    "min_zero": Form("-jax.nn.relu(-{0})", _NEGATION, (_POWER, 0)),
    "max_constant": Form("jnp.maximum({0}, {1})"),
    "min_constant": Form("jnp.minimum({0}, {1})"),
}
SYMPY = {
    **_OPERATORS,
    **_calls("sp.", abs="sp.Abs", sinc="_sinc", max="sp.Max", min="sp.Min"),
    "expm1": Form("sp.exp({0}) - 1", _SUM),
    "sigmoid": Form("1 / (1 + sp.exp(-{0}))", _PRODUCT, (_POWER, 0)),
    "softplus": Form("sp.log(1 + sp.exp({0}))"),
}
LATEX = {
    # A call has the precedence of a power, because sin(x)^2 is ambiguous.
    **{n: Form(rf"\{n}\left({{0}}\right)", _POWER) for n in ("sin", "cos", "sinh", "cosh", "tanh")},
    **{n: Form(rf"\operatorname{{{{{n}}}}}\left({{0}}\right)", _POWER) for n in ("sinc", "softplus", "erf")},
    **{n: Form(rf"\{n}\left({{0}}, {{1}}\right)", _POWER) for n in ("max", "min")},
    "+": _OPERATORS["+"],
    "-": _OPERATORS["-"],
    "*": Form(r"{0} \cdot {1}", _PRODUCT, (_PRODUCT, _NEGATION)),
    "/": Form(r"\frac{{{0}}}{{{1}}}", _NEGATION),
    "neg": Form("-{0}", _SUM, (_PRODUCT, 0)),
    "^": Form("{0}^{{{1}}}", _POWER, (_ATOM, 0)),
    "abs": Form(r"\left|{0}\right|"),
    "sqrt": Form(r"\sqrt{{{0}}}"),
    "log": Form(r"\ln\left({0}\right)", _POWER),
    "exp": Form("e^{{{0}}}", _POWER),
    "expm1": Form("e^{{{0}}} - 1", _SUM),
    "sign": Form(r"\operatorname{{sgn}}\left({0}\right)", _POWER),
    "asinh": Form(r"\operatorname{{arsinh}}\left({0}\right)", _POWER),
    "atan": Form(r"\arctan\left({0}\right)", _POWER),
    "sigmoid": Form(r"\sigma\left({0}\right)", _POWER),
}
# Kernels as expressions of other operations. For jax, only those whose own expression overflows in the backward pass.
TORCH_TERMS = {
    "square": parse("a * a", ("a",)),
    "sqrt_above": Expression("root", (parse("a * a + m", ("a", "m")),)),
}
JAX_TERMS = {
    "square": parse("a * a", ("a",)),
    "silu": parse("a * sigmoid(a)", ("a",)),
    "elu": parse("max(a, 0) + expm1(min(a, 0))", ("a",)),
}
# Functions that ONNX lacks, as expressions of others that stay exact near 0. ONNX has a sigmoid, but in onnxruntime its
# error is 4e-8, and x * sigmoid(x) multiplies this error by x.
ONNX_TERMS = {
    "sigmoid": parse("1 / (1 + exp(-a))", ("a",)),
    "expm1": parse("tanh(a / 2) * (exp(a) + 1)", ("a",)),
    "sinc": parse("sin(max(abs(a), 1e-20)) / max(abs(a), 1e-20)", ("a",)),
}
ONNX = {name: name.capitalize() for name in [*_CALLED, "neg"] if name not in ONNX_TERMS}
ONNX |= {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "^": "Pow"}

LANGUAGES = {
    "torch": Language(TORCH, _literal("math"), terms=TORCH_TERMS),
    "jax": Language(JAX, _literal("jnp"), terms=JAX_TERMS),
    "sympy": Language(SYMPY, _literal("sp", "oo")),
    "latex": Language(LATEX, _tex_number, r"\beta_{{{}}}", r"\left({}\right)"),
}


def distinct(tree: Expression) -> set[Expression]:
    """Return the distinct subtrees of a tree."""
    found: set[Expression] = set()
    tree.fold(lambda node, _: found.add(node))
    return found


def _lower(node: Expression, args: tuple[Expression, ...], forms: Mapping[str, Form]) -> Expression:
    """Return max, min and powers with a constant operand as the operations that primitives.py uses for them."""
    if node.op in ("max", "min") and f"{node.op}_constant" in forms:
        tensor, other = args if args[1].op == "number" else args[::-1]
        if other.op == "number" and other.value == 0:
            return Expression(f"{node.op}_zero", (tensor,))
        if other.op == "number":
            return Expression(f"{node.op}_constant", (tensor, _in_range(other, forms)))
    if node.op == "^":
        return Expression("^", (args[0], _in_range(args[1], forms)))
    return Expression(node.op, args, node.value)


def _in_range(node: Expression, forms: Mapping[str, Form]) -> Expression:
    """Wrap a constant that some type cannot hold in `_within`, because torch would raise an error for it."""
    large = node.op == "number" and _HALF_MAX < abs(node.value) < math.inf
    return Expression("within", (node,)) if large and "within" in forms else node


def statements(tree: Expression, to: str) -> tuple[list[str], str]:
    """Write an expression as statements.

    Returns:
        Assignments `t1 = ...` for subtrees that are long or used more than once; and the text of the whole value.
    """
    language = LANGUAGES[to]
    kernels = with_kernels(tree.fold(fold_constants), {*language.forms, *language.terms})
    words = kernels.fold(lambda node, args: in_terms(node, args, language.terms))
    root = words.fold(lambda node, args: _lower(node, args, language.forms))
    uses = Counter(arg for node in distinct(root) for arg in node.args)
    language = replace(language, beta="beta") if len(tree.betas) == 1 else language
    written: dict[Expression, Text] = {}
    lines: list[str] = []

    def write(node: Expression, args: tuple[Text, ...]) -> Text:
        if node not in written:
            text, binding = language.write(node, args)
            if node.args and (uses[node] > 1 or (len(text) > _LONG and node != root)):
                lines.append(f"t{len(lines) + 1} = {text}")
                text, binding = f"t{len(lines)}", _ATOM
            written[node] = text, binding
        return written[node]

    return lines, root.fold(write)[0]


def in_terms(node: Expression, args: tuple[Expression, ...], terms: Mapping[str, Expression]) -> Expression:
    """Return the node with these arguments. If `terms` has an expression for its operation, use that instead."""
    if node.op in terms:
        return terms[node.op].substitute(dict(zip(("a", "m"), args, strict=False)))
    return Expression(node.op, args, node.value)
