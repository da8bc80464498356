"""Compare every primitive with a second implementation: mpmath with 40 digits, written here from the paper."""

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
    """Return the partial derivative by central differences. Its error is near 1e-22, because no kink is nearer than the
    step."""
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
    """The operands are two tensors, or a tensor and a number on either side."""
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
    """a and b are two curves, on which a < b and a > b occur. The chain rule gives a slope through both."""
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
    """Compare the value, the slope by x and the slope by beta."""
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
    """Value and slopes are finite wherever the exact ones are finite and within the range of the type. Values are close
    to the exact ones."""
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


# Derivatives, also second ones, in every type

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def derivatives(apply: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, order: int) -> list[torch.Tensor]:
    """Return the value and the first derivatives by x."""
    x = x.clone().requires_grad_()
    found = [apply(x)]
    for _ in range(order):
        last = found[-1].sum()
        zero = torch.zeros_like(x)
        options = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
        found.append(torch.autograd.grad(last, x, **options)[0] if last.requires_grad else zero)
    return [one.detach() for one in found]


def sinc_derivative(point: float, order: int) -> float:
    """Compute it from the power series, which converges everywhere, with 80 digits because of cancellation."""
    with mpmath.workdps(80):
        return float(
            mpmath.fsum(
                (-1) ** k * mpmath.ff(2 * k, order) * mpf(point) ** (2 * k - order) / mpmath.factorial(2 * k + 1)
                for k in range((order + 1) // 2, 150)
            )
        )


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("transformed", [False, True])
def test_sinc_has_value_and_derivatives_to_the_digits_of_its_type(dtype: torch.dtype, transformed: bool) -> None:
    """Rows M1 and M2: the slope in bfloat16 near 0.06, and the second and third derivatives at 0. `transformed`
    computes them with torch.func and torch.compile. tests/search_space/test_code.py tests exports."""
    sizes = [
        0.0,
        1e-30,
        1e-9,
        1e-6,
        1e-4,
        1e-3,
        0.01,
        0.06,
        0.0635,
        0.3,
        0.9,
        0.999,
        1.0,
        1.001,
        1.5,
        2.2,
        3.0,
        7.0,
        50.0,
    ]
    x = torch.tensor([sign * size for size in sizes for sign in (1, -1)], dtype=dtype)
    apply = torch.func.vmap(FUNCTIONS["sinc"].apply) if transformed else FUNCTIONS["sinc"].apply
    info = torch.finfo(dtype)
    for order, found in enumerate(derivatives(apply, x, 3)):
        for point, got in zip(x.tolist(), found.tolist(), strict=True):
            wanted = sinc_derivative(point, order)
            digits = (4, 4, 64, 1024)[order] * (4 if transformed else 1)
            allowed = digits * info.eps * abs(wanted) + info.tiny * info.eps
            assert abs(got - wanted) <= allowed, (order, point, got, wanted)


JIT = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own


@JIT
@pytest.mark.parametrize("text", ["sinc(x)", "x + sinc(x)", "sinc(x)^2 * x", "exp(-sinc(2 * x))", "sinc(sinc(x) - 1)"])
def test_second_derivatives_of_what_contains_sinc(text: str) -> None:
    """Row M1: compared with differences, in reverse and forward mode, at 0 and close to it."""
    x = torch.tensor([[0.0, 1e-3, -0.4, 1.7]], dtype=torch.float64, requires_grad=True)
    module = Activation(text).double()
    assert torch.autograd.gradcheck(module, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(module, x, check_fwd_over_rev=True)


@JIT
def test_sinc_under_every_transformation() -> None:
    """Row M1: also forward over forward mode, in which an autograd function would be differentiated only once."""
    func, x = torch.func, torch.tensor([0.0, 0.5, -2.0], dtype=torch.float64)
    wanted = torch.tensor([sinc_derivative(point, 2) for point in x.tolist()], dtype=torch.float64)

    def total(x: torch.Tensor) -> torch.Tensor:
        return Activation("x + sinc(x)").double()(x).sum()

    for one in (func.jacfwd, func.jacrev):
        for other in (func.jacfwd, func.jacrev):
            torch.testing.assert_close(one(other(total))(x).diagonal(), wanted)
    compiled = torch.compile(FUNCTIONS["sinc"].apply, fullgraph=True, backend="aot_eager")
    for point in (x, x.float(), x.bfloat16()):
        for found, exact in zip(
            derivatives(compiled, point, 1), derivatives(FUNCTIONS["sinc"].apply, point, 1), strict=True
        ):
            torch.testing.assert_close(found, exact)


WORDS_OF_ONE = [*(f"{row.name}(x)" for row in FUNCTIONS.values() if row.arity == 1 and row.name != "neg")]
WORDS_OF_ONE += [
    "-x",
    "x^2",
    "x^3",
    "x^0.5",
    "2^x",
    "1 / x",
    "max(x, 0)",
    "min(x, 0)",
    "max(x, 0.25)",
    "x^beta",
    "abs(x)^beta",
]


@pytest.mark.parametrize("dtype", TYPES[1:], ids=str)
@pytest.mark.parametrize("text", WORDS_OF_ONE)
def test_slopes_in_types_of_few_digits(text: str, dtype: torch.dtype) -> None:
    """Row M2: the slope of every function is as close to float64 as the type allows. The slope of sinc was wrong by 0.1
    in bfloat16."""
    low = 1e-3 if text in ("log(x)", "sqrt(x)", "x^0.5", "x^beta", "1 / x") else -8.0
    x = torch.cat([torch.linspace(low, 8, 801), torch.logspace(-3, 0, 100), -torch.logspace(-3, 0, 100)])
    x = x[x >= low].to(dtype)
    found, exact = derivatives(Activation(text), x, 1), derivatives(Activation(text).double(), x.double(), 1)
    for got, wanted in zip(found, exact, strict=True):
        fits = wanted.abs() < torch.finfo(dtype).max
        allowed = 16 * torch.finfo(dtype).eps * (wanted.abs() + 0.1)
        wrong = fits & ~((got.double() - wanted).abs() <= allowed)
        assert not bool(wrong.any()), (x[wrong], got[wrong], wanted[wrong])


@pytest.mark.parametrize("text", [*PAPER_UNARY, "sqrt(max(x, 0))", "x * sigmoid(x)", "x * tanh(softplus(x))"])
def test_second_derivatives(text: str) -> None:
    """Row M1: every primitive of the paper, compared with differences of slopes away from kinks, and finite at 0. The
    slope of sqrt at 0 is infinite and taken as 0, which also affects functions made with it."""
    module = Activation(text).double()
    x = torch.tensor([[-3.1, -0.7, 0.4, 2.3, 39.0, 41.0]], dtype=torch.float64)
    x = x[x > 0] if text == "sqrt(x)" else x
    step = 1e-6 * x.abs()
    second = derivatives(module, x, 2)[2]
    up, down = (derivatives(module, x + side * step, 1)[1] for side in (1, -1))
    torch.testing.assert_close(second, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)
    for dtype in TYPES:
        at_zero = derivatives(module.to(dtype), torch.zeros(1, 1, dtype=dtype), 2)[2]
        assert bool(at_zero.isfinite().all()) or (text == "log(abs(x) + eps)" and dtype == torch.float16)


def test_softplus_is_exact_beyond_20() -> None:
    """With its default threshold, torch's softplus is inexact beyond 20."""
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
