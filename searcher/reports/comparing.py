"""Put two functions, or two studies, side by side."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from searcher.driver.keys import is_current
from searcher.evidence import Evidence, EvidenceError, Samples, across, compare, remarks, sentence
from searcher.records import Study, StudyTask, TrialState
from searcher.reports.confirmed import Confirmed, is_confirmation
from searcher.reports.finding import Function, Training, function_of, key_of, trainings
from searcher.reports.report import Row
from searcher.reports.words import counted, label_of, task_settings, task_words
from searcher.store.store import Store
from workers.contract import Metric

SHOWN = 10  # functions or studies that a message names
SAME = "the same function"


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Two functions, or one function in two studies, judged in the same way.

    Attributes:
        samples: the values of both, by seed.
        studies: the studies that the values are from.
        evidence: the comparison of the first with the second.
        left_out: trainings that have no value to compare, in words.
    """

    samples: Samples
    studies: tuple[str, ...]
    evidence: Evidence
    left_out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, str]:
        """The labels of both."""
        (found,) = self.evidence.comparisons
        return found.function, found.reference

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict, and what else must be known."""
        (found,) = self.evidence.comparisons
        return sentence(found, self.evidence), *remarks(found, self.evidence), *self.left_out

    def seed_rows(self) -> list[dict[str, Any]]:
        """Return the values of each seed. A difference is positive where the first is better."""
        one, other = (self.samples.values[name] for name in self.names)
        merit = self.samples.metric.merit
        rows = []
        for seed in sorted({*one, *other}):
            a, b = one.get(seed), other.get(seed)
            rows.append(
                {
                    "seed": seed,
                    "values": (a, b),
                    "ended": tuple(_ended(values, seed) for values in (one, other)),
                    "difference": None if a is None or b is None else merit(a) - merit(b),
                }
            )
        return rows

    def facts(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        (found,) = self.evidence.comparisons
        a, b = self.names
        means = {summary.function: summary for summary in self.evidence.summaries}
        interval = found.interval
        return {
            "a": a,
            "b": b,
            "judged_by": self.samples.configuration,
            "studies": ", ".join(self.studies),
            "metric": self.samples.metric.name,
            "direction": str(self.samples.metric.direction),
            "unit": self.samples.metric.unit,
            **{f"seeds_{side}": means[name].n + means[name].diverged for side, name in (("a", a), ("b", b))},
            **{f"mean_{side}": means[name].mean for side, name in (("a", a), ("b", b))},
            "common_seeds": found.n,
            "difference": found.difference,
            "low": interval and interval.low,
            "high": interval and interval.high,
            "test": found.test,
            "p": found.p,
            "p_permutation": found.p_permutation,
            "p_holm": found.p_holm,
            "verdict": str(found.verdict),
            "seeds_needed": found.seeds_needed,
            "sentence": self.sentences[0],
        }

    def to_plain(self) -> dict[str, Any]:
        """Return the comparison as plain values, with the values of each seed and all sentences."""
        a, b = self.names
        return {
            **self.facts(),
            "remarks": list(self.sentences[1:]),
            "comparison": asdict(self.evidence.comparisons[0]),
            "seeds": [
                {"seed": row["seed"], a: row["values"][0], b: row["values"][1], "difference": row["difference"]}
                for row in self.seed_rows()
            ],
        }


def _ended(values: Mapping[int, float | None], seed: int) -> str:
    """Return how the training of a seed ended."""
    if seed not in values:
        return "not trained"
    return "diverged" if values[seed] is None else "finished"


def functions(store: Store, a: str, b: str, *, study: Study | None = None, metric: str = "") -> tuple[SideBySide, ...]:
    """Compare two functions under each task configuration that judged both.

    Args:
        a, b: formulas or known names.
        study: where to look; None means the whole store.
        metric: the name of the metric to compare by; empty: the objective of the task configuration.

    Raises:
        ParseError: a text is no function.
        EvidenceError: a function was not trained there, or nothing judged both.
    """
    one, other = function_of(a), function_of(b)
    if one.key == other.key:
        raise EvidenceError(f"{a.strip()} and {b.strip()} are {SAME}: {one.expression}")
    where = f"in study {study.name!r}" if study else f"in any study of {store.shown_url}"
    if study and not metric and is_confirmation(study):
        found = _confirmed(Confirmed.of(store, study), (one, other), where)
    else:
        known = trainings(store, (one.key, other.key), [study] if study else None)
        for function in (one, other):
            _check_trained(store, study, function, [t for t in known if t.trial.key == function.key], where)
        found = _by_measure(known, (one, other), metric)
    if not found:
        raise EvidenceError(
            f"{one.label} and {other.label} were never judged by the same task configuration, data and metric {where}; "
            f"see: searcher find {shlex.quote(one.label)}"
        )
    evidence = across([samples for samples, _, _ in found], other.label).evidence
    return tuple(
        SideBySide(samples, studies, verdict, left_out)
        for (samples, studies, left_out), verdict in zip(found, evidence, strict=True)
    )


Found = list[tuple[Samples, tuple[str, ...], tuple[str, ...]]]


def _confirmed(found: Confirmed, pair: tuple[Function, Function], where: str) -> Found:
    """Return the values of a confirmation: with the chosen learning rates, if those were tuned."""
    labels = found.plan.labels
    for function in pair:
        if function.key not in labels:
            raise EvidenceError(f"{function.label} was not trained {where}; it has: {_some(labels.values())}")
    own = {labels[function.key]: function.label for function in pair}
    samples = [
        Samples(one.metric, {own[name]: one.values[name] for name in own}, one.configuration) for one in found.samples
    ]
    return [(one, (found.study.name,), ()) for one in samples if all(one.values.values())]


def _check_trained(
    store: Store, study: Study | None, function: Function, known: Sequence[Training], where: str
) -> None:
    """Raise an error that says how the function's trainings ended if none of them has been judged."""
    if any(_is_judged(training) for training in known):
        return
    if known:
        states = Counter(str(training.trial.state) for training in known)
        ended = ", ".join(f"{n} {state}" for state, n in states.items())
        raise EvidenceError(f"no training of {function.label} {where} has a result to compare: {ended}")
    there = ""
    if study:
        board = [label_of(row) for row in store.leaderboard(study, SHOWN + 1)]
        there = f"; it has: {_some(board)}" if board else "; no function was trained to the end in it"
    raise EvidenceError(f"{function.label} was not trained {where}{there}")


