"""Modules of a user's own, by name."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path
from types import ModuleType

from search_space.primitives import SpaceError


def import_module(name: str) -> ModuleType:
    """The module of that dotted name, looked for where Python looks, and then in the current directory.

    Raises:
        SpaceError: no name of a module, no such module, one that fails at its import; the message names it.
    """
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        raise SpaceError(f"{name!r} is no name of a module; write it as in package.module, not as a file")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last, so that a file here hides nothing that is installed
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise SpaceError(_why_not(name, error)) from error


def source_digest(name: str) -> str:
    """Tells a module's source from other versions of it; not what it imports. Empty where it has no file."""
    file = import_module(name).__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


def _why_not(module: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{module}.".startswith(f"{error.name}."):
            return (
                f"no module {module!r}: Python finds no {error.name!r}; it must be installed, or lie in the current "
                "directory"
            )
        return f"module {module!r} is there, but imports {error.name!r}, which is not; install that too"
    return f"module {module!r} fails at its import: {type(error).__name__}: {error}"
