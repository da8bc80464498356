"""The mirror rule: a network with f and a network with its mirror, -f(-x), are trained alike.

If every hidden signal is negated, -f(-x) gives the negated output of f. Linear layers, normalisation, sums and average
pooling map negated inputs to negated outputs. So the network with the mirror computes the same as the network with f,
if some weights have the other sign: the weights of the first and the last layer, and all biases except the last
layer's. Initial weights are drawn symmetrically around 0, so the negated weights have the same probability. Therefore a
function and its mirror have the same distribution of results. With the same seed, their results differ.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_space import Activation, parse
from search_space.expression import Expression
from tests.support.made import image_config, image_job
from tests.support.networks import POOLINGS, SMALL, named
from workers.tasks.images.config import Recipe
from workers.tasks.images.data import load
from workers.tasks.images.models import NETWORKS, build
from workers.tasks.images.networks.pooling import FractionalPool, LpPool, SpatialPyramid, StochasticPool
from workers.tasks.images.networks.sites import activation_of
from workers.tasks.images.train import _Child  # its losses, step by step

CPU = torch.device("cpu")
STEPS = 6
TRANSFORMER = "vit-4-64"
FUNCTIONS = ("max(x, 0)", "x * sigmoid(beta * x)")
MORE_FUNCTIONS = ("max(x, 0) + expm1(min(x, 0))", "exp(-x^2) + beta * x", "min(max(x, 0), 6)", "cos(x) - beta")
Variant = tuple[str, dict[str, Any]]


def lecture(pooling: str, **options: Any) -> Variant:
    return "lecture", {"width": 4, "pooling": pooling, **options}


# Each network as it is shipped, but small, and further options that change its layers.
HOLDS: list[Variant] = [
    *((name, options) for name, options in SMALL.items() if name not in ("inception", "lecture", TRANSFORMER)),
    ("wrn-28-10", {"width": 2, "depth": 10, "widen": 1, "dropout": 0.3}),
    ("densenet-100-12", {"width": 3, "depth": 7, "dropout": 0.2}),
    ("all-cnn", {"width": 8, "norm": True}),
    *(lecture(pooling, head=head) for pooling in ("average", "strided", "lp") for head in ("fc", "gap")),
    lecture("average", norm=False),
    lecture("lp", p=3, stages=3),
]
BREAKS: list[tuple[Variant, type[nn.Module], str]] = [
    (("inception", SMALL["inception"]), nn.MaxPool2d, "the greatest of negated values is not the negated greatest"),
    (("inception", {"width": 4, "reduction": False}), nn.MaxPool2d, "maximum pooling in each module"),
    (lecture("max"), nn.MaxPool2d, "maximum pooling between stages"),
    (lecture("stochastic"), StochasticPool, "draws larger values more often, and negative ones hardly ever"),
    (lecture("fractional"), FractionalPool, "maximum pooling of random windows"),
    (lecture("spatial_pyramid"), SpatialPyramid, "maximum pooling of each cell"),
]
ODD = (nn.AvgPool2d(2), nn.Dropout(0.5).eval(), nn.BatchNorm2d(3, affine=False), nn.LayerNorm(8))
EVEN = (LpPool(2), LpPool(3))
NEITHER = (nn.MaxPool2d(2), StochasticPool().eval(), FractionalPool().eval(), SpatialPyramid(), nn.Sigmoid())


def mirror(text: str) -> str:
    """Return -f(-x), operation by operation."""

    def negated(node: Expression, args: tuple[Expression, ...]) -> Expression:
        return Expression("neg", (node,)) if node.op == "x" else Expression(node.op, args, node.value)

    return f"-({parse(text).fold(negated)})"


def child(variant: Variant, function: str, site: str = "activation") -> _Child:
    name, options = variant
    recipe = Recipe(batch_size=16, learning_rate=0.05, label_smoothing=0.1, clip_norm=2.0)
    job = image_job(0, function, model=name, model_kwargs=options, site=site, limit_train=160, recipe=recipe)
    return _Child(job, load("digits", 0, CPU, "", image_config(job).limit_train), CPU)


def mirror_weights(source: nn.Module, target: nn.Module) -> set[str]:
    """Give the target the source's weights, with signs changed as the mirror requires. Return the names of the negated
    weights.

    Lp pooling ignores signs. So its output is not negated, and the layer after it must have the other sign too.
    """
    layers = [(name, m) for name, m in target.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | LpPool)]
    linear = [name for name, module in layers if not isinstance(module, LpPool)]
    turned = {linear[0]} ^ {linear[-1]}
    for (_, before), (name, _) in pairwise(layers):
        turned ^= {name} if isinstance(before, LpPool) else set()
    negated = {f"{name}.weight" for name in turned}
    for name, module in target.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            negated |= {f"{name}.bias", f"{name}.running_mean"}
        elif name in linear[:-1] and module.bias is not None:
            negated.add(f"{name}.bias")
    state = {name: -value if name in negated else value for name, value in source.state_dict().items()}
    target.load_state_dict(state)
    return negated


def mirror_transformer(source: nn.Module, target: nn.Module, site: str) -> None:
    """Give a transformer the source's weights, with the signs that the mirror requires.

    At an activation or a gate, only the feed-forwards change. In the place of the norms, all signals between the blocks
    are negated: attention maps negated tokens to negated tokens, and the fixed activation gets the same input.
    """
    first, last = r"feed_forward\.0\.", r"feed_forward\.2\."
    patterns = {
        "activation": (first, last + "weight"),
        "gate": (first,),
        "norm": ("embed", "positions", first + "weight", last, "head.weight", r"(norm\d?|qkv|project)\.bias"),
    }[site]
    state = source.state_dict()
    negated = {name for name in state if any(re.search(pattern, name) for pattern in patterns)}
    target.load_state_dict({name: -value if name in negated else value for name, value in state.items()})


def losses(trained: _Child) -> list[float]:
    """Return the loss of each training step, and of the validation part at the end."""
    trained.model.train()
    found = []
    for step in range(STEPS):
        torch.manual_seed(step)  # for dropout and random pooling
        trained._set_rate(0.05)
        found.append(float(trained.step(*trained.data.train.batch(torch.arange(16 * step, 16 * step + 16)))))
    return [*found, trained._evaluate(trained.data.val)[0]]


def both(variant: Variant, function: str) -> tuple[list[float], list[float]]:
    original, image = child(variant, function), child(variant, mirror(function))
    with torch.no_grad():  # normalisation starts at 1 and 0, where a wrong sign would not be seen
        for norm in (m for m in original.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
    mirror_weights(original.model, image.model)
    return losses(original), losses(image)


@pytest.mark.slow
@pytest.mark.parametrize("variant", HOLDS, ids=named)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_mirror_is_trained_like_its_function(variant: Variant, function: str) -> None:
    """The losses agree step by step. Gradients, momentum, weight decay and clipping keep the signs, and running
    statistics change their signs."""
    original, image = both(variant, function)
    assert image == pytest.approx(original, rel=1e-5)


@pytest.mark.parametrize("site", ["activation", "gate", "norm"])
def test_it_holds_at_every_site_of_a_transformer(site: str) -> None:
    variant, function = (TRANSFORMER, SMALL[TRANSFORMER]), "max(x, 0) + 0.5 * tanh(beta * x)"
    original, image = child(variant, function, site), child(variant, mirror(function), site)
    with torch.no_grad():  # biases start at 0, where a wrong sign would not be seen
        for weights in (p for name, p in original.model.named_parameters() if name.endswith("bias")):
            weights.normal_(std=0.3)
    mirror_transformer(original.model, image.model, site)
    assert losses(image) == pytest.approx(losses(original), rel=1e-5)


def test_it_does_not_hold_for_the_norms_of_a_resnet() -> None:
    variant = ("resnet8", SMALL["resnet8"])
    original, image = child(variant, "tanh(x + 0.5)", "norm"), child(variant, mirror("tanh(x + 0.5)"), "norm")
    mirror_weights(original.model, image.model)
    assert max(abs(one - other) for one, other in zip(losses(original), losses(image), strict=True)) > 1e-3


@pytest.mark.parametrize("function", MORE_FUNCTIONS)
def test_it_holds_for_functions_of_all_kinds(function: str) -> None:
    """With kinks, with an even part, bounded, and with a constant."""
    original, image = both(("resnet8", SMALL["resnet8"]), function)
    assert image == pytest.approx(original, rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "pooling", "reason"), BREAKS, ids=lambda v: named(v) if isinstance(v, tuple) else ""
)
def test_where_the_law_does_not_hold(variant: Variant, pooling: type[nn.Module], reason: str) -> None:
    network = child(variant, "max(x, 0)").model
    assert any(isinstance(module, pooling) for module in network.modules()), reason
    original, image = both(variant, "max(x, 0)")
    assert max(abs(one - other) for one, other in zip(original, image, strict=True)) > 1e-3, reason


def test_every_network_and_pooling_is_judged() -> None:
    judged = [*HOLDS, (TRANSFORMER, SMALL[TRANSFORMER]), *(variant for variant, _, _ in BREAKS)]
    assert {name for name, _ in judged} == set(NETWORKS)
    assert {options["pooling"] for name, options in judged if name == "lecture"} == set(POOLINGS)
    assert "pooling" not in SMALL["lecture"]  # as shipped it has maximum pooling


@pytest.mark.parametrize("layer", [*ODD, *EVEN, *NEITHER], ids=repr)
def test_what_layers_make_of_negated_signals(layer: nn.Module) -> None:
    """An odd layer negates its output. After an even layer, the next linear layer can be negated instead. After other
    layers, the rule does not hold."""
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    once, negated = layer(x), layer(-x)
    assert torch.equal(negated, -once) == (layer in ODD)
    assert torch.equal(negated, once) == (layer in EVEN)


@pytest.mark.parametrize("variant", HOLDS, ids=named)
def test_initial_weights_are_drawn_symmetrically(variant: Variant) -> None:
    """So negated weights have the same probability. The biases of normalisation are 0, which has no sign."""
    drawn: dict[str, list[Tensor]] = {}
    name, options = variant
    for seed in range(8):
        torch.manual_seed(seed)
        network = build(name, activation_of("max(x, 0)"), (1, 8, 8), 10, options=options)
        weights = network.state_dict()
        for changed in mirror_weights(network, network):
            drawn.setdefault(changed, []).append(weights[changed].flatten())
    for changed, parts in drawn.items():
        together = torch.cat(parts)
        if together.any():
            standard_deviations = float(together.sum() / together.square().sum().sqrt())
            assert abs(standard_deviations) < 5, changed
        else:
            assert changed.endswith(("bias", "running_mean"))


def test_for_one_seed_the_results_differ() -> None:
    """The rule is about distributions. So the result of a function is never cited for its mirror."""
    variant = ("resnet8", SMALL["resnet8"])
    original, image = losses(child(variant, "max(x, 0)")), losses(child(variant, mirror("max(x, 0)")))
    assert max(abs(one - other) for one, other in zip(original, image, strict=True)) > 1e-3


@pytest.mark.parametrize("function", FUNCTIONS + MORE_FUNCTIONS)
def test_the_mirror_of_the_mirror_is_the_function(function: str) -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    once, twice = Activation(function), Activation(mirror(mirror(function)))
    torch.testing.assert_close(twice(x), once(x))
    torch.testing.assert_close(Activation(mirror(function))(x), -once(-x))
