"""Uniform sampling of the grammar's choices: the yardstick for every other sampler."""

from __future__ import annotations

from search_space import Choices, Grammar
from searcher.records import Trial
from searcher.samplers.base import generator


class RandomSampler:
    """Each decision independently and uniformly."""

    def __init__(self, *, grammar: Grammar, seed: int) -> None:
        self._grammar, self._seed = grammar, seed

    def ask(self, number: int) -> Choices | None:
        return self._grammar.sample(generator(self._seed, number))

    def tell(self, trial: Trial) -> None:
        """Learns nothing."""
