"""The command line: parse, call, print. Results go to stdout, logs and progress to stderr."""

from __future__ import annotations

import errno
import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

HERE = Path(__file__).resolve().parent


def _current_folder() -> str:
    """Return the current directory as Python writes it in `sys.path`; empty if it has been removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return ""


def _find_own_packages() -> None:
    """Prevent files of the user's, as a `workers.py` in the current directory, from hiding the packages of this
    program. With `python -m cli` Python looks into that directory first; from here on it looks there last."""
    if str(HERE) not in sys.path:
        sys.path.append(str(HERE))
    if sys.path[0] in ("", _current_folder()):
        sys.path.append(sys.path.pop(0))
    for name in ("search_space", "workers", "searcher"):
        origin = getattr(find_spec(name), "origin", None)
        if origin is None or Path(origin).resolve().parents[1] != HERE:
            sys.exit(
                f"searcher: {origin or 'something'} hides this program's package {name!r}; rename it, or take its "
                "folder out of PYTHONPATH"
            )


_find_own_packages()

import typer

from searcher import DEFAULT_STORAGE, __version__
from searcher.commands import changing as changing_commands
from searcher.commands import compare as compare_commands
from searcher.commands import completion
from searcher.commands import confirm as confirm_commands
from searcher.commands import data as data_commands
from searcher.commands import database as database_commands
from searcher.commands import driving as driving_commands
from searcher.commands import init as init_commands
from searcher.commands import jobs as jobs_commands
from searcher.commands import plot as plot_commands
from searcher.commands import report as report_commands
from searcher.commands import reproduce as reproduce_commands
from searcher.commands import space as space_commands
from searcher.commands import sql as sql_commands
from searcher.commands import surgery as surgery_commands
from searcher.commands import task as task_commands
from searcher.commands import top as top_commands
from searcher.commands.console import (
    Format,
    Output,
    Storage,
    StudyName,
    Wide,
    loading,
    opened,
    print_findings,
    print_rows,
    print_text,
)
from searcher.commands.hints import Commands
from searcher.commands.options import SectionedCommand, with_settings
from searcher.commands.running import caller, search, served
from searcher.commands.tables import Row
from searcher.display import measured, shown
from searcher.observe import logs, streams
from searcher.settings.config import Config
from searcher.settings.declared import keywords

if TYPE_CHECKING:
    from searcher.records import Study

app = typer.Typer(
    name="searcher",
    cls=Commands,
    help="Search for activation functions: propose, train small networks, rank, with evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(database_commands.app, name="db")
app.add_typer(driving_commands.app)
app.add_typer(top_commands.app)
app.add_typer(changing_commands.app)
app.add_typer(init_commands.app)
app.add_typer(confirm_commands.app)
app.add_typer(reproduce_commands.app)
app.add_typer(compare_commands.app)
app.add_typer(plot_commands.app)
app.add_typer(report_commands.app)
app.add_typer(space_commands.app)
app.add_typer(sql_commands.app)
app.add_typer(surgery_commands.app)
app.add_typer(data_commands.app, name="data")
app.add_typer(jobs_commands.app, name="jobs")
app.add_typer(task_commands.app, name="task")

log = logging.getLogger("searcher")

MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65_535, help="Serve metrics for Prometheus at this port; 0: a free one.")
]
MetricsHost = Annotated[str, typer.Option(help="Address at which metrics are served; 127.0.0.1 if not given.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no logs; errors only.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"searcher {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="More logs; twice for everything.")] = 0,
    log_format: Annotated[
        logs.LogFormat, typer.Option(help="json: a line a record, and no progress bar.", envvar="SEARCHER_LOG_FORMAT")
    ] = logs.LogFormat.text,
    log_file: Annotated[Path | None, typer.Option(help="Append logs to this file too.")] = None,
) -> None:
    logs.set_up(verbose, log_format, log_file)


@app.command(cls=SectionedCommand)
@with_settings(keywords(Config))
def launch(
    experiment: Annotated[Path | None, typer.Argument(help="Experiment file (TOML); flags override it.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    preset: Annotated[
        str,
        typer.Option(
            help="Settings to start from: quick or paper.", autocompletion=completion.among(completion.PRESETS)
        ),
    ] = "quick",
    *,
    skip_if_exists: Annotated[
        bool,
        typer.Option("--skip-if-exists", help="If the study exists, wait for its driver to end, and go on with it."),
    ] = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "",
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Start a new study: search, and print the ranked functions."""
    if quiet:
        logs.hide_session_messages()
    with loading():
        from searcher import sessions
        from searcher.settings.loading import from_flags

    request = sessions.Request(storage, from_flags(given), experiment, preset)
    with (
        served(metrics_host, metrics_port) as registry,
        sessions.launched(request, caller(), resume=skip_if_exists) as session,
    ):
        search(session, quiet, registry)
    _conclude(storage, session.study)


