"""The mirror of a function f: -f(-x). Its graph is the graph of f rotated by 180 degrees around the origin.

Take a network of linear layers, normalisation, sums and average pooling with the activation f. Negate the weights of
its first and last layers, and all biases except the last layer's, and replace f by its mirror. The outputs stay the
same: only the values in between change their signs. Gradients change their signs in the same way, so the two networks
stay equal during training. Therefore f and its mirror have the same distribution of results, if weights are drawn
symmetrically around 0. The results of two trainings with the same seed differ, because the seed does not draw the
negated weights.
"""

from __future__ import annotations

from search_space.expression import Expression, X, as_expression
from search_space.normal_form import canonical, key

_MINUS_X = Expression("neg", (X,))


def mirror(expression: Expression | str) -> Expression:
    """Return the normal form of -f(-x). Its text can be longer than `parse` accepts.

    Parameters keep their places and their values. They start at 1 and get equal gradients in f and in the mirror, so
    both are trained alike. A function that equals f only if a parameter is changed is not a mirror: the mirror of
    `x + beta` is `x - beta`, although -beta can take the value of beta.

    Args:
        expression: a tree, or its text.

    Raises:
        ParseError: the text is not an expression.

    >>> str(mirror("max(x, 0)"))
    'min(0, x)'
    """
    negated = as_expression(expression).substitute({"x": _MINUS_X})
    return canonical(Expression("neg", (negated,)))


def is_own_mirror(expression: Expression | str) -> bool:
    """Return True if f and its mirror have the same key, which means that f is an odd function.

    Raises:
        ParseError: the text is not an expression.
    """
    tree = as_expression(expression)
    return key(tree) == key(mirror(tree))
