"""Compare expressions with a second evaluator that shares no code with the first one. Python's own parser reads the
text, mpmath computes with 40 digits, and dual numbers carry the slopes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mpmath
import pytest
import torch
from mpmath import mpf

from search_space import FUNCTIONS, KNOWN, SPACES, Activation, Expression, ParseError, parse, space
from search_space.activation import gradients
from search_space.expression import X, beta, number

pytestmark = pytest.mark.slow

TREES = 2_000
POINTS = (-2.3, -0.41, 0.77, 3.1)
BETAS = (0.7, 1.3, -0.6, 1.9, 0.35, 2.2, -1.4, 0.9)
LARGE = mpf("1e250")  # beyond it float64 overflows somewhere on the way


class Skip(ArithmeticError):
    """Raised at points that cannot be compared: a kink, a number beyond float64, or a point outside the domain."""


@dataclass
class Dual:
    """A number and its slope."""

    value: Any
    slope: Any

    def __add__(self, other: Dual) -> Dual:
        return checked(self.value + other.value, self.slope + other.slope)

    def __sub__(self, other: Dual) -> Dual:
        return checked(self.value - other.value, self.slope - other.slope)

    def __mul__(self, other: Dual) -> Dual:
        return checked(self.value * other.value, self.slope * other.value + self.value * other.slope)

    def __truediv__(self, other: Dual) -> Dual:
        if not other.value:
            raise Skip
        quotient = self.value / other.value
        return checked(quotient, (self.slope - quotient * other.slope) / other.value)

    def __neg__(self) -> Dual:
        return Dual(-self.value, -self.slope)

    def __pow__(self, other: Dual) -> Dual:
        whole = other.value == mpmath.nint(other.value)
        if self.value <= 0 and whole and not other.slope and (self.value or other.value >= 1):
            exponent = int(other.value)
            return checked(self.value**exponent, exponent * self.value ** (exponent - 1) * self.slope)
        if self.value <= 0:
            raise Skip
        power = self.value**other.value
        grown = other.slope * mpmath.log(self.value) + other.value * self.slope / self.value
        return checked(power, power * grown)


def checked(value: Any, slope: Any) -> Dual:
    if not (mpmath.isfinite(value) and mpmath.isfinite(slope)) or abs(value) > LARGE or abs(slope) > LARGE:
        raise Skip
    if value and abs(value) < 1 / LARGE:
        raise Skip
    return Dual(value, slope)


def smooth(f: Callable[[Any], Any], derivative: Callable[[Any], Any]) -> Callable[[Dual], Dual]:
    def apply(a: Dual) -> Dual:
        if abs(a.value) > 500 and f not in (mpmath.atan, mpmath.asinh, mpmath.tanh, mpmath.erf):
            raise Skip  # exp and its kin overflow, sine loses its argument
        return checked(f(a.value), derivative(a.value) * a.slope)

    return apply


def positive(f: Callable[[Any], Any], derivative: Callable[[Any], Any]) -> Callable[[Dual], Dual]:
    def apply(a: Dual) -> Dual:
        if a.value <= 0:
            raise Skip
        return checked(f(a.value), derivative(a.value) * a.slope)

    return apply


def apart(a: Dual, b: Dual) -> None:
    if abs(a.value - b.value) <= mpf("1e-9") * (abs(a.value) + abs(b.value)):
        raise Skip


def maximum(a: Dual, b: Dual) -> Dual:
    apart(a, b)
    return a if a.value > b.value else b


def minimum(a: Dual, b: Dual) -> Dual:
    apart(a, b)
    return a if a.value < b.value else b


def absolute(a: Dual) -> Dual:
    apart(a, -a)
    return a if a.value > 0 else -a


def signum(a: Dual) -> Dual:
    apart(a, -a)
    return Dual(mpmath.sign(a.value), mpf(0))


def logistic(a: Any) -> Any:
    return 1 / (1 + mpmath.exp(-a))


def sinc(a: Any) -> Any:
    return mpmath.sin(a) / a if a else mpf(1)


def sinc_slope(a: Any) -> Any:
    return (mpmath.cos(a) - sinc(a)) / a if a else mpf(0)


NAMES: dict[str, Any] = {
    "max": maximum,
    "min": minimum,
    "abs": absolute,
    "sign": signum,
    "sqrt": positive(mpmath.sqrt, lambda a: 1 / (2 * mpmath.sqrt(a))),
    "log": positive(mpmath.log, lambda a: 1 / a),
    "exp": smooth(mpmath.exp, mpmath.exp),
    "expm1": smooth(mpmath.expm1, mpmath.exp),
    "sin": smooth(mpmath.sin, mpmath.cos),
    "cos": smooth(mpmath.cos, lambda a: -mpmath.sin(a)),
    "sinh": smooth(mpmath.sinh, mpmath.cosh),
    "cosh": smooth(mpmath.cosh, mpmath.sinh),
    "tanh": smooth(mpmath.tanh, lambda a: mpmath.sech(a) ** 2),
    "asinh": smooth(mpmath.asinh, lambda a: 1 / mpmath.sqrt(1 + a * a)),
    "atan": smooth(mpmath.atan, lambda a: 1 / (1 + a * a)),
    "sinc": smooth(sinc, sinc_slope),
    "sigmoid": smooth(logistic, lambda a: logistic(a) * logistic(-a)),
    "softplus": smooth(lambda a: mpmath.log1p(mpmath.exp(a)), logistic),
    "erf": smooth(mpmath.erf, lambda a: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-a * a)),
}


class Number(Dual):
    """A literal as Python's parser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__(mpf(float(text)), mpf(0))


