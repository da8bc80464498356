"""What trainings make of the parameters of functions: kept, shown, and used again."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import searcher
from search_space import Activation
from searcher.reports.learned import NothingLearned
from tests.support.commands import Cli
from tests.support.made import complete, image_job, learned
from workers.contract import Declaration, Outcome, Verdict
from workers.learned import LARGEST_SITE, learned_parameters
from workers.tasks.base import Ended
from workers.tasks.images import train as images
from workers.tasks.images.config import DECLARATION
from workers.validation import validated

PRELU = "max(x, 0) + 0.25 * beta * min(x, 0)"
WIDE = LARGEST_SITE // 4 + 1  # channels, too many to keep
trained: list[nn.Module] = []  # the networks and activations of the trainings in this process, in their order


class Net(nn.Module):
    """Two sites: one whose parameters are kept, and one with too many."""

    def __init__(self, activation: Any, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), activation(8), nn.Linear(8, WIDE), activation(WIDE))
        self.head = nn.Linear(WIDE, classes)
        trained.append(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


def task(activation: Any, report: Any) -> dict[str, float]:
    """Train deep copies of what was made, as programs do that keep a template."""
    template = nn.Sequential(nn.Linear(1, 4), activation(4), nn.Linear(4, 4), activation(4, dim=-1), nn.Linear(4, 1))
    net = copy.deepcopy(template)
    trained.extend([net[1], net[3]])
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    x = torch.linspace(-1, 1, 16)[:, None]
    for step in range(1, 6):
        loss = (net(x) - x.square()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step, val_mse=loss.item())
    return {"val_mse": loss.item()}


task.metrics = {"val_mse": "minimize"}  # type: ignore[attr-defined]


def uneven(activation: Any, report: Any) -> dict[str, float]:
    activation(1)(torch.ones(1, 1))
    report(1, train_mse=1.0)
    report(2, val_mse=0.25)
    return {"val_mse": 0.25}


uneven.metrics = {"val_mse": "minimize", "train_mse": "minimize"}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('learned')}/learned.db"


@pytest.fixture(scope="module")
def study(storage: str) -> searcher.Study:
    trained.clear()
    return searcher.search(
        storage=storage,
        study_name="net",
        pool="inline",
        model=f"{__name__}:Net",
        baselines=("prelu", "relu"),
        n_trials=4,
        sampler="random",
        unary="x,sin",
        epochs=2,
        limit_train=300,
    )


def test_the_module_from_the_store_is_the_one_of_the_network(study: searcher.Study) -> None:
    """Bit for bit, in the storage's JSON too. Seen to fail with values rounded to six digits."""
    net = next(net for net in trained if net.body[2].betas and bool((net.body[2].betas[0] != 1).all()))
    made = study.activation(0, "body.2")
    x = torch.randn(50, 8)
    assert torch.equal(made(x), net.body[2](x)) and made.dim == net.body[2].dim
    records = study.learned(0)
    assert [(one.site, one.parameter, one.channels, len(one.values)) for one in records] == [
        ("body.2", "beta", 8, 8),
        ("body.4", "beta", WIDE, 0),
    ]
    wide = net.body[4].betas[0].detach().double()
    assert records[1].median == pytest.approx(float(wide.quantile(0.5)))
    assert records[1].mean == pytest.approx(float(wide.mean()))
    assert records[1].deviation == pytest.approx(float(wide.std(correction=0)))
    with pytest.raises(searcher.UsageError, match=f"of the {WIDE} channels at body.4 only statistics are kept"):
        study.activation(0, "body.4")
    with pytest.raises(searcher.UsageError, match=r"has no activation 'act'; accepted: body.2, body.4"):
        study.activation(0, "act")
    with pytest.raises(NothingLearned, match=r"max\(x, 0\) has no parameters"):
        study.activation(1, "body.2")
    assert study.learned(1) == []


def test_an_own_task_keeps_what_its_copies_learned(tmp_path: Path) -> None:
    """Seen to fail with the modules that were made instead of those that were called: all betas are 1."""
    trained.clear()
    study = searcher.search(
        task=task,
        storage=f"sqlite:///{tmp_path}/own.db",
        pool="inline",
        baselines=("prelu",),
        n_trials=2,
        unary="x,sin",
    )
    for site, module in zip("01", trained[:2], strict=True):
        x = torch.randn(7, 4)
        assert bool((module.betas[0] != 1).any())
        assert torch.equal(study.activation(0, site)(x), module(x))


def test_commands_show_what_was_learned(study: searcher.Study, storage: str, cli: Cli, tmp_path: Path) -> None:
    shown = cli("trial", "net", "0", "--storage", storage)
    assert "body.2" in shown.stdout and "quartiles" in shown.stdout
    assert re.search(r"^ +2 +\d\.\d{4} +\d\.\d{4} +\d\.\d{4} *$", shown.stdout, re.MULTILINE)
    (facts,) = json.loads(cli("trial", "net", "0", "-f", "json", "--storage", storage).stdout)
    assert facts["learned"][0]["values"] == list(study.learned(0)[0].values)

    shown = cli("show", "net", "0", "--plot", str(tmp_path / "f.svg"), "--storage", storage)
    assert shown.stdout.startswith(f"trial 0 of study net: {PRELU}, as learned")
    assert (tmp_path / "f.svg").stat().st_size > 1000
    rows = json.loads(cli("show", "net", "0", "-f", "json", "--storage", storage).stdout)
    assert [row["site"] for row in rows] == ["body.2", "body.4"]

    picture = json.loads(cli("plot", "net", "learned", "-f", "json", "--storage", storage).stdout)
    assert [(one["label"], len(one["sites"])) for one in picture["functions"]] == [("prelu", 2)]


