"""Read what a confirmation has found from the store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from searcher import UsageError
from searcher.confirmation import Confirmation, Results
from searcher.evidence import Across, Review, Samples
from searcher.records import Study, StudyKind, Trial
from searcher.store.store import Store


def is_confirmation(study: Study) -> bool:
    """Return True if a study is a confirmation, and not a search or another design."""
    return study.kind is StudyKind.DESIGN and isinstance(study.config.get("design"), dict)


def plan_of(study: Study) -> Confirmation:
    """Return the plan of a confirmation.

    Raises:
        UsageError: the study is none.
    """
    if not is_confirmation(study):
        raise UsageError(f"study {study.name!r} is a {study.kind} and no confirmation; make one: searcher confirm")
    return Confirmation.from_plain(study.config["design"])


@dataclass(frozen=True)
class Confirmed:
    """A confirmation as far as it has come.

    Attributes:
        trials: all trials of the study that were proposed so far.
    """

    study: Study
    plan: Confirmation
    trials: tuple[Trial, ...]

    @classmethod
    def of(cls, store: Store, study: Study) -> Confirmed:
        """Read a confirmation.

        Raises:
            UsageError: the study is none.
        """
        plan = plan_of(study)
        return cls(study, plan, tuple(store.trials(study)))

    @cached_property
    def results(self) -> Results:
        """Its results so far."""
        return Results.of(self.plan, self.trials)

    @cached_property
    def samples(self) -> tuple[Samples, ...]:
        """The values under each configuration."""
        return self.results.samples()

    @cached_property
    def reviews(self) -> tuple[Review, ...]:
        """Where the rule of each configuration stands."""
        return self.results.reviews()

    @cached_property
    def evidence(self) -> Across:
        """The verdicts so far.

        Raises:
            EvidenceError: nothing can be compared yet.
        """
        return self.results.evidence()

    @property
    def finished(self) -> bool:
        """Whether nothing is to be trained any more."""
        return all(one.finished for one in self.reviews) and all(trial.state.finished for trial in self.trials)
