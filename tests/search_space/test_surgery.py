"""Networks with replaced activations: what they compute, which parameters they have, and what the report says."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space import Activation, ParseError, SpaceError
from search_space.elementwise import ACTIVATIONS
from search_space.surgery import Surgery, replace_activations

torch.set_num_threads(1)

SWISH = "x * sigmoid(beta * x)"
RELU = "max(x, 0)"
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
WORDS = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A residual block as in torchvision: one ReLU, called twice, in place."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(outer, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        found: Tensor = self.relu(self.bn2(self.conv2(out)) + x)
        return found


class Functional(nn.Module):
    """Activations that are function calls: a function, a method, one in place, and one inside a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.inner = nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4)
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x)) + self.first(x).relu_()
        x = torch.relu(self.inner(self.act(x)))
        found: Tensor = self.gate(x) + F.softmax(x, dim=1) + x.clamp(max=9)
        return found


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x) - torch.sigmoid(-x)


class Names(nn.Module):
    """One activation with two names, used at different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Linear(6, 4), nn.Linear(4, 9)
        self.act1 = self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.act2(self.wide(self.act1(self.narrow(x))))
        return found


def cnn(inner: int = 5) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), Block(inner, 5), nn.Flatten(), nn.Dropout(), nn.Linear(180, 2)
    )


def mlp() -> Any:
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Sequential(nn.Sequential(nn.Linear(4, 9), nn.Tanh())))


def transformer(activation: Any = "relu", **options: Any) -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True, activation=activation, **options)


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "cnn": (cnn, IMAGES),
    "bottleneck": (lambda: cnn(7), IMAGES),
    "functional": (Functional, ROWS),
    "names": (Names, ROWS),
    "transformer": (lambda: transformer(nn.ReLU()), WORDS),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(5, 3), nn.LazyBatchNorm2d(), nn.ReLU(inplace=True)), IMAGES),
}
both = pytest.mark.parametrize(("build", "example"), MODELS.values(), ids=list(MODELS))


def built(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return build()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if not nn.parameter.is_lazy(value)}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)


# What is computed


@both
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("expression", [RELU, "beta * max(x, 0)"])
def test_relu_for_relu_changes_no_bit(
    build: Callable[[], nn.Module], example: Tensor, training: bool, expression: str
) -> None:
    """The cases include layers that compute relu themselves in eval mode, and expressions with parameters at 1."""
    model = built(build)
    model(example.clone())  # running statistics that are not those of the first day, and lazy modules that are ready
    other = copy.deepcopy(model)
    replace_activations(other, expression, example, match=nn.ReLU)
    assert not any(isinstance(module, nn.ReLU) for module in other.modules())
    outputs = []
    for network in (model.train(training), other.train(training)):
        torch.manual_seed(2)
        outputs.append(network(example.clone()))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU()])
@pytest.mark.parametrize("padded", [False, True])
def test_a_transformer_in_eval_mode_uses_the_new_function(activation: nn.Module, padded: bool) -> None:
    """Without a change, its fast path would silently compute the old function."""
    model = nn.TransformerEncoder(built(lambda: transformer(activation)), 2)  # type: ignore[arg-type]
    mask = torch.arange(7) >= torch.tensor([[7], [4]]) if padded else None
    report = replace_activations(model, "0 * x")
    assert [name for name, _, _ in report.replaced] == ["layers.0.activation", "layers.1.activation"]
    with torch.no_grad():
        before = model.eval()(WORDS, src_key_padding_mask=mask)
        for layer in model.layers:
            nn.init.constant_(layer.linear1.bias, 3)  # what goes into the activation counts no more
        after = model(WORDS, src_key_padding_mask=mask)
    torch.testing.assert_close(before, after, rtol=0, atol=0)


@pytest.mark.parametrize("cls", [cls for cls in ACTIVATIONS if cls is not Activation], ids=lambda cls: cls.__name__)
def test_every_activation_of_torch_is_found_and_known_as_a_call(cls: type[nn.Module]) -> None:
    class Calls(nn.Module):
        """The forward of that class as a call, from a module that is no activation: it has a layer."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = cls.forward(held[0], x)
            return found

    held = [cls()]
    model = nn.Sequential(cls(), Calls())
    report = replace_activations(model, SWISH, ROWS)
    assert report.replaced == (("0", cls.__name__, 6),) and isinstance(model[0], Activation)
    assert [(name, count) for name, _, count in report.functional] == [("1", 1)]


