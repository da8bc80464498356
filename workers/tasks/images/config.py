"""The settings that decide an image training: data, network and recipe. This needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from workers.contract import Declaration, Direction, Metric, TaskConfig
from workers.settings import setting

SCHEDULES = ("onecycle", "warmup", "cosine", "steps")
PRECISIONS = ("auto", "bfloat16", "float32")
SGD = "sgd"
SITES = ("activation", "gate", "norm")  # as in search_space, which cannot be imported without torch
EVALUATION = "evaluation"  # the name of an `Evaluation` among the parameters of a task configuration

# Losses are mean cross-entropies over the images of a part. A training reports all three metrics after each epoch.
DECLARATION = Declaration(
    metrics=(
        Metric("train_loss", Direction.MINIMIZE, "nats"),
        Metric("val_loss", Direction.MINIMIZE, "nats"),
        Metric("val_acc", Direction.MAXIMIZE, "fraction"),
    ),
    objective="val_loss",
    tie_breaker="val_acc",
    also_good=("train_loss",),
)
# The same metrics of the test part, which a confirmation measures once, after the last epoch.
TEST_METRICS = (
    Metric("test_loss", Direction.MINIMIZE, "nats"),
    Metric("test_acc", Direction.MAXIMIZE, "fraction"),
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a confirmation measures and varies, and a search does not.

    Attributes:
        test: measure `TEST_METRICS`.
        vary_split: split the data anew for each training seed. The published test images, if there are any, stay.
    """

    test: bool = False
    vary_split: bool = False

    @classmethod
    def of(cls, config: TaskConfig) -> Self:
        """Return the evaluation of a task configuration."""
        return cls(**config.parameters.get(EVALUATION, {}))

    @property
    def declaration(self) -> Declaration:
        """The metrics of trainings with this evaluation."""
        return replace(DECLARATION, metrics=DECLARATION.metrics + TEST_METRICS) if self.test else DECLARATION


@dataclass(frozen=True, slots=True)
class KnownOptimizer:
    """An optimizer of torch.

    Attributes:
        torch_name: its name in `torch.optim`.
        learning_rate: the learning rate if none is given: torch's default, except for SGD.
        options: the options that `optimizer_kwargs` may have. SGD's momentum is a field of the recipe.
    """

    torch_name: str
    learning_rate: float
    options: tuple[str, ...]


