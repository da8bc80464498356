"""Exported files: each that can be run is run, and computes the same as `Activation`."""

from __future__ import annotations

import doctest
import itertools
import random
import re
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from search_space import (
    BASELINES,
    FUNCTIONS,
    KNOWN,
    Activation,
    ElementwiseNorm,
    Expression,
    Gate,
    Grammar,
    ParseError,
    SpaceError,
    key,
    notation,
    parse,
)
from search_space.export import TARGETS, code, onnx_bytes
from search_space.kernels import KERNELS

torch.set_num_threads(1)

SWISH = "x * sigmoid(beta * x)"
CHOSEN = [
    *(row.expression for row in BASELINES.values()),
    # Ramachandran et al. 2017, table 2
    "max(x, sigmoid(x))",
    "cos(x) - x",
    "min(x, sin(x))",
    "atan(x)^2 - x",
    "max(x, tanh(x))",
    "sinc(x) + x",
    "x * asinh(x)^2",
    # parameters: alone, several, shared
    "beta",
    "beta * x + beta",
    "beta1 * x + (1 - beta1) * tanh(x)",
    "exp(-beta * (x - beta)^2)",
    "beta2 * x + max(beta1, x) * beta2",
    # constants
    "1",
    "-1",
    "x + -0.5",
    "2^x",
    "(-2)^x",
    "x / -0",
    "exp(9e9) * x",
    "max(x, 1e300) + 1",
    "x^1e5",
    "x + sqrt(-1)",
    "eps * x - 1e-20",
    # order, signs, kinks and edges
    "max(min(max(x, 0.3), 2), min(-1, x))",
    "max(0, x) - min(0, x) + max(x, -x)",
    "max(sqrt(x), x)",
    "sqrt(max(x, 0))",
    "x^3",
    *(f"sign(x) * {one}" for one in ("sqrt(abs(x))",) if "sign" in FUNCTIONS),
    "(x^2 + 1)^beta",
    "(-x)^2 - -x^2",
    "2^-x^2",
    "(2^x)^2",
    "x - (x - (1 - x))",
    "x / (x / (2 / (x + 3)))",
    "-(-x) * -(x + 1)",
    "log(abs(x) + eps) * erf(x)",
    "expm1(x / 1000) + sinh(x) / (cosh(x) + eps)",
    "(sin(x) + x) / (sin(x) + x + 3)^2",
    " + ".join(f"sin({n} * x) * cos({n} * x)" for n in range(1, 9)),
]
POINTS = [-30.0, -3.0, -1.0, -0.5, -1e-3, 0.0, 1e-4, 0.3, 0.5, 1.0, 2.0, 3.0, 30.0, 50.0]


