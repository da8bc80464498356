"""The Python API: run a search, follow it, and read what it found. `searcher` exports the names; see docs/python.md."""

from __future__ import annotations

import inspect
import os
import re
import signal
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_space import Activation, SpaceError
from searcher import DEFAULT_STORAGE, SearcherError, UsageError, records
from searcher.driver.approval import CodeNotTrusted
from searcher.driver.loop import Progress, StopAsked
from searcher.driver.signals import StopSignal
from searcher.observe.progress import Display
from searcher.records import Kind, StudyKind, Trial, TrialState
from searcher.reports import report
from searcher.reports.confirmed import Confirmed
from searcher.reports.learned import LearnedFunction
from searcher.reports.mirrors import marked
from searcher.reports.ranked import leaderboard
from searcher.sessions import Caller, Request, Session, confirmed, launched
from searcher.settings import loading
from searcher.settings.config import Config, ConfigError
from searcher.settings.confirm import CONFIRMATION, ConfirmSettings
from searcher.settings.declared import Declared, declared, keywords
from searcher.store.checking import explained_damage
from searcher.store.database import StoreError
from searcher.store.lease import StudyBusy
from searcher.store.store import Store, StudyExists, UnknownStudy
from workers.contract import Learned, Metric, Point, WorkersError
from workers.tasks import own

if TYPE_CHECKING:
    import pandas

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
    "confirm",
    "iter_search",
    "open_store",
    "search",
]

Function = Callable[..., Any]


