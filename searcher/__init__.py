"""Searching for activation functions: samplers propose, workers judge, a SQL store keeps the evidence."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("searcher")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+source"


class SearcherError(RuntimeError):
    """Something the user can mend; the message says what and how.

    ConfigError, SamplerError: a value that is not accepted.
    StoreError: the database. StudyExists, StudyBusy, UnknownStudy, LeaseLost, QueryRefused: the state of a study.
    """
