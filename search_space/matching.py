"""Match expressions with patterns. Rewriting rules (normal_form.py) and kernels (kernels.py) use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

from search_space.expression import Expression

COMMUTATIVE = frozenset({"+", "*", "max", "min"})
_SAME = 4e-16  # relative tolerance of constants: sqrt(0.5) and 1 / sqrt(2) differ by a rounding error

Binding: TypeAlias = dict[str, Expression]
Admits = Callable[[str, Expression], bool]


def match(form: Expression, node: Expression, variables: frozenset[str], admits: Admits) -> Iterator[Binding]:
    """Yield every way to match a tree with a form. Both orders of the operands of +, *, max and min are tried.

    Args:
        form: the pattern.
        node: the root of the tree.
        variables: names of the form's leaves that stand for a subtree. A variable that occurs twice must stand for
            equal subtrees.
        admits: called with a variable and a subtree; returns True if the variable may stand for it.

    Yields:
        Variable -> the subtree that it stands for.
    """

    def one(form: Expression, node: Expression, bound: Binding) -> Iterator[Binding]:
        if form.op in variables:
            if bound[form.op] == node if form.op in bound else admits(form.op, node):
                yield {**bound, form.op: node}
            return
        if form.op != node.op or not math.isclose(form.value, node.value, rel_tol=_SAME):
            return
        yield from all_of(form.args, node.args, bound)
        if node.op in COMMUTATIVE:
            yield from all_of(form.args, node.args[::-1], bound)

    def all_of(forms: tuple[Expression, ...], nodes: tuple[Expression, ...], bound: Binding) -> Iterator[Binding]:
        if not forms:
            yield bound
            return
        for found in one(forms[0], nodes[0], bound):
            yield from all_of(forms[1:], nodes[1:], found)

    return one(form, node, {})
