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

from search_space.canonical import canonical, key
from search_space.expression import Expression, X, parse
from search_space.primitives import BINARY, UNARY, SpaceError, nearest

MAX_UNITS = 3
MAX_READINGS = 100  # most rearranged readings of an expression that `encode` compares by key

Choices = tuple[int, ...]  # one option index a decision


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
        if not 1 <= self.units <= MAX_UNITS:
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
            left = _placed(self._unary[unary1], place, outputs[input1])
            right = _placed(self._unary[unary2], place + 1, outputs[input2])
            outputs.append(_placed(self._binary[binary], place + 2, left, right))
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
            raise SpaceError(f"{expression} is not in this space: {self._why_not(expression)}")
        return found

    def _read(self, expression: Expression) -> Choices | None:
        for choices in _Reader(self._unary, self._binary, rearranged=False).read(expression, self.units):
            return choices
        wanted = key(expression)
        candidates = _Reader(self._unary, self._binary, rearranged=True).read(canonical(expression), self.units)
        for choices in islice(candidates, MAX_READINGS):
            if key(self.decode(choices)) == wanted:
                return choices
        return None

    def _why_not(self, expression: Expression) -> str:
        trees = [_parsed(text, ("x",)) for text in self._unary] + [_parsed(text, ("a", "b")) for text in self._binary]
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
def _placed(template: str, place: int, *inputs: Expression) -> Expression:
    """A primitive put on its inputs, its parameter (it has at most one) numbered by its place."""
    variables = _VARIABLES[len(inputs)]
    return _template(template, variables, place).substitute(dict(zip(variables, inputs, strict=True)))


@lru_cache(maxsize=1_024)
def _template(text: str, variables: tuple[str, ...], place: int) -> Expression:
    tree = _parsed(text, variables)
    return tree.with_betas(dict.fromkeys(tree.betas, place))


@lru_cache(maxsize=1_024)
def _parsed(text: str, variables: tuple[str, ...], rearranged: bool = False) -> Expression:
    tree = parse(text, variables)
    return canonical(tree) if rearranged else tree


def _check_text(text: str, variables: tuple[str, ...]) -> None:
    if len(_parsed(text, variables).betas) > 1:
        raise SpaceError(f"a primitive has at most one parameter; {text!r} has more")


def _words(tree: Expression) -> list[str]:
    """The operations and constants of a tree, each once."""
    leaves = (str(leaf) for leaf in tree.leaves())
    found: list[str] = []
    tree.fold(lambda node, _: found.append(node.op) if node.args else None)
    return list(dict.fromkeys([*found, *leaves]))


_VARIABLES = {1: ("x",), 2: ("a", "b")}

# Backwards: from a tree to choices -----------------------------------------------------------------------------------

