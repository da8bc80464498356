"""The candidates that `--skip-mirrors` leaves untrained."""

from __future__ import annotations

from dataclasses import replace

from searcher.driver.state import SearchState
from searcher.mirrors import mirror_of
from searcher.records import Kind, Trial, TrialState


class Mirrors:
    """The candidates that `--skip-mirrors` leaves untrained.

    Such a trial ends as PRUNED before it begins, without a result (`Trial.left_untrained`). It says nothing about its
    function: the next trial of the same function is decided anew.

    Args:
        state: what the loop knows of its study.
        skip: the setting; if it is off, all candidates are trained.
    """

    def __init__(self, state: SearchState, skip: bool) -> None:
        self._state, self._skip = state, skip

    def awaited(self, trial: Trial) -> str | None:
        """Return the key of the running function whose end decides `trial`: its own, or its mirror. None: nothing
        stands in the way of training it."""
        keys = [self._state.identity(trial)]
        if self._skip and trial.kind is Kind.CANDIDATE and (found := mirror_of(trial.expression)):
            keys.append(found.key)
        return next((key for key in keys if key in self._state.deferred), None)

    def decided(self, trial: Trial) -> Trial:
        """Return a new or waiting trial as left untrained if its mirror has been judged, else as it is."""
        if not self._skip or trial.state.finished or trial.kind is Kind.BASELINE:
            return trial
        found = mirror_of(trial.expression)
        known = self._state.functions.get(found.key) if found else None
        if found is None or known is None:
            return trial
        reason = f"mirror of {found.expression} (trial {known.number}), left untrained by --skip-mirrors"
        return replace(trial, state=TrialState.PRUNED, reason=reason, finish_order=self._state.finished)

    def told(self, trial: Trial) -> Trial | None:
        """Return what the sampler is told of a judged trial; None: nothing.

        A trial that was left untrained is told with the result of its mirror, an equally good sample of what training
        it would have given. The worst reward would be a verdict on a function that nobody has tried; told nothing, the
        sampler would propose the function again.
        """
        if not trial.left_untrained:
            return trial
        found = mirror_of(trial.expression)
        known = self._state.functions.get(found.key) if found else None
        if known is None:
            return None
        return self._state.result(trial, known)
