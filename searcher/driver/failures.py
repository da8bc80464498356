"""The failure policy of a session: which failed trials run again, and when a failure is final."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from searcher import SearcherError
from searcher.records import Trial, TrialState
from workers.contract import Health, Outcome, Verdict

MAX_SUSPECTS = 3  # a session with this many suspects gives up


class EveryTrialFails(SearcherError):
    """All trainings of a session failed in the same way, so the functions are not the cause."""


class Failures:
    """Decides what happens to trials whose run failed.

    A failed trial runs again until its retries are used up, unless its failure is permanent. After that it is FAILED,
    unless it is a suspect: while no training of this session has worked and all have failed in the same way, the cause
    may be the machine. Suspects stay open. They become FAILED once a training works or fails in another way, or no
    other trial is left to try.

    Args:
        max_retries: how many times a trial may run again.
    """

    def __init__(self, max_retries: int) -> None:
        self._max_retries = max_retries
        self._reasons: Counter[str] = Counter()  # first lines of the reasons of failures in this session
        self._worked = False  # True once a training of this session has come to a verdict
        self._suspects: list[tuple[Trial, Outcome]] = []

    @property
    def suspects(self) -> int:
        """Number of trials that are suspects now."""
        return len(self._suspects)

    def worked(self) -> None:
        """Note that a training of this session has come to a verdict."""
        self._worked = True

    def retried(self, trial: Trial, outcome: Outcome) -> Trial | None:
        """Return the trial in the state in which it waits to run again; None if it does not run again."""
        if outcome.verdict is not Verdict.FAILED or outcome.permanent or trial.retries >= self._max_retries:
            return None
        return replace(trial, state=TrialState.WAITING, retries=trial.retries + 1, reason=outcome.reason)

    def suspected(self, trial: Trial, outcome: Outcome) -> Trial | None:
        """Return the trial in the state in which it waits as a suspect; None if it is none."""
        if outcome.verdict is not Verdict.FAILED or not self._is_suspect(outcome):
            return None
        suspect = replace(trial, state=TrialState.WAITING, reason=outcome.reason)
        self._suspects.append((suspect, outcome))
        return suspect

    def _is_suspect(self, outcome: Outcome) -> bool:
        if outcome.health is Health.LOST:  # a dead worker does not mean that the next one fails too
            return False
        self._reasons[outcome.reason.partition("\n")[0][:500]] += 1
        return not self._worked and len(self._reasons) == 1

    def settled(self, nothing_left: bool) -> list[tuple[Trial, Outcome]]:
        """Return the suspects that are FAILED now, with their outcomes.

        Args:
            nothing_left: True if there is no other trial to try.
        """
        if not (self._worked or len(self._reasons) > 1 or (nothing_left and self.suspects < MAX_SUSPECTS)):
            return []
        settled, self._suspects = self._suspects, []
        return settled

    def check(self, study: str) -> None:
        """Raise EveryTrialFails if there are `MAX_SUSPECTS` suspects. `study` is the name as typed in a shell."""
        if self.suspects >= MAX_SUSPECTS:
            (reason,) = self._reasons
            first, _ = self._suspects[0]
            raise EveryTrialFails(
                f"the first {self.suspects} trials of this session all failed, in the same way: {reason}; "
                f"see: searcher trial {study} {first.number}. They run again when the study is resumed"
            )
