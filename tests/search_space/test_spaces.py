"""The named spaces: their exact sizes, their fixed meanings, and what their titles promise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import BASELINES, Activation, Expression, Grammar, SpaceError, key, parse
from search_space.expression import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES
from search_space.spaces import SPACES, space

ALL = [(name, units) for name, row in SPACES.items() for units in row.units]

# The paper's discoveries that one core unit makes (data/paper_results.csv).
DISCOVERIES = [
    "x * sigmoid(beta * x)",
    "max(x, sigmoid(x))",
    "cos(x) - x",
    "min(x, sin(x))",
    "max(x, tanh(x))",
    "sinc(x) + x",
]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("swish2017", (6_250, 156_250_000, 8_789_062_500_000)),
        ("small1", (500, 1_000_000, 4_500_000_000)),
        ("large1", (18_375, 1_350_562_500)),
    ],
)
def test_sizes(name: str, sizes: tuple[int, ...]) -> None:
    row = SPACES[name]
    assert tuple(space(name, units).size for units in row.units) == sizes
    expected, unit = 1, len(row.unary) ** 2 * len(row.binary)
    for inputs, size in enumerate(sizes, start=1):
        expected *= inputs**2 * unit
        assert size == expected


def test_the_papers_space_is_the_default() -> None:
    assert space("swish2017") == Grammar(1) and space("swish2017", 3) == Grammar(3)


def test_names() -> None:
    assert all(row.name == name and row.title and row.reference for name, row in SPACES.items())
    assert all(name[-1].isdigit() for name in SPACES), "the version is part of the name"
    with pytest.raises(SpaceError, match="unknown space 'swish2016'; did you mean 'swish2017'"):
        space("swish2016")
    with pytest.raises(SpaceError, match="space 'large1' has 1, 2 units, not 3"):
        space("large1", 3)


@pytest.mark.parametrize(
    ("name", "meaning"), [("swish2017", "dbbb6e0754fb"), ("small1", "8a5ea6b3e1cb"), ("large1", "9e20e1e12da7")]
)
def test_a_published_name_keeps_its_meaning(name: str, meaning: str) -> None:
    """Studies record the name of their space. If this fails, do not change the number here: give the new space a new
    name."""
    row = SPACES[name]
    texts = repr((list(row.unary.items()), list(row.binary.items())))
    assert hashlib.sha256(texts.encode()).hexdigest()[:12] == meaning


@pytest.mark.parametrize(("name", "units"), ALL)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_choices_go_both_ways(name: str, units: int, data: st.DataObject) -> None:
    grammar = space(name, units)
    tree = grammar.decode(grammar.unrank(data.draw(st.integers(0, grammar.size - 1))))
    assert parse(str(tree)) == tree
    assert grammar.decode(grammar.encode(tree)) == tree


MEASURES: list[tuple[Callable[[Expression], int], int]] = [
    (lambda tree: tree.size, MAX_NODES),
    (lambda tree: tree.depth, MAX_DEPTH),
    (lambda tree: len(str(tree)), MAX_CHARACTERS),
]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("measure", "most"), MEASURES, ids=["nodes", "depth", "characters"])
def test_the_largest_functions_stay_within_the_limits_of_the_parser(
    name: str, measure: Callable[[Expression], int], most: int
) -> None:
    """The largest function has the largest primitives in each unit: a larger input never makes a smaller tree."""
    row, largest = SPACES[name], parse("x")
    for _ in row.units:
        sides = [parse(text).substitute({"x": largest}) for text in row.unary.values()]
        side = max(sides, key=measure)
        units = [parse(text, ("a", "b")).substitute({"a": side, "b": side}) for text in row.binary.values()]
        largest = max(units, key=measure)
    assert measure(largest) <= most


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("text", DISCOVERIES)
def test_every_space_holds_the_papers_best(name: str, text: str) -> None:
    grammar, tree = space(name), parse(text)
    assert key(grammar.decode(grammar.encode(tree))) == key(tree)


@pytest.mark.parametrize(
    "name", ["relu", "gelu", "swish", "swish1", "elu", "leaky_relu", "prelu", "softplus", "linear"]
)
def test_the_large_space_holds_known_functions(name: str) -> None:
    grammar, tree = space("large1"), parse(BASELINES[name].expression)
    assert key(grammar.decode(grammar.encode(tree))) == key(tree)


@pytest.mark.parametrize("gate", ["mish_gate", "hard_gate", "gelu_gate", "tanh_gate"])
def test_gates_are_the_functions_they_are_named_after(gate: str) -> None:
    grammar = replace(space("large1"), unary=("x",), binary=(gate,))
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    known = {
        "mish_gate": torch.nn.functional.mish,
        "hard_gate": torch.nn.functional.hardswish,
        "gelu_gate": torch.nn.functional.gelu,
        "tanh_gate": lambda x: x * torch.tanh(x),
    }
    torch.testing.assert_close(Activation(grammar.decode((0,) * 5))(x), known[gate](x))


@pytest.mark.parametrize("units", [1, 2, 3])
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_small_functions_are_finite_and_grow_no_faster_than_x(units: int, data: st.DataObject) -> None:
    grammar = space("small1", units)
    module = Activation(grammar.decode(grammar.unrank(data.draw(st.integers(0, grammar.size - 1)))))
    x = torch.tensor([0.0, 1e-30, 1.0, 88.0, 1e3, 1e6, 1e12, 1e30], dtype=torch.float32)
    bound = 2.0**units * (1 + x)  # add and sub double what they get
    with torch.no_grad():
        assert (module(x).abs() <= bound).all() and (module(-x).abs() <= bound).all()
