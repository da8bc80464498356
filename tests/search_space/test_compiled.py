"""torch.compile: the same numbers, one compile for all activations of an expression, and only if that saves time."""

from __future__ import annotations

import copy
import io
import pickle
import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from search_space import Activation, compiled
from search_space.activation import fused
from search_space.compiled import Host, compile_activations, compile_where_it_pays, host, plan

torch.set_num_threads(1)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),  # torch's own, on import
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]

SWISH = "x * sigmoid(beta * x)"
WAVE = "sin(beta * x) + x^2 * tanh(x)"  # one compile for all tests that run it
CHEAP = Host(compile_seconds=0.001, saved_ns=1e6, floor_ns=0.1)  # and compiling saves a millisecond an element
DEAR = Host(compile_seconds=1e9, saved_ns=0.1, floor_ns=0.1)


def with_slopes(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    y = module(x)
    return y.detach(), *torch.autograd.grad(y.sum(), [x, *module.parameters()])


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which every compile fails."""

    def fail(*args: object, **options: object) -> object:
        raise RuntimeError("No working C++ compiler found\n  (details)")

    monkeypatch.setattr(torch, "compile", fail)
    fused.cache_clear()
    host.cache_clear()
    yield
    fused.cache_clear()
    host.cache_clear()


# What is compiled computes the same


@pytest.mark.parametrize("text", [SWISH, "max(x, 0) + 0.25 * beta * min(x, 0)", "sqrt(max(x, 0)) - cos(x) * x^2"])
def test_fullgraph_as_part_of_a_model(text: str) -> None:
    module, x = Activation(text, 3), torch.randn(2, 3, 4, 4)
    found = with_slopes(torch.compile(module, fullgraph=True, backend="aot_eager"), x)
    torch.testing.assert_close(found, with_slopes(module, x))


def test_all_activations_of_an_expression_share_one_compile() -> None:
    counted = torch._dynamo.utils.counters["stats"]
    before = counted["unique_graphs"]
    for channels in (2, 3, 5):
        module = Activation(WAVE, channels)
        module.betas[0].data.uniform_(-1, 1)
        for shape in [(4, channels, 6, 7), (3, channels, 9, 5)]:
            x = torch.randn(shape)
            wanted = with_slopes(module, x)
            module.compiled = True
            torch.testing.assert_close(with_slopes(module, x), wanted)
            module.compiled = False
    assert counted["unique_graphs"] - before == 1


def test_a_compiled_model_is_copied_pickled_and_saved_as_before() -> None:
    module = Activation(WAVE, 3)
    plain = copy.deepcopy(module)
    module.compiled = True
    x = torch.randn(4, 3, 6, 7)
    wanted = module(x)
    torch.testing.assert_close(wanted, plain(x))
    assert list(module.state_dict()) == ["beta"] and repr(module) == repr(plain)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.compiled
        torch.testing.assert_close(other(x), wanted)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    plain.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="eager")(x), wanted)  # in a compiled model


# When it pays


def test_a_single_kernel_is_never_compiled() -> None:
    for text in ("max(x, 0)", "x * sigmoid(x)", "x", "3"):
        found = plan(text, 1 << 20, 10**9, known=CHEAP)
        assert not found.compile and found.reason == "it is one kernel already"


def test_the_saving_must_exceed_the_cost() -> None:
    long, short = (plan(SWISH, 4096, passes, known=CHEAP) for passes in (10**9, 0))
    assert long.compile and long.compiled_ns == CHEAP.floor_ns < long.eager_ns
    assert not short.compile and "it would save 0 s over the run, and a compile takes 0.001 s" in short.reason
    saved = (long.eager_ns - long.compiled_ns) * 1e-9 * 4096 * 10**9
    assert f"it saves {saved:.3g} s over the run" in long.reason
    assert not plan(SWISH, 4096, 10**6, known=DEAR).compile


def test_a_run_shorter_than_any_compile_asks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_space.compiled.host", lambda _: pytest.fail("a compile was measured"))
    found = plan(SWISH, 4096, 10)
    assert not found.compile and found.reason.endswith("s in total, and a compile takes some seconds")


def test_more_operations_save_more() -> None:
    known = Host(compile_seconds=1.0, saved_ns=1e-3)
    found = [plan(text, 4096, 1, known=known) for text in ("sin(cos(x))", "sin(cos(sin(cos(x))))")]
    assert [round((one.eager_ns - one.compiled_ns) / 1e-3) for one in found] == [1, 3]


def test_without_a_compiler_everything_goes_on_as_before(no_compiler: None) -> None:
    model = nn.Sequential(nn.Linear(3, 3), Activation(SWISH, 3))
    assert host().broken == "No working C++ compiler found"
    assert compile_activations(model) == "No working C++ compiler found"
    found = compile_where_it_pays(model, torch.randn(2, 3), 10**9)
    assert found[SWISH].reason == "torch.compile does not work here: No working C++ compiler found"
    assert not model[1].compiled
    assert model(torch.randn(2, 3)).shape == (2, 3)


def test_a_model_gets_a_plan_for_each_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elements are counted over all activations. Times of compiled expressions are measured."""
    monkeypatch.setattr(compiled, "host", lambda device="cpu": CHEAP)
    asked: dict[str, int] = {}

    def noting(expression: object, elements: int, passes: int, **options: object) -> compiled.Plan:
        asked[str(expression)] = elements
        return plan(expression, elements, passes, known=CHEAP)  # type: ignore[arg-type]

    monkeypatch.setattr(compiled, "plan", noting)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), Activation(WAVE, 4), nn.Conv2d(4, 2, 1), Activation(WAVE, 2)
    )
    model.append(Activation("max(x, 0)"))
    before = copy.deepcopy(model.state_dict())
    found = compile_where_it_pays(model, torch.randn(2, 3, 5, 5), 10**9)
    assert asked == {WAVE: 2 * 25 * (4 + 2), "max(x, 0)": 2 * 25 * 2}
    assert found["max(x, 0)"].reason == "it is one kernel already"
    assert found[WAVE].reason.startswith("measured: ") and found[WAVE].compile_seconds > 0
    assert found[WAVE].compile == (found[WAVE].compiled_ns < found[WAVE].eager_ns)
    assert [module.compiled for module in model if isinstance(module, Activation)] == [
        *[found[WAVE].compile] * 2,
        False,
    ]
    torch.testing.assert_close(model.state_dict(), before)
    assert model.training and not any(module._forward_pre_hooks for module in model)


def test_a_host_is_measured_by_one_real_compile() -> None:
    found = host()
    assert not found.broken and found.compile_seconds > 0 and found.floor_ns > 0
    assert host() is found
    model = nn.Sequential(Activation(SWISH, 3), nn.ReLU())
    assert compile_activations(model) is None and model[0].compiled


def test_measuring_does_not_change_the_state_of_random_generators() -> None:
    """Seen to fail with inputs from torch's generator: the random numbers of a training depended on what was compiled
    before it."""
    host.cache_clear()
    before = torch.get_rng_state(), random.getstate()
    compile_where_it_pays(nn.Sequential(Activation("tanh(x) * cos(beta * x)")), torch.zeros(64, 8, 32, 32), 10**7)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
