"""Find the choices that make an expression: read its tree as core units of given primitives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from search_space.expression import Expression, X, parse
from search_space.matching import COMMUTATIVE
from search_space.normal_form import canonical

VARIABLES = {1: ("x",), 2: ("a", "b")}  # arity of a primitive -> its variables

Choices = tuple[int, ...]  # for each decision, the index of an option
Binding = dict[str, Expression]  # a primitive's variable, or "beta" -> the subtree that it stands for
Outputs = dict[int, Expression]  # number of a unit -> the tree that it makes; 0 -> x


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read a tree as a core unit.

    Attributes:
        inputs: the trees of the two inputs; None if the primitives do not use the input.
        names: the indices of unary 1, unary 2 and binary.
        betas: the parameters of the three primitives.
    """

    inputs: tuple[Expression | None, Expression | None]
    names: tuple[int, int, int]
    betas: frozenset[float]


class Reader:
    """Reads trees as core units, from the last unit to the first.

    Args:
        unary, binary: the texts of the primitives.
        rearranged: for trees in normal form. Compare with the normal forms of the primitives, accept operands in any
            order, and read a tree t also as max(t, t), if `max` is one of the primitives, and the like.
    """

    def __init__(self, unary: tuple[str, ...], binary: tuple[str, ...], *, rearranged: bool) -> None:
        self._unary = [parsed(text, ("x",), rearranged) for text in unary]
        self._binary = [parsed(text, ("a", "b"), rearranged) for text in binary]
        self._rearranged = rearranged
        self._readings: dict[Expression, list[_Reading]] = {}
        self._fitting: dict[tuple[Expression, int], bool] = {}

    def read(self, tree: Expression, units: int) -> Iterator[Choices]:
        """Yield all choices of so many units that make the tree. Decisions that do not matter have one value only."""
        return self._units(units, {0: X, units: tree}, frozenset())

    def _units(self, unit: int, outputs: Outputs, taken: frozenset[float]) -> Iterator[Choices]:
        """Yield the choices for the units up to this one.

        Args:
            unit: its number.
            outputs: what the units must make.
            taken: parameters that later units use. No primitive shares its parameter with another one.
        """
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
        """Yield the possible sources of a unit's inputs (0 for x, or an earlier unit), and what each unit must make."""
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
        """Return False if so many units cannot make the tree, whatever its parameters. A quick test."""
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
            if self._rearranged and _is_idempotent(pattern):
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
def parsed(text: str, variables: tuple[str, ...], rearranged: bool = False) -> Expression:
    """Return the tree of a primitive; with `rearranged`, its normal form."""
    tree = parse(text, variables)
    return canonical(tree) if rearranged else tree


@lru_cache(maxsize=1_024)
def _is_idempotent(binary: Expression) -> bool:
    """Return True if the binary function of x and x is x, as for max."""
    return canonical(binary.substitute({"a": X, "b": X})) == X


def _match(pattern: Expression, tree: Expression, bound: Binding, any_order: bool) -> list[Binding]:
    """Return every way to match a tree with a pattern. The pattern's leaves are variables, except its constants."""
    if not pattern.args and pattern.op not in ("number", "eps"):
        fits = bound.get(pattern.op, tree) == tree and (pattern.op != "beta" or tree.op == "beta")
        return [{**bound, pattern.op: tree}] if fits else []
    if (pattern.op, pattern.value, len(pattern.args)) != (tree.op, tree.value, len(tree.args)):
        return []
    found: list[Binding] = []
    for args in [tree.args, tree.args[::-1]] if any_order and pattern.op in COMMUTATIVE else [tree.args]:
        partial = [bound]
        for inner, arg in zip(pattern.args, args, strict=True):
            partial = [more for binding in partial for more in _match(inner, arg, binding, any_order)]
        found += partial
    return found
