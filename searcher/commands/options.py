"""Make the options of commands from the declarations of the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from typer.core import TyperCommand

from searcher.commands import completion
from searcher.settings.declared import Declared

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

F = TypeVar("F", bound=Callable[..., None])


def with_settings(settings: Iterable[Declared]) -> Callable[[F], F]:
    """Give a command an option for each setting that has a flag.

    The command takes the values as keywords, `**given`; None: not given. In the help the options follow the positional
    parameters of the command, and those of one section of the settings stand together.

    Args:
        settings: the settings, as in `declared(Config)`.
    """

    def decorate(command: F) -> F:
        signature = inspect.signature(command, eval_str=True)
        options = [_option(setting) for setting in settings if setting.facts.flag]
        kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        before, after = ([p for p in signature.parameters.values() if p.kind is kind] for kind in kinds)
        command.__signature__ = signature.replace(parameters=[*before, *options, *after])  # type: ignore[attr-defined]
        return command

    return decorate


def _option(setting: Declared) -> inspect.Parameter:
    facts, kind = setting.facts, setting.kind
    # Lists are written with commas, tables as JSON; a table of fields is named.
    hint = kind if kind in (int, float, bool) else str
    option = typer.Option(
        *([f"{setting.flag}/--no-{setting.flag[2:]}"] if kind is bool else [setting.flag]),
        help=f"{facts.help} as JSON: '{facts.example}'." if kind is dict else facts.help,
        envvar=facts.variable or None,
        autocompletion=completion.of_setting(setting),
        rich_help_panel=setting.section.capitalize() or None,
    )
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[hint | None, option]
    )


class SectionedCommand(TyperCommand):
    """A command whose help shows the options of each section under a heading of their own."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            default = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record is not None:
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