def oracle(text: str, point: float, digits: int) -> Dual:
    """Return the value and the slope by x."""
    with mpmath.workdps(digits):
        names = {**NAMES, "N": Number, "x": Dual(mpf(point), mpf(1)), "eps": Number("1e-6"), "beta": Number("0.7")}
        names |= {f"beta{i}": Number(str(value)) for i, value in enumerate(BETAS, start=1)}
        literals = re.sub(r"(?<![A-Za-z_0-9.])(\d[\d.]*(?:e[+-]?\d+)?)", r"N('\1')", text)
        result = eval(literals.replace("^", "**"), {"__builtins__": {}}, names)  # our own text
        assert isinstance(result, Dual)
        return result


def free_tree(draw: random.Random, depth: int) -> Expression:
    """Return a random tree of any functions of the language."""
    if depth == 0 or draw.random() < 0.2:
        leaves = [X, X, X, Expression("eps"), number(draw.choice([0.0, 0.5, 1.0, 2.0, 3.0, 1.25]))]
        return draw.choice([*leaves, beta(draw.randint(1, 3))])
    name = draw.choice([*sorted(NAMES), "+", "-", "*", "/", "^", "neg"])
    return Expression(name, tuple(free_tree(draw, depth - 1) for _ in range(FUNCTIONS[name].arity)))


def random_trees() -> Iterator[Expression]:
    """Return random trees: half from the named spaces with one to three units, half from `free_tree`."""
    draw = random.Random(2017)
    grammars = [space(row.name, units) for row in SPACES.values() for units in row.units]
    made = 0
    while made < TREES:
        drawn = made % 2
        grammar = draw.choice(grammars)
        tree = free_tree(draw, draw.randint(1, 5)) if drawn else grammar.decode(grammar.sample(draw))
        if len(tree.betas) > len(BETAS) or tree.size > 100:
            continue
        made += 1
        yield tree.normal()


def ours(tree: Expression, points: tuple[float, ...]) -> tuple[list[float], list[float]]:
    module = Activation(tree).double()
    for parameter, start in zip(module.betas, BETAS, strict=False):
        torch.nn.init.constant_(parameter, start)
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    y = module(x)
    return y.tolist(), gradients(y, [x])[0].tolist()


def agreement(text: str, tree: Expression) -> int:
    """Compare both evaluators, and return the number of points at which this was possible. It fails if they differ by
    more than rounding in float64 explains: the second evaluator with 16 instead of 40 digits shows how much the formula
    suffers from rounding. (Torch's kernel of hard_sigmoid uses 1/6 in float32 for every type, hence 1e-7.)"""
    values, slopes = ours(tree, POINTS)
    compared = 0
    for point, value, slope in zip(POINTS, values, slopes, strict=True):
        try:
            exact, rounded = oracle(text, point, 40), oracle(text, point, 16)
        except Skip:
            continue
        for got, wanted, near in ((value, exact.value, rounded.value), (slope, exact.slope, rounded.slope)):
            allowed = 1e-7 * abs(wanted) + 1e3 * abs(near - wanted) + 1e-12
            assert abs(got - wanted) <= allowed, (text, point, got, wanted)
        compared += 1
    return compared


def test_every_word_is_in_the_oracle() -> None:
    assert {name for name in FUNCTIONS if name.isidentifier() and name != "neg"} == set(NAMES)


def test_random_trees_have_the_value_and_slope_that_mathematics_gives_them() -> None:
    compared = [agreement(str(tree), tree) for tree in random_trees()]
    assert len(compared) == TREES
    assert sum(count > 0 for count in compared) > 0.75 * TREES, "most trees are defined somewhere"


@pytest.mark.parametrize("name", KNOWN)
def test_known_functions(name: str) -> None:
    tree = parse(KNOWN[name].expression)
    assert agreement(str(tree), tree) == len(POINTS)


@pytest.mark.parametrize(
    ("text", "other"),
    [("sin(x)", "sin(x) + 1e-6"), ("tanh(x)", "atan(x)"), ("-x^2", "(-x)^2"), ("x - 2 - 1", "x - (2 - 1)")],
)
def test_the_comparison_can_fail(text: str, other: str) -> None:
    with pytest.raises(AssertionError):
        agreement(text, parse(other))


def test_the_oracle_reads_the_text_and_not_the_tree() -> None:
    with pytest.raises(ParseError):
        parse("x ** 2")
    assert oracle("x^2 + 0.5 * x", 3.0, 30).value == mpf("10.5")
    assert oracle("2^-x", 1.0, 30).slope == pytest.approx(-0.34657359)
