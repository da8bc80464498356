"""The mirror of a function: -f(-x), its graph turned by half a turn around the origin.

A network of linear layers, normalisation, sums and average pooling that has f computes the same answers with the mirror
of f if its first weights, its last weights and its biases are negated: every signal between them changes its sign and
nothing else. Gradients change their signs alike, so both networks stay equal as they are trained. Where weights are
drawn symmetrically around 0, f and its mirror therefore have the same distribution of results. One training of each
still gives two different numbers, because the same seed does not draw the negated weights.
"""

from __future__ import annotations

from search_space.expression import Expression, X, as_expression
from search_space.normal_form import canonical, key

_MINUS_X = Expression("neg", (X,))


def mirror(expression: Expression | str) -> Expression:
    """Return -f(-x), simplified as far as the rewriting rules go. It can be longer than an expression's text may be.

    Parameters keep their places, so the mirror has the values of f at the negated x for the same parameters. All start
    at 1 and get equal gradients, hence f and its mirror are trained alike. A form that equals f only after a change of
    its parameters is no mirror: that of `x + beta` is `x - beta`, which starts as x - 1, and not as x + 1.

    >>> str(mirror("max(x, 0)"))
    'min(0, x)'
    """
    negated = as_expression(expression).substitute({"x": _MINUS_X})
    return canonical(Expression("neg", (negated,)))


def is_own_mirror(expression: Expression | str) -> bool:
    """Return True for odd functions: f and its mirror have the same key."""
    tree = as_expression(expression)
    return key(tree) == key(mirror(tree))
