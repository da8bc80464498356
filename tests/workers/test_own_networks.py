"""Networks of a user's own: each form, each bad form, the example."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from search_space import Activation, ElementwiseNorm, Gate, Maxout
from searcher.driver import session
from searcher.settings.config import Config, ConfigError
from tests.support import ROOT
from tests.support.made import image_job
from workers.contract import Verdict, WorkersError
from workers.tasks.images.config import Recipe
from workers.tasks.images.models import build, parameter_count, survey
from workers.tasks.images.networks.sites import activation_of
from workers.tasks.images.train import train

torch.set_num_threads(1)

CPU = torch.device("cpu")
PRELU = "max(x, 0) + beta * min(x, 0)"
KINDS = ("x * sigmoid(beta * x)", PRELU, "maxout", "maxout(3)")
NUMBERS = count()
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of a user's own into the current directory; its name."""
    monkeypatch.chdir(tmp_path)
    paths, loaded = list(sys.path), set(sys.modules)

    def call(source: str) -> str:
        name = f"own_net_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(
            f"import torch\nimport torch.nn.functional as F\nfrom torch import nn\n{source}"
        )
        return name

    yield call
    sys.path[:] = paths
    for name in {name for name in sys.modules if name.startswith("own_net")} - loaded:
        del sys.modules[name]


NET = """
class Net(nn.Module):
    def __init__(self, in_channels, classes, hidden=6):
        super().__init__()
        self.conv, self.act = nn.Conv2d(in_channels, hidden, 3), nn.ReLU()
        self.norm, self.more = nn.BatchNorm2d(hidden), nn.PReLU()
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(self.more(self.norm(self.act(self.conv(x)))).mean((2, 3)))
"""
FACTORY = """
def network(classes, activation, *, image_size, in_channels=1, width=7, bias=True):
    e, (h, w) = activation.expansion, image_size
    return nn.Sequential(
        nn.Flatten(), nn.Linear(in_channels * h * w, e * width, bias), activation(width), nn.Linear(width, classes)
    )
"""


def own(name: str, text: str = "x * sigmoid(beta * x)", **options: Any) -> nn.Module:
    return build(name, activation_of(text), (1, 8, 8), 10, options=options)


def test_activations_of_a_class_are_replaced(write: Write) -> None:
    model = own(f"{write(NET)}:Net", hidden=5)
    found = [module for module in model.modules() if isinstance(module, Activation)]
    assert [module.channels for module in found] == [5, 5] and found[0] is not found[1]
    assert not any(isinstance(module, nn.ReLU | nn.PReLU) for module in model.modules())
    assert not any(float(b.sum()) for key, b in model.named_buffers() if key.endswith(("mean", "tracked")))
    assert model.training and model(torch.randn(3, 1, 8, 8)).shape == (3, 10)


