"""The command line: parse, call, print. Results go to stdout, logs and progress to stderr."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher.commands import data as data_commands
from searcher.commands import driving as driving_commands
from searcher.commands import space as space_commands
from searcher.commands.console import DEFAULT_STORAGE, Format, Output, Row, Storage, opened, print_rows

if TYPE_CHECKING:
    from searcher.config import Config
    from searcher.store import Lease, Store, StudyBusy
    from searcher.trial import Study
    from workers.pool import Pool

app = typer.Typer(
    name="searcher",
    help="Search for activation functions: propose, train small networks, rank, with evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
db = typer.Typer(help="The database's tables.", no_args_is_help=True)
app.add_typer(db, name="db")
app.add_typer(driving_commands.app)
app.add_typer(space_commands.app)
app.add_typer(data_commands.app, name="data")

log = logging.getLogger("searcher")

Name = Annotated[str, typer.Argument(help="Name of the study.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds after which no new trial begins; 0: no limit.")]
PoolName = Annotated[str | None, typer.Option(help="ray, or inline: one child at a time in this process, without Ray.")]
Workers = Annotated[int | None, typer.Option(help="Ray workers; 0: as many as there are CPUs.")]
Gpus = Annotated[float | None, typer.Option(help="GPUs a worker; a fraction shares one.")]
Address = Annotated[
    str | None,
    typer.Option(help="A running Ray cluster: HOST:PORT, ray://HOST:PORT or auto.", envvar="SEARCHER_RAY_ADDRESS"),
]
Threads = Annotated[int | None, typer.Option(help="CPU threads a worker; 0: the cores shared out.")]
DataDir = Annotated[str | None, typer.Option(help="Folder with the data set's files; else the usual places.")]
Pruner = Annotated[str | None, typer.Option(help="Stop bad candidates early: none, median or halving.")]
CheckpointDir = Annotated[str | None, typer.Option(help="Where long trainings keep what they need to go on.")]
TrialTimeout = Annotated[float | None, typer.Option(help="Seconds a child may take; 0: no limit.")]
Retries = Annotated[int | None, typer.Option(help="How often a trial runs again after its worker died.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no logs; errors only.")]


@app.callback()
def _main(
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="More logs; twice for everything.")] = 0,
) -> None:
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING, force=True
    )
    log.setLevel(logging.INFO)
    if verbose:
        logging.getLogger().setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


@app.command()
def launch(
    experiment: Annotated[Path | None, typer.Argument(help="Experiment file (TOML); flags override it.")] = None,
    study_name: Annotated[str | None, typer.Option(help="Name of the new study; made up if not given.")] = None,
    storage: Storage = DEFAULT_STORAGE,
    preset: Annotated[str, typer.Option(help="Settings to start from: quick or paper.")] = "quick",
    sampler: Annotated[str | None, typer.Option(help="random, rnn, or optuna:tpe and other Optuna samplers.")] = None,
    sampler_kwargs: Annotated[
        str | None, typer.Option(help="The sampler's options as JSON: '{\"batch\": 20}'.")
    ] = None,
    n_trials: Annotated[int | None, typer.Option(help="The study's total of trials, baselines included.")] = None,
    timeout: Timeout = None,
    seed: Annotated[int | None, typer.Option(help="Of proposals, initial weights and order of images.")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Of the split into train, val and test.")] = None,
    objective: Annotated[str | None, typer.Option(help="Rank by val_loss or val_acc.")] = None,
    space: Annotated[str | None, typer.Option(help="Search space: swish2017, small1 or large1.")] = None,
    units: Annotated[int | None, typer.Option(help="Core units, 1 to 3.")] = None,
    unary: Annotated[str | None, typer.Option(help="Unary primitives to choose from: x,neg,sin,...")] = None,
    binary: Annotated[str | None, typer.Option(help="Binary primitives to choose from: add,mul,max,...")] = None,
    primitives: Annotated[
        str | None, typer.Option(help="Modules that register primitives of your own: package.module,...")
    ] = None,
    preflight: Annotated[
        bool | None,
        typer.Option("--preflight/--no-preflight", help="Refuse candidates that cannot be trained through, untrained."),
    ] = None,
    baselines: Annotated[
        str | None, typer.Option(help="Functions trained first: relu,swish,..., x*tanh(x), all, none.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="digits, fashion-mnist, cifar10, cifar100, npz:FILE or package.module:function.")
    ] = None,
    data_dir: DataDir = None,
    limit_train: Annotated[int | None, typer.Option(help="So many training images; 0: all.")] = None,
    model: Annotated[
        str | None, typer.Option(help="resnet8, wrn-28-10 and others (docs/children.md), or package.module:function.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the network's first stage; 0: its own.")] = None,
    model_kwargs: Annotated[
        str | None, typer.Option(help="The network's other options as JSON: '{\"stem_stride\": 2}'.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="How children are trained: quick, onecycle, he2016, wrn or densenet.")
    ] = None,
    recipe_kwargs: Annotated[
        str | None, typer.Option(help='Fields of the recipe as JSON: \'{"crop": 4, "flip": true}\'.')
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training part.")] = None,
    steps: Annotated[int | None, typer.Option(help="Batches to train on, instead of epochs; 0: epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The largest of the schedule.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of all weights but the activations'.")] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="torch.compile activations where it pays.")
    ] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Norm to which longer gradients are cut; 0: none.")] = None,
    pruner: Pruner = None,
    checkpoint_dir: CheckpointDir = None,
    trial_timeout: TrialTimeout = None,
    max_retries: Retries = None,
    pool: PoolName = None,
    workers: Workers = None,
    gpus_per_worker: Gpus = None,
    address: Address = None,
    threads: Threads = None,
    skip_if_exists: Annotated[
        bool, typer.Option("--skip-if-exists", help="Go on with the study if it exists.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Start a new study: search, and print the ranked functions."""
    from searcher import config, session
    from searcher.store import StudyExists

    given = config.from_flags(locals())
    settings = config.load(experiment, given, preset)
    digest = session.check(settings)
    if _study_exists(storage, settings.study_name):
        if not skip_if_exists:
            raise StudyExists(settings.study_name)
        log.warning("study %r exists: going on with its stored settings", settings.study_name)
        _resume(storage, settings.study_name, experiment, {**config.PRESETS[preset], **given}, quiet)
        return
    with session.open_pool(settings) as children, opened(storage, create=True) as store:
        study = session.create_study(store, settings, digest)
        with session.held_lease(store, study) as lease:
            _search(store, lease, study, settings, children, quiet)
        _conclude(store, study)


