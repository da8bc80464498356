"""Expressions as modules: shapes, parameters and gradients; known functions compared with torch's own."""

from __future__ import annotations

import copy
import io
import pickle
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space import (
    ALIASES,
    BASELINES,
    FUNCTIONS,
    KNOWN,
    MODERN,
    Activation,
    Maxout,
    ParseError,
    SpaceError,
    baseline,
    code,
    key,
    parameter_groups,
    parse,
    preflight,
    profile,
)
from search_space.grammar import Grammar
from search_space.kernels import OPERATIONS

torch.set_num_threads(1)

SWISH = "x * sigmoid(beta * x)"
CONSTANT = ["1", "beta", "eps + 1", "0", "beta * 2", "-1", "max(beta, 3)", "sqrt(4) / 2", "beta1 + beta2"]


def torch_equal(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


# Parameters


@pytest.mark.parametrize(
    ("text", "count"), [("x", 0), (SWISH, 1), ("beta * x + beta", 2), ("beta1 * x + beta1", 1), ("exp(-beta * x)", 1)]
)
@pytest.mark.parametrize("channels", [1, 6])
def test_parameters_start_at_one(text: str, count: int, channels: int) -> None:
    module = Activation(text, channels)
    if not count:
        assert not module.betas and not list(module.parameters())
        return
    assert list(module.parameters()) == list(module.betas) and len(module.betas) == count
    assert list(module.state_dict()) == (["beta"] if count == 1 else ["beta1", "beta2"])
    for beta in module.betas:
        torch_equal(beta.detach(), torch.ones(channels))


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4, 7), (5, 3, 9), (3, 3), (3, 3, 3), (3, 3, 3, 3)])
def test_one_value_per_channel(shape: tuple[int, ...]) -> None:
    """Dimension 1 has the channels, whatever the sizes of the other dimensions."""
    module = Activation("beta * x + beta", 3)
    factor, shift = module.betas
    factor.data, shift.data = torch.tensor([2.0, 3.0, 5.0]), torch.tensor([7.0, 11.0, 13.0])
    x = torch.randn(shape)
    y = module(x)
    for channel in range(3):
        torch_equal(y[:, channel], x[:, channel] * factor[channel] + shift[channel])
    y.sum().backward()
    assert factor.grad is not None and factor.grad.shape == (3,)
    torch.testing.assert_close(factor.grad, x.transpose(0, 1).reshape(3, -1).sum(1))


@pytest.mark.parametrize("shape", [(), (4,), (5, 3), (5, 3, 4, 7)])
def test_one_channel_is_shared_by_all(shape: tuple[int, ...]) -> None:
    module = Activation("beta * x")
    nn.init.constant_(module.betas[0], 3)
    x = torch.randn(shape)
    torch_equal(module(x), 3 * x)


@pytest.mark.parametrize(
    ("dim", "shape"),
    [
        *[(-1, (2, 10, 3)), (-1, (5, 3)), (-1, (3,)), (-1, (2, 4, 5, 3)), (-1, (3, 3, 3)), (-1, (0, 4, 3))],
        *[(2, (2, 4, 3, 5)), (0, (3, 4, 5)), (0, (3, 3)), (-3, (2, 3, 4, 5)), (1, (2, 3, 4, 5))],
    ],
)
@pytest.mark.parametrize("text", ["beta * x + beta", SWISH, "max(x, 0) + beta * min(x, 0)", "beta"])
def test_dim_says_where_the_channels_are(text: str, dim: int, shape: tuple[int, ...]) -> None:
    """Row M7: inputs of transformers are `(batch, tokens, channels)`. The cases include the kernel of PReLU and
    constants."""
    torch.manual_seed(0)
    module, other = Activation(text, 3, dim=dim), Activation(text, 3)
    for beta in module.betas:
        nn.init.uniform_(beta, -1, 1)
    other.load_state_dict(module.state_dict())
    x = torch.randn(shape, requires_grad=True)
    at = dim if len(shape) > 1 else 0
    upstream, inputs = torch.randn(shape), [x, *module.betas]
    wanted = other(x.movedim(at, -1).reshape(-1, 3)).reshape(x.movedim(at, -1).shape).movedim(-1, at)
    value = module(x)
    torch.testing.assert_close(value, wanted)
    assert value.is_contiguous()
    found = torch.autograd.grad(value, inputs, upstream, materialize_grads=True, allow_unused=True)
    slopes = torch.autograd.grad(wanted, [x, *other.betas], upstream, materialize_grads=True, allow_unused=True)
    torch.testing.assert_close(found, slopes)


