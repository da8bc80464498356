"""Every primitive against a second implementation: mpmath with 40 digits, written out here from the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from mpmath import mpf

from search_space import BINARY, FUNCTIONS, UNARY, Activation, nearest, parse
from search_space.primitives import EPS

mpmath.mp.dps = 40
torch.set_num_threads(1)

Real = Callable[..., Any]  # of mpmath numbers

WIDE = (-30.0, -7.5, -2.0, -1.0, -0.3, -1e-3, 1e-3, 0.3, 0.7, 1.0, 2.5, 7.5, 30.0)
POSITIVE = tuple(x for x in WIDE if x > 0)
BETA = 1.3


def sinc(a: Any) -> Any:
    return mpmath.sin(a) / a if a else mpf(1)


def sigmoid(a: Any) -> Any:
    return 1 / (1 + mpmath.exp(-a))


def softplus(a: Any) -> Any:
    return mpmath.log(1 + mpmath.exp(a)) if a < 50 else a + mpmath.exp(-a)


# Every function of the language: what it is, and where it is compared.
ONE: dict[str, tuple[Real, tuple[float, ...]]] = {
    "neg": (lambda a: -a, WIDE),
    "sign": (mpmath.sign, WIDE),
    "abs": (abs, WIDE),
    "sqrt": (mpmath.sqrt, POSITIVE),
    "log": (mpmath.log, POSITIVE),
    "exp": (mpmath.exp, WIDE),
    "expm1": (mpmath.expm1, WIDE),
    "sin": (mpmath.sin, WIDE),
    "cos": (mpmath.cos, WIDE),
    "sinh": (mpmath.sinh, WIDE),
    "cosh": (mpmath.cosh, WIDE),
    "tanh": (mpmath.tanh, WIDE),
    "asinh": (mpmath.asinh, WIDE),
    "atan": (mpmath.atan, WIDE),
    "sinc": (sinc, WIDE),
    "sigmoid": (sigmoid, WIDE),
    "softplus": (softplus, WIDE),
    "erf": (mpmath.erf, WIDE),
}
TWO: dict[str, tuple[Real, tuple[float, ...], tuple[float, ...]]] = {
    "+": (lambda a, b: a + b, WIDE, WIDE[1::2]),
    "-": (lambda a, b: a - b, WIDE, WIDE[1::2]),
    "*": (lambda a, b: a * b, WIDE, WIDE[1::2]),
    "/": (lambda a, b: a / b, WIDE, WIDE[1::2]),
    "^": (lambda a, b: a**b, POSITIVE, (-2.0, -0.5, 0.5, 1.0, 2.0, 3.0)),
    "max": (lambda a, b: max(a, b), WIDE, (-8.0, -0.5, 0.0, 0.5, 8.0)),
    "min": (lambda a, b: min(a, b), WIDE, (-8.0, -0.5, 0.0, 0.5, 8.0)),
}

# The paper's 25 and 10, in its order; c stands for beta.
PAPER_UNARY: dict[str, Real] = {
    "x": lambda x, c: x,
    "-x": lambda x, c: -x,
    "abs(x)": lambda x, c: abs(x),
    "x^2": lambda x, c: x * x,
    "x^3": lambda x, c: x * x * x,
    "sqrt(x)": lambda x, c: mpmath.sqrt(x),
    "beta * x": lambda x, c: c * x,
    "x + beta": lambda x, c: x + c,
    "log(abs(x) + eps)": lambda x, c: mpmath.log(abs(x) + mpf(1e-6)),
    "exp(x)": lambda x, c: mpmath.exp(x),
    "sin(x)": lambda x, c: mpmath.sin(x),
    "cos(x)": lambda x, c: mpmath.cos(x),
    "sinh(x)": lambda x, c: mpmath.sinh(x),
    "cosh(x)": lambda x, c: mpmath.cosh(x),
    "tanh(x)": lambda x, c: mpmath.tanh(x),
    "asinh(x)": lambda x, c: mpmath.asinh(x),
    "atan(x)": lambda x, c: mpmath.atan(x),
    "sinc(x)": lambda x, c: sinc(x),
    "max(x, 0)": lambda x, c: max(x, mpf(0)),
    "min(x, 0)": lambda x, c: min(x, mpf(0)),
    "sigmoid(x)": lambda x, c: sigmoid(x),
    "softplus(x)": lambda x, c: softplus(x),
    "exp(-x^2)": lambda x, c: mpmath.exp(-x * x),
    "erf(x)": lambda x, c: mpmath.erf(x),
    "beta": lambda x, c: c,
}
PAPER_BINARY: dict[str, Real] = {
    "a + b": lambda a, b, c: a + b,
    "a * b": lambda a, b, c: a * b,
    "a - b": lambda a, b, c: a - b,
    "a / (b + eps)": lambda a, b, c: a / (b + mpf(1e-6)),
    "max(a, b)": lambda a, b, c: max(a, b),
    "min(a, b)": lambda a, b, c: min(a, b),
    "sigmoid(a) * b": lambda a, b, c: sigmoid(a) * b,
    "exp(-beta * (a - b)^2)": lambda a, b, c: mpmath.exp(-c * (a - b) ** 2),
    "exp(-beta * abs(a - b))": lambda a, b, c: mpmath.exp(-c * abs(a - b)),
    "beta1 * a + (1 - beta1) * b": lambda a, b, c: c * a + (1 - c) * b,
}


def slope(function: Real, point: tuple[float, ...], index: int) -> Any:
    """The partial derivative, by central difference: an error near 1e-22 (no kink is nearer than the step)."""
    step = mpf(10) ** -12
    values = [mpf(p) for p in point]
    up, down = list(values), list(values)
    up[index] += step
    down[index] -= step
    return (function(*up) - function(*down)) / (2 * step)


def close(got: float, wanted: Any, relative: float = 1e-9, absolute: float = 1e-11) -> bool:
    return bool(abs(mpf(got) - wanted) <= relative * abs(wanted) + absolute)


def leaf(value: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([[value]], dtype=dtype, requires_grad=True)


# The lists


def test_the_primitives_of_the_paper_in_its_order() -> None:
    assert list(UNARY.values()) == list(PAPER_UNARY)
    assert list(BINARY.values()) == list(PAPER_BINARY)
    assert (len(UNARY), len(BINARY)) == (25, 10)
    for text in UNARY.values():
        assert str(parse(text)) == text
    for text in BINARY.values():
        assert parse(str(parse(text, ("a", "b"))), ("a", "b")) == parse(text, ("a", "b"))


def test_every_function_is_compared_here() -> None:
    assert set(ONE) | set(TWO) == set(FUNCTIONS)
    assert all(FUNCTIONS[name].arity == 1 for name in ONE)
    assert all(FUNCTIONS[name].arity == 2 for name in TWO)
    assert all(name == row.name and row.meaning for name, row in FUNCTIONS.items())


def test_eps() -> None:
    assert EPS == 1e-6
    assert float(Activation("eps")(torch.zeros(1, 1, dtype=torch.float64))) == 1e-6


def test_nearest_names_the_likeliest_and_all() -> None:
    assert nearest("sigmod", ["tanh", "sigmoid"]) == "did you mean 'sigmoid'? accepted: tanh, sigmoid"
    assert nearest("zzz", ["tanh", "sigmoid"]) == "accepted: tanh, sigmoid"


# Values and slopes in float64


@pytest.mark.parametrize("name", ONE)
def test_function_of_one(name: str) -> None:
    exact, points = ONE[name]
    for point in points:
        a = leaf(point)
        value = FUNCTIONS[name].apply(a)
        value.backward()
        assert close(value.item(), exact(mpf(point))), (name, point)
        assert a.grad is not None and close(a.grad.item(), slope(exact, (point,), 0)), (name, point)


@pytest.mark.parametrize("name", TWO)
def test_function_of_two(name: str) -> None:
    """Two tensors, and a number on either side."""
    exact, left, right = TWO[name]
    for p in left:
        for q in right:
            a, b = leaf(p), leaf(q)
            wanted = exact(mpf(p), mpf(q))
            for one, two in ((a, b), (a, q), (p, b)):
                a.grad = b.grad = None
                value = FUNCTIONS[name].apply(one, two)
                if p == q and name in ("max", "min"):
                    continue  # a kink
                value.backward()
                assert close(value.item(), wanted), (name, p, q)
                for index, variable in enumerate((a, b)):
                    if variable.grad is not None:
                        assert close(variable.grad.item(), slope(exact, (p, q), index)), (name, p, q, index)
                    assert (variable.grad is None) == (variable is not (one, two)[index])


@pytest.mark.parametrize("name", UNARY)
def test_unary_primitive(name: str) -> None:
    exact = PAPER_UNARY[UNARY[name]]
    for point in POSITIVE if name == "sqrt" else WIDE:
        compare(UNARY[name], lambda x, c: exact(x, c), point)


@pytest.mark.parametrize("name", BINARY)
def test_binary_primitive(name: str) -> None:
    """On two curves that run through both orders of a and b; the chain rule reaches both."""
    exact = PAPER_BINARY[BINARY[name]]
    inner = {"sin(x)": mpmath.sin, "0.5 * x + 0.2": lambda x: x / 2 + mpf(0.2)}
    (left, f), (right, g) = inner.items()
    for a, b, h in (
        (left, right, lambda x, c: exact(f(x), g(x), c)),
        (right, left, lambda x, c: exact(g(x), f(x), c)),
    ):
        tree = parse(BINARY[name], ("a", "b")).substitute({"a": parse(a), "b": parse(b)})
        for point in WIDE:
            compare(str(tree), h, point)


def compare(text: str, exact: Real, point: float) -> None:
    """Value, slope in x and slope in beta."""
    module = Activation(text).double()
    for beta in module.betas:
        torch.nn.init.constant_(beta, BETA)
    x = leaf(point)
    value = module(x)
    assert close(value.item(), exact(mpf(point), mpf(BETA))), (text, point)
    if not value.requires_grad:
        return
    value.backward()
    got_x = 0.0 if x.grad is None else x.grad.item()
    assert close(got_x, slope(exact, (point, BETA), 0)), (text, point)
    for beta in module.betas:
        assert beta.grad is not None
        assert close(beta.grad.item(), slope(exact, (point, BETA), 1)), (text, point)


# Hard points, in the numbers that networks use


HARD = (0.0, 1e-30, 1e-12, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0, 3.0, 9.0, 15.0, 30.0, 88.0, 1e2, 1e4)
CURVES: dict[str, Real] = {
    **{text: exact for text, exact in PAPER_UNARY.items() if text not in ("sqrt(x)", "sinc(x)")},
    "sinc(x)": lambda x, c: sinc(x),
    "sqrt(max(x, 0))": lambda x, c: mpmath.sqrt(max(x, mpf(0))),
    "x * sigmoid(x)": lambda x, c: x * sigmoid(x),
    "sigmoid(x) * x": lambda x, c: x * sigmoid(x),
    "x * sigmoid(beta * x)": lambda x, c: x * sigmoid(c * x),
    "expm1(min(x, 0))": lambda x, c: mpmath.expm1(min(x, mpf(0))),
    "exp(-beta * (x - tanh(x))^2)": lambda x, c: mpmath.exp(-c * (x - mpmath.tanh(x)) ** 2),
    "exp(-beta * abs(x - tanh(x)))": lambda x, c: mpmath.exp(-c * abs(x - mpmath.tanh(x))),
    "exp(-beta * abs(x))": lambda x, c: mpmath.exp(-c * abs(x)),
    "beta1 * x + (1 - beta1) * atan(x)": lambda x, c: c * x + (1 - c) * mpmath.atan(x),
    "sin(x) / (abs(x) + eps)": lambda x, c: mpmath.sin(x) / (abs(x) + mpf(1e-6)),
    "max(x, sigmoid(x))": lambda x, c: max(x, sigmoid(x)),
    "softplus(-x)": lambda x, c: softplus(-x),
    "log(softplus(x) + eps)": lambda x, c: mpmath.log(softplus(x) + mpf(1e-6)),
    "0.5 * x * (1 + erf(0.7071067811865476 * x))": lambda x, c: x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("text", CURVES)
def test_hard_points(text: str, dtype: torch.dtype) -> None:
    """Finite value and slopes wherever the mathematics is finite and the type can hold it; values near the truth."""
    limit = torch.finfo(dtype).max / 2
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    for point in (sign * p for p in HARD for sign in (1, -1)):
        x = leaf(point, dtype)
        module = Activation(text)
        value = module(x)
        assert value.dtype == dtype and value.shape == x.shape
        true = float(x.item())
        wanted = CURVES[text](mpf(true), mpf(1))
        if abs(wanted) > limit:
            continue
        assert close(value.item(), wanted, tolerance, tolerance), (text, true, value.item(), wanted)
        if not value.requires_grad:
            continue
        value.backward()
        for variable, index in ((x, 0), *((beta, 1) for beta in module.betas)):
            if variable.grad is None:
                continue
            if abs(slope(CURVES[text], (true, 1.0), index)) < limit:
                assert torch.isfinite(variable.grad).all(), (text, true, index, variable.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sinc_near_zero(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, 1e-30, 1e-9, 1e-6, 1e-4, 1e-3, 1e-2], dtype=dtype, requires_grad=True)
    value = FUNCTIONS["sinc"].apply(x)
    torch.testing.assert_close(value, torch.ones_like(x) - x.detach() ** 2 / 6)
    value.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, -x.detach() / 3, rtol=1e-3, atol=1e-3 if dtype == torch.float32 else 1e-9)


def test_softplus_has_no_seam() -> None:
    """torch's own leaves the true curve at 20 unless told otherwise."""
    x = torch.linspace(-50, 60, 2_001, dtype=torch.float64)
    wanted = torch.tensor([float(softplus(mpf(p))) for p in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(FUNCTIONS["softplus"].apply(x), wanted, rtol=1e-14, atol=0)


def test_square_root() -> None:
    x = torch.tensor([-4.0, -0.0, 0.0, 4.0], requires_grad=True)
    value = FUNCTIONS["sqrt"].apply(x)
    assert value[0].isnan() and value[1:].tolist() == [0.0, 0.0, 2.0]
    value.sum().backward()
    assert x.grad is not None
    assert x.grad[0].isnan() and x.grad[1:].tolist() == [0.0, 0.0, 0.25]


@pytest.mark.parametrize(
    ("text", "slopes"),
    [("max(x, 0)", [0, 0, 1]), ("min(x, 0)", [1, 0, 0]), ("abs(x)", [-1, 0, 1]), ("sqrt(max(x, 0))", [0, 0, 0.5])],
)
def test_slope_at_a_kink_is_the_one_that_everybody_trains_with(text: str, slopes: list[float]) -> None:
    x = torch.tensor([[-1.0, 0.0, 1.0]], requires_grad=True)
    Activation(text)(x).sum().backward()
    assert x.grad is not None and x.grad[0].tolist() == slopes


@pytest.mark.parametrize("text", ["x^2", "x^3", "-x^2", "x * x", "max(x, 0)"])
def test_negative_zero_and_zero_alike(text: str) -> None:
    assert float(Activation(text)(torch.tensor([[-0.0]]))) == 0.0
