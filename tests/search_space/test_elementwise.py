"""Which modules count as activations, because of what they compute."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space.elementwise import ACTIVATIONS, has_own_parameters, is_activation, maps_alike, range_of


def script(what: Any, compiler: Any = torch.jit.script, *args: Any) -> Any:
    """Compile with torch.jit, which torch calls deprecated, but many people use."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return compiler(what, *args)


class Wrapped(nn.Module):
    """A user's own module around a function."""

    def __init__(self, function: Callable[..., Any], **held: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class HandWritten(nn.Module):
    """A Swish with a sigmoid module. The whole module is the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Any:
        return x * self.sigmoid(x)


class OnImages(nn.Module):
    """An activation that accepts images only."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return F.gelu(x).view(n, c, h, w)


class Counting(nn.Module):
    """Scales by the number of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return F.relu(x) * self.calls


class InTraining(nn.Module):
    """Adds noise in training mode only."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + (torch.rand_like(x) if self.training else 0)


ALIKE: dict[str, nn.Module] = {
    "gelu": Wrapped(F.gelu),
    "tanh gelu by hand": Wrapped(lambda x: 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))),
    "quick gelu": Wrapped(lambda x: x * torch.sigmoid(1.702 * x)),
    "in place": Wrapped(lambda x: x.mul_(x.sigmoid())),
    "square of relu": Wrapped(lambda x: F.relu(x).square()),
    "sign": Wrapped(torch.sign),
    "logarithm, which is NaN below 0": Wrapped(torch.log),
    "sine": Wrapped(torch.sin),
    "hard shrink": Wrapped(F.hardshrink),
    "compiled": script(nn.Softplus()),
    "swish with a module": HandWritten(),
    "of images only": OnImages(),
    "threshold": nn.Threshold(0.1, 20),
}
OTHERS: dict[str, nn.Module] = {
    "identity": nn.Identity(),
    "scale": Wrapped(lambda x: 3 * x - 1),
    "constant": Wrapped(torch.zeros_like),
    "softmax": nn.Softmax(1),
    "softmax of images": nn.Softmax2d(),
    "log softmax": nn.LogSoftmax(-1),
    "gated linear unit": nn.GLU(1),
    "layer norm": nn.LayerNorm(6, elementwise_affine=False),
    "instance norm": nn.InstanceNorm2d(4),
    "response norm": nn.LocalResponseNorm(2),
    "batch norm": nn.BatchNorm2d(4, affine=False),
    "average pooling": nn.AvgPool2d(3, 1, 1),
    "max pooling": nn.MaxPool2d(3, 1, 1),
    "dropout": nn.Dropout(0.5),
    "dropout of nothing": nn.Dropout(0.0),
    "channel shuffle": nn.ChannelShuffle(2),
    "flatten": nn.Flatten(),
    "minus the mean": Wrapped(lambda x: F.relu(x) - x.mean()),
    "by the largest": Wrapped(lambda x: F.relu(x) / x.abs().max()),
    "positions": Wrapped(lambda x: F.relu(x) + torch.arange(x.shape[-1])),
    "shift": Wrapped(lambda x: F.relu(x).roll(1, -1)),
    "noise": Wrapped(lambda x: F.relu(x) + torch.rand(())),
    "noise in training": InTraining(),
    "state": Counting(),
    "pair": Wrapped(lambda x: (F.relu(x), x)),
    "another type": Wrapped(lambda x: F.relu(x).double()),
    "another shape": Wrapped(lambda x: F.relu(x)[None]),
    "failing": Wrapped(lambda x: x.nothing),
    "with a parameter": Wrapped(F.relu, scale=nn.Parameter(torch.ones(()))),
    "a container": nn.Sequential(nn.ReLU()),
    "a layer": nn.Linear(6, 6),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_module_that_maps_every_element_alike_is_an_activation(name: str) -> None:
    """Row S3: it is recognised by its outputs, whoever wrote it."""
    assert is_activation(ALIKE[name])


@pytest.mark.parametrize("name", OTHERS)
def test_other_modules_are_no_activations(name: str) -> None:
    assert not is_activation(OTHERS[name])


@pytest.mark.parametrize("cls", ACTIVATIONS[:-1], ids=lambda cls: cls.__name__)
def test_the_activations_of_torch_map_every_element_alike(cls: type[nn.Module]) -> None:
    """RReLU is an exception, because it draws random numbers. So torch's activations are recognised by their class."""
    assert is_activation(cls()) and maps_alike(cls()) == (cls is not nn.RReLU)


def test_asking_changes_nothing() -> None:
    module, random = Counting().eval(), torch.get_rng_state()
    assert not is_activation(module)
    assert module.calls == 0 and not module.training and torch.equal(torch.get_rng_state(), random)


def test_a_module_with_numbers_of_its_own_is_no_activation() -> None:
    """A module with one trained number is noticed, but it is not an activation that is replaced unasked."""
    swish = Wrapped(lambda x: x, beta=nn.Parameter(torch.tensor(1.5)))
    swish.function = lambda x: x * torch.sigmoid(swish.beta * x)
    assert has_own_parameters(swish) and not is_activation(swish)
    for module in (nn.PReLU(), nn.ReLU(), nn.BatchNorm1d(1), nn.Linear(1, 1), nn.LazyLinear(1), nn.Linear(6, 6)):
        assert not has_own_parameters(module)


@pytest.mark.parametrize("cls", ACTIVATIONS[:-1], ids=lambda cls: cls.__name__)
def test_ranges_of_the_activations_of_torch_are_those_that_their_values_show(cls: type[nn.Module]) -> None:
    module = cls().eval()
    measured, known = range_of(lambda x: module(x)), range_of(module)
    assert measured.bounded == known.bounded
    if known.bounded or not known.zero:
        assert (measured.signed, measured.zero) == (known.signed, known.zero)


@pytest.mark.parametrize(
    ("function", "bounded", "signed", "zero"),
    [
        (torch.atan, True, True, True),
        (torch.sin, True, True, True),
        (lambda x: torch.exp(-x * x), True, False, False),
        (lambda x: torch.log1p(x.abs()), False, False, True),
        (F.softplus, False, False, False),
        (lambda x: x * torch.sigmoid(x), False, True, True),
        (lambda x: x.nothing, False, True, True),
    ],
)
def test_ranges(function: Any, bounded: bool, signed: bool, zero: bool) -> None:
    found = range_of(function)
    assert (found.bounded, found.signed, found.zero) == (bounded, signed, zero)
