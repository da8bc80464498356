"""Print the tables of the language in Markdown: `python -m search_space`. docs/search-space.md contains its output."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from search_space.baselines import ALIASES, GATES, KNOWN, SETS
from search_space.primitives import BINARY, FUNCTIONS, UNARY
from search_space.spaces import SPACES


def tables() -> str:
    """Return Markdown tables of the language's functions, the paper's primitives, known functions, gates, sets of known
    functions and named spaces."""
    signs = {"neg": "`-a`"} | {sign: f"`a {sign} b`" for sign in "+-*/^"}
    calls = ("`{0}(a)`", "`{0}(a, b)`")
    words = ((signs.get(row.name, calls[row.arity - 1].format(row.name)), row.meaning) for row in FUNCTIONS.values())
    also = {name: alias for alias, name in ALIASES.items()}
    known = ((f"{row.name}, {also[row.name]}" if row.name in also else row.name, _text(row.expression), row.reference)
             for row in KNOWN.values())  # fmt: skip
    sets = (
        (site, name, ", ".join(functions))
        for site, named in SETS.items()
        for name, functions in named.items()
        if functions
    )
    spaces = (
        (space.name, f"{len(space.unary)} / {len(space.binary)}", ", ".join(map(str, space.units)), space.title)
        for space in SPACES.values()
    )
    return "\n\n".join(
        [
            "### Words\n\n" + _table(("written", "meaning"), words),
            "### The paper's unary primitives\n\n" + _table(("name", "text"), _primitives(UNARY.items())),
            "### The paper's binary primitives\n\n" + _table(("name", "text"), _primitives(BINARY.items())),
            "### Known functions\n\n" + _table(("name", "text", "reference"), known),
            "### Gates\n\n" + _table(("name", "f of the gate f(a) * b"), GATES.items()),
            "### Sets of known functions\n\n" + _table(("site", "set", "functions"), sets),
            "### Named spaces\n\n" + _table(("name", "unary / binary", "units", "what it is"), spaces),
        ]
    )


def _primitives(rows: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return ((name, _text(text)) for name, text in rows)


def _text(expression: str) -> str:
    return f"`{expression}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(tables() + "\n")
