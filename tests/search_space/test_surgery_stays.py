"""Activations that a replacement leaves as they are or cannot reach, and what the report says about them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from search_space import Activation, NothingToReplace, SpaceError, replace_activations

torch.set_num_threads(1)

SWISH = "x * sigmoid(beta * x)"
RELU = "max(x, 0)"
ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def script(what: Any, compiler: Any = torch.jit.script, *args: Any) -> Any:
    """Compile with torch.jit, which torch calls deprecated, but many people use."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return compiler(what, *args)


class Net(nn.Module):
    """What `forward` makes of the input and the modules, which are registered under their names."""

    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def linear(inner: int = 6, outer: int = 6) -> nn.Linear:
    return nn.Linear(inner, outer)


def replaced(model: nn.Module, example: Any = ROWS, expression: str = SWISH, **options: Any) -> list[str]:
    return [name for name, _, _ in replace_activations(model, expression, example, **options).replaced]


# In place


class InPlace(nn.Module):
    """A user's own Swish that works in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(x.sigmoid())


def residual(self: Any, x: Tensor) -> Any:
    h = self.first(x)
    return h + self.second(self.act(h))


def ignored(self: Any, x: Tensor) -> Any:
    h = self.first(x)
    self.act(h)
    return self.second(h)


def in_part(self: Any, x: Tensor) -> Any:
    h = self.first(x)
    self.act(h[:, :3])
    return self.second(h)


def chained(self: Any, x: Tensor) -> Any:
    return self.second(self.act(self.first(x)))


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), InPlace(), nn.Hardswish(inplace=True), nn.ELU(inplace=True)])
@pytest.mark.parametrize("forward", [residual, ignored, in_part])
@pytest.mark.parametrize("example", [ROWS, torch.zeros(5, 6)], ids=["noise", "zeros"])
def test_modules_that_must_be_in_place_are_reported(
    act: nn.Module, forward: Callable[..., Any], example: Tensor
) -> None:
    """Row S1: the outputs with and without it differ. The cases include a custom class, a view, an ignored return
    value, and an example of zeros without biases, for which both outputs are zeros."""
    bias = bool(example.any())
    first, second = nn.Linear(6, 6, bias=bias), nn.Linear(6, 6, bias=bias)
    report = replace_activations(Net(forward, first=first, act=act, second=second), RELU, example)
    assert report.in_place == ("act",)
    assert any(
        note.startswith("act: it worked in place, and the network's output depended on") for note in report.notes
    )


@pytest.mark.parametrize("act", [nn.ReLU(inplace=True), InPlace()])
def test_working_in_place_is_no_fault_where_nothing_else_reads_the_input(act: nn.Module) -> None:
    model = Net(chained, first=linear(), act=act, second=linear())
    report = replace_activations(model, RELU, ROWS)
    assert report.in_place == () and report.notes == ()


def test_only_the_one_that_matters_is_named() -> None:
    model = nn.Sequential(
        linear(), nn.ReLU(inplace=True), Net(residual, first=linear(), act=nn.ReLU(inplace=True), second=linear())
    )
    assert replace_activations(model, RELU, ROWS).in_place == ("2.act",)


def test_a_network_that_draws_random_numbers_is_not_blamed() -> None:
    model = Net(lambda self, x: self.act(self.first(x)) + torch.rand(()), first=linear(), act=nn.ReLU(inplace=True))
    assert replace_activations(model, RELU, ROWS).in_place == ()


@dataclass
class Result:
    """A dataclass, as some networks return."""

    found: Tensor
    chosen: Tensor


def test_outputs_of_any_kind_are_compared() -> None:
    """Outputs can be mappings, dataclasses and integers. A network on the meta device has no numbers to compare."""
    outputs: list[Callable[[Tensor], Any]] = [
        lambda y: {"out": [y]},
        lambda y: Result(y, y.argmax(1)),
        lambda y: y > 0,
        lambda y: (y.argsort(1), None),
    ]
    for output in outputs:
        torch.manual_seed(0)
        model = Net(
            lambda self, x, output=output: output(residual(self, x)),
            first=linear(),
            act=nn.ReLU(inplace=True),
            second=linear(),
        )
        assert replace_activations(model, RELU, ROWS).in_place == ("act",)
    meta = Net(residual, first=linear(), act=nn.ReLU(inplace=True), second=linear()).to("meta")
    assert replace_activations(meta, RELU, ROWS.to("meta")).in_place == ()


# Calls below Python


@script
def scripted(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@script
def scripted_relu(x: Tensor) -> Tensor:
    return torch.relu(x)


class Clipped(torch.autograd.Function):
    """A ReLU with its own backward function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads


