"""The published experiments that `searcher reproduce` runs, each at several scales. docs/evidence.md explains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from searcher import UsageError
from searcher.settings.checking import nearest

PAPER = "Ramachandran, Zoph and Le 2017, Searching for Activation Functions, arXiv 1710.05941"
REFERENCE = "relu"
# The nine functions of the paper's tables, of which the lecture shows one.
TABLE = ("relu", "leaky_relu", "prelu", "softplus", "elu", "selu", "gelu", "swish1", "swish")
# The eight functions that the paper's searches found (its Tables 1 and 2); the first is Swish.
FOUND = (
    "swish",
    "max(x, sigmoid(x))",
    "cos(x) - x",
    "min(x, sin(x))",
    "atan(x)^2 - x",
    "max(x, tanh(x))",
    "sinc(x) + x",
    "x * asinh(x)^2",
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How large a reproduction is.

    Attributes:
        data: settings of trainings by the name of a data set; the first is the default.
        models: networks on which functions are compared; the first one is the search's child.
        seeds: training seeds for each function.
        search: settings of a search that comes first; None: there is none.
        reduced: what is smaller or other than in the publication, a sentence each.
    """

    data: Mapping[str, Mapping[str, Any]] = field(hash=False)
    models: tuple[str, ...]
    seeds: int
    search: Mapping[str, Any] | None
    reduced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A published experiment.

    Attributes:
        title: what it is.
        question: what it is to answer.
        functions: what is compared with ReLU.
        published: the data sets and networks whose published figures stand beside ours.
        scales: by name, the smallest first.
    """

    title: str
    question: str
    functions: tuple[str, ...]
    published: tuple[tuple[str, str], ...]
    scales: Mapping[str, Scale] = field(hash=False)

    def scale(self, name: str) -> Scale:
        """Return a scale by its name.

        Raises:
            UsageError: there is none of that name.
        """
        if name not in self.scales:
            raise UsageError(f"unknown scale {name!r}; {nearest(name, self.scales)}")
        return self.scales[name]


_OBJECTIVE = {"objective": "val_acc"}
_SMOKE = {
    "digits": {**_OBJECTIVE, "limit_train": 200, "limit_val": 100, "width": 4, "recipe": {"epochs": 1}},
}
_CPU = {
    "fashion-mnist": {
        **_OBJECTIVE,
        "limit_train": 4000,
        "limit_val": 4000,
        "model_kwargs": {"stem_stride": 2},
        "recipe": {"epochs": 4},
    },
    "cifar10": {
        **_OBJECTIVE,
        "limit_train": 8000,
        "limit_val": 5000,
        "width": 16,
        "model_kwargs": {"stem_stride": 2},
        "recipe": {"epochs": 8, "crop": 4, "flip": True},
    },
}
_FULL = {
    "cifar10": {**_OBJECTIVE, "recipe": {"name": "he2016"}},
    "cifar100": {**_OBJECTIVE, "recipe": {"name": "he2016"}},
}
_SMALL = (
    "The networks are small (ResNet-8 with 8 or 16 channels in its first stage), the first convolution has stride 2, "
    "and a training sees a few thousand images for a few epochs.",
    "Images are small and simple beside ImageNet's, on which the published figures were measured.",
)

REPRODUCTIONS: Mapping[str, Reproduction] = {
    "lecture": Reproduction(
        title="The table of activation functions on Inception-ResNet-v2 that the lecture shows",
        question="Are any of these differences significant?",
        functions=TABLE,
        published=(("ImageNet", "Inception-ResNet-v2"),),
        scales={
            "smoke": Scale(_SMOKE, ("resnet8",), 2, None, ("It only shows that the commands run.",)),
            "cpu": Scale(_CPU, ("resnet8",), 10, None, _SMALL),
            "full": Scale(_FULL, ("resnet20", "inception"), 10, None, ("CIFAR takes the place of ImageNet.",)),
        },
    ),
    "swish2017": Reproduction(
        title="The search in which Swish was found, and the comparison of what it found",
        question="Which of the eight functions that the search found beat ReLU, and does a search find them again?",
        functions=tuple(dict.fromkeys((*TABLE, *FOUND))),
        published=tuple(
            (data, model)
            for data in ("CIFAR-10", "CIFAR-100")
            for model in ("ResNet-164", "WRN-28-10", "DenseNet-100-12")
        ),
        scales={
            "smoke": Scale(
                _SMOKE,
                ("resnet8",),
                2,
                {"n_trials": 12, "sampler": "random", "units": 1, "baselines": ("relu", "swish")},
                ("It only shows that the commands run.",),
            ),
            "cpu": Scale(
                _CPU,
                ("resnet8", "resnet20"),
                10,
                {"n_trials": 150, "sampler": "rnn", "units": 2, "baselines": ("relu", "swish")},
                (
                    "The search has 150 trials; the paper does not say how many it had, and a search by the same "
                    "group had 20,000.",
                    *_SMALL,
                ),
            ),
            "full": Scale(
                _FULL,
                ("resnet20", "preresnet164", "wrn-28-10", "densenet-100-12"),
                5,
                {"n_trials": 20_000, "sampler": "rnn", "units": 2, "baselines": ("relu", "swish")},
                ("All networks have one recipe, he2016; the paper used that of each network.",),
            ),
        },
    ),
}


def reproduction(name: str) -> Reproduction:
    """Return a reproduction by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in REPRODUCTIONS:
        raise UsageError(f"unknown reproduction {name!r}; {nearest(name, REPRODUCTIONS)}")
    return REPRODUCTIONS[name]


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a reproduction, with their settings by name.

    Attributes:
        search: settings of the search; None: there is none.
        confirmation: settings of the trainings of the confirmation, or of those beside the search's.
        confirm: settings of the confirmation itself, by name.
        expressions: the functions that are compared.
        label: what the plan of the confirmation keeps: `lecture cpu`.
    """

    search: Mapping[str, Any] | None
    confirmation: Mapping[str, Any]
    confirm: Mapping[str, Any]
    expressions: tuple[str, ...]
    label: str


def steps(name: str, scale_name: str, dataset: str = "") -> Steps:
    """Return the steps of a reproduction.

    Args:
        dataset: one of the scale's data sets; empty: the first one.

    Raises:
        UsageError: there is no such reproduction, scale or data set.
    """
    found = reproduction(name)
    scale = found.scale(scale_name)
    dataset = dataset or next(iter(scale.data))
    if dataset not in scale.data:
        raise UsageError(f"data set {dataset!r} is not for scale {scale_name}; {nearest(dataset, scale.data)}")
    label = f"{name} {scale_name}"
    study = f"{name}-{scale_name}-{dataset}"
    trainings = {**scale.data[dataset], "dataset": dataset, "model": scale.models[0]}
    confirm: dict[str, Any] = {"seeds": scale.seeds, "reference": REFERENCE, "baselines": ("none",)}
    if scale.search is None:
        confirm["models"] = scale.models
        return Steps(None, {**trainings, "study_name": study}, confirm, found.functions, label)
    search = {**trainings, **scale.search, "study_name": study}
    confirm |= {"models": scale.models[1:], "top": 3}
    same = ("model_kwargs", "width") if scale.models[1:] else ()  # larger networks have the child's options
    others: dict[str, Any] = {one: trainings[one] for one in same if one in trainings}
    return Steps(search, {**others, "study_name": f"{study}-confirmed"}, confirm, found.functions, label)
