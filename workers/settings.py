"""Declare settings: each is a field of a dataclass and carries its help, its range and its choices. This module needs
the standard library only.

`searcher.settings` makes from these declarations the flags, the keys of experiment files, the keywords of the Python
API, the checks and the stored form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

KEY = "setting"  # in the metadata of a field


@dataclass(frozen=True, slots=True)
class Setting:
    """What is declared about a setting beside its name, its type and its default.

    Attributes:
        help: what it is for, in one line.
        at_least, at_most: the range of a number; None: no limit.
        sensible_at_most: the largest number that a new study may have, because nothing useful lies beyond it, or it
            would end the process. A study of an older version may have a larger one and go on.
        one_of: the accepted texts; empty: any.
        flag: whether the command line has a flag of its own for it. Every setting has a key in experiment files.
        on_resume: whether it may change when a study goes on.
        variable: the environment variable that is read if the flag is not given; empty: none.
        example: for a table, an example of its JSON.
    """

    help: str
    at_least: float | None = None
    at_most: float | None = None
    sensible_at_most: float | None = None
    one_of: tuple[str, ...] = ()
    flag: bool = True
    on_resume: bool = False
    variable: str = ""
    example: str = ""


def setting(default: Any, *, help: str, one_of: Iterable[str] = (), **facts: Any) -> Any:  # noqa: A002
    """Declare a field of a dataclass as a setting.

    Args:
        default: its default. A table is copied for each new object.
        help, one_of, facts: see `Setting`.

    Returns:
        The field, typed as its default is.
    """
    metadata = {KEY: Setting(help, one_of=tuple(one_of), **facts)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, hash=False, metadata=metadata)
    return field(default=default, metadata=metadata)
