"""The mirror -f(-x) of a function, as studies know it.

Why a mirror is worth as much as the function, and where it is not, is in search_space/symmetry.py and
docs/search-space.md. It holds for the distribution of results, not for one seed, so no function is ever given the
result of its mirror.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from search_space import SpaceError, key, mirror, parse


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror of a function: its key, and its text in normal form."""

    key: str
    expression: str


@lru_cache(maxsize=4096)
def mirror_of(text: str) -> Mirror | None:
    """Return the mirror of the function whose expression is `text`.

    None if the text cannot be read here: `maxout(2)` is no expression, and a primitive of a user's own is unknown while
    its module is not loaded.
    """
    try:
        tree = mirror(parse(text))
    except SpaceError:
        return None
    return Mirror(key(tree), str(tree))