def random_expressions(count: int) -> list[Expression]:
    draw = random.Random(0)
    spaces = [Grammar(units=1), Grammar(units=2)]
    return [space.decode(space.unrank(draw.randrange(space.size))) for space in spaces for _ in range(count // 2)]


def run_text(text: str, **shims: types.ModuleType) -> dict[str, Any]:
    """Run an exported file, and return its names. No module of this project is available to it."""
    assert "search_space" not in text and "searcher" not in text
    with pytest.MonkeyPatch.context() as patch:
        for name, shim in shims.items():
            patch.setitem(sys.modules, name.replace("__", "."), shim)
        found: dict[str, Any] = {"__name__": "exported"}
        exec(compile(text, "exported.py", "exec"), found)
    return found


def exported(expression: Expression | str, channels: int = 1, betas: Any = None) -> torch.nn.Module:
    made = run_text(code(expression, "torch", name="Exported", channels=channels, betas=betas))["Exported"]()
    assert isinstance(made, torch.nn.Module)
    return made


def trained(expression: Expression | str, channels: int = 1, dim: int = 1, native: bool = True) -> Activation:
    module = Activation(expression, channels, dim=dim, native=native)
    torch.manual_seed(1)
    for beta in module.betas:
        beta.data.uniform_(-1.5, 1.5)
    return module


def values_of(module: Activation) -> Any:
    return [beta.tolist() for beta in module.betas]


def with_gradients(module: torch.nn.Module, x: Tensor) -> list[Tensor]:
    """Return the value, and the slopes by x and by the parameters."""
    module.zero_grad()
    x = x.clone().requires_grad_()
    value = module(x)
    assert value.shape == x.shape and value.dtype == x.dtype
    if not value.requires_grad:
        return [value]
    value.sum().backward()
    slopes = [tensor.grad for tensor in (x, *module.parameters()) if tensor.grad is not None]
    return [value.detach(), *slopes]


def assert_equal(one: torch.nn.Module, other: torch.nn.Module, x: Tensor) -> None:
    for found, wanted in zip(with_gradients(one, x), with_gradients(other, x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6, equal_nan=True)


# torch


@pytest.mark.parametrize("text", CHOSEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_torch_equals_ours(text: str, dtype: torch.dtype) -> None:
    x = torch.tensor(POINTS, dtype=dtype)
    assert_equal(exported(text), Activation(text), x)
    for shape in [(2, 3), (2, 3, 4, 5), (1, 3, 1, 1), (0, 3, 2)]:
        assert_equal(exported(text, 3), Activation(text, 3), torch.randn(shape, dtype=dtype))


@pytest.mark.slow
def test_torch_equals_ours_on_random_expressions_with_trained_values() -> None:
    for expression in random_expressions(150):
        for channels in (1, 3):
            ours = trained(expression, channels)
            x = torch.cat([torch.tensor(POINTS), torch.randn(10)]).reshape(2, 1, 3, 4).repeat(1, 3, 1, 1)
            assert_equal(exported(expression, channels, values_of(ours)), ours, x)
            assert_equal(exported(expression, channels), Activation(expression, channels), x)


def test_torch_takes_our_state_and_what_timm_passes() -> None:
    ours = trained("beta * x + beta", 4)
    other = run_text(code("beta * x + beta", "torch", name="my_name"))["MyName"](4, inplace=True)
    other.load_state_dict(ours.state_dict())
    assert_equal(other, ours, torch.randn(2, 4, 3))


def test_torch_file_passes_its_own_doctest() -> None:
    for expression in [*map(parse, CHOSEN), *random_expressions(40)]:
        for channels in (1, 5):
            names = run_text(code(expression, "torch", channels=channels))
            (name,) = (n for n in names if n.startswith("Activation"))
            test = doctest.DocTestParser().get_doctest(names[name].__doc__, names, name, None, 0)
            assert len(test.examples) == 3
            assert doctest.DocTestRunner(verbose=False).run(test).failed == 0, str(expression)


def test_torch_evaluates_a_shared_part_once_and_states_the_formula() -> None:
    text = code("(sin(x) + x) / (sin(x) + x + 3)^2", "torch")
    assert text.count("torch.sin(") == 1 and text.count("f(x) = (sin(x) + x) / (sin(x) + x + 3)^2\n") == 2
    assert "weight decay" in code(SWISH, "torch") and "weight decay" not in text


def test_lines_fit() -> None:
    for text in CHOSEN:
        for target in ("torch", "jax", "sympy"):
            assert max(map(len, code(text, target).splitlines())) <= 120
    for target in ("torch", "jax"):
        assert max(map(len, code(SWISH, target, channels=99, betas=[[n / 7 for n in range(99)]]).splitlines())) <= 120


# jax need not be installed: functions of torch with the same meaning stand in for its own.


def torch_as_jax() -> dict[str, types.ModuleType]:
    def pair(apply: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Any], Tensor]:
        def call(a: Any, b: Any) -> Tensor:
            like = a if isinstance(a, Tensor) else b
            return apply(*(torch.as_tensor(v, dtype=like.dtype) for v in (a, b)))

        return call

    names = ["abs", "sign", "sqrt", "log", "exp", "expm1", "sin", "cos", "sinh", "cosh", "tanh", "where", "ones_like"]
    numpy = types.ModuleType("jax.numpy")
    numpy.__dict__.update({name: getattr(torch, name) for name in [*names, "float32", "promote_types", "inf", "nan"]})
    numpy.__dict__.update(arcsinh=torch.asinh, arctan=torch.atan, size=torch.numel, broadcast_to=torch.broadcast_to)
    numpy.__dict__.update(maximum=pair(torch.maximum), minimum=pair(torch.minimum))
    numpy.__dict__.update(asarray=lambda a, dtype: torch.as_tensor(a, dtype=dtype), result_type=lambda x: x.dtype)
    numpy.__dict__.update(floating=None, issubdtype=lambda dtype, _: dtype.is_floating_point)
    jax, typing = types.ModuleType("jax"), types.ModuleType("jax.typing")
    softplus = FUNCTIONS["softplus"].apply
    nn = types.SimpleNamespace(relu=torch.relu, sigmoid=torch.sigmoid, softplus=softplus)
    jax.__dict__.update(nn=nn, scipy=types.SimpleNamespace(special=types.SimpleNamespace(erf=torch.erf)))
    typing.ArrayLike = Any  # type: ignore[attr-defined]
    return {"jax": jax, "jax__numpy": numpy, "jax__typing": typing}


def exported_jax(expression: Expression | str, **options: Any) -> Callable[..., Tensor]:
    text = code(expression, "jax", name="exported", **options)
    found: Callable[..., Tensor] = run_text(text, **torch_as_jax())["exported"]
    return found


def test_jax_equals_ours() -> None:
    for expression in [*map(parse, CHOSEN), *random_expressions(100)]:
        for channels in (1, 3):
            ours = trained(expression, channels).double()
            x = torch.tensor(POINTS, dtype=torch.float64).reshape(-1, 1).repeat(1, 3)
            found = exported_jax(expression, channels=channels, betas=values_of(ours))(x)
            torch.testing.assert_close(
                found, ours(x).detach(), rtol=1e-6, atol=1e-6, equal_nan=True, msg=str(expression)
            )


def test_jax_itself_has_our_values_and_finite_slopes() -> None:
    """Row M3, with jax: jax's own maximum multiplies gradients by 0 where torch omits them."""
    jax = pytest.importorskip("jax", reason="jax is no dependency of ours")
    x = torch.tensor([sign * size for size in FAR for sign in (1.0, -1.0)])
    for text in [*NAMED, *map(str, random_expressions(60))]:
        function = run_text(code(text, "jax", name="exported"))["exported"]
        value, pull = jax.vjp(function, jax.numpy.asarray(x.numpy()))
        slope = torch.tensor(np.asarray(pull(jax.numpy.ones_like(value))[0]))
        assert_finite_where_ours_is([torch.tensor(np.asarray(value)), slope], text, x)


# Overflow

NAMED = [row.expression for row in KNOWN.values()]
NAMED += ["x / (1 + exp(-x))", "max(x, 0) + min(expm1(x), 0)", "x / (exp(-x) + 1) + sin(x)", "-softplus(-x)"]
NAMED += ["0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x^3)))", "max(x, 0.1 * x)", "sinc(x) + x"]
NAMED += ["max(x, 0) + 2 * expm1(min(x, 0) / 2)", "max(x, 0) + 0.5 * expm1(min(x, 0))", "min(max(x, -1), 1)"]
NAMED += ["max(sin(x), 0) + min(expm1(sin(x)), 0)", "2 * x / (1 + exp(-2 * x))", "exp(-(x - cosh(x))^2)"]
FAR = [0.0, 1e-8, 1e-3, 0.5, 1.0, 3.0, 6.0, 20.0, 50.0, 88.0, 89.0, 100.0, 200.0, 745.0, 1e3, 1e4]


def slopes_of(apply: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    value = apply(x)
    if not value.requires_grad:
        return [value, torch.zeros_like(x)]
    return [value.detach(), *torch.autograd.grad(value.sum(), [x], materialize_grads=True, allow_unused=True)]


def assert_finite_where_ours_is(found: list[Tensor], text: str, x: Tensor) -> None:
    ours = slopes_of(Activation(text), x)
    finite = torch.stack(ours).isfinite().all(0)
    for one in found:
        assert bool(one[finite].isfinite().all()), (text, x.dtype, x[finite & ~one.isfinite()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_exports_overflow_nowhere_where_ours_does_not(dtype: torch.dtype) -> None:
    """Row M3: a gradient of 0 times infinity is NaN. The cases are all known functions, the forms of kernels, and
    random functions of one and two units, for inputs up to +-10,000, in torch and jax."""
    x = torch.tensor([sign * size for size in FAR for sign in (1.0, -1.0)], dtype=dtype)
    for text in [*NAMED, *map(str, random_expressions(300))]:
        assert_finite_where_ours_is(slopes_of(exported(text), x), text, x)
        assert_finite_where_ours_is(slopes_of(exported_jax(text), x), text, x)


@pytest.mark.parametrize(
    ("text", "at", "slope"), [("max(x, 0) + min(expm1(x), 0)", 100.0, 1.0), ("x / (1 + exp(-x))", -100.0, 0.0)]
)
def test_slopes_far_out(text: str, at: float, slope: float) -> None:
    """Row M3: its two examples."""
    for apply in (exported(text), exported_jax(text)):
        assert slopes_of(apply, torch.tensor([at]))[1].item() == pytest.approx(slope, abs=1e-40)


# Derivatives of sinc


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("made", [exported, exported_jax])
def test_exports_have_the_derivatives_of_sinc(
    made: Callable[[str], Callable[[Tensor], Tensor]], dtype: torch.dtype
) -> None:
    """Rows M1 and M2 for exports. tests/search_space/test_primitives.py compares `Activation` with the exact values."""
    x = torch.tensor([0.0, 1e-6, 1e-3, 0.06, -0.06, 0.9, 1.1, -3.0, 30.0], dtype=dtype)
    for text in ("x + sinc(x)", "sinc(x) * cos(x)", "sinc(sin(2 * x))"):
        found, wanted = derivatives(made(text), x), derivatives(Activation(text).double(), x.double())
        for one, other in zip(found, wanted, strict=True):
            allowed = 16 * torch.finfo(dtype).eps
            torch.testing.assert_close(one, other.to(dtype), rtol=allowed, atol=allowed)


def derivatives(apply: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Return the value, the slope and the second derivative."""
    x = x.clone().requires_grad_()
    value = apply(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    return [value, slope, *torch.autograd.grad(slope.sum(), x)]


def test_sympy_has_the_derivatives_of_sinc() -> None:
    """Row M1: sympy's own sinc has no derivatives at 0."""
    sympy = pytest.importorskip("sympy", reason="sympy is no dependency of ours; torch usually brings it")
    names = run_text(code("x + sinc(2 * x)", "sympy"))
    f, x = names["f"], names["x"]
    assert [f.diff(x, order).subs(x, 0) for order in (1, 2, 3)] == [1, -sympy.Rational(4, 3), 0]
    exact = (sympy.sin(2 * x) / (2 * x)).diff(x, 2)
    assert abs(sympy.N((f.diff(x, 2) - exact).subs(x, sympy.Rational(7, 10)), 30)) < 1e-25
    assert sympy.lambdify(x, f)(0.5) == pytest.approx(0.5 + np.sin(1.0))


# Kernels

CALLS = {
    "gelu(x)": "F.gelu(x)",
    "0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x^3)))": 'F.gelu(x, approximate="tanh")',
    "leaky_relu(x)": "F.leaky_relu(x, 0.01)",
    "max(x, 0.2 * x)": "F.leaky_relu(x, 0.2)",
    "x * sigmoid(x)": "F.silu(x)",
    "mish(x)": "F.mish(x)",
    "elu(x)": "F.elu(x)",
    "selu(x)": "F.selu(x)",
    "max(x, 0) + 2 * expm1(min(x, 0) / 2)": "F.celu(x, 2)",
    "max(x, 0) + 0.5 * expm1(min(x, 0))": "F.elu(x, 0.5)",
    "hard_swish(x)": "F.hardswish(x)",
    "hard_sigmoid(x)": "F.hardsigmoid(x)",
    "relu6(x)": "F.hardtanh(x, 0, 6)",
    "max(min(x, 1), -1)": "F.hardtanh(x, -1, 1)",
    "-softplus(-x)": "F.logsigmoid(x)",
    "max(x, 0) + beta * min(x, 0)": "_prelu(x, beta)",
    "relu(x)": "torch.relu(x)",
    "softplus(x)": "F.softplus(x, threshold=40.0)",
}


@pytest.mark.parametrize("text", CALLS)
def test_an_exported_file_calls_the_kernel_of_torch(text: str) -> None:
    """Row M4: gelu, leaky_relu and swish1 were computed operation by operation."""
    assert code(text, "torch").splitlines()[-1].strip() == f"return {CALLS[text]}"


def test_every_kernel_of_ours_is_written_in_torch() -> None:
    """Row M4: a file runs the same operations as `Activation`."""
    assert set(KERNELS) <= {*notation.TORCH, *notation.TORCH_TERMS}


# Channels, states and types


@pytest.mark.parametrize(
    ("dim", "shape"), [(-1, (2, 10, 3)), (-1, (3,)), (2, (2, 5, 3, 4)), (0, (3, 5)), (1, (2, 3, 3))]
)
@pytest.mark.parametrize("text", ["beta * x + beta", SWISH, "max(x, 0) + beta * min(x, 0)", "beta"])
def test_exports_take_channels_at_any_dimension(text: str, dim: int, shape: tuple[int, ...]) -> None:
    """Row M7: `dim` is a default of the file and an argument, in torch and jax."""
    ours = trained(text, 3, dim)
    x, betas = torch.randn(shape), values_of(ours)
    made = run_text(code(text, "torch", name="Exported", channels=3, dim=dim, betas=betas))["Exported"]
    other = run_text(code(text, "torch", name="Exported", betas=None))["Exported"](3, dim=dim)
    other.load_state_dict(ours.state_dict())
    assert_equal(made(), ours, x)
    assert_equal(other, ours, x)
    wanted = ours(x).detach()
    torch.testing.assert_close(exported_jax(text, channels=3, dim=dim, betas=betas)(x), wanted)
    torch.testing.assert_close(exported_jax(text)(x, *ours.betas, dim=dim).detach(), wanted)


def test_onnx_takes_channels_at_any_dimension() -> None:
    """Row M7."""
    pytest.importorskip("onnx", reason="onnx files need the package onnx")
    for dim, shape in [(-1, (2, 5, 3)), (-1, (2, 3)), (2, (2, 5, 3, 4)), (0, (3, 5))]:
        ours = trained("beta * x + beta", 3, dim)
        x = torch.randn(shape)
        content = onnx_bytes("beta * x + beta", channels=3, dim=dim, betas=values_of(ours), rank=len(shape))
        np.testing.assert_allclose(run_onnx(content, x), ours(x).detach().numpy(), rtol=1e-6, atol=1e-6)
    with pytest.raises(SpaceError, match="rank must be at least 3, not 2: dimension 2 is the channels"):
        onnx_bytes("beta * x", channels=3, dim=2, rank=2)


def test_exports_refuse_other_channels() -> None:
    """Row M7: the message names the dimension."""
    for dim, shape in [(1, (2, 10, 16)), (-1, (2, 16, 10)), (3, (2, 16)), (0, ())]:
        for apply in (exported(SWISH, 16), exported_jax(SWISH, channels=16, betas=[[1.0 + n for n in range(16)]])):
            if isinstance(apply, torch.nn.Module):
                apply.dim = dim  # type: ignore[assignment]
            with pytest.raises(ValueError, match=r"dimension -?\d must be the 16 channels, not \("):
                apply(torch.randn(shape)) if isinstance(apply, torch.nn.Module) else apply(torch.randn(shape), dim=dim)


def test_exported_parameters_are_vectors() -> None:
    """Row M8: the usual rule `p.ndim < 2` excludes them from weight decay. File and `Activation` load each other's
    states."""
    for text in (SWISH, "beta * x + beta", "max(x, 0) + beta * min(x, 0)"):
        ours, other = trained(text, 3), exported(text, 3)
        assert all(parameter.shape == (3,) for parameter in other.parameters())
        other.load_state_dict(ours.state_dict())
        ours.load_state_dict(other.state_dict())


@pytest.mark.parametrize("names", [["beta"], ["beta1", "beta2"]])
def test_a_state_of_an_older_file_is_split_as_documented(names: list[str]) -> None:
    """Row M8: the line of code is in docs/search-space.md."""
    state, rows = {}, torch.randn(len(names), 3)
    state["beta"] = rows
    state |= dict(zip(names, state.pop("beta"), strict=True))
    module = exported(" + ".join(f"{name} * x^{power}" for power, name in enumerate(names)), 3)
    module.load_state_dict(state)
    torch.testing.assert_close(torch.stack(list(module.parameters())).detach(), rows)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("text", ["beta * x", "x", "max(x, 0)", "1", "beta", "sin(x)"])
def test_exports_take_floating_point_only(text: str, dtype: torch.dtype) -> None:
    """Row M6: beta 0.9 became the integer 0, and all values became 0."""
    for apply in (exported(text), exported_jax(text)):
        with pytest.raises(TypeError, match=f"a floating-point input is needed, not {dtype}"):
            apply(torch.ones(2, 3).to(dtype))


# sympy


def test_sympy_equals_ours() -> None:
    sympy = pytest.importorskip("sympy", reason="sympy is no dependency of ours; torch usually brings it")
    checked = 0
    for expression in [*map(parse, CHOSEN), *random_expressions(20)]:
        ours = trained(expression).double()
        names = run_text(code(expression, "sympy", betas=values_of(ours)))
        formula = names["f"].subs(names["start"])
        for point in (-1.3, 0.0, 0.7):
            wanted = float(ours(torch.tensor(point, dtype=torch.float64)).detach())
            if np.isfinite(wanted) and abs(wanted) < 1e100:
                found = complex(sympy.N(formula.subs(names["x"], point)))
                assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6), expression
                checked += 1
    assert checked > 120


# onnx


def run_onnx(content: bytes, x: Tensor) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnx models need onnxruntime to be run")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x.numpy()})[0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_onnx_equals_ours() -> None:
    pytest.importorskip("onnx", reason="onnx files need the package onnx")
    torch.manual_seed(0)
    x = torch.cat([torch.tensor(POINTS), torch.randn(10)]).reshape(2, 1, 3, 4).repeat(1, 3, 1, 1)
    for expression in [*map(parse, CHOSEN), *random_expressions(100)]:
        for channels in (1, 3):
            ours = trained(expression, channels, native=False)
            found = run_onnx(onnx_bytes(expression, channels=channels, betas=values_of(ours)), x)
            wanted, exact = ours(x).detach().numpy(), ours.double()(x.double()).detach().numpy()
            # Both are float32 with other roundings: where ours is off by more than 1e-6, so may be the other.
            allowed = 1e-6 * (1 + np.abs(wanted)) + 8 * np.abs(wanted - exact)
            same = np.isclose(found, wanted, 0, np.nan_to_num(allowed), equal_nan=True)
            assert same.all(), (str(expression), x.numpy()[~same], found[~same], wanted[~same])


def test_onnx_parameters_are_initialisers_and_any_rank_can_be_asked_for() -> None:
    onnx = pytest.importorskip("onnx", reason="onnx files need the package onnx")
    for rank in (1, 2, 3, 5):
        ours = trained("beta * x + beta", 3 if rank > 1 else 1)
        content = onnx_bytes("beta * x + beta", channels=ours.channels, betas=values_of(ours), rank=rank)
        assert [value.name for value in onnx.load_from_string(content).graph.initializer] == ["beta1", "beta2"]
        x = torch.randn((2, 3, 4, 2, 2)[:rank])
        np.testing.assert_allclose(run_onnx(content, x), ours(x).detach().numpy(), rtol=1e-6, atol=1e-6)


def test_without_the_package_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SpaceError, match=r"\[onnx\]'; without it, the languages are torch, jax, sympy, latex"):
        onnx_bytes("x")


# LaTeX and Markdown


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (SWISH, r"x \cdot \sigma\left(\beta \cdot x\right)"),
        ("-x^2 - -x", r"-x^{2} - \left(-x\right)"),
        ("(-x)^2", r"\left(-x\right)^{2}"),
        ("sin(x)^2", r"\left(\sin\left(x\right)\right)^{2}"),
        ("(x + 1) / 2 * x", r"\frac{x + 1}{2} \cdot x"),
        ("2^(x^2)", "2^{x^{2}}"),
        ("log(abs(x) + eps)", r"\ln\left(\left|x\right| + 10^{-6}\right)"),
        ("2.5e-7 * beta + beta", r"2.5 \cdot 10^{-7} \cdot \beta_{1} + \beta_{2}"),
        ("expm1(x) * x", r"\left(e^{x} - 1\right) \cdot x"),
        ("max(x, 0) - sinc(x)", r"\max\left(x, 0\right) - \operatorname{sinc}\left(x\right)"),
    ],
)
def test_latex(text: str, wanted: str) -> None:
    assert code(text, "latex") == f"f(x) = {wanted}\n"


def test_latex_is_balanced() -> None:
    for expression in [*map(parse, CHOSEN), *random_expressions(100)]:
        text = code(expression, "latex")
        assert text.count("{") == text.count("}") and text.count(r"\left") == text.count(r"\right")
        depth = list(itertools.accumulate({"{": 1, "}": -1}.get(letter, 0) for letter in text))
        assert min(depth) == depth[-1] == 0


def test_markdown_has_formula_values_and_a_module_that_runs() -> None:
    ours = trained(SWISH, 2)
    text = code(SWISH, "markdown", name="my_swish", channels=2, betas=values_of(ours))
    assert text.startswith("# my_swish\n\n$$f(x) = x ") and f"`{SWISH}`, key `{key(parse(SWISH))}`" in text
    assert str(values_of(ours)) in text
    use, module = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "from my_swish import MySwish" in use
    assert_equal(run_text(module)["MySwish"](), ours, torch.randn(3, 2, 4))


# What is refused


@pytest.mark.parametrize("table", ["TORCH", "JAX", "SYMPY", "LATEX"])
def test_every_target_can_write_every_function(table: str) -> None:
    assert set(FUNCTIONS) <= set(getattr(notation, table))
    assert set(FUNCTIONS) <= {*notation.ONNX, *notation.ONNX_TERMS}


def test_unknown_target() -> None:
    with pytest.raises(SpaceError, match="unknown target 'pytorch'; did you mean 'torch'"):
        code("x", "pytorch")
    with pytest.raises(SpaceError, match="onnx_bytes; targets with text: torch, jax"):
        code("x", "onnx")
    assert set(TARGETS) == {"torch", "onnx", "jax", "sympy", "latex", "markdown"}


def test_a_target_that_cannot_express_the_function_says_which_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(notation.SYMPY, "erf")
    monkeypatch.delitem(notation.LATEX, "erf")
    for target in ("sympy", "latex", "markdown"):
        with pytest.raises(SpaceError, match=f"{target} cannot express erf; these can: torch, jax, onnx$"):
            code("erf(x) + sin(x)", target)
        code("sin(x)", target)
    with pytest.raises(SpaceError, match="one value per parameter, not one per channel; torch, jax and onnx have both"):
        code("beta * x", "sympy", channels=2, betas=[[1, 2]])


@pytest.mark.parametrize("name", ["1x", "a b", "class", "none", "F", "tensor", "x\n", 'a"""', "jnp", "_", "é", "a-b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(SpaceError, match="cannot be a name in the file"):
        code("x", "torch", name=name)
    if re.search(r"[^A-Za-z_]|class|jnp", name):
        for target in ("jax", "sympy", "latex", "markdown"):
            with pytest.raises(SpaceError, match="cannot be a name in the file"):
                code("x", target, name=name)


@pytest.mark.parametrize("betas", [[], [[1.0]], [[1.0, 2.0], [3.0, 4.0]], [[1.0, float("nan")]]])
def test_betas_of_another_shape(betas: list[list[float]]) -> None:
    with pytest.raises(SpaceError, match=r"betas must be 1 rows \(parameters\) of 2 finite values \(channels\)"):
        code(SWISH, "torch", channels=2, betas=betas)


def test_bad_text_and_channels() -> None:
    with pytest.raises(ParseError):
        code("x +", "torch")
    with pytest.raises(SpaceError, match="channels must be a whole number from 1 to 1000000, not 0"):
        onnx_bytes("x", channels=0)


@pytest.mark.parametrize(
    ("op", "text", "template"),
    [
        ("softplus", "softplus(x)", "F.softplus({0}, threshold=5.0)"),
        ("max_zero", "max(x, 0)", "torch.clamp_min({0}, 0)"),
        ("sqrt", "sqrt(abs(x))", "torch.sqrt({0})"),
        ("^", "(-x)^4", "-x**{1}"),
        ("gelu", "gelu(x)", 'F.gelu({0}, approximate="tanh")'),
    ],
)
def test_the_comparison_can_fail(op: str, text: str, template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison finds a module with one wrong function, one wrong slope or a missing pair of parentheses."""
    monkeypatch.setitem(notation.TORCH, op, replace(notation.TORCH[op], template=template))
    with pytest.raises(AssertionError):
        assert_equal(exported(text), Activation(text), torch.tensor([*POINTS, 7.0]))


def test_an_exported_class_refuses_other_channels_than_it_has() -> None:
    """Seen to fail: an input of one channel was broadcast to four."""
    module = exported("x * sigmoid(beta * x)", channels=4)
    with pytest.raises(ValueError, match=r"dimension 1 must be the 4 channels, not \(2, 1, 5, 5\)"):
        module(torch.randn(2, 1, 5, 5))


def test_onnx_has_float32_whatever_the_default_type_is(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = onnx_bytes("max(x, 2) * beta + 1e300")
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            assert onnx_bytes("max(x, 2) * beta + 1e300") == wanted
        finally:
            torch.set_default_dtype(torch.float32)


# Gates and norms


@pytest.mark.parametrize("dim", [1, -1])
@pytest.mark.parametrize(("site", "made", "suffix"), [("gate", Gate, "Gate"), ("norm", ElementwiseNorm, "Norm")])
def test_a_file_for_a_gate_or_a_norm_has_the_module_for_it(site: str, made: Any, suffix: str, dim: int) -> None:
    shared = site == "norm"
    betas = [[0.5]] if shared else [[0.5, 1.0, 2.0]]
    text = code(SWISH, "torch", name="found", channels=3, dim=dim, betas=betas, site=site)
    names = run_text(text)
    theirs, ours = names[f"Found{suffix}"](), made(SWISH, 3, dim=dim)
    assert next(theirs.function.parameters()).tolist() == betas[0]
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(0.5, 1.5)
    ours.load_state_dict(theirs.state_dict())
    shape = [2, 4, 4]
    shape[dim] = 3 if shared else 6
    x = torch.randn(shape)
    torch.testing.assert_close(theirs(x), ours(x))
    with pytest.raises(ValueError, match="channels, not"):
        theirs(torch.randn(2, 4, 4))
    card = code(SWISH, "markdown", name="found", channels=3, dim=dim, site=site)
    example = re.search(r"^y = (.*)$", card, re.MULTILINE)
    assert example and eval(example[1], {**names, "torch": torch}).shape[dim] == 3
    assert "gate" in code(SWISH, "jax", site="gate") and "g(x) = w" in code(SWISH, "latex", site="norm")
    with pytest.raises(SpaceError, match="unknown site 'gat'; did you mean 'gate'"):
        code(SWISH, "torch", site="gat")