def test_a_curve_is_shown_whose_points_lack_metrics(tmp_path: Path, cli: Cli) -> None:
    """Seen to fail with the columns of the first point only."""
    storage = f"sqlite:///{tmp_path}/own.db"
    searcher.search(task=uneven, storage=storage, study_name="s", pool="inline", baselines=("relu",), n_trials=2)
    shown = cli("trial", "s", "0", "--storage", storage).stdout
    assert re.search(r"step +train_mse +val_mse", shown) and re.search(r"^ +2 +0\.2500 *$", shown, re.MULTILINE)


def test_code_starts_from_what_was_learned(study: searcher.Study, storage: str, cli: Cli) -> None:
    x = torch.randn(20, 8)
    at_site = made_of(cli("code", "net", "0", "--at", "body.2", "--name", "g", "--storage", storage).stdout)
    frozen = made_of(cli("code", "net", "0", "--at", "body.2", "--frozen", "--name", "g", "--storage", storage).stdout)
    expected = study.activation(0, "body.2")(x)
    assert torch.allclose(at_site(x), expected) and torch.allclose(frozen(x), expected)
    assert len(list(at_site.parameters())) == 1 and not list(frozen.parameters()) and list(frozen.buffers())

    done = cli("code", "net", "0", "--name", "g", "--storage", storage)
    assert "the median over 2 sites with 8, 1025 channels" in done.stderr
    medians = [one.median for one in study.learned(0)]
    start = made_of(done.stdout).beta.item()
    assert start == pytest.approx(sum(medians) / 2, rel=1e-5) != 1
    constant = made_of(cli("code", "net", "0", "--frozen", "--name", "g", "--storage", storage).stdout)
    assert not constant.state_dict()
    assert torch.allclose(constant(x), made_of(done.stdout)(x))


def test_a_function_without_parameters_is_shown_and_written_as_it_is(
    study: searcher.Study, storage: str, cli: Cli
) -> None:
    assert isinstance(made_of(cli("code", "net", "1", "--name", "g", "--storage", storage).stdout), nn.Module)
    assert "max(x, 0)" in cli("show", "net", "1", "--storage", storage).stdout.splitlines()[0]


def made_of(text: str) -> nn.Module:
    namespace: dict[str, Any] = {"__name__": "made"}
    exec(text, namespace)
    module = namespace["G"]()
    assert isinstance(module, nn.Module)
    return module


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("code", "net", "0", "--at", "body.4"), "only statistics are kept"),
        (("code", "net", "0", "--at", "body.2", "--channels", "16"), "body.2 has 8 channels"),
        (("code", "net", "1", "--at", "body.2"), "has no parameters"),
        (("code", "net", "9"), "has no trial 9"),
        (("code", "nett", "0"), "no study 'nett'"),
        (("code", "relu", "--frozen"), "has no parameters; leave it out"),
        (("code", "swish", "--at", "act"), "searcher code STUDY NUMBER --at SITE"),
    ],
)
def test_what_cannot_be_had_is_said(
    study: searcher.Study, storage: str, cli: Cli, command: tuple[str, ...], said: str
) -> None:
    done = cli(*command, "--storage", storage)
    assert done.returncode in (1, 2) and said in done.stderr and not done.stdout


def test_a_parameter_that_is_not_finite_is_divergence() -> None:
    module = Activation("x * sigmoid(beta * x)", 3)
    with torch.no_grad():
        module.beta[1] = float("inf")
    with pytest.raises(Ended) as ended:
        learned_parameters([("act", module)])
    assert ended.value.verdict is Verdict.INFEASIBLE
    assert ended.value.reason == "diverged: beta of the activation act is not finite"


@pytest.mark.parametrize("name", ["val_loss", "test_loss"])
def test_a_loss_beyond_reason_is_divergence(name: str) -> None:
    images._check_diverged({"val_loss": 2.3, "test_loss": 2.3, name: 230.2}, 10)
    with pytest.raises(Ended, match=f"diverged: {name} is 1e\\+17 after the last epoch, more than 100 times"):
        images._check_diverged({"val_loss": 2.3, "test_loss": 2.3, name: 1e17}, 10)


def test_a_training_that_ends_absurdly_large_is_infeasible(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any training would: here the limit is so low that guessing is beyond it."""
    monkeypatch.setattr(images, "DIVERGED", 0.01)
    found = images.train(image_job(0, "max(x, 0)", limit_train=200, width=4), torch.device("cpu"))
    assert found.verdict is Verdict.INFEASIBLE and found.reason.startswith("diverged: val_loss is ")
    assert found.metrics == {} and found.learned == () and len(found.curve) == 8


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1], "a learned parameter is 1; accepted: records"),
        (7, "the learned parameters are 7; accepted: a list"),
        ([replace(learned("act", "beta", 1.0), median=float("nan"))], "median of the learned beta of act is nan"),
        ([replace(learned("act", "beta", 1.0), channels=0)], "number of channels of the learned beta of act is 0"),
        ([replace(learned("act", "beta", 1.0), values=(1.0, float("inf")))], "a value of the learned beta of act"),
        ([replace(learned("act", "beta", 1.0), site=3)], "is named (3, 'beta'); accepted: texts"),
    ],
)
def test_a_worker_that_returns_something_else_fails_the_trial(wrong: Any, said: str) -> None:
    declared: Declaration = DECLARATION
    found = validated(complete(0.5, learned=wrong), declared)
    assert found.verdict is Verdict.FAILED and said in found.reason
    good = complete(0.5, learned=(learned("act", "beta", 1.0, 0.25),))
    assert Outcome.from_json(good.to_json()) == good and validated(good, declared) == good