@pytest.mark.parametrize(
    ("dim", "shape"),
    [(1, (2, 10, 16)), (-1, (2, 16, 10)), (2, (2, 16)), (-3, (16, 2)), (0, ()), (1, (2, 1)), (-1, (3,))],
)
def test_other_channels_than_the_module_has(dim: int, shape: tuple[int, ...]) -> None:
    """Row M7: one error, which names `dim=-1`."""
    with pytest.raises(
        SpaceError, match=rf"dimension {dim} must be the channels; .*use dim=-1; with channels=1"
    ) as error:
        Activation(SWISH, 16, dim=dim)(torch.randn(shape))
    assert f"its input {shape}" in str(error.value)


@pytest.mark.parametrize("dim", [1.0, True, None, "last"])
def test_dim_is_a_whole_number(dim: Any) -> None:
    with pytest.raises(SpaceError, match="dim must be a whole number, 1 for"):
        Activation(SWISH, 16, dim=dim)


def test_the_usual_rule_excludes_the_parameters_from_weight_decay() -> None:
    """Row M8: `p.ndim < 2`, by which training scripts find biases and scales of norms, is true for every beta."""
    for text in (SWISH, "beta * x + beta", KNOWN["prelu"].expression):
        parameters = list(Activation(text, 16).parameters())
        assert parameters and all(p.ndim < 2 and p.shape == (16,) for p in parameters)


@pytest.mark.parametrize("text", [SWISH, "beta * x + beta", "beta3 * x + beta1 + max(x, beta2)"])
def test_a_state_of_the_older_form_is_loaded(text: str) -> None:
    """Row M8: all parameters were one `beta` of shape (parameters, channels)."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(Activation(text, 3)))
    old = {name: value for name, value in model.state_dict().items() if "beta" not in name}
    rows = torch.randn(len(model[1][0].betas), 3)
    assert str(model.load_state_dict({**old, "1.0.beta": rows})) == "<All keys matched successfully>"
    torch_equal(torch.stack(list(model[1][0].betas)).detach(), rows)
    with pytest.raises(RuntimeError, match=r"1\.0\.beta"):
        model.load_state_dict({**old, "1.0.beta": torch.randn(5, 3)})


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("text", ["beta * x", "x", "max(x, 0)", "sin(x)", "1", "beta"])
def test_only_floating_point_inputs(text: str, dtype: torch.dtype) -> None:
    """Row M6: beta 0.9 became the integer 0, and all values became 0."""
    for native in (True, False):
        with pytest.raises(SpaceError, match=f"floating-point input, not {dtype}; convert it: x.float()"):
            Activation(text, native=native)(torch.ones(2, 3).to(dtype))


def test_values_follow_the_places_of_the_parameters() -> None:
    module = Activation("beta2 * x + max(beta1, x) * beta2", 2)
    assert str(module.expression) == "beta1 * x + max(beta2, x) * beta1"
    module.load_state_dict({"beta1": torch.tensor([2.0, 3.0]), "beta2": torch.tensor([0.5, -0.5])})
    torch_equal(module(torch.tensor([[1.0, -1.0]])), torch.tensor([[2 + 2.0, -3 - 1.5]]))


@pytest.mark.parametrize("channels", [0, -1])
def test_no_channels(channels: int) -> None:
    with pytest.raises(SpaceError, match=f"channels must be a whole number from 1 to 1000000, not {channels}"):
        Activation("x", channels)


def test_text_and_tree_alike() -> None:
    assert Activation(SWISH).expression == Activation(parse(SWISH)).expression
    with pytest.raises(ParseError):
        Activation("x +")


def test_parameter_groups_exempt_the_parameters_of_activations_and_no_other() -> None:
    """Row M8: every parameter is in one group, once, even if a module is used twice."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Activation(SWISH, 4), nn.Sequential(nn.BatchNorm2d(4), Activation("x^2")))
    model.append(Activation("beta + beta * x", 4))
    model.append(model[1])
    decayed, own = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], own["weight_decay"]) == (0.1, 0.0)
    assert own["params"] == [*model[1].betas, *model[3].betas]
    assert sorted([*decayed["params"], *own["params"]], key=id) == sorted(model.parameters(), key=id)
    assert len(parameter_groups(nn.Linear(2, 2), 0.1)) == len(parameter_groups(Activation(SWISH), 0.1)) == 1
    assert parameter_groups(nn.ReLU(), 0.1) == []


