"""Primitives of users: each test that a definition has to pass, and how accepted primitives are used."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from search_space import (
    FUNCTIONS,
    SPACES,
    Activation,
    Grammar,
    ParseError,
    SpaceError,
    canonical,
    code,
    key,
    parse,
    preflight,
    profile,
    space,
)
from search_space import registry as module_under_test
from search_space.kernels import KERNELS
from search_space.registry import Registered, extended, load_primitives, register

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove what a test registered, and the modules that it imported."""
    words, paths, loaded = list(FUNCTIONS), list(sys.path), set(sys.modules)
    yield
    for module in list(module_under_test._REGISTERED):
        module_under_test._unregister(module)
    sys.path[:] = paths
    for name in set(sys.modules) - loaded:
        if name.startswith("mine"):
            del sys.modules[name]
    assert list(FUNCTIONS) == words


def bent(a: Tensor) -> Tensor:
    return (torch.sqrt(a * a + 1) - 1) / 2 + a


# What becomes of a definition


def test_a_text_becomes_a_primitive() -> None:
    assert register("bump", "x*exp(-beta * x^2)") == Registered("bump", 1, "x * exp(-beta * x^2)")
    assert register("tamed", "a / (1 + abs(b))") == Registered("tamed", 2, "a / (1 + abs(b))")
    with pytest.raises(ParseError, match="unknown name 'bump'"):
        parse("bump(x)")


def test_a_known_function_in_a_text_is_written_out() -> None:
    assert register("twice", "2 * mish").text == "2 * (x * tanh(softplus(x)))"


def test_a_function_becomes_a_word() -> None:
    assert register("my_bent", bent, finite=(-1e4, 1e4), meaning="bent identity") == Registered(
        "my_bent", 1, "my_bent(x)"
    )
    assert FUNCTIONS["my_bent"].meaning == "bent identity"
    tree = parse("beta * my_bent(2 * x) + 1")
    assert str(tree) == "beta * my_bent(2 * x) + 1"
    x = torch.linspace(-3, 3, 24).reshape(2, 3, 4)
    torch.testing.assert_close(Activation(tree, 3)(x), bent(2 * x) + 1)
    assert preflight(tree) is None
    assert profile(tree).trend == "increasing"


def test_a_word_of_two_takes_constants_and_parameters_on_either_side() -> None:
    assert register("hypot", hypot, finite=None).text == "hypot(a, b)"
    x = torch.linspace(-3, 3, 24, dtype=torch.float64).reshape(2, 3, 4)
    for text in ("hypot(x, 2)", "hypot(2, x)", "hypot(x, 2 * beta)", "hypot(x, hypot(2, 0))", "hypot(x, 2 * 1e0)"):
        for channels in (1, 3):
            y = Activation(text, channels)(x)
            torch.testing.assert_close(y, torch.sqrt(x * x + 4))
            assert y.dtype == x.dtype
    exact = torch.sqrt(x * x + 0.1**2)
    torch.testing.assert_close(Activation("hypot(x, 0.1)")(x), exact, rtol=1e-14, atol=0)
    assert Activation("hypot(x, 1e300)")(x.float()).isinf().all()


def hypot(a: Tensor, b: Tensor) -> Tensor:
    return torch.hypot(a, b)  # refuses a number, as many functions of torch


def test_defaults_are_no_operands() -> None:
    assert register("my_elu", F.elu).arity == 1


def test_an_unknown_word_is_told_of_those_registered() -> None:
    register("my_bent", bent)
    with pytest.raises(ParseError, match=r"did you mean 'my_bent'.* max, min, my_bent, relu"):
        parse("my_bend(x)")


def test_a_word_that_was_unknown_can_be_read_later() -> None:
    with pytest.raises(SpaceError, match="unknown name 'my_bent'"):
        Grammar(unary=("late",), unary_texts={"late": "my_bent(x)"})
    register("my_bent", bent)
    assert str(Grammar(unary=("late",), unary_texts={"late": "my_bent(x)"}).decode((0,) * 5)) == (
        "my_bent(x) + my_bent(x)"
    )


def test_equal_functions_have_equal_keys() -> None:
    register("double_sig", lambda a: 2 * torch.sigmoid(a))
    register("product", lambda a, b: a * b)
    assert key(parse("double_sig(x)")) == key(parse("2 * sigmoid(x)")) == key(parse("1 + tanh(x / 2)"))
    assert key(parse("product(x, sigmoid(beta * x))")) == key(parse("x * sigmoid(beta * x)"))
    assert key(parse("double_sig(x)")) != key(parse("sigmoid(x)"))


