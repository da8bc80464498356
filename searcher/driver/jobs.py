"""Make the job that trains a trial."""

from __future__ import annotations

from searcher.pruners import PRUNERS, Pruner
from searcher.records import Kind, StudyTask, Trial
from searcher.settings.config import Config
from workers.contract import Job


def pruner_of(config: Config, task: StudyTask) -> Pruner | None:
    """Return the pruner that the settings name; None if no trial is to be stopped early."""
    rule = PRUNERS[config.search.pruner]
    return Pruner(rule, task) if rule else None


def job_of(trial: Trial, task: StudyTask, data_digest: str, config: Config, pruner: Pruner | None) -> Job:
    """Return the job that trains a trial.

    Args:
        task: the trial's task configuration.
        data_digest: the digest that the data must have; empty if it is not known yet.
        config: says how the training is run.
        pruner: gives the cut-offs of this moment. Baselines have none: other functions are compared with them.
    """
    if trial.kind is Kind.BASELINE:
        pruner = None
    return Job(
        number=trial.number,
        expression=trial.expression,
        seed=trial.seed,
        task=task.config,
        data_dir=config.run.data_dir,
        data_digest=data_digest,
        timeout_seconds=config.run.trial_timeout,
        cutoffs=pruner.cutoffs() if pruner else (),
        first_rung=pruner.first_rung if pruner else 0,
        checkpoint_dir=config.run.checkpoint_dir,
        checkpoint_seconds=config.run.checkpoint_seconds,
    )