def test_weight_decay_changes_no_parameter_of_an_activation() -> None:
    """Row M8: beta keeps its value while weight decay alone changes the weights."""
    model = nn.Sequential(nn.Linear(3, 4), Activation(SWISH, 4))
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.1), lr=0.1)
    before = model[0].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch_equal(model[1].beta.detach(), torch.ones(4))
    torch.testing.assert_close(model[0].weight.detach(), 0.99 * before)


# Shapes and types


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("text", [SWISH, "max(x, 0)", "x", "2^-x + 0.5", "exp(-beta * (x - beta)^2)", *CONSTANT])
def test_dtype_and_shape_are_kept(text: str, dtype: torch.dtype) -> None:
    for shape in [(2, 3), (2, 3, 4, 4), (2, 3, 5), (0, 3, 4, 4), (1, 3, 1, 1)]:
        x = torch.randn(shape, dtype=dtype)
        y = Activation(text, 3)(x)
        assert y.dtype == dtype and y.shape == x.shape and y.device == x.device
        assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize("text", [SWISH, "max(x, 0)", "x", "-x", "beta - x", "max(beta, x) / (cosh(x) + eps)"])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_memory_format_is_kept(text: str, memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=memory_format)
    y = Activation(text, 3)(x)
    assert y.is_contiguous(memory_format=memory_format) and y.stride() == x.stride()


@pytest.mark.parametrize("text", CONSTANT)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_fills_the_shape(text: str, channels: int) -> None:
    module = Activation(text, channels).double()
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    value = {"0": 0, "eps + 1": 1 + 1e-6, "beta * 2": 2, "-1": -1, "max(beta, 3)": 3, "beta1 + beta2": 2}.get(text, 1)
    torch_equal(module(x), torch.full_like(x, value))
    if module.betas and text != "max(beta, 3)":
        module(x).sum().backward()
        slopes = [beta.grad for beta in module.betas if beta.grad is not None]
        assert len(slopes) == len(module.betas)
        assert all(slope.sum() == x.numel() * (2 if text == "beta * 2" else 1) for slope in slopes)


def test_a_constant_in_each_channel() -> None:
    module = Activation("beta", 3)
    module.betas[0].data = torch.tensor([1.0, 2.0, 3.0])
    for shape in [(2, 3), (2, 3, 5), (3, 3, 3, 3), (0, 3, 2, 2), (1, 3, 1, 1)]:
        y = module(torch.randn(shape))
        assert y.shape == shape
        assert all(bool((y[:, channel] == channel + 1).all()) for channel in range(3))


def test_a_constant_lets_a_network_train() -> None:
    model = nn.Sequential(nn.Linear(3, 4), Activation("beta", 4), nn.Linear(4, 2))
    model(torch.randn(5, 3)).sum().backward()
    assert model[1].beta.grad is not None and bool((model[1].beta.grad != 0).any())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("form", ["{}", "x + {}", "x - {}", "{} * x", "{} / x", "x / {}", "{}^x", "x^{}", "beta * {}"])
def test_constants_that_the_type_cannot_hold(form: str, dtype: torch.dtype) -> None:
    """The result is infinite or NaN, which marks the candidate as infeasible. An exception would look like a broken
    machine."""
    x = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    for constant in ("1e300", "1e39", "1e5", "exp(9e9)", "-1e300", "sqrt(-1)", "1e-300", "1e-39"):
        assert Activation(form.format(f"({constant})"), 3)(x).shape == x.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_greater_of_x_and_a_constant_that_the_type_cannot_hold(dtype: torch.dtype) -> None:
    x = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    for constant in ("1e300", "1e39", "1e5"):
        wanted = torch.tensor(float(constant), dtype=torch.float64).to(dtype).expand(2, 3)
        for text in (f"max(x, {constant})", f"max({constant}, x)", f"-min(x, -{constant})", f"max(beta, {constant})"):
            torch_equal(Activation(text)(x).detach(), wanted)
        torch_equal(Activation(f"min(x, {constant})")(x), x)


