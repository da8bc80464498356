"""Code of a user's own that settings name, `model = "package.module:function"`, and whether to run it.

Settings that a person gives are an order. Those that come out of a database may be anybody's who can write to it, and
`model = "os:system"` is a name of code as well. So what they name is run only if this user has launched a search with
the same on this machine, or says that it may.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

from searcher import SearcherError
from searcher.config import Config
from searcher.journal import folder

LOCAL = ("local", "auto")  # addresses that lead to no other machine than this one does already

log = logging.getLogger("searcher")


class CodeNotTrusted(SearcherError):
    """A study names code that its user has not asked for."""


def named_code(settings: Config) -> list[str]:
    """The names of what is imported and run for these settings, and of the cluster, which can run anything here."""
    given = {"model": settings.model, "dataset": settings.dataset}
    own = [f"{what} {name}" for what, name in given.items() if ":" in name and not name.startswith("npz:")]
    cluster = [f"cluster {settings.address}"] if settings.pool == "ray" and settings.address not in LOCAL else []
    return own + [f"primitives {name}" for name in settings.primitives] + cluster


def remember(settings: Config) -> None:
    """Notes that this user wants the code that the settings name, with these options."""
    elsewhere = replace(settings, address=LOCAL[0])  # for a resume that is told another cluster
    digests = [_digest(which) for which in (settings, elsewhere) if named_code(which) and not _is_known(which)]
    if not digests:
        return
    file = _file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as lines:
            lines.writelines(f"{digest}\n" for digest in dict.fromkeys(digests))
    except OSError as error:
        log.warning("%s cannot be written (%s): a resume will need --trust-code", file, error.strerror)


def check(study: str, typed: str, settings: Config) -> None:
    """Raises CodeNotTrusted if the settings of a study name code that this user has not launched a search with."""
    if (names := named_code(settings)) and not _is_known(settings):
        raise CodeNotTrusted(
            f"study {study!r} would run code that its database names and that was not launched from here: "
            f"{', '.join(names)}, with {settings.model_kwargs}. If you know it, and who can write to the database: "
            f"searcher resume {typed} --trust-code"
        )


def _is_known(settings: Config) -> bool:
    file = _file()
    try:
        return file.exists() and _digest(settings).encode() in file.read_bytes().split()
    except OSError as error:
        log.warning("%s cannot be read (%s): what was launched from here is not known", file, error.strerror)
        return False


def _file() -> Path:
    return folder().parent / "trusted"


def _digest(settings: Config) -> str:
    what = [named_code(settings), settings.model_kwargs]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
