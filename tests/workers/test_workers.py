"""Workers: data, the training loop, what travels, what is imported."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from search_space import KNOWN, ParseError
from tests.support import ROOT
from tests.support.made import changed, complete, image_config, image_job, point
from workers.contract import Job, Outcome, Verdict, WorkersError
from workers.pools.base import evaluate, guarded
from workers.tasks.images.config import SCHEDULES, Recipe
from workers.tasks.images.data import load
from workers.tasks.images.models import build, parameter_count
from workers.tasks.images.networks.sites import activation_of
from workers.tasks.images.recipes import RECIPES
from workers.tasks.images.train import (  # parts that need a GPU to be seen
    Ended,
    _check_finite,
    _Child,
    _learning_rates,
    _LossCheck,
    train,
)

pytestmark = pytest.mark.slow

torch.set_num_threads(1)

CPU = torch.device("cpu")
RELU = activation_of("max(x, 0)")
QUICK = image_job(0, "max(x, 0)", recipe=Recipe(epochs=1))
PATIENCE = 60.0  # seconds after which a test stops waiting


def untimed(outcome: Outcome) -> Outcome:
    """All that a job's seeds determine."""
    return replace(outcome, seconds=0.0, worker="")


# Training


def test_the_same_job_gives_the_same_bits() -> None:
    job = changed(QUICK, expression="x * sigmoid(beta * x)")
    first = untimed(train(job, CPU))
    torch.rand(7)  # whatever else uses torch's generator between two jobs
    assert untimed(train(job, CPU)) == first
    assert untimed(train(changed(job, number=5), CPU)) == first
    assert train(changed(job, seed=1), CPU).curve != first.curve
    assert train(changed(job, split_seed=1), CPU).curve != first.curve


def test_the_seed_is_also_that_of_the_order_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def same_weights(*args: Any, **kwargs: Any) -> nn.Module:
        torch.manual_seed(0)
        return build(*args, **kwargs)

    monkeypatch.setattr("workers.tasks.images.train.build", same_weights)
    one, other, again = (untimed(train(changed(QUICK, seed=seed), CPU)) for seed in (0, 1, 0))
    assert one == again != other


def test_relu_learns_digits() -> None:
    outcome = train(changed(QUICK, recipe=Recipe(epochs=3)), CPU)
    assert outcome.verdict is Verdict.COMPLETE and outcome.reason == ""
    assert 0.9 < outcome.metrics["val_acc"] <= 1
    assert 0 < outcome.metrics["val_loss"] < 0.4
    assert [point.step for point in outcome.curve] == [1, 2, 3]
    assert (outcome.curve[-1].metrics["val_loss"], outcome.curve[-1].metrics["val_acc"]) == (
        outcome.metrics["val_loss"],
        outcome.metrics["val_acc"],
    )
    assert outcome.curve[-1].metrics["train_loss"] < outcome.curve[0].metrics["train_loss"]
    assert all(
        math.isfinite(v)
        for p in outcome.curve
        for v in (p.metrics["train_loss"], p.metrics["val_loss"], p.metrics["val_acc"])
    )
    assert outcome.parameters == parameter_count(build("resnet8", RELU, (1, 8, 8), 10, width=8))


