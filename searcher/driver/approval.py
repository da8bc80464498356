"""Code of a user's own that settings name, `model = "package.module:function"`, and whether to run it.

Settings that a person gives on the command line are followed. Settings that come from a database may have been written
by anybody with access to it, and `model = "os:system"` names code too. So a stored name is imported only if this user
has trusted that code on this machine before: by launching a search with it, or by `resume --trust-code`. Trust is given
to the contents of the files, so another file of the same name is asked about again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_space.modules import code_name, files_digest, source_files
from searcher import SearcherError
from searcher.driver.journal import folder
from searcher.settings.config import Config
from workers.contract import TaskConfig
from workers.tasks.own import names_object

LOCAL = "local"  # the only address at which no other machine, and nobody else's Ray, is reached

log = logging.getLogger("searcher")


class CodeNotTrusted(SearcherError):
    """A study names code, or a cluster, that its user has not asked for."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """One thing that the settings would run.

    Attributes:
        what: the setting that names it: code trusted as a data set is not trusted as a network.
        name: its value.
        module: the module to import; empty for a cluster, which can run anything here.
        options: what the code is called with.
    """

    what: str
    name: str
    module: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        given = f", with {dict(self.options)}" if self.options else ""
        files = source_files(self.module) if self.module else []
        return f"{self.what} {self.name}{given}" + (f" ({', '.join(map(str, files[:3]))})" if files else "")

    def digest(self) -> str:
        code = files_digest(self.module) if self.module else ""
        facts = [self.what, self.name, sorted(self.options), code]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def remember(settings: Config, tasks: Sequence[TaskConfig] = ()) -> None:
    """Note that this user wants the code that the settings and the task configurations of a design name, with these
    options, and their cluster."""
    known = _known()
    digests = [digest for claim in _claims(settings, tasks) if (digest := claim.digest()) not in known]
    if not digests:
        return
    file = _file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as lines:
            lines.writelines(f"{digest}\n" for digest in dict.fromkeys(digests))
    except OSError as error:
        log.warning("%s cannot be written (%s): a resume will need --trust-code", file, error.strerror)


def check(study: str, typed: str, settings: Config, tasks: Sequence[TaskConfig] = ()) -> None:
    """Raise CodeNotTrusted if what is stored names code or a cluster that this user has not trusted before.

    Args:
        study, typed: the study's name, and the name as it is typed in a command.
        tasks: the task configurations of a design. Those of a search follow from its settings.
    """
    claims = list(_claims(settings, tasks))
    known = _known() if claims else frozenset[str]()
    if unknown := dict.fromkeys(str(claim) for claim in claims if claim.digest() not in known):
        raise CodeNotTrusted(
            f"study {study!r} would run what its database names and what was not launched from here, or has changed "
            f"since: {'; '.join(unknown)}. If you know it, and who can write to the database: "
            f"searcher resume {typed} --trust-code"
        )


def _claims(settings: Config, tasks: Sequence[TaskConfig]) -> Iterator[_Claim]:
    training, search, run = settings.training, settings.search, settings.run
    yield from _named(
        task=(training.task, training.task_kwargs),
        model=(training.images.model, training.images.model_kwargs),
        dataset=(training.images.dataset, {}),
        sampler=(search.sampler, search.sampler_kwargs),
    )
    for task in tasks:
        found = task.parameters
        yield from _named(
            task=(task.task, found.get("options", {})),
            model=(found.get("model", ""), found.get("model_kwargs", {})),
            dataset=(found.get("dataset", ""), {}),
        )
    for module in dict.fromkeys((*training.primitives, *(name for task in tasks for name in task.primitives))):
        yield _Claim("primitives", module, module)
    if run.pool == "ray" and run.address != LOCAL:
        yield _Claim("cluster", run.address)


def _named(**named: tuple[str, Mapping[str, Any]]) -> Iterator[_Claim]:
    """Yield the claims of settings by name, each with what the code is called with."""
    for what, (name, options) in named.items():
        if what == "task" and names_object(name):
            continue  # a function object of this process, or nothing that can be imported
        if code := code_name(name):
            yield _Claim(what, name, code.module, tuple(options.items()))


def _known() -> frozenset[str]:
    file = _file()
    try:
        return frozenset(file.read_text(errors="replace").split()) if file.exists() else frozenset()
    except OSError as error:
        log.warning("%s cannot be read (%s): what was launched from here is not known", file, error.strerror)
        return frozenset()


def _file() -> Path:
    return folder().parent / "trusted"
