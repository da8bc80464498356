"""The expression language: text to tree, tree to text, and all errors of texts."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search_space import FUNCTIONS, Expression, ParseError, SpaceError, parse
from search_space.expression import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, X, beta, number


def _apply(children: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def call(name: str) -> st.SearchStrategy[Expression]:
        return st.tuples(*[children] * FUNCTIONS[name].arity).map(lambda args: Expression(name, args))

    return st.sampled_from(sorted(FUNCTIONS)).flatmap(call)


NUMBERS = st.one_of(
    st.integers(0, 10).map(float),
    st.floats(0.0, exclude_min=True, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, 0.5, 5e-324, 1e14, 1e15, 1e16, 1e22, 123456.789, 1.7976931348623157e308]),
)
LEAVES = st.one_of(st.just(X), st.just(Expression("eps")), NUMBERS.map(number), st.integers(0, 5).map(beta))
TREES = st.recursive(LEAVES, _apply, max_leaves=40).filter(
    lambda tree: tree.size <= MAX_NODES and tree.depth <= MAX_DEPTH and len(str(tree)) <= MAX_CHARACTERS
)
TOKENS = (
    *(name for name in FUNCTIONS if name != "neg"),
    *(
        "x",
        "eps",
        "beta",
        "beta1",
        "beta2",
        "0",
        "1",
        "2.5",
        "1e14",
        "1e400",
        ".5",
        "(",
        ")",
        ",",
        " ",
        "neg",
        "y",
        "é",
    ),
)


# Text and tree, both ways


@settings(deadline=None, max_examples=400)
@given(TREES)
def test_text_of_a_tree_reads_as_that_tree(tree: Expression) -> None:
    assert parse(str(tree)) == tree.normal()
    assert str(parse(str(tree))) == str(tree)


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("-x^2", "-(x^2)"),
        ("(-x)^2", "((-x)^2)"),
        ("x - x - 1", "(x - x) - 1"),
        ("x / x / 2", "(x / x) / 2"),
        ("x / x * 2", "(x / x) * 2"),
        ("x + x * 2", "x + (x * 2)"),
        ("x^2^3", "x^(2^3)"),
        ("2^-x", "2^(-x)"),
        ("2^-x^2", "2^(-(x^2))"),
        ("2 * x^2", "2 * (x^2)"),
        ("-x * x", "(-x) * x"),
        ("-x + x", "(-x) + x"),
        ("x - -x", "x - (-x)"),
        ("x * -x / 2", "(x * (-x)) / 2"),
        ("--x", "-(-x)"),
    ],
)
def test_operators_group_as_in_mathematics(text: str, grouped: str) -> None:
    assert parse(text) == parse(grouped)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-x^2", "(-x)^2"),
        ("x - (x - 1)", "x - x - 1"),
        ("x / (x / 2)", "x / x / 2"),
        ("x * (x + 1)", "x * x + 1"),
        ("(x^2)^3", "x^2^3"),
        ("(2^x)^2", "2^x^2"),
        ("-(x + 1)", "-x + 1"),
        ("-(x * 2)", "-x * 2"),
    ],
)
def test_parentheses_are_kept_where_they_matter(one: str, other: str) -> None:
    assert parse(one) != parse(other)
    assert str(parse(one)) == one
    assert parse(str(parse(other))) == parse(other)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("x*sigmoid( beta*x )", "x * sigmoid(beta * x)"),
        ("max(x,sigmoid(x))", "max(x, sigmoid(x))"),
        ("((x))", "x"),
        ("((x - 1)) - (2)", "x - 1 - 2"),
        ("1.0 * x + .5", "1 * x + 0.5"),
        ("x+1E-06", "x + 1e-06"),
        (" x\t+\n1 ", "x + 1"),
    ],
)
def test_text_is_written_one_way(text: str, written: str) -> None:
    assert str(parse(text)) == written


def test_examples_of_the_paper() -> None:
    swish = parse("x * sigmoid(beta * x)")
    assert swish == Expression("*", (X, Expression("sigmoid", (Expression("*", (beta(1), X)),))))
    assert parse("max(x, sigmoid(x))") == Expression("max", (X, Expression("sigmoid", (X,))))
    square = Expression("^", (Expression("atan", (X,)), number(2)))
    assert parse("atan(x)^2 - x") == Expression("-", (square, X))
    for text in ("x * sigmoid(beta * x)", "max(x, sigmoid(x))", "atan(x)^2 - x", "cos(x) - x", "sinc(x) + x"):
        assert str(parse(text)) == text


@pytest.mark.parametrize("text", ["(1e14+1e14)", "(.1234567890123+beta)", "x^-(beta/beta)"])
def test_whatever_is_accepted_can_be_read_back(text: str) -> None:
    """`str` may write more characters than a person typed, but never more than `parse` accepts."""
    while True:
        try:
            tree = parse(text)
        except ParseError:
            break
        assert parse(str(tree)) == tree
        text = f"({text}+{text})"
    assert len(text) > 300


def test_other_variables() -> None:
    assert parse("a / (b + eps)", ("a", "b")).substitute({"a": X, "b": number(2)}) == parse("x / (2 + eps)")
    with pytest.raises(ParseError, match="unknown name 'x'"):
        parse("x + a", ("a", "b"))


# Parameters


def test_a_bare_beta_is_new_at_each_place() -> None:
    assert parse("beta * x + beta").betas == (1, 2)
    assert parse("beta1 * x + beta1").betas == (1,)
    assert parse("beta * x + beta1").betas == (1, 2)
    assert parse("beta1 * x + beta").betas == (1, 2)
    assert parse("beta * x + beta") == parse("beta1 * x + beta2")
    assert parse("beta * x + beta") != parse("beta1 * x + beta1")


def test_parameters_are_numbered_in_order_of_appearance() -> None:
    assert str(parse("beta7 * x + beta3 * beta7")) == "beta1 * x + beta2 * beta1"
    assert parse("beta7 * x + beta3 * beta7") == parse("beta3 * x + beta7 * beta3")
    assert parse("beta0 + beta999").betas == (1, 2)


def test_one_place_is_written_bare_and_two_places_by_number() -> None:
    assert str(parse("x * sigmoid(beta9 * x)")) == "x * sigmoid(beta * x)"
    assert str(parse("beta9 + beta9")) == "beta1 + beta1"
    assert str(parse("beta + beta")) == "beta1 + beta2"


# Measures of a tree


def test_size_depth_and_betas() -> None:
    tree = parse("x * sigmoid(beta * x)")
    assert (tree.size, tree.depth, tree.betas) == (6, 4, (1,))
    assert (X.size, X.depth, X.betas) == (1, 1, ())
    assert [str(leaf) for leaf in tree.leaves()] == ["x", "beta", "x"]


def test_numbers() -> None:
    assert number(-2) == parse("-2")
    assert str(number(0.1)) == "0.1"
    assert parse("0.1").value == 0.1
    for value in (math.inf, -math.inf, math.nan):
        with pytest.raises(SpaceError, match="finite"):
            number(value)
    assert parse(str(number(-0.0))) == number(-0.0)


# Errors

BAD = [
    ("", 0, "expected a number, a name or '(', not the end"),
    ("   ", 0, "the end"),
    ("x +", 3, "the end"),
    ("x + ", 3, "the end"),
    ("(x", 2, "expected ')', not the end"),
    ("(x + (x - 1)", 12, "not the end"),
    ("x)", 1, "expected an operator or the end, not ')'"),
    ("x x", 2, "expected an operato"),
    ("2 x", 2, "expected an operato"),
    ("2x", 1, "expected an operato"),
    ("+x", 0, "not '+'"),
    ("x ** 2", 3, "not '**': powers are written a^b"),
    ("x * * 2", 4, "powers are written"),
    ("* x", 0, "not '*'"),
    ("x^", 2, "the end"),
    ("x, x", 1, "expected an operato"),
    ("()", 1, "not ')'"),
    ("x(1)", 1, "expected an operato"),
    ("sgmoid(x)", 0, "did you mean 'sigmoid'"),
    ("x + bta", 4, "did you mean 'beta'"),
    ("x * Sigmoid(x)", 4, "did you mean 'sigmoid'"),
    ("zzzz", 0, "unknown name 'zzzz'; accepted: x, beta, eps"),
    ("sin" * 20, 0, "unknown name 'sinsinsinsinsinsinsinsinsinsinsinsins...'; accepted"),
    ("neg(x)", 0, "unknown name 'neg'"),
    ("x + beta1000", 4, "unknown name 'beta1000'"),
    ("x + beta_1", 4, "unknown name 'beta_1'"),
    ("__import__(x)", 0, "unknown name"),
    ("x.real", 1, "unexpected character '.'"),
    ("sin", 3, "expected '(', not the end"),
    ("sin x", 4, "expected '(', not 'x'"),
    ("sin()", 4, "not ')'"),
    ("1 + max(x)", 4, "max takes 2 arguments, not 1"),
    ("sin(x, x)", 0, "sin takes 1 argument, not 2"),
    ("max(x,)", 6, "not ')'"),
    ("max(x; x)", 5, "unexpected character ';'"),
    ("x\u00a0+ 1", 1, "unexpected character '\\xa0' (NO-BREAK SPACE); expressions are written in ASCII"),
    ("x\u00a0", 1, "unexpected character '\\xa0' (NO-BREAK SPACE)"),
    ("1e999", 0, "1e999 is too large"),
    ("x + 1e999", 4, "too large"),
    ("1.2.3", 3, "expected an operato"),
    ("1_000", 1, "expected an operato"),
    ("0x10", 1, "expected an operato"),
    (".", 0, "unexpected characte"),
    ("x\0", 1, "unexpected characte"),
    ("x + \ud800", 4, "unexpected characte"),
    ("x − 1", 2, "unexpected character '\\u2212' (MINUS SIGN); expressions are written in ASCII"),  # noqa: RUF001 - a minus sign that is no hyphen
    ("x × 2", 2, "unexpected characte"),  # noqa: RUF001
    ("1 + х", 4, "unexpected characte"),  # noqa: RUF001 - a Cyrillic letter
    ("ｘ", 0, "unexpected characte"),  # noqa: RUF001 - a wide letter
    ("x + ٣", 4, "unexpected characte"),  # an Arabic digit
    ("x + 1٣", 5, "unexpected characte"),
    ("x + beta٣", 8, "unexpected characte"),
    ("x²", 1, "unexpected characte"),
    ("x" + " " * MAX_CHARACTERS, MAX_CHARACTERS, "at most 1000 characters, this has 1001"),
    ("-" * MAX_DEPTH + "x", 0, "at most 32 nodes deep"),
    ("sin(" * MAX_DEPTH + "x" + ")" * MAX_DEPTH, 0, "at most 32 nodes deep"),
    ("2^" * MAX_DEPTH + "x", 1, "at most 32 nodes deep"),
    (" + ".join("x" * (MAX_DEPTH + 1)), 4 * MAX_DEPTH - 2, "at most 32 nodes deep"),
]


@pytest.mark.parametrize(("text", "position", "message"), BAD, ids=[ascii(text[:20]) for text, _, _ in BAD])
def test_error_says_what_and_where(text: str, position: int, message: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert caught.value.position == position
    assert isinstance(caught.value, SpaceError)
    what, shown, caret = str(caught.value).split("\n")
    assert caret.endswith(f"^ position {position}")
    if position < len(text) and text[position].isprintable():
        assert shown[caret.index("^")] == text[position]
    assert what and all(line.isprintable() for line in (what, shown, caret))


@pytest.mark.parametrize("count", [300, 500, 900])
@pytest.mark.parametrize("opening", ["(", "-", "2^", "sin(", "max(x,", "-(", "x-(", "2^-(", "(-", "x*"])
def test_deep_nesting_is_refused_and_not_followed(opening: str, count: int) -> None:
    text = (opening * count)[: MAX_CHARACTERS - 1] + "x"
    with pytest.raises(ParseError, match="deep") as caught:
        parse(text)
    assert 0 <= caught.value.position < len(text)


@pytest.mark.parametrize(
    ("opening", "closing"), [("-", ""), ("sin(", ")"), ("2^(", ")"), ("x - (", ")"), ("max(x, ", ")"), ("1 / -(", ")")]
)
def test_a_tree_of_the_greatest_depth_is_accepted(opening: str, closing: str) -> None:
    levels = (MAX_DEPTH - 1) // (2 if "-(" in opening else 1)
    tree = parse(opening * levels + "x" + closing * levels)
    assert MAX_DEPTH - 1 <= tree.depth <= MAX_DEPTH
    assert parse(str(tree)) == tree


def test_the_greatest_number_of_nodes() -> None:
    row = "(" + "+".join("x" * 16) + ")"
    most = "*".join([row] * 4)
    assert parse(most).size == MAX_NODES - 1
    assert parse("-" + most).size == MAX_NODES
    with pytest.raises(ParseError, match="at most 128 nodes") as caught:
        parse(most + "*x")
    assert most.endswith(row) and caught.value.position in (len(most), len(most) + 1)


def test_the_greatest_length() -> None:
    assert parse("x" + " " * (MAX_CHARACTERS - 1)) == X
    assert parse("(" * 30 + "x" + ")" * 30) == X


def _only_parse_errors(text: str) -> None:
    try:
        tree = parse(text)
    except ParseError as error:
        assert 0 <= error.position <= max(len(text), MAX_CHARACTERS)
        return
    assert tree.size <= MAX_NODES and tree.depth <= MAX_DEPTH
    assert parse(str(tree)) == tree


@settings(deadline=None, max_examples=500)
@given(st.text())
@example("x" * 1001)
@example("\x1cx\x85+\u00a01\u2003")
def test_any_text_gives_a_tree_or_a_parse_error(text: str) -> None:
    _only_parse_errors(text)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(TOKENS), max_size=400), st.sampled_from(["", " "]))
def test_any_soup_of_tokens_gives_a_tree_or_a_parse_error(tokens: list[str], separator: str) -> None:
    _only_parse_errors(separator.join(tokens))


@settings(deadline=None, max_examples=300)
@given(TREES, st.data())
def test_nearly_correct_texts_give_a_tree_or_a_parse_error(tree: Expression, data: st.DataObject) -> None:
    """Texts that are nearly right reach more of the parser than random characters do."""
    pieces = re.findall(r"\w+|\W", str(tree))
    at = data.draw(st.integers(0, len(pieces) - 1))
    new = data.draw(st.sampled_from(["", *TOKENS, pieces[at] * 2]))
    _only_parse_errors("".join([*pieces[:at], new, *pieces[at + 1 :]]))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("mish", "x * tanh(softplus(x))"),
        ("relu6(2 * x)", "min(max(2 * x, 0), 6)"),
        ("swish + swish", "x * sigmoid(beta1 * x) + x * sigmoid(beta2 * x)"),
        ("beta * swish1(x + beta)", "beta1 * ((x + beta2) * sigmoid(x + beta2))"),
        ("silu - gelu", "x * sigmoid(x) - 0.5 * x * (1 + erf(0.7071067811865476 * x))"),
        ("relu(-relu(x))", "max(-max(x, 0), 0)"),
        ("tanh", "tanh(x)"),
        ("x * sigmoid + softplus(-x)", "x * sigmoid(x) + softplus(-x)"),
    ],
)
def test_known_names_are_written_out(text: str, written: str) -> None:
    assert str(parse(text)) == written


def test_nested_known_names_keep_to_the_limits() -> None:
    """Each gelu doubles its argument: with forty of them the tree would have 10^12 nodes."""
    with pytest.raises(ParseError, match="at most 128 nodes"):
        parse("gelu(" * 28 + "x" + ")" * 28)
    with pytest.raises(ParseError, match="mish takes 1 argument"):
        parse("mish(x, x)")
    with pytest.raises(ParseError, match="mish takes an argument here"):
        parse("a + mish", variables=("a", "b"))
