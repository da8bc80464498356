"""The settings that decide an image training: data, network and recipe. This needs the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from workers.contract import Declaration, Direction, Metric, TaskConfig

SCHEDULES = ("onecycle", "cosine", "steps")
PRECISIONS = ("auto", "bfloat16", "float32")

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


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained: SGD with momentum, for a number of epochs or steps. The named recipes are in
    workers/tasks/images/recipes.py.

    Attributes:
        name: the named recipe that this one is, or began with.
        epochs: passes over the training images.
        steps: number of batches instead of `epochs`; 0 means that the epochs decide.
        batch_size: images in a batch.
        learning_rate: the largest learning rate of the schedule.
        momentum, nesterov: options of SGD.
        weight_decay: weight decay of all weights except the activations' own parameters.
        schedule: `onecycle` (up for the share `warmup` of all steps, then down to nearly 0), `cosine` (down to 0) or
            `steps` (multiplied by `drop_factor` at each of `drops`, in epochs).
        label_smoothing: the share of each label that is divided evenly among all classes.
        clip_norm: gradients are scaled down to this norm; 0 means no limit.
        crop: the largest shift of images, in pixels.
        flip: mirror half of the images.
        cutout: side of a square that is set to 0, in pixels; 0 means none.
        precision: `auto` (bfloat16 on CUDA, otherwise float32), `bfloat16` or `float32`.
    """

    name: str = "quick"
    epochs: int = 8
    steps: int = 0
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: str = "onecycle"
    warmup: float = 0.25
    drops: tuple[float, ...] = ()
    drop_factor: float = 0.1
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The settings that decide an image training.

    Attributes:
        dataset: the name of the data set.
        limit_train, limit_val: use only this many images of a part; 0 means all.
        standardise: scale each channel to mean 0 and variance 1; None does so for pictures only.
        split_seed: fixes which images are held out for validation.
        model: the name of the network.
        width: the network's width; 0 means its default.
        model_kwargs: the network's other options.
        match: a pattern of the names of the activations that are replaced in a user's own network; empty means all.
        recipe: how the network is trained.
        compile: use torch.compile for activations if that makes the training faster.
    """

    dataset: str = "digits"
    limit_train: int = 0
    limit_val: int = 0
    standardise: bool | None = None
    split_seed: int = 0
    model: str = "resnet8"
    width: int = 0
    model_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    match: str = ""
    recipe: Recipe = Recipe()
    compile: bool = False

    def parameters(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults, as plain values."""
        changed = _changed(self)
        if "recipe" in changed:
            changed["recipe"] = _changed(self.recipe) | {"name": self.recipe.name}
        return changed

    def task_config(self, primitives: tuple[str, ...] = ()) -> TaskConfig:
        """Return the task configuration with these settings."""
        return TaskConfig("images", self.parameters(), primitives)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the settings with these parameters, and defaults for all others."""
        recipe = dict(parameters.get("recipe", {}))
        if "drops" in recipe:
            recipe["drops"] = tuple(recipe["drops"])
        return cls(**{**parameters, "recipe": Recipe(**recipe)})


def _changed(config: ImageConfig | Recipe) -> dict[str, Any]:
    plain, default = asdict(config), asdict(type(config)())
    return {f.name: plain[f.name] for f in fields(config) if plain[f.name] != default[f.name]}
