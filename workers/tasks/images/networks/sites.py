"""Make the activations of a network, and tell it how many channels they take."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from search_space import Activation, Maxout, parse
from search_space.expression import Expression
from workers.contract import WorkersError

MAX_PIECES = 16  # pieces of Maxout; the layer before it is that many times as wide
_MAXOUT = re.compile(r"\s*maxout\s*(?:\(\s*([0-9]{1,4})\s*\))?\s*")


@dataclass(frozen=True, slots=True)
class Activations:
    """Makes the activations of a network: `activation(channels)` returns a new one for one site.

    `activation(channels, dim)` returns one whose channels are at another dimension: -1 for `(n, ..., channels)`.

    An activation maps `(n, expansion * channels, ...)` to `(n, channels, ...)`, so the layer before a site must make
    `expansion * channels` channels. `expansion` is 1 for functions of one number, and the number of pieces for Maxout,
    whose pieces are neighbouring channels. For a sum with a shortcut there are two correct ways, and each network
    states its own:

    * The sum is right before the activation. Each channel of the shortcut is added to all pieces of its channel, and
      as `max(piece_1 + s, piece_2 + s) = s + max(piece_1, piece_2)`, the shortcut passes Maxout unchanged.
    * The sum goes from block to block without activation, and each branch activates it. Then it has `expansion` times
      as many channels.

    Attributes:
        make: maps (channels, dim) to a module.
        expansion: how many input channels an activation needs for each output channel.
        expression: the function as a tree, which can be put into a finished network; None for Maxout.
    """

    make: Callable[[int, int], nn.Module]
    expansion: int = 1
    expression: Expression | None = None

    def __call__(self, channels: int, dim: int = 1) -> nn.Module:
        return self.make(channels, dim)


def activation_of(text: str) -> Activations:
    """Return the activations of a text, which is an expression, or `maxout(k)` for Maxout with k pieces (`maxout`: 2).

    Raises:
        ParseError: the text is neither.
        WorkersError: there are fewer than 2 pieces, or more than 16.
    """
    found = _MAXOUT.fullmatch(text)
    if found is None:
        tree = parse(text)
        return Activations(lambda channels, dim: Activation(tree, channels, dim=dim), expression=tree)
    pieces = int(found[1] or 2)
    if not 2 <= pieces <= MAX_PIECES:
        raise WorkersError(f"maxout takes 2 to {MAX_PIECES} pieces, as in maxout(2), not {pieces!r}")
    return Activations(lambda _, dim: Maxout(pieces, dim=dim), pieces)
