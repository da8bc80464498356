"""When two expressions are the same function: a normal form by rewriting, and a key made of it.

Sound: every rule is an identity of real functions, and parameters keep their places, so equal keys are the same
function (up to rounding). Not complete: two texts of one function can still have two keys.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from search_space.expression import Expression, parse

_COMMUTATIVE = frozenset({"+", "*", "max", "min"})
_EVEN = frozenset({"abs", "cos", "cosh", "sinc"})
_WILD = ("a", "b", "c")

Binding = dict[str, Expression]

# (pattern, replacement), both sides with a, b, c for any subtree. Differences become sums; signs move out of products
# and odd functions, vanish in even ones, and move into sums.
_RULES_TEXT: tuple[tuple[str, str], ...] = (
    ("a - b", "a + -b"),
    ("--a", "a"),
    ("-0", "0"),
    ("a + 0", "a"),
    ("a + -a", "0"),
    ("-(a + b)", "-a + -b"),
    ("a * 0", "0"),
    ("a * 1", "a"),
    ("-a * b", "-(a * b)"),
    ("-a / b", "-(a / b)"),
    ("a / 1", "a"),
    ("a * a", "a^2"),
    ("a * a^2", "a^3"),
    ("(-a)^2", "a^2"),
    ("(-a)^3", "-a^3"),
    ("abs(a)^2", "a^2"),
    ("a^1", "a"),
    ("a * c + a * (1 + -c)", "a"),
    ("abs(-a)", "abs(a)"),
    ("abs(abs(a))", "abs(a)"),
    ("abs(a^2)", "a^2"),
    ("cos(-a)", "cos(a)"),
    ("cos(abs(a))", "cos(a)"),
    ("cosh(-a)", "cosh(a)"),
    ("cosh(abs(a))", "cosh(a)"),
    ("sinc(-a)", "sinc(a)"),
    ("sinc(abs(a))", "sinc(a)"),
    ("sin(-a)", "-sin(a)"),
    ("sinh(-a)", "-sinh(a)"),
    ("tanh(-a)", "-tanh(a)"),
    ("asinh(-a)", "-asinh(a)"),
    ("atan(-a)", "-atan(a)"),
    ("erf(-a)", "-erf(a)"),
    ("max(a, a)", "a"),
    ("min(a, a)", "a"),
    ("max(-a, -b)", "-min(a, b)"),
    ("min(-a, -b)", "-max(a, b)"),
    ("max(a, max(a, b))", "max(a, b)"),
    ("min(a, min(a, b))", "min(a, b)"),
)

_RULES: dict[str, list[tuple[Expression, Expression]]] = defaultdict(list)  # by the pattern's root
for _pattern, _replacement in _RULES_TEXT:
    _tree = parse(_pattern, _WILD)
    _RULES[_tree.op].append((_tree, parse(_replacement, _WILD)))


def key(expression: Expression) -> str:
    """16 hexadecimal digits, equal only for expressions that are the same function with the same free parameters."""
    return hashlib.sha256(str(canonical(expression)).encode()).hexdigest()[:16]


def canonical(expression: Expression) -> Expression:
    """The normal form: no rule applies anywhere, and the operands of +, *, max and min are in order."""
    return _normalise(expression).normal()


@lru_cache(maxsize=65_536)
def _normalise(node: Expression) -> Expression:
    if not node.args:
        return node
    args = tuple(_normalise(arg) for arg in node.args)
    if node.op in _COMMUTATIVE:
        args = tuple(sorted(args, key=_order))
    elif node.op in _EVEN or (node.op == "^" and args[1] == Expression("number", value=2.0)):
        args = (min(args[0], _normalise(Expression("neg", args[:1])), key=_order), *args[1:])
    node = Expression(node.op, args)
    for pattern, replacement in _RULES[node.op]:
        for found in _match(pattern, node, {}):
            return _normalise(replacement.substitute(found))
    return node


def _order(node: Expression) -> tuple[int, str, str]:
    """Small before large, then by the text without and with the parameters' numbers."""
    blank = node.with_betas(dict.fromkeys(node.betas, 0))
    return node.size, str(blank), str(node)


def _match(pattern: Expression, node: Expression, bound: Binding) -> Iterator[Binding]:
    """Every way to read `node` as `pattern`; commutative operands are tried in both orders."""
    if pattern.op in _WILD:
        if bound.get(pattern.op, node) == node:
            yield {**bound, pattern.op: node}
        return
    if (pattern.op, pattern.value, len(pattern.args)) != (node.op, node.value, len(node.args)):
        return
    orders = [node.args, node.args[::-1]] if node.op in _COMMUTATIVE else [node.args]
    for args in orders:
        yield from _match_all(pattern.args, args, bound)


def _match_all(patterns: tuple[Expression, ...], nodes: tuple[Expression, ...], bound: Binding) -> Iterator[Binding]:
    if not patterns:
        yield bound
        return
    for found in _match(patterns[0], nodes[0], bound):
        yield from _match_all(patterns[1:], nodes[1:], found)