def search(
    *,
    task: str | Function | None = None,
    storage: str | None = None,
    experiment: str | Path | None = None,
    preset: str = "quick",
    resume: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Study:
    """Search until the study has its total of trials, or its time is up.

    Ctrl-C lets the search end cleanly: the trials that have ended are in the database, those that run are trained again
    when the study goes on. Then KeyboardInterrupt is raised. A second Ctrl-C raises it at once; nothing is lost either.

    Args:
        task: what judges a function: `"images"`, `"package.module:function"`, `"path/to/file.py:function"`, or the
            function itself. One that cannot be imported (of a notebook or a script) is trained in this process, with
            `pool="inline"`, and only this program can go on with its study.
        storage: the URL of the database; None: the environment variable SEARCHER_STORAGE, else
            `sqlite:///searcher.db` in the current directory.
        experiment: a TOML file with settings; the keywords override it.
        preset: the settings to start from: `quick` or `paper`.
        resume: if there is a study of that name, wait for its driver to end, and go on with it. Settings that are not
            given are the study's; a larger `n_trials` makes it longer.
        trust_code: with `resume`, run the code that the study names, though it was not launched from here.
        quiet: show no progress.
        settings: the settings of a search by the names of the flags of `searcher launch`, as in `n_trials=50,
            sampler="rnn", study_name="mine"`; docs/experiments.md lists them. None: not given. Options are
            dictionaries: `task_kwargs={"width": 32}`.

    Returns:
        The study, to read its results.

    Raises:
        ConfigError: A setting is unknown or has a value that is not accepted, or the study measures something else.
        StudyExists: There is a study of that name, and `resume` is False.
        StudyBusy: Another process drives the study.
        StopAsked: `searcher stop` has ended the search.
        KeyboardInterrupt: Ctrl-C has ended the search.
        SearcherError, WorkersError, SpaceError: It cannot be done; the message says why. What is in the database
            stands.
    """
    return _run(_Wanted.of(task, storage, experiment, preset, resume, trust_code, settings), quiet)


def confirm(
    study: str = "",
    *,
    expressions: Sequence[str] = (),
    task: str | Function | None = None,
    storage: str | None = None,
    resume: bool = False,
    trust_code: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Study:
    """Train functions with many seeds, beside ReLU and others, to find out which differences are real.

    Args:
        study: the search whose best functions are confirmed; empty: only `expressions` are.
        expressions: functions to confirm, by name or as formulas.
        task, storage, resume, trust_code, quiet: as in `search`.
        settings: the flags of `searcher confirm` by name, as in `top=3, seeds=10, baselines="relu,swish1"`;
            docs/evidence.md lists them. None: not given.

    Returns:
        The confirmation; `evidence()` and `conclusions()` say what it has found.

    Raises:
        ConfigError: A setting is unknown or has a value that is not accepted.
        StudyExists: There is a study of that name, and `resume` is False.
        UnknownStudy: There is no search of that name.
        StopAsked, KeyboardInterrupt, SearcherError, WorkersError, SpaceError: As in `search`.
    """
    names = {one.name for one in declared(ConfirmSettings)}
    rest = {name: value for name, value in settings.items() if name not in names}
    wanted = _Wanted.of(task, storage, None, "quick", resume, trust_code, rest)
    with _in_keywords():
        asked = ConfirmSettings.of({name: value for name, value in settings.items() if name in names})
    return _run(replace(wanted, confirmation=_Confirmation(asked, study, tuple(expressions))), quiet)


def _run(wanted: _Wanted, quiet: bool) -> Study:
    """Run a session to its end, and return the study."""
    stop, progress = StopSignal(_signals()), None
    with wanted.session() as session:
        name = session.study.name
        with stop, Display(name, quiet) as display, closing(session.run(stop.requested)) as steps:
            for progress in steps:
                display.update(progress)
    if stop.requested() and not (progress and progress.done == progress.total):
        raise KeyboardInterrupt(f"study {name!r} was stopped; nothing is lost. {_how_to_go_on(name)}")
    return open_store(wanted.request.storage)[name]


def iter_search(
    *,
    task: str | Function | None = None,
    storage: str | None = None,
    experiment: str | Path | None = None,
    preset: str = "quick",
    resume: bool = False,
    trust_code: bool = False,
    **settings: Any,
) -> Generator[Progress, None, None]:
    """Search, and yield the progress after every transaction.

    The search goes on when the next progress is asked for. Leave the loop, or close the generator, to end the search:
    the trials that have ended are in the database. Ctrl-C raises KeyboardInterrupt at once, and nothing is lost.

    Args:
        task, storage, experiment, preset, resume, trust_code, settings: as in `search`.

    Returns:
        A generator of the progress. `progress.study` is the name of the study, `progress.ended` are the trials that
        have ended since the last progress, `progress.best` is the best trial so far.

    Raises:
        ConfigError: A setting is unknown or has a value that is not accepted.
        SearcherError, WorkersError, SpaceError: The generator raises what `search` raises.
    """
    wanted = _Wanted.of(task, storage, experiment, preset, resume, trust_code, settings)
    return _progress(wanted)


def open_store(storage: str | None = None) -> StoreView:
    """Open a database to read its studies.

    Args:
        storage: its URL; None: as in `search`.

    Returns:
        The view of the database. It is closed when nothing refers to it any more, or by `close()`, or at the end of a
        `with` block.

    Raises:
        StoreError: The database is not there or cannot be used.
    """
    return StoreView(storage or _storage())


class StoreView:
    """The studies of a database. Nothing is written.

    `view["name"]` is a study, `"name" in view` says whether it is there, and iterating yields the names, oldest first.

    Args:
        storage: the URL of the database.

    Raises:
        StoreError: The database is not there or cannot be used.
    """

    def __init__(self, storage: str) -> None:
        self._url = storage
        with explained_damage(storage):
            self._store = Store(storage)
        self._close = weakref.finalize(self, self._store.close)

    def study(self, name: str) -> Study:
        """Find a study.

        Args:
            name: its name.

        Returns:
            The study, as it is in the database now.

        Raises:
            UnknownStudy: There is none of that name; the message names those that there are.
        """
        with self._reading() as store:
            return Study(self, store.study(name))

    def studies(self) -> list[Study]:
        """Return all studies, oldest first."""
        with self._reading() as store:
            return [Study(self, summary.study) for summary in store.studies()]

    def close(self) -> None:
        """Close the connections to the database."""
        self._close()

    def __getitem__(self, name: str) -> Study:
        return self.study(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __enter__(self) -> StoreView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"StoreView({self._store.shown_url!r})"

    def _names(self) -> list[str]:
        with self._reading() as store:
            return store.names()

    @contextmanager
    def _reading(self) -> Iterator[Store]:
        with explained_damage(self._url):
            yield self._store


@dataclass(frozen=True, slots=True)
class RankedFunction:
    """A function of a ranking.

    Attributes:
        rank: from 1, the best.
        expression: the function as text; `search_space.Activation(expression, channels)` makes a PyTorch module of it.
        key: equal for equal functions.
        kind: whether it was proposed by the sampler or is a known function.
        name: of a known function; may be empty.
        n_trials: how many trainings the metrics are the mean of.
        metrics: mean values by the names of the metrics.
        state: how its first training ended.
        number: the number of its first training in the study.
        mirror: `mirror of relu` or `mirror of trial 12` where -f(-x) ranks higher in the same study, else empty.
        configuration: of a design with several: the configuration that it is ranked under.
        diverged: how many trainings did not finish, where there are several seeds.
        bound: what its mean surely reaches, by which it is ranked; None where there is one seed, or noise is not known.
        tied: whether the leader is not shown to be better; None where there is one seed.
    """

    rank: int
    expression: str
    key: str
    kind: Kind
    name: str
    n_trials: int
    metrics: Mapping[str, float] = field(hash=False)
    state: TrialState
    number: int
    mirror: str = ""
    configuration: str = ""
    diverged: int = 0
    bound: float | None = None
    tied: bool | None = None


class Study:
    """A study of a database. The attributes are as they were when it was opened; each method reads the database anew.

    Attributes:
        name: its name.
        kind: `search` or `design`.
        n_trials: the total of its trials, baselines included.
        objective: the metric that it ranks by.
        metrics: the metrics of its results.
        settings: all settings by name.
        versions: the software that it was begun with.
        created_at: when it was made.
    """

    def __init__(self, view: StoreView, record: records.Study) -> None:
        self._view, self._record = view, record
        self.name: str = record.name
        self.kind: StudyKind = record.kind
        self.n_trials: int = record.n_trials
        self.objective: Metric = record.objective
        self.metrics: tuple[Metric, ...] = record.task.shown
        self.settings: dict[str, Any] = dict(record.config)
        self.versions: dict[str, str] = dict(record.versions)
        self.created_at: datetime | None = record.created_at

    @property
    def counts(self) -> dict[TrialState, int]:
        """How many trials are in each state that occurs."""
        with self._view._reading() as store:
            return store.counts(self._record)

    @property
    def done(self) -> int:
        """How many trials have ended."""
        return sum(trials for state, trials in self.counts.items() if state.finished)

    @property
    def best(self) -> RankedFunction | None:
        """The function that ranks first; None if none was trained to the end."""
        return next(iter(self.top(1)), None)

    def top(self, limit: int | None = None) -> list[RankedFunction]:
        """Rank the functions by the objective, best first, like `searcher top`.

        Args:
            limit: how many; None: all.

        Returns:
            The functions that were trained to the end.

        Raises:
            UsageError: The limit is not a number from 1.
        """
        return [self._ranked(row) for row in self._rows(limit)]

    def top_frame(self, limit: int | None = None) -> pandas.DataFrame:
        """Rank the functions in a table with a column for each metric.

        Args:
            limit: how many; None: all.

        Returns:
            A pandas DataFrame with the columns of `searcher top -f json`.

        Raises:
            SearcherError: pandas is not installed, or the limit is not a number from 1.
        """
        names = ("rank", "expression", "key", "kind", "name", "n_trials", *self._names(), "state", "number", "mirror")
        return _frame(self._rows(limit), names)

    def evidence(self) -> list[dict[str, Any]]:
        """Return what a confirmation has found: a row for each function under each configuration, with the columns of
        `searcher evidence -f json`. It is empty before anything can be compared.

        Raises:
            UsageError: The study is no confirmation.
        """
        with self._view._reading() as store:
            return Confirmed.of(store, self._record).rows()

    def conclusions(self) -> list[str]:
        """Return what a confirmation has found in sentences, a paragraph each.

        Raises:
            UsageError: The study is no confirmation.
        """
        with self._view._reading() as store:
            return Confirmed.of(store, self._record).story()

    def trials(self) -> list[Trial]:
        """Return all trials, by number."""
        with self._view._reading() as store:
            return store.trials(self._record)

    def trials_frame(self) -> pandas.DataFrame:
        """Return all trials as a pandas DataFrame with a column for each metric.

        Raises:
            SearcherError: pandas is not installed.
        """
        with self._view._reading() as store:
            return _frame(report.trial_rows(store, self._record), ())

    def trial(self, number: int) -> Trial:
        """Find a trial.

        Args:
            number: its number in the study, from 0.

        Returns:
            The trial.

        Raises:
            UnknownStudy: The study has no such trial.
        """
        with self._view._reading() as store:
            return store.trial(self._record, number)

    def curve(self, number: int) -> list[Point]:
        """Read the learning curve of a trial. A trial that cites another one has the curve of that one.

        Args:
            number: the number of the trial in the study, from 0.

        Returns:
            The points that the training reported, by step.

        Raises:
            UnknownStudy: The study has no such trial.
        """
        training = self.trial(number).training
        with self._view._reading() as store:
            return store.curve(self._record, training)

    def learned(self, number: int) -> list[Learned]:
        """Read what the parameters of a trial's function became, site by site of the network. A trial that cites
        another one has the learned parameters of that one.

        Args:
            number: the number of the trial in the study, from 0.

        Returns:
            A record for each parameter at each site; none if the function has no parameters, or the training was
            stopped early.

        Raises:
            UnknownStudy: The study has no such trial.
        """
        training = self.trial(number).training
        with self._view._reading() as store:
            return store.learned(self._record, training)

    def activation(self, number: int, site: str) -> Activation:
        """Make the activation that a trial's network had at one site after the training.

        Args:
            number: the number of the trial in the study, from 0.
            site: the name of the site, as in `learned`.

        Returns:
            A PyTorch module with the learned parameters; it gives the same outputs as the one in the network.

        Raises:
            UnknownStudy: The study has no such trial.
            NothingLearned: The trial has no learned parameters.
            UsageError: There is no such site, or only statistics of its parameters are kept.
        """
        with self._view._reading() as store:
            return LearnedFunction.of(store, self._record, number).module(site)

    def __repr__(self) -> str:
        objective = f"{self.objective.direction} {self.objective.name}"
        return f"Study({self.name!r}, {self.n_trials} trials, {objective})"

    def _names(self) -> list[str]:
        return [metric.name for metric in self.metrics]

    def _rows(self, limit: int | None) -> list[dict[str, Any]]:
        if limit is not None and limit < 1:
            raise UsageError(f"limit must be at least 1, or None for all, not {limit!r}")
        with self._view._reading() as store:
            return marked(store, self._record, leaderboard(store, self._record, limit))

    def _ranked(self, row: Mapping[str, Any]) -> RankedFunction:
        names = self._names()
        rest = {name: value for name, value in row.items() if name not in names}
        typed = {"kind": Kind(row["kind"]), "state": TrialState(row["state"])}
        metrics = {name: row[name] for name in names if row[name] is not None}
        return RankedFunction(**rest | typed, metrics=metrics)


@dataclass(frozen=True, slots=True)
class _Confirmation:
    """What the keywords of `confirm` ask for, beside the settings of trainings."""

    asked: ConfirmSettings
    search: str
    expressions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the keywords ask for.

    Attributes:
        function: the task, if it was given as an object.
        confirmation: None for a search.
    """

    request: Request
    resume: bool
    function: Function | None
    confirmation: _Confirmation | None = None

    @classmethod
    def of(
        cls,
        task: str | Function | None,
        storage: str | None,
        experiment: str | Path | None,
        preset: str,
        resume: bool,
        trust_code: bool,
        settings: Mapping[str, Any],
    ) -> _Wanted:
        """Check the settings as far as that needs nothing but them.

        Raises:
            ConfigError: A setting is unknown or has a value that is not accepted.
        """
        function = task if callable(task) else None
        known = {**loading.from_environment(), **settings}
        known["task"] = f"{own.OBJECTS}:{getattr(task, '__name__', '')}" if callable(task) else task
        if function and known.get("pool") is None:
            known["pool"] = "inline"
        with _in_keywords():
            file = None if experiment is None else Path(experiment)
            request = Request(storage or _storage(), loading.from_keywords(known), file, preset, trust_code)
            if not request.settings().study_name and resume:
                raise ConfigError("resume=True needs study_name, to find the study")
        return cls(request, resume, function)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Hold a session for the length of the block."""
        with _in_keywords(), ExitStack() as stack:
            request = self.request
            if self.function:
                try:
                    name = stack.enter_context(own.given(self.function))
                except WorkersError as error:
                    raise ConfigError(str(error)) from error
                request = replace(request, given={**request.given, "task": name})
            session = stack.enter_context(self._opened(request))
            try:
                yield session
            except SearcherError as error:
                error.add_note(f"What is in the database stands. {_how_to_go_on(session.study.name)}")
                raise

    def _opened(self, request: Request) -> AbstractContextManager[Session]:
        if self.confirmation is None:
            return launched(request, Caller(), resume=self.resume)
        wanted = self.confirmation
        return confirmed(
            *(request, wanted.asked, Caller()),
            search=wanted.search,
            expressions=wanted.expressions,
            resume=self.resume,
        )


def _progress(wanted: _Wanted) -> Generator[Progress, None, None]:
    with wanted.session() as session, closing(session.run(lambda: False)) as steps:
        yield from steps


def _signals() -> tuple[signal.Signals, ...]:
    """Return Ctrl-C's signal, unless the program handles it in its own way."""
    return (signal.SIGINT,) if signal.getsignal(signal.SIGINT) is signal.default_int_handler else ()


def _storage() -> str:
    return os.environ.get("SEARCHER_STORAGE") or DEFAULT_STORAGE


def _how_to_go_on(name: str) -> str:
    return f"Go on with: searcher.search(study_name={name!r}, resume=True, ...)"


_COMMANDS = re.compile(r"(searcher (?:resume|stop|top|status|db) [^;\n]*)")
_FLAG = re.compile(r"--([a-z][a-z-]*)(?: (?=[A-Z]{2}|'\{|minimize|maximize|inline|ray\b))?")


@contextmanager
def _in_keywords() -> Iterator[None]:
    """Name the keywords of Python in a message about the flags of the command line."""
    try:
        yield
    except (UsageError, StudyExists, CodeNotTrusted) as error:
        error.args = (_with_keywords(str(error)),)
        raise


def _with_keywords(text: str) -> str:
    """Return a message with keywords in place of flags. Commands in it stay, for they can be typed."""
    text = text.replace("searcher launch --study-name NAME", "searcher.search(study_name=NAME)")
    text = text.replace("--skip-if-exists", "resume=True")
    parts = _COMMANDS.split(text)
    parts[::2] = [_FLAG.sub(_keyword, part) for part in parts[::2]]
    trust = "; in Python: trust_code=True" if "--trust-code" in text else ""
    return "".join(parts) + trust


def _keyword(flag: re.Match[str]) -> str:
    return flag[1].replace("-", "_") + ("=" if flag[0].endswith(" ") else "")


def _frame(rows: list[dict[str, Any]], names: tuple[str, ...]) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError:
        raise SearcherError("a DataFrame needs pandas: pip install 'activation-searcher[pandas]'") from None
    return pandas.DataFrame(rows, columns=list(names) or None)


def _show_settings(function: Function, settings: Sequence[Declared]) -> None:
    """Let `help` and completion show the settings in place of `**settings`."""
    own_parameters = list(inspect.signature(function).parameters.values())[:-1]
    shown = {parameter.name for parameter in own_parameters}
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*own_parameters, *(p for p in _parameters(settings) if p.name not in shown)],
        return_annotation=function.__annotations__["return"],
    )


def _parameters(settings: Iterable[Declared]) -> Iterator[inspect.Parameter]:
    for setting in settings:
        yield inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=setting.default)


_show_settings(search, keywords(Config))
_show_settings(iter_search, keywords(Config))
_show_settings(confirm, CONFIRMATION)