OPTIMIZERS: Mapping[str, KnownOptimizer] = {
    SGD: KnownOptimizer("SGD", 0.1, ("dampening",)),
    "adam": KnownOptimizer("Adam", 0.001, ("betas", "eps", "amsgrad")),
    "adamw": KnownOptimizer("AdamW", 0.001, ("betas", "eps", "amsgrad")),
    "nadam": KnownOptimizer("NAdam", 0.002, ("betas", "eps", "momentum_decay", "decoupled_weight_decay")),
    "radam": KnownOptimizer("RAdam", 0.001, ("betas", "eps", "decoupled_weight_decay")),
    "adamax": KnownOptimizer("Adamax", 0.002, ("betas", "eps")),
    "rmsprop": KnownOptimizer("RMSprop", 0.01, ("alpha", "eps", "momentum", "centered")),
    "adagrad": KnownOptimizer("Adagrad", 0.01, ("lr_decay", "initial_accumulator_value", "eps")),
    "adadelta": KnownOptimizer("Adadelta", 1.0, ("rho", "eps")),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained: with which optimizer, for some epochs or some steps. The recipes with a name are in
    workers/tasks/images/recipes.py."""

    name: str = setting("quick", help="The recipe that the other fields change.", flag=False)
    epochs: int = setting(8, help="Passes over the training part.", at_least=1, sensible_at_most=10**6)
    steps: int = setting(
        0,
        help="Train on this many batches, whatever the epochs are; 0: the epochs decide.",
        at_least=0,
        sensible_at_most=10**9,
    )
    # Batch normalisation cannot train on one image.
    batch_size: int = setting(64, help="Images per step.", at_least=2, sensible_at_most=2**20)
    optimizer: str = setting(SGD, help="An optimizer of torch.", one_of=OPTIMIZERS)
    optimizer_kwargs: Mapping[str, Any] = setting(
        {}, help="The optimizer's other options", example='{"betas": [0.9, 0.95]}', flag=False
    )
    learning_rate: float = setting(
        0.1,
        help="The largest learning rate of the schedule. Another --optimizer than the recipe's brings a default of "
        "its own.",
        at_least=1e-12,
        sensible_at_most=10**6,
    )
    momentum: float = setting(0.9, help="Momentum of sgd.", at_least=0, at_most=0.999999, flag=False)
    nesterov: bool = setting(True, help="Of sgd: use Nesterov's momentum.", flag=False)
    weight_decay: float = setting(
        5e-4,
        help="Weight decay, applied to all weights except the activations' own parameters.",
        at_least=0,
        sensible_at_most=10**6,
    )
    schedule: str = setting(
        "onecycle",
        help="The learning rate goes up and then down to nearly 0 (onecycle: along two cosines; warmup: along a line, "
        "then a cosine), down to 0 (cosine), or down in steps.",
        one_of=SCHEDULES,
        flag=False,
    )
    warmup: float = setting(
        0.25,
        help="Of onecycle and warmup: the fraction of all steps in which the rate goes up.",
        at_least=0,
        at_most=1,
        flag=False,
    )
    drops: tuple[float, ...] = setting((), help="Of steps: the epochs at which the rate drops.", flag=False)
    drop_factor: float = setting(
        0.1, help="Of steps: the rate is multiplied by this at each drop.", at_least=0, at_most=1, flag=False
    )
    label_smoothing: float = setting(
        0.0,
        help="The fraction of each label that is spread evenly over all classes.",
        at_least=0,
        at_most=0.999999,
        flag=False,
    )
    clip_norm: float = setting(
        0.0, help="Cut gradients that are longer than this norm; 0: none.", at_least=0, sensible_at_most=10**9
    )
    crop: int = setting(
        0, help="Shift each image by at most this many pixels.", at_least=0, sensible_at_most=256, flag=False
    )
    flip: bool = setting(False, help="Mirror half of the images.", flag=False)
    cutout: int = setting(
        0,
        help="Blank a square of this many pixels in each image; 0: none.",
        at_least=0,
        sensible_at_most=4096,
        flag=False,
    )
    precision: str = setting("auto", help="auto: bfloat16 on CUDA, float32 on CPUs.", one_of=PRECISIONS, flag=False)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What decides an image training: the data, the network and the recipe."""

    dataset: str = setting(
        "digits", help="digits, fashion-mnist, cifar10, cifar100, npz:FILE or package.module:function."
    )
    limit_train: int = setting(
        0, help="Use only this many training images; 0: all.", at_least=0, sensible_at_most=2**31 - 1
    )
    limit_val: int = setting(
        0, help="Use only this many validation images; 0: all.", at_least=0, sensible_at_most=2**31 - 1
    )
    standardise: bool | None = setting(
        None, help="Bring each channel to mean 0, variance 1. Not given: pictures only; other data stay as they are."
    )
    split_seed: int = setting(0, help="Seed of the split into train, val and test.", at_least=0, at_most=2**31 - 1)
    model: str = setting(
        "resnet8", help="resnet8, wrn-28-10, vit-4-64 and others (docs/children.md), or package.module:function."
    )
    width: int = setting(
        0, help="Channels of the network's first stage; 0: its own.", at_least=0, sensible_at_most=2**14
    )
    model_kwargs: Mapping[str, Any] = setting({}, help="The network's other options", example='{"stem_stride": 2}')
    match: str = setting(
        "", help="In your own network, replace only the activations with names like this: 'layers.*.act'."
    )
    site: str = setting(
        "activation",
        help="What the function takes the place of: the activations, the gates f(a) * b, or the norms of the network.",
        one_of=SITES,
    )
    recipe: Recipe = setting(
        Recipe(),
        help="How children are trained: quick, onecycle, he2016, wrn, densenet or transformer.",
        example='{"crop": 4, "flip": true}',
    )
    compile: bool = setting(
        False, help="Pass activations through torch.compile where that saves more time than it takes."
    )

    def parameters(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults, as plain values."""
        changed = _changed(self)
        if "recipe" in changed:
            changed["recipe"] = _changed(self.recipe) | {"name": self.recipe.name}
        return changed

    def task_config(
        self,
        primitives: tuple[str, ...] = (),
        evaluation: Evaluation = Evaluation(),
    ) -> TaskConfig:
        """Return the task configuration with these settings."""
        more = {} if evaluation == Evaluation() else {EVALUATION: asdict(evaluation)}
        return TaskConfig("images", self.parameters() | more, primitives)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the settings with these parameters, and defaults for all others. An evaluation is no setting, and is
        left out."""
        settings = {name: value for name, value in parameters.items() if name != EVALUATION}
        recipe = dict(settings.get("recipe", {}))
        if "drops" in recipe:
            recipe["drops"] = tuple(recipe["drops"])
        return cls(**{**settings, "recipe": Recipe(**recipe)})


def _changed(config: ImageConfig | Recipe) -> dict[str, Any]:
    plain, default = asdict(config), asdict(type(config)())
    return {f.name: plain[f.name] for f in fields(config) if plain[f.name] != default[f.name]}
