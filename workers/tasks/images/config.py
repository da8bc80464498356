"""What decides an image training: data, network and recipe. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from workers.contract import Declaration, Direction, Metric, TaskConfig

SCHEDULES = ("onecycle", "cosine", "steps")
PRECISIONS = ("auto", "bfloat16", "float32")

# Losses are cross-entropies, means over the images of a part; a training reports all three after each epoch.
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
    """How a network is trained: SGD with momentum, for some epochs or some steps. Those with a name are in
    workers/tasks/images/recipes.py.

    Attributes:
        steps: so many batches instead of `epochs`; 0: the epochs decide.
        learning_rate: the largest of the schedule.
        weight_decay: of all weights but the activations'.
        schedule: `onecycle` (up for the part `warmup` of all steps, then down to nearly 0), `cosine` (down to 0) or
            `steps` (times `drop_factor` at each of `drops`, in epochs).
        label_smoothing: the share of a label that goes to all classes alike.
        clip_norm: the norm to which longer gradients are cut; 0: none.
        crop: pixels by which images are shifted at most; `flip`: half of them mirrored; `cutout`: side of a square that
            is blanked, in pixels.
        precision: `auto` (bfloat16 on CUDA, else float32), `bfloat16` or `float32`.
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
    """What decides an image training.

    Attributes:
        limit_train, limit_val: use only this many images of a part; 0: all.
        standardise: whether each channel is brought to mean 0 and variance 1; None: pictures are, other data are not.
        split_seed: fixes which images are held out for validation.
        width: an option of `model`; 0 is the network's own width. `model_kwargs` are its other options.
        match: a pattern of the names of the activations that are replaced in a model of a person's own; empty: all.
        compile: pass activations through torch.compile where that pays.
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
        """Return it as the configuration of a task."""
        return TaskConfig("images", self.parameters(), primitives)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the configuration that has these parameters."""
        recipe = dict(parameters.get("recipe", {}))
        if "drops" in recipe:
            recipe["drops"] = tuple(recipe["drops"])
        return cls(**{**parameters, "recipe": Recipe(**recipe)})


def _changed(config: ImageConfig | Recipe) -> dict[str, Any]:
    plain, default = asdict(config), asdict(type(config)())
    return {f.name: plain[f.name] for f in fields(config) if plain[f.name] != default[f.name]}
