"""Recognise expressions that are the same function: by a key, and by a normal form.

The key is computed from the function's values (search_space/fingerprint.py). Expressions with equal keys are the same
function, up to rounding.

The normal form is a shorter way of writing a function, made by rewriting rules. It is meant for reading. Every rule is
an identity of real functions, and parameters keep their places. Two expressions of the same function can have different
normal forms: no rule says that sinh(x) + cosh(x) is exp(x).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

from search_space.expression import Expression, parse
from search_space.fingerprint import fingerprint
from search_space.matching import COMMUTATIVE, match
from search_space.primitives import FUNCTIONS

_EVEN = frozenset({"abs", "cos", "cosh", "sinc"})
# Functions that are defined for every real number. Functions that users register later are not counted among them.
_TOTAL = frozenset(FUNCTIONS) - {"sqrt", "log", "/"}
_WILD = frozenset({"a", "b", "c"})

MAX_RENUMBERED = 4
KEY_RULES = 2  # the version of the rules that make keys; a study records it, and any change of a key increases it

# (pattern, replacement), where a, b and c stand for any subtree. Differences become sums. Signs move out of products
# and odd functions, disappear in even functions, and move into sums.
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
    ("max(-a, 0)", "-min(a, 0)"),
    ("min(-a, 0)", "-max(a, 0)"),
    ("max(a, max(a, b))", "max(a, b)"),
    ("min(a, min(a, b))", "min(a, b)"),
)


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: Expression
    replacement: Expression
    needs: frozenset[str]  # operations that must be among the node's arguments: a quick test before matching
    lost: frozenset[str]  # variables that are in the pattern, but not in the replacement


def _rule(pattern: Expression, replacement: Expression) -> _Rule:
    needs = {arg.op for arg in pattern.args}.difference(_WILD)
    lost = {leaf.op for leaf in pattern.leaves()}.intersection(_WILD) - {leaf.op for leaf in replacement.leaves()}
    return _Rule(pattern, replacement, frozenset(needs), frozenset(lost))


_RULES: dict[str, list[_Rule]] = defaultdict(list)  # by the pattern's root
for _pattern, _replacement in _RULES_TEXT:
    _new = _rule(parse(_pattern, tuple(_WILD)), parse(_replacement, tuple(_WILD)))
    _RULES[_new.pattern.op].append(_new)


@lru_cache(maxsize=65_536)
def key(expression: Expression) -> str:
    """Return 16 hexadecimal digits that are equal for expressions of the same function.

    Expressions are the same function if they have the same value for every x and every value of their parameters. The
    names and the order of the parameters do not matter.
    """
    return fingerprint(expression)[:16]


def canonical(expression: Expression) -> Expression:
    """Return the normal form: no rewriting rule applies, and the operands of +, *, max and min are sorted.

    If a parameter stands in several places, the order of the operands can depend on how the parameters are numbered.
    Then all numberings of up to four parameters are tried, and the first normal form in sorting order is returned.
    """
    places = [leaf.value for leaf in expression.leaves() if leaf.op == "beta"]
    betas = expression.betas
    if len(places) == len(betas) or len(betas) > MAX_RENUMBERED:
        return _normalise(expression.normal()).normal()
    numberings = (dict(zip(betas, numbers, strict=True)) for numbers in permutations(range(1, len(betas) + 1)))
    return min((_normalise(expression.with_betas(new)).normal() for new in numberings), key=_order)


@lru_cache(maxsize=65_536)
def _normalise(node: Expression) -> Expression:
    if not node.args:
        return node
    args = tuple(_normalise(arg) for arg in node.args)
    if node.op in COMMUTATIVE:
        args = tuple(sorted(args, key=_order))
    elif node.op in _EVEN or (node.op == "^" and args[1] == Expression("number", value=2.0)):
        args = (min(args[0], _normalise(Expression("neg", args[:1])), key=_order), *args[1:])
    node = Expression(node.op, args)
    ops = {arg.op for arg in args}
    for rule in _RULES[node.op]:
        if not rule.needs <= ops:
            continue
        for found in match(rule.pattern, node, _WILD, _anything):
            if all(_is_total(found[name]) for name in rule.lost):
                return _normalise(rule.replacement.substitute(found))
    return node


def _is_total(node: Expression) -> bool:
    """Return True if a subtree is a number for every x. Rules may drop only these: sqrt(x) - sqrt(x) is not 0 at -1."""

    def total(node: Expression, args: tuple[bool, ...]) -> bool:
        if node.op == "^":
            exponent = node.args[1]
            return args[0] and exponent.op == "number" and exponent.value.is_integer()
        return all(args) and (not node.args or node.op in _TOTAL)

    return node.fold(total)


@lru_cache(maxsize=65_536)
def _order(node: Expression) -> tuple[int, str, tuple[float, ...]]:
    """Return the sorting key of a subtree: its size, its text without the parameters' numbers, and these numbers."""
    blank = node.with_betas(dict.fromkeys(node.betas, 0)) if node.betas else node
    return node.size, str(blank), tuple(leaf.value for leaf in node.leaves())


def _anything(_variable: str, _subtree: Expression) -> bool:
    return True
