"""The search space: core units of primitives, as a fixed list of categorical decisions.

A core unit is `binary(unary1(input1), unary2(input2))`; an input is x or the output of an earlier unit; the last unit
is the function (Ramachandran et al. 2017, section 2). The decisions stand in the order in which the paper's controller
takes them, unit after unit: input 1, input 2, unary 1, unary 2, binary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import islice
from random import Random

from search_space.expression import Expression, X
from search_space.normal_form import canonical, key
from search_space.primitives import BINARY, UNARY, SpaceError, nearest
from search_space.reading import VARIABLES, Choices, Reader, parsed

MAX_UNITS = 3
MAX_READINGS = 100  # most rearranged readings of an expression that `encode` compares by key


@dataclass(frozen=True, slots=True)
class Decision:
    """One categorical choice: `unit2.binary` among `options`."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """A search space: how many core units, made of which primitives.

    Args:
        unary, binary: names of primitives; options stand in this order.
        unary_texts, binary_texts: what the names mean, name -> text; the paper's, unless a named space brings its own.

    Raises:
        SpaceError: no or too many units, an unknown or repeated primitive, an empty set of them, a primitive that is
            no expression of its inputs or has more than one parameter.
    """

    units: int = 1
    unary: tuple[str, ...] = tuple(UNARY)
    binary: tuple[str, ...] = tuple(BINARY)
    unary_texts: Mapping[str, str] = field(default_factory=lambda: UNARY, repr=False, hash=False)
    binary_texts: Mapping[str, str] = field(default_factory=lambda: BINARY, repr=False, hash=False)

    def __post_init__(self) -> None:
        for name in ("unary_texts", "binary_texts"):  # the caller's may change
            object.__setattr__(self, name, dict(getattr(self, name)))
        if not isinstance(self.units, int) or not 1 <= self.units <= MAX_UNITS:
            raise SpaceError(f"units must be 1 to {MAX_UNITS}, not {self.units!r}")
        self._check_names("unary", self.unary, self.unary_texts)
        self._check_names("binary", self.binary, self.binary_texts)
        for text in self._unary:
            _check_text(text, ("x",))
        for text in self._binary:
            _check_text(text, ("a", "b"))

    @staticmethod
    def _check_names(kind: str, names: tuple[str, ...], known: Mapping[str, str]) -> None:
        if not names:
            raise SpaceError(f"a search space needs at least one {kind} primitive; accepted: {', '.join(known)}")
        for name in names:
            if name not in known:
                raise SpaceError(f"unknown {kind} primitive {name!r}; {nearest(name, known)}")
        if len(set(names)) < len(names):
            raise SpaceError(f"a {kind} primitive is named twice in {', '.join(names)}; name each once")

    @cached_property
    def _unary(self) -> tuple[str, ...]:
        return tuple(self.unary_texts[name] for name in self.unary)

    @cached_property
    def _binary(self) -> tuple[str, ...]:
        return tuple(self.binary_texts[name] for name in self.binary)

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
        self._check_choices(choices)
        outputs = [X]
        for unit in range(self.units):
            input1, input2, unary1, unary2, binary = choices[5 * unit : 5 * unit + 5]
            place = 10 * unit
            left = _apply_primitive(self._unary[unary1], place, outputs[input1])
            right = _apply_primitive(self._unary[unary2], place + 1, outputs[input2])
            outputs.append(_apply_primitive(self._binary[binary], place + 2, left, right))
        return outputs[-1].normal()

    def encode(self, expression: Expression) -> Choices:
        """Choices that make this function, unused units at 0: `decode(encode(e)) == e` if any choices make this very
        tree. Otherwise some that make a tree of the same key are looked for, among rearranged readings of its normal
        form; that search can miss one (the function may be spelt by a detour), so a refusal is about this spelling.

        Raises:
            SpaceError: none found; the message says why.
        """
        found = self._read(expression)
        if found is None:
            raise SpaceError(f"{expression} is not in this space: {self._reason_for_refusal(expression)}")
        return found

    def _read(self, expression: Expression) -> Choices | None:
        for choices in Reader(self._unary, self._binary, rearranged=False).read(expression, self.units):
            return choices
        wanted = key(expression)
        candidates = Reader(self._unary, self._binary, rearranged=True).read(canonical(expression), self.units)
        for choices in islice(candidates, MAX_READINGS):
            if key(self.decode(choices)) == wanted:
                return choices
        return None

    def _reason_for_refusal(self, expression: Expression) -> str:
        trees = [parsed(text, ("x",)) for text in self._unary] + [parsed(text, ("a", "b")) for text in self._binary]
        known = {"x"}.union(*map(_words, trees))
        if foreign := [word for word in _words(expression) if word not in known]:
            return f"none of its primitives has {', '.join(foreign)}"
        for units in range(self.units + 1, MAX_UNITS + 1):
            if replace(self, units=units)._read(expression):
                return f"it takes {units} core units, not {self.units}"
        return f"{self.units} core unit{'s' * (self.units > 1)} of its primitives do not spell it"

    def rank(self, choices: Sequence[int]) -> int:
        """Where the choices stand in the enumeration: `unrank(rank(c)) == c`.

        Raises:
            SpaceError: not one valid option index for every decision.
        """
        self._check_choices(choices)
        index = 0
        for decision, choice in zip(self.decisions, choices, strict=True):
            index = index * len(decision.options) + choice
        return index

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

    def enumerate_unique(self) -> Iterator[tuple[Choices, Expression]]:
        """Each function once (by its key), with the first choices that make it, in the order of `unrank`. Lazy: what
        it keeps is the keys seen so far.
        """
        seen: set[str] = set()
        for index in range(self.size):
            choices = self.unrank(index)
            expression = self.decode(choices)
            if (name := key(expression)) not in seen:
                seen.add(name)
                yield choices, expression

    def sample(self, draw: Random) -> Choices:
        """Choices drawn uniformly; several can be the same function, so functions are not drawn uniformly. Later
        units may pass over earlier ones, so trees of all sizes come up.
        """
        return tuple(draw.randrange(len(decision.options)) for decision in self.decisions)

    def mutate(self, choices: Sequence[int], draw: Random) -> Choices:
        """The choices with exactly one decision changed: drawn uniformly among those that have another option, and
        then among its other options. The function can stay the same, if the decision belongs to an unused unit.

        Raises:
            SpaceError: not one valid option index for every decision; a space of one point.
        """
        self._check_choices(choices)
        free = [place for place, decision in enumerate(self.decisions) if len(decision.options) > 1]
        if not free:
            raise SpaceError("no decision of this space has a second option: there is nothing to mutate")
        place = draw.choice(free)
        other = draw.randrange(len(self.decisions[place].options) - 1)
        changed = other + (other >= choices[place])  # the present option is skipped
        return (*choices[:place], changed, *choices[place + 1 :])

    def crossover(self, first: Sequence[int], second: Sequence[int], draw: Random) -> Choices:
        """Each decision from one parent or the other by the toss of a coin. What a decision accepts depends on its
        place alone, so every mixture is in the space.

        Raises:
            SpaceError: not one valid option index for every decision, in either parent.
        """
        self._check_choices(first)
        self._check_choices(second)
        return tuple(draw.choice(pair) for pair in zip(first, second, strict=True))

    def _check_choices(self, choices: Sequence[int]) -> None:
        if len(choices) != len(self.decisions):
            raise SpaceError(f"this space takes {len(self.decisions)} choices, not {len(choices)}")
        for decision, choice in zip(self.decisions, choices, strict=True):
            if not 0 <= choice < len(decision.options):
                raise SpaceError(f"{decision.name} takes 0 to {len(decision.options) - 1}, not {choice!r}")


@lru_cache(maxsize=4_096)
def _apply_primitive(template: str, place: int, *inputs: Expression) -> Expression:
    """A primitive put on its inputs, its parameter (it has at most one) numbered by its place."""
    variables = VARIABLES[len(inputs)]
    return _template(template, variables, place).substitute(dict(zip(variables, inputs, strict=True)))


@lru_cache(maxsize=1_024)
def _template(text: str, variables: tuple[str, ...], place: int) -> Expression:
    tree = parsed(text, variables)
    return tree.with_betas(dict.fromkeys(tree.betas, place))


def _check_text(text: str, variables: tuple[str, ...]) -> None:
    if len(parsed(text, variables).betas) > 1:
        raise SpaceError(f"a primitive has at most one parameter; {text!r} has more")


def _words(tree: Expression) -> list[str]:
    """The operations and constants of a tree, each once."""
    leaves = (str(leaf) for leaf in tree.leaves())
    found: list[str] = []
    tree.fold(lambda node, _: found.append(node.op) if node.args else None)
    return list(dict.fromkeys([*found, *leaves]))