@pytest.mark.parametrize("module", [nn.Softmax(1), nn.GLU(), nn.LogSoftmax(1), nn.LayerNorm(6), nn.Dropout()])
def test_what_is_no_function_of_one_number_stays(module: nn.Module) -> None:
    model = nn.Sequential(nn.ReLU(), module)
    replace_activations(model, SWISH, ROWS)
    assert model[1] is module


# Parameters


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("cnn", {"2": 5, "3.relu": 5}),
        ("bottleneck", {"2": 5, "3.relu": 1}),
        ("functional", {"act": 4, "gate": 4}),
        ("names", {"act1": 4, "act2": 9}),
        ("transformer", {"activation": 12}),
        ("lazy", {"2": 5}),
    ],
)
def test_channels(name: str, channels: dict[str, int]) -> None:
    build, example = MODELS[name]
    model = built(build)
    report = replace_activations(model, "beta * x + beta", example)
    assert [(place, count) for place, _, count in report.replaced] == list(channels.items())
    for place, count in channels.items():
        module = model.get_submodule(place)
        assert isinstance(module, Activation) and [beta.shape for beta in module.betas] == [(count,), (count,)]
    model(example.clone())
    shared = replace_activations(model, SWISH, example, per_channel=False)  # our own are replaced too
    assert shared.replaced == tuple((place, "Activation", 1) for place in channels)


