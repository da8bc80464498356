"""Find, import and identify Python modules that users name, such as `package.module:function`."""

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

RESERVED = ("npz", "optuna", "table")  # prefixes of names that do not name code, such as npz:FILE
OURS = ("search_space", "workers", "searcher", "cli")  # the top-level packages of this program


class CodeName(NamedTuple):
    """The two parts of `package.module:function`. They need not exist, and need not be valid names."""

    module: str
    attribute: str


def code_name(text: str) -> CodeName | None:
    """Split `package.module:function`. Every part of this program that imports such a name calls this function first.

    Returns:
        The two parts. None if the text has no colon, or a reserved prefix as in `npz:FILE`. So nobody can name a module
        called `npz`, and a file `npz.py` in the working directory is never run by mistake.
    """
    module, colon, attribute = text.partition(":")
    return None if not colon or module in RESERVED else CodeName(module, attribute)


def look_into(folder: str) -> None:
    """Append a folder to Python's module search path.

    It comes last, so that its files do not hide installed modules. The folder of this program is put before it, because
    an editable installation may otherwise be searched after all folders.
    """
    for place in (str(Path(__file__).resolve().parents[1]), folder):
        if place not in sys.path:
            sys.path.append(place)
    importlib.invalidate_caches()


def import_module(name: str) -> ModuleType:
    """Import a module. Python's search path is searched first, then the current directory.

    Args:
        name: the dotted name.

    Raises:
        SpaceError: the name is not valid, there is no such module, or it raises an exception when it is imported.
    """
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        raise SpaceError(f"{name!r} is no name of a module; write it as in package.module, not as a file")
    look_into(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may raise anything, even SystemExit
        raise SpaceError(_import_failure(name, error)) from error


def raised(error: BaseException) -> str:
    """Return the class and the text of an exception that a user's code raised."""
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """Return the text of an exception, or a remark if its `__str__` raises an exception itself."""
    try:
        return str(error)
    except BaseException as broken:  # `__str__` may raise anything
        return f"(its text cannot be had: {type(broken).__name__})"


def source_digest(name: str) -> str:
    """Import a module, and return a digest of its file: 16 hexadecimal digits, or an empty text if it has no file.

    The digest does not cover the modules that it imports.
    """
    file = import_module(name).__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


def source_files(name: str) -> list[Path]:
    """List the files that `import_module(name)` would run, without importing anything.

    Args:
        name: A module, or the path of a Python file.

    Returns:
        The files of the module and of the packages that contain it. If it is not installed, also the files that it
        imports from its own folder. Empty if there is no such module.

    Raises:
        SpaceError: a package that contains it has no `__init__.py`.
    """
    if name.endswith(".py"):
        return _files_of_script(Path(name))
    look_into(str(Path.cwd()))
    specs = _specs(name)
    files = {Path(spec.origin) for spec in specs if spec.has_location and spec.origin}
    if specs and (root := _own_folder(specs[0])):
        finder = ModuleFinder([str(root)], excludes=OURS)
        try:
            finder.import_hook(name)
        except (ImportError, SyntaxError, ValueError, RecursionError):
            return sorted(files)  # its import will fail too, and give the reason
        except AttributeError as error:  # Python's finder does not know packages without an __init__.py
            raise SpaceError(
                f"the files of {name!r} cannot be listed, so nobody can tell later whether they have changed; add an "
                f"empty __init__.py to the folder {name.split('.')[0]!r}"
            ) from error
        found = (getattr(module, "__file__", None) for module in finder.modules.values())
        files |= {Path(file) for file in found if file}
    return sorted(files)


def portable_files(name: str) -> list[Path]:
    """List what another machine needs in order to import a module that is not installed there.

    Args:
        name: A module, or the path of a Python file.

    Returns:
        The files, and the folders of packages, that lie in the folder of the module and that it imports from there.
        Empty if the module is installed, because then it must be installed on the other machine too. A file with the
        name of an installed module is left out, because that module is found first.

    Raises:
        SpaceError: The file itself has the name of a module that it would hide on the other machine.
    """
    files = source_files(name)
    script = Path(name) if name.endswith(".py") else None
    if script and script.stem in (*OURS, *sys.stdlib_module_names):
        raise SpaceError(f"on a cluster, the file {script} would hide the module {script.stem!r}; rename it")
    root = script.parent if script else next(filter(None, map(_own_folder, _specs(name)[:1])), None)
    if root is None:
        return []
    tops = {root / file.relative_to(root).parts[0] for file in files if file.is_relative_to(root)}
    return sorted(t for t in tops if t == script or {root} >= {_own_folder(spec) for spec in _specs(t.stem)[:1]})


def _files_of_script(path: Path) -> list[Path]:
    """List a Python file, and what it imports from its own folder."""
    finder = ModuleFinder([str(path.parent)], excludes=OURS)
    try:
        finder.run_script(str(path))
    except (ImportError, SyntaxError, ValueError, RecursionError, OSError, AttributeError):
        return [path] if path.exists() else []  # its import fails too, and says why
    found = (getattr(module, "__file__", None) for module in finder.modules.values())
    return sorted({Path(file) for file in found if file})


def files_digest(name: str) -> str:
    """Return a digest of the contents and the names of `source_files(name)`. Their folders do not matter."""
    digest = hashlib.sha256()
    for file in source_files(name):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _specs(name: str) -> list[ModuleSpec]:
    """Find the module and the packages that contain it, outermost first, without importing the packages.

    `importlib.util.find_spec` would import them.
    """
    found: list[ModuleSpec] = []
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = found[-1].submodule_search_locations if found else None
        if found and path is None:  # it is not a package
            break
        specs = (finder.find_spec(".".join(parts[:depth]), path, None) for finder in sys.meta_path)
        if (spec := next(filter(None, specs), None)) is None:
            break
        found.append(spec)
    return found


def _own_folder(spec: ModuleSpec) -> Path | None:
    """Return the folder of a top-level module; None if it is installed or part of Python's standard library."""
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
