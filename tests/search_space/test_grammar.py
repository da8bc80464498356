"""The search space of the paper as a list of decisions."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_space import BINARY, UNARY, Choices, Grammar, SpaceError, canonical, key, parse
from search_space.expression import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES

SPACES = {units: Grammar(units) for units in (1, 2, 3)}
SMALL = Grammar(2, unary=("x", "neg"), binary=("sub",))
ANY_UNITS = st.sampled_from([1, 2, 3])
SEEDS = st.integers(0, 2**32)


def choices_of(grammar: Grammar) -> st.SearchStrategy[Choices]:
    return st.tuples(*(st.integers(0, len(decision.options) - 1) for decision in grammar.decisions))


def choose(grammar: Grammar, *names: str) -> Choices:
    """Return the choices with these names, in the order of the decisions."""
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
    """All units have the same primitive, and each uses the unit before it twice. No function of the space is larger."""
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


# Backwards -----------------------------------------------------------------------------------------------------------


def test_rank_is_the_place_in_the_enumeration() -> None:
    assert [SMALL.rank(SMALL.unrank(index)) for index in range(SMALL.size)] == list(range(SMALL.size))


@given(ANY_UNITS, st.data())
def test_rank_and_unrank_are_inverse(units: int, data: st.DataObject) -> None:
    grammar = SPACES[units]
    choices = data.draw(choices_of(grammar))
    assert grammar.unrank(grammar.rank(choices)) == choices
    index = data.draw(st.integers(0, grammar.size - 1))
    assert grammar.rank(grammar.unrank(index)) == index


def test_rank_refuses() -> None:
    with pytest.raises(SpaceError, match=r"unit1.unary2 takes 0 to 1, not 2"):
        SMALL.rank((0, 0, 0, 2, 0, 0, 0, 0, 0, 0))
    with pytest.raises(SpaceError, match="takes 10 choices, not 5"):
        SMALL.rank((0,) * 5)


def test_all_one_unit_choices_encode() -> None:
    grammar = SPACES[1]
    for index in range(grammar.size):
        tree = grammar.decode(grammar.unrank(index))
        assert grammar.decode(grammar.encode(tree)) == tree


@settings(deadline=None, max_examples=300)
@given(ANY_UNITS, st.data())
def test_any_choices_encode(units: int, data: st.DataObject) -> None:
    grammar = SPACES[units]
    tree = grammar.decode(data.draw(choices_of(grammar)))
    found = grammar.encode(tree)
    assert grammar.decode(found) == tree
    assert grammar.encode(grammar.decode(found)) == found, "a fixed point: the same tree, the same choices"


FEW = Grammar(3, unary=("x", "shift", "beta"), binary=("sub", "mul", "mix"))


@settings(deadline=None, max_examples=300)
@given(choices_of(FEW))
def test_few_primitives_with_many_shared_units_encode(choices: Choices) -> None:
    """Units are used twice and parameters stand in several places, so most trees can be read in several ways."""
    tree = FEW.decode(choices)
    assert FEW.decode(FEW.encode(tree)) == tree


def test_encode_without_the_units_that_are_not_needed() -> None:
    grammar = SPACES[3]
    assert grammar.encode(parse("cos(x) - x")) == (0,) * 10 + choose(SPACES[1], "x", "x", "cos", "x", "sub")


def test_a_shared_parameter_needs_a_shared_unit() -> None:
    assert SPACES[2].encode(parse("beta1 * x * (beta1 * x)")) != SPACES[2].encode(parse("beta1 * x * (beta2 * x)"))
    with pytest.raises(SpaceError, match="it takes 2 core units, not 1"):
        SPACES[1].encode(parse("beta1 * x * (beta1 * x)"))
    assert SPACES[1].encode(parse("beta1 * x * (beta2 * x)")) == choose(SPACES[1], "x", "x", "scale", "scale", "mul")


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (1, "x * sigmoid(beta * x)"),  # operands the other way round
        (1, "-x + cos(x)"),  # a sum for a difference
        (1, "max(x, 0)"),  # no core unit, but max(max(x, 0), max(x, 0)) is
        (1, "x"),
        (1, "softplus(x)"),
        (2, "x"),
        (2, "asinh(x)^2 * x"),
        (3, "min(sinc(x), atan(x)) + tanh(sin(x) * x)"),
    ],
)
def test_other_spellings_encode_by_key(units: int, text: str) -> None:
    grammar, tree = SPACES[units], parse(text)
    assert key(grammar.decode(grammar.encode(tree))) == key(tree)


def test_operands_in_any_order() -> None:
    """The normal form puts the smaller operand first, so the gate can be on either side."""
    grammar = Grammar(1, unary=("x", "log_abs"), binary=("gate",))
    assert grammar.encode(parse("log(abs(x) + eps) * sigmoid(x)")) == choose(grammar, "x", "x", "x", "log_abs", "gate")
    tree = parse("x * sigmoid(log(abs(x) + eps))")
    assert grammar.encode(tree) == choose(grammar, "x", "x", "log_abs", "x", "gate")


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_normal_form_encodes_to_its_key_or_not_at_all(data: st.DataObject) -> None:
    tree = canonical(SPACES[2].decode(data.draw(choices_of(SPACES[2]))))
    try:
        found = SPACES[2].encode(tree)
    except SpaceError:
        return
    assert key(SPACES[2].decode(found)) == key(tree)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("expm1(x)", r"^expm1\(x\) is not in this space: none of its primitives has expm1"),
        ("0.5 * x", "none of its primitives has 0.5$"),
        ("sin(cos(x)) + x", "it takes 2 core units, not 1"),
        ("sin(cos(tanh(x))) + x", "it takes 3 core units, not 1"),
        ("sin(cos(tanh(sin(x)))) + x", "1 core unit of its primitives do not make this expression"),
        ("beta1 * x + (x + beta1)", "1 core unit of its primitives do not make this expression"),
    ],
)
def test_encode_says_why_not(text: str, reason: str) -> None:
    with pytest.raises(SpaceError, match=reason):
        SPACES[1].encode(parse(text))


# Drawing -------------------------------------------------------------------------------------------------------------


def test_samples_are_uniform() -> None:
    draw, each = random.Random(0), 100
    counts = Counter(SMALL.rank(SMALL.sample(draw)) for _ in range(each * SMALL.size))
    chi_square = sum((counts[index] - each) ** 2 / each for index in range(SMALL.size))
    assert 30 < chi_square < 110, "63 degrees of freedom: mean 63, standard deviation 11"


def test_sampled_trees_are_not_all_full_trees() -> None:
    grammar, draw = SPACES[3], random.Random(0)
    sampled = [grammar.sample(draw) for _ in range(300)]
    used = Counter(len(_used(choices)) for choices in sampled)
    assert all(used[units] > 20 for units in (1, 2, 3)), used
    sizes = {grammar.decode(choices).size for choices in sampled}
    assert min(sizes) < 8 and max(sizes) > 40 and len(sizes) > 20
    for choices in sampled:
        cleared = [choice if place // 5 in _used(choices) else 0 for place, choice in enumerate(choices)]
        assert grammar.decode(cleared) == grammar.decode(choices), "the units that are not used do not matter"


def _used(choices: Choices) -> set[int]:
    """Return the indices of the units that the last unit depends on."""
    used, wanted = set[int](), [len(choices) // 5]
    while wanted:
        if unit := wanted.pop():
            used.add(unit - 1)
            wanted += choices[5 * unit - 5 : 5 * unit - 3]
    return used


@given(ANY_UNITS, SEEDS, st.data())
def test_a_mutation_changes_one_decision(units: int, seed: int, data: st.DataObject) -> None:
    grammar = SPACES[units]
    choices = data.draw(choices_of(grammar))
    mutated = grammar.mutate(choices, random.Random(seed))
    assert 0 <= grammar.rank(mutated) < grammar.size, "stays inside"
    assert sum(old != new for old, new in zip(choices, mutated, strict=True)) == 1


def test_mutations_reach_every_neighbour_and_no_other() -> None:
    grammar, draw = Grammar(2, unary=("x", "sin", "abs"), binary=("add", "max")), random.Random(0)
    start = grammar.sample(draw)
    neighbours = {
        (*start[:place], option, *start[place + 1 :])
        for place, decision in enumerate(grammar.decisions)
        for option in range(len(decision.options))
    } - {start}
    assert {grammar.mutate(start, draw) for _ in range(1_000)} == neighbours


def test_a_space_of_one_point_has_no_mutation() -> None:
    with pytest.raises(SpaceError, match="nothing to mutate"):
        Grammar(1, unary=("x",), binary=("add",)).mutate((0,) * 5, random.Random(0))


@given(ANY_UNITS, SEEDS, st.data())
def test_a_crossover_takes_each_decision_from_a_parent(units: int, seed: int, data: st.DataObject) -> None:
    grammar = SPACES[units]
    first, second = data.draw(choices_of(grammar)), data.draw(choices_of(grammar))
    child = grammar.crossover(first, second, random.Random(seed))
    assert 0 <= grammar.rank(child) < grammar.size, "stays inside"
    assert all(new in parents for new, *parents in zip(child, first, second, strict=True))


def test_crossover_reaches_every_mixture() -> None:
    grammar, draw = Grammar(1), random.Random(0)
    children = {grammar.crossover((0, 0, 1, 2, 3), (0, 0, 4, 5, 6), draw) for _ in range(200)}
    assert children == set(itertools.product((0,), (0,), (1, 4), (2, 5), (3, 6)))


@pytest.mark.parametrize("wrong", [(0, 0, 0, 0), (0, 0, 25, 0, 0)])
def test_relatives_of_impossible_choices(wrong: Choices) -> None:
    grammar, draw, right = SPACES[1], random.Random(0), (0,) * 5
    for attempt in (
        lambda: grammar.mutate(wrong, draw),
        lambda: grammar.crossover(wrong, right, draw),
        lambda: grammar.crossover(right, wrong, draw),
    ):
        with pytest.raises(SpaceError, match="takes"):
            attempt()


# Enumeration ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grammar", [SMALL, Grammar(1, ("x", "neg", "shift", "beta", "abs"), ("add", "max", "mix"))])
def test_unique_functions(grammar: Grammar) -> None:
    found = list(grammar.enumerate_unique())
    keys = [key(tree) for _, tree in found]
    assert len(set(keys)) == len(keys), "no key twice"
    everything = [key(grammar.decode(grammar.unrank(index))) for index in range(grammar.size)]
    assert set(keys) == set(everything), "and none left out"
    assert 1 < len(keys) < grammar.size
    for (choices, tree), name in zip(found, keys, strict=True):
        assert grammar.decode(choices) == tree
        assert grammar.rank(choices) == everything.index(name), "by its first choices"
    assert found == sorted(found, key=lambda pair: grammar.rank(pair[0]))


def test_unique_functions_are_lazy() -> None:
    assert len(list(itertools.islice(SPACES[3].enumerate_unique(), 20))) == 20


# Primitives of one's own ---------------------------------------------------------------------------------------------


def test_primitives_come_with_their_texts() -> None:
    grammar = Grammar(1, ("half", "x"), ("hypot",), {"x": "x", "half": "0.5 * x"}, {"hypot": "sqrt(a^2 + b^2)"})
    tree = grammar.decode((0, 0, 0, 1, 0))
    assert str(tree) == "sqrt((0.5 * x)^2 + x^2)"
    assert grammar.encode(tree) == (0, 0, 0, 1, 0)
    assert replace(grammar, unary=("half",)).size == 1
    assert grammar != replace(grammar, unary_texts={"x": "x", "half": "x / 2"})
    assert len({grammar, replace(grammar)}) == 1


def test_a_variable_in_two_places_is_one_tree() -> None:
    grammar = Grammar(2, ("x", "softsign"), ("add",), {"x": "x", "softsign": "x / (1 + abs(x))"}, {"add": "a + b"})
    tree = parse("(x + x) / (1 + abs(x + x)) + x")
    assert grammar.decode(grammar.encode(tree)) == tree
    with pytest.raises(SpaceError, match="do not make this expression"):
        grammar.encode(parse("(x + x) / (1 + abs(x)) + x"))


def test_a_primitive_may_pass_over_an_input() -> None:
    grammar = Grammar(2, ("neg", "x"), ("first",), {"x": "x", "neg": "-x"}, {"first": "sin(a)"})
    for index in range(grammar.size):
        tree = grammar.decode(grammar.unrank(index))
        assert grammar.decode(grammar.encode(tree)) == tree


@pytest.mark.parametrize(
    ("unary", "binary", "message"),
    [
        ("beta1 * x + beta2", "a + b", "at most one parameter; 'beta1 \\* x \\+ beta2' has more"),
        ("x", "beta * a + beta * b", "at most one parameter"),
        ("x +", "a + b", "expected a number"),
        ("a", "a + b", "unknown name 'a'"),
        ("x", "x + b", "unknown name 'x'"),
    ],
)
def test_impossible_primitives(unary: str, binary: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Grammar(1, ("u",), ("b",), {"u": unary}, {"b": binary})


def test_a_grammar_stays_what_it_was_made_of() -> None:
    """Seen to fail when the caller's dictionary was kept instead of a copy."""
    texts = dict(UNARY)
    grammar = Grammar(1, unary_texts=texts)
    texts["x"] = "sin(x)"
    assert grammar.unary_texts["x"] == "x" and grammar == Grammar(1)
    with pytest.raises(SpaceError, match="units must be"):
        Grammar(2.0)  # type: ignore[arg-type]