def test_a_word_may_be_undefined_somewhere() -> None:
    """log(x) - log(x) is not 0 for x < 0. The same may hold for any registered function, so no rule drops it."""
    register("my_log", lambda a: torch.log(a), finite=(0.1, 10))
    assert str(canonical(parse("my_log(x) - my_log(x)"))) != "0"
    assert key(parse("my_log(x) - my_log(x)")) == key(parse("log(x) - log(x)")) != key(parse("0"))


def test_a_text_can_be_exported_and_a_function_cannot() -> None:
    register("my_bent", bent)
    row = register("bump", "x * exp(-beta * x^2)")
    assert "torch.exp" in code(row.text, "torch", name="Bump")
    for target in ("torch", "jax", "sympy", "latex", "markdown"):
        with pytest.raises(SpaceError, match=f"{target} cannot express my_bent; these can: none"):
            code("1 + my_bent(x)", target)


# The tests of a definition


class Rounded(torch.autograd.Function):
    """Its gradient is 1, but its slope is 0."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        return a.sin()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise KeyError("lost")


def only_full_precision(a: Tensor) -> Tensor:
    if a.dtype == torch.bfloat16:
        raise TypeError("no bfloat16 here")
    return a.sin()


def channel_by_channel(a: Tensor) -> Tensor:
    return a * torch.arange(1.0, 1.0 + a.shape[1], dtype=a.dtype).view(-1, 1, 1) if a.dim() == 4 else a.sin()


REFUSED: dict[str, tuple[Any, str]] = {
    "no operand": (lambda: torch.zeros(1), "one or two tensors is needed; this takes 0"),
    "three operands": (lambda a, b, c: a, "one or two tensors is needed; this takes 3"),
    "any number of operands": (torch.nn.Mish(), "one or two tensors is needed; this takes 0"),
    "unknown signature": (torch.tanh, "does not know how many arguments .*; wrap it: lambda"),
    "neither": (3, "3 is neither a text nor a function"),
    "an exception": (lambda a: 1 / 0, r"raises ZeroDivisionError when given float64 of shape \(120,\): division by"),
    "no tensor": (lambda a: 1.5, r"returns 1.5 when given float64 of shape \(120,\); it must return a tensor"),
    "a sum": (lambda a: a.sum(), r"returns float64 of shape \(\) when given float64 of shape \(120,\); it must keep"),
    "another type": (lambda a: a.float(), r"returns float32 of shape \(120,\) when given float64 of shape"),
    "always float64": (lambda a: a.double().sin(), r"returns float64 of shape \(120,\) when given float32"),
    "no bfloat16": (only_full_precision, "raises TypeError when given bfloat16 .*: no bfloat16 here"),
    "widened float16": (
        lambda a: a.float().sin() if a.dtype == torch.float16 else a.sin(),
        r"returns float32 of shape \(120,\) when given float16",
    ),
    "no scalar": (lambda a: torch.cat([a[:1], a[1:]]).sin(), r"raises IndexError when given float64 of shape \(\)"),
    "not of nothing": (lambda a: a.sin() + 0 * a.max(), r"raises RuntimeError when given float64 of shape \(0,\)"),
    "contiguous only": (lambda a: a.view(-1).sin().view(a.shape), r"raises RuntimeError .* \(2, 3, 4, 5\): view size"),
    "softmax": (lambda a: a.softmax(-1) if a.dim() else a / a, r"not elementwise: of shape \(3,\)"),
    "mean": (lambda a: a - a.mean() if a.numel() else a, r"not elementwise: of shape \(3,\)"),
    "by channel": (channel_by_channel, r"not elementwise: of shape \(2, 3, 4, 5\)"),
    "by memory": (
        lambda a: a * 2 if a.is_contiguous() else a * 3,
        r"not elementwise: of shape \(2, 3, 4, 5\)",
    ),
    "in place": (lambda a: a.mul_(2), "changes its operand in place; work on a copy"),
    "random": (lambda a: F.dropout(a), "returns another value each time"),
    "infinite": (lambda a: 1 / a, "its value is inf at x = 0 in float64; give a smaller interval"),
    "no number": (lambda a: a.log(), r"must be finite on \[-10.0, 10.0\], but its value is nan at x = -10 in float64"),
    "infinite slope": (lambda a: torch.sqrt(a * a), "its slope by x is nan at x = 0 in float64"),
    "overflow": (lambda a: a.exp() * 1e36 * a.exp(), "its value is inf at x = .* in float32"),
    "a step": (
        lambda a: a.sign(),
        r"cannot be trained through: its slope by x is 0 or not a number everywhere on \[-10.0, 10.0\]",
    ),
    "detached": (lambda a: a.detach().sin(), "cannot be trained through"),
    "one side only": (lambda a, b: a.sin() + 0 * b, "cannot be trained through: its slope by b is 0"),
    "straight through": (lambda a: Rounded.apply(a), "by x autograd has 1, differences 0 at x = "),
    "partly detached": (lambda a: a.detach() * a, "has a gradient that is not its slope"),
    "wrong beyond 9": (lambda a: torch.where(a > 9, a.detach(), a), "by x autograd has 0, differences 1 at x = 9"),
    "partly detached b": (lambda a, b: a + b.detach() * b, "not its slope: by b autograd"),
    "backward fails": (lambda a: Broken.apply(a), "raises KeyError when its gradient is taken: 'lost'"),
    "no broadcasting": (lambda a, b: torch.stack([a, b]).amax(0), r"\(2, 3, 4, 5\), float64 of shape \(3, 1, 1\): st"),
    "bad broadcasting": (
        lambda a, b: a * b if a.shape == b.shape else a + b,
        r"has another value where an operand is float64 of shape \(3, 1, 1\)",
    ),
    "bad constants": (
        lambda a, b: a + b if 0 in (a.dim(), b.dim()) and a.dim() != b.dim() else a * b,
        r"has another value where an operand is float64 of shape \(\)",
    ),
    "no expression": ("sigmod(x)", "unknown name 'sigmod'; did you mean 'sigmoid'"),
    "x and a": ("x + a", "'x \\+ a' must be a function of x, or of both a and b"),
    "a alone": ("sin(a)", "must be a function of x, or of both a and b"),
    "a constant": ("1 + beta", "must be a function of x, or of both a and b"),
    "two parameters": ("beta1 * x + beta2", "one parameter at most; .* has 2"),
    "text with a step": ("sign(x)", "cannot be trained through"),
    "text not finite": ("log(x)", "must be finite"),
    "text of two not finite": ("a / b", "its value is nan|its value is -?inf"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    definition, message = REFUSED[case]
    with pytest.raises(SpaceError, match=message) as caught:
        register("faulty", definition)
    assert str(caught.value).startswith("primitive 'faulty'")
    assert "faulty" not in FUNCTIONS
    with pytest.raises(ParseError):
        parse("faulty(x)")


def test_what_a_function_raised_is_the_cause() -> None:
    with pytest.raises(SpaceError) as caught:
        register("faulty", lambda a: {}["nothing"])
    assert isinstance(caught.value.__cause__, KeyError)


ACCEPTED: dict[str, tuple[Any, Any]] = {
    "kinks": (lambda a: (a - a.round()).abs(), (-10, 10)),
    "a jump": (lambda a: torch.where(a > 0, a + 1, a), (-10, 10)),
    "nan elsewhere": (lambda a: a.log(), (0.5, 20.0)),
    "nan, nothing claimed": (lambda a: a.log(), None),
    "far away": (lambda a: torch.sqrt(a - 50), (100, 200)),
    "narrow": (lambda a: torch.relu(0.02 - a.abs()), (-10, 10)),
    "steep": (lambda a: a**5, (-10, 10)),
    "wild": (lambda a: torch.sin(50 * a), (-10, 10)),
    "no float16": (lambda a: only_wider_than_float16(a), (-10, 10)),
    "the operand itself": (lambda a: a, (-10, 10)),
    "two": (lambda a, b: torch.logaddexp(a, b), (-10, 10)),
    "text of two, nothing claimed": ("a / b", None),
}


def only_wider_than_float16(a: Tensor) -> Tensor:
    if a.dtype == torch.float16:
        raise NotImplementedError("'Half'")
    return a.sin()


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str) -> None:
    definition, finite = ACCEPTED[case]
    assert register("fair", definition, finite=finite).name == "fair"


@pytest.mark.parametrize("finite", [(3.0, 1.0), (1.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0), (1.0,)])
def test_an_interval_is_two_numbers(finite: Any) -> None:
    with pytest.raises(SpaceError, match=r"primitive 'faulty' cannot be tested on \(.*finite takes \(low, high\)"):
        register("faulty", "x", finite=finite)


# Names


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "é", "a.b", "sin\n"])
def test_a_name_is_one_word(name: str) -> None:
    with pytest.raises(SpaceError, match="a primitive cannot be called"):
        register(name, "x * sin(x)")


@pytest.mark.parametrize(
    "name",
    ["sin", "max", "neg", "relu", "rbf", "x", "a", "b", "eps", "beta", "beta7", "number", "within"],
)
@pytest.mark.parametrize("definition", ["x * sin(x)", bent], ids=["text", "function"])
def test_a_name_has_one_meaning(name: str, definition: Any) -> None:
    """A leaf has the name `number` and an export `within`, although no text can contain them."""
    with pytest.raises(SpaceError, match=f"primitive '{name}': the name has a meaning in the language already"):
        register(name, definition)


@pytest.mark.parametrize(
    ("first", "again", "other"),
    [
        ("x * sin(x)", "x*sin( x )", "x + sin(x)"),
        ("a * sin(b)", "a*sin(b)", "x * sin(x)"),
        (lambda a: a * a.sin(), lambda c: c * torch.sin(c), lambda a: a + a.sin()),
        (lambda a, b: a * b, lambda b, a: b * a, lambda a, b: a + b),
        (lambda a, b: a * b, lambda a, b: b * a, lambda a: a * a),
        (lambda a: a * a.sin(), lambda a: a * a.sin(), "x * sin(x)"),
        ("x * sin(x)", "x * sin(x)", lambda a: a * a.sin()),
        (lambda a: a, lambda a: a * 1, lambda a: torch.clamp(a, max=50.0)),
    ],
)
def test_the_same_again_is_accepted_and_another_is_not(first: Any, again: Any, other: Any) -> None:
    row = register("mine", first)
    words = dict(FUNCTIONS)
    assert register("mine", again) == row
    with pytest.raises(SpaceError, match=r"primitive 'mine': another definition has this name: .*; give this one"):
        register("mine", other)
    assert dict(FUNCTIONS) == words


# In a grammar


def test_a_grammar_gets_them_after_its_own_in_their_order() -> None:
    before = repr(SPACES), space("swish2017"), space("swish2017").decisions
    rows = [register("z_bent", bent), register("tamed", "a / (1 + abs(b))"), register("bump", "x * exp(-beta * x^2)")]
    assert (repr(SPACES), space("swish2017"), space("swish2017").decisions) == before
    grammar = extended(space("swish2017"), rows)
    assert grammar.unary == (*space("swish2017").unary, "z_bent", "bump")
    assert grammar.binary == (*space("swish2017").binary, "tamed")
    assert str(grammar.decode((0, 0, 25, 26, 10))) == "z_bent(x) / (1 + abs(x * exp(-beta * x^2)))"
    assert extended(space("swish2017"), []) == space("swish2017")


def test_choices_go_both_ways() -> None:
    rows = [register("z_bent", bent), register("hypot", hypot, finite=None)]
    grammar, draw = extended(space("small1", 2), rows), random.Random(0)
    for _ in range(50):
        tree = grammar.decode(grammar.sample(draw))
        assert parse(str(tree)) == tree
        assert grammar.decode(grammar.encode(tree)) == tree


@pytest.mark.parametrize(("name", "definition"), [("gauss", "x * exp(-x^2)"), ("mul", "sin(a) * b")])
def test_the_names_of_a_space_are_its_own(name: str, definition: str) -> None:
    row = register(name, definition)
    with pytest.raises(SpaceError, match=f"primitive '{name}': the space has one of this name"):
        extended(space("swish2017"), [row])


def test_functions_too_large_to_be_read_are_refused() -> None:
    row = register("bump", "x * exp(-beta * x^2)")
    assert extended(space("swish2017", 2), [row]).units == 2
    with pytest.raises(SpaceError, match=r"with bump, 3 core units make functions of up to .* nodes, over 128"):
        extended(space("swish2017", 3), [row])
    deep = register("deep", f"{'sin(' * 31}x{')' * 31}")
    with pytest.raises(SpaceError, match=r"with deep, 1 core units make functions of up to 34 levels, over 32"):
        extended(space("small1"), [deep])
    long = register("long", "x" + " + 0.12345678901234567" * 25)
    with pytest.raises(SpaceError, match=r"1 core units make functions of up to .* characters, over 1000"):
        extended(space("small1"), [long])
    assert extended(space("swish2017", 3), [register("my_bent", bent)]).units == 3


# Modules


BOTH = """
import torch
from search_space.registry import register