def test_the_loop_does_what_the_ordinary_one_does() -> None:
    """The same losses as of a DataLoader, torch's own schedule, and batches in the contiguous format."""
    recipe = Recipe(epochs=2, batch_size=100)
    job = image_job(0, "x * sigmoid(x)", recipe=recipe)  # smooth: rounding does not grow in twenty steps
    data = load("digits", 0, CPU)
    torch.manual_seed(job.seed)
    network = build("resnet8", activation_of(job.expression), data.shape, data.classes)
    optimizer = torch.optim.SGD(
        network.parameters(), momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
    )
    schedule = OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=20, pct_start=recipe.warmup, cycle_momentum=False
    )
    images, labels = data.train.batch(torch.arange(len(data.train)))
    draw, losses = torch.Generator().manual_seed(job.seed), []
    for _ in range(recipe.epochs):
        epoch = []
        for rows in torch.randperm(len(data.train), generator=draw).split(recipe.batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images[rows].contiguous()), labels[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
            epoch.append(loss.item())
        losses.append(sum(epoch) / len(epoch))
    curve = train(job, CPU).curve
    assert [point.metrics["train_loss"] for point in curve] == pytest.approx(losses, rel=1e-4)


# What the paper's search found (table 1 and 2), and all that is known but what has no gradient.
DISCOVERIES = (
    "x * sigmoid(beta * x)",
    "max(x, sigmoid(x))",
    "cos(x) - x",
    "min(x, sin(x))",
    "atan(x)^2 - x",
    "max(x, tanh(x))",
    "sinc(x) + x",
    "x * asinh(x)^2",
)
TRAINABLE = [row.expression for row in KNOWN.values() if row.name not in ("sign", "heaviside")]


@pytest.mark.parametrize("expression", [*DISCOVERIES, *TRAINABLE])
def test_the_functions_of_the_paper_and_all_that_are_known_train(expression: str) -> None:
    """Some grow so fast that their gradients must be cut: the child has no normalisation after its sums."""
    steep = ("x * asinh(x)^2", KNOWN["squared_relu"].expression, KNOWN["xielu"].expression)
    recipe = Recipe(epochs=4, clip_norm=1.0 if expression in steep else 0.0)
    outcome = train(image_job(0, expression, recipe=recipe), CPU)
    assert outcome.verdict is Verdict.COMPLETE
    assert outcome.metrics["val_acc"] > 0.15, "a guess has 0.1, give or take 0.013"


# Recipes


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_every_recipe_trains(recipe: Recipe) -> None:
    short = {"steps": 12} if recipe.steps else {"epochs": 2}
    small = changed(QUICK, width=4, recipe=replace(recipe, batch_size=100, **short))
    outcome = train(small, CPU)
    assert outcome.verdict is Verdict.COMPLETE and len(outcome.curve) == 2
    assert outcome.curve[1].metrics["train_loss"] < outcome.curve[0].metrics["train_loss"]


def test_learning_rates_are_those_that_were_published() -> None:
    he = _learning_rates(replace(RECIPES["he2016"], steps=64_000), 64_000, 45_000 // 128)
    assert he[0] == 0.1 and he[-1] == pytest.approx(0.001)
    first, second = (next(i for i, rate in enumerate(he) if rate < 0.1 * 0.5 * 10**-k) for k in (0, 1))
    assert (first, second) == (31_941, 47_912), "32,000 and 48,000 of batches that are not all full"
    wide = _learning_rates(RECIPES["wrn"], 200 * 10, 10)
    assert [wide[10 * epoch] for epoch in (59, 60, 120, 160)] == pytest.approx([0.1, 0.02, 0.004, 0.0008])
    assert [round(rate, 9) for rate in _learning_rates(RECIPES["densenet"], 300, 1)][149:151] == [0.1, 0.01]
    cycle = _learning_rates(RECIPES["onecycle"], 100, 10)
    assert max(cycle) == cycle[19] == pytest.approx(0.4) and cycle[-1] < 1e-4
    cosine = _learning_rates(Recipe(schedule="cosine"), 100, 10)
    assert cosine[0] == 0.1 and cosine[50] == pytest.approx(0.05)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_short_runs_have_a_learning_rate(schedule: str) -> None:
    for steps in range(1, 30):
        for warmup in (0.0, 0.25, 0.5, 1.0):
            found = _learning_rates(Recipe(schedule=schedule, warmup=warmup), steps, 3)
            assert all(0 < rate <= 0.1 + 1e-9 for rate in found), (steps, warmup, found)


def test_steps_end_within_an_epoch() -> None:
    child = _Child(changed(QUICK, recipe=Recipe(steps=23, batch_size=100)), load("digits", 0, CPU), CPU)
    steps: list[int] = []
    child.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    assert [point.step for point in child.epochs(0, lambda: None)] == [1, 2, 3]
    assert len(steps) == 23


def test_bfloat16_and_label_smoothing() -> None:
    plain = train(QUICK, CPU).curve[0]
    half = train(changed(QUICK, recipe=Recipe(epochs=1, precision="bfloat16")), CPU).curve[0]
    assert half != plain and half.metrics["train_loss"] == pytest.approx(plain.metrics["train_loss"], rel=0.1)
    smoothed = train(changed(QUICK, recipe=Recipe(epochs=1, label_smoothing=0.5)), CPU).curve[0]
    assert smoothed.metrics["train_loss"] > plain.metrics["train_loss"] + 0.3


def test_activations_are_compiled_where_it_pays_if_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[nn.Module, torch.Size, int]] = []
    monkeypatch.setattr(
        "workers.tasks.images.train.compile_where_it_pays",
        lambda model, images, passes: asked.append((model, images.shape, passes)),
    )
    data = load("digits", 0, CPU)
    _Child(QUICK, data, CPU)
    assert not asked
    child = _Child(changed(QUICK, compile=True, recipe=Recipe(epochs=3, batch_size=100)), data, CPU)
    assert asked == [(child.model, torch.Size([100, 1, 8, 8]), 30)]


def test_long_gradients_are_cut_to_the_norm() -> None:
    child = _Child(changed(QUICK, recipe=Recipe(epochs=1, clip_norm=0.01)), load("digits", 0, CPU), CPU)
    norms = []
    child.optimizer.register_step_pre_hook(
        lambda *_: norms.append(sum(float(p.grad.square().sum()) for p in child.model.parameters()) ** 0.5)
    )
    next(child.epochs(0, lambda: None))
    assert len(norms) == 15 and max(norms) == pytest.approx(0.01, rel=1e-3)


def test_a_search_never_sees_the_test_part(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("digits", 0, CPU)
    pixels = replace(data.test.pixels, mean=data.test.pixels.mean * math.nan)
    poisoned = replace(data, test=replace(data.test, pixels=pixels))
    monkeypatch.setattr("workers.tasks.images.train.load", lambda *_: poisoned)
    spoiled = train(QUICK, CPU)
    monkeypatch.undo()
    assert untimed(spoiled) == untimed(train(QUICK, CPU))


@pytest.mark.parametrize(
    "expression", ["exp(exp(x))", "sqrt(x)", "x / 0", "log(x)", "sqrt(-1)", "max(x, 1e300)", "1e30 * x^3"]
)
def test_bad_mathematics_is_infeasible_and_stops_at_once(expression: str) -> None:
    outcome = train(changed(QUICK, expression=expression, recipe=Recipe(epochs=8)), CPU)
    assert outcome.verdict is Verdict.INFEASIBLE
    where = re.fullmatch(r"training loss is not finite at epoch (\d+), step (\d+)", outcome.reason)
    assert where is not None, outcome.reason
    steps = (int(where[1]) - 1) * (1000 // 64) + int(where[2])
    assert 1 <= steps <= 50 and len(outcome.curve) == int(where[1]) - 1
    assert outcome.metrics == {} and outcome.parameters


@pytest.mark.parametrize("expression", ["1", "beta", "0 * x"])
def test_a_constant_trains_to_nothing(expression: str) -> None:
    outcome = train(changed(QUICK, expression=expression), CPU)
    assert outcome.verdict is Verdict.COMPLETE
    assert outcome.metrics["val_acc"] < 0.3


def test_validation_that_is_not_finite_is_infeasible(monkeypatch: pytest.MonkeyPatch) -> None:
    right = F.cross_entropy

    def spoiled(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
        return right(logits, labels, **options) * (math.nan if options.get("reduction") == "sum" else 1)

    monkeypatch.setattr(F, "cross_entropy", spoiled)
    outcome = train(QUICK, CPU)
    assert outcome.verdict is Verdict.INFEASIBLE and outcome.curve == ()
    assert outcome.reason == "validation loss is not finite after epoch 1"
    assert outcome.metrics == {}


def test_a_job_whose_time_is_up_has_failed() -> None:
    started = time.monotonic()
    outcome = train(changed(QUICK, recipe=Recipe(epochs=10_000), timeout_seconds=0.3), CPU)
    assert outcome.verdict is Verdict.FAILED and outcome.reason == "timed out after 0.3 s"
    assert outcome.metrics == {}
    assert time.monotonic() - started < 20


def test_a_job_that_nobody_wants_any_more_has_failed() -> None:
    answers = iter([False, False, True])
    outcome = train(QUICK, CPU, stopped=lambda: next(answers))
    assert outcome.verdict is Verdict.FAILED and outcome.reason == "stopped"
    assert list(answers) == [] and outcome.curve == ()


@pytest.mark.parametrize(
    ("change", "error"),
    [({"expression": "x +"}, ParseError), ({"dataset": "digit"}, WorkersError), ({"model": "resnet9"}, WorkersError)],
)
def test_a_job_that_names_what_there_is_not(change: dict[str, str], error: type[Exception]) -> None:
    job = changed(QUICK, **change)  # type: ignore[arg-type]
    with pytest.raises(error):
        train(job, CPU)
    outcome = guarded(evaluate, job)
    assert outcome.verdict is Verdict.FAILED and outcome.reason.startswith(f"{error.__name__}: ")


@pytest.fixture
def optimizers(monkeypatch: pytest.MonkeyPatch) -> list[torch.optim.Optimizer]:
    """Every SGD that training makes."""
    made: list[torch.optim.Optimizer] = []

    class Kept(torch.optim.SGD):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(torch.optim, "SGD", Kept)
    return made


def test_parameters_of_activations_move_and_are_not_decayed(optimizers: list[torch.optim.Optimizer]) -> None:
    """beta1 has a slope; beta2 has slope 0, so that nothing but weight decay could move it."""
    job = changed(QUICK, expression="x * sigmoid(beta * x) + 0 * beta", recipe=Recipe(epochs=1, weight_decay=0.1))
    assert train(job, CPU).verdict is Verdict.COMPLETE
    optimizer = optimizers[0]  # the other one is that of the learning rates
    decayed, free = optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert [beta.shape for beta in free["params"]] == [(n,) for width in (8, 8, 8, 16, 16, 32, 32) for n in 2 * [width]]
    for moved, kept in zip(free["params"][::2], free["params"][1::2], strict=True):
        assert bool((moved != 1).any()) and bool((kept == 1).all())
    sizes = sum(p.numel() for p in decayed["params"])
    assert sizes == parameter_count(build("resnet8", RELU, (1, 8, 8), 10, width=8)), "everything else is decayed"


def test_without_parameters_of_activations_there_is_one_group(optimizers: list[torch.optim.Optimizer]) -> None:
    train(QUICK, CPU)
    [group] = optimizers[0].param_groups
    recipe = image_config(QUICK).recipe
    assert (group["weight_decay"], group["momentum"], group["nesterov"]) == (recipe.weight_decay, recipe.momentum, True)


@pytest.mark.parametrize(("bad", "seen_after"), [(1, 50), (25, 50), (26, 75), (50, 75), (51, 100)])
def test_a_gpu_is_50_steps_ahead_at_most(monkeypatch: pytest.MonkeyPatch, bad: int, seen_after: int) -> None:
    """Seen to fail with twice as many steps looked at together. The events of CUDA are stood in for: nothing runs
    ahead here."""
    monkeypatch.setattr(torch.cuda, "Event", MagicMock)
    losses = torch.ones(100)
    watch = _LossCheck(losses, 3, later=True)
    with pytest.raises(Ended, match=f"epoch 3, step {bad}$"):
        for launched in range(1, 101):
            losses[launched - 1] = math.nan if launched == bad else 1.0
            watch(launched)
    assert launched == seen_after <= bad + 50


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_bad_step_is_named_when_several_are_looked_at_at_once(bad: float) -> None:
    losses = torch.tensor([1.0, 2.0, bad, 3.0, math.nan])
    with pytest.raises(Ended, match="epoch 4, step 23"):
        _check_finite(losses, 4, 20)
    with pytest.raises(Ended, match="epoch 1, step 3"):
        _check_finite(losses[:3], 1, 0)
    _check_finite(losses[:2], 1, 0)


def test_an_exception_becomes_a_failure_with_its_text() -> None:
    def broken(job: Job) -> Outcome:
        raise ZeroDivisionError(f"job {job.number}")

    def refused(job: Job) -> Outcome:
        raise WorkersError(f"no job {job.number}")

    failed = guarded(broken, QUICK)
    assert failed.verdict is Verdict.FAILED and failed.reason.startswith("ZeroDivisionError: job 0\n  File ")
    assert 'raise ZeroDivisionError(f"job' in failed.reason
    assert untimed(guarded(refused, QUICK)) == Outcome(Verdict.FAILED, reason="WorkersError: no job 0")
    assert guarded(lambda job: Outcome(Verdict.COMPLETE, image_config(job).model), QUICK).reason == "resnet8"


# What travels


def test_jobs_and_outcomes_travel_as_text() -> None:
    job = changed(QUICK, recipe=Recipe(epochs=3, learning_rate=0.1 + 0.2), timeout_seconds=1.5, primitives=("a", "b"))
    points = (point(1, 0.1, 1e-30, 0.25), point(2, 7.0, 1 / 3, 0.5))
    outcome = complete(1 / 3, curve=points, parameters=42, seconds=0.1, worker="a:1")
    failed = Outcome(Verdict.FAILED, reason='ValueError: "\n é')
    assert Job.from_json(job.to_json()) == job
    assert [Outcome.from_json(o.to_json()) for o in (outcome, failed)] == [outcome, failed]
    assert isinstance(Outcome.from_json(failed.to_json()).verdict, Verdict)


# What is imported

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "optuna", "sqlalchemy", "alembic", "typer"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def test_the_contract_needs_the_standard_library_only() -> None:
    heavy = "{'torch', 'ray', 'numpy', 'sklearn'}"
    done = python(f"import sys, workers.contract; print(sorted({heavy} & set(sys.modules)))")
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_bare_host_trains_without_ray_and_sql() -> None:
    done = python(
        BLOCK
        + "import workers.tasks.images.train\n"
        + "from workers.contract import Job\n"
        + "from workers.tasks.images.config import ImageConfig, Recipe\n"
        + "from workers.pools.base import InlinePool\n"
        + "pool = InlinePool()\n"
        + "pool.submit(Job(0, 'max(x, 0)', task=ImageConfig(recipe=Recipe(epochs=1)).task_config()))\n"
        + "[(job, outcome)] = pool.wait(60)\n"
        + "pool.close()\n"
        + "print(outcome.verdict, outcome.reason)\n"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "COMPLETE"), done.stderr


def test_the_block_works() -> None:
    done = python(BLOCK + "import workers.pools.ray_actors")
    assert done.returncode == 1 and "ImportError: ray is blocked" in done.stderr
