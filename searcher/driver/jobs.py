"""The jobs that trials become."""

from __future__ import annotations

from searcher.pruners import PRUNERS, Pruner
from searcher.records import Kind, Objective, Trial
from searcher.settings.config import Config
from workers.contract import Job

# Settings of the study that every job has unchanged.
OF_ALL_JOBS = (
    *("dataset", "data_dir", "limit_train", "limit_val", "standardise", "split_seed"),
    *("model", "width", "model_kwargs", "match", "recipe", "primitives", "compile"),
    *("checkpoint_dir", "checkpoint_seconds"),
)


def pruner_of(config: Config, objective: Objective) -> Pruner | None:
    """Return the pruner that the settings name; None if nothing is stopped early."""
    rule = PRUNERS[config.pruner]
    return Pruner(rule, objective) if rule else None


def job_of(trial: Trial, config: Config, data_digest: str, pruner: Pruner | None) -> Job:
    """Return the job that trains a trial.

    Args:
        data_digest: the digest that the data must have; "" if it is not known yet.
        pruner: gives the cut-offs of this moment. Baselines have none: they are there to be compared with.
    """
    if trial.kind is Kind.BASELINE:
        pruner = None
    return Job(
        number=trial.number,
        expression=trial.expression,
        seed=trial.seed,
        data_digest=data_digest,
        timeout_seconds=config.trial_timeout,
        cutoffs=pruner.cutoffs() if pruner else (),
        guess_epoch=pruner.first_rung if pruner else 0,
        **{name: getattr(config, name) for name in OF_ALL_JOBS},
    )