CALLS: dict[str, Callable[[Tensor], Any]] = {
    "torch.ops.aten.sigmoid": scripted,
    "torch.ops.aten.relu": scripted_relu,
    "torch.ops.aten.relu ": torch.ops.aten.relu,
    "torch.ops.aten.relu.default": torch.ops.aten.relu.default,
    "torch.ops.aten.clamp_min": lambda v: torch.ops.aten.clamp_min(v, 0),
    "torch.where": lambda v: torch.where(v > 0, v, 0),
    "torch.where ": lambda v: torch.where(v > 0, v, torch.zeros_like(v)),
    "torch.where  ": lambda v: torch.where(v < 0, 0.1 * v, v),
    "torch.where   ": lambda v: torch.where(v >= 0, v, torch.exp(v) - 1),
    "torch.Tensor.where": lambda v: v.where(v > 0, torch.zeros(())),
    "torch.Tensor.mul": lambda v: v * (v > 0),
    "torch.Tensor.mul ": lambda v: v * (v > 0).float(),
    "torch.Tensor.mul  ": lambda v: torch.heaviside(v, torch.zeros(())) * v,
    "torch.Tensor.masked_fill": lambda v: v.masked_fill(v < 0, 0),
    "torch.Tensor.masked_fill_": lambda v: v.clone().masked_fill_(v <= 0, 0),
    "torch.Tensor.add": lambda v: (v + v.abs()) / 2,
    "torch.Tensor.clamp": Clipped.apply,
    "torch.nn.functional.relu": F.relu,
}


@pytest.mark.parametrize("name", CALLS)
def test_activations_below_python_are_calls(name: str) -> None:
    """Row S2: in torch.jit.script, torch.ops and torch.autograd.Function, and by cases, as in where(v > 0, v, 0)."""
    call = CALLS[name]
    model = Net(lambda self, x: self.last(call(self.act(self.first(x)))), first=linear(), act=nn.ReLU(), last=linear())
    report = replace_activations(model, SWISH, ROWS)
    assert report.functional == (("", name.strip(), 1),) == report.unreachable
    assert [place for place, _, _ in report.replaced] == ["act"]


NO_CALLS: dict[str, Callable[[Tensor], Any]] = {
    "a mean": lambda v: v - v.mean(1, keepdim=True),
    "a norm": lambda v: F.normalize(v),
    "a norm by hand": lambda v: v * torch.rsqrt(v.pow(2).mean(1, keepdim=True) + 1e-6),
    "a mask": lambda v: v * (torch.arange(6) > 2),
    "a mask of something else": lambda v: torch.where(v.sum(1, keepdim=True) > 0, v, 0),
    "softmax": lambda v: F.softmax(v, 1),
    "quantised to the largest": lambda v: v / v.abs().amax(),
    "dropout": lambda v: F.dropout(v, 0.5),
    "of whole numbers": lambda v: v * torch.where(v.long() > 0, v.long(), 0).float().mean(),
}


@pytest.mark.parametrize("name", NO_CALLS)
def test_other_calls_are_not_reported(name: str) -> None:
    call = NO_CALLS[name]
    model = Net(lambda self, x: self.last(call(self.act(self.first(x)))), first=linear(), act=nn.ReLU(), last=linear())
    assert replace_activations(model, SWISH, ROWS).functional == ()


# Modules of others


class Gelu(nn.Module):
    """The class of transformers: the function is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.act = F.gelu

    def forward(self, x: Tensor) -> Any:
        return self.act(x)


class OwnSwish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


class Trained(nn.Module):
    """A Swish with a trained number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


@pytest.mark.parametrize("act", [Gelu(), OwnSwish(), InPlace(), script(OwnSwish())])
def test_activations_of_any_author_are_replaced(act: nn.Module) -> None:
    """Row S3: the functions that they call are not reported."""
    model = nn.Sequential(linear(), act, linear())
    before = model(ROWS)
    report = replace_activations(model, "0 * x", ROWS)
    assert [name for name, _, _ in report.replaced] == ["1"] and report.functional == () == report.kept
    assert isinstance(model[1], Activation) and not torch.allclose(model(ROWS), before)
    torch.testing.assert_close(model(ROWS), model[2](torch.zeros(5, 6)))