Binding = dict[str, Expression]  # what stands for a primitive's variables and its parameter ("beta")
Outputs = dict[int, Expression]  # which tree a unit makes; 0 is x


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read a tree as a core unit. An input is None where the primitive makes no use of it."""

    inputs: tuple[Expression | None, Expression | None]
    names: tuple[int, int, int]  # unary 1, unary 2, binary
    betas: frozenset[float]


class _Reader:
    """Reads trees as core units, from the last unit to the first.

    `rearranged` is for normal forms: against the normal forms of the primitives, with operands in any order, and any
    tree t also as max(t, t) and the like.
    """

    def __init__(self, unary: tuple[str, ...], binary: tuple[str, ...], *, rearranged: bool) -> None:
        self._unary = [_parsed(text, ("x",), rearranged) for text in unary]
        self._binary = [_parsed(text, ("a", "b"), rearranged) for text in binary]
        self._rearranged = rearranged
        self._readings: dict[Expression, list[_Reading]] = {}
        self._fitting: dict[tuple[Expression, int], bool] = {}

    def read(self, tree: Expression, units: int) -> Iterator[Choices]:
        """Every choice of so many units that makes the tree, one for the units and inputs that do not matter."""
        return self._units(units, {0: X, units: tree}, frozenset())

    def _units(self, unit: int, outputs: Outputs, taken: frozenset[float]) -> Iterator[Choices]:
        """Choices for the units up to this one. `taken` are parameters of later units: each primitive has its own."""
        if unit == 0:
            yield ()
        elif unit not in outputs:
            yield from ((*earlier, 0, 0, 0, 0, 0) for earlier in self._units(unit - 1, outputs, taken))
        else:
            for reading in self._as_unit(outputs[unit]):
                if taken.isdisjoint(reading.betas):
                    for sources, wanted in self._sources(unit, reading.inputs, outputs):
                        for earlier in self._units(unit - 1, wanted, taken | reading.betas):
                            yield *earlier, *sources, *reading.names

    def _sources(
        self, unit: int, inputs: tuple[Expression | None, ...], outputs: Outputs
    ) -> Iterator[tuple[Choices, Outputs]]:
        """Where a unit's inputs can come from (x or a unit before it), and what those units then have to make."""
        if not inputs:
            yield (), outputs
            return
        tree, *rest = inputs
        for source in range(unit) if tree else (0,):
            made = outputs.get(source, tree)
            if tree is None or (made == tree and self._fits(tree, source)):
                wanted = {**outputs, source: tree} if tree else outputs
                for sources, then in self._sources(unit, tuple(rest), wanted):
                    yield (source, *sources), then

    def _fits(self, tree: Expression, units: int) -> bool:
        """Whether so many units, or fewer, can make the tree, parameters aside: a quick look before the search."""
        if tree == X or units == 0:
            return tree == X
        if (tree, units) not in self._fitting:
            self._fitting[tree, units] = any(
                all(part is None or self._fits(part, units - 1) for part in reading.inputs)
                for reading in self._as_unit(tree)
            )
        return self._fitting[tree, units]

    def _as_unit(self, tree: Expression) -> list[_Reading]:
        if tree not in self._readings:
            self._readings[tree] = list(self._read_unit(tree))
        return self._readings[tree]

    def _read_unit(self, tree: Expression) -> Iterator[_Reading]:
        for binary, pattern in enumerate(self._binary):
            bindings = _match(pattern, tree, {}, self._rearranged)
            if self._rearranged and _keeps_equals(pattern):
                bindings.append({"a": tree, "b": tree})
            for bound in bindings:
                for unary1, left in self._read_unary(bound.get("a")):
                    for unary2, right in self._read_unary(bound.get("b")):
                        betas = [part["beta"].value for part in (bound, left, right) if "beta" in part]
                        if len(set(betas)) == len(betas):
                            inputs = left.get("x"), right.get("x")
                            yield _Reading(inputs, (unary1, unary2, binary), frozenset(betas))

    def _read_unary(self, tree: Expression | None) -> Iterator[tuple[int, Binding]]:
        if tree is None:
            yield 0, {}
            return
        for unary, pattern in enumerate(self._unary):
            for bound in _match(pattern, tree, {}, self._rearranged):
                yield unary, bound


@lru_cache(maxsize=1_024)
def _keeps_equals(binary: Expression) -> bool:
    """Whether it makes x of x and x, as max does."""
    return canonical(binary.substitute({"a": X, "b": X})) == X


def _match(pattern: Expression, tree: Expression, bound: Binding, any_order: bool) -> list[Binding]:
    """Every way to read the tree as the pattern, whose leaves, but for constants, stand for something."""
    if not pattern.args and pattern.op not in ("number", "eps"):
        fits = bound.get(pattern.op, tree) == tree and (pattern.op != "beta" or tree.op == "beta")
        return [{**bound, pattern.op: tree}] if fits else []
    if (pattern.op, pattern.value, len(pattern.args)) != (tree.op, tree.value, len(tree.args)):
        return []
    found: list[Binding] = []
    for args in [tree.args, tree.args[::-1]] if any_order and pattern.op in _COMMUTATIVE else [tree.args]:
        partial = [bound]
        for inner, arg in zip(pattern.args, args, strict=True):
            partial = [more for binding in partial for more in _match(inner, arg, binding, any_order)]
        found += partial
    return found


_COMMUTATIVE = frozenset({"+", "*", "max", "min"})
