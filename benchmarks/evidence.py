"""Whether the statistics of searcher/evidence keep what they promise, in simulated studies whose truth is known.

A study has functions and a reference, trained with the same seeds. A value is the function's true mean plus the effect
of the seed, which all functions share, plus noise of the training. Its shape is normal, skewed (gamma with shape 4,
skewness 1), very skewed (exponential, skewness 2), heavy-tailed (t with 3 degrees of freedom), rounded to the steps of
500 images (so there are ties), normal with one training in ten diverged, or exponential for all functions but normal
for the reference.

* null: no function differs. How many studies call any of them better or worse? With 5, 10 and 20 seeds, and by the
  sequential rule. At most 5 % plus two standard errors.
* half: half of the functions are better or worse by one or two standard deviations of a paired difference, so that many
  are dropped early. How many studies call one of the others better or worse, or one of these the wrong way round?
* equal: each function differs by just the margin of equivalence. How many studies call any of them equivalent?
* coverage: how often do intervals hold the true value? 93 to 97 %.
* power: do as many trainings find what they are said to find?
* ranking: a search of 100 trainings, either of 100 functions once, whose best value is taken; or of 80 functions, whose
  best five are trained four times more, and the first by its lower bound is taken. Which one is truly better? And how
  good is the first rank of a search of 200 trainings with `--replicates`, beside one without?

    python -m benchmarks.evidence --studies 2000

The package calls scipy's tests, which check their arguments for longer than they compute. Where many studies are
judged, they are replaced by the same formulas without the checks; that both agree is checked first.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from searcher.evidence import Plan, Samples, Verdict, power, ranked, significance
from searcher.evidence.estimates import Interval, bca_interval, mean_interval, probability_interval, t_interval
from searcher.evidence.paired import verdict_of
from searcher.evidence.sequential import Looks
from searcher.evidence.significance import holm_corrected, p_values
from searcher.proposers import Proposal, ReplicatingProposer
from searcher.records import TrialState
from searcher.samplers.contract import Observation, Pending
from workers.contract import Direction, Metric

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
Merits = Callable[[np.random.Generator, int], Array]

METRIC = Metric("test_acc", Direction.MAXIMIZE)  # without a unit there is no margin of equivalence by default
MEAN, SD = 0.9, 0.01  # of a training
SHARED = 0.01  # standard deviation of the effect of the seed
PAIRED = SD * math.sqrt(2)  # standard deviation of a paired difference
MARGIN = PAIRED / 2
HALF = [PAIRED, -PAIRED, 2 * PAIRED, -2 * PAIRED, 0.0, 0.0, 0.0, 0.0]  # advantages
SEEDS = (5, 10, 20)
STEP = 0.002  # an image of 500
DIVERGED = 0.1
FALSE = (Verdict.BETTER, Verdict.WORSE)

SHAPES: Mapping[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: (4 - rng.gamma(4, size=size)) / 2,
    "very skewed": lambda rng, size: 1 - rng.exponential(size=size),
    "heavy-tailed": lambda rng, size: rng.standard_t(3, size=size) / math.sqrt(3),
    "rounded": lambda rng, size: rng.normal(size=size),
    "diverging": lambda rng, size: rng.normal(size=size),
    "unlike the reference's": lambda rng, size: np.concatenate(
        [rng.normal(size=(1, *size[1:])), 1 - rng.exponential(size=(size[0] - 1, *size[1:]))]
    ),
}


class Unchecked:
    """The tests that `significance` takes from scipy.stats."""

    @staticmethod
    def ttest_1samp(values: Sequence[float], mean: float, alternative: str = "two-sided") -> SimpleNamespace:
        n = len(values)
        t = (sum(values) / n - mean) / (float(np.std(values, ddof=1)) / math.sqrt(n))
        p = {
            "two-sided": lambda: 2 * special.stdtr(n - 1, -abs(t)),
            "greater": lambda: special.stdtr(n - 1, -t),
            "less": lambda: special.stdtr(n - 1, t),
        }
        return SimpleNamespace(pvalue=float(p[alternative]()))

    binomtest = staticmethod(cache(stats.binomtest))


@contextmanager
def unchecked() -> Iterator[None]:
    """Replace scipy's tests, after a comparison with them."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = rng.normal(0.3, 1, rng.integers(2, 41))
        for alternative in ("two-sided", "greater", "less"):
            scipys, ours = (of.ttest_1samp(values, 0.2, alternative=alternative).pvalue for of in (stats, Unchecked))
            assert math.isclose(scipys, ours, rel_tol=1e-9), (scipys, ours)
    significance.stats = Unchecked
    try:
        yield
    finally:
        significance.stats = stats


