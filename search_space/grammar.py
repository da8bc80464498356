"""The search space: functions made of core units, described by a fixed list of categorical decisions.

A core unit is `binary(unary1(input1), unary2(input2))`. An input is x or the output of an earlier unit. The output of
the last unit is the function (Ramachandran et al. 2017, section 2). The decisions have the order of the paper's
controller, unit after unit: input 1, input 2, unary 1, unary 2, binary.
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
MAX_READINGS = 100  # `encode` compares at most so many rearranged readings of an expression by their keys


@dataclass(frozen=True, slots=True)
class Decision:
    """A categorical decision, such as `unit2.binary`, and the names of its options."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Grammar:
    """A search space: a number of core units, and the primitives that they are made of.

    Args:
        units: the number of core units, from 1 to 3.
        unary, binary: the names of the primitives; this is also the order of the options.
        unary_texts, binary_texts: name -> text of the primitive. A unary text is an expression of x, a binary one of a
            and b. The default is the primitives of the paper.

    Raises:
        SpaceError: the number of units is not accepted; a primitive is unknown or named twice; there is no primitive;
            or the text of a primitive is not an expression of its inputs, or has more than one parameter.
    """

    units: int = 1
    unary: tuple[str, ...] = tuple(UNARY)
    binary: tuple[str, ...] = tuple(BINARY)
    unary_texts: Mapping[str, str] = field(default_factory=lambda: UNARY, repr=False, hash=False)
    binary_texts: Mapping[str, str] = field(default_factory=lambda: BINARY, repr=False, hash=False)

    def __post_init__(self) -> None:
        for name in ("unary_texts", "binary_texts"):  # copied, because the caller may change his mapping later
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
        """The decisions: five per unit, in the paper's order."""
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
        """The number of possible choices. Several choices can make the same function."""
        return math.prod(len(decision.options) for decision in self.decisions)

    def decode(self, choices: Sequence[int]) -> Expression:
        """Return the expression that the choices make.

        Each primitive has its own parameter. If the output of a unit is used twice, both uses share its parameters.

        Args:
            choices: for each decision, the index of an option.

        Raises:
            SpaceError: the number of choices is wrong, or an index is not valid.
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
        """Return choices that make this function. Decisions of unused units are 0.

        If any choices make exactly this tree, then `decode(encode(e)) == e`. Otherwise the normal form of the
        expression is rearranged in up to 100 ways, and the first choices that make a function with the same key are
        returned. This does not find all choices, so another expression of the same function may be accepted although
        this one is not.

        Raises:
            SpaceError: no choices were found; the message says why.
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
        return f"{self.units} core unit{'s' * (self.units > 1)} of its primitives do not make this expression"

    def rank(self, choices: Sequence[int]) -> int:
        """Return the position of the choices in the enumeration: `unrank(rank(c)) == c`.

        Raises:
            SpaceError: the number of choices is wrong, or an index is not valid.
        """
        self._check_choices(choices)
        index = 0
        for decision, choice in zip(self.decisions, choices, strict=True):
            index = index * len(decision.options) + choice
        return index

    def unrank(self, index: int) -> Choices:
        """Return the choices at a position of the enumeration, in which the last decision changes fastest.

        Raises:
            SpaceError: the index is not between 0 and `size` - 1.
        """
        if not 0 <= index < self.size:
            raise SpaceError(f"an index into this space is 0 to {self.size - 1}, not {index!r}")
        found = []
        for decision in reversed(self.decisions):
            index, choice = divmod(index, len(decision.options))
            found.append(choice)
        return tuple(reversed(found))

    def enumerate_unique(self) -> Iterator[tuple[Choices, Expression]]:
        """Yield each function once, with the first choices that make it, in the order of `unrank`.

        Functions are the same if their keys are equal. The keys seen so far are kept in memory.
        """
        seen: set[str] = set()
        for index in range(self.size):
            choices = self.unrank(index)
            expression = self.decode(choices)
            if (name := key(expression)) not in seen:
                seen.add(name)
                yield choices, expression

    def sample(self, draw: Random) -> Choices:
        """Draw choices uniformly.

        Functions are not drawn uniformly, because some can be made by more choices than others. Trees of all sizes are
        drawn, because a unit need not use the units before it.
        """
        return tuple(draw.randrange(len(decision.options)) for decision in self.decisions)

    def mutate(self, choices: Sequence[int], draw: Random) -> Choices:
        """Return the choices with exactly one decision changed.

        The decision is drawn uniformly among those with more than one option, then one of its other options. The
        function can stay the same, for example if the decision belongs to an unused unit.

        Raises:
            SpaceError: the number of choices is wrong, an index is not valid, or no decision has a second option.
        """
        self._check_choices(choices)
        free = [place for place, decision in enumerate(self.decisions) if len(decision.options) > 1]
        if not free:
            raise SpaceError("no decision of this space has a second option: there is nothing to mutate")
        place = draw.choice(free)
        other = draw.randrange(len(self.decisions[place].options) - 1)
        changed = other + (other >= choices[place])  # skip the present option
        return (*choices[:place], changed, *choices[place + 1 :])

    def crossover(self, first: Sequence[int], second: Sequence[int], draw: Random) -> Choices:
        """Take each decision from one of the two parents, with equal probability.

        The options of a decision do not depend on the other decisions, so every result is in the space.

        Args:
            first, second: the choices of the parents.
            draw: the source of random numbers.

        Raises:
            SpaceError: for one of the parents, the number of choices is wrong or an index is not valid.
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
    """Return a primitive with its inputs inserted. Its parameter, if it has one, gets `place` as its number."""
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
    """Return the operations and the leaves of a tree, each once."""
    leaves = (str(leaf) for leaf in tree.leaves())
    found: list[str] = []
    tree.fold(lambda node, _: found.append(node.op) if node.args else None)
    return list(dict.fromkeys([*found, *leaves]))
