"""The failure policy of a session: which failed trials run again, and when a failure is final."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from searcher import SearcherError
from searcher.records import Trial, TrialState
from workers.contract import Health, Outcome, Verdict

MAX_SUSPECTS = 3  # suspects, before a session gives up


class EveryTrialFails(SearcherError):
    """All trainings of a session failed in the same way, so the functions are not to blame."""


class Failures:
    """Decides what becomes of runs that failed.

    A failed trial runs again until its retries are used up, unless its failure is permanent. After that it is FAILED,
    unless it is a suspect: while nothing has worked in this session and all runs failed in the same way, the machine
    may be to blame. Suspects stay open. They become FAILED once something has worked, or has failed in another way, or
    nothing else is left to try.

    Args:
        max_retries: how often a trial runs again.
    """

    def __init__(self, max_retries: int) -> None:
        self._max_retries = max_retries
        self._reasons: Counter[str] = Counter()  # the first lines of reasons, of this session
        self._worked = False  # whether any training of this session has come to a verdict
        self._suspects: list[tuple[Trial, Outcome]] = []

    @property
    def suspects(self) -> int:
        """How many trials are suspects now."""
        return len(self._suspects)

    def worked(self) -> None:
        """Note that a training of this session has come to a verdict."""
        self._worked = True

    def retried(self, trial: Trial, outcome: Outcome) -> Trial | None:
        """Return the trial as it waits to run again; None if the outcome stands."""
        if outcome.verdict is not Verdict.FAILED or outcome.permanent or trial.retries >= self._max_retries:
            return None
        return replace(trial, state=TrialState.WAITING, retries=trial.retries + 1, reason=outcome.reason)

    def suspected(self, trial: Trial, outcome: Outcome) -> Trial | None:
        """Return the trial as it waits as a suspect; None if the outcome stands."""
        if outcome.verdict is not Verdict.FAILED or not self._is_suspect(outcome):
            return None
        suspect = replace(trial, state=TrialState.WAITING, reason=outcome.reason)
        self._suspects.append((suspect, outcome))
        return suspect

    def _is_suspect(self, outcome: Outcome) -> bool:
        if outcome.health is Health.LOST:  # a worker that died says nothing about the next one
            return False
        self._reasons[outcome.reason.partition("\n")[0][:500]] += 1
        return not self._worked and len(self._reasons) == 1

    def settled(self, nothing_left: bool) -> list[tuple[Trial, Outcome]]:
        """Return the suspects that are FAILED now, with their outcomes. `nothing_left`: no other trial can be tried."""
        if not (self._worked or len(self._reasons) > 1 or (nothing_left and self.suspects < MAX_SUSPECTS)):
            return []
        settled, self._suspects = self._suspects, []
        return settled

    def check(self, study: str) -> None:
        """Raise EveryTrialFails if there are `MAX_SUSPECTS` suspects. `study` is the study as one types it."""
        if self.suspects >= MAX_SUSPECTS:
            (reason,) = self._reasons
            first, _ = self._suspects[0]
            raise EveryTrialFails(
                f"the first {self.suspects} trials of this session all failed, in the same way: {reason}; "
                f"see: searcher trial {study} {first.number}. They run again when the study goes on"
            )