def test_a_name_of_the_class_is_reported_also_of_a_compiled_one() -> None:
    model = nn.Sequential(linear(), script(OwnSwish()), Gelu(), linear())
    report = replace_activations(model, SWISH, ROWS)
    assert report.replaced == (("1", "OwnSwish", 6), ("2", "Gelu", 6))


def test_patterns_choose_among_them_too() -> None:
    model = nn.Sequential(linear(), Gelu(), linear(), OwnSwish(), linear())
    assert replaced(model, match="3") == ["3"] and isinstance(model[1], Gelu)
    report = replace_activations(nn.Sequential(linear(), Gelu(), linear(), nn.ReLU(), linear()), SWISH, ROWS, match="3")
    assert report.functional == ()  # the Gelu is a module that was not named, no call
    assert replaced(model, match=Gelu) == ["1"]


def test_one_with_a_number_of_its_own_stays_and_is_said() -> None:
    model = nn.Sequential(linear(), Trained(), linear(), nn.ReLU(), linear())
    report = replace_activations(model, SWISH, ROWS)
    assert [name for name, _, _ in report.replaced] == ["3"]
    assert "1: Trained stays, because it has parameters of its own; match=<its class> replaces it" in report.notes
    assert replaced(model, match=Trained) == ["1"]


def test_a_module_that_is_called_with_two_tensors_stays() -> None:
    class Either(nn.Module):
        def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
            return F.relu(x if other is None else x + other)

    model = Net(lambda self, x: self.act(self.either(self.first(x), x)), first=linear(), either=Either(), act=nn.ReLU())
    report = replace_activations(model, SWISH, ROWS)
    assert [name for name, _, _ in report.replaced] == ["act"]
    assert "either: Either stays, because it is called with more than one tensor" in report.notes


# Gates and heads


class SqueezeExcite(nn.Module):
    def __init__(self, gate: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.reduce, self.act, self.expand = nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Any:
        return x * self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))


class HardGate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid(), HardGate(), nn.Tanh(), script(nn.Sigmoid())])
@pytest.mark.parametrize("act", [nn.ReLU6(), nn.SiLU()])
def test_gates_stay_and_what_they_scale_is_replaced(gate: nn.Module, act: nn.Module) -> None:
    """Row S4: the gates of squeeze-and-excitation are recognised by where their output goes, whatever function the main
    path has."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), act, SqueezeExcite(gate), nn.Conv2d(8, 4, 3))
    report = replace_activations(model, SWISH, IMAGES)
    assert [name for name, _, _ in report.replaced] == ["1", "2.act"]
    reason = "it is a gate: its output multiplies another value"
    assert [(row.name, row.reason) for row in report.kept] == [("2.gate", reason)]
    assert any(note.startswith("2.gate: ") and note.endswith(f" stays, because {reason}") for note in report.notes)


GATES: dict[str, Callable[[Any, Tensor], Any]] = {
    "glu": lambda self, x: self.last(self.act(self.first(x)) * self.gate(self.second(x))),
    "the rest of it": lambda self, x: self.last((1 - self.gate(self.second(x))) * self.act(self.first(x))),
    "one more": lambda self, x: self.last(self.act(self.first(x)) * (1 + self.gate(self.second(x)))),
    "in parts": lambda self, x: self.last(
        torch.cat([self.act(self.first(x))[:, :3] * gate for gate in self.gate(self.second(x)).chunk(2, 1)], 1)
    ),
    "expanded": lambda self, x: self.last(
        self.act(self.first(x)) * self.gate(self.second(x).mean(1))[:, None].expand(5, 6)
    ),
    "of attention": lambda self, x: self.last(self.gate(self.second(x) @ self.second(x).T) @ self.act(self.first(x))),
    "of two": lambda self, x: self.last(torch.lerp(x, self.act(self.first(x)), self.gate(self.second(x)))),
    "in place": lambda self, x: self.last(self.act(self.first(x)).mul_(self.gate(self.second(x)))),
}


@pytest.mark.parametrize("name", GATES)
def test_gates_of_other_forms(name: str) -> None:
    model = Net(GATES[name], first=linear(), act=nn.SiLU(), second=linear(), gate=nn.Sigmoid(), last=nn.LazyLinear(2))
    report = replace_activations(model, SWISH, ROWS)
    assert [place for place, _, _ in report.replaced] == ["act"] and [row.name for row in report.kept] == ["gate"]


def test_an_unbounded_factor_is_an_activation() -> None:
    """SwiGLU and GEGLU have one, in the feed-forward layers of Llama and T5."""
    for act in (nn.SiLU(), nn.GELU(), Gelu()):
        model = Net(
            lambda self, x: self.down(self.act(self.gate(x)) * self.up(x)),
            gate=linear(),
            act=act,
            up=linear(),
            down=linear(),
        )
        assert replaced(model) == ["act"]


def test_of_a_tanh_and_a_sigmoid_the_sigmoid_is_the_gate() -> None:
    """WaveNet has such a pair, and so has a recurrent cell written as a module."""
    model = Net(
        lambda self, x: self.last(self.tanh(self.first(x)) * self.sigmoid(self.second(x))),
        first=linear(),
        tanh=nn.Tanh(),
        second=linear(),
        sigmoid=nn.Sigmoid(),
        last=linear(),
    )
    assert replaced(model) == ["tanh"]


@pytest.mark.parametrize("head", [nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.LogSigmoid(), HardGate()])
@pytest.mark.parametrize(
    "after", [nn.Identity(), nn.Flatten(), nn.Dropout(), nn.Softmax(1)], ids=lambda m: type(m).__name__
)
def test_heads_stay(head: nn.Module, after: nn.Module) -> None:
    """Row S4: they make probabilities, or other bounded or positive numbers, from the last layer's output."""
    model = nn.Sequential(linear(), nn.ReLU(), linear(), head, after)
    report = replace_activations(model, SWISH, ROWS)
    assert [name for name, _, _ in report.replaced] == ["1"] and model[3] is head
    reason = "it is an output head: no layer comes after it"
    assert [(row.name, row.reason) for row in report.kept] == [("3", reason)]


