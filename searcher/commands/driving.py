"""`searcher status` and `searcher stop`: watch or end a running search from any machine that reaches its database."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher import DEFAULT_STORAGE
from searcher.commands.console import Format, Output, Storage, StudyName, Wide, finite, opened, print_rows, print_text
from searcher.commands.tables import Long, fitting, table_of
from searcher.display import label, metrics_line
from searcher.observe import logs

if TYPE_CHECKING:
    from searcher.reports.status import Status
    from searcher.store.store import Store

app = typer.Typer()

LOOK_SECONDS = 0.2  # how often `stop` checks whether the driver has ended


@app.command()
def status(
    name: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    watch: Annotated[bool, typer.Option("--watch", help="Show it repeatedly, until the search has ended.")] = False,
    every: Annotated[
        float, typer.Option(min=0.1, max=86_400, callback=finite, help="With --watch: seconds between two looks.")
    ] = 2.0,
    output: Output = Format.table,
    wide: Wide = False,
) -> None:
    """Show who drives a study and since when, how fast it is, what runs, and what failed and why."""
    from searcher.reports import status as reading

    with opened(storage) as store:
        if watch:
            _watch(store, name, every, output, wide)
        else:
            _show(store, reading.status(store, name), output, wide)


@app.command()
def stop(
    name: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    within: Annotated[
        float, typer.Option(min=0, max=10**9, callback=finite, help="The longest time to wait, in seconds.")
    ] = 60.0,
) -> None:
    """Ask the driver of a study, on any machine, to finish cleanly; its running trials wait for a resume."""
    from searcher.store.lease import NotDriven

    with opened(storage) as store:
        study = store.study(name)
        driver = store.request_stop(study)
        logs.say(f"asked {driver.holder} to stop")
        end = time.monotonic() + within
        while wait and (now := store.driver(study)).live and now.generation == driver.generation:
            if time.monotonic() > end:
                raise NotDriven(
                    f"{driver.holder} has not stopped within {within:g} s (its last write was {now.heard or 0:.0f} s "
                    f"ago); it stops when it next writes. See: searcher status {store.typed(name)}"
                )
            time.sleep(LOOK_SECONDS)
        if wait:
            print_text(f"study {name!r} is stopped; go on with: searcher resume {store.typed(name)}")


def _show(store: Store, found: Status, output: Format, wide: bool) -> None:
    from searcher.reports.status import as_facts

    if output is Format.table:
        print_rows(_lines(store, found), output, wide=wide)
    else:
        print_rows([as_facts(found)], output)


def _watch(store: Store, name: str, every: float, output: Format, wide: bool) -> None:
    """Show the status repeatedly until nobody drives the study. If the database does not answer, wait for it."""
    from rich.console import Console
    from rich.live import Live

    from searcher.reports.status import status as look
    from searcher.store.database import StoreUnavailable

    live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() and output is Format.table else None
    if live:
        live.start()
    silent = False
    try:
        while True:
            try:
                found = look(store, name)
            except StoreUnavailable as error:
                if not silent:
                    logs.say(f"{error}; trying again until it answers", logging.WARNING)
                silent = True
                time.sleep(every)
                continue
            silent = False
            if live:
                rows = _lines(store, found)
                live.update(table_of(rows) if wide else fitting(rows, live.console.width), refresh=True)
            else:
                _show(store, found, output, wide)
            if not found.driver.live:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return  # Ctrl-C ends the watch; the search goes on
    finally:
        if live:
            live.stop()


def _lines(store: Store, found: Status) -> list[dict[str, Any]]:
    typed = store.typed(found.study.name)
    facts = {
        "study": f"{found.study.name}: {found.done} of {found.study.n_trials} trials decided",
        "driver": _driver(found),
        "trials": ", ".join(f"{n} {state.lower()}" for state, n in found.counts.items()) or "none yet",
        "rate": _rate(found),
        "running": tuple(Long(expression, before=f"{number}: ") for number, expression in found.running),
        "trained": tuple(Long(function, after=f": {ended} trainings") for function, ended in found.trainings),
        "failed": tuple(f"{f.count}x {f.reason} (searcher trial {typed} {f.number})" for f in found.failures),
        "best": _best(found),
        "next": f"searcher {_next(found)} {typed}",
    }
    return [{"": key, " ": value} for key, value in facts.items() if value]


def _driver(found: Status) -> str:
    from searcher.store.lease import process_of

    driver = found.driver
    holder = process_of(driver.holder)
    if driver.live:
        asked = "; asked to stop" if driver.asked_to_stop else ""
        return f"{holder}; for {_span(driver.since)}, last write {_span(driver.heard or 0)} ago{asked}"
    if not driver.holder:
        return "nobody yet"
    how = "has ended" if driver.heard is None else f"wrote nothing for {_span(driver.heard)}"
    return f"nobody; the last, {holder}, {how}"


def _rate(found: Status) -> str:
    if not found.rate:
        return ""
    return f"{found.rate:,.0f} trials/h, {_span(found.seconds_left or 0)} left"


def _best(found: Status) -> tuple[Long, ...]:
    named = [(label(found.best["name"], found.best["expression"]), found.best)] if found.best else []
    if found.relu:
        named.append(("ReLU", found.relu))
    metrics = [metric.name for metric in found.study.task.shown]
    return tuple(Long(name, after=f": {metrics_line({m: row[m] for m in metrics})}") for name, row in named)


def _next(found: Status) -> str:
    from searcher.reports.confirmed import is_confirmation

    if found.driver.live:
        return "stop"
    if found.done < found.study.n_trials:
        return "resume"
    return "evidence" if is_confirmation(found.study) else "top"


def _span(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02} h" if hours else f"{minutes}:{second:02} min" if minutes else f"{second} s"