@pytest.mark.parametrize("constant", ["sqrt(-1)", "0 / 0", "log(-2)", "exp(999) - exp(999)"])
@pytest.mark.parametrize("form", ["{}", "x + {}", "0 * {}", "max(x, {})", "min(x, {})", "max({}, beta)", "(x + 1)^{}"])
def test_a_constant_that_is_not_a_number_spoils_everything(form: str, constant: str) -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        value = Activation(form.format(f"({constant})"), 3)(torch.ones(2, 3, dtype=dtype))
        assert bool(value.isnan().all()), value


# Gradients and evaluation


def of_betas(module: Activation) -> Callable[..., Tensor]:
    """Return the module as a function of its input and its parameters."""

    def apply(x: Tensor, *betas: Tensor) -> Tensor:
        names = (name for name, _ in module.named_parameters())
        found: Tensor = torch.func.functional_call(module, dict(zip(names, betas, strict=True)), (x,))
        return found

    return apply


@pytest.mark.parametrize(
    "text",
    [
        SWISH,
        "x^3 - x",
        "beta * x + beta",
        "beta1 * x + (1 - beta1) * tanh(x)",
        "exp(-beta * (x - beta)^2)",
        "exp(-beta * abs(x - cos(x)))",
        "x * asinh(x)^2",
        "sinc(x) + x",
        "atan(x)^2 - x",
        "log(abs(x) + eps) * erf(x)",
        "softplus(beta * x) / (cosh(x) + eps)",
        "max(x, sigmoid(x)) - min(x, beta)",
        "sqrt(x^2 + 1) * sinh(x)",
        "expm1(min(x, 0)) + 2^-x",
        "(x^2 + 1)^beta",
    ],
)
def test_gradients(text: str) -> None:
    """Torch's check by finite differences, for x and every parameter, with two channels."""
    module = Activation(text, 2).double()
    torch.manual_seed(0)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    betas = [1 + torch.rand(beta.shape, dtype=torch.float64) for beta in module.betas]
    assert torch.autograd.gradcheck(of_betas(module), (x, *(values.requires_grad_() for values in betas)))


def test_every_subtree_is_computed_once_and_constants_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., object]:
        apply = OPERATIONS[name]

        def counted(*args: object) -> object:
            calls[name] += 1
            return apply(*args)

        return counted

    unit = "sin(beta1 * x)"
    text = f"({unit} + exp(2) * {unit}) / max({unit} + exp(2) * {unit}, -{unit})"
    module = Activation(text, native=False)
    wanted = module(torch.ones(1, 1))
    for name in ("sin", "+", "*", "/", "max", "neg", "exp"):
        monkeypatch.setitem(OPERATIONS, name, counting(name))
    torch_equal(module(torch.ones(1, 1)), wanted)
    assert calls == {"sin": 1, "*": 2, "+": 1, "max": 1, "neg": 1, "/": 1}
    assert [name for name, _ in Activation(text).program.steps] == ["*", "sin", "add_scaled", "neg", "max", "/"]


def drawn(count: int) -> list[str]:
    """Return random expressions of two units that are smooth except at points that normal random numbers do not hit."""
    grammar, draw = Grammar(units=2), random.Random(5)
    found = (str(grammar.decode(grammar.unrank(draw.randrange(grammar.size)))) for _ in range(count))
    return [text for text in found if not re.search("sqrt|log|sinh|cosh|/", text)]


@pytest.mark.parametrize("text", [*(row.expression for row in KNOWN.values()), *drawn(40)])
def test_gradients_of_known_and_of_random_functions(text: str) -> None:
    """Kernels are included. Points are 0.35 to 2 on both sides: at kinks and beyond 1e6, differences of values are no
    approximation of slopes."""
    torch.manual_seed(1)
    x = ((0.35 + 1.6 * torch.rand(3, 2, dtype=torch.float64)) * torch.tensor([1, -1])).requires_grad_()
    module = Activation(text, 2).double()
    betas = [1 + torch.rand(beta.shape, dtype=torch.float64) for beta in module.betas]
    apply = of_betas(module)
    if bool((apply(x, *betas).abs() < 1e6).all()) and apply(x, *betas).requires_grad:
        assert torch.autograd.gradcheck(apply, (x, *(values.requires_grad_() for values in betas)))
    else:
        assert text in {"sign(x)", "max(sign(x), 0)"} or apply(x, *betas).abs().max() > 1e6 or "x" not in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("text", [row.expression for row in KNOWN.values()])
