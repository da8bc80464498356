"""Jobs of image trainings, for benchmarks. It needs no package that a bare machine with a GPU lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workers.contract import Job
from workers.tasks.images.config import ImageConfig


def image_of(job: Job) -> ImageConfig:
    """Return what a job says about its network, data and recipe."""
    return ImageConfig.from_parameters(job.task.parameters)


def with_image(job: Job, **fields: Any) -> Job:
    """Return the job with other fields of its `ImageConfig`."""
    return replace(job, task=replace(image_of(job), **fields).task_config())
