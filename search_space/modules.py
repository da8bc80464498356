"""Modules of a user's own, by name."""

from __future__ import annotations

import hashlib
import importlib
import sys
import sysconfig
from importlib.machinery import ModuleSpec
from modulefinder import ModuleFinder
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from search_space.primitives import SpaceError

RESERVED = ("npz", "optuna", "table")  # what comes before the colon of a name that is no code
OURS = ("search_space", "workers", "searcher", "cli")


class CodeName(NamedTuple):
    """`package.module:function` in its two parts. Neither need exist, or be a possible name."""

    module: str
    attribute: str


def code_name(text: str) -> CodeName | None:
    """Split `package.module:function`. Every part of this program that imports such a name asks here first.

    Returns:
        None for a name of another kind: one without a colon, or with a reserved prefix, as in `npz:FILE`. A module
        called `npz` cannot be named, so that a file next to the user never becomes code by mistake.
    """
    module, colon, attribute = text.partition(":")
    return None if not colon or module in RESERVED else CodeName(module, attribute)


def look_into(folder: str) -> None:
    """Let Python find modules in that folder too: last, so that a file there hides nothing that is installed. Our own
    packages come before it even where an editable installation finds them after all folders."""
    for place in (str(Path(__file__).resolve().parents[1]), folder):
        if place not in sys.path:
            sys.path.append(place)
    importlib.invalidate_caches()


def import_module(name: str) -> ModuleType:
    """The module of that dotted name, looked for where Python looks, and then in the current directory.

    Raises:
        SpaceError: no name of a module, no such module, one that fails at its import; the message names it.
    """
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        raise SpaceError(f"{name!r} is no name of a module; write it as in package.module, not as a file")
    look_into(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may raise anything, SystemExit for one
        raise SpaceError(_import_failure(name, error)) from error


def raised(error: BaseException) -> str:
    """Return the class and the text of an exception that code of a user's own raised. Its `__str__` may raise too."""
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """Return the text of an exception, or a remark if it has none that can be had."""
    try:
        return str(error)
    except BaseException as broken:  # a person's own exception may have any `__str__`
        return f"(its text cannot be had: {type(broken).__name__})"


def source_digest(name: str) -> str:
    """Tells a module's source from other versions of it; not what it imports. Empty where it has no file."""
    file = import_module(name).__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


def source_files(name: str) -> list[Path]:
    """List the files that `import_module(name)` would run. Nothing is imported for it.

    Returns:
        The module, the packages around it and, of a module that is not installed, what it imports from its own folder.
        Empty if there is no such module.

    Raises:
        SpaceError: a package around it has no `__init__.py`.
    """
    look_into(str(Path.cwd()))
    specs = _specs(name)
    files = {Path(spec.origin) for spec in specs if spec.has_location and spec.origin}
    if specs and (root := _own_folder(specs[0])):
        finder = ModuleFinder([str(root)], excludes=OURS)
        try:
            finder.import_hook(name)
        except (ImportError, SyntaxError, ValueError, RecursionError):
            return sorted(files)  # its import fails too, and says why
        except AttributeError as error:  # Python's finder does not know packages without an __init__.py
            raise SpaceError(
                f"the files of {name!r} cannot be listed, so nobody can tell later whether they have changed; add an "
                f"empty __init__.py to the folder {name.split('.')[0]!r}"
            ) from error
        found = (getattr(module, "__file__", None) for module in finder.modules.values())
        files |= {Path(file) for file in found if file}
    return sorted(files)


def files_digest(name: str) -> str:
    """Return a digest of `source_files(name)`: of their contents and file names, not of the folder they lie in."""
    digest = hashlib.sha256()
    for file in source_files(name):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _specs(name: str) -> list[ModuleSpec]:
    """Find the module and the packages around it, outermost first. `importlib.util.find_spec` would import these."""
    found: list[ModuleSpec] = []
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = found[-1].submodule_search_locations if found else None
        if found and path is None:  # a module, which holds no others
            break
        specs = (finder.find_spec(".".join(parts[:depth]), path, None) for finder in sys.meta_path)
        if (spec := next(filter(None, specs), None)) is None:
            break
        found.append(spec)
    return found


def _own_folder(spec: ModuleSpec) -> Path | None:
    """Return the folder that a top-level module lies in; None if it was installed or is a part of Python."""
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.has_location and spec.origin else ())]
    if not places:
        return None
    folder = Path(places[0]).parent
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    installed = {"site-packages", "dist-packages"} & set(folder.parts) or any(map(folder.is_relative_to, standard))
    return None if installed else folder


def _import_failure(module: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if f"{module}.".startswith(f"{error.name}."):
            return (
                f"no module {module!r}: Python finds no {error.name!r}; it must be installed, or lie in the current "
                "directory"
            )
        return f"module {module!r} is there, but imports {error.name!r}, which is not; install that too"
    return f"module {module!r} fails at its import: {raised(error)}"
