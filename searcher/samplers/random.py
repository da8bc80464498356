"""Sample the grammar's choices uniformly. Other samplers are compared with this one."""

from __future__ import annotations

from collections.abc import Sequence

from search_space import Choices, Grammar
from searcher.samplers.contract import Observation, Pending, generator


class RandomSampler:
    """Draws each decision independently and uniformly."""

    def __init__(self, *, grammar: Grammar, seed: int) -> None:
        self._grammar, self._seed = grammar, seed

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices:  # noqa: ARG002
        return self._grammar.sample(generator(self._seed, number))

    def tell(self, observation: Observation) -> None:
        """Learn nothing."""
