"""Tests of the contract of samplers, also for samplers of your own.

    from searcher.samplers.testing import SamplerContract

    class TestMine(SamplerContract):
        def make(self, grammar, seed):
            return Mine(grammar=grammar, seed=seed)

pytest then runs every rule of `searcher.samplers.contract.Sampler` against `Mine`.
"""

from __future__ import annotations

from collections.abc import Sequence

from search_space import Choices, Expression, Grammar, key
from searcher.records import TrialState
from searcher.samplers.contract import Observation, Pending, Sampler

TRIALS = 24


def observed(number: int, expression: Expression, choices: Choices | None, merit: float | None = 0.5) -> Observation:
    """Return an observation of a made-up training: `merit` is an accuracy, or None for INFEASIBLE."""
    state = TrialState.INFEASIBLE if merit is None else TrialState.COMPLETE
    return Observation(number, str(expression), choices, key(expression), 0, state, merit, "fraction", 1.0)


class SamplerContract:
    """Tests of the rules that every sampler must keep. A subclass defines `make`."""

    grammar = Grammar(1)

    def make(self, grammar: Grammar, seed: int) -> Sampler:
        """Return a new sampler."""
        raise NotImplementedError

    def test_proposals_are_of_the_grammar(self) -> None:
        """Rule 3: `ask` returns decisions of the grammar, or expressions if `any_expression` is true."""
        for units in (1, 2):
            grammar = Grammar(units)
            sampler = self.make(grammar, 0)
            for number in range(3):
                self._proposed(sampler, number, grammar)

    def test_asking_changes_nothing(self) -> None:
        """Rule 1: an answer depends only on the told observations, the number and the pending trials."""
        sampler, other = self.make(self.grammar, 0), self.make(self.grammar, 0)
        for number in range(14):
            for distraction in (number, number + 5, 3):
                sampler.ask(distraction, ())
            answers = [one.ask(number, ()) for one in (sampler, sampler, other)]
            assert answers[0] == answers[1], "the same number got another answer"
            assert answers[0] == answers[2], "asking for other numbers changed the answer"
            observation = self._observed(sampler, number)
            sampler.tell(observation)
            other.tell(observation)

    def test_one_that_is_told_the_same_goes_on_the_same(self) -> None:
        """Rule 2: only `tell` changes a sampler, so a new sampler that is told the same observations can replace it."""
        sampler, told = self.make(self.grammar, 0), []
        for number in range(TRIALS):
            told.append(self._observed(sampler, number))
            sampler.tell(told[-1])
        resumed = self.make(self.grammar, 0)
        for observation in told:
            resumed.tell(observation)
        numbers = range(TRIALS, TRIALS + 4)
        assert [resumed.ask(n, ()) for n in numbers] == [sampler.ask(n, ()) for n in numbers]

    def test_equal_seeds_give_equal_proposals(self) -> None:
        """Rule 4: equal seeds give equal proposals."""
        first, second = self.make(self.grammar, 1), self.make(self.grammar, 1)
        assert [first.ask(number, ()) for number in range(5)] == [second.ask(number, ()) for number in range(5)]

    def test_baselines_and_pending_trials_do_no_harm(self) -> None:
        """`tell` takes functions that were not proposed, and `ask` takes trials that are not judged yet."""
        sampler = self.make(self.grammar, 0)
        relu = self.grammar.decode(self.grammar.unrank(0))
        sampler.tell(observed(0, relu, None))
        pending = self._pending(sampler, 1)
        assert sampler.ask(2, pending) == sampler.ask(2, pending)
        self._proposed(sampler, 2, self.grammar, pending)

    def _proposed(
        self, sampler: Sampler, number: int, grammar: Grammar, pending: Sequence[Pending] = ()
    ) -> tuple[Expression, Choices | None]:
        proposal = sampler.ask(number, pending)
        assert proposal is not None, "the space is not exhausted"
        if isinstance(proposal, Expression):
            assert getattr(sampler, "any_expression", False), "an Expression needs `any_expression = True`"
            return proposal, None
        return grammar.decode(proposal), proposal

    def _observed(self, sampler: Sampler, number: int) -> Observation:
        """Return a made-up result of the sampler's proposal: every fifth is infeasible, longer texts are better."""
        expression, choices = self._proposed(sampler, number, self.grammar)
        merit = None if number % 5 == 0 else min(1.0, len(str(expression)) / 50)
        return observed(number, expression, choices, merit)

    def _pending(self, sampler: Sampler, number: int) -> tuple[Pending, ...]:
        expression, choices = self._proposed(sampler, number, self.grammar)
        return (Pending(number, str(expression), choices, key(expression)),)