@app.command()
def resume(
    name: Name,
    experiment: Annotated[
        Path | None, typer.Argument(help="Experiment file, which must ask for what the study measures.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    n_trials: Annotated[int | None, typer.Option(help="The study's new total of trials.")] = None,
    timeout: Timeout = None,
    data_dir: DataDir = None,
    pruner: Pruner = None,
    checkpoint_dir: CheckpointDir = None,
    trial_timeout: TrialTimeout = None,
    max_retries: Retries = None,
    pool: PoolName = None,
    workers: Workers = None,
    gpus_per_worker: Gpus = None,
    address: Address = None,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a study that was stopped or killed, or extend one that is done."""
    from searcher import config

    _resume(storage, name, experiment, config.from_flags(locals()), quiet)


@app.command()
def studies(storage: Storage = DEFAULT_STORAGE, output: Output = Format.table) -> None:
    """List the studies of a database."""
    from searcher import report

    with opened(storage) as store:
        print_rows(report.study_rows(store), output)


@app.command()
def top(
    name: Name,
    storage: Storage = DEFAULT_STORAGE,
    limit: Annotated[int | None, typer.Option(min=1, help="How many functions; all if not given.")] = None,
    output: Output = Format.table,
) -> None:
    """Rank a study's functions, best first, by the study's objective on the validation part."""
    with opened(storage) as store:
        rows = store.leaderboard(store.study(name), limit)
    print_rows(_for_table(rows) if output is Format.table else rows, output)


@app.command()
def trial(
    name: Name,
    number: Annotated[int, typer.Argument(min=0, help="Number of the trial in its study.")],
    storage: Storage = DEFAULT_STORAGE,
    output: Output = Format.table,
) -> None:
    """Show one trial: what was trained, how it ended, its learning curve."""
    from searcher import report

    with opened(storage) as store:
        facts, curve = report.trial_card(store, store.study(name), number)
    if output is not Format.table:
        print_rows([{**facts, "curve": curve}], output)
        return
    headline, _, traceback = str(facts["reason"] or "").partition("\n")  # what has lines of its own fits no table
    shown = {**facts, "reason": headline}
    print_rows([{"": key, " ": value} for key, value in shown.items() if value not in (None, "")], output)
    if traceback:
        print(traceback)
    if curve:
        print_rows(curve, output)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT, as in: SELECT * FROM leaderboard")],
    storage: Storage = DEFAULT_STORAGE,
    output: Output = Format.table,
) -> None:
    """Run your own SQL, read only. Tables: searcher_study, searcher_trial, searcher_epoch; view: leaderboard."""
    from searcher.query import run_query

    print_rows(run_query(storage, sql), output)


@app.command()
def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="FILE.csv, FILE.json or FILE.parquet.")],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write every trial of a study to a file."""
    from searcher import report

    with opened(storage) as store:
        rows = report.trial_rows(store, store.study(name))
    report.export(rows, file)
    print(f"{len(rows)} trials written to {file}")


@app.command()
def doctor(storage: Storage = DEFAULT_STORAGE) -> None:
    """Check versions, devices, Ray, storage and data sets."""
    from searcher.doctor import examine

    healthy = True
    for finding in examine(storage):
        healthy &= finding.ok
        print(f"{'ok' if finding.ok else 'NO':3} {finding.what}: {finding.found}")
    if not healthy:
        raise typer.Exit(1)


@db.command()
def upgrade(storage: Storage = DEFAULT_STORAGE) -> None:
    """Make the tables, or bring those of an older searcher up to date."""
    from searcher.database import masked
    from searcher.schema import HEAD

    with opened(storage, create=True):
        print(f"{masked(storage)} is at schema {HEAD}")


def _resume(storage: str, name: str, experiment: Path | None, changes: dict[str, Any], quiet: bool) -> None:
    from searcher import session

    with opened(storage, create=True, existing=True) as store:
        study = store.study(name)
        settings = session.stored_settings(study, experiment, changes)
        session.check_comparable(study, session.check(settings))
        with session.held_lease(store, study, _say_waiting) as lease:
            study = session.extended(store, lease, study, settings.n_trials)
            with session.open_pool(settings) as workers:
                _search(store, lease, study, settings, workers, quiet)
        _conclude(store, study)


def _search(store: Store, lease: Lease, study: Study, settings: Config, pool: Pool, quiet: bool) -> None:
    from searcher import session
    from searcher.progress import Display
    from searcher.search import StopAsked

    stop = _StopSignal()
    if not quiet:
        log.info(
            "study %s: %d trials, sampler %s, in %s", study.name, study.n_trials, settings.sampler, store.shown_url
        )
        if settings.primitives:
            log.info("with the primitives of %s: %s", ", ".join(settings.primitives), session.own_primitives(settings))
    with stop, Display(study.name, quiet) as display:
        try:
            for progress in session.search(store, lease, study, settings, pool, stop.requested):
                display.update(progress)
        except StopAsked as stopped:
            print(f"{stopped}; nothing is lost. {_how_to_go_on(store, study)}", file=sys.stderr)
            raise typer.Exit(130) from None
        except BaseException:
            print(f"What is in the store stands. {_how_to_go_on(store, study)}", file=sys.stderr)
            raise
    if stop.requested():
        print(f"Stopped; nothing is lost. {_how_to_go_on(store, study)}", file=sys.stderr)
        raise typer.Exit(130)


def _how_to_go_on(store: Store, study: Study) -> str:
    return f"Go on with: searcher resume {study.name}{_storage_flag(store)}"


class _StopSignal:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop; the second ends the process as usual."""

    def __init__(self) -> None:
        self._requested = False
        self._former: dict[int, Any] = {}

    def requested(self) -> bool:
        return self._requested

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._request)

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _request(self, number: int, _: object) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        log.warning("stopping (%s); once more to stop at once", signal.Signals(number).name)


def _conclude(store: Store, study: Study) -> None:
    """The ranked table, the best function against ReLU, and what to type next."""
    from searcher import report

    board = store.leaderboard(study)
    shown = [row for row in board if row["rank"] <= 15 or row["kind"] == "baseline"]
    print_rows(_for_table(shown), Format.table)
    print(report.conclusion(store.trials(study), board, study.objective))
    flag = _storage_flag(store)
    print(f"Next: searcher top {study.name}{flag}")
    print(f"      searcher resume {study.name} --n-trials {2 * study.n_trials}{flag}")


def _for_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A leaderboard as people read it: baselines by name, four decimals."""
    return [
        {
            "rank": row["rank"],
            "expression": row["expression"],
            "baseline": row["name"],
            "trials": row["n_trials"],
            "val_loss": f"{row['val_loss']:.4f}",
            "val_acc": f"{row['val_acc']:.4f}",
            "number": row["number"],
        }
        for row in rows
    ]


def _study_exists(storage: str, name: str) -> bool:
    """Opens the database if there is one, so that what is wrong with it is said before workers are started."""
    from searcher.database import is_there
    from searcher.store import UnknownStudy

    if not is_there(storage):
        return False
    with opened(storage, create=True) as store:
        try:
            return bool(name and store.study(name))
        except UnknownStudy:
            return False


def _storage_flag(store: Store) -> str:
    """What a command needs to find the same store: nothing if the environment or the default says it."""
    if store.url.render_as_string(hide_password=False) == os.environ.get("SEARCHER_STORAGE", DEFAULT_STORAGE):
        return ""
    return f" --storage {shlex.quote(store.shown_url)}"


def _say_waiting(busy: StudyBusy) -> None:
    log.warning("the study is held by %s; taking over in %.0f s if it does not answer", busy.holder, busy.expires_in)


def main() -> None:
    """The console script. Exit status: 0 done, 1 it could not be done, 2 it was asked for wrongly, 130 stopped."""
    from searcher import SearcherError
    from workers.job import WorkersError

    try:
        app()
    except BrokenPipeError:  # `searcher top ... | head`
        sys.stderr.close()
    except (SearcherError, WorkersError) as error:
        _fail(error)
    except Exception as error:
        from search_space import SpaceError  # if this is one, torch has been imported already

        if not isinstance(error, SpaceError):
            raise
        _fail(error)


def _fail(error: Exception) -> None:
    from searcher import UsageError

    print(
        f"searcher: {error}", file=sys.stderr
    )  # SpaceError is a ValueError: a name or a text that was asked for wrongly
    raise SystemExit(2 if isinstance(error, (UsageError, ValueError)) else 1)


if __name__ == "__main__":
    main()
