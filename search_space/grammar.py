"""The search space: core units of primitives, as a fixed list of categorical decisions.

A core unit is `binary(unary1(input1), unary2(input2))`; an input is x or the output of an earlier unit; the last unit
is the function (Ramachandran et al. 2017, section 2). The decisions stand in the order in which the paper's controller
takes them, unit after unit: input 1, input 2, unary 1, unary 2, binary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from search_space.expression import Expression, X, parse
from search_space.primitives import BINARY, UNARY, SpaceError, nearest

MAX_UNITS = 3

Choices = tuple[int, ...]  # one option index a decision


@dataclass(frozen=True, slots=True)
class Decision:
    """One categorical choice: `unit2.binary` among `options`."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """A search space: how many core units, made of which primitives.

    Raises:
        SpaceError: no or too many units, an unknown or repeated primitive, an empty set of them.
    """

    units: int = 1
    unary: tuple[str, ...] = tuple(UNARY)
    binary: tuple[str, ...] = tuple(BINARY)

    def __post_init__(self) -> None:
        if not 1 <= self.units <= MAX_UNITS:
            raise SpaceError(f"units must be 1 to {MAX_UNITS}, not {self.units!r}")
        self._check("unary", self.unary, UNARY)
        self._check("binary", self.binary, BINARY)

    @staticmethod
    def _check(kind: str, names: tuple[str, ...], known: Mapping[str, str]) -> None:
        if not names:
            raise SpaceError(f"a search space needs at least one {kind} primitive; accepted: {', '.join(known)}")
        for name in names:
            if name not in known:
                raise SpaceError(f"unknown {kind} primitive {name!r}; {nearest(name, known)}")
        if len(set(names)) < len(names):
            raise SpaceError(f"a {kind} primitive is named twice in {', '.join(names)}; name each once")

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Five decisions a unit, in the paper's order."""
        found = []
        for unit in range(1, self.units + 1):
            inputs = ("x", *(f"unit{earlier}" for earlier in range(1, unit)))
            named = {
                "input1": inputs,
                "input2": inputs,
                "unary1": self.unary,
                "unary2": self.unary,
                "binary": self.binary,
            }
            found += [Decision(f"unit{unit}.{name}", options) for name, options in named.items()]
        return tuple(found)

    @cached_property
    def size(self) -> int:
        """How many choices there are; several can be the same function."""
        return math.prod(len(decision.options) for decision in self.decisions)

    def decode(self, choices: Sequence[int]) -> Expression:
        """The expression that the choices make. Each primitive brings a parameter of its own; a unit that is used
        twice is one function with one set of parameters.

        Raises:
            SpaceError: not one valid option index for every decision.
        """
        if len(choices) != len(self.decisions):
            raise SpaceError(f"this space takes {len(self.decisions)} choices, not {len(choices)}")
        for decision, choice in zip(self.decisions, choices, strict=True):
            if not 0 <= choice < len(decision.options):
                raise SpaceError(f"{decision.name} takes 0 to {len(decision.options) - 1}, not {choice!r}")
        outputs = [X]
        for unit in range(self.units):
            input1, input2, unary1, unary2, binary = choices[5 * unit : 5 * unit + 5]
            place = 10 * unit
            left = _placed(UNARY[self.unary[unary1]], place, outputs[input1])
            right = _placed(UNARY[self.unary[unary2]], place + 1, outputs[input2])
            outputs.append(_placed(BINARY[self.binary[binary]], place + 2, left, right))
        return outputs[-1].normal()

    def unrank(self, index: int) -> Choices:
        """The choices at `index` of the enumeration 0 .. size-1 (the last decision turns fastest).

        Raises:
            SpaceError: no such index.
        """
        if not 0 <= index < self.size:
            raise SpaceError(f"an index into this space is 0 to {self.size - 1}, not {index!r}")
        found = []
        for decision in reversed(self.decisions):
            index, choice = divmod(index, len(decision.options))
            found.append(choice)
        return tuple(reversed(found))


@lru_cache(maxsize=4_096)
def _placed(template: str, place: int, *inputs: Expression) -> Expression:
    """A primitive put on its inputs, its parameter (it has at most one) numbered by its place."""
    variables = _VARIABLES[len(inputs)]
    return _template(template, variables, place).substitute(dict(zip(variables, inputs, strict=True)))


@lru_cache(maxsize=1_024)
def _template(text: str, variables: tuple[str, ...], place: int) -> Expression:
    tree = parse(text, variables)
    return tree.with_betas(dict.fromkeys(tree.betas, place))


_VARIABLES = {1: ("x",), 2: ("a", "b")}
