"""The errors of `searcher`, as the docstring of SearcherError draws them."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import searcher
from searcher import SearcherError

PROGRAMS = ("searcher.store.migrations", "searcher.store.query_process")  # not imported, but run


def drawn(text: str) -> Iterator[tuple[str, str]]:
    """Yield each class of the tree with the class above it."""
    above: dict[int, str] = {-1: ""}
    for indent, name in re.findall(r"^ {4}((?:[|` ] {2}|[|`]- )*)(\w+)(?=:|$)", text, re.MULTILINE):
        depth = len(indent) // 3
        above[depth] = name
        yield name, above[depth - 1]


def defined(error: type[SearcherError]) -> Iterator[tuple[str, str]]:
    """Yield the classes of this package below `error`, each with the class above it. Tests may define others."""
    for child in error.__subclasses__():
        if child.__module__.startswith("searcher"):
            yield child.__name__, error.__name__
            yield from defined(child)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    for module in pkgutil.walk_packages(searcher.__path__, "searcher."):
        if not module.name.startswith(PROGRAMS):
            importlib.import_module(module.name)
    tree = list(drawn(str(SearcherError.__doc__)))
    assert len(tree) == len(set(tree)) and tree[0] == ("SearcherError", "")
    assert set(tree[1:]) == set(defined(SearcherError))
