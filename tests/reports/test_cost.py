"""The measured cost of functions. Times are not compared: only what follows from how they are taken."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from search_space import Activation, parse
from searcher.commands import costs
from searcher.reports.cost import measure, saved_bytes, timed
from searcher.store.store import Store
from tests.support.commands import Cli
from tests.support.searches import completed

SHAPE = (2, 3, 4, 4)


def test_costs_say_where_they_were_measured() -> None:
    relu, swish = measure(["max(x, 0)", "swish"], shape=SHAPE, rounds=2)
    assert (relu.forward_ratio, relu.both_ratio, relu.note) == (1, 1, "")
    assert relu.forward_ns and relu.both_ns and relu.forward_ns > 0 and relu.both_ns > 0
    assert swish.forward_ns and swish.forward_ratio == pytest.approx(swish.forward_ns / relu.forward_ns)
    assert (swish.device.split()[0], swish.shape, swish.dtype, swish.threads) == (
        "cuda" if torch.cuda.is_available() else "cpu",
        SHAPE,
        "float32",
        1,
    )


@pytest.mark.parametrize(
    ("function", "tensors"),
    [
        ("max(x, 0)", 1),  # its own result
        ("x * sigmoid(x)", 1),  # x
        ("tanh(x)", 1),  # its own result
        ("sin(x) * tanh(x)", 3),  # x, sin(x), tanh(x)
        ("x", 0),
        ("1", 0),
    ],
)
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.float64, 8)])
def test_memory_for_backward_is_exact(function: str, tensors: int, dtype: torch.dtype, size: int) -> None:
    (cost,) = measure([function], torch.device("cpu"), shape=SHAPE, dtype=dtype, rounds=1)
    assert cost.saved_bytes == tensors * size


def test_parameters_are_not_memory_for_backward() -> None:
    """Seen to fail when parameters count."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    assert saved_bytes(Scaled(), torch.ones(SHAPE, requires_grad=True)) == 4
    with_beta = Activation(parse("tanh(beta * x)"), 3)
    assert saved_bytes(with_beta, torch.ones(SHAPE, requires_grad=True)) >= 8


def test_what_cannot_be_measured_says_why() -> None:
    relu, maxout, unknown, broken = measure(["relu", "maxout(3)", "my_own(x)", "max(x"], shape=SHAPE, rounds=1)
    assert relu.forward_ratio == 1
    assert "3 times as wide" in maxout.note
    assert "unknown name 'my_own'" in unknown.note and "\n" not in unknown.note
    assert broken.note
    for cost in (maxout, unknown, broken):
        assert cost.forward_ns is cost.both_ns is cost.forward_ratio is cost.both_ratio is cost.saved_bytes is None


def test_a_measurement_changes_nothing_else() -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    measure(["relu"], torch.device("cpu"), shape=SHAPE, rounds=1, threads=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == 1


def test_each_way_is_timed_in_each_round_and_gradients_are_dropped() -> None:
    calls: list[str] = []
    weight = torch.ones(1, requires_grad=True)

    def noting(name: str) -> torch.nn.Module:
        class Noting(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                calls.append(name)
                return x * weight

        return Noting()

    x = torch.ones(10**7, requires_grad=True)  # so many that a round is one pass
    parts: list[float] = []
    ways = {name: noting(name) for name in "ab"}
    times = timed(ways, x, 3, backward=True, clear=[weight], warm_up=1, tell=parts.append)
    assert [sorted(calls[i : i + 2]) for i in range(0, 8, 2)] == [["a", "b"]] * 4
    assert {name: len(taken) for name, taken in times.items()} == {"a": 3, "b": 3}
    assert x.grad is weight.grad is None
    assert parts == [0.25, 0.5, 0.75, 1]


def test_top_shows_costs(cli: Cli, sqlite_url: str) -> None:
    store = Store(sqlite_url, create=True)
    study, _ = completed(store)
    store.close()
    done = cli("top", study.name, "--storage", sqlite_url, "--cost", "--limit", "3", "-f", "json")
    rows = json.loads(done.stdout)
    assert len(rows) == 3
    for row in rows:
        assert row["cost_forward_ns"] > 0 and row["cost_both_ratio"] > 0 and row["cost_saved_bytes"] >= 0
        assert row["cost_shape"] and row["cost_device"] and row["cost_threads"] == 1
    assert "cost" not in cli("top", study.name, "--storage", sqlite_url, "-f", "json").stdout
    table = cli("top", study.name, "--storage", sqlite_url, "--cost", "--limit", "3").stdout
    assert "with backward" in table and "float32, input" in table


def test_the_number_of_measured_functions_is_limited(cli: Cli, sqlite_url: str) -> None:
    assert costs.checked(None) == 50
    assert costs.checked(1000) == 1000
    store = Store(sqlite_url, create=True)
    study, _ = completed(store)
    store.close()
    done = cli("top", study.name, "--storage", sqlite_url, "--cost", "--limit", "1001")
    assert (done.returncode, done.stderr) == (
        2,
        "searcher: --cost measures up to 1,000 functions, each for a tenth of a second; lower --limit\n",
    )