def test_known_functions_keep_type_shape_and_memory_format(text: str, dtype: torch.dtype) -> None:
    for shape in [(2, 3, 4, 5), (0, 3, 4, 5), (2, 3)]:
        for memory_format in [torch.contiguous_format, *[torch.channels_last] * (len(shape) == 4)]:
            x = torch.randn(shape, dtype=dtype).to(memory_format=memory_format).requires_grad_()
            y = Activation(text, 3)(x)
            assert (y.dtype, y.shape) == (x.dtype, x.shape)
            assert y.is_contiguous(memory_format=memory_format) or not x.numel()  # torch's own: empty, contiguous
            y.sum().backward()
            assert x.grad is None or (x.grad.dtype, x.grad.shape) == (x.dtype, x.shape)


@pytest.mark.parametrize("text", ["max(x, 0)", SWISH, "x", "x^2"])
def test_inplace_is_accepted_and_changes_nothing(text: str) -> None:
    x = torch.randn(2, 3, requires_grad=True)
    before = x.detach().clone()
    module = Activation(text, 3, inplace=True)
    y = module(x)
    y.sum().backward()
    torch_equal(x.detach(), before)
    torch_equal(y, Activation(text, 3)(x))


# Transformations of torch

MANY = ["max(x, 0)", "x * sigmoid(x)", SWISH, KNOWN["prelu"].expression, KNOWN["elu"].expression, "beta + x^2", "beta"]
MANY += ["min(max(x, -1), 1)", "cos(x) + sin(x) * x", "sqrt(max(x, 0))", "2", "max(x, tanh(x)) / (1 + x^2)"]


@pytest.mark.parametrize("text", MANY)
def test_vmap_is_a_loop(text: str) -> None:
    module = Activation(text, 3)
    xs = torch.randn(4, 2, 3, 5)
    torch.testing.assert_close(torch.func.vmap(module)(xs), torch.stack([module(x) for x in xs]))

    def total(x: Tensor) -> Tensor:
        found: Tensor = module(x).sum()
        return found

    slopes = torch.func.vmap(torch.func.grad(total))(xs)
    torch.testing.assert_close(slopes, torch.stack([torch.func.grad(total)(x) for x in xs]))
    if "prelu" not in [name for name, _ in module.program.steps]:  # torch's own fails there: native=False
        assert torch.func.vmap(torch.func.jacrev(module))(xs[:, :1]).shape == (4, 1, 3, 5, 1, 3, 5)


def test_vmap_over_parameters_is_an_ensemble() -> None:
    module, x = Activation("beta1 * x * sigmoid(beta1 * x)", 3), torch.randn(2, 3, 5)
    ensemble = torch.rand(4, 3)

    def apply(beta: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(module, {"beta": beta}, (x,))
        return found

    torch.testing.assert_close(torch.func.vmap(apply)(ensemble), torch.stack([apply(beta) for beta in ensemble]))
    slopes = torch.func.vmap(torch.func.grad(lambda beta: apply(beta).sum()))(ensemble)
    assert slopes.shape == ensemble.shape and bool((slopes != 0).any(dim=1).all())


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # torch's own
@pytest.mark.parametrize("text", MANY)
def test_export_keeps_the_function(text: str) -> None:
    module, x = Activation(text, 3), torch.randn(2, 3, 4, 4)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    other = torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(program.module()(other), module(other))
    torch.testing.assert_close(program.run_decompositions().module()(other), module(other))


def test_onnx_export_of_torch() -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs onnxscript; onnx_bytes does not")
    module, x = Activation(SWISH, 3), torch.randn(2, 3, 4, 4)
    program = torch.onnx.export(module, (x,), dynamo=True)
    assert program is not None
    torch.testing.assert_close(program(x)[0], module(x))


# Copies


def trained() -> Activation:
    module = Activation("beta * x * sigmoid(beta * x) + 0.5", 3)
    with torch.no_grad():
        next(module.parameters()).uniform_(-2, 2)
    return module


def saved(module: Activation) -> Activation:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = Activation(module.expression, module.channels)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


def pickled(module: Activation) -> Activation:
    found: Activation = pickle.loads(pickle.dumps(module))
    return found


@pytest.mark.parametrize("copied", [copy.deepcopy, saved, pickled])
def test_a_copy_is_equal_and_apart(copied: Callable[[Activation], Activation]) -> None:
    module = trained()
    other, x = copied(module), torch.randn(4, 3, 2, 2)
    assert other.expression == module.expression and other.channels == 3
    torch_equal(other(x), module(x))
    before = module(x).detach()
    next(other.parameters()).data.zero_()
    torch_equal(module(x), before)


def test_state_and_looks() -> None:
    assert list(trained().state_dict()) == ["beta1", "beta2"]
    assert list(Activation("x").state_dict()) == []
    assert repr(Activation(SWISH, 16)) == "Activation('x * sigmoid(beta * x)', channels=16)"
    with pytest.raises(RuntimeError, match="size mismatch"):
        Activation(SWISH, 4).load_state_dict(Activation(SWISH, 3).state_dict())


# Known functions

TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "swish": F.silu,
    "gelu": F.gelu,
    "swish1": F.silu,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.prelu(x, torch.full((3,), 0.25, dtype=x.dtype)),
    "selu": F.selu,
    "softplus": lambda x: F.softplus(x, threshold=40),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x * 1,
}


