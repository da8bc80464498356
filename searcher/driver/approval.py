"""Decide whether to run the user code that settings name, as in `model = "package.module:function"`.

Settings from the command line are the user's own and are followed. Settings from a database may come from anybody with
access to it, and `model = "os:system"` names code too. So a stored name is imported only if this user approved that
code on this machine before, by launching a search with it or by `resume --trust-code`. The approval is for the contents
of the files: after a change they need a new approval.
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

from search_space.modules import code_name, files_digest, portable_files, source_files
from searcher import SearcherError
from searcher.driver.journal import folder
from searcher.settings.config import Config
from workers.contract import TaskConfig
from workers.tasks.own import names_object

log = logging.getLogger("searcher")


class CodeNotTrusted(SearcherError):
    """A study names code, or a cluster, that this user has not approved."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """Code, or a cluster, that the settings name.

    Attributes:
        what: the setting that names it. Code that is approved as a data set is not approved as a network.
        name: the value of that setting.
        module: the module to import; empty for a cluster, whose tasks can run any code on this machine.
        options: the keyword arguments of the code.
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
        """Return a digest of the setting, its value, the options and the contents of the module's files."""
        code = files_digest(self.module) if self.module else ""
        facts = [self.what, self.name, sorted(self.options), code]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def remember(settings: Config, tasks: Sequence[TaskConfig] = ()) -> None:
    """Record that this user approves the code and the cluster that the settings name.

    Args:
        settings: the settings of a study.
        tasks: the task configurations of a design, which name code too.
    """
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
    """Raise CodeNotTrusted if stored settings name code or a cluster that this user has not approved.

    Args:
        study, typed: the study's name, and the name as typed in a shell.
        settings: the stored settings.
        tasks: the task configurations of a design. For a search, the settings decide the task configuration.
    """
    claims = list(_claims(settings, tasks))
    known = _known() if claims else frozenset[str]()
    if unknown := dict.fromkeys(str(claim) for claim in claims if claim.digest() not in known):
        raise CodeNotTrusted(
            f"study {study!r} would run code or use a cluster that its database names and that was not launched from "
            f"here, or has changed since: {'; '.join(unknown)}. If you know that code, and who can write to the "
            f"database: searcher resume {typed} --trust-code"
        )


def files_to_send(settings: Config, tasks: Sequence[TaskConfig] = ()) -> list[Path]:
    """List the files and folders of code that the settings name and that the workers of a cluster may not have.

    Raises:
        SpaceError: A file would hide a module there.
    """
    if not settings.run.on_cluster:
        return []
    modules = dict.fromkeys(claim.module for claim in _claims(settings, tasks) if claim.what != "sampler")
    return sorted({file for module in modules if module for file in portable_files(module)})


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
    if run.on_cluster:
        yield _Claim("cluster", run.address)


def _named(**named: tuple[str, Mapping[str, Any]]) -> Iterator[_Claim]:
    """Yield the claims of settings by name; each value is the setting's value and the options of the code."""
    for what, (name, options) in named.items():
        if what == "task" and names_object(name):
            continue  # a function object of this process, which is not imported
        if code := code_name(name):
            yield _Claim(what, name, code.module, tuple(options.items()))


def _known() -> frozenset[str]:
    file = _file()
    try:
        return frozenset(file.read_text(errors="replace").split()) if file.exists() else frozenset()
    except OSError as error:
        log.warning("%s cannot be read (%s), so no code counts as approved", file, error.strerror)
        return frozenset()


def _file() -> Path:
    return folder().parent / "trusted"