def test_the_last_of_a_feature_extractor_is_replaced() -> None:
    assert replaced(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), IMAGES) == ["1"]
    tanh = nn.Sequential(linear(), nn.Tanh(), linear(), nn.Tanh(), linear())
    assert replaced(tanh) == ["1", "3"]  # bounded, and hidden


def test_several_outputs() -> None:
    """An actor and a critic: the tanh of the action is an output head, and the tanh of the body is not."""
    model = Net(
        lambda self, x: (lambda h: {"action": self.squash(self.actor(h)) * 2, "value": self.critic(h)})(
            self.act(self.body(x))
        ),
        body=linear(),
        act=nn.Tanh(),
        actor=linear(6, 2),
        squash=nn.Tanh(),
        critic=linear(6, 1),
    )
    assert replaced(model) == ["act"]


def test_gates_and_heads_are_replaced_where_match_names_them() -> None:
    """Row S4: `match` is a pattern, a class or a predicate."""

    def make() -> Any:
        return nn.Sequential(linear(), nn.ReLU(), linear(), nn.Sigmoid())

    for match in ("*", "3", nn.Sigmoid, lambda name, _: name == "3"):
        assert replaced(make(), match=match)[-1] == "3"
    report = replace_activations(make(), SWISH, ROWS, match="3")
    assert report.notes == (
        "3: Sigmoid is replaced, because match= names it, although it is an output head: no layer comes after it",
    )


def test_where_everything_stays_it_is_said_how_to_replace_it() -> None:
    model = nn.Sequential(linear(), nn.Sigmoid())
    with pytest.raises(
        NothingToReplace, match=r"1: Sigmoid stays.*output head.*; name it in match= to replace it"
    ) as caught:
        replace_activations(model, SWISH, ROWS)
    assert isinstance(model[1], nn.Sigmoid) and [row.name for row in caught.value.kept] == ["1"]
    assert replaced(model, match="1") == ["1"]  # the advice works


def test_calls_that_are_gates_or_heads_do_not_count_as_out_of_reach() -> None:
    model = Net(
        lambda self, x: torch.sigmoid(self.last(self.act(self.first(x)) * F.hardsigmoid(self.second(x)))),
        first=linear(),
        act=nn.ReLU(),
        second=linear(),
        last=linear(),
    )
    report = replace_activations(model, SWISH, ROWS)
    assert {name for _, name, _ in report.functional} == {"torch.sigmoid", "torch.nn.functional.hardsigmoid"}
    assert report.unreachable == () and len(report.kept) == 2