def study(rng: np.random.Generator, shape: str, seeds: int, advantages: Sequence[float]) -> Samples:
    """Return a simulated study: f0 is the reference, f1 ... are better by these advantages."""
    gains = np.array([0.0, *advantages])
    values = MEAN + gains[:, None] + SHARED * rng.normal(size=seeds) + SD * SHAPES[shape](rng, (len(gains), seeds))
    if shape == "rounded":
        values = np.round(values / STEP) * STEP
    lost = rng.random(values.shape) < (DIVERGED if shape == "diverging" else 0)
    return Samples(
        METRIC,
        {
            f"f{row}": {seed: None if lost[row, seed] else float(values[row, seed]) for seed in range(seeds)}
            for row in range(len(gains))
        },
    )


def fixed_verdicts(samples: Samples, rope: float | None) -> dict[str, Verdict]:
    """Return the verdicts of `compare`, without the estimates, which take most of its time."""
    found = {function: p_values(samples.pairs(function, "f0"), rope) for function in samples.compared("f0")}
    return {function: verdict_of(values, 0.05) for function, values in holm_corrected(found).items()}


def sequential_verdicts(samples: Samples, rope: float | None) -> tuple[dict[str, Verdict], Looks]:
    """Return the verdicts of `review` at the end of a study, without the estimates, and its looks."""
    functions = samples.compared("f0")
    looks = Looks(Plan(METRIC, functions, "f0", tuple(samples.values["f0"]), rope=rope), samples)
    assert not looks.take()
    corrected = holm_corrected(looks.over_looks())
    return {function: verdict_of(values, 0.05) for function, values in corrected.items()}, looks


def wrong(verdicts: Mapping[str, Verdict], advantages: Sequence[float]) -> bool:
    """Return whether a verdict says better or worse of a function that is not, or equivalent of one that is not."""
    for advantage, verdict in zip(advantages, verdicts.values(), strict=True):
        claimed = 1 if verdict is Verdict.BETTER else -1
        if verdict in FALSE and claimed != np.sign(advantage):
            return True
        if verdict is Verdict.EQUIVALENT and abs(advantage) >= MARGIN:
            return True
    return False


def errors(studies: int, seed: int, advantages: Sequence[float], rope: float | None) -> Iterator[list[str]]:
    """Yield a row for each shape: the share of studies with any wrong verdict."""
    for number, shape in enumerate(SHAPES):
        row = [shape]
        for seeds in SEEDS:
            rng = np.random.default_rng([seed, number, seeds])
            found = (fixed_verdicts(study(rng, shape, seeds, advantages), rope) for _ in range(studies))
            row.append(share(sum(wrong(verdicts, advantages) for verdicts in found), studies))
        rng, false, trainings, covered, intervals = np.random.default_rng([seed, number]), 0, 0, 0, 0
        for _ in range(studies):
            verdicts, looks = sequential_verdicts(study(rng, shape, 40, advantages), rope)
            false += wrong(verdicts, advantages)
            trainings += sum(looks.counts.values())
            hits = list(covering(looks, advantages))
            covered, intervals = covered + sum(hits), intervals + len(hits)
        saved = 1 - trainings / studies / ((len(advantages) + 1) * 40)
        yield [*row, share(false, studies), f"{saved:.0%}", f"{covered / intervals:.1%}"]


