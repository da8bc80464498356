"""What a network needs to know about its activations: how to make one for a site, how many channels it takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from search_space import Activation, Maxout, parse
from search_space.expression import Expression
from workers.contract import WorkersError

MAX_PIECES = 16  # a layer before a Maxout is that many times as wide
_MAXOUT = re.compile(r"\s*maxout\s*(?:\(\s*([0-9]{1,4})\s*\))?\s*")


@dataclass(frozen=True, slots=True)
class Activations:
    """Makes the activations of a network: `activation(channels)` is a fresh one, for one site.

    `activation(channels, dim)` is one whose channels are at another dimension: -1 for `(n, ..., channels)`.

    It maps `(n, expansion * channels, ...)` to `(n, channels, ...)`, so what comes before a site makes
    `expansion * channels` channels: 1 times for functions of one number, `pieces` times for Maxout, whose pieces are
    neighbouring channels. At a sum with a shortcut there are two sound ways, and each network says which is its own:

    * the sum comes right before the activation: each channel of the shortcut is added to all pieces of its channel, and
      `max(piece_1 + s, piece_2 + s) = s + max(piece_1, piece_2)`: the shortcut goes around Maxout as it is;
    * the sum is carried on and activated within each branch: the carried channels are `expansion` times as many.

    Attributes:
        make: (channels, dim) -> module.
        expression: the function as a tree, if it is one; that is what can be put into a finished network.
    """

    make: Callable[[int, int], nn.Module]
    expansion: int = 1
    expression: Expression | None = None

    def __call__(self, channels: int, dim: int = 1) -> nn.Module:
        return self.make(channels, dim)


def activation_of(text: str) -> Activations:
    """The activations that a text names: an expression, or `maxout(k)` of k pieces; `maxout` has 2.

    Raises:
        ParseError: text that is neither.
        WorkersError: fewer than 2 pieces, or more than 16.
    """
    found = _MAXOUT.fullmatch(text)
    if found is None:
        tree = parse(text)
        return Activations(lambda channels, dim: Activation(tree, channels, dim=dim), expression=tree)
    pieces = int(found[1] or 2)
    if not 2 <= pieces <= MAX_PIECES:
        raise WorkersError(f"maxout takes 2 to {MAX_PIECES} pieces, as in maxout(2), not {pieces!r}")
    return Activations(lambda _, dim: Maxout(pieces, dim=dim), pieces)
