"""Expressions: scalar functions of x as frozen trees, and their text.

The text is in infix notation, such as `x * sigmoid(beta * x)`. For every expression, `parse(str(e)) == e`.

Each `beta` without a number is a new trainable parameter. `beta1`, `beta2`, ... are names, so that one parameter can
stand in several places. `str` numbers the parameters in order of appearance, and writes `beta` if there is only one
and it stands in one place. The parser replaces names of known functions (`mish`, `gelu(2 * x)`) by their definitions.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import TypeVar

from search_space.baselines import ALIASES, KNOWN
from search_space.primitives import FUNCTIONS, SpaceError, nearest

MAX_CHARACTERS, MAX_DEPTH, MAX_NODES = 1_000, 32, 128

T = TypeVar("T")

_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4}
_ATOM = 5
_BLANKS = " \t\n\r\f\v"
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<sign>[-+*/^(),]))",
    re.ASCII,  # so that \d matches 0 to 9 only
)


class ParseError(SpaceError):
    """The text is not an expression. The message shows the text, and marks the position of the error.

    Attributes:
        position: the index of the character at which the parser stopped.
    """

    def __init__(self, message: str, text: str, position: int) -> None:
        start = max(0, position - 40)
        shown = "".join(c if c.isprintable() else "?" for c in text[start : position + 40])
        super().__init__(f"{message}\n  {shown}\n  {' ' * (position - start)}^ position {position}")
        self.position = position
        self._made_of = message, text, position

    def __reduce__(self) -> tuple[type[ParseError], tuple[str, str, int]]:
        return ParseError, self._made_of  # without this, pickle would call the class with the message alone


@dataclass(frozen=True, slots=True)
class Expression:
    """A tree of functions, or one node of it. Two expressions are equal if their trees are equal.

    A node is a function of `FUNCTIONS` with its arguments, or a leaf. A leaf is a variable ("x"; "a" and "b" in binary
    primitives), "eps", "number" or "beta".

    Attributes:
        op: the name of the function, or of the leaf.
        args: the arguments; empty for a leaf.
        value: of a "number", which is never negative; of a "beta", the number that tells parameters apart.
        size: the number of nodes in the tree.
        betas: the numbers of the parameters, in order of first appearance.
    """

    op: str
    args: tuple[Expression, ...] = ()
    value: float = 0.0
    size: int = field(init=False, repr=False, compare=False)
    betas: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Computed once per node: a walk through the tree at each look-up would take quadratic time.
        own = (int(self.value),) if self.op == "beta" else ()
        set_once = object.__setattr__
        set_once(self, "size", 1 + sum([arg.size for arg in self.args]))
        set_once(self, "betas", tuple(dict.fromkeys(chain(own, *[arg.betas for arg in self.args]))))
        set_once(self, "_hash", hash((self.op, self.args, self.value)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Expression], tuple[object, ...]]:
        return Expression, (self.op, self.args, self.value)  # the stored hash is valid in this process only

    def fold(self, combine: Callable[[Expression, tuple[T, ...]], T]) -> T:
        """Compute a result from the leaves up.

        Args:
            combine: called with each node and the results of its arguments. A node object that stands in several places
                is visited once.

        Returns:
            The result of the root.
        """
        done: dict[int, T] = {}

        def visit(node: Expression) -> T:
            if id(node) not in done:
                done[id(node)] = combine(node, tuple([visit(arg) for arg in node.args]))
            return done[id(node)]

        return visit(self)

    @property
    def depth(self) -> int:
        """The number of nodes on the longest path from the root to a leaf."""
        return self.fold(lambda _, depths: 1 + max(depths, default=0))

    def leaves(self) -> Iterator[Expression]:
        """Yield the leaves from left to right."""
        if not self.args:
            yield self
        for arg in self.args:
            yield from arg.leaves()

    def substitute(self, variables: Mapping[str, Expression]) -> Expression:
        """Return this tree with variables replaced by subtrees. Variables that are not in the mapping stay."""
        if not self.args:
            return variables.get(self.op, self)
        return Expression(self.op, tuple([arg.substitute(variables) for arg in self.args]))

    def with_betas(self, numbers: Mapping[int, int]) -> Expression:
        """Return this tree with its parameters renumbered: old number -> new number."""

        if not self.betas:
            return self
        if self.op == "beta":
            return beta(numbers[int(self.value)])
        return Expression(self.op, tuple([arg.with_betas(numbers) for arg in self.args]), self.value)

    def with_numbers(self, values: Sequence[float]) -> Expression:
        """Return this tree with a constant for each parameter: one value for each of `betas`, in their order.

        Raises:
            SpaceError: a value is infinite or NaN.
        """
        constants = {old: number(value) for old, value in zip(self.betas, values, strict=True)}
        return self.fold(
            lambda node, args: (
                constants[int(node.value)] if node.op == "beta" else Expression(node.op, args, node.value)
            )
        )

    def normal(self) -> Expression:
        """Return this tree with its parameters numbered 1, 2, ... in order of appearance."""
        betas = self.betas
        in_order = betas == tuple(range(1, len(betas) + 1))
        return self if in_order else self.with_betas({old: new for new, old in enumerate(betas, start=1)})

    def __str__(self) -> str:
        tree = self.normal()
        bare = sum(leaf.op == "beta" for leaf in tree.leaves()) == 1
        return tree.fold(lambda node, args: _write(node, args, bare))[0]


X = Expression("x")


def number(value: float) -> Expression:
    """Return a constant. A negative number becomes the negation of a positive constant, as the parser reads it.

    Raises:
        SpaceError: the value is infinite or NaN.
    """
    if not math.isfinite(value):
        raise SpaceError(f"a constant must be finite, not {value!r}")
    return (
        Expression("neg", (number(-value),)) if value < 0 else Expression("number", value=value + 0.0)
    )  # + 0.0: no -0


def beta(index: int) -> Expression:
    """Return the leaf of the trainable parameter with this number."""
    return Expression("beta", value=float(index))


def _write(node: Expression, args: tuple[tuple[str, int], ...], bare: bool) -> tuple[str, int]:
    """Return a node's text and its precedence.

    Args:
        args: the text and the precedence of each argument.
        bare: write `beta` without a number.
    """

    def enclosed(index: int, binding: int) -> str:
        text, tightness = args[index]
        return text if tightness >= binding else f"({text})"

    own = _BINDING.get(node.op, _ATOM)
    if node.op == "number":
        return f"{node.value:.0f}" if node.value.is_integer() and node.value < 1e15 else repr(node.value), _ATOM
    if node.op == "beta":
        return "beta" if bare else f"beta{int(node.value)}", _ATOM
    if node.op == "neg":
        return "-" + enclosed(0, own), own
    if node.op == "^":
        return f"{enclosed(0, _ATOM)}^{enclosed(1, _ATOM)}", own
    if own < _ATOM:  # + - * / are left-associative
        return f"{enclosed(0, own)} {node.op} {enclosed(1, own + 1)}", own
    if node.args:
        return f"{node.op}({', '.join(text for text, _ in args)})", _ATOM
    return node.op, _ATOM


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_CHARACTERS:
        raise ParseError(
            f"an expression has at most {MAX_CHARACTERS} characters, this has {len(text)}", text, MAX_CHARACTERS
        )
    found, position = [], 0
    end = len(text.rstrip(_BLANKS))
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            at = position + len(text[position:]) - len(text[position:].lstrip(_BLANKS))
            raise ParseError(f"unexpected character {_described(text[at])}", text, at)
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind)))
        position = match.end()
    return [*found, _Token("end", "", end)]


def _described(character: str) -> str:
    """Return a character for a message. Others than ASCII get their Unicode names, because a typographic minus or a
    Cyrillic x looks like an ASCII character."""
    if character.isascii():
        return repr(character)
    return f"{character!a} ({unicodedata.name(character, 'no name')}); expressions are written in ASCII"


class _Parser:
    """A precedence-climbing parser. It checks the limits before each recursion, so that no text overflows the stack."""

    def __init__(self, text: str, variables: tuple[str, ...]) -> None:
        self.text, self.variables = text, variables
        self.tokens = _tokens(text)
        self.at = self.nesting = 0
        self.depths: dict[int, int] = {}  # id of a node -> its depth; `Expression.depth` would take quadratic time
        self.fresh = 1_000  # number of the last `beta` without a number; those with a number go up to 999

    def parse(self) -> Expression:
        tree = self.level(1)
        if self.next.kind != "end":
            raise self.error(f"expected an operator or the end, not {self.next.text!r}")
        tree = tree.normal()
        if (
            len(written := str(tree)) > MAX_CHARACTERS
        ):  # "1e14" is written 100000000000000: what is read can be read again
            raise ParseError(f"written out, this has {len(written)} characters, over {MAX_CHARACTERS}", self.text, 0)
        return tree

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def error(self, message: str, token: _Token | None = None) -> ParseError:
        return ParseError(message, self.text, (token or self.next).position)

    def take(self, *texts: str) -> _Token | None:
        token = self.next
        if token.kind == "sign" and token.text in texts:
            self.at += 1
            return token
        return None

    def expect(self, text: str) -> None:
        if not self.take(text):
            got = repr(self.next.text) if self.next.text else "the end"
            raise self.error(f"expected {text!r}, not {got}")

    def node(self, token: _Token, op: str, *args: Expression, value: float = 0.0) -> Expression:
        tree = Expression(op, args, value)
        if tree.size > MAX_NODES:
            raise self.error(f"an expression has at most {MAX_NODES} nodes", token)
        self.depths[id(tree)] = depth = 1 + max((self.depths[id(arg)] for arg in args), default=0)
        if depth > MAX_DEPTH:
            raise self.error(f"an expression is at most {MAX_DEPTH} nodes deep", token)
        return tree

    def level(self, binding: int) -> Expression:
        """Parse operators of at least this precedence; they are left-associative."""
        left = self.sign()
        while (token := self.next).kind == "sign" and binding <= _BINDING.get(token.text, 0) < _BINDING["neg"]:
            self.at += 1
            left = self.node(token, token.text, left, self.level(_BINDING[token.text] + 1))
        return left

    def sign(self) -> Expression:
        self.nesting += 1
        if self.nesting > 4 * MAX_DEPTH:
            raise self.error("too deeply nested")
        if token := self.take("-"):
            tree = self.node(token, "neg", self.sign())
        else:
            tree = self.power()
        self.nesting -= 1
        return tree

    def power(self) -> Expression:
        base = self.atom()
        if token := self.take("^"):
            return self.node(token, "^", base, self.sign())  # right-associative; a^-b is allowed
        return base

    def atom(self) -> Expression:
        token = self.next
        self.at += 1
        if token.kind == "number":
            if not math.isfinite(value := float(token.text)):
                raise self.error(f"{token.text} is too large for a number", token)
            if value == 0 and token.text.lower().partition("e")[0].strip("0."):
                raise self.error(f"{token.text} is too small for a number, it would be 0; write 0", token)
            return self.node(token, "number", value=value)
        if token.kind == "name":
            return self.name(token)
        if token.text == "(":
            tree = self.level(1)
            self.expect(")")
            return tree
        power = token.text == "*" and self.at > 1 and self.tokens[self.at - 2].text == "*"
        found = "'**': powers are written a^b" if power else repr(token.text) if token.text else "the end"
        raise self.error(f"expected a number, a name or '(', not {found}", token)

    def name(self, token: _Token) -> Expression:
        if token.text in self.variables or token.text == "eps":
            return self.node(token, token.text)
        if match := re.fullmatch(r"beta([0-9]{0,3})", token.text):
            self.fresh += 1
            return self.node(token, "beta", value=float(match[1] or self.fresh))
        if ALIASES.get(token.text, token.text) in KNOWN and not (token.text in FUNCTIONS and self.next.text == "("):
            return self.known(token)
        function = FUNCTIONS.get(token.text)
        if function is None or not token.text.isidentifier() or token.text == "neg":
            words = [*self.variables, "beta", "eps", *(n for n in FUNCTIONS if n.isidentifier() and n != "neg"), *KNOWN]
            shown = token.text if len(token.text) <= 40 else token.text[:37] + "..."
            raise self.error(f"unknown name {shown!r}; {nearest(token.text, dict.fromkeys(words))}", token)
        return self.node(token, token.text, *self.arguments(token, function.arity))

    def known(self, token: _Token) -> Expression:
        """Replace the name of a known function by its definition. `swish` alone means swish(x).

        Each place gets new parameters.
        """
        arg = self.arguments(token, 1)[0] if self.next.text == "(" else self.node(token, "x")
        if not set(self.variables).issuperset(leaf.op for leaf in arg.leaves() if leaf.op == "x"):
            raise self.error(f"{token.text} takes an argument here: {token.text}(...)", token)
        body = _known_body(ALIASES.get(token.text, token.text))
        first, self.fresh = self.fresh, self.fresh + len(body.betas)

        def write(node: Expression, args: tuple[Expression, ...]) -> Expression:
            if node.op == "x":
                return arg
            return self.node(token, node.op, *args, value=node.value + first if node.op == "beta" else node.value)

        return body.fold(write)

    def arguments(self, token: _Token, arity: int) -> list[Expression]:
        self.expect("(")
        args = [self.level(1)]
        while self.take(","):
            args.append(self.level(1))
        self.expect(")")
        if len(args) != arity:
            raise self.error(f"{token.text} takes {arity} argument{'s' * (arity > 1)}, not {len(args)}", token)
        return args


@lru_cache
def _known_body(name: str) -> Expression:
    return parse(KNOWN[name].expression)


def parse(text: str, variables: tuple[str, ...] = ("x",)) -> Expression:
    """Read an expression.

    Args:
        text: at most 1,000 characters; the tree may have at most 128 nodes and a depth of 32.
        variables: the names that may stand as variables.

    Raises:
        ParseError: the text is not an expression, or exceeds a limit.
    """
    if not isinstance(text, str):
        raise ParseError(f"an expression is a text, not of type {type(text).__name__}", repr(text)[:80], 0)
    return _Parser(text, variables).parse()


def as_expression(expression: Expression | str) -> Expression:
    """Return an expression as it is, and parse a text.

    Raises:
        ParseError: the text is not an expression, or the argument has another type.
    """
    return expression if isinstance(expression, Expression) else parse(expression)
