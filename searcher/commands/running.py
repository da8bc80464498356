"""Run a search for a command: show it, serve its metrics, and stop it on a signal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import typer

from searcher.commands.console import no_result
from searcher.observe import logs

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from searcher.driver.loop import Progress
    from searcher.records import Study
    from searcher.sessions import Caller, Session
    from searcher.settings.config import Config
    from searcher.store.lease import Lease, StudyBusy
    from searcher.store.store import Store
    from workers.contract import TaskConfig

log = logging.getLogger("searcher")


@contextmanager
def served(host: str, port: int | None) -> Iterator[CollectorRegistry | None]:
    """Serve metrics for the length of the block, and yield their registry; None without a port."""
    from searcher import UsageError

    if port is None:
        if host:
            raise UsageError(f"--metrics-host {host} serves nothing without --metrics-port, 0 for a free one")
        yield None
        return
    from searcher.observe.metrics import endpoint

    with endpoint(host or "127.0.0.1", port) as (registry, url):
        logs.say(f"metrics: {url}")
        yield registry


def checked(settings: Config) -> str:
    """Call `session.check`. It builds a user's own network, whose output is logged and not printed to stdout."""
    from searcher.driver import session

    with no_result():
        return session.check(settings)


def check_trust(study: str, typed: str, settings: Config, tasks: Sequence[TaskConfig]) -> None:
    """Call `approval.check`. If it refuses, ask the user at a terminal, and record an approval."""
    from searcher.driver import approval

    try:
        approval.check(study, typed, settings, tasks)
    except approval.CodeNotTrusted as error:
        at_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
        if logs.structured() or not at_terminal:
            raise
        logs.say(str(error), logging.WARNING)
        if not typer.confirm("Run it?", err=True):
            raise typer.Exit(1) from None
        approval.remember(settings, tasks)


def caller() -> Caller:
    """Return the functions with which a command differs from the Python API: it asks the user, and keeps stdout for
    results."""
    from searcher.sessions import Caller

    return Caller(checked, check_trust, say_waiting, no_result)


def search(session: Session, quiet: bool, registry: CollectorRegistry | None) -> None:
    """Run a session and show it on stderr, until its study is complete, stopped or failed."""
    from searcher.driver.loop import StopAsked
    from searcher.driver.signals import StopSignal
    from searcher.observe.progress import Display

    stop, progress = StopSignal(), None
    store, study = session.store, session.study
    observe = _observer(registry, study, session.lease)
    searching = session.run(stop.requested)
    with stop, redirect_stdout(logs.Printed()), Display(study.name, quiet) as display:
        try:
            with closing(searching):
                for progress in searching:
                    observe(progress)
                    display.update(progress)
        except StopAsked as stopped:
            logs.say(f"{stopped}; nothing is lost. {_how_to_go_on(store, study)}")
            raise typer.Exit(130) from None
        except BaseException:
            logs.say(f"The results in the store are kept. {_how_to_go_on(store, study)}")
            raise
    if stop.requested() and not (progress and progress.done == progress.total):
        logs.say(f"Stopped; nothing is lost. {_how_to_go_on(store, study)}")
        raise typer.Exit(130)


def say_waiting(busy: StudyBusy) -> None:
    """Log that a lease is waited for whose holder may be dead."""
    from searcher.store.lease import in_words

    held_by = in_words(busy.holder)
    log.warning("the study is held by %s; taking over in %.0f s if it does not answer", held_by, busy.expires_in)


def _observer(registry: CollectorRegistry | None, study: Study, lease: Lease) -> Callable[[Progress], None]:
    """Return the function that updates the metrics with a search's progress. Without a registry it does nothing."""
    if registry is None:
        return lambda _: None
    from searcher.observe.metrics import Metrics

    return Metrics(registry, study, lease).update


def _how_to_go_on(store: Store, study: Study) -> str:
    return f"Go on with: searcher resume {store.typed(study.name)}"