def test_a_part_of_an_activation_is_not_replaced() -> None:
    """In `h * sigmoid(h)` with a sigmoid module, only a part of the Swish could be replaced."""
    model = Net(
        lambda self, x: (lambda h: self.last(h * self.s(h)))(self.act(self.first(x))),
        first=linear(),
        act=nn.ReLU(),
        s=nn.Sigmoid(),
        last=linear(),
    )
    report = replace_activations(model, SWISH, ROWS)
    assert [name for name, _, _ in report.replaced] == ["act"] and isinstance(model.s, nn.Sigmoid)
    assert report.unreachable == (("s", "x * Sigmoid(x)", 1),)
    assert any(note.startswith("s: Sigmoid stays, because it is part of an activation") for note in report.notes)


def test_a_bounded_function_among_others_is_replaced_and_reported() -> None:
    """BERT's pooler has such a tanh, before the classifier."""
    model = nn.Sequential(linear(), Gelu(), linear(), Gelu(), linear(), nn.Tanh(), linear())
    report = replace_activations(model, SWISH, ROWS)
    assert len(report.replaced) == 3
    assert report.notes == ("5: Tanh, a bounded function, is replaced like the 2 of Gelu; match= can leave it out",)


# Weights


def parametrized(module: nn.Module) -> nn.Module:
    layer = linear()
    parametrize.register_parametrization(layer, "weight", module)
    return layer


class Positive(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)


@pytest.mark.parametrize("module", [nn.Softplus(), nn.Sequential(nn.Softplus()), Positive(), nn.Sequential(Positive())])
@pytest.mark.parametrize("options", [{}, {"match": "*"}, {"match": (nn.Softplus, Positive, nn.ReLU)}], ids=str)
@pytest.mark.parametrize("example", [ROWS, None], ids=["example", "none"])
def test_parametrizations_stay(module: nn.Module, options: dict[str, Any], example: Tensor | None) -> None:
    """Row S5: they are not on the path of the data."""
    model = nn.Sequential(parametrized(module), nn.ReLU(), linear())
    before = [type(m) for m in model[0].modules()]
    report = replace_activations(model, RELU, example, **options)
    assert [name for name, _, _ in report.replaced] == ["1"] and [type(m) for m in model[0].modules()] == before
    assert report.kept[0].name.startswith("0.parametrizations.weight.0")
    assert any("stays, because it is not on the path of the data" in note for note in report.notes)


def test_what_makes_weights_stays_without_a_parametrization_too() -> None:
    class Monotone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.positive, self.act = nn.Parameter(torch.randn(6, 6)), nn.Softplus(), nn.ReLU()

        def forward(self, x: Tensor) -> Any:
            return self.act(x @ self.positive(self.weight)) @ F.softplus(self.weight)

    report = replace_activations(Monotone(), SWISH, ROWS)
    assert [name for name, _, _ in report.replaced] == ["act"] and report.unreachable == ()
    assert {row.name for row in report.kept} == {"positive", ""}


def test_norms_of_weights_change_nothing() -> None:
    model = nn.Sequential(parametrizations.weight_norm(linear()), nn.ReLU(), parametrizations.spectral_norm(linear()))
    report = replace_activations(model, SWISH, ROWS)
    assert report.replaced == (("1", "ReLU", 6),) and report.notes == ()


# Hooks and shared modules


def test_hooks_are_moved_to_the_new_module() -> None:
    """Row S6: forward, pre-forward and backward hooks, also with keywords. A handle still removes its own hook."""
    seen: list[str] = []
    act = nn.ReLU()
    handles = [
        act.register_forward_pre_hook(lambda *_: seen.append("pre")),
        act.register_forward_hook(lambda *_: seen.append("forward")),
        act.register_forward_hook(lambda *_, **__: seen.append("keywords"), with_kwargs=True, always_call=True),
        act.register_full_backward_pre_hook(lambda *_: seen.append("backward pre")),
        act.register_full_backward_hook(lambda *_: seen.append("backward")),
    ]
    model = nn.Sequential(linear(), act, linear())
    report = replace_activations(model, SWISH, ROWS)
    assert report.notes == ("1: 5 hooks of the old module now belong to the new one",)
    once = nn.Tanh()
    once.register_forward_hook(lambda *_: None)
    one = replace_activations(nn.Sequential(linear(), once, linear()), SWISH, ROWS)
    assert one.notes == ("1: 1 hook of the old module now belongs to the new one",)
    seen.clear()
    model(ROWS).sum().backward()
    assert seen == ["pre", "forward", "keywords", "backward pre", "backward"]
    for handle in handles:
        handle.remove()
    seen.clear()
    model(ROWS).sum().backward()
    assert seen == []