def covering(looks: Looks, advantages: Sequence[float]) -> Iterator[bool]:
    """Yield for each function whether its interval at the end of a sequential study holds the true difference."""
    seen = looks.seen()
    for function, advantage in zip(looks.plan.functions, advantages, strict=True):
        pairs = seen.pairs(function, "f0")
        if not pairs.constant:  # the interval holds what a test at its level does not reject
            yield Unchecked.ttest_1samp(pairs.differences, advantage).pvalue > 0.05 / 4


def share(count: int, studies: int) -> str:
    """Return a share of studies, marked if it is above 5 % and two standard errors."""
    limit = 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)
    return f"{count / studies:.1%}{' (above)' if count / studies > limit else ''}"


def coverage(studies: int, seed: int) -> Iterator[list[str]]:
    """Yield a row for each shape: how often intervals of a function's mean, and of a paired difference, cover."""
    for number, shape in enumerate(list(SHAPES)[:4]):
        rng = np.random.default_rng([seed, number])
        row = [shape]
        for seeds in (5, 10, 20, 40):
            draws = SHAPES[shape](rng, (studies, seeds))
            row.append(t_covers(draws))
            if seeds >= 10:
                row.append(covers(draws, mean_interval))
            if seeds == 20:
                row += [covers(draws, plain_bca), covers(draws, bca_interval)]
        for seeds in (5, 10, 20):
            row.append(t_covers(SHAPES[shape](rng, (studies, seeds)) - SHAPES[shape](rng, (studies, seeds))))
        yield row


def plain_bca(values: Array) -> Interval:
    """Return the BCa interval at its nominal level."""
    found = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    return Interval(float(found.low), float(found.high), "BCa")


def t_covers(draws: Array) -> str:
    """Return how often `t_interval` covers 0, for all studies in one call of scipy."""
    found = stats.ttest_1samp(draws, 0, axis=1).confidence_interval(0.95)
    assert t_interval(draws[0]).low == found.low[0]
    return f"{((found.low <= 0) & (found.high >= 0)).mean():.1%}"


def covers(draws: Array, method: Callable[[Array], Interval]) -> str:
    """Return how often an interval covers 0."""
    return f"{np.mean([found.low <= 0 <= found.high for found in map(method, draws)]):.1%}"


def probability_coverage(studies: int, seed: int) -> Iterator[list[str]]:
    """Yield rows: how often the interval of P(A > B) covers, and how often it is significant where there is nothing."""
    rng = np.random.default_rng(seed)
    for seeds in (5, 10, 20, 40):
        for ties in (0.0, 0.3):
            cells = []
            for probability in (0.5, 0.75, 0.95):
                shares = [probability * (1 - ties), (1 - probability) * (1 - ties), ties]
                true = shares[0] + ties / 2
                found = [probability_interval(*map(int, draw)) for draw in rng.multinomial(seeds, shares, studies)]
                cells.append(f"{sum(i.low <= true <= i.high for i in found) / studies:.1%}")
            yield [str(seeds), f"{ties:.0%}", *cells]


def powers(studies: int, seed: int) -> Iterator[list[str]]:
    """Yield rows: what is asked, the answer, the power that was promised and the one that was found."""
    rng = np.random.default_rng(seed)
    for effect in (0.5, 0.8, 1.2, 2.0):
        for alpha in (0.05, 0.05 / 8):
            n = power.seeds_for_difference(effect, alpha)
            p = stats.ttest_1samp(rng.normal(effect, 1, (studies, n)), 0, axis=1).pvalue
            yield [f"difference of {effect} sd, alpha {alpha:.3g}", f"{n} seeds", "80 %", f"{(p <= alpha).mean():.1%}"]
    for effect, rope in ((0.0, 0.5), (0.0, 1.0), (0.2, 0.7)):
        n = power.seeds_for_equivalence(effect, rope)
        draws = rng.normal(effect, 1, (studies, n))
        low = stats.ttest_1samp(draws, -rope, axis=1, alternative="greater").pvalue
        high = stats.ttest_1samp(draws, rope, axis=1, alternative="less").pvalue
        found = (np.maximum(low, high) <= 0.05).mean()
        yield [f"equivalence within {rope} sd, truly {effect}", f"{n} seeds", "80 %", f"{found:.1%}"]
    for n in (5, 10, 20):
        effect = power.detectable(n, 1.0)
        p = stats.ttest_1samp(rng.normal(effect, 1, (studies, n)), 0, axis=1).pvalue
        yield [f"what {n} seeds detect", f"{effect:.2f} sd", "80 %", f"{(p <= 0.05).mean():.1%}"]
    for wins in (0.75, 0.9):
        n = power.seeds_for_sign(wins)
        counts = rng.binomial(n, wins, studies)
        known = np.array([stats.binomtest(k, n).pvalue for k in range(n + 1)])
        yield [f"sign test, {wins:.0%} wins", f"{n} seeds", "80 %", f"{(known[counts] <= 0.05).mean():.1%}"]
    yield from noethers(rng, studies)


