"""Search for activation functions: samplers propose, workers train and judge, an SQL store keeps the results.

`search` runs a search, `iter_search` yields its progress, `confirm` finds out which of its differences are real, and
`open_store` reads results. docs/python.md is the guide.
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
        confirm,
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
    "confirm",
    "iter_search",
    "open_store",
    "search",
]

DEFAULT_STORAGE = "sqlite:///searcher.db"


class SearcherError(RuntimeError):
    """An error that the user can correct; the message says how. All errors of this package belong to this class:

    SearcherError
    |- UsageError: a request is wrong; the command line exits with 2 instead of 1
    |  |- BadStorageUrl: the storage is not a URL of a supported database (a StoreError too)
    |  |- ConfigError: a setting is unknown or has a value that is not accepted
    |  |- SamplerError: a sampler does not exist, cannot be used, or does not take an option
    |  |- EvidenceError: functions cannot be compared: the reference, or a value, is missing or not accepted
    |  |- BadJob: a request for a job of a Ray cluster is wrong
    |  `- QueryRefused: a query would write, or the database rejects it as wrong
    |- StoreError: the database cannot be used
    |  |- BadStorageUrl: see above
    |  |- StoreUnavailable: the database does not answer; the same operation may succeed later
    |  |- StoreConflict: the rows to be written contradict rows in the database
    |  `- StoreRefused: the database cannot hold a value
    |- StudyExists: a study of that name exists already
    |- UnknownStudy: there is no study of that name, or no trial of that number
    |- StudyBusy: another driver holds the study's lease
    |- NotDriven: no process drives the study
    |- LeaseLost: another driver has taken the study over; nothing was written
    |- StopAsked: `searcher stop` ended a session
    |- SamplerFailed: a user's own sampler raised an exception or broke its contract
    |- EveryTrialFails: all trainings of a session failed in the same way
    |- CodeNotTrusted: a study names code, or a cluster, that this user has not approved
    |- CopyRefused: a study cannot be copied; nothing was written
    |- RekeyRefused: the keys of a study cannot be renewed; nothing was written
    |- ChangeRefused: a study cannot be renamed or retried now; nothing was written
    |- PlanError: the stored plan of a confirmation cannot be read, for example because a newer version made it
    |- QueryStopped: a query took too long or needed too much memory
    |- ReportError: a report cannot be written
    |- NothingLearned: a trial has no learned parameters
    |- NothingToDraw: a study has nothing yet that a picture could show
    |- TaskNotReady: `searcher task check` found that a task does not keep its contract
    |- LogError: a log file cannot be written
    |- MetricsUnavailable: the metrics cannot be served
    `- JobsError: a cluster's job server cannot be reached, denies access, or does not know the job
    """


class UsageError(SearcherError):
    """A request is wrong: the command line exits with 2 instead of 1."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the Python API when it is first used. It needs torch and SQLAlchemy, which are slow to import, and
        `searcher --help` must be fast."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from searcher import api

        return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
