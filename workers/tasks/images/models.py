"""Build networks by name: networks of the literature from a table, a user's own from `package.module:function`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import nn

from search_space import SITES, nearest
from search_space.modules import code_name
from workers.contract import WorkersError
from workers.tasks.images.networks.allcnn import AllCNN
from workers.tasks.images.networks.densenet import DenseNet
from workers.tasks.images.networks.inception import InceptionNet
from workers.tasks.images.networks.lecture import LectureNet
from workers.tasks.images.networks.options import check_options
from workers.tasks.images.networks.own import Request, Survey, build_own, survey_own
from workers.tasks.images.networks.preactivation import PreActivationResNet, WideResNet
from workers.tasks.images.networks.resnet import ResNet
from workers.tasks.images.networks.sites import Activations, activation_of
from workers.tasks.images.networks.transformer import VisionTransformer


@dataclass(frozen=True, slots=True)
class Network:
    """A row of the table of networks.

    Attributes:
        factory: the class of the network.
        source: the publication.
        defaults: options whose defaults differ from those in the factory's signature.
        sites: what a searched function can take the place of in it.
    """

    factory: type[nn.Module]
    source: str
    defaults: Mapping[str, object] = field(default_factory=dict)
    sites: tuple[str, ...] = ("activation",)


_HE2015 = "He et al. 2015, arXiv 1512.03385"
_NORMED = ("activation", "norm")

NETWORKS: Mapping[str, Network] = {
    "resnet8": Network(ResNet, _HE2015, {"depth": 8, "width": 8}, _NORMED),
    "resnet20": Network(ResNet, _HE2015, {"depth": 20}, _NORMED),
    "resnet32": Network(ResNet, _HE2015, {"depth": 32}, _NORMED),
    "resnet56": Network(ResNet, _HE2015, {"depth": 56}, _NORMED),
    "resnet110": Network(ResNet, _HE2015, {"depth": 110}, _NORMED),
    "preresnet164": Network(PreActivationResNet, "He et al. 2016, arXiv 1603.05027"),
    "wrn-28-10": Network(WideResNet, "Zagoruyko and Komodakis 2016, arXiv 1605.07146"),
    "densenet-100-12": Network(DenseNet, "Huang et al. 2017, arXiv 1608.06993"),
    "all-cnn": Network(AllCNN, "Springenberg et al. 2015, arXiv 1412.6806"),
    "inception": Network(InceptionNet, "Szegedy et al. 2014, arXiv 1409.4842"),
    "lecture": Network(LectureNet, "poolings: arXiv 1204.3968, 1301.3557, 1412.6071, 1406.4729"),
    "vit-4-64": Network(VisionTransformer, "Dosovitskiy et al. 2020, arXiv 2010.11929", sites=SITES),
}
_NONE: Mapping[str, object] = MappingProxyType({})


def build(
    name: str,
    activation: Activations,
    shape: tuple[int, ...],
    classes: int,
    width: int | None = None,
    options: Mapping[str, object] = _NONE,
    dtype: torch.dtype = torch.float32,
    match: str = "",
    note: Callable[[str], object] = str,
) -> nn.Module:
    """Build a network with a new activation at each site. It maps `(n, *shape)` to `(n, classes)`.

    Args:
        name: one of `NETWORKS`, or `package.module:function` (workers/tasks/images/networks/own.py).
        activation: makes the activations.
        shape: the shape of an image: channels, height, width. Data for a user's own network may have another shape.
        classes: number of classes.
        width: the width of the network; None means the published width. A user's own network may have no width.
        options: further options of the network, as plain values.
        dtype: the type of the input: float32, or int64 for integers that a user's own network gets as they are.
        match: for a user's own network, a pattern of the names of the activations to replace; empty means all.
        note: called with each remark on the replacements in a user's own network.

    Raises:
        WorkersError: there is no such network, it does not take an option or its value, or a user's own network does
            not work.
    """
    if code_name(name):
        return build_own(Request(name, activation, shape, classes, width, options, dtype, match), note)
    check_model(name, match, activation.site)
    if len(shape) != 3 or dtype != torch.float32:
        raise WorkersError(
            f"model {name!r} takes images, (channels, height, width) of floating-point numbers; an example of these "
            f"data is {shape} of {str(dtype).removeprefix('torch.')}: take a network of your own, "
            "package.module:function, or leave --no-standardise out if these are images"
        )
    network = NETWORKS[name]
    if width is not None and options.get("width", width) != width:
        raise WorkersError(f"model {name!r}: width is given twice, as {width!r} and {options['width']!r}; give it once")
    wanted = {**network.defaults, **options, **({} if width is None else {"width": width})}
    check_options(name, network.factory, wanted)
    channels, height, length = shape
    return network.factory(activation, (channels, height, length), classes, **wanted)


def survey(
    name: str,
    expression: str,
    shape: tuple[int, ...],
    classes: int,
    width: int | None = None,
    options: Mapping[str, object] = _NONE,
    match: str = "",
    dtype: torch.dtype = torch.float32,
) -> Survey:
    """Return what a search replaces in a user's own network, and what stays. The arguments are as in `build`.

    Raises:
        ParseError: `expression` is not an expression.
        WorkersError: as in `build`, or the network is from the table, in which nothing needs to be replaced.
    """
    check_model(name)
    if not code_name(name):
        raise WorkersError(
            f"model {name!r} is made with the activation at each of its sites, so nothing is replaced in it; name a "
            "network of your own: package.module:function"
        )
    return survey_own(Request(name, activation_of(expression), shape, classes, width, options, dtype, match))


def check_model(name: str, match: str = "", site: str = "activation") -> None:
    """Raise WorkersError if this cannot be the name of a network, or if it is one of the table that has no such site.
    Whether a user's own network exists is not checked."""
    if match and name in NETWORKS:
        raise WorkersError(
            f"--match chooses among the activations of a network of your own (package.module:function), and model "
            f"{name!r} is not one; leave it out"
        )
    if name not in NETWORKS and not code_name(name):
        raise WorkersError(f"unknown model {name!r}; {nearest(name, NETWORKS)}, or package.module:function of your own")
    if name in NETWORKS and site not in NETWORKS[name].sites:
        able = ", ".join(other for other, row in NETWORKS.items() if site in row.sites)
        raise WorkersError(
            f"--site {site}: model {name!r} has no {site} that a function could take; these have: {able}"
        )


def mirror_caveat(name: str, options: Mapping[str, object] = _NONE, site: str = "activation") -> str:
    """Return why f and its mirror -f(-x) may perform differently in a network with these options; empty if they perform
    equally well on average (docs/search-space.md, "Mirrors")."""
    pooling = options.get("pooling", "max") if name == "lecture" else "average"
    if code_name(name):
        return f"model {name!r} is your own and may have max pooling, or other parts that tell them apart"
    if site == "norm" and NETWORKS[name].factory is ResNet:
        return f"in model {name!r} a norm is followed by ReLU, which treats signs differently"
    if name == "inception":
        return "model 'inception' has max pooling"
    return "" if pooling in ("average", "strided", "lp") else f"model 'lecture' has {pooling!r} pooling"


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters that a network learns."""
    return sum(p.numel() for p in model.parameters())


def default_device() -> torch.device:
    """Return CUDA if there is a GPU, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