def noethers(rng: np.random.Generator, studies: int) -> Iterator[list[str]]:
    """Yield rows: Noether's number for P = 0.75, with the test that it is for, and with the paired t test."""
    n, effect = power.noether(0.75), float(stats.norm.ppf(0.75))  # in standard deviations of a difference
    a, b = rng.normal(effect, math.sqrt(0.5), (studies, n)), rng.normal(0, math.sqrt(0.5), (studies, n))
    for name, p in (
        ("rank-sum test", stats.mannwhitneyu(a, b, axis=1, alternative="greater").pvalue),
        ("paired t test", stats.ttest_rel(a, b, axis=1, alternative="greater").pvalue),
    ):
        yield [f"P(A > B) = 0.75, Noether, one-sided {name}", f"{n} pairs", "95 %", f"{(p <= 0.05).mean():.1%}"]


MERITS: Mapping[str, Merits] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "a crowd near the top": lambda rng, n: -rng.exponential(size=n),
}


SCORE = Metric("val_score", Direction.MAXIMIZE)
TRAININGS = 200
SHARES = (0.0, 0.1, 0.2, 0.4)


def rankings(studies: int, seed: int) -> Iterator[list[str]]:
    """Yield rows: the true merit of what is chosen, in standard deviations of the functions' merits."""
    for name, merits in MERITS.items():
        for noise in (0.1, 0.3, 1.0):
            rng = np.random.default_rng(seed)
            chosen = np.array([choices(rng, merits, noise) for _ in range(studies)])
            raw, best, mean, bound = chosen.mean(axis=0)
            gain = chosen[:, 3] - chosen[:, 0]
            error = gain.std() / math.sqrt(studies)
            better, worse = (gain > 0).mean(), (gain < 0).mean()
            yield [
                *(name, f"{noise:g}", f"{raw:.3f}", f"{best:.3f}", f"{mean:.3f}", f"{bound:.3f}"),
                *(f"{gain.mean():+.3f} ± {2 * error:.3f}", f"{better:.0%} / {worse:.0%}"),
            ]


def races(studies: int, seed: int) -> Iterator[list[str]]:
    """Yield rows: the true merit of what a search of 200 trainings chooses, without and with `--replicates`."""
    for name, merits in MERITS.items():
        for noise in (0.1, 0.3, 1.0):
            rng = np.random.default_rng(seed)
            chosen = np.array([[race(rng, merits, noise, share) for share in SHARES] for _ in range(studies)])
            cells = [f"{chosen[:, 0].mean():.3f}"]
            for place in range(1, len(SHARES)):
                gain = chosen[:, place] - chosen[:, 0]
                cells.append(f"{gain.mean():+.3f} ± {2 * gain.std() / math.sqrt(studies):.3f}")
            yield [name, f"{noise:g}", *cells]


class Numbered:
    """Proposes functions that are called by numbers: the next one each time."""

    def __init__(self) -> None:
        self.proposed = 0

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal:
        del number, pending
        name = str(self.proposed)
        return Proposal(name, name, 0)

    def tell(self, observation: Observation) -> None:
        del observation
        self.proposed += 1