@app.command(cls=SectionedCommand)
@with_settings(setting for setting in keywords(Config) if setting.facts.on_resume)
def resume(
    name: StudyName,
    experiment: Annotated[
        Path | None, typer.Argument(help="Experiment file, which must ask for what the study measures.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    *,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "",
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the code that the study names, though not launched from here.")
    ] = False,
    quiet: Quiet = False,
    **given: Any,
) -> None:
    """Go on with a study that was stopped or killed, or extend one that is done."""
    if quiet:
        logs.hide_session_messages()
    with loading():
        from searcher import sessions
        from searcher.reports.confirmed import is_confirmation
        from searcher.settings.loading import from_flags

    request = sessions.Request(storage, from_flags(given), experiment, trust_code=trust_code)
    with served(metrics_host, metrics_port) as registry, sessions.resumed(request, name, caller()) as session:
        study = session.study
        if session.finished:
            more = "confirm it again with more --seeds" if is_confirmation(study) else "give a greater --n-trials"
            ended = f"all {study.n_trials} trials have ended, so nothing was started"
            logs.say(f"study {name!r} is finished: {ended}. To go on, {more}")
        else:
            search(session, quiet, registry)
    if is_confirmation(study):
        confirm_commands.conclude(storage, study)
    else:
        _conclude(storage, study)


@app.command()
def studies(storage: Storage = DEFAULT_STORAGE, output: Output = Format.table, wide: Wide = False) -> None:
    """List the studies of a database."""
    from searcher.reports import report

    with opened(storage) as store:
        rows = report.study_rows(store)
        if output is not Format.table:
            print_rows(rows, output)
            return
        print_rows([_in_short(row) for row in rows], output, spare=("created", "sampler", "complete"), wide=wide)


@app.command()
def trial(
    name: StudyName,
    number: Annotated[int, typer.Argument(min=0, max=2**31 - 1, help="Number of the trial in its study.")],
    storage: Storage = DEFAULT_STORAGE,
    output: Output = Format.table,
) -> None:
    """Show one trial: what was trained, how it ended, its learning curve, and what its parameters became."""
    from searcher.reports import report
    from searcher.reports.learned import table_row

    with opened(storage) as store:
        found = report.trial_report(store, store.study(name), number)
        if output is not Format.table:
            print_rows([{**found.facts, "curve": found.curve, "learned": found.learned}], output)
            return
        # A reason may have lines of its own, which fit no table.
        headline, _, traceback = str(found.facts["reason"] or "").partition("\n")
        rows = {**found.facts, "reason": headline}
        print_rows([{"": key, " ": value} for key, value in rows.items() if value not in (None, "")], output)
        if traceback:
            print_text(traceback)
        if found.curve:
            print_rows(_steps(found.curve), output)
        if found.learned:
            print_rows(map(table_row, found.learned), output, spare=["channels"])


def _steps(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the points of a learning curve for people. Not every point has all metrics."""
    names = dict.fromkeys(name for row in curve for name in row if name != "step")
    return [{"step": row["step"], **{name: measured(row.get(name)) for name in names}} for row in curve]


@app.command()
def export(
    name: StudyName,
    file: Annotated[Path, typer.Argument(help="FILE.csv, FILE.json or FILE.parquet.")],
    storage: Storage = DEFAULT_STORAGE,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write every trial of a study to a file."""
    from searcher.reports import report

    with opened(storage) as store:
        rows = report.trial_rows(store, store.study(name))
        report.export(rows, file, force=force)
    print_text(f"{len(rows)} trials written to {file}")


@app.command()
def doctor(storage: Storage = DEFAULT_STORAGE) -> None:
    """Check versions, devices, Ray, storage and data sets."""
    from searcher.doctor import examine

    if not print_findings(examine(storage)):
        raise typer.Exit(1)


def _conclude(storage: str, study: Study) -> None:
    """The ranked table, the best function against ReLU, and what to type next."""
    from searcher.reports import report
    from searcher.reports.mirrors import marked
    from searcher.reports.names import with_labels
    from searcher.reports.ranked import leaderboard

    with opened(storage) as store:
        rows = with_labels(marked(store, study, leaderboard(store, study, 15, baselines=True)))
        if rows:
            top_commands.print_board(study, rows)
        print_text(report.conclusion(store, study, rows))
        typed = shown(store.typed(study.name))
        done = sum(n for state, n in store.counts(study).items() if state.finished)
        longer = f" --n-trials {2 * study.n_trials}" if done >= study.n_trials else ""
        commands = [f"top {typed}", f"confirm {typed}"] if rows else [f"status {typed}"]
        print_text("Next: " + "\n      ".join(f"searcher {text}" for text in (*commands, f"resume {typed}{longer}")))


def _in_short(study: Row) -> dict[str, Any]:
    """A study as people read it, in a line if it goes."""
    from searcher.store.lease import process_of

    return {
        "study": study["study"],
        "decided": f"{study['done']} of {study['total']}",
        "complete": study["complete"],
        "failed": study["failed"],
        "sampler": study["sampler"] or study["kind"],
        "judged by": study["dataset"] if study["task"] == "images" else study["task"],
        "created": study["created"],
        "driver": process_of(study["driver"]),
    }


def main() -> None:
    """The console script. Exit status: 0 done, 1 it could not be done, 2 it was asked for wrongly, 130 stopped."""
    from searcher import SearcherError
    from workers.contract import WorkersError

    streams.prepare()
    sys.excepthook = logs.print_exception
    try:
        app()
    except BrokenPipeError:  # `searcher top ... | head`
        sys.stderr.close()
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            raise
        logs.say(f"cannot write the output: {error.strerror}", logging.ERROR)
        os._exit(1)  # what is left in the buffer of stdout would fail once more
    except (SearcherError, WorkersError) as error:
        _fail(error)
    except Exception as error:
        from search_space import SpaceError  # if this is one, torch has been imported already

        if not isinstance(error, SpaceError):
            if not logs.structured():
                raise
            log.critical("an error in this program", exc_info=True)
            raise SystemExit(1) from None
        _fail(error)


def _fail(error: Exception) -> None:
    from searcher import UsageError

    logs.say(str(error), logging.ERROR)
    # SpaceError is a ValueError: a name or a text that was asked for wrongly
    raise SystemExit(2 if isinstance(error, (UsageError, ValueError)) else 1)


if __name__ == "__main__":
    main()
