"""Kernels: which forms are recognised and which are not, and that they compute the same function."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import Tensor

from search_space import BASELINES, KNOWN, Activation, Grammar, SpaceError, parse
from search_space.kernels import KERNELS, OPERATIONS

torch.set_num_threads(1)


def steps(text: str) -> list[str]:
    return [name for name, _ in Activation(text).program.steps]


# What is recognised

KNOWN_STEPS = {
    "relu": ["max"],
    "swish": ["*", "sigmoid", "*"],
    "gelu": ["gelu"],
    "swish1": ["silu"],
    "elu": ["elu"],
    "leaky_relu": ["leaky_relu"],
    "prelu": ["*", "prelu"],
    "selu": ["selu"],
    "softplus": ["softplus"],
    "tanh": ["tanh"],
    "sigmoid": ["sigmoid"],
    "linear": [],
    "relu6": ["hardtanh"],
    "mish": ["mish"],
    "hard_sigmoid": ["hardsigmoid"],
    "hard_swish": ["hardswish"],
    "softsign": ["abs", "+", "/"],
    "celu": ["max", "at_most", "/", "expm1", "add_product"],
    "squareplus": ["sqrt_above", "+", "*"],
    "radial_basis": ["square", "neg", "exp"],
    "sign": ["sign"],
    "heaviside": ["sign", "max"],
    "squared_relu": ["max", "square"],
    "smelu": ["-", "max", "+", "hardtanh", "square", "add_scaled"],
    "snake": ["*", "sin", "square", "/", "+"],
    "sine": ["sin"],
    "golu": ["at_least", "neg", "exp", "neg", "exp", "*"],
    "telu": ["at_most", "exp", "tanh", "*"],
    "xielu": [
        *("max", "square", "-", "softplus", "*"),  # alpha_p is one number for each channel
        *("at_most", "expm1", "-", "-", "softplus", "+", "add_product", "add_scaled"),
    ],
    "dyt": ["*", "*", "tanh"],
    "derf": ["*", "*", "+", "-", "erf"],
}


def test_the_known_functions() -> None:
    assert {name: steps(row.expression) for name, row in KNOWN.items()} == KNOWN_STEPS


# A text of each row, its variables filled in, and other spellings.
SPELLINGS = {
    "silu": ["sigmoid(x) * x", "x / (1 + exp(-x))", "x / (exp(-x) + 1)"],
    "gelu": [
        "x * 0.5 * (erf(x / sqrt(2)) + 1)",
        "0.5 * (x * (1 + erf(x * sqrt(0.5))))",
        "x * (1 + erf(x / sqrt(2))) / 2",
        "x / 2 * (1 + erf(sqrt(2) / 2 * x))",
    ],
    "gelu_tanh": ["0.5 * x * (1 + tanh(sqrt(2 / 3.141592653589793) * (x + 0.044715 * x^3)))"],
    "mish": ["tanh(softplus(x)) * x"],
    "logsigmoid": ["-softplus(-x)"],
    "selu": ["1.7580993408473766 * expm1(min(0, x)) + max(0, x) * 1.0507009873554805"],
    "elu": ["expm1(min(0, x)) + max(0, x)", "max(x, 0) + min(0, expm1(x))"],
    "elu_alpha": ["max(x, 0) + 0.5 * expm1(min(x, 0))"],
    "celu": ["max(x, 0) + 2 * expm1(min(x, 0) / 2)"],
    "leaky_relu": ["0.2 * min(x, 0) + max(0, x)", "max(0.1 * x, x)", "max(x, 0) + -0.1 * min(x, 0)"],
    "hardsigmoid": ["min(1, max(0, 0.5 + x / 6))", "min(max(3 + x, 0), 6) / 6", "min(max((x + 3) / 6, 0), 1)"],
    "hardswish": ["x * min(max(x + 3, 0), 6) / 6", "min(max(x / 6 + 0.5, 0), 1) * x"],
    "hardtanh": ["max(-1, min(x, 1))", "min(max(x, -1), 1)", "min(max(x, 0), 20)"],
    "at_most": ["min(x, 0)", "min(3, x)"],
    "at_least": ["max(x, 0.5)"],
    "square": ["x^2"],
    "reciprocal": ["1 / x"],
    "sqrt_above": ["sqrt(1 + x^2)"],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_are_one_kernel(name: str) -> None:
    for text in SPELLINGS[name]:
        assert steps(text) == [name], text


def test_rows_with_two_operands() -> None:
    assert steps("sin(x) + 2 * x") == ["sin", "add_scaled"]
    assert steps("x - tanh(x) * 0.5") == ["tanh", "subtract_scaled"]
    assert steps("cos(x) * x + sin(x)") == ["sin", "cos", "add_product"]
    assert steps("max(x, 0) + min(x, 0) * beta") == ["prelu"]
    named = {name for text in ["sin(x) + 2 * x", "x - x * 2", "x + sin(x) * x"] for name in steps(text)}
    assert set(KERNELS) <= named | set(SPELLINGS) | {"prelu"}


def test_subtrees_are_recognised_and_shared() -> None:
    assert steps("sin(x * sigmoid(x)) + exp(sigmoid(x) * x)") == ["silu", "sin", "exp", "+"]
    inner = "sin(beta * x)"
    assert steps(f"{inner} * sigmoid({inner})") == ["*", "sin", "*", "sin", "sigmoid", "*"]  # two parameters
    inner = "sin(beta1 * x)"
    assert steps(f"{inner} * sigmoid({inner})") == ["*", "sin", "silu"]


LOOK_ALIKES = [
    "x * sigmoid(1.0001 * x)",
    "x * sigmoid(beta * x)",
    "x * sigmoid(-x)",
    "sin(x) * sigmoid(x)",
    "0.5 * x * (1 + erf(0.7071 * x))",
    "0.5 * x * (1 + erf(x))",
    "x * tanh(softplus(2 * x))",
    "max(x, 0) + expm1(min(x, 0.1))",
    "max(x, 0) + 2 * expm1(min(x, 0) / 3)",
    "max(x, 0) + -1 * expm1(min(x, 0) / -1)",
    "max(x, 1.5 * x)",
    "max(x, -0.1 * x)",
    "1.05 * max(x, 0) + 1.76 * expm1(min(x, 0))",
    "min(max(x, 3), 2)",
    "max(min(x, 2), 3)",
    "max(x, 0) + x * min(x, 0)",
    "max(x, 0) + beta * min(sin(x), 0)",
]


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes_are_not_taken(text: str) -> None:
    named = {*SPELLINGS, "prelu"} - {"at_most", "at_least", "square", "reciprocal", "sqrt_above"}
    assert not named.intersection(steps(text)), steps(text)


def test_a_look_alike_of_hardsigmoid_is_only_a_hardtanh() -> None:
    assert steps("min(max(x / 6 + 0.51, 0), 1)") == ["/", "+", "hardtanh"]


def test_plain_programs_have_the_words_of_the_language_only() -> None:
    for row in KNOWN.values():
        module = Activation(row.expression, native=False)
        assert not [name for name, _ in module.program.steps if name in KERNELS]
    assert set(KERNELS) < set(OPERATIONS)


# That it is the same function

EDGES = [0.0, -0.0, -math.inf, math.inf, math.nan, 1e-4, -1e-4, 1.0, -1.0, 3.0, -3.0, 6.0, 30.0, -30.0, 88.0, -88.0]
ROUNDING = {torch.float64: 1e-11, torch.float32: 4e-6, torch.bfloat16: 0.04, torch.float16: 0.006}
ALL = [*(row.expression for row in KNOWN.values()), *(text for texts in SPELLINGS.values() for text in texts)]


def value_and_slope(module: Activation, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = module(x)
    if not y.requires_grad:
        return y, torch.zeros_like(x)
    return y.detach(), torch.autograd.grad(y, x, torch.ones_like(y), materialize_grads=True)[0]


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("text", ALL)
def test_values_and_slopes_are_those_of_the_operations(text: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.cat([torch.tensor(EDGES), 5 * torch.randn(300)]).to(dtype).reshape(2, -1).T.contiguous()
    value, slope = value_and_slope(Activation(text, 2), x)
    plain, plain_slope = value_and_slope(Activation(text, 2, native=False), x)
    rounding = {"rtol": ROUNDING[dtype], "atol": ROUNDING[dtype], "equal_nan": True}
    overflow = "log(sigmoid" in text or "exp(-x)" in text  # there torch's kernel is right, and the text is not
    finite = plain.isfinite() if overflow else torch.ones_like(plain, dtype=torch.bool)
    if "erf(" in text:  # torch's kernel of GELU makes infinity NaN, or not, as the CPU's instructions are
        finite &= x != math.inf
    torch.testing.assert_close(value[finite], plain[finite], **rounding)
    assert bool((value.isnan() == plain.isnan())[x.isnan()].all())
    smooth = torch.isfinite(x) & torch.isfinite(plain_slope) & finite
    for kink in (0.0, 1.0, -1.0, 3.0, -3.0, 6.0, 0.5):
        smooth &= (x - kink).abs() > ROUNDING[dtype]
    if "6" in text:  # torch's hardsigmoid has 1/6 in float32 in its backward pass, in float64 too
        rounding |= {"rtol": max(1e-7, ROUNDING[dtype])}
    torch.testing.assert_close(slope[smooth], plain_slope[smooth], **rounding)


def test_slopes_at_kinks_are_torchs_own() -> None:
    """At a kink the slope is the slope of one side; elu has only one slope at 0. All are finite."""
    wanted = {
        ("max(x, 0)", 0.0): 0.0,
        ("min(x, 0)", 0.0): 0.0,
        ("max(x, 0) + expm1(min(x, 0))", 0.0): 1.0,
        ("max(x, 0) + 0.01 * min(x, 0)", 0.0): 0.01,
        ("max(x, 0) + 0.25 * beta * min(x, 0)", 0.0): 0.25,
        ("min(max(x, 0), 6)", 0.0): 0.0,
        ("min(max(x, 0), 6)", 6.0): 0.0,
        ("min(max(x / 6 + 0.5, 0), 1)", 3.0): 0.0,
        ("min(max(x, -1), 1)", -1.0): 0.0,
    }
    for (text, at), slope in wanted.items():
        found = value_and_slope(Activation(text).double(), torch.full((1, 1), at, dtype=torch.float64))[1]
        assert found.item() == pytest.approx(slope), (text, at)


def test_prelu_trains_its_parameter_in_every_shape() -> None:
    for channels, shapes in {1: [(), (4,), (5, 3), (2, 3, 4, 4)], 3: [(3,), (5, 3), (2, 3, 4), (2, 3, 4, 4)]}.items():
        one = Activation(BASELINES["prelu"].expression, channels)
        other = Activation(BASELINES["prelu"].expression, channels, native=False)
        one.betas[0].data.uniform_(-1, 1)
        other.load_state_dict(one.state_dict())
        for shape in shapes:
            x = torch.randn(shape)
            one.zero_grad()
            other.zero_grad()
            value, slope = value_and_slope(one, x)
            torch.testing.assert_close((value, slope), value_and_slope(other, x))
            one(x).square().sum().backward()
            other(x).square().sum().backward()
            torch.testing.assert_close(one.betas[0].grad, other.betas[0].grad)


def test_random_expressions_are_the_same_function() -> None:
    grammar, draw = Grammar(units=2), random.Random(3)
    x = torch.tensor([[0.3, -0.7], [1.9, -2.4], [0.01, 4.7]], dtype=torch.float64)
    differ = 0
    for _ in range(300):
        tree = grammar.decode(grammar.unrank(draw.randrange(grammar.size)))
        one, other = Activation(tree, 2).double(), Activation(tree, 2, native=False).double()
        differ += one.program != other.program
        for found, wanted in zip(value_and_slope(one, x), value_and_slope(other, x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8, equal_nan=True, msg=str(tree))
    assert differ > 100


def test_numbers_that_a_type_cannot_hold_are_left_to_the_operations() -> None:
    x = torch.tensor([[2.0]], dtype=torch.float16)
    for text in ["max(x, 1e300)", "x + 1e300 * sin(x)", "min(max(x, 0), 1e6)", "max(x, 0) + 1e9 * min(x, 0)"]:
        assert Activation(text)(x).item() == Activation(text, native=False)(x).item()


def test_a_parameter_stands_where_the_tree_has_it() -> None:
    module = Activation("min(x * beta1, 0) * beta2 + max(x * beta1, 0)")
    assert steps(str(module.expression)) == ["*", "prelu"]
    module.load_state_dict({"beta1": torch.tensor([2.0]), "beta2": torch.tensor([0.5])})
    assert module(torch.tensor([[-3.0, 3.0]])).tolist() == [[-3.0, 6.0]]


def test_errors_are_those_of_the_language() -> None:
    """The name of a kernel is not a function of the language, so no text can contain it."""
    for text in ("at_most(x, 1)", "silu_(x)"):
        with pytest.raises(SpaceError, match=r"unknown name|unexpected character"):
            parse(text)