def test_a_hook_that_changes_the_output_still_does() -> None:
    act = nn.ReLU()
    act.register_forward_hook(lambda module, args, output: output + 1)
    model = nn.Sequential(linear(), act, linear())
    before = model(ROWS)
    replace_activations(model, RELU, ROWS)
    torch.testing.assert_close(model(ROWS), before)


def test_one_module_at_several_widths_is_reported() -> None:
    """Row S6: all channels share one parameter."""
    model = Net(
        lambda self, x: self.c(self.act(self.b(self.act(self.a(x))))),
        a=linear(6, 3),
        b=linear(3, 5),
        c=linear(5, 2),
        act=nn.ReLU(),
    )
    report = replace_activations(model, SWISH, ROWS)
    assert report.replaced == (("act", "ReLU", 1),)
    assert report.notes == ("act: one module called with 3 and 5 channels, so all channels share each parameter",)


# torch.jit


def blocks() -> nn.Sequential:
    return nn.Sequential(linear(), nn.ReLU(), linear())


@pytest.mark.parametrize(
    "compiled", [script, lambda block: script(block, torch.jit.trace, ROWS)], ids=["script", "trace"]
)
@pytest.mark.parametrize("example", [ROWS, None], ids=["example", "none"])
def test_activations_in_a_compiled_module_are_one_error(compiled: Any, example: Tensor | None) -> None:
    """Row S7: also if the module is deep in the network or traced, and without an example. The advice to use match=
    works."""
    model = nn.Sequential(linear(), nn.Sequential(compiled(blocks())), nn.ReLU(), linear())
    with pytest.raises(SpaceError, match=r"^1\.0: this module is compiled by torch.jit.*\(relu\).*match="):
        replace_activations(model, RELU, example)
    assert isinstance(model[2], nn.ReLU)
    report = replace_activations(model, RELU, example, match="2")
    assert [name for name, _, _ in report.replaced] == ["2"]
    assert [name for _, name, _ in report.functional] == (["torch.ops.aten.relu"] if example is not None else [])


def test_a_compiled_module_without_activations_is_no_hindrance() -> None:
    model = nn.Sequential(script(nn.Sequential(linear(), nn.LayerNorm(6))), nn.ReLU(), linear())
    before = model(ROWS)
    assert replaced(model, expression=RELU) == ["1"]
    torch.testing.assert_close(model(ROWS), before)


def test_a_model_that_is_compiled_itself_is_refused() -> None:
    with pytest.raises(SpaceError, match="the model itself is compiled by"):
        replace_activations(script(blocks()), RELU, ROWS)


# Examples


def test_an_example_of_named_arguments() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = linear(), nn.ReLU()

        def forward(self, *, values: Tensor, scale: Tensor) -> Any:
            return {"out": self.act(self.layer(values)) * scale}

    report = replace_activations(Named(), SWISH, {"values": ROWS, "scale": torch.ones(6)})
    assert report.replaced == (("act", "ReLU", 6),)


def test_data_that_is_written_into_memory_is_still_data() -> None:
    """A forward writes data into a buffer, as for padding. Values computed from it are on the path of the data."""

    def filled(self: Any, x: Tensor) -> Any:
        room = torch.zeros(5, 8)
        room[:, :6] = self.first(x)
        return self.last(self.act(room))

    model = Net(filled, first=linear(), act=nn.ReLU(), last=linear(8, 2))
    report = replace_activations(model, SWISH, ROWS)
    assert report.replaced == (("act", "ReLU", 8),) and report.kept == ()


def test_without_a_tensor_in_the_example_nothing_is_held_back() -> None:
    model = Net(lambda self, _: self.act(self.first(ROWS)), first=linear(), act=nn.Sigmoid())
    assert replaced(model, (3,)) == ["act"]
