"""Train more seeds until every comparison is decided, by a rule that is stated beforehand.

The rule, for m functions and L looks:

1. At look j, each function that is still trained has its first n_j seeds, as has the reference. Test each of them as
   with a fixed number of seeds: p_ij, for a difference and for equivalence.
2. Let p_i be L times the least p_ij up to now. It is a p-value whenever one stops looking at function i, and for
   whatever reason: looking at all L instead could only make the least one smaller, and by Bonferroni's inequality
   the least of L p-values is at most alpha / L with a probability of at most alpha.
3. Correct the p_i of all m functions that began by Holm's method, which holds for p-values that depend on each other.
   Those at most alpha are decided. A function that is not trained any more keeps its p_i.
4. Functions shown worse or equivalent are trained no further. Those shown better go on beside the undecided ones, so
   that the size of the difference becomes known too. The study ends when none is undecided, or after the last look.

So dropping functions cannot raise the probability of a false verdict above alpha: it only leaves out looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Self

from searcher.evidence.paired import (
    ALPHA,
    Evidence,
    Rules,
    Verdict,
    chosen_rope,
    judged,
    verdict_of,
)
from searcher.evidence.samples import EvidenceError, Samples, finite
from searcher.evidence.significance import PValues, holm_corrected, p_values
from workers.contract import Metric

LOOKS = (5, 10, 20, 40)


@dataclass(frozen=True, slots=True)
class Plan:
    """A confirmation that ends when it is sure, as it is stored before the first training.

    It is for one task configuration. Under several, give each a plan, and each plan alpha divided by their number.

    Attributes:
        functions: all that begin, without the reference.
        seeds: the training seeds in their order; as many as the last look needs.
        looks: at how many seeds the data are looked at, ascending.
        alpha: the accepted probability of any false verdict.
        rope: differences of at most this count as none; None: no function is called equivalent.

    Raises:
        EvidenceError: a field is not what is accepted.
    """

    metric: Metric
    functions: tuple[str, ...]
    reference: str
    seeds: tuple[int, ...]
    looks: tuple[int, ...] = LOOKS
    alpha: float = ALPHA
    rope: float | None = None

    def __post_init__(self) -> None:
        looks = self.looks
        if not looks or looks[0] < 2 or any(a >= b for a, b in pairwise(looks)):
            raise EvidenceError(f"looks are {looks}: give ascending numbers of seeds, the first one 2 or more")
        if len(set(self.seeds)) != len(self.seeds) or len(self.seeds) < looks[-1]:
            raise EvidenceError(f"there are {len(set(self.seeds))} distinct seeds: the last look needs {looks[-1]}")
        if not self.functions or len({*self.functions, self.reference}) <= len(self.functions):
            raise EvidenceError("give each function once, at least one, and a reference that is none of them")
        finite("alpha", self.alpha, 0, 1)
        object.__setattr__(self, "rope", chosen_rope(self.rope, self.metric))

    @property
    def most_trainings(self) -> int:
        """The number of trainings if nothing is decided early."""
        return (len(self.functions) + 1) * self.looks[-1]

    @property
    def rule(self) -> str:
        """The rule in words, to print before the first training."""
        *first, last = map(str, self.looks)
        times = f"{', '.join(first)} and {last}" if first else last
        several, functions = len(self.looks), len(self.functions)
        same = "" if self.rope is None else f" or equivalent to it within ±{self.rope:g} (two one-sided tests)"
        dropped = "worse" if self.rope is None else "worse or equivalent"
        return (
            f"Look at {self.metric.name} after {times} seeds. At each look, compare every function that is still "
            f"trained with {self.reference} on the same seeds: by the paired t test, or by the sign test where one "
            f"diverged and the other did not. Multiply the least p-value of each function so far by {several}, the "
            f"number of looks, and correct by Holm's method for all functions that began ({functions}). A function is "
            f"shown better or worse{same} if that is at most {self.alpha:g}. A function shown {dropped} is trained no "
            f"further. The study ends when every function is decided, or after {last} seeds."
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the plan as a JSON object, with the rule in words."""
        return {**asdict(self), "rule": self.rule}

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """Return the plan of a JSON object."""
        known: dict[str, Any] = {name: fields[name] for name in ("reference", "alpha", "rope")}
        known |= {name: tuple(fields[name]) for name in ("functions", "seeds", "looks")}
        return cls(metric=Metric.from_plain(fields["metric"]), **known)


