"""Networks: sizes, shapes, activations of every kind at every site, options."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_space import (
    SITES,
    Activation,
    ElementwiseNorm,
    Gate,
    Maxout,
    ParseError,
    SpaceError,
    baseline,
    parameter_groups,
)
from tests.support.made import image_job
from tests.support.networks import POOLINGS, SMALL, named
from workers.contract import Verdict, WorkersError
from workers.tasks.images import config
from workers.tasks.images.config import Recipe
from workers.tasks.images.data import load
from workers.tasks.images.models import NETWORKS, build, parameter_count
from workers.tasks.images.networks.options import accepted, options_of
from workers.tasks.images.networks.pooling import FractionalPool, LpPool, SpatialPyramid, StochasticPool
from workers.tasks.images.networks.resnet import Block
from workers.tasks.images.networks.sites import Activations, activation_of
from workers.tasks.images.train import train

torch.set_num_threads(1)

CPU = torch.device("cpu")
RELU = activation_of("max(x, 0)")
PRELU = "max(x, 0) + beta * min(x, 0)"
KINDS = ("x * sigmoid(beta * x)", PRELU, "maxout", "maxout(3)")

# Each network made small. What is not named here is as published.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *SMALL.items(),
    ("resnet8", {"width": 4, "stem_stride": 2}),
    ("preresnet164", {"width": 3, "depth": 11, "stem_stride": 2}),
    ("wrn-28-10", {"width": 2, "depth": 10, "widen": 1, "dropout": 0.3, "stem_stride": 2}),
    ("densenet-100-12", {"width": 3, "depth": 7, "dropout": 0.2}),
    ("all-cnn", {"width": 8, "norm": True, "dropout": 0.0, "input_dropout": 0}),
    ("inception", {"width": 4, "reduction": False, "stem_stride": 2}),
    *(("lecture", {"width": 4, "pooling": pooling}) for pooling in POOLINGS),
    *(("lecture", {"width": 4, "pooling": pooling, "head": "gap"}) for pooling in POOLINGS[:-1]),
    ("lecture", {"width": 4, "padding": "valid"}),
    ("lecture", {"width": 4, "stride": 2, "kernel": 5}),
    ("lecture", {"width": 4, "dilation": 2, "norm": False}),
    ("lecture", {"width": 4, "stages": 1, "head": "gap"}),
    ("lecture", {"width": 4, "stages": 4, "pooling": "lp", "p": 3}),
    ("vit-4-64", {"width": 6, "depth": 1, "heads": 3, "patch": 3, "ffn": "plain"}),
]
IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]


every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=named)
every_network = pytest.mark.parametrize("name", NETWORKS)


def seeded(
    name: str, activation: Activations, shape: tuple[int, int, int], classes: int, options: dict[str, Any]
) -> nn.Module:
    torch.manual_seed(0)
    return build(name, activation, shape, classes, options=options)


# Sizes


@pytest.mark.parametrize(
    ("name", "millions", "exact"),
    [  # from the papers' tables; and to the last parameter, as counted from their descriptions
        ("resnet20", "0.27", 269_722),
        ("resnet32", "0.46", 464_154),
        ("resnet56", "0.85", 853_018),
        ("resnet110", "1.7", 1_727_962),
        ("preresnet164", "1.7", 1_703_258),
        ("wrn-28-10", "36.5", 36_479_194),
        ("densenet-100-12", "7.0", 6_979_642),
        ("all-cnn", "1.4", 1_369_738),
    ],
)
def test_published_sizes(name: str, millions: str, exact: int) -> None:
    with torch.device("meta"):
        size = parameter_count(build(name, RELU, (3, 32, 32), 10))
    assert size == exact
    digits = len(millions.partition(".")[2])
    assert f"{size / 1e6:.{digits}f}" == millions


def test_the_width_of_a_resnet_is_its_first_stage() -> None:
    assert parameter_count(build("resnet8", RELU, (1, 8, 8), 10, width=8)) == 19_074
    model = build("resnet20", RELU, (1, 8, 8), 10, width=4)
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [4] * 7 + [8] * 6 + [16] * 6


def test_reduction_makes_inception_smaller() -> None:
    with torch.device("meta"):
        reduced, naive = (
            parameter_count(build("inception", RELU, (3, 32, 32), 10, options={"reduction": r})) for r in (True, False)
        )
    assert reduced * 2 < naive


# Shapes and sites


@every_variant
@pytest.mark.parametrize("shape", IMAGES, ids=lambda shape: "x".join(map(str, shape)))
def test_shapes(variant: tuple[str, dict[str, Any]], shape: tuple[int, int, int]) -> None:
    model = seeded(variant[0], RELU, shape, 7, variant[1])
    assert model.training
    assert model(torch.randn(3, *shape)).shape == (3, 7)
    assert model.eval()(torch.randn(1, *shape)).shape == (1, 7)


@every_variant
@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_activation_of_the_right_width_at_each_site(variant: tuple[str, dict[str, Any]], kind: str) -> None:
    wanted = activation_of(kind)
    made: list[tuple[nn.Module, int]] = []
    seen: list[nn.Module] = []

    def make(channels: int, dim: int = 1) -> nn.Module:
        module = wanted(channels, dim)
        made.append((module, channels))

        def check(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
            seen.append(module)
            assert (args[0].shape[dim], out.shape[dim]) == (wanted.expansion * channels, channels)

        module.register_forward_hook(check)
        return module

    model = seeded(variant[0], replace(wanted, make=make), (1, 8, 8), 10, variant[1])
    sites = [module for module in model.modules() if isinstance(module, Activation | Maxout)]
    assert len(sites) == len(made) >= 1 and {id(m) for m in sites} == {id(m) for m, _ in made}
    seen.clear()
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    assert sorted(map(id, seen)) == sorted(map(id, sites)), "each is used once"
    assert all(p.grad is not None for p in model.parameters())
    if wanted.expansion == 1:
        plain = seeded(variant[0], RELU, (1, 8, 8), 10, variant[1])
        assert parameter_count(model) == parameter_count(plain) + sum(channels for _, channels in made)


@pytest.mark.parametrize(
    ("name", "options", "sites"),
    [
        ("resnet8", {}, 7),
        ("resnet20", {}, 19),
        ("preresnet164", {"depth": 164}, 163),
        ("wrn-28-10", {"depth": 28}, 25),
        ("densenet-100-12", {"depth": 100}, 99),
        ("all-cnn", {}, 8),
        ("lecture", {"head": "fc"}, 3),
        ("lecture", {"head": "gap"}, 2),
        ("lecture", {"head": "gap", "pooling": "strided"}, 3),
        ("vit-4-64", {"heads": 2}, 4),
    ],
)
def test_how_many_sites(name: str, options: dict[str, Any], sites: int) -> None:
    with torch.device("meta"):
        model = build(name, RELU, (3, 32, 32), 10, width=2, options=options)
    assert sum(isinstance(module, Activation) for module in model.modules()) == sites


def test_the_shortcut_goes_around_maxout_as_it_is() -> None:
    """A residual branch of zeros leaves the shortcut alone, whatever the number of pieces."""
    x = torch.randn(2, 4, 6, 6)
    for kind in ("x", "maxout(2)", "maxout(5)"):
        same, wider = Block(4, 4, 1, activation_of(kind)), Block(4, 8, 2, activation_of(kind))
        for block in (same, wider):
            nn.init.zeros_(block.norm2.weight)
        torch.testing.assert_close(same(x), x)
        out = wider(x)
        torch.testing.assert_close(out[:, 2:6], x[:, :, ::2, ::2])
        assert out.shape == (2, 8, 3, 3) and not out[:, :2].any() and not out[:, 6:].any()


@pytest.mark.parametrize("name", ["resnet8", "preresnet164", "densenet-100-12", "inception"])
def test_maxout_of_equal_pieces_is_the_identity(name: str) -> None:
    """A network with Maxout whose pieces are copies computes what the network with x does: the pieces are neighbours at
    every site, and sums and concatenations keep them so."""
    plain = seeded(name, activation_of("x"), (3, 8, 8), 10, SMALL[name])
    wide = seeded(name, activation_of("maxout(3)"), (3, 8, 8), 10, SMALL[name])
    for source, target in zip(plain.state_dict().values(), wide.state_dict().values(), strict=True):
        repeated = source if source.shape == target.shape else source.repeat_interleave(3, dim=0)
        target.copy_(repeated)
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(wide(x), plain(x), rtol=1e-4, atol=1e-4)


@every_variant
def test_the_seed_decides_the_weights(variant: tuple[str, dict[str, Any]]) -> None:
    one, again = (seeded(variant[0], RELU, (1, 8, 8), 10, variant[1]) for _ in range(2))
    other = build(variant[0], RELU, (1, 8, 8), 10, options=variant[1])
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))
    for module in one.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 500:
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert float(module.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.2)


@every_variant
def test_channels_last_computes_the_same(variant: tuple[str, dict[str, Any]]) -> None:
    model = seeded(variant[0], activation_of(PRELU), (3, 9, 9), 10, variant[1]).eval()
    x = torch.randn(2, 3, 9, 9)
    wanted = model(x)
    last = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(last(x.to(memory_format=torch.channels_last)), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("lecture", "vit-4-64")])
def test_images_of_one_pixel_and_oblong_ones(name: str) -> None:
    model = seeded(name, RELU, (1, 1, 1), 10, SMALL[name]).eval()
    for shape in ((1, 1, 1), (1, 5, 11)):
        assert model(torch.randn(2, *shape)).shape == (2, 10)


@every_variant
def test_no_convolution_of_one_pixel_has_a_stride(variant: tuple[str, dict[str, Any]]) -> None:
    """On CPUs torch 2.13 writes past its memory in the backward pass of some of them, channels_last."""
    model = seeded(variant[0], RELU, (1, 8, 8), 10, variant[1])
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert convolutions and not [m for m in convolutions if m.kernel_size == (1, 1) and m.stride != (1, 1)]


# Training


@pytest.mark.slow
@every_network
@pytest.mark.parametrize("kind", ["x * sigmoid(beta * x)", PRELU, "maxout"])
def test_every_network_trains_an_epoch(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the training loop itself, on 96 digits; each parameter moves, the loss of the images falls."""
    digits = load("digits", 0, CPU)
    few = replace(digits.train, rows=digits.train.rows[:96], labels=digits.train.labels[:96])
    images, labels = next(few.batches(96))
    # Six steps leave the statistics of BatchNorm far from their end, so deep networks have a huge loss in evaluation.
    monkeypatch.setattr("workers.tasks.images.train.DIVERGED", 1e9)
    monkeypatch.setattr("workers.tasks.images.train.load", lambda *_: replace(digits, train=few, val=few))
    kept: list[nn.Module] = []

    def small(name: str, activation: Activations, shape: Any, classes: int, *_: object) -> nn.Module:
        kept.append(build(name, activation, shape, classes, options={**SMALL[name], **free(name)}))
        return kept[-1]

    monkeypatch.setattr("workers.tasks.images.train.build", small)
    job = image_job(0, kind, model=name, recipe=Recipe(epochs=1, batch_size=16, learning_rate=0.02))
    outcome = train(job, CPU)
    assert outcome.verdict is Verdict.COMPLETE, outcome.reason
    torch.manual_seed(job.seed)
    before = small(name, activation_of(kind), (1, 8, 8), 10)
    after = kept[0]
    for (key, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        assert bool(torch.isfinite(new).all()) and not torch.equal(old, new), key
    with torch.no_grad():
        first, last = (nn.functional.cross_entropy(model.train()(images), labels) for model in (before, after))
    assert last < first or name == "resnet110", "six steps are few for 110 layers"


def free(name: str) -> dict[str, Any]:
    """Without dropout, so that losses before and after can be compared."""
    return {"dropout": 0.0, "input_dropout": 0.0} if name == "all-cnn" else {}


# Activations


def test_a_text_names_activations() -> None:
    swish = activation_of("x * sigmoid(beta * x)")
    module = swish(5)
    assert isinstance(module, Activation) and module.channels == 5 and swish.expansion == 1
    assert str(swish.expression) == "x * sigmoid(beta * x)" and swish(5) is not module
    for text, pieces in (("maxout", 2), ("maxout(2)", 2), (" maxout ( 5 ) ", 5)):
        found = activation_of(text)
        made = found(3)
        assert isinstance(made, Maxout) and (made.pieces, found.expansion, found.expression) == (pieces, pieces, None)
        assert (made.dim, getattr(found(3, dim=-1), "dim"), getattr(swish(5, dim=-1), "dim")) == (1, -1, -1)  # noqa: B009


def test_bad_names_of_activations() -> None:
    for text in ("maxout(x)", "max out", "maxout(-2)", "maxout()", "x +"):
        with pytest.raises(ParseError):
            activation_of(text)
    for pieces in (0, 1, 17):
        with pytest.raises(WorkersError, match=f"maxout takes 2 to 16 pieces, as in maxout\\(2\\), not {pieces}"):
            activation_of(f"maxout({pieces})")


# Gates and norms


def test_the_sites_are_the_same_on_both_sides() -> None:
    assert config.SITES == SITES


def test_a_gate_multiplies_the_second_half_by_the_function_of_the_first() -> None:
    a, b = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    swiglu = activation_of("x * sigmoid(x)", "gate")
    assert swiglu.expansion == 2 and swiglu.site == "gate"
    torch.testing.assert_close(swiglu(4)(torch.cat([a, b], dim=1)), nn.functional.silu(a) * b)
    glu = activation_of("x", "gate")(3, dim=-1)  # torch's GLU has the sigmoid at the second half
    torch.testing.assert_close(glu(torch.cat([a, b], dim=-1)), a * b)
    swish = activation_of("x * sigmoid(beta * x)", "gate")(4)
    assert [tuple(p.shape) for p in swish.parameters()] == [(4,)]
    with pytest.raises(SpaceError, match=r"\(2, 4, 3, 3\); a gate of 4 channels needs 8 as its dimension 1"):
        swiglu(4)(a)
    with pytest.raises(WorkersError, match="maxout takes the place of an activation, not of a gate"):
        activation_of("maxout", "gate")


def test_a_function_in_the_place_of_a_norm_is_dynamic_tanh() -> None:
    """As its paper's code: one alpha, which starts at 0.5, a weight and a bias for each channel."""
    x, dyt = torch.randn(2, 5, 6), activation_of(baseline("dyt").expression, "norm")
    norm = dyt(6, dim=-1)
    assert {name: tuple(p.shape) for name, p in norm.named_parameters()} == {
        "weight": (6,),
        "bias": (6,),
        "function.beta": (1,),
    }
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.rand_like(parameter))
    weight, bias, beta = norm.parameters()
    torch.testing.assert_close(norm(x), torch.tanh(0.5 * beta * x) * weight + bias)
    images = x.unsqueeze(-1).transpose(1, 2)
    first = dyt(6)
    first.load_state_dict(norm.state_dict())
    torch.testing.assert_close(first(images), norm(x).unsqueeze(-1).transpose(1, 2))
    groups = {len(group["params"]): group["weight_decay"] for group in parameter_groups(norm, 0.1)}
    assert groups == {2: 0.1, 1: 0.0}, "weight and bias decay as those of a norm, alpha does not"


