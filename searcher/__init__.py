"""Search for activation functions: samplers propose, workers judge, a SQL store keeps the evidence.

`search` runs a search, `iter_search` yields its progress, `open_store` reads results. docs/python.md is the guide.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from searcher.api import (
        ConfigError,
        Metric,
        Point,
        Progress,
        RankedFunction,
        SpaceError,
        StopAsked,
        StoreError,
        StoreView,
        Study,
        StudyBusy,
        StudyExists,
        Trial,
        TrialState,
        UnknownStudy,
        WorkersError,
        iter_search,
        open_store,
        search,
    )

try:
    __version__ = version("activation-searcher")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+source"


__all__ = [
    "ConfigError",
    "Metric",
    "Point",
    "Progress",
    "RankedFunction",
    "SearcherError",
    "SpaceError",
    "StopAsked",
    "StoreError",
    "StoreView",
    "Study",
    "StudyBusy",
    "StudyExists",
    "Trial",
    "TrialState",
    "UnknownStudy",
    "UsageError",
    "WorkersError",
    "__version__",
    "iter_search",
    "open_store",
    "search",
]

DEFAULT_STORAGE = "sqlite:///searcher.db"


class SearcherError(RuntimeError):
    """An error that the user can mend; the message says how. All errors of this package are of this class:

    SearcherError
    |- UsageError: something was asked for wrongly; the command line exits with 2 instead of 1
    |  |- BadStorageUrl: the storage names no database of a kind that is supported (a StoreError too)
    |  |- ConfigError: a setting is unknown or has a value that is not accepted
    |  |- SamplerError: a sampler does not exist, cannot serve, or does not take an option
    |  |- EvidenceError: functions cannot be compared: the reference, or a value, is missing or not accepted
    |  |- BadJob: a job of a Ray cluster was asked for wrongly
    |  `- QueryRefused: a query would write, or the database does not understand it
    |- StoreError: the database cannot be used
    |  |- BadStorageUrl: see above
    |  |- StoreUnavailable: the database does not answer, and may be back in a moment
    |  |- StoreConflict: what was to be written contradicts what is there
    |  `- StoreRefused: the database cannot hold a value
    |- StudyExists: a new study has the name of an old one
    |- UnknownStudy: there is no study, or no trial, of that name or number
    |- StudyBusy: another live driver holds the study
    |- NotDriven: nobody drives the study
    |- LeaseLost: another driver has taken the study over; nothing was written
    |- StopAsked: `searcher stop` has ended a session
    |- SamplerFailed: a sampler of a person's own raised an exception, or broke its contract
    |- EveryTrialFails: all trainings of a session failed in the same way
    |- CodeNotTrusted: a study names code, or a cluster, that its user has not asked for
    |- CopyRefused: a study cannot be copied; nothing was written
    |- RekeyRefused: a study cannot be keyed anew; nothing was written
    |- QueryStopped: a query takes too long, or too much memory
    |- ReportError: a report cannot be written
    |- TaskNotReady: `searcher task check` found that a task does not keep its contract
    |- LogError: a log file cannot be written
    |- MetricsUnavailable: the metrics cannot be served
    `- JobsError: a cluster's job server cannot be reached, or refuses
    """


class UsageError(SearcherError):
    """Something was asked for wrongly: the command line exits with 2 instead of 1."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the Python API when it is first used: it needs torch and SQLAlchemy, which `searcher --help` does not
        wait for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from searcher import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