def _is_judged(training: Training) -> bool:
    """Return True if a training has a result of its own: a citation repeats that of another trial."""
    return training.trial.cites is None and training.trial.state in (TrialState.COMPLETE, TrialState.INFEASIBLE)


def samples_of(
    found: Iterable[Training], metric: Metric, labels: Mapping[str, str], configuration: str = ""
) -> Samples:
    """Return the values of trainings by the labels of functions and by seeds. The first training of a seed counts.

    Args:
        labels: of the functions, by key. Trainings of other functions are left out.
    """
    values: dict[str, dict[int, float | None]] = {label: {} for label in labels.values()}
    for training in found:
        trial = training.trial
        if not _is_judged(training) or trial.key not in labels:
            continue
        if trial.state is TrialState.INFEASIBLE:
            values[labels[trial.key]].setdefault(trial.seed, None)
        elif metric.name in trial.metrics:
            values[labels[trial.key]].setdefault(trial.seed, trial.metrics[metric.name])
    return Samples(metric, values, configuration)


Measure = tuple[str, str, str, str]


def measure_of(task: StudyTask, metric: Metric | None = None) -> Measure:
    """Return what must be equal for two values to be comparable: the task configuration, the data, the metric and its
    direction."""
    metric = metric or task.objective
    return task.config.hash, task.data_digest, metric.name, str(metric.direction)


def _by_measure(known: Sequence[Training], pair: tuple[Function, Function], metric: str) -> Found:
    """Return the values of both functions by what judged them, where both have some."""
    groups: defaultdict[Measure, list[Training]] = defaultdict(list)
    metrics: dict[Measure, Metric] = {}
    for training in known:
        chosen = training.task.declared.metric(metric) if metric else training.task.objective
        if chosen:
            measure = measure_of(training.task, chosen)
            metrics[measure] = chosen
            groups[measure].append(training)
    if metric and not metrics:
        measured = sorted({one.name for training in known for one in training.task.declared.metrics})
        raise EvidenceError(f"nothing measured {metric!r}; accepted: {', '.join(measured)}")
    found, labels = [], {function.key: function.label for function in pair}
    names: Counter[str] = Counter()
    for measure, group in groups.items():
        words = task_words(group[0].task.config)
        names[words] += 1
        words += f" ({names[words]})" if names[words] > 1 else ""  # other data, or another metric
        samples = samples_of(group, metrics[measure], labels, words)
        if all(samples.values.values()):
            ordered = Samples(samples.metric, {label: samples.values[label] for label in labels.values()}, words)
            found.append((ordered, tuple(dict.fromkeys(t.study.name for t in group)), tuple(_left_out(group, labels))))
    return found