@pytest.mark.parametrize(
    ("name", "site", "sites"), [("resnet8", "norm", 7), ("vit-4-64", "gate", 2), ("vit-4-64", "norm", 5)]
)
def test_the_function_is_at_the_sites_that_a_network_offers_and_trained_there(name: str, site: str, sites: int) -> None:
    wanted = activation_of("tanh(beta * x)", site)
    model = seeded(name, wanted, (1, 8, 8), 10, SMALL[name])
    kind = {"gate": Gate, "norm": ElementwiseNorm}[site]
    found = [module for module in model.modules() if isinstance(module, kind)]
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.modules.batchnorm._BatchNorm)]
    assert len(found) == sites
    assert bool(norms) == (site == "gate"), "no other norm stays"
    model(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_a_gated_feed_forward_has_as_many_weights_as_a_plain_one() -> None:
    gated, plain = (
        parameter_count(build("vit-4-64", activation_of("x", site), (3, 32, 32), 10)) for site in ("gate", "activation")
    )
    assert plain == 217_866 and 0.99 < gated / plain < 1.01


@pytest.mark.parametrize(
    ("name", "site", "message"),
    [
        (
            "resnet8",
            "gate",
            "--site gate: model 'resnet8' has no gate that a function could take; these have: vit-4-64",
        ),
        (
            "lecture",
            "norm",
            "--site norm: model 'lecture' has no norm that a function could take; these have: resnet8,",
        ),
    ],
)
def test_a_site_that_a_network_does_not_offer(name: str, site: str, message: str) -> None:
    with pytest.raises(WorkersError, match=message):
        build(name, activation_of("x", site), (1, 8, 8), 10)


# Poolings


def test_lp_pooling() -> None:
    x = torch.tensor([[3.0, -4.0, 1.0], [0.0, 0.0, 2.0], [5.0, 12.0, -7.0]])[None, None]
    got = LpPool(2)(x)[0, 0]
    torch.testing.assert_close(got, torch.tensor([[2.5, 2.5**0.5], [84.5**0.5, 7.0]]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(LpPool(1)(x)[0, 0, 0], torch.tensor([1.75, 1.5]), rtol=1e-4, atol=1e-4)
    zeros = torch.zeros(1, 1, 4, 4, requires_grad=True)
    LpPool(2)(zeros).sum().backward()
    assert zeros.grad is not None and bool(torch.isfinite(zeros.grad).all()), "torch's own makes NaN of this"


def test_stochastic_pooling_draws_in_proportion() -> None:
    """The paper's example (its figure 1, in our 2x2): 1.6 and 2.4 are drawn with probabilities 0.4 and 0.6."""
    window = torch.tensor([[1.6, -3.0], [0.0, 2.4]])
    pool = StochasticPool()
    torch.manual_seed(0)
    drawn = pool(window.expand(4000, 1, 2, 2)).flatten()
    assert set(drawn.tolist()) == set(window.flatten()[[0, 3]].tolist())
    assert abs(float((drawn > 2).float().mean()) - 0.6) < 0.04
    mean = pool.eval()(window[None, None])
    assert float(mean) == pytest.approx(0.4 * 1.6 + 0.6 * 2.4, abs=1e-4)
    torch.manual_seed(1)
    dead = -torch.arange(1.0, 5).reshape(1, 1, 2, 2)
    assert {float(pool.train()(dead)) for _ in range(60)} == {-1.0, -2.0, -3.0, -4.0}
    assert float(pool.eval()(dead)) == pytest.approx(-2.5)


def test_stochastic_pooling_knows_its_windows() -> None:
    x = torch.zeros(1, 2, 3, 5)
    x[0, 0, 0, 1], x[0, 0, 2, 4], x[0, 1, 1, 2] = 1.0, 2.0, 3.0
    x.requires_grad_()
    out = StochasticPool()(x)
    assert out.shape == (1, 2, 2, 3)
    torch.testing.assert_close(out[0, 0], torch.tensor([[1.0, 0, 0], [0, 0, 2]]))
    torch.testing.assert_close(out[0, 1], torch.tensor([[0.0, 3, 0], [0, 0, 0]]))
    out.sum().backward()
    assert x.grad is not None and float(x.grad[0, 1, 1, 2]) == 1 and float(x.grad.sum()) == 12


def test_fractional_pooling_is_random_in_training_alone() -> None:
    pool, x = FractionalPool(), torch.randn(2, 3, 12, 12)
    assert pool(x).shape == (2, 3, 8, 8)
    torch.manual_seed(0)
    first, second = pool(x), pool(x)
    torch.manual_seed(0)
    assert torch.equal(pool(x), first) and not torch.equal(first, second)
    assert torch.equal(pool.eval()(x), pool(x))


def test_a_spatial_pyramid_has_one_length() -> None:
    x = torch.randn(2, 3, 8, 8)
    out = SpatialPyramid()(x)
    assert out.shape == (2, 63) == SpatialPyramid()(torch.randn(2, 3, 5, 17)).shape
    assert torch.equal(out[:, :3], x.amax((2, 3)))
    assert torch.equal(out[:, 3 + 12 :].reshape(2, 3, 4, 4), x.unflatten(3, (4, 2)).unflatten(2, (4, 2)).amax((3, 5)))


# Options


def test_options_change_the_lecture_network() -> None:
    def size(**options: Any) -> tuple[int, ...]:
        model = seeded("lecture", RELU, (1, 16, 16), 10, {"width": 4, **options})
        assert hasattr(model, "features")
        return tuple(model.features(torch.randn(2, 1, 16, 16)).shape[1:])

    assert size() == (8, 8, 8)
    assert size(padding="valid") == (8, 5, 5)  # 16 - 2 = 14, 7, 7 - 2
    assert size(padding="valid", dilation=2) == (8, 2, 2)  # 16 - 4 = 12, 6, 6 - 4
    assert size(dilation=3) == (8, 8, 8)
    assert size(stride=2) == (8, 4, 4)
    assert size(kernel=5, padding="valid") == (8, 2, 2)
    assert size(stages=3) == (16, 4, 4)
    assert size(pooling="fractional") == (8, 11, 11)
    assert size(pooling="spatial_pyramid") == (21 * 8,)


def test_poolings_of_the_lecture_network_differ() -> None:
    x = torch.randn(2, 1, 8, 8)
    outs = [seeded("lecture", RELU, (1, 8, 8), 10, {"pooling": p, "head": "gap"}).eval()(x) for p in POOLINGS[:-1]]
    assert all(not torch.allclose(a, b) for i, a in enumerate(outs) for b in outs[:i])
    one, three = (seeded("lecture", RELU, (1, 8, 8), 10, {"pooling": "lp", "p": p}).eval()(x) for p in (1, 3))
    assert not torch.allclose(one, three)


@pytest.mark.parametrize("options", [{"head": "gap"}, {"pooling": "spatial_pyramid"}], ids=str)
def test_images_of_any_size_go_through_one_lecture_network(options: dict[str, Any]) -> None:
    model = seeded("lecture", RELU, (3, 32, 32), 10, options)
    for size in ((32, 32), (8, 8), (17, 40)):
        assert model(torch.randn(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet9", {}, "unknown model 'resnet9'; did you mean 'resnet8'"),
        (
            "resnet20",
            {"dept": 8},
            "model 'resnet20' has no option 'dept'; did you mean 'depth'. accepted: depth, width",
        ),
        ("resnet20", {"depth": 21}, "depth must be a whole number from 8 to 1202 in steps of 6, not 21"),
        ("resnet8", {"width": 0}, "width must be a whole number from 1 to 4096, not 0"),
        ("resnet8", {"width": 8.0}, "width must be a whole number from 1 to 4096, not 8.0"),
        ("resnet8", {"width": True}, "width must be a whole number from 1 to 4096, not True"),
        ("wrn-28-10", {"dropout": 1}, "dropout must be a number from 0 to 0.9, not 1"),
        ("wrn-28-10", {"dropout": math.nan}, "dropout must be a number from 0 to 0.9, not nan"),
        ("wrn-28-10", {"dropout": "0.3"}, "dropout must be a number from 0 to 0.9, not '0.3'"),
        ("inception", {"reduction": 1}, "reduction must be true or false, not 1"),
        ("lecture", {"padding": "sane"}, "padding must be 'same' or 'valid', not 'sane'"),
        ("lecture", {"padding": ["same"]}, "padding must be 'same' or 'valid', not \\['same'\\]"),
        ("lecture", {"pooling": "spatial_pyramid", "head": "gap"}, "use head 'fc', or another pooling"),
        ("lecture", {"padding": "valid", "stages": 4}, "images of 8x8 shrink to nothing .*use padding 'same', fewer"),
        ("lecture", {"pooling": "fractional", "stages": 6}, "images of 8x8 shrink to nothing"),
        ("vit-4-64", {"heads": 5}, "width must be a multiple of heads, 5, not 64; change one of them"),
        ("vit-4-64", {"ffn": "gated"}, "ffn 'gated' have no activation to search; use --site gate, or leave ffn out"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkersError, match=message):
        build(name, RELU, (1, 8, 8), 10, options=options)


def test_the_width_is_given_once() -> None:
    assert parameter_count(build("resnet8", RELU, (1, 8, 8), 10, 4, {"width": 4})) == parameter_count(
        build("resnet8", RELU, (1, 8, 8), 10, 4)
    )
    with pytest.raises(WorkersError, match="model 'resnet8': width is given twice, as 8 and 4"):
        build("resnet8", RELU, (1, 8, 8), 10, 8, {"width": 4})


@every_network
def test_options_can_be_described_and_are_tested(name: str) -> None:
    options = options_of(NETWORKS[name].factory)
    assert "width" in options and set(NETWORKS[name].defaults) <= set(options)
    assert all(accepted(kind) for kind in options.values())
    tried = {option for variant, given in VARIANTS if variant == name for option in given}
    if not name.startswith("resnet"):
        assert tried == set(options)
