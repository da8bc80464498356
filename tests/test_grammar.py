"""The search space of the paper as a list of decisions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import BINARY, UNARY, Choices, Grammar, SpaceError, parse
from search_space.expression import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES

SPACES = {units: Grammar(units) for units in (1, 2, 3)}
SMALL = Grammar(2, unary=("x", "neg"), binary=("sub",))


def choices_of(grammar: Grammar) -> st.SearchStrategy[Choices]:
    return st.tuples(*(st.integers(0, len(decision.options) - 1) for decision in grammar.decisions))


def choose(grammar: Grammar, *names: str) -> Choices:
    """The choices with these names, in the order of the decisions."""
    return tuple(decision.options.index(name) for decision, name in zip(grammar.decisions, names, strict=True))


@pytest.mark.parametrize(("units", "size"), [(1, 6_250), (2, 156_250_000), (3, 8_789_062_500_000)])
def test_sizes(units: int, size: int) -> None:
    assert SPACES[units].size == size


def test_decisions_stand_in_the_order_of_the_paper() -> None:
    kinds = ("input1", "input2", "unary1", "unary2", "binary")
    assert [d.name for d in SPACES[3].decisions] == [f"unit{unit}.{kind}" for unit in (1, 2, 3) for kind in kinds]
    inputs = [decision.options for decision in SPACES[3].decisions if ".input" in decision.name]
    assert inputs == [("x",)] * 2 + [("x", "unit1")] * 2 + [("x", "unit1", "unit2")] * 2
    for decision in SPACES[3].decisions:
        if ".unary" in decision.name:
            assert decision.options == tuple(UNARY)
        if ".binary" in decision.name:
            assert decision.options == tuple(BINARY)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("x", "x", "x", "scale", "add"), "x + beta * x"),
        (("x", "x", "cos", "x", "sub"), "cos(x) - x"),
        (("x", "x", "x", "sin", "min"), "min(x, sin(x))"),
        (("x", "x", "x", "sigmoid", "max"), "max(x, sigmoid(x))"),
        (("x", "x", "scale", "x", "gate"), "sigmoid(beta * x) * x"),
        (("x", "x", "sinc", "x", "add"), "sinc(x) + x"),
        (("x", "x", "exp", "cube", "div"), "exp(x) / (x^3 + eps)"),
        (("x", "x", "x", "beta", "rbf"), "exp(-beta1 * (x - beta2)^2)"),
        (("x", "x", "abs", "shift", "laplace"), "exp(-beta1 * abs(abs(x) - (x + beta2)))"),
        (("x", "x", "gauss", "log_abs", "mix"), "beta1 * exp(-x^2) + (1 - beta1) * log(abs(x) + eps)"),
    ],
)
def test_one_unit(names: tuple[str, ...], text: str) -> None:
    grammar = SPACES[1]
    assert str(grammar.decode(choose(grammar, *names))) == text


def test_two_units_of_the_paper() -> None:
    grammar = SPACES[2]
    first = ("x", "x", "atan", "atan", "mul")
    assert str(grammar.decode(choose(grammar, *first, "unit1", "x", "x", "x", "sub"))) == "atan(x) * atan(x) - x"
    assert str(grammar.decode(choose(grammar, *first, "x", "unit1", "x", "sqrt", "max"))) == (
        "max(x, sqrt(atan(x) * atan(x)))"
    )
    unused = grammar.decode(choose(grammar, *first, "x", "x", "neg", "x", "max"))
    assert str(unused) == "max(-x, x)"


def test_every_primitive_brings_a_parameter_of_its_own() -> None:
    grammar = SPACES[1]
    tree = grammar.decode(choose(grammar, "x", "x", "scale", "scale", "rbf"))
    assert str(tree) == "exp(-beta1 * (beta2 * x - beta3 * x)^2)"
    assert grammar.decode(choose(grammar, "x", "x", "beta", "shift", "mix")).betas == (1, 2, 3)
    grammar = SPACES[2]
    names = ("x", "x", "scale", "x", "rbf")
    tree = grammar.decode(choose(grammar, *names, "unit1", "x", "shift", "scale", "laplace"))
    assert len(tree.betas) == 5


def test_a_unit_used_twice_is_one_function() -> None:
    grammar = SPACES[2]
    first = ("x", "x", "scale", "shift", "mul")
    tree = grammar.decode(choose(grammar, *first, "unit1", "unit1", "x", "sin", "add"))
    unit = "beta1 * x * (x + beta2)"
    assert tree == parse(f"{unit} + sin({unit})")
    tree = grammar.decode(choose(grammar, *first, "unit1", "unit1", "scale", "scale", "add"))
    assert len(tree.betas) == 4, "the unit's two are shared, the scales are not"


def test_all_one_unit_choices_read_back() -> None:
    grammar = SPACES[1]
    for index in range(grammar.size):
        tree = grammar.decode(grammar.unrank(index))
        assert parse(str(tree)) == tree


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([2, 3]).flatmap(lambda units: st.tuples(st.just(units), choices_of(SPACES[units]))))
def test_any_choices_read_back(drawn: tuple[int, Choices]) -> None:
    units, choices = drawn
    tree = SPACES[units].decode(choices)
    assert parse(str(tree)) == tree


@pytest.mark.parametrize("binary", BINARY)
def test_the_largest_functions_stay_within_the_limits_of_the_parser(binary: str) -> None:
    """All units made of one primitive, each taking the unit before it twice: no function of this space is larger."""
    grammar = SPACES[3]
    for unary in UNARY:
        unit = (unary, unary, binary)
        names = ("x", "x", *unit, "unit1", "unit1", *unit, "unit2", "unit2", *unit)
        tree = grammar.decode(choose(grammar, *names))
        assert tree.size <= MAX_NODES and tree.depth <= MAX_DEPTH and len(str(tree)) <= MAX_CHARACTERS
        assert parse(str(tree)) == tree


def test_unrank_is_a_bijection_in_lexicographic_order() -> None:
    assert SMALL.size == 64
    listed = [SMALL.unrank(index) for index in range(SMALL.size)]
    assert listed == list(itertools.product(*(range(len(decision.options)) for decision in SMALL.decisions)))


@settings(deadline=None)
@given(st.integers(0, SPACES[3].size - 1))
def test_unrank_of_the_large_space(index: int) -> None:
    rank = 0
    for decision, choice in zip(SPACES[3].decisions, SPACES[3].unrank(index), strict=True):
        assert 0 <= choice < len(decision.options)
        rank = rank * len(decision.options) + choice
    assert rank == index


@pytest.mark.parametrize("index", [-1, 64, 10**20])
def test_unrank_refuses(index: int) -> None:
    with pytest.raises(SpaceError, match=f"0 to 63, not {index}"):
        SMALL.unrank(index)


def test_restricted_primitives() -> None:
    assert {str(SMALL.decode(SMALL.unrank(index))) for index in range(SMALL.size)} >= {"x - x", "-x - -x", "x - -x"}
    grammar = Grammar(1, unary=("sin", "x"), binary=("max", "add"))
    assert grammar.size == 8
    assert str(grammar.decode((0, 0, 0, 1, 1))) == "sin(x) + x", "options stand in the order that was asked for"
    assert Grammar(1) == SPACES[1] != grammar


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"units": 0}, "units must be 1 to 3, not 0"),
        ({"units": 4}, "units must be 1 to 3, not 4"),
        ({"unary": ("x", "sigmod")}, "unknown unary primitive 'sigmod'; did you mean 'sigmoid'"),
        ({"binary": ("ad",)}, "unknown binary primitive 'ad'; did you mean 'add'"),
        ({"unary": ("add",)}, "unknown unary primitive 'add'"),
        ({"unary": ()}, "at least one unary primitive"),
        ({"binary": ()}, "at least one binary primitive"),
        ({"unary": ("x", "sin", "x")}, "a unary primitive is named twice in x, sin, x"),
        ({"binary": ("add", "add")}, "a binary primitive is named twice"),
    ],
)
def test_impossible_spaces(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Grammar(**kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((), "takes 5 choices, not 0"),
        ((0, 0, 0, 0), "takes 5 choices, not 4"),
        ((0,) * 10, "takes 5 choices, not 10"),
        ((1, 0, 0, 0, 0), "unit1.input1 takes 0 to 0, not 1"),
        ((0, 0, 25, 0, 0), "unit1.unary1 takes 0 to 24, not 25"),
        ((0, 0, 0, -1, 0), "unit1.unary2 takes 0 to 24, not -1"),
        ((0, 0, 0, 0, 10), "unit1.binary takes 0 to 9, not 10"),
    ],
)
def test_impossible_choices(choices: Choices, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        SPACES[1].decode(choices)