def test_every_baseline_is_compared_here() -> None:
    assert set(BASELINES) == set(TORCH)
    assert all(name == row.name and row.reference for name, row in BASELINES.items())


@pytest.mark.parametrize("name", TORCH)
def test_baseline_is_the_function_of_torch(name: str) -> None:
    points = torch.cat([torch.linspace(-12, 12, 97), torch.tensor([-1e3, 1e3])]).double()
    one = points.repeat(3, 1).T.clone().requires_grad_()
    other = one.detach().clone().requires_grad_()
    module = Activation(baseline(name).expression, 3).double()
    value, wanted = module(one), TORCH[name](other)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)
    value.sum().backward()
    wanted.sum().backward()
    assert one.grad is not None and other.grad is not None
    away = points != 0  # at their kinks some of torch's own take the slope from the left
    torch.testing.assert_close(one.grad[away], other.grad[away], rtol=1e-12, atol=1e-12)
    assert bool(torch.isfinite(one.grad).all())


def test_parameters_of_prelu_and_swish_are_trained() -> None:
    assert {name for name, row in BASELINES.items() if parse(row.expression).betas} == {"prelu", "swish"}


def test_baselines_are_written_as_the_language_writes_and_have_keys_of_their_own() -> None:
    assert all(str(parse(row.expression)) == row.expression for row in BASELINES.values())
    assert len({key(parse(row.expression)) for row in BASELINES.values()}) == len(BASELINES)


def test_names_of_baselines() -> None:
    assert baseline("silu") is baseline("swish1") is BASELINES["swish1"]
    assert set(ALIASES.values()) <= set(KNOWN) and not set(ALIASES) & set(KNOWN)
    with pytest.raises(SpaceError, match="unknown baseline 'rellu'; did you mean 'relu'"):
        baseline("rellu")


OTHERS = {
    "relu6": F.relu6,
    "mish": F.mish,
    "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish,
    "softsign": F.softsign,
    "celu": F.celu,
    "squareplus": lambda x: (x + torch.sqrt(x**2 + 4)) / 2,
    "radial_basis": lambda x: torch.exp(-(x**2)),
    "sign": torch.sign,
    "heaviside": lambda x: torch.heaviside(x, torch.zeros_like(x)),
    # As their papers write them, with their start values.
    "squared_relu": lambda x: torch.relu(x).square(),
    "smelu": lambda x: torch.where(x <= -1, 0, torch.where(x < 1, (x + 1) ** 2 / 4, x)),
    "snake": lambda x: x + torch.sin(x) ** 2,
    "sine": torch.sin,
    "golu": lambda x: x * torch.exp(-torch.exp(-x)),
    "telu": lambda x: x * torch.tanh(torch.exp(x)),
    "xielu": lambda x: torch.where(x > 0, 0.8 * x * x, 0.8 * (torch.expm1(x) - x)) + 0.5 * x,
    "dyt": lambda x: torch.tanh(0.5 * x),
    "derf": lambda x: torch.erf(0.5 * x),
}


def test_the_other_known_functions_are_those_of_torch_and_of_their_papers() -> None:
    assert set(KNOWN) == set(BASELINES) | set(OTHERS)
    x = torch.linspace(-9, 9, 361, dtype=torch.float64)
    for name, function in OTHERS.items():
        torch.testing.assert_close(Activation(baseline(name).expression).double()(x), function(x), msg=name)