@both
def test_trains_and_state_is_loaded(build: Callable[[], nn.Module], example: Tensor) -> None:
    model, other = built(build), built(build)
    for network in (model, other):
        network(example.clone())
        replace_activations(network, SWISH, example)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = state(model)
    outputs = model(example.clone())
    (outputs * torch.randn_like(outputs)).sum().backward()
    optimizer.step()
    betas = {name: p for name, p in model.named_parameters() if name.endswith(".beta")}
    assert betas and all(p.grad is not None and bool((p.grad != 0).any()) for p in betas.values())
    assert all(bool((p != before[name]).any()) for name, p in betas.items())
    other.load_state_dict(model.state_dict())
    assert_same(state(model), state(other))
    torch.testing.assert_close(model.eval()(example.clone()), other.eval()(example.clone()), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_type_device_and_mode_are_those_of_the_neighbours(dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    model[2].eval()
    replace_activations(model, SWISH, ROWS.to(dtype), match="*")
    assert model[1].beta.dtype == model[2][0][1].beta.dtype == dtype
    assert model[1].training and not model[2][0][1].training
    assert model(ROWS.to(dtype)).dtype == dtype
    meta = mlp().to("meta")
    replace_activations(meta, SWISH, ROWS.to("meta"), match="*")
    assert meta[1].beta.device.type == "meta" and meta[1].beta.shape == (4,)


def test_channels_of_any_number_of_dimensions() -> None:
    """Inputs (batch, features) need no evidence. For inputs with more dimensions, no layer here shows the channels."""
    for shape, channels in [((2, 6), 6), ((2, 6, 3), 1), ((2, 6, 3, 3), 1), ((2,), 1), ((), 1)]:
        report = replace_activations(nn.Sequential(nn.ReLU()), SWISH, torch.randn(shape))
        assert report.replaced == (("0", "ReLU", channels),)


class Calls(nn.Module):
    """What `forward` makes of the input and the modules, which are registered as `0`, `1`, and so on."""

    def __init__(self, forward: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for i, module in enumerate(modules):
            self.add_module(str(i), module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.children())


class Scale(nn.Module):
    """Multiplies the input by one trained number, which has as many dimensions as the input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


WORD_MODELS: dict[str, tuple[nn.Module, int, int]] = {  # with the channels, and the dimension where they are
    "linear": (nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)), 12, -1),
    "before a linear": (nn.Sequential(nn.GELU(), nn.Linear(8, 12)), 8, -1),
    "layer norm": (nn.Sequential(nn.LayerNorm(8), nn.GELU()), 8, -1),
    "root mean square norm": (nn.Sequential(nn.RMSNorm(8), nn.GELU()), 8, -1),
    "sum": (Calls(lambda x, a, b, act: act(a(x) + b(x)), nn.Linear(8, 4), nn.Linear(8, 4), nn.GELU()), 4, -1),
    "lstm": (Calls(lambda x, lstm, act: act(lstm(x)[0]), nn.LSTM(8, 4, batch_first=True), nn.GELU()), 4, -1),
    "gru": (Calls(lambda x, gru, act: act(gru(x)[0]), nn.GRU(8, 3, bidirectional=True), nn.GELU()), 6, -1),
    "embedding": (
        Calls(lambda x, words, act: act(words(x.long().abs()[..., 0])), nn.Embedding(99, 7), nn.GELU()),
        *(7, -1),
    ),
    "attention": (Calls(lambda x, mha, act: act(mha(x, x, x)[0]), nn.MultiheadAttention(8, 2), nn.GELU()), 8, -1),
    "moved": (Calls(lambda x, conv, act: act(conv(x.mT).mT), nn.Conv1d(8, 7, 1), nn.GELU()), 7, -1),
    "moved in place": (
        Calls(lambda x, conv, act: act(conv(x.mT).transpose_(1, 2)), nn.Conv1d(8, 7, 1), nn.GELU()),
        *(7, -1),
    ),
    "permuted": (Calls(lambda x, conv, act: act(conv(x.mT).permute(0, 2, 1)), nn.Conv1d(8, 7, 1), nn.GELU()), 7, -1),
    "a product": (Calls(lambda x, layer, act: act(x @ layer.weight), nn.Linear(9, 8), nn.GELU()), 9, -1),
    "a sum of products": (
        Calls(lambda x, layer, act: act(torch.einsum("btc,cd->btd", x, layer.weight)), nn.Linear(9, 8), nn.GELU()),
        *(9, -1),
    ),
    "rows and back": (  # as transformers write their linear layers
        Calls(lambda x, layer, act: act(layer(x.view(-1, 8)).view(2, -1, 5)), nn.Linear(8, 5), nn.GELU()),
        *(5, -1),
    ),
    "a residual": (Calls(lambda x, a, b, act: act(x + b(a(x))), nn.Linear(8, 4), nn.Linear(4, 8), nn.GELU()), 8, -1),
    "scaled": (
        Calls(lambda x, scale, act, conv: scale(conv(x.mT)).mT + act(scale(x)), Scale(), nn.GELU(), nn.Conv1d(8, 8, 1)),
        *(8, -1),
    ),
    "a linear of positions": (Calls(lambda x, layer, act: act(layer(x.mT)), nn.Linear(7, 3), nn.GELU()), 3, -1),
    "positions moved back": (Calls(lambda x, layer, act: act(layer(x.mT).mT), nn.Linear(7, 3), nn.GELU()), 3, 1),
}
NO_CHANNELS: dict[str, nn.Module] = {
    "nothing": nn.Sequential(nn.GELU()),
    "flat": Calls(lambda x, conv, act: act(conv(x.mT).reshape(2, -1, 4)), nn.Conv1d(8, 4, 1), nn.GELU()),
    "indexed": Calls(lambda x, conv, act: act(conv(x.mT)[:, 0, :, None]), nn.Conv1d(8, 4, 1), nn.GELU()),
    "unbatched": Calls(lambda x, conv, act: act(conv(x)), nn.Conv2d(2, 3, 1), nn.GELU()),
    "heads": Calls(lambda x, layer, act: act(layer(x).view(2, 7, 2, 4).transpose(1, 2)), nn.Linear(8, 8), nn.GELU()),
}


@pytest.mark.parametrize("name", WORD_MODELS)
def test_channels_are_found_in_the_dimension_where_layers_have_them(name: str) -> None:
    """Row M7 for surgery: each channel has its own parameter, also in transformers and after recurrent layers."""
    model, channels, dim = WORD_MODELS[name]
    model = copy.deepcopy(model)
    report = replace_activations(model, SWISH, WORDS)
    found = [module for module in model.modules() if isinstance(module, Activation)]
    assert [(module.channels, module.dim) for module in found] == [(channels, dim)] and report.notes == ()
    assert report.replaced[0][2] == channels and len(report.last) == (dim == -1)
    assert ("in the last dimension" in str(report)) == (dim == -1)
    if name not in ("a linear of positions", "positions moved back", "rows and back"):
        model(WORDS[:, :6])  # a shorter sequence
    model(WORDS)


@pytest.mark.parametrize("name", NO_CHANNELS)
def test_dimension_1_is_no_channels_without_evidence(name: str) -> None:
    """Dimension 1 is a sequence, whose length may change. `unbatched` is an image (C, H, W), and `heads` has its
    channels split into heads."""
    model = copy.deepcopy(NO_CHANNELS[name])
    report = replace_activations(model, SWISH, WORDS)
    note = "nothing shows which dimension of the input is channels, so all share each parameter"
    assert [place[1:] for place in report.replaced] == [("GELU", 1)]
    assert report.notes == (f"{report.replaced[0][0]}: {note}",)


def conv(inner: int = 3, outer: int = 5) -> nn.Module:
    return nn.Conv2d(inner, outer, 3, padding=1)


CHANNELS: dict[str, tuple[nn.Module, list[int]]] = {
    "convolution": (nn.Sequential(conv(), nn.GELU(), conv(5, 7), nn.Tanh(), conv(7, 2)), [5, 7]),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.GELU()), [5]),
    "before a convolution": (nn.Sequential(nn.GELU(), conv()), [3]),
    "pre-activation": (
        Calls(lambda x, norm, act, conv: x + conv(act(norm(x))), nn.BatchNorm2d(3), nn.GELU(), conv(3, 3)),
        [3],
    ),
    "group norm": (nn.Sequential(nn.GroupNorm(3, 3), nn.GELU(), nn.MaxPool2d(2), nn.SiLU()), [3, 3]),
    "instance norm": (nn.Sequential(nn.InstanceNorm2d(3), nn.GELU()), [3]),
    "shortcut": (
        Calls(
            lambda x, a, b, act: act(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) + b(a(x))),
            conv(),
            nn.AvgPool2d(2),
            nn.GELU(),
        ),
        [5],
    ),
    "concatenation": (
        Calls(lambda x, a, b, act: act(torch.cat([x, a(x), b(x)], 1)), conv(), conv(3, 2), nn.GELU()),
        [10],
    ),
    "split": (Calls(lambda x, a, act: act(a(x).chunk(2, 1)[0]), conv(3, 6), nn.GELU()), [3]),
    "gate": (
        Calls(
            lambda x, norm, a, act: act(a(x.mean((2, 3))).view(-1, 3, 1, 1)) * norm(x),
            nn.BatchNorm2d(3),
            nn.Linear(3, 3),
            nn.GELU(),
        ),
        [3],
    ),
    "generator": (nn.Sequential(nn.Flatten(), nn.Linear(192, 80), nn.Unflatten(1, (5, 4, 4)), nn.GELU(), conv(5)), [5]),
    "activations": (
        nn.Sequential(conv(), nn.Softsign(), nn.PReLU(), nn.Tanhshrink(), nn.Dropout(), nn.GELU()),
        [5] * 4,
    ),
    "arithmetic": (
        Calls(lambda x, a, act: act((1 - a(x)) * 2 / 3 + a(x).exp().clamp(max=9).contiguous()), conv(), nn.GELU()),
        [5],
    ),
    "in place": (Calls(lambda x, a, act: act(a(x).mul_(2).add_(1)), conv(), nn.GELU()), [5]),
    "upsampled": (nn.Sequential(conv(), nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(1), nn.GELU()), [5]),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_dimension_1_is_channels_where_a_convolution_or_norm_shows_it(name: str) -> None:
    model, channels = CHANNELS[name]
    model = copy.deepcopy(model)
    report = replace_activations(model, SWISH, IMAGES)
    assert [count for _, _, count in report.replaced] == channels and report.notes == ()
    model(IMAGES)


# Nothing else changes


class Restless(nn.Module):
    """Changes itself and its input at each run, and draws random numbers even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.count, self.act, self.norm = 0, nn.ReLU(inplace=True), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        self.count += 1
        found: Tensor = self.norm(F.dropout(self.act(x), training=True)) + torch.rand(())
        return found


@pytest.mark.parametrize("training", [False, True])
def test_the_dry_run_leaves_no_trace(training: bool) -> None:
    model = Restless().train(training)
    model(ROWS.clone())
    before, example, random = state(model), ROWS.clone(), torch.get_rng_state()
    replace_activations(model, SWISH, example)
    assert torch.equal(torch.get_rng_state(), random) and torch.equal(example, ROWS)
    after = state(model)
    assert after.pop("act.beta").shape == (6,)
    assert_same(before, after)
    assert model.count == 1 and all(module.training == training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_dry_run_is_in_eval_mode_without_gradients() -> None:
    seen = []

    class Looking(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    replace_activations(nn.Sequential(nn.BatchNorm1d(6), Looking()).train(), SWISH, ROWS[:1])
    assert seen == [(False, False)] and torch.is_grad_enabled()


@both
@pytest.mark.parametrize("wrong", [torch.randn(3), (), (IMAGES, IMAGES), (None,)], ids=["shape", "none", "two", "None"])
def test_an_example_that_does_not_go_through_changes_nothing(
    build: Callable[[], nn.Module], example: Tensor, wrong: Any
) -> None:
    model = built(build)
    before, modules, random = state(model), list(model.modules()), torch.get_rng_state()
    with pytest.raises(SpaceError, match=r"the example did not go through the model: [A-Z][A-Za-z]+Error: ") as caught:
        replace_activations(model, RELU, wrong)
    assert isinstance(caught.value.__cause__, Exception) and torch.equal(torch.get_rng_state(), random)
    assert list(model.modules()) == modules and all(module.training for module in modules)
    assert_same(before, state(model))
    model(example.clone())


def test_lazy_modules_stay_lazy() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU())
    assert replace_activations(model, SWISH, ROWS).replaced == (("1", "ReLU", 4),)
    assert isinstance(model[0], nn.LazyLinear) and model[0].has_uninitialized_params()
    model(ROWS)


# The report


def test_calls_are_reported_where_they_are_made() -> None:
    report = replace_activations(Functional(), SWISH, ROWS)
    assert report.functional == (
        ("", "torch.nn.functional.relu", 1),
        ("", "torch.Tensor.relu_", 1),
        ("", "torch.relu", 1),
    )
    assert report.notes == () and report.unreachable == report.functional
    assert str(report) == (
        "2 modules replaced by x * sigmoid(beta * x)\n"
        "  act: ReLU, 4 channels\n"
        "  gate: Gate, 4 channels\n"
        "stayed, because only a change of the code could replace a call in a forward:\n"
        "  the model itself: torch.nn.functional.relu, 1 call\n"
        "  the model itself: torch.Tensor.relu_, 1 call\n"
        "  the model itself: torch.relu, 1 call"
    )
    assert report == replace_activations(Functional(), SWISH, (ROWS,))


@pytest.mark.parametrize("nested", [False, True])
def test_calls_in_what_is_replaced_go_with_it(nested: bool) -> None:
    model = Functional()
    if nested:
        model.gate = nn.Sequential(Gate())  # type: ignore[assignment]
    report = replace_activations(model, SWISH, ROWS, match=lambda name, _: name == "gate")
    assert names(report) == ["gate"] and {name for name, _, _ in report.functional} == {""}


def test_a_transformer_layer_that_calls_a_function() -> None:
    layer = transformer("gelu")
    report = replace_activations(nn.Sequential(layer, nn.ReLU()), RELU, WORDS)
    assert report.functional == (("0", "torch.nn.functional.gelu", 1),)
    assert layer.activation_relu_or_gelu == 2  # untouched, it keeps its fast path


def test_what_is_inside_torch_s_modules_is_no_call() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.cell, self.act, self.other = nn.LSTM(8, 3), nn.GRUCell(3, 3), nn.ReLU(), nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.other(self.act(self.cell(self.lstm(x)[0][0])))
            return found

    report = replace_activations(Recurrent(), SWISH, WORDS, match=nn.ReLU)
    assert report.functional == () and report.replaced == (("act", "ReLU", 3),)


def test_without_an_example_calls_are_not_looked_for() -> None:
    for expression, per_channel in [(RELU, True), (SWISH, False)]:
        report = replace_activations(Functional(), expression, per_channel=per_channel)
        assert names(report) == ["act", "gate"] and report.functional == ()
        assert "note: without example=... calls such as F.relu(x) in a forward were not looked for" in str(report)


def test_shared_modules_are_noted() -> None:
    def notes(name: str, **options: Any) -> tuple[str, ...]:
        build, example = MODELS[name]
        return replace_activations(built(build), SWISH, example, **options).notes

    assert notes("names") == ("act1, act2 were one module and are now 2",)
    twice = ("3.relu: one module called 2 times, so the calls share its parameters",)
    assert notes("cnn") == notes("cnn", per_channel=False) == twice
    assert notes("bottleneck", per_channel=False) == twice
    assert notes("bottleneck") == (
        "3.relu: one module called with 7 and 5 channels, so all channels share each parameter",
    )


def test_a_block_with_two_names_has_one_place() -> None:
    block = mlp()
    model: Any = nn.ModuleDict({"one": block, "two": block})
    assert [name for name, _, _ in replace_activations(model, RELU).replaced] == ["one.1", "one.2.0.1"]
    assert model["two"][1] is model["one"][1]


def test_a_module_that_the_example_does_not_reach() -> None:
    model = Names()
    model.unused = nn.ReLU()
    report = replace_activations(model, SWISH, ROWS)
    assert report.replaced[-1] == ("unused", "ReLU", 1)
    assert "unused: the example does not come here, so all channels share each parameter" in report.notes


def test_a_module_kept_out_of_sight_is_reported_as_a_call() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()
            self.steps = [self.act]

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.steps[0](x)
            return found

    report = replace_activations(Hidden(), SWISH, ROWS)
    assert report.functional == (("", "torch.nn.functional.relu", 1),) and report.replaced == (("act", "ReLU", 1),)


# Which modules


def names(report: Surgery) -> list[str]:
    return [name for name, _, _ in report.replaced]


def test_match() -> None:
    assert names(replace_activations(mlp(), RELU)) == ["1", "2.0.1"]
    assert names(replace_activations(mlp(), RELU, match=nn.Tanh)) == ["2.0.1"]
    assert names(replace_activations(mlp(), RELU, match=(nn.Tanh, nn.ReLU))) == ["1", "2.0.1"]
    assert names(replace_activations(mlp(), RELU, match="2.*.1")) == ["2.0.1"]
    assert names(replace_activations(mlp(), RELU, match=lambda name, module: name == "1")) == ["1"]
    outer = mlp()
    assert names(replace_activations(outer, RELU, match=lambda name, _: name[0] == "2")) == ["2"]  # not inside it too
    assert isinstance(outer[2], Activation)


def test_a_pattern_chooses_among_activations() -> None:
    model = mlp()
    assert names(replace_activations(model, RELU, match="*")) == ["1", "2.0.1"] and isinstance(model[0], nn.Linear)
    assert names(replace_activations(model, SWISH, ROWS, match="2*")) == ["2.0.1"]  # our own too
    assert names(replace_activations(mlp(), RELU, match=nn.Linear)) == ["0", "2.0.0"]


# Errors


def test_nothing_to_replace() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.Softmax(1))
    found = r"modules found: Linear \(2\), Sequential \(1\), Softmax \(1\); say which with match=<a class>"
    with pytest.raises(SpaceError, match=f"no module is an activation of torch; {found}"):
        replace_activations(model, RELU)
    with pytest.raises(SpaceError, match=rf"no module is an activation of torch with a name like '\*'; {found}"):
        replace_activations(model, RELU, match="*")
    with pytest.raises(SpaceError, match=f"no module is matched; {found}.* also finds calls such as F.relu"):
        replace_activations(model, RELU, match=nn.Tanh)
    with pytest.raises(SpaceError, match="modules found: none"):
        replace_activations(nn.Linear(2, 2), RELU)


@pytest.mark.parametrize(
    ("model", "example", "call"),
    [
        (transformer(), WORDS, r"torch.nn.functional.relu in the model itself \(1\)"),
        (Gate(), ROWS, r"torch.sigmoid in the model itself \(2\)"),
    ],
)
def test_calls_are_named_where_nothing_can_be_replaced(model: nn.Module, example: Tensor, call: str) -> None:
    remedy = r"self.act = nn.ReLU\(\) and self.act\(x\), or activation=nn.ReLU\(\) for torch's transformer layers"
    for match in (None, "*", nn.Tanh):
        with pytest.raises(SpaceError, match=f"; calls found: {call}; a call cannot be swapped: .*{remedy}"):
            replace_activations(model, SWISH, example, match=match)
    with pytest.raises(SpaceError, match="the example did not go through"):
        replace_activations(model, SWISH, ())
    repaired = transformer(nn.ReLU())
    assert names(replace_activations(repaired, SWISH, WORDS)) == ["activation"]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: x.clamp(min=0), "torch.Tensor.clamp"),
        (lambda x: x.clamp(0.0), "torch.Tensor.clamp"),
        (lambda x: x.clone().clamp_(min=0), "torch.Tensor.clamp_"),
        (lambda x: torch.clip(x, 0), "torch.clip"),
        (lambda x: torch.clamp_min(x, 0), "torch.clamp_min"),
        (lambda x: torch.maximum(x, torch.zeros(())), "torch.maximum"),
        (lambda x: torch.maximum(x, other=torch.zeros_like(x)), "torch.maximum"),
    ],
)
def test_relu_by_another_name_is_a_call(call: Callable[[Tensor], Tensor], name: str) -> None:
    model = nn.Sequential(nn.Tanh(), Calls(lambda x, _: call(x), nn.Linear(1, 1)))
    assert replace_activations(model, SWISH, ROWS).functional == (("1", name, 1),)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.clamp(max=0),
        lambda x: x.clamp(0, 1),
        lambda x: x.clamp(0, max=1),
        lambda x: x.clamp(min=0, max=1),
        lambda x: x.clamp(min=1e-6),
        lambda x: x.clamp(None, 0),
        lambda x: x.clamp(min=torch.ones(6)),
        lambda x: torch.maximum(x, x + 1),
        lambda x: torch.max(x, 0)[0],
    ],
)
def test_other_limits_are_no_calls(call: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(nn.Tanh(), Calls(lambda x, _: call(x), nn.Linear(1, 1)))
    assert replace_activations(model, SWISH, ROWS).functional == ()


@pytest.mark.parametrize("match", [5, (nn.ReLU, 5), int, nn.ReLU(), [nn.ReLU]], ids=str)
def test_a_match_of_another_type(match: Any) -> None:
    with pytest.raises(SpaceError, match=r"match=.*: give a class of modules, a tuple of them, a predicate or a name"):
        replace_activations(mlp(), RELU, match=match)


def test_a_model_or_expression_of_another_type() -> None:
    wrong: Any
    for wrong in (5, None, nn.ReLU, [nn.ReLU()]):
        with pytest.raises(SpaceError, match=r"the model must be a torch.nn.Module, not .*; give the network itself"):
            replace_activations(wrong, RELU)
    for wrong in (5, None, torch.relu, nn.ReLU()):
        with pytest.raises(SpaceError, match="the expression must be text such as 'x "):
            replace_activations(mlp(), wrong)


@pytest.mark.parametrize("model", [nn.ReLU(), nn.PReLU(), Activation(SWISH)], ids=lambda m: type(m).__name__)
def test_the_model_is_an_activation(model: nn.Module) -> None:
    with pytest.raises(SpaceError, match=r"an activation itself.* use Activation\(expression, channels\)"):
        replace_activations(model, RELU, ROWS)


def test_channels_need_an_example() -> None:
    model = mlp()
    with pytest.raises(SpaceError, match=r"give example=.*, or per_channel=False"):
        replace_activations(model, SWISH)
    with pytest.raises(ParseError):
        replace_activations(model, "x +")
    assert isinstance(model[1], nn.ReLU)


def test_a_model_that_cannot_be_copied() -> None:
    model = mlp()
    model.generator = (step for step in range(3))
    with pytest.raises(SpaceError, match=r"cannot be copied for a dry run \(TypeError: .*give per_channel=False to do"):
        replace_activations(model, SWISH, ROWS)
    replace_activations(model, SWISH, per_channel=False)


def test_parameters_are_where_those_before_them_are() -> None:
    """Seen to fail when the device of the parent's first parameter was used."""
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3, device="meta"), nn.ReLU())
    replace_activations(model, SWISH, per_channel=False)
    assert [model[i].beta.device.type for i in (1, 3)] == ["cpu", "meta"]


RELUS = {
    "max": lambda x: torch.max(x, torch.zeros_like(x)),
    "x.max": lambda x: x.max(torch.tensor(0.0)),
    "fmax": lambda x: torch.fmax(x, torch.zeros(())),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold_": lambda x: F.threshold_(x, threshold=0.0, value=0.0),
}


@pytest.mark.parametrize("name", [*RELUS, "others"])
def test_relu_by_other_names_is_told(name: str) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act = nn.Linear(3, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.act(self.first(x))
            if name in RELUS:
                return RELUS[name](y)
            return F.threshold(y, 0.1, 0) + torch.max(y, torch.ones_like(y)) + y.max(1).values[:, None] + y.max()

    report = replace_activations(Network(), SWISH, torch.randn(2, 3))
    assert len(report.functional) == (name in RELUS)
