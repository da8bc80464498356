"""Find the mirror -f(-x) of a function by its text.

A function and its mirror have the same distribution of results; search_space/symmetry.py and docs/search-space.md say
why, and when this does not hold. Results with one seed differ, so no function is ever given the result of its mirror.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from search_space import SpaceError, key, mirror, parse


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror of a function.

    Attributes:
        key: its key.
        expression: its text in normal form.
    """

    key: str
    expression: str


@lru_cache(maxsize=4096)
def mirror_of(text: str) -> Mirror | None:
    """Return the mirror of the function whose expression is `text`.

    Return None if the text cannot be parsed here: `maxout(2)` is not an expression, and a user's own primitive is
    unknown while its module is not loaded.
    """
    try:
        tree = mirror(parse(text))
    except SpaceError:
        return None
    return Mirror(key(tree), str(tree))