def _left_out(group: Sequence[Training], labels: Mapping[str, str]) -> Iterable[str]:
    for state, why in ((TrialState.PRUNED, "stopped early"), (TrialState.FAILED, "failed on a machine")):
        counts = Counter(t.trial.key for t in group if t.trial.state is state and t.trial.cites is None)
        for function, n in counts.items():
            yield f"{counted(n, 'training')} of {labels[function]} {'was' if n == 1 else 'were'} {why} and left out."


# Studies --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shared:
    """A function that both studies trained: the mean of each study's own metric over its seeds.

    Attributes:
        difference: of the means, positive where the first study's is better; None if they measured different things.
        common: seeds that both trained it with, to the end.
    """

    function: str
    expression: str
    seeds: tuple[int, int]
    means: tuple[float, float]
    difference: float | None
    common: int


@dataclass(frozen=True, slots=True)
class Studies:
    """Two studies side by side, under one task configuration of each.

    Attributes:
        differences: what they measured differently: name, the first study's, the other's. Empty: they are comparable.
        leaders: the best function of each; None if it has none.
        shared: functions that both trained to the end, in the first study's order.
        best: their best functions compared; None if they are not comparable, or a study has no best one.
        agreement: Spearman's rank correlation of the shared functions' means; None below three.
    """

    names: tuple[str, str]
    judged_by: tuple[str, str]
    metrics: tuple[Metric, Metric]
    differences: tuple[tuple[str, Any, Any], ...]
    leaders: tuple[Row | None, Row | None]
    shared: tuple[Shared, ...]
    best: SideBySide | None
    agreement: float | None

    @property
    def sentences(self) -> tuple[str, ...]:
        """What can be concluded, and what cannot."""
        found = []
        for name, leader, metric in zip(self.names, self.leaders, self.metrics, strict=True):
            if leader is None:
                found.append(f"{name} has no function that was trained to the end.")
            else:
                value = f"{metric.name} {leader[metric.name]:.4g} over {counted(leader['n_trials'], 'seed')}"
                found.append(f"Best in {name}: {label_of(leader)} ({value}).")
        if self.differences:
            found.append(
                f"They measured different things ({', '.join(name for name, _, _ in self.differences)}), so their "
                "values are not compared, and nothing is tested."
            )
        elif self.best is None and all(self.leaders):
            found.append("Both have the same best function.")
        if self.best:
            found += self.best.sentences
        if not self.shared:
            found.append("No function was trained to the end in both.")
        if self.agreement is not None:
            ranked = f"{len(self.shared)} functions that both trained"
            found.append(f"Spearman's rank correlation of the {ranked}: {self.agreement:.2f}.")
        return tuple(found)

    def to_plain(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "judged_by_a": self.judged_by[0],
            "judged_by_b": self.judged_by[1],
            "metric_a": self.metrics[0].name,
            "metric_b": self.metrics[1].name,
            "comparable": not self.differences,
            "sentences": list(self.sentences),
            "differences": [{"what": what, "a": a, "b": b} for what, a, b in self.differences],
            "best": self.best.to_plain() if self.best else None,
            "agreement": self.agreement,
            "functions": self.shared_rows(),
        }

    def shared_rows(self) -> list[dict[str, Any]]:
        """Return the functions that both trained as rows."""
        return [
            {
                "function": one.function,
                "expression": one.expression,
                "seeds_a": one.seeds[0],
                "seeds_b": one.seeds[1],
                "mean_a": one.means[0],
                "mean_b": one.means[1],
                "difference": one.difference,
                "common_seeds": one.common,
            }
            for one in self.shared
        ]


def studies(store: Store, one: Study, other: Study) -> tuple[Studies, ...]:
    """Compare two studies under each task configuration that both have; if there is none, under the first of each.

    Raises:
        EvidenceError: it is one study twice.
    """
    if one.id == other.id:
        raise EvidenceError(f"{one.name!r} is one study; name two")
    theirs = {measure_of(task): task for task in reversed(other.tasks)}
    pairs = [(task, theirs[measure_of(task)]) for task in one.tasks if measure_of(task) in theirs]
    distinct = {measure_of(task): (task, match) for task, match in reversed(pairs)}
    found = list(reversed(distinct.values())) or [(one.task, other.task)]
    return tuple(_side_by_side(store, (one, other), pair) for pair in found)


