"""Which package may import which. `python -m tests.support.architecture` prints the rules, and what breaks them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import searcher
from tests.support import ROOT

SOURCES = [ROOT / "cli.py", *(f for d in ("search_space", "workers", "searcher") for f in (ROOT / d).rglob("*.py"))]

# Modules that everything under `searcher` may import, as it may import `searcher` itself.
BASE = ("searcher.records", "searcher.display", "searcher.findings", "workers.contract")
# Packages and modules of ours, and what they may import of ours, beside themselves. All else is forbidden.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "search_space": (),
    "workers": ("search_space",),
    "searcher.samplers": ("search_space", *BASE),
    "searcher.pruners": BASE,
    "searcher.proposers": ("search_space", "searcher.samplers", *BASE),
    "searcher.mirrors": ("search_space", *BASE),
    "searcher.evidence": BASE,
    "searcher.confirmation": ("searcher.proposers", "searcher.samplers", "searcher.evidence", *BASE),
    "searcher.settings": ("search_space", "workers", "searcher.pruners", *BASE),
    "searcher.store": ("workers.text", *BASE),
    "searcher.driver": (
        *("search_space", "workers", "searcher.samplers", "searcher.proposers", "searcher.confirmation"),
        *("searcher.pruners", "searcher.mirrors", "searcher.settings", "searcher.store", "searcher.observe.logs"),
        *BASE,
    ),
    "searcher.reports": (
        *("search_space", "workers.tasks", "searcher.mirrors", "searcher.store", "searcher.evidence"),
        *("searcher.confirmation", "searcher.reproductions", "searcher.settings", "searcher.driver.keys", *BASE),
    ),
    "searcher.observe": ("workers.text", "searcher.driver", "searcher.store.lease", *BASE),
    "searcher.integrations": ("workers", *BASE),
    "searcher.doctor": ("workers", "searcher.store", *BASE),
    "searcher.confirming": (
        *("search_space", "workers", "searcher.confirmation", "searcher.evidence", "searcher.driver"),
        "searcher.settings",
        *("searcher.store", *BASE),
    ),
    "searcher.reproductions": ("searcher.settings", *BASE),
    "searcher.sessions": (
        *("workers", "searcher.confirming", "searcher.driver", "searcher.settings", "searcher.store", *BASE),
    ),
    "searcher.api": (
        *("search_space", "workers", "searcher.sessions", "searcher.driver", "searcher.settings", "searcher.store"),
        *("searcher.reports", "searcher.observe", *BASE),
    ),
    "searcher.commands": ("search_space", "workers", "searcher"),
    "searcher": ("workers.text", "workers.contract"),  # BASE
    "cli": ("search_space", "workers", "searcher"),
}
# What `searcher` exports from `searcher.api` is not for the parts below that.
EXPORTED = {f"searcher.{name}" for name in searcher.__all__ if name not in vars(searcher)}
# Packages of others that only a part of ours may import.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "sqlalchemy": ("searcher.store",),
    "alembic": ("searcher.store",),
    "ray": ("workers.pools", "searcher.integrations"),
    "optuna": ("searcher.samplers.optuna",),
    "typer": ("cli", "searcher.commands"),
    "rich": ("cli", "searcher.commands", "searcher.observe"),
}
# What else a module must not import, because it is used where these are missing or too slow to import.
LIGHT: dict[str, tuple[str, ...]] = {
    "workers.contract": ("torch", "numpy"),
    "searcher.records": ("torch", "numpy"),
    "searcher.store": ("torch", "numpy"),
    **{
        f"searcher.settings.{name}": ("torch", "search_space") for name in ("declared", "config", "checking", "loading")
    },
    "workers.settings": ("torch", "numpy"),
    "searcher.reports.report": ("torch", "search_space"),
    "searcher.evidence": ("torch",),
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(source: str) -> Iterator[str]:
    """Yield the full names that a file imports, wherever it does, except those that only annotations need."""
    tree = ast.parse(source)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def owner_of(module: str) -> str:
    """Return the longest package in MAY_IMPORT that the module is part of."""
    return max((package for package in MAY_IMPORT if within(module, (package,))), key=len)


def _allowed(module: str, name: str) -> bool:
    if within(name, tuple(heavy for light, names in LIGHT.items() if within(module, (light,)) for heavy in names)):
        return False
    first = name.partition(".")[0]
    if first not in ("cli", "search_space", "workers", "searcher"):
        return within(module, ONLY_IN.get(first, (module,)))
    owner = owner_of(module)
    if name in EXPORTED:
        name = "searcher.api"
    if name.count(".") == 1 and not _is_module(name):
        name = first  # a class or function of the package itself
    base = name == "searcher" and owner.startswith("searcher")
    return base or within(name, (owner, *MAY_IMPORT[owner]))


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def broken_rules(module: str, source: str) -> list[str]:
    """Return the imports of a module that are against the rules."""
    return [f"{module} imports {name}" for name in imports(source) if not _allowed(module, name)]


def printed() -> Iterator[str]:
    """Yield the rules as lines."""
    yield "May import (of this project):"
    yield from (f"  {owner:24} {', '.join(names) or 'nothing'}" for owner, names in MAY_IMPORT.items())
    yield "Only there may be imported:"
    yield from (f"  {package:24} {', '.join(names)}" for package, names in ONLY_IN.items())
    yield "Must not import:"
    yield from (f"  {light:24} {', '.join(names)}" for light, names in LIGHT.items())


if __name__ == "__main__":
    broken = [line for path in SOURCES for line in broken_rules(module_name(path), path.read_text())]
    print(*printed(), "", *(broken or ["Nothing breaks these rules."]), sep="\n")  # noqa: T201
    raise SystemExit(bool(broken))
