"""Searching for activation functions: samplers propose, workers judge, a SQL store keeps the evidence."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("activation-searcher")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+source"


DEFAULT_STORAGE = "sqlite:///searcher.db"


class SearcherError(RuntimeError):
    """Something the user can mend; the message says what and how.

    SearcherError
    |- UsageError: asked for wrongly
    |  |- ConfigError: a setting
    |  |- BadJob: a job of a Ray cluster
    |  |- QueryRefused: a query that would write, or is wrong
    |  `- SamplerError: a sampler or one of its options
    |- StoreError: the database
    |- StudyExists, UnknownStudy, StudyBusy, LeaseLost: the state of a study
    |- EveryTrialFails: what a search cannot go on from
    |- CopyRefused: a study that cannot be copied
    |- JobsError: a cluster's job server, or one of its jobs
    |- CodeNotTrusted: a study that names code nobody here has asked for
    |- QueryStopped: a query that takes too much
    `- ReportError: a file that cannot be written
    """


class UsageError(SearcherError):
    """Something was asked for wrongly: the command line exits with 2 instead of 1."""