def race(rng: np.random.Generator, merits: Merits, noise: float, share: float) -> float:
    """Return the true merit of the function that a search ranks first, at the cost of 200 trainings."""
    true, values = merits(rng, TRAININGS), dict[str, dict[int, float | None]]()
    numbered = Numbered()
    proposer = ReplicatingProposer(numbered, share, 0) if share else numbered
    for number in range(TRAININGS):
        proposal = proposer.ask(number, ())
        assert isinstance(proposal, Proposal)
        value = float(true[int(proposal.key)] + noise * rng.normal())
        values.setdefault(proposal.key, {})[proposal.seed] = value
        observed = Observation(
            *(number, proposal.expression, None, proposal.key, proposal.seed), TrialState.COMPLETE, value, "", 1.0
        )
        proposer.tell(observed)
    return float(true[int(ranked(Samples(SCORE, values))[0].function)])


def choices(rng: np.random.Generator, merits: Merits, noise: float) -> list[float]:
    """Return the true merits of four choices at the cost of 100 trainings: the best value of 100 functions; and of 80
    functions of which five are trained again, the best single value, the best mean and the best lower bound."""
    true = merits(rng, 100)
    once = true + noise * rng.normal(size=100)
    raw = true[np.argmax(once)]
    values = {str(i): {0: float(once[i])} for i in range(80)}
    for i in np.argsort(once[:80])[-5:]:
        again = true[i] + noise * rng.normal(size=4)
        values[str(i)] |= {seed: float(value) for seed, value in enumerate(again, 1)}
    single = max(values, key=lambda function: max(values[function].values()))
    mean = max(values, key=lambda function: float(np.mean(list(values[function].values()))))
    bound = ranked(Samples(SCORE, values))[0].function
    return [float(raw), *(float(true[int(name)]) for name in (single, mean, bound))]


def table(title: str, head: str, rows: Iterator[list[str]]) -> None:
    """Print rows as they come."""
    started = time.monotonic()
    print(f"\n{title}\n\n| {head} |\n|{'---|' * len(head.split('|'))}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parts = ["null", "half", "equal", "coverage", "power", "ranking"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    arguments = parser.parse_args()
    studies, seed = arguments.studies, arguments.seed
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    head = "noise | 5 seeds | 10 seeds | 20 seeds | until sure | trainings saved | intervals that cover at its end"
    cases = {
        "null": ("No function differs: studies with a false difference", [0.0] * 8, None),
        "half": ("Half of the functions differ: studies with a wrong verdict", HALF, MARGIN),
        "equal": ("Each differs by the margin: studies with a wrong verdict", [MARGIN, -MARGIN] * 4, MARGIN),
    }
    for part in [part for part in cases if part in arguments.only]:
        title, gains, rope = cases[part]
        with unchecked():
            table(title, head, errors(studies, seed, gains, rope))
    if "coverage" in arguments.only:
        head = "noise | t, 5 | t, 10 | both, 10 | t, 20 | both, 20 | plain BCa, 20 | BCa, 20 | t, 40 | both, 40"
        head += " | paired t, 5 | paired t, 10 | paired t, 20"
        table("Intervals that hold the true value, of 95 %", head, coverage(studies, seed))
        title, head = (
            "The same for P(A > B), by the share of wins among decided seeds",
            "seeds | ties | 0.5 | 0.75 | 0.95",
        )
        table(title, head, probability_coverage(studies, seed))
    if "power" in arguments.only:
        table("Power", "question | answer | promised | found", powers(studies, seed))
    if "ranking" in arguments.only:
        head = "true merits | noise | best of 100 | best training | best mean | lower bound | gain | better / worse"
        table("True merit of the choice, at equal cost", head, rankings(studies, seed))
        head = " | ".join(["true merits", "noise", "without", *(f"replicates {share:g}" for share in SHARES[1:])])
        title = "True merit of the first rank after 200 trainings, and the gain by --replicates"
        table(title, head, races(studies, seed))


if __name__ == "__main__":
    main()
