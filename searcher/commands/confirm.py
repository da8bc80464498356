"""`searcher confirm` trains functions with many seeds, and `searcher evidence` says what a confirmation has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher import DEFAULT_STORAGE
from searcher.commands import completion
from searcher.commands.console import Format, Output, Storage, Wide, loading, opened, print_rows, print_text
from searcher.commands.options import SectionedCommand, with_settings
from searcher.commands.running import caller, search
from searcher.commands.tables import Long
from searcher.display import measured, shown
from searcher.observe import logs
from searcher.settings.confirm import CONFIRMATION, ConfirmSettings
from searcher.settings.declared import declared

if TYPE_CHECKING:
    from searcher.records import Study
    from searcher.reports.confirmed import Confirmed
    from searcher.sessions import Session

app = typer.Typer()

SPARE = ("in the search", "learning rate", "seeds", "corrected p")  # columns that a narrow terminal may do without
CONFIRM = {setting.name for setting in declared(ConfirmSettings)}


@app.command(cls=SectionedCommand)
@with_settings(CONFIRMATION)
def confirm(
    name: Annotated[
        str,
        typer.Argument(
            help="The search whose best functions are confirmed.",
            metavar="STUDY",
            autocompletion=completion.studies,
        ),
    ] = "",
    expression: Annotated[
        list[str] | None, typer.Option(help="Confirm this function, by name or as a formula; may be repeated.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    study_name: Annotated[str | None, typer.Option(help="Name of the confirmation; made up if not given.")] = None,
    *,
    skip_if_exists: Annotated[
        bool, typer.Option("--skip-if-exists", help="If the confirmation exists, go on with it.")
    ] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run the code that the search names, though not launched from here.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no logs; errors only.")] = False,
    **given: Any,
) -> None:
    """Train functions with many seeds, beside ReLU and others, and say which differences are significant."""
    if quiet:
        logs.hide_session_messages()
    with loading():
        from searcher import sessions
        from searcher.settings.loading import from_flags

    asked = ConfirmSettings.of({key: value for key, value in given.items() if key in CONFIRM})
    flags = {key: value for key, value in given.items() if key not in CONFIRM}
    request = sessions.Request(storage, from_flags({**flags, "study_name": study_name}), trust_code=trust_code)
    with sessions.confirmed(
        request, asked, caller(), search=name, expressions=expression or (), resume=skip_if_exists
    ) as session:
        if not quiet:
            announce(session)
        search(session, quiet, None)
    conclude(storage, session.study)


def announce(session: Session) -> None:
    """Say how many trainings there will be, how long they take if that is known, and by what rule they are judged."""
    from searcher.confirming import seconds_each
    from searcher.reports.confirmed import plan_of

    plan, store = plan_of(session.study), session.store
    several = len(plan.configurations)
    under = f" under {several} configurations" if several > 1 else f" ({plan.configurations[0].name})"
    logs.say(
        f"{len(plan.functions)} functions with {'up to ' if plan.until_sure else ''}{len(plan.seeds)} seeds{under}: "
        f"{'at most ' if plan.until_sure else ''}{plan.most_trainings} trainings"
    )
    each = seconds_each(store, store.study(plan.search)) if plan.search in store.names() else None
    if each is None or several > 1:
        logs.say("how long they take is not known before the first ones have ended")
    else:
        workers = (session.pool.capacity + 1) // 2  # beside the job that it runs, a worker of Ray holds the next one
        seconds = each * plan.most_trainings / workers
        span = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
        logs.say(f"about {span}, as a training took {each:.1f} s in the search")
    logs.say(f"The rule: {plan.rule}")
    if len(plan.seeds) < 5:
        logs.say(f"{len(plan.seeds)} seeds show great differences only; with 5 or more, smaller ones can be told")
    if plan.metric.split != "test":
        logs.say(f"the task has no test split, so {plan.metric.name} decides: validation only, optimistic")


@app.command()
def evidence(
    name: Annotated[str, typer.Argument(help="Name of the confirmation.", autocompletion=completion.studies)],
    storage: Storage = DEFAULT_STORAGE,
    reference: Annotated[str, typer.Option(help="Compare with this function instead of the planned one.")] = "",
    output: Output = Format.table,
    wide: Wide = False,
) -> None:
    """Say what a confirmation has found: which functions differ from the reference, by how much, how sure."""
    from searcher.reports.confirmed import Confirmed

    with opened(storage) as store:
        found = Confirmed.of(store, store.study(name), reference)
        if output is not Format.table:
            print_rows(found.rows(), output)
            return
        print_evidence(found, wide=wide)


def conclude(storage: str, study: Study) -> None:
    """Print what a confirmation has found, and what to type next."""
    from searcher.reports.confirmed import Confirmed

    with opened(storage) as store:
        found = Confirmed.of(store, study)
        print_evidence(found)
        typed = shown(store.typed(study.name))
        command = f"report {typed} -o report.html" if found.finished else f"resume {typed}"
        print_text(f"Next: searcher {command}")


def print_evidence(found: Confirmed, *, wide: bool = False) -> None:
    """Print a table for each configuration, and the verdicts in sentences."""
    rows, story = found.rows(), found.story()
    for configuration in found.plan.configurations:
        own = [row for row in rows if row["configuration"] == configuration.name]
        if own:
            print_text(configuration.name)
            print_rows(_shown(own), Format.table, spare=SPARE, wide=wide)
    for text in story:
        print_text(text)


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows as people read them, without columns that are empty."""
    shown_rows = [
        {
            "function": Long(row["function"]),
            "in the search": measured(row["searched"]),
            "seeds": f"{row['seeds']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
            "learning rate": "" if row["learning_rate"] is None else f"{row['learning_rate']:g}",
            row["metric"]: measured(row["mean"]),
            f"better than {row['reference']} by": measured(row["difference"]),
            "interval": _interval(row),
            "corrected p": "" if row["p_holm"] is None else f"{row['p_holm']:.2g}",
            "verdict": row["verdict"],
        }
        for row in rows
    ]
    empty = {name for name in ("in the search", "learning rate") if not any(row[name] for row in shown_rows)}
    return [{name: value for name, value in row.items() if name not in empty} for row in shown_rows]


def _interval(row: dict[str, Any]) -> str:
    low, high = row["difference_low"], row["difference_high"]
    return "" if low is None else f"{measured(low)} to {measured(high)}"
