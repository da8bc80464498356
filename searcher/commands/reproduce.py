"""`searcher reproduce` runs a published experiment again, and puts the published figures beside the new ones."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from searcher import DEFAULT_STORAGE
from searcher.commands import completion
from searcher.commands.confirm import announce, conclude
from searcher.commands.console import Storage, loading
from searcher.commands.options import SectionedCommand, with_settings
from searcher.commands.running import caller, search
from searcher.observe import logs
from searcher.settings.config import Config
from searcher.settings.declared import keywords

app = typer.Typer()


@app.command(cls=SectionedCommand)
@with_settings(setting for setting in keywords(Config) if setting.section == "run" and setting.name != "timeout")
def reproduce(
    name: Annotated[
        str, typer.Argument(help="lecture, or swish2017.", autocompletion=completion.among(completion.REPRODUCTIONS))
    ],
    storage: Storage = DEFAULT_STORAGE,
    scale: Annotated[
        str,
        typer.Option(
            help="smoke: a minute; cpu: at most 2.5 hours on 2 cores; full: days on GPUs.",
            autocompletion=completion.among(completion.SCALES),
        ),
    ] = "cpu",
    dataset: Annotated[
        str,
        typer.Option(
            help="The data set; not given: the scale's first one, fashion-mnist for cpu.",
            autocompletion=completion.among(completion.DATASETS),
        ),
    ] = "",
    *,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no logs; errors only.")] = False,
    **given: Any,
) -> None:
    """Run a published experiment again, or go on with it. `searcher report` then adds the published figures."""
    if quiet:
        logs.hide_session_messages()
    with loading():
        from searcher import sessions
        from searcher.reproductions import steps
        from searcher.settings.confirm import ConfirmSettings
        from searcher.settings.loading import from_flags

    wanted, run = steps(name, scale, dataset), from_flags(given)
    if wanted.search:
        request = sessions.Request(storage, _together(run, wanted.search))
        with sessions.launched(request, caller(), resume=True) as session:
            search(session, quiet, None)
    request = sessions.Request(storage, _together(run, wanted.confirmation))
    with sessions.confirmed(
        request,
        ConfirmSettings.of(wanted.confirm),
        caller(),
        search=wanted.search["study_name"] if wanted.search else "",
        expressions=wanted.expressions,
        reproduces=wanted.label,
        resume=True,
    ) as session:
        if not quiet:
            announce(session)
        search(session, quiet, None)
    conclude(storage, session.study)


def _together(run: dict[str, Any], settings: Any) -> dict[str, Any]:
    """Return the settings of a person about how it is run, and those of the reproduction."""
    return {**{name: value for name, value in run.items() if value is not None}, **settings}