def test_activations_of_what_a_function_returns_are_replaced(write: Write) -> None:
    module = write(NET + "def make(**options):\n    return Net(1, 10, **options)\n")
    model = own(f"{module}:make", hidden=3)
    assert sum(isinstance(m, Activation) and m.channels == 3 for m in model.modules()) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_factory_makes_its_activations_itself(write: Write, kind: str) -> None:
    name = f"{write(FACTORY)}:network"
    model = own(name, kind, bias=False)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert linear[0].out_features == 7 * activation_of(kind).expansion and linear[0].bias is None
    wider = build(name, activation_of(kind), (1, 8, 8), 10, width=9)
    assert wider(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert any(isinstance(module, nn.Linear) and module.in_features == 9 for module in wider.modules())


TOKENS = """
class Tokens(nn.Module):
    def __init__(self, activation, in_channels, classes, width=4):
        super().__init__()
        self.first = nn.Linear(in_channels, activation.expansion * width)
        self.act, self.head = activation(width, dim=-1), nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.act(self.first(x.flatten(2).transpose(1, 2))).mean(1))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_factory_may_put_channels_last(write: Write, kind: str) -> None:
    """Row M7: each channel of a token has a parameter of its own."""
    model = build(f"{write(TOKENS)}:Tokens", activation_of(kind), (1, 8, 8), 10)
    assert model.act.dim == -1
    assert all(parameter.shape == (4,) for parameter in model.act.parameters())


def test_a_factory_may_replace_activations_itself(write: Write) -> None:
    source = NET + (
        "from search_space import replace_activations\n"
        "def network(activation, in_channels, classes):\n"
        "    net = Net(in_channels, classes)\n"
        "    replace_activations(net, activation.expression, torch.zeros(2, in_channels, 8, 8), match='act')\n"
        "    return net\n"
    )
    model = own(f"{write(source)}:network")
    assert sum(isinstance(module, Activation) for module in model.modules()) == 1


def test_lazy_layers_are_made_before_training(write: Write) -> None:
    model = own(
        write("def f():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(10))") + ":f"
    )
    assert parameter_count(model) == 64 * 4 + 4 + 4 + 4 * 10 + 10


def test_a_network_of_ones_own_is_trained(write: Write) -> None:
    for name in (f"{write(NET)}:Net", f"{write(FACTORY)}:network"):
        job = image_job(0, PRELU, model=name, recipe=Recipe(epochs=1))
        outcome = train(job, CPU)
        assert outcome.verdict is Verdict.COMPLETE and outcome.metrics["val_loss"] < math.log(10)
        assert replace(train(job, CPU), seconds=0.0) == replace(outcome, seconds=0.0)


MAKE = "def f(activation, in_channels, classes):\n    return "
BAD: list[tuple[str, str, dict[str, Any], str]] = [
    (NET, "net", {}, "has nothing under that name; did you mean 'Net'"),
    ("", "f", {}, "has nothing under that name; there are none"),
    (NET, "", {}, "has nothing under that name"),
    ("f = 3", "f", {}, "has 3, not a function, under that name"),
    (NET + "net = Net(1, 10)", "net", {}, "is one network, which all jobs would go on training"),
    ("import nothing_of_this_name", "f", {}, "imports 'nothing_of_this_name', which is not; install that too"),
    ("1 / 0", "f", {}, "fails at its import: ZeroDivisionError"),
    ("def f(act, classes): pass", "f", {}, "asks for 'act'; it can have, by name, activation, in_channels, classes"),
    ("def f(classes, /): pass", "f", {}, "asks for 'classes'; it can have, by name"),
    ("f = max", "f", {}, "Python cannot tell which arguments it takes"),
    (NET, "Net", {"hiden": 3}, "has no option 'hiden'; did you mean 'hidden'"),
    (NET, "Net", {"classes": 3}, "'classes' is given by the searcher itself, not among the options"),
    ("def f(): return 1 / 0", "f", {}, "fails: ZeroDivisionError: division by zero"),
    ("def f(): return None", "f", {}, "returns a NoneType; it must return a torch.nn.Module"),
    ("def f(): return torch.zeros(3)", "f", {}, "returns a tensor of shape \\(3,\\); it must return"),
    (MAKE + "nn.Sequential(nn.Flatten(), nn.Linear(64, classes))", "f", {}, "takes `activation` but never calls it"),
    (
        MAKE + "nn.Sequential(nn.Conv2d(in_channels, classes, 3), activation(classes))",
        *("f", {}, "makes a tensor of shape \\(2, 10, 6, 6\\) of two images; it must be a tensor of shape \\(2, 10\\)"),
    ),
    ("def f(width=8): ...", "f", {"width": 64}, "'width' is given by --width, not among the options"),
    (
        MAKE + "nn.Sequential(nn.Flatten(), activation(64), nn.Linear(64, 7))",
        *("f", {}, "makes a tensor of shape \\(2, 7\\)"),
    ),
    (MAKE + "nn.Sequential(activation(1), nn.Flatten(), nn.LSTM(64, classes))", "f", {}, "makes a tuple of two images"),
    (
        MAKE + "nn.Sequential(nn.Flatten(), activation(1), nn.Linear(63, classes))",
        *("f", {}, "fails on two 1x8x8 images: RuntimeError: "),
    ),
    (
        "def f(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))",
        "f",
        {},
        "no module is an activation.*; make modules of its activations, as in self.act = nn.ReLU\\(\\), or let the",
    ),
    (
        "def f(classes): return nn.Sequential(nn.ReLU(), nn.Linear(64, classes))",
        "f",
        {},
        "the example did not go through",
    ),
    (
        NET.replace("self.more(", "F.relu("),
        *("Net", {}, "calls torch.*relu in its own forward, which cannot be replaced; make modules of them"),
    ),
]


@pytest.mark.parametrize(("source", "function", "options", "message"), BAD, ids=[row[3][:40] for row in BAD])
def test_bad_networks_of_ones_own(
    write: Write, source: str, function: str, options: dict[str, Any], message: str
) -> None:
    name = f"{write(source)}:{function}"
    with pytest.raises(WorkersError, match=message) as caught:
        own(name, **options)
    assert (
        str(caught.value).startswith(f"model {name!r}") and "\n" not in str(caught.value).partition("RuntimeError")[0]
    )


def test_a_width_that_a_network_does_not_take(write: Write) -> None:
    name = f"{write(NET)}:Net"
    with pytest.raises(WorkersError, match="takes no `width`; leave --width out, or let the function take it"):
        build(name, activation_of("x"), (1, 8, 8), 10, 64)


# What stays, and what --match chooses

GATED = """
class Net(nn.Module):
    def __init__(self, in_channels, classes, in_place=False, call=False):
        super().__init__()
        self.first, self.act = nn.Conv2d(in_channels, 8, 3), nn.ReLU(inplace=in_place)
        self.squeeze, self.inner, self.gate = nn.Conv2d(8, 8, 1), nn.SiLU(), nn.Sigmoid()
        self.second, self.head = nn.Conv2d(8, 16, 3), nn.Linear(16, classes)
        self.in_place, self.call = in_place, call

    def forward(self, x):
        h = self.first(x)
        x = self.act(h)
        x = x * self.gate(self.squeeze(self.inner(x.mean((2, 3), keepdim=True))))
        x = h + x if self.in_place else x
        x = self.act(self.second(x))
        x = torch.where(x > 0, x, 0) if self.call else x
        return self.head(x.mean((2, 3)))
"""


def sites(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Activation)]


def test_gates_of_a_network_stay_unless_match_names_them(write: Write) -> None:
    """Row S4: --match for --model, a pattern of the names of activations."""
    name = f"{write(GATED)}:Net"
    assert sites(own(name)) == ["act", "inner"]
    for match, chosen in {"*": ["act", "inner", "gate"], "inner": ["inner"], "[ig]*": ["inner", "gate"]}.items():
        model = build(name, activation_of(PRELU), (1, 8, 8), 10, match=match)
        assert sites(model) == chosen
        outcome = train(image_job(0, PRELU, model=name, match=match, limit_train=64, recipe=Recipe(epochs=1)), CPU)
        assert outcome.verdict is Verdict.COMPLETE and outcome.parameters == parameter_count(model)
    with pytest.raises(WorkersError, match=r"name like 'x\*'; activations found: act \(ReLU\), inner \(SiLU\), gate"):
        build(name, activation_of(PRELU), (1, 8, 8), 10, match="x*")


UNUSED = """
class Unused(nn.Module):
    def __init__(self, in_channels, classes):
        super().__init__()
        self.act, self.head = nn.ReLU(), nn.Linear(in_channels, classes)

    def forward(self, x):
        return self.head(x.mean((2, 3)))


class Made(Unused):
    def __init__(self, activation, in_channels, classes):
        super().__init__(in_channels, classes)
        self.act = activation(in_channels)
"""


@pytest.mark.parametrize("kind", ["max(x, 0)", PRELU])
def test_a_network_that_calls_none_of_its_activations_is_refused(write: Write, kind: str) -> None:
    """Row S1: with every function it would be the same network, and all would be ranked by one loss."""
    module = write(UNUSED)
    for name in ("Unused", "Made"):
        with pytest.raises(WorkersError, match="calls none of its activations in its forward"):
            own(f"{module}:{name}", kind)
    assert "calls none of its" in survey(f"{module}:Unused", kind, (1, 8, 8), 10).refusal


def test_a_network_that_depends_on_working_in_place_is_refused(write: Write) -> None:
    """Row S1: as a search's network, all functions would get the same loss and be ranked."""
    name = f"{write(GATED)}:Net"
    for match in ("", "*", "act"):
        with pytest.raises(WorkersError, match=f"model '{name}' depends on act working in place: ") as caught:
            build(name, activation_of(PRELU), (1, 8, 8), 10, options={"in_place": True}, match=match)
        assert "\n" not in str(caught.value)


def test_calls_below_python_are_refused(write: Write) -> None:
    """Row S2: as F.relu is; with --match the person has said what is meant."""
    name = f"{write(GATED)}:Net"
    with pytest.raises(WorkersError, match=r"calls torch.where in its own forward.*--match which modules"):
        own(name, call=True)
    assert sites(build(name, activation_of(PRELU), (1, 8, 8), 10, options={"call": True}, match="act")) == ["act"]


def test_a_network_with_a_head_alone_is_refused_with_the_remedy(write: Write) -> None:
    source = "def f(classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.Sigmoid())"
    name = f"{write(source)}:f"
    with pytest.raises(WorkersError, match=r"2: Sigmoid stays, because it is an output head.*; --match 2 replaces it"):
        own(name)
    assert sites(build(name, activation_of(PRELU), (1, 8, 8), 10, match="2")) == ["2"]


def test_a_compiled_part_is_refused_by_name(write: Write) -> None:
    """Row S7."""
    source = (
        "import warnings\ndef f(classes):\n    with warnings.catch_warnings(action='ignore'):\n"
        "        block = torch.jit.script(nn.Sequential(nn.Linear(64, 5), nn.ReLU()))\n"
        "    return nn.Sequential(nn.Flatten(), block, nn.Tanh(), nn.Linear(5, classes))"
    )
    with pytest.raises(WorkersError, match="1: this module is compiled by torch"):
        own(f"{write(source)}:f")


def test_remarks_are_made_before_a_search_begins(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """Row S6: a module shared at several widths, whose channels share each parameter, and what else is to be known."""
    name = f"{write(GATED)}:Net"
    session.check(Config.of(model=name, baselines=("relu",), pool="inline"))
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"model '{name}': gate: Sigmoid stays, because it is a gate: its output multiplies another value",
        f"model '{name}': act: one module called with 8 and 16 channels, so all channels share each parameter",
    ]


@pytest.mark.parametrize(
    ("model", "message"), [("resnet8", "model 'resnet8' is not one"), ("own", "takes `activation`")]
)
def test_match_where_there_is_nothing_to_choose(write: Write, model: str, message: str) -> None:
    name = f"{write(FACTORY)}:network" if model == "own" else model
    with pytest.raises((WorkersError, ConfigError), match=f"{message}.*leave (it|--match) out"):
        session.check(Config.of(model=name, match="act", baselines=("relu",), pool="inline"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_net_nowhere:f", "model 'own_net_nowhere:f': no module 'own_net_nowhere'.*lie in the current directory"),
        ("net.py:f", "'net.py' is no name of a module; write it as in package.module"),
        (":f", "'' is no name of a module"),
    ],
)
def test_modules_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(WorkersError, match=message):
        own(name)


def test_maxout_cannot_be_put_into_a_finished_network(write: Write) -> None:
    with pytest.raises(WorkersError, match=r"takes no `activation`.*activation\.expansion"):
        own(f"{write(NET)}:Net", "maxout")


# The example


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("own_network", ROOT / "examples" / "own_network.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "own_network", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("function", "sites"), [("Net", 4), ("replaced", 4), ("network", 3)])
def test_the_example(example: Any, function: str, sites: int) -> None:
    model = own(f"own_network:{function}")
    assert sum(isinstance(module, Activation) and module.channels == 16 for module in model.modules()) == sites
    outcome = train(image_job(0, PRELU, model=f"own_network:{function}", recipe=Recipe(epochs=5)), CPU)
    assert outcome.verdict is Verdict.COMPLETE and outcome.metrics["val_acc"] > 0.3


def test_maxout_is_refused_before_a_search_begins(write: Write) -> None:
    settings = Config.of(model=f"{write(NET)}:Net", baselines=("relu", "maxout"), pool="inline")
    with pytest.raises(WorkersError, match="only functions of one number can be put"):
        session.check(settings)
    session.check(settings.replace(baselines=("relu",)))


def test_the_example_is_trained_on_its_own_data(example: Any) -> None:
    job = image_job(0, PRELU, dataset="own_network:shapes", model="own_network:network", recipe=Recipe(epochs=3))
    outcome = train(job, CPU)
    assert outcome.verdict is Verdict.COMPLETE and outcome.metrics["val_acc"] > 0.5


def test_the_example_takes_maxout_and_an_option(example: Any) -> None:
    model = own("own_network:network", "maxout(3)", layers=2)
    assert sum(isinstance(module, Maxout) for module in model.modules()) == 2


@pytest.mark.parametrize("kind", ["SystemExit", "GeneratorExit", "asyncio.CancelledError", "BaseException"])
@pytest.mark.parametrize(
    "source",
    [
        "raise {kind}('no')",
        "def network(classes): raise {kind}('no')",
        "class network(nn.Module):\n"
        "    def __init__(self, activation):\n        super().__init__()\n        self.act = activation(1)\n"
        "    def forward(self, x): raise {kind}('no')",
    ],
    ids=["import", "constructor", "forward"],
)
def test_whatever_a_network_raises_is_said(write: Write, source: str, kind: str) -> None:
    """Row R5: a BaseException where the search itself calls a user's code, before any worker does. A data set's
    function and a primitive's are called in the same way."""
    name = write(f"import asyncio\n{source.format(kind=kind)}")
    with pytest.raises(WorkersError, match=f"fails.*{kind.rpartition('.')[2]}: no"):
        own(f"{name}:network", "x")
    mute = "class Mute(Exception):\n    def __str__(self): raise {kind}"
    raising = source.replace("{kind}('no')", "Mute")
    name = write(f"import asyncio\n{mute}\n{raising}".format(kind=kind))
    with pytest.raises(WorkersError, match=r"fails.*Mute: \(its text cannot be had"):
        own(f"{name}:network", "x")


SITES = """
def gated(activation, classes):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 5 * activation.expansion), activation(5), nn.Linear(5, classes)
    )

def normed(activation, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), activation(5), nn.ReLU(), nn.Linear(5, classes))

gated.sites, normed.sites = ("gate",), ("norm",)
"""


def test_a_network_of_ones_own_says_at_which_sites_it_puts_the_function(write: Write) -> None:
    name = write(NET + SITES)
    for function, site, kind in (("gated", "gate", Gate), ("normed", "norm", ElementwiseNorm)):
        model = build(f"{name}:{function}", activation_of("tanh(x)", site), (1, 8, 8), 10)
        assert sum(isinstance(module, kind) for module in model.modules()) == 1
    for function, site in (("gated", "norm"), ("gated", "activation"), ("Net", "gate")):
        message = rf"--site {site}: model '{name}:{function}' offers no {site}.*{function}.sites = \(\"{site}\",\)"
        with pytest.raises(WorkersError, match=message):
            build(f"{name}:{function}", activation_of("tanh(x)", site), (1, 8, 8), 10)