register("bump", "x * exp(-beta * x^2)")
register("my_bent", lambda a: (torch.sqrt(a * a + 1) - 1) / 2 + a, finite=(-1e4, 1e4))
"""
ROWS = (Registered("bump", 1, "x * exp(-beta * x^2)"), Registered("my_bent", 1, "my_bent(x)"))

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module into the current directory, which is not on Python's search path."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_modules_are_imported_once_and_can_be_loaded_repeatedly(write: Write) -> None:
    write("mine.py", BOTH)
    write("mine_too.py", "from search_space.registry import register\nregister('tamed', 'a / (1 + abs(b))')")
    assert load_primitives(["mine"]) == load_primitives(["mine"]) == ROWS
    more = load_primitives(["mine_too", "mine"])
    assert [row.name for row in more] == ["tamed", "bump", "my_bent"]
    assert load_primitives([]) == ()
    assert str(parse("my_bent(x)")) == "my_bent(x)"


def test_a_module_that_is_loaded_anew_changes_nothing(write: Write) -> None:
    path = write("mine.py", BOTH)
    load_primitives(["mine"])
    path.write_text("# another line\n" + BOTH)
    importlib.reload(sys.modules["mine"])
    assert load_primitives(["mine"]) == ROWS


def test_two_modules_may_register_the_same(write: Write) -> None:
    write("mine.py", BOTH)
    write("mine_too.py", BOTH)
    assert load_primitives(["mine", "mine_too"]) == load_primitives(["mine_too"]) == ROWS
    module_under_test._unregister("mine")
    assert str(parse("my_bent(x)")) == "my_bent(x)"


def test_a_module_in_a_package(write: Write) -> None:
    write("mine/__init__.py", "from . import bents")
    write("mine/bents.py", BOTH)
    assert load_primitives(["mine.bents"]) == ROWS
    with pytest.raises(SpaceError, match=r"module 'mine' registers no primitive; name those that do: mine\.bents"):
        load_primitives(["mine"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "module 'mine' registers no primitive; it must call search_space.register at its import"),
        ("import mine_missing.sub", "module 'mine' is there, but imports 'mine_missing', which is not; install"),
        ("from search_space import nothing", "module 'mine' fails at its import: ImportError: cannot import name"),
        ("1 / 0", "module 'mine' fails at its import: ZeroDivisionError: division by zero"),
        ("def", "module 'mine' fails at its import: SyntaxError"),
        ("import sys; sys.exit(3)", "module 'mine' fails at its import: SystemExit: 3"),
        (BOTH + "register('sin', 'x')", "module 'mine' fails at its import: SpaceError: primitive 'sin': the name"),
    ],
)
def test_a_module_that_cannot_be_used(text: str, message: str, write: Write) -> None:
    write("mine.py", text)
    with pytest.raises(SpaceError, match=message):
        load_primitives(["mine"])
    assert "my_bent" not in FUNCTIONS


def test_a_module_that_failed_can_be_repaired_and_imported_again(write: Write) -> None:
    """What a module registered before its import failed is removed, so that it can register another definition under
    the name."""
    path = write("mine.py", BOTH + "1 / 0")
    with pytest.raises(SpaceError, match="ZeroDivisionError") as caught:
        load_primitives(["mine"])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    path.write_text(BOTH.replace("* exp", "* 2 * exp"))
    assert load_primitives(["mine"])[0].text == "x * 2 * exp(-beta * x^2)"


@pytest.mark.parametrize("name", ["mine_absent", "mine_absent.sub", "mine.absent"])
def test_a_module_that_is_not_there(name: str, write: Write) -> None:
    write("mine/__init__.py", "")
    with pytest.raises(SpaceError, match=f"no module '{name}': Python finds no 'mine.?absent'; it must be installed"):
        load_primitives([name])


@pytest.mark.parametrize("name", ["mine.py", "./mine", ".mine", "", "mine-too"])
def test_a_file_is_no_module(name: str, write: Write) -> None:
    write("mine.py", BOTH)
    with pytest.raises(SpaceError, match=r"is no name of a module; write it as in package\.module"):
        load_primitives([name])
    assert "my_bent" not in FUNCTIONS


@pytest.mark.parametrize("name", KERNELS)
def test_the_name_of_a_kernel_is_taken(name: str) -> None:
    """Seen to fail: `x^2` was computed by a user's `square`, and kept its key."""
    with pytest.raises(SpaceError, match="has a meaning in the language already"):
        register(name, lambda a: a * torch.sigmoid(a))
