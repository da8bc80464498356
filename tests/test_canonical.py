"""Keys: equal ones must be equal functions, and the forms that searches and people write must meet."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import FUNCTIONS, Activation, Expression, Grammar, canonical, key, parse
from search_space.expression import X, beta, number

torch.set_num_threads(1)

COMMUTATIVE = ("+", "*", "max", "min")
POINTS = torch.tensor([[-3.1], [-1.7], [-0.9], [-0.31], [0.0], [0.23], [0.8], [1.9], [2.7]], dtype=torch.float64)
BETAS = (0.7, 1.3, 1.9, 0.45)

Values = tuple[float, ...]


def values(expression: Expression, betas: Iterable[float]) -> Values:
    module = Activation(expression).double()
    if module.beta is not None:
        module.beta.data = torch.tensor(list(betas), dtype=torch.float64)[: len(module.beta), None]
    with torch.no_grad():
        return tuple(module(POINTS).flatten().tolist())


def same(one: Values, other: Values) -> bool:
    """Equal up to rounding, and not a number at the same points."""
    left, right = torch.tensor([one, other], dtype=torch.float64)
    return torch.allclose(left, right, rtol=1e-9, atol=1e-11, equal_nan=True)


def equal(one: Expression, other: Expression) -> bool:
    """One function: there is a way to match the parameters, which the two may have in different orders."""
    count = max(len(one.betas), len(other.betas))
    assert count <= len(BETAS)
    wanted = values(one, BETAS)
    return any(same(wanted, values(other, betas)) for betas in itertools.permutations(BETAS[:count]))


# All of the smallest space


@pytest.fixture(scope="module")
def one_unit() -> dict[str, list[Expression]]:
    """The 6,250 expressions of one unit, by key."""
    grammar, found = Grammar(1), defaultdict(list)
    for index in range(grammar.size):
        expression = grammar.decode(grammar.unrank(index))
        found[key(expression)].append(expression)
    return dict(found)


def test_equal_keys_are_equal_functions(one_unit: dict[str, list[Expression]]) -> None:
    wrong = [
        f"{first} and {other}" for first, *others in one_unit.values() for other in others if not equal(first, other)
    ]
    assert not wrong


def test_about_a_third_of_the_small_space_is_duplicates(one_unit: dict[str, list[Expression]]) -> None:
    """Counted by numbers, about 4,000 of the 6,250 are distinct: a key that misses many of the rest is of no use."""
    assert sum(map(len, one_unit.values())) == 6_250
    assert 3_900 <= len(one_unit) <= 4_300


def test_distinct_keys_are_mostly_distinct_functions(one_unit: dict[str, list[Expression]]) -> None:
    """Functions without a parameter, by their numbers: few of them have more than one key."""
    keys_of = defaultdict(set)
    for found, expressions in one_unit.items():
        if not expressions[0].betas:
            rounded = tuple(round(value, 9) + 0.0 if value == value else None for value in values(expressions[0], ()))
            keys_of[rounded].add(found)
    assert len(keys_of) > 2_000
    assert sum(len(keys) > 1 for keys in keys_of.values()) < 0.05 * len(keys_of)


def test_canonical_of_canonical_is_itself(one_unit: dict[str, list[Expression]]) -> None:
    for expressions in one_unit.values():
        normal = canonical(expressions[0])
        assert canonical(normal) == normal
        assert all(canonical(other) == normal for other in expressions[1:])


def test_canonical_is_the_same_function(one_unit: dict[str, list[Expression]]) -> None:
    chosen = random.Random(0).sample([expressions[-1] for expressions in one_unit.values()], 400)
    two_units = Grammar(2)
    drawn = (two_units.decode(two_units.unrank(random.Random(n).randrange(two_units.size))) for n in range(600))
    chosen += [expression for expression in drawn if len(expression.betas) <= 3]
    wrong = [f"{e} and {canonical(e)}" for e in chosen if not equal(e, canonical(e))]
    assert len(chosen) > 700 and not wrong


# Forms that meet, and forms that must not


EQUAL = [
    ("x + sin(x)", "sin(x) + x"),
    ("x * sigmoid(beta * x)", "sigmoid(x * beta) * x"),
    ("max(x, sigmoid(x))", "max(sigmoid(x), x)"),
    ("x - sin(x)", "x + -sin(x)"),
    ("x - sin(x)", "-sin(x) + x"),
    ("x - sin(x)", "x + sin(-x)"),
    ("-(x - sin(x))", "sin(x) - x"),
    ("x - -x", "x + x"),
    ("x * x", "x^2"),
    ("x * x^2", "x^3"),
    ("x^2 * x", "x * x * x"),
    ("(-x)^2", "x^2"),
    ("(x - sin(x))^2", "(sin(x) - x)^2"),
    ("(-x)^3", "-x^3"),
    ("abs(x)^2", "x^2"),
    ("abs(-x)", "abs(x)"),
    ("abs(x - 1)", "abs(1 - x)"),
    ("abs(abs(x))", "abs(x)"),
    ("abs(x^2)", "x^2"),
    ("cos(-x)", "cos(x)"),
    ("cos(abs(x))", "cos(x)"),
    ("cosh(x - 1)", "cosh(1 - x)"),
    ("sinc(abs(-x))", "sinc(x)"),
    ("tanh(-x)", "-tanh(x)"),
    ("-x * sinh(-x)", "x * sinh(x)"),
    ("asinh(-x) / 2", "-(asinh(x) / 2)"),
    ("erf(-x) - atan(-x)", "atan(x) - erf(x)"),
    ("max(x, x)", "x"),
    ("max(x, max(x, 1))", "max(1, x)"),
    ("min(min(1, x), x)", "min(x, 1)"),
    ("x + 0", "x"),
    ("x - 0", "x"),
    ("0 + sin(x)", "sin(x)"),
    ("1 * x", "x"),
    ("x / 1", "x"),
    ("x^1", "x"),
    ("x * 0", "0"),
    ("x - x", "0"),
    ("--x", "x"),
    ("beta1 * x + (1 - beta1) * x", "x"),
    ("(1 - beta1) * x^2 + beta1 * x^2", "x * x"),
    ("beta1 * sqrt(x) + (1 - beta1) * sqrt(x)", "sqrt(x)"),
    ("exp(-beta * (x - sin(x))^2)", "exp(-beta * (sin(x) - x)^2)"),
    ("exp(-beta1 * abs(x - beta2))", "exp(-beta2 * abs(beta1 - x))"),
    ("beta7 * x + beta3", "beta1 + beta2 * x"),
    ("beta * x + beta", "beta + beta * x"),
    ("beta1 * beta1", "beta1^2"),
    ("1.0 * x + 2.50", "2.5 + x"),
]

DIFFERENT = [
    ("beta1 * x + beta1", "beta1 * x + beta2"),
    ("max(beta1, beta1 * x)", "max(beta1, beta2 * x)"),
    ("beta1 * x^2 + beta2 * x + beta1", "beta1 * x^2 + beta2 * x + beta2"),
    ("beta1 - beta1", "beta1 - beta2"),
    ("beta1 * beta1", "beta1 * beta2"),
    ("max(beta1, beta1)", "max(beta1, beta2)"),
    ("beta1 * x + (1 - beta1) * x^2", "beta1 * x + (1 - beta2) * x^2"),
    ("beta1 * x + (1 - beta2) * x", "x"),
    ("beta1 * x^2 + (1 - beta1) * x", "beta1 * x^2 + (1 + beta1) * x"),
    ("x * sigmoid(x)", "x * sigmoid(beta * x)"),
    ("beta * x", "x"),
    ("beta", "1"),
    ("x - sin(x)", "sin(x) - x"),
    ("x / sin(x)", "sin(x) / x"),
    ("2^x", "x^2"),
    ("(x^2)^3", "x^2^3"),
    ("-x^2", "(-x)^2"),
    ("abs(x)^3", "x^3"),
    ("abs(x^3)", "x^3"),
    ("abs(x + 1)", "abs(x - 1)"),
    ("abs(x) + 1", "abs(x + 1)"),
    ("cos(x + 1)", "cos(x - 1)"),
    ("exp(-x)", "exp(x)"),
    ("exp(-x)", "-exp(x)"),
    ("sigmoid(-x)", "-sigmoid(x)"),
    ("sqrt(x^2)", "x"),
    ("sqrt(x)^2", "x"),
    ("max(x, -x)", "max(x, x)"),
    ("max(x, 1)", "min(x, 1)"),
    ("max(-x, 1)", "-min(x, 1)"),
    ("max(x, min(x, 1))", "max(x, 1)"),
    ("x + eps", "x"),
    ("x + eps", "x + 1e-07"),
    ("x / (x + eps)", "1"),
    ("x + 1", "x + 1.0000000000000002"),
    ("sqrt(x) - sqrt(x)", "x - x"),  # not a number below 0
    ("sqrt(x) * 0", "x * 0"),
    ("log(x) + -log(x)", "0"),
    ("x / 0 * 0", "0"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal(one: str, other: str) -> None:
    assert equal(parse(one), parse(other)), "the table itself is wrong"
    assert key(parse(one)) == key(parse(other))


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different(one: str, other: str) -> None:
    assert key(parse(one)) != key(parse(other))


def _trees(betas: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    leaves = st.one_of(st.just(X), st.just(Expression("eps")), st.sampled_from([0.0, 1.0, 2.0, 3.0]).map(number), betas)

    def call(children: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        names = st.sampled_from([*sorted(FUNCTIONS), *COMMUTATIVE * 4])
        return names.flatmap(
            lambda name: st.tuples(*[children] * FUNCTIONS[name].arity).map(lambda args: Expression(name, args))
        )

    return st.recursive(leaves, call, max_leaves=12)


def swapped(tree: Expression, rng: random.Random) -> Expression:
    """The tree with the operands of commutative functions the other way round at random places."""

    def swap(node: Expression, args: tuple[Expression, ...]) -> Expression:
        if node.op in COMMUTATIVE and rng.random() < 0.5:
            args = args[::-1]
        return Expression(node.op, args, node.value)

    return tree.fold(swap).normal()


@settings(deadline=None, max_examples=300)
@given(_trees(st.just(beta(1))), st.randoms(use_true_random=False))
def test_order_of_operands_does_not_matter(tree: Expression, rng: random.Random) -> None:
    tree = parse(str(tree).replace("beta1", "beta"))  # a parameter of its own at each place, as in most candidates
    assert key(swapped(tree, rng)) == key(tree)


@settings(deadline=None, max_examples=300)
@given(_trees(st.integers(1, 3).map(beta)), st.randoms(use_true_random=False))
def test_order_of_operands_does_not_matter_where_parameters_are_shared(tree: Expression, rng: random.Random) -> None:
    assert key(swapped(tree, rng)) == key(tree)


@settings(deadline=None, max_examples=300)
@given(_trees(st.integers(1, 3).map(beta)), st.permutations([1, 2, 3]))
def test_numbers_of_parameters_do_not_matter(tree: Expression, numbers: list[int]) -> None:
    renamed = tree.with_betas({old: numbers[old - 1] for old in tree.betas})
    assert key(renamed) == key(tree) == key(parse(str(tree)))


@settings(deadline=None, max_examples=300)
@given(_trees(st.integers(1, 3).map(beta)))
def test_canonical_of_canonical_of_any_tree(tree: Expression) -> None:
    normal = canonical(tree)
    assert canonical(normal) == normal
    assert key(normal) == key(tree)


@settings(deadline=None, max_examples=300)
@given(_trees(st.integers(1, 2).map(beta)))
def test_canonical_never_changes_which_parameters_are_one(tree: Expression) -> None:
    """Rewriting may drop a parameter, never make two of one or one of two."""
    normal = canonical(tree)
    assert len(normal.betas) <= len(tree.betas)
    assert normal.betas == tuple(range(1, len(normal.betas) + 1))


# Keys last


GOLDEN = {
    "x": "2d711642b726b044",
    "max(x, 0)": "2ef1730667cf4e4c",
    "x * sigmoid(beta * x)": "bde4811724b04724",
    "0.5 * x * (1 + erf(0.7071067811865476 * x))": "afb93774243ae095",
    "max(x, 0) + 0.25 * beta * min(x, 0)": "08d92344698b6e04",
    "cos(x) - x": "c4147a7b38973c70",
    "x / (cosh(x) + eps)": "06de75dcc44ddc3f",
    "exp(-beta1 * (x - beta2)^2)": "82b346731ca2e09b",
    "beta1 * x + (1 - beta1) * tanh(x)": "0bd5af9b032f0e0a",
}


@pytest.mark.parametrize(("text", "wanted"), GOLDEN.items())
def test_keys_stay_what_they_are(text: str, wanted: str) -> None:
    """Stores keep keys for ever: a change of this table makes every stored study forget what it knows."""
    assert key(parse(text)) == wanted


def test_keys_are_the_same_in_another_process() -> None:
    grammar = Grammar(2)
    texts = [str(grammar.decode(grammar.unrank(n * 1_234_567))) for n in range(100)]
    code = "import sys; from search_space import *; print(*(key(parse(line)) for line in sys.stdin))"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(texts),
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    assert printed.split() == [key(parse(text)) for text in texts]
