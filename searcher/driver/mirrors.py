"""The candidates that `--skip-mirrors` leaves untrained."""

from __future__ import annotations

from dataclasses import replace

from searcher.driver.state import SearchState
from searcher.mirrors import mirror_of
from searcher.records import Kind, Trial, TrialState


class Mirrors:
    """The candidates that `--skip-mirrors` leaves untrained.

    Such a trial ends as PRUNED before it begins, without a result (`Trial.left_untrained`). The next trial of the same
    function does not cite it, and is decided anew.

    Args:
        state: the loop's knowledge of its study.
        skip: the value of `--skip-mirrors`; if it is off, all candidates are trained.
    """

    def __init__(self, state: SearchState, skip: bool) -> None:
        self._state, self._skip = state, skip

    def awaited(self, trial: Trial) -> str | None:
        """Return the identity of the running training whose end decides `trial`: a training of its own function or,
        with `skip`, of its mirror. Return None if `trial` need not wait."""
        keys = [self._state.identity(trial)]
        if self._skip and trial.kind is Kind.CANDIDATE and (found := mirror_of(trial.expression)):
            keys.append(found.key)
        return next((key for key in keys if key in self._state.deferred), None)

    def decided(self, trial: Trial) -> Trial:
        """Return a new or waiting trial as PRUNED if its mirror was judged; otherwise return it unchanged."""
        if not self._skip or trial.state.finished or trial.kind is Kind.BASELINE:
            return trial
        found = mirror_of(trial.expression)
        known = self._state.functions.get(found.key) if found else None
        if found is None or known is None:
            return trial
        reason = f"mirror of {found.expression} (trial {known.number}), left untrained by --skip-mirrors"
        return replace(trial, state=TrialState.PRUNED, reason=reason, finish_order=self._state.finished)

    def told(self, trial: Trial) -> Trial | None:
        """Return the trial with the result that the sampler is told; None if it is told nothing.

        For a trial that was left untrained this is the result of its mirror, which is as good an estimate as a training
        would give. The worst reward would judge a function that was never trained; without any result the sampler would
        propose the function again.
        """
        if not trial.left_untrained:
            return trial
        found = mirror_of(trial.expression)
        known = self._state.functions.get(found.key) if found else None
        if known is None:
            return None
        return self._state.result(trial, known)