@dataclass(frozen=True, slots=True)
class Review:
    """Where a plan stands, by the values there are.

    Attributes:
        looks: how many looks were taken. `seeds`: seeds at the last of them.
        needed: trainings (function, seed) that the next look waits for; empty if the study is finished.
        dropped: functions that are trained no further, with the number of seeds at which that was decided.
        evidence: the verdicts, by the data up to the last look alone; None before the first one.
    """

    looks: int
    seeds: int
    needed: tuple[tuple[str, int], ...]
    dropped: Mapping[str, int] = field(hash=False)
    evidence: Evidence | None

    @property
    def finished(self) -> bool:
        """Whether nothing is to be trained any more."""
        return not self.needed


def review(plan: Plan, samples: Samples, failed: Collection[tuple[str, int]] = ()) -> Review:
    """Apply the rule of a plan to the values there are. Values that the rule would not have asked for are left out.

    Args:
        failed: trainings (function, seed) that a machine could not finish and nobody will repeat: the looks do not wait
            for them, and they are no evidence.
    """
    taken = Looks(plan, samples)
    needed = taken.take(failed)
    return taken.review(needed)


@dataclass(slots=True)
class Looks:
    """The looks that the values allow, taken one after the other.

    Attributes:
        past: what each look found about a function.
        counts: with how many seeds each function was looked at last.
    """

    plan: Plan
    samples: Samples
    past: dict[str, list[PValues]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def trained(self) -> tuple[str, ...]:
        """The functions of the next look, and the reference."""
        return (*(f for f in self.plan.functions if f not in self.dropped), self.plan.reference)

    def take(self, failed: Collection[tuple[str, int]] = ()) -> tuple[tuple[str, int], ...]:
        """Take all looks that can be taken. Return the trainings that the next one waits for, none at the end."""
        for seeds in self.plan.looks:
            needed = tuple(
                (function, seed)
                for seed in self.plan.seeds[:seeds]
                for function in self.trained
                if seed not in self.samples.values.get(function, {}) and (function, seed) not in failed
            )
            if needed:
                return needed
            if Verdict.UNDECIDED not in self.look(seeds).values():
                break
        return ()

    def look(self, seeds: int) -> dict[str, Verdict]:
        """Look at the first seeds of all functions that are still trained, drop some, and return their verdicts."""
        plan, functions = self.plan, self.trained[:-1]
        self.counts |= dict.fromkeys(self.trained, seeds)
        known = self.seen()
        for function in functions:
            self.past[function].append(p_values(known.pairs(function, plan.reference), plan.rope))
        corrected = holm_corrected(self.over_looks())
        verdicts = {function: verdict_of(corrected[function], plan.alpha) for function in functions}
        self.dropped |= {f: seeds for f, found in verdicts.items() if found in (Verdict.WORSE, Verdict.EQUIVALENT)}
        return verdicts

    def seen(self) -> Samples:
        """Return the values that the looks have taken into account."""
        values: dict[str, dict[int, float | None]] = {}
        for function, count in self.counts.items():
            own = self.samples.values.get(function, {})
            values[function] = {seed: own[seed] for seed in self.plan.seeds[:count] if seed in own}
        return Samples(self.plan.metric, values, self.samples.configuration)

    def over_looks(self) -> dict[str, PValues]:
        """Return what all looks say about each function together."""
        return {function: _over_looks(found, len(self.plan.looks)) for function, found in self.past.items()}

    def review(self, needed: tuple[tuple[str, int], ...]) -> Review:
        """Return where the plan stands."""
        plan, found = self.plan, self.over_looks()
        seeds = self.counts.get(plan.reference, 0)
        evidence = None
        if found:
            corrected = holm_corrected(found)
            rules = Rules.of(corrected, plan.alpha, plan.rope, len(plan.looks))
            evidence = judged(self.seen(), plan.reference, found, corrected, rules)
        return Review(sum(n <= seeds for n in plan.looks), seeds, needed, self.dropped, evidence)


def _over_looks(past: Sequence[PValues], looks: int) -> PValues:
    """Return what one function's looks up to now say together. If the last one favours the other side than the one with
    the least p-value, the function is neither better nor worse."""
    least = min(past, key=lambda found: found.difference)
    return PValues(
        difference=min(1.0, looks * least.difference),
        equivalence=min(1.0, looks * min(found.equivalence for found in past)),
        favours=least.favours if past[-1].favours == least.favours else 0,
        test=least.test,
    )
