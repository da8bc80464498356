"""Made-up records of image searches: jobs, points of learning curves, results, studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any

from searcher.proposers import SamplerProposer
from searcher.records import Study, StudyKind, StudyTask, Trial, TrialState
from searcher.samplers.contract import Sampler
from searcher.settings.config import Config
from searcher.settings.plan import grammar_of, study_task
from searcher.store.store import Store
from workers.contract import Job, Learned, Outcome, Point, Verdict
from workers.tasks.images.config import DECLARATION, ImageConfig

OBJECTIVES = ("val_loss", "val_acc")
_IMAGE = {field.name for field in fields(ImageConfig)}


def image_job(
    number: int, expression: str, dataset: str = "digits", *, primitives: tuple[str, ...] = (), **options: Any
) -> Job:
    """Return the job of an image training. Options are fields of `ImageConfig` or of `Job`."""
    image = ImageConfig(dataset, **{name: value for name, value in options.items() if name in _IMAGE})
    rest = {name: value for name, value in options.items() if name not in _IMAGE}
    return Job(number, expression, task=image.task_config(primitives), **rest)


def image_config(job: Job) -> ImageConfig:
    return ImageConfig.from_parameters(job.task.parameters)


def changed(job: Job, **options: Any) -> Job:
    """Return the job with other fields of its own, of its `ImageConfig`, or other primitives."""
    image = {name: options.pop(name) for name in _IMAGE & set(options)}
    primitives = options.pop("primitives", job.task.primitives)
    parameters = replace(image_config(job), **image).parameters()
    return replace(job, task=replace(job.task, parameters=parameters, primitives=primitives), **options)


def image_task(objective: str = "val_loss", **settings: Any) -> StudyTask:
    return study_task(Config.of(objective=objective, **settings), DECLARATION)


@cache
def _ranked_by(objective: str) -> StudyTask:
    return image_task(objective)


def proposing(sampler: Sampler, settings: Config) -> SamplerProposer:
    return SamplerProposer(sampler, grammar_of(settings), settings.search.seed)


def measures(loss: float, acc: float = 0.5) -> dict[str, float]:
    return {"val_loss": loss, "val_acc": acc}


def point(epoch: int, train_loss: float, val_loss: float, val_acc: float) -> Point:
    return Point(epoch, {"train_loss": train_loss, "val_loss": val_loss, "val_acc": val_acc})


def learned(site: str, parameter: str, *values: float) -> Learned:
    """Return made-up learned parameters, with any numbers as their statistics."""
    low, high = min(values), max(values)
    return Learned(site, parameter, len(values), 1, low, 0.5, low, low, low, high, high, values)


def complete(loss: float, acc: float = 0.5, **rest: Any) -> Outcome:
    return Outcome(Verdict.COMPLETE, metrics=measures(loss, acc), **rest)


def result(trial: Trial, loss: float, acc: float = 0.5, objective: str = "val_loss", **changes: Any) -> Trial:
    """Return the trial as it ended, COMPLETE if nothing else is said."""
    done = _ranked_by(objective).judged(trial, measures(loss, acc))
    return replace(done, **{"state": TrialState.COMPLETE, **changes})


def create(
    store: Store,
    name: str,
    n_trials: int,
    objective: str = "val_loss",
    config: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    trials: Sequence[Trial] = (),
) -> Study:
    """Make a search in the store, without a look at its settings."""
    return store.create_study(
        name, StudyKind.SEARCH, n_trials, [image_task(objective)], dict(config or {}), dict(versions or {}), trials
    )