def _side_by_side(store: Store, pair: tuple[Study, Study], tasks: tuple[StudyTask, StudyTask]) -> Studies:
    differences = differing(*tasks)
    boards = [store.leaderboard(study, task_config=task.number) for study, task in zip(pair, tasks, strict=True)]
    metrics = (tasks[0].objective, tasks[1].objective)
    leaders = (boards[0][0] if boards[0] else None, boards[1][0] if boards[1] else None)
    shared = _shared(store, pair, tasks, boards, comparable=not differences)
    return Studies(
        names=(pair[0].name, pair[1].name),
        judged_by=(task_words(tasks[0].config), task_words(tasks[1].config)),
        metrics=metrics,
        differences=differences,
        leaders=leaders,
        shared=shared,
        best=None if differences else _best(store, pair, tasks, leaders),
        agreement=_agreement(shared, metrics),
    )


def differing(one: StudyTask, other: StudyTask) -> tuple[tuple[str, Any, Any], ...]:
    """Return what two task configurations measure differently, each with both values."""
    found = [
        {"task": task.config.task, **task_settings(task.config)}
        | {"data digest": task.data_digest or "not known"}
        | {"metric": f"{task.objective.name} ({task.objective.direction})"}
        for task in (one, other)
    ]
    names = dict.fromkeys([*found[0], *found[1]])
    return tuple(
        (name, found[0].get(name), found[1].get(name)) for name in names if found[0].get(name) != found[1].get(name)
    )


def _shared(
    store: Store,
    pair: tuple[Study, Study],
    tasks: tuple[StudyTask, StudyTask],
    boards: Sequence[Sequence[Row]],
    *,
    comparable: bool,
) -> tuple[Shared, ...]:
    ours, theirs = ({_key(study, row): row for row in board} for study, board in zip(pair, boards, strict=True))
    keys = [key for key in ours if key in theirs]
    seeds = [_seeds(store, study, task, keys) for study, task in zip(pair, tasks, strict=True)]
    names = tuple(task.objective.name for task in tasks)
    found = []
    for key in keys:
        row, match = ours[key], theirs[key]
        means = (float(row[names[0]]), float(match[names[1]]))
        merits = [task.objective.merit(mean) for task, mean in zip(tasks, means, strict=True)]
        found.append(
            Shared(
                function=label_of(row),
                expression=row["expression"],
                seeds=(row["n_trials"], match["n_trials"]),
                means=means,
                difference=merits[0] - merits[1] if comparable else None,
                common=len(seeds[0].get(key, set()) & seeds[1].get(key, set())),
            )
        )
    return tuple(found)


def _key(study: Study, row: Row) -> str:
    """Return the key of a leaderboard's function by today's rules."""
    return str(row["key"]) if is_current(study) else key_of(row["expression"], row["key"])


def _seeds(store: Store, study: Study, task: StudyTask, keys: Sequence[str]) -> dict[str, set[int]]:
    """Return the seeds with which functions were trained to the end."""
    found: dict[str, set[int]] = {}
    for training in trainings(store, set(keys), [study]):
        trial = training.trial
        if trial.task_config == task.number and trial.state is TrialState.COMPLETE and trial.cites is None:
            found.setdefault(trial.key, set()).add(trial.seed)
    return found


def _best(
    store: Store, pair: tuple[Study, Study], tasks: tuple[StudyTask, StudyTask], leaders: tuple[Row | None, Row | None]
) -> SideBySide | None:
    """Compare the best functions of two comparable studies; None if they are one function, or there is none."""
    one, other = leaders
    if one is None or other is None or _key(pair[0], one) == _key(pair[1], other):
        return None
    values: dict[str, Mapping[int, float | None]] = {}
    for study, task, row in zip(pair, tasks, (one, other), strict=True):
        key, label = _key(study, row), f"{label_of(row)} of {study.name}"
        known = [t for t in trainings(store, {key}, [study]) if t.trial.task_config == task.number]
        values[label] = samples_of(known, task.objective, {key: label}).values[label]
    samples = Samples(tasks[0].objective, values, task_words(tasks[0].config))
    return SideBySide(samples, (pair[0].name, pair[1].name), compare(samples, list(values)[1]))


def _agreement(shared: Sequence[Shared], metrics: tuple[Metric, Metric]) -> float | None:
    from scipy import stats

    merits = [[metric.merit(one.means[side]) for one in shared] for side, metric in enumerate(metrics)]
    if len(shared) < 3 or any(len(set(side)) < 2 for side in merits):
        return None
    return float(stats.spearmanr(*merits).statistic)


def _some(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more
