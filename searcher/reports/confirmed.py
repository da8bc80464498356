"""Read what a confirmation has found from the store, and say it in rows and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from searcher import UsageError
from searcher.confirmation import Confirmation, Function, Results
from searcher.evidence import (
    Across,
    Comparison,
    Evidence,
    EvidenceError,
    Review,
    Samples,
    Verdict,
    conclusion,
    limits,
    remarks,
    sentence,
)
from searcher.records import Study, StudyKind, Trial
from searcher.reports.finding import key_of
from searcher.store.store import Store

FEW = 4  # functions, each of which is told about


def is_confirmation(study: Study) -> bool:
    """Return True if a study is a confirmation, and not a search or another design."""
    return study.kind is StudyKind.DESIGN and isinstance(study.config.get("design"), dict)


def plan_of(study: Study) -> Confirmation:
    """Return the plan of a confirmation.

    Raises:
        UsageError: the study is not a confirmation.
        PlanError: this version cannot read its plan.
    """
    if not is_confirmation(study):
        raise UsageError(f"study {study.name!r} is a {study.kind} and no confirmation; make one: searcher confirm")
    return Confirmation.of(study)


def _with_reference(plan: Confirmation, reference: str) -> Confirmation:
    wanted = key_of(reference, "")  # the formula may be written in another way
    found = [one.key for one in plan.functions if reference in (one.name, one.expression) or one.key == wanted]
    if not found:
        known = ", ".join(one.label for one in plan.functions)
        raise UsageError(f"the reference {reference!r} was not trained in this confirmation; choose among: {known}")
    if plan.until_sure and found[0] != plan.reference:
        raise UsageError(
            f"this confirmation dropped functions by comparing them with {plan.reference_label}, so they cannot be "
            f"compared with {reference}; leave --reference out, or confirm with: --reference {reference}"
        )
    return replace(plan, reference=found[0])


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
    def of(cls, store: Store, study: Study, reference: str = "") -> Confirmed:
        """Read a confirmation.

        Args:
            reference: the label or the expression of another reference than the planned one; empty: the planned one.

        Raises:
            UsageError: the study is not a confirmation, or the reference was not trained, or the rule depends on the
                planned one.
            PlanError: this version cannot read its plan.
        """
        plan = plan_of(study)
        if reference:
            plan = _with_reference(plan, reference)
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

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each function under each configuration, the reference included, with all that is known.
        There is none before anything can be compared."""
        return [
            self._row(place, evidence, function)
            for place, evidence in self._placed()
            for function in self.plan.functions
        ]

    def _placed(self) -> Iterator[tuple[int, Evidence]]:
        """Yield the evidence of each configuration with its place in the plan."""
        names = [one.name for one in self.plan.configurations]
        try:
            yield from ((names.index(one.configuration), one) for one in self.evidence.evidence)
        except EvidenceError:
            return

    def _row(self, place: int, evidence: Evidence, function: Function) -> dict[str, Any]:
        label, configuration = function.label, self.plan.configurations[place]
        summary = next((one for one in evidence.summaries if one.function == label), None)
        found = next((one for one in evidence.comparisons if one.function == label), None)
        own, superiority = summary and summary.interval, found and found.superiority
        difference = found and found.interval
        chosen = self.results.chosen(configuration, function.key)
        rates = dict(zip(configuration.task_configs, configuration.rates, strict=False))
        return {
            "configuration": evidence.configuration,
            "function": label,
            "expression": function.expression,
            "searched": function.searched,
            "metric": evidence.metric.name,
            "learning_rate": rates.get(chosen),
            "seeds": summary.n + summary.diverged if summary else 0,
            "diverged": summary.diverged if summary else 0,
            "mean": summary and summary.mean,
            "median": summary and summary.median,
            "sd": summary and summary.sd,
            "mean_low": own and own.low,
            "mean_high": own and own.high,
            "reference": evidence.reference,
            "difference": found and found.difference,
            "difference_low": difference and difference.low,
            "difference_high": difference and difference.high,
            "p": found and found.p,
            "p_holm": found and found.p_holm,
            "p_permutation": found and found.p_permutation,
            "test": found and found.test,
            "probability": superiority and superiority.probability,
            "probability_low": superiority and superiority.interval.low,
            "probability_high": superiority and superiority.interval.high,
            "equivalent_within": found and found.within,
            "verdict": str(found.verdict) if found else "reference",
            "seeds_needed": found and found.seeds_needed,
        }

    def story(self) -> list[str]:
        """Return what was found in sentences, a paragraph each: the verdicts, then each function that the search found
        or that is shown to be better (all functions, if they are few), then what must be known to read them."""
        try:
            found = self.evidence.evidence
        except EvidenceError as error:
            return [f"Nothing can be concluded yet: {error}."]
        if not found:
            return [f"Nothing can be concluded before the first look, at {self.plan.looks[0]} seeds."]
        return [*self._state(), *(text for evidence in found for text in self._told(evidence)), *self._cautions()]

    def _state(self) -> Iterator[str]:
        if not self.finished:
            done = sum(trial.state.finished for trial in self.trials)
            yield (
                f"Preliminary: {done} of at most {self.plan.most_trainings} trainings have ended. The verdicts hold "
                "for the finished plan, not for a look that was not planned."
            )

    def _told(self, evidence: Evidence) -> Iterator[str]:
        several = len(self.plan.configurations) > 1
        yield f"{evidence.configuration}: {conclusion(evidence)}" if several else conclusion(evidence)
        found = {function.label for function in self.plan.functions if not function.name}
        few = len(evidence.comparisons) <= FEW
        for comparison in evidence.comparisons:
            better = comparison.verdict is Verdict.BETTER
            if few or better or comparison.function in found:
                more = self._remarks(comparison, evidence) if few or better else ()
                yield "\n    ".join((sentence(comparison, evidence), *more, *self._searched(comparison)))

    def _remarks(self, comparison: Comparison, evidence: Evidence) -> Iterator[str]:
        yield from (text for text in remarks(comparison, evidence) if text not in self._common(evidence))

    def _searched(self, comparison: Comparison) -> Iterator[str]:
        function = next(one for one in self.plan.functions if one.label == comparison.function)
        searched, reference = self.plan.searched, self._reference
        if searched and function.searched is not None and reference.searched is not None and not function.name:
            gap = searched.merit(function.searched) - searched.merit(reference.searched)
            better = gap > 0
            yield (
                f"In the search it was {'better' if better else 'worse'} than {reference.label} by {abs(gap):.3g} in "
                f"{searched.name}{', where the best of many look better than they are' if better else ''}."
            )

    @property
    def _reference(self) -> Function:
        return next(one for one in self.plan.functions if one.key == self.plan.reference)

    def _common(self, evidence: Evidence) -> set[str]:
        """Return the limits that hold for every comparison, which are said once."""
        every = [set(limits(one, evidence)) for one in evidence.comparisons]
        return set.intersection(*every) if every else set()

    def _cautions(self) -> Iterator[str]:
        yield from sorted({text for evidence in self.evidence.evidence for text in self._common(evidence)})
        if failed := len(self.results.failed):
            trainings = "training was" if failed == 1 else "trainings were"
            yield f"{failed} {trainings} not finished by the machine, and left out: they say nothing about a function."
