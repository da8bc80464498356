"""Make the searched functions of a network, and tell it where they stand and how many channels they take."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from search_space import Activation, ElementwiseNorm, Gate, Maxout, parse
from search_space.expression import Expression
from workers.contract import WorkersError

MAX_PIECES = 16  # pieces of Maxout; the layer before it is that many times as wide
Norms = Callable[[int], nn.Module]  # makes the normalisation of a number of channels
_MAXOUT = re.compile(r"\s*maxout\s*(?:\(\s*([0-9]{1,4})\s*\))?\s*")


@dataclass(frozen=True, slots=True)
class Activations:
    """Makes the activations of a network: `activation(channels)` returns a new one for one place.

    `activation(channels, dim)` returns one whose channels are at another dimension: -1 for `(n, ..., channels)`.

    An activation maps `(n, expansion * channels, ...)` to `(n, channels, ...)`, so the layer before a site must make
    `expansion * channels` channels. `expansion` is 1 for functions of one number, 2 for gates, whose halves are the
    first and the second `channels` channels, and the number of pieces for Maxout, whose pieces are neighbouring
    channels. For a sum with a shortcut there are two correct ways, and each network states its own:

    * The sum is right before the activation. Each channel of the shortcut is added to all pieces of its channel, and
      as `max(piece_1 + s, piece_2 + s) = s + max(piece_1, piece_2)`, the shortcut passes Maxout unchanged.
    * The sum goes from block to block without activation, and each branch activates it. Then it has `expansion` times
      as many channels.

    Attributes:
        make: maps (channels, dim) to a module.
        expansion: how many input channels an activation needs for each output channel.
        expression: the function as a tree, which can be put into a finished network; None for Maxout.
        site: what the function takes the place of: "activation"; "gate", f(a) * b; or "norm", weight * f(x) + bias.
    """

    make: Callable[[int, int], nn.Module]
    expansion: int = 1
    expression: Expression | None = None
    site: str = "activation"

    def __call__(self, channels: int, dim: int = 1) -> nn.Module:
        return self.make(channels, dim)


def activation_of(text: str, site: str = "activation") -> Activations:
    """Return the activations of a text, which is an expression, or `maxout(k)` for Maxout with k pieces (`maxout`: 2).

    Args:
        site: what they take the place of, as in `Activations`.

    Raises:
        ParseError: the text is neither.
        WorkersError: there are fewer than 2 pieces, or more than 16; or Maxout would take the place of a gate or norm.
    """
    found = _MAXOUT.fullmatch(text)
    if found is None:
        return _of_tree(parse(text), site)
    pieces = int(found[1] or 2)
    if not 2 <= pieces <= MAX_PIECES:
        raise WorkersError(f"maxout takes 2 to {MAX_PIECES} pieces, as in maxout(2), not {pieces!r}")
    if site != "activation":
        raise WorkersError(f"maxout takes the place of an activation, not of a {site}; leave it out")
    return Activations(lambda _, dim: Maxout(pieces, dim=dim), pieces)


def _of_tree(tree: Expression, site: str) -> Activations:
    if site == "gate":
        return Activations(lambda channels, dim: Gate(tree, channels, dim=dim), 2, tree, site)
    if site == "norm":
        return Activations(lambda channels, dim: ElementwiseNorm(tree, channels, dim=dim), 1, tree, site)
    return Activations(lambda channels, dim: Activation(tree, channels, dim=dim), 1, tree)


def split_sites(searched: Activations, norm: Norms, activation: Activations, dim: int = 1) -> tuple[Norms, Activations]:
    """Return what makes the normalisations of a network and what makes its activations, one of which is searched.

    Args:
        searched: makes the searched function.
        norm: makes the normalisations where activations or gates are searched.
        activation: makes the activations where norms are searched.
        dim: the dimension of the channels at a normalisation.
    """
    if searched.site == "norm":
        return lambda channels: searched(channels, dim), activation
    return norm, searched
