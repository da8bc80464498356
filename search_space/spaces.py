"""Named search spaces. A published name keeps its meaning: a changed space gets a new name, such as `small2`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search_space.grammar import Grammar
from search_space.primitives import BINARY, UNARY, SpaceError, nearest


@dataclass(frozen=True, slots=True)
class Space:
    """A named search space.

    Attributes:
        name: as `space` and `--space` take it.
        title: a line for tables.
        unary, binary: name -> text of the primitives, in the order of the options.
        units: the numbers of core units that it allows.
        reference: the source.
    """

    name: str
    title: str
    unary: Mapping[str, str]
    binary: Mapping[str, str]
    units: tuple[int, ...]
    reference: str


def _select(table: Mapping[str, str], names: str) -> dict[str, str]:
    """Return the rows with these names, which are separated by spaces."""
    return {name: table[name] for name in names.split()}


# Parts of functions that are newer than the paper: elu is max0 + expm1_min0, leaky_relu is max0 + leaky_min0, and prelu
# is max0 + prelu_min0.
_MORE_UNARY: Mapping[str, str] = {
    "softsign": "x / (1 + abs(x))",
    "log1p_abs": "log(1 + abs(x))",
    "inv_root": "1 / sqrt(1 + x^2)",
    "exp_abs": "exp(-abs(x))",
    "expm1_min0": "expm1(min(x, 0))",
    "leaky_min0": "0.01 * min(x, 0)",
    "prelu_min0": "0.25 * beta * min(x, 0)",
    "relu6": "min(max(x, 0), 6)",
    "hard_tanh": "max(min(x, 1), -1)",
    "hard_sigmoid": "max(min(x / 6 + 0.5, 1), 0)",
}

# With x as both operands, the first four are mish, hard-swish, gelu and x * tanh(x). The last is a division whose
# result is always finite.
_MORE_BINARY: Mapping[str, str] = {
    "mish_gate": "tanh(softplus(a)) * b",
    "hard_gate": "max(min(a / 6 + 0.5, 1), 0) * b",
    "gelu_gate": "0.5 * b * (1 + erf(0.7071067811865476 * a))",
    "tanh_gate": "tanh(a) * b",
    "safe_div": "a / (1 + abs(b))",
}

SPACES: Mapping[str, Space] = {
    row.name: row
    for row in (
        Space("swish2017", "the paper's primitives", UNARY, BINARY, (1, 2, 3), "Ramachandran et al. 2017, section 2"),
        Space(
            "small1",
            "no function grows faster than linearly; holds the paper's six discoveries of one unit",
            _select(UNARY, "x scale sin cos tanh sinc sigmoid softplus max0 min0"),
            _select(BINARY, "add sub max min gate"),
            (1, 2, 3),
            "this project",
        ),
        Space(
            "large1",
            "the paper's primitives, and parts of later functions (elu, prelu, mish, gelu, hard-swish)",
            {**UNARY, **_MORE_UNARY},
            {**BINARY, **_MORE_BINARY},
            (1, 2),  # the largest functions of three units would exceed the limits of the parser
            "this project",
        ),
    )
}


def space(name: str, units: int = 1) -> Grammar:
    """Return the grammar of a named space.

    Use `dataclasses.replace(grammar, unary=...)` to leave primitives out.

    Args:
        name: one of `SPACES`.
        units: the number of core units.

    Raises:
        SpaceError: there is no such space, or it does not allow so many units.
    """
    found = SPACES.get(name)
    if found is None:
        raise SpaceError(f"unknown space {name!r}; {nearest(name, SPACES)}")
    if units not in found.units:
        raise SpaceError(f"space {name!r} has {', '.join(map(str, found.units))} units, not {units!r}")
    return Grammar(units, tuple(found.unary), tuple(found.binary), found.unary, found.binary)