@pytest.mark.parametrize("name", MODERN)
def test_modern_functions_keep_finite_slopes_far_out_and_their_parameters_belong_together(name: str) -> None:
    """As their papers write them, GoLU and TeLU have NaN slopes where exp overflows."""
    module = Activation(baseline(name).expression, 2)
    x = torch.tensor([-1e4, -120.0, -88.0, 0.0, 88.0, 120.0, 1e4]).repeat(2, 1).T.clone().requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
    assert all(beta.grad is not None and bool(torch.isfinite(beta.grad).all()) for beta in module.betas)
    assert len(module.betas) == {"swish": 1, "snake": 1, "xielu": 2}.get(name, 0)


def test_a_maxout_is_the_greatest_of_its_groups() -> None:
    module = Maxout(3)
    x = torch.randn(4, 12, 5, 5)
    torch.testing.assert_close(module(x), x.reshape(4, 4, 3, 5, 5).amax(2))
    assert module(torch.randn(2, 6)).shape == (2, 2)
    with pytest.raises(SpaceError, match=r"\(4, 12, 5, 5\).*multiple of 5"):
        Maxout(5)(x)
    with pytest.raises(SpaceError, match="at least 2"):
        Maxout(1)


@pytest.mark.parametrize("dim", [-1, 0, 2, -3])
def test_a_maxout_takes_channels_at_any_dimension(dim: int) -> None:
    """Row M7."""
    x = torch.randn(6, 12, 18, 6)
    wanted = Maxout(3)(x.movedim(dim, 1)).movedim(1, dim)
    torch_equal(Maxout(3, dim=dim)(x), wanted)
    with pytest.raises(SpaceError, match=f"multiple of 5 as its dimension {dim}"):
        Maxout(5, dim=dim)(x)


# What is asked for wrongly, and what keeps its layout


@pytest.mark.parametrize("channels", [1.5, True, "3", 1_000_001, None])
def test_channels_are_a_whole_number(channels: Any) -> None:
    with pytest.raises(SpaceError, match="a whole number from 1 to 1000000"):
        Activation("beta * x", channels)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 3, 5)])
def test_an_input_of_other_channels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match=r"beta \* x has 5 channels, its input .*dimension 1 must be the channels"):
        Activation("beta * x", 5)(torch.zeros(shape))


@pytest.mark.parametrize("expression", [5, None, b"x", ["x"]])
def test_what_is_no_text_is_no_expression(expression: Any) -> None:
    for use in (parse, Activation, profile, preflight, lambda tree: code(tree, "torch")):
        with pytest.raises(ParseError, match="an expression is a text, not of type"):
            use(expression)


def test_maxout_checks_its_arguments() -> None:
    with pytest.raises(SpaceError, match=r"at least 2 pieces, not 2\.5"):
        Maxout(2.5)  # type: ignore[arg-type]
    with pytest.raises(SpaceError, match=r"the input is \(4,\); maxout needs a multiple of 2"):
        Maxout(2)(torch.zeros(4))


@pytest.mark.parametrize("name", [name for name, row in FUNCTIONS.items() if row.arity == 1])
def test_every_word_keeps_the_memory_format(name: str) -> None:
    x = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    text = "-abs(x)" if name == "neg" else f"{name}(abs(x))"
    assert Activation(text, 3)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("text", ["3", "beta", "beta1 + beta2", "eps"])
def test_a_constant_has_an_element_for_each_of_its_input(text: str) -> None:
    x = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    y = Activation(text, 3)(x)
    assert y.shape == x.shape and y.is_contiguous(memory_format=torch.channels_last)
    y.add_(1)  # as a residual sum in place would


def test_parameters_can_be_set_back_also_after_a_deferred_start() -> None:
    with torch.device("meta"):
        module = Activation("x * sigmoid(beta * x) + max(x, -1)", 3)
    module = module.to_empty(device="cpu")
    module.reset_parameters()
    x = torch.randn(2, 3, 4)
    assert torch.equal(module(x), Activation("x * sigmoid(beta * x) + max(x, -1)", 3)(x))
    Activation("x").reset_parameters()


def test_the_input_is_called_as_torch_calls_it() -> None:
    x = torch.randn(2, 3)
    assert torch.equal(Activation("max(x, 0)")(input=x), nn.ReLU()(input=x))


def test_autocast_leaves_the_type_of_prelu() -> None:
    """Seen to fail: autocast runs F.prelu in bfloat16."""
    module, x = Activation("max(x, 0) + 0.25 * beta * min(x, 0)", 3), torch.randn(2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x)
    assert found.dtype == torch.float32 and torch.equal(found, F.leaky_relu(x, 0.25))
