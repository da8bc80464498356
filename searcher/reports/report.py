"""Report results: comparisons, rows of tables, exports. Nothing is written to the store."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

from searcher import SearcherError, UsageError, display
from searcher.display import headline, label, measured, shown
from searcher.records import Study, StudyKind, StudyTask, Trial, TrialState
from searcher.reports.words import parameters
from searcher.store import queries
from searcher.store.store import Store
from workers.tasks.base import IMAGES

Row = Mapping[str, Any]

REASONS = 8  # reasons that are listed where nothing could be trained


class ReportError(SearcherError):
    """A report cannot be written."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The leaderboard's rows of the best function and of ReLU."""

    best: Row
    relu: Row

    def difference(self, metric: str) -> float:
        """Return the best function's mean of a metric minus ReLU's."""
        return float(self.best[metric] - self.relu[metric])

    @property
    def seeds(self) -> int:
        """The smaller of the two numbers of trainings."""
        return int(min(self.best["n_trials"], self.relu["n_trials"]))


def compare_with_relu(board: Sequence[Row]) -> Comparison | None:
    """Return the rows of the best function and of ReLU; None if either is missing."""
    relu = next((row for row in board if row["name"] == "relu"), None)
    return Comparison(board[0], relu) if relu else None


def conclusion(store: Store, study: Study, board: Sequence[Row]) -> str:
    """Describe what a search has found. `board` has the first rows of its leaderboard, and the row of ReLU."""
    if not board and not any(state.finished for state in store.counts(study)):
        return "No trial has ended yet."
    if not board:
        return "\n".join(nothing_trained(store, study))
    lines = [_totals(store, study)]
    found = compare_with_relu(board)
    if found is None:
        return lines[0]
    if found.best is found.relu:
        return f"{lines[0]}\nNothing beat ReLU by {study.objective.name}."
    seeds = "1 seed each: weak evidence" if found.seeds == 1 else f"{found.seeds} seeds or more each"
    by_metric = (f"{metric.name} {_signed(found.difference(metric.name))}" for metric in study.task.shown)
    lines.append(
        f"Best by {study.objective.name}: {_label(found.best)}. Against ReLU: {', '.join(by_metric)} ({seeds})."
    )
    if found.best.get("mirror") == "mirror of relu":
        lines.append("It is the mirror of ReLU, -f(-x): without max pooling in the network the difference is chance.")
    if found.seeds == 1:
        lines.append(
            "The best of many single runs looks better than it is; train it with more seeds before you trust it."
        )
    return "\n".join(lines)


def nothing_trained(store: Store, study: Study) -> Iterator[str]:
    """Yield why no trial of a study came to a result: each reason with the number of its trials, and what helps."""
    yield f"No function could be trained to the end: {_totals(store, study)}"
    ended = [trial for trial in store.trials(study) if trial.state.finished]
    found = Counter((str(trial.state), headline(trial.reason)) for trial in ended)
    first = {(str(trial.state), headline(trial.reason)): trial.number for trial in reversed(ended)}
    typed, task = store.typed(study.name), study.task.config.task
    for (state, reason), trials in found.most_common(REASONS):
        yield f"{trials:6} {state}: {reason} (searcher trial {typed} {first[state, reason]})"
    if len(found) > REASONS:
        yield f"       and {len(found) - REASONS} more reasons: searcher export {typed} trials.csv"
    states = {trial.state for trial in ended}
    if TrialState.FAILED in states:
        check = "" if task == IMAGES else f"To find the error in your task: searcher task check {shlex.quote(task)}. "
        yield f"FAILED: the machine or your own code ended these trials. {check}After a repair: searcher retry {typed}"
    if TrialState.INFEASIBLE in states:
        smaller = "for example --learning-rate 0.01" if task == IMAGES else "for example a smaller learning rate"
        yield (
            "INFEASIBLE: these functions cannot be trained with these settings. Launch another study with other ones, "
            f"{smaller} where trainings diverge."
        )
    if TrialState.PRUNED in states:
        yield "PRUNED: these trainings were stopped early. To train all to the end, launch with --pruner none."


def _label(row: Row) -> str:
    return str(row.get("label") or label(row["name"], row["expression"]))


def _signed(difference: float) -> str:
    text = measured(difference)
    return text if text.startswith("-") else f"+{text}"


def _totals(store: Store, study: Study) -> str:
    """Describe how many trials ended in which way."""
    found = queries.totals(store, study)
    of = "" if found.finished == study.n_trials else f" of {study.n_trials}"
    early = f"{found.pruned} stopped early, " if found.pruned else ""
    early += f"{found.mirrors} mirrors left untrained, " if found.mirrors else ""
    return (
        f"{found.finished}{of} trials: {found.candidates} candidates and {found.baselines} baselines trained, {early}"
        f"{found.cited} answered from the store, {found.infeasible} infeasible ({found.refused} of them refused "
        f"untrained), {found.failed} failed."
    )


def study_rows(store: Store) -> list[dict[str, Any]]:
    """Return a row for each study: settings, progress, and who drives it."""
    return [
        {
            "study": summary.study.name,
            "kind": str(summary.study.kind),
            "sampler": summary.study.config.get("sampler") if summary.study.kind is StudyKind.SEARCH else None,
            "task": summary.study.task.config.task,
            "dataset": summary.study.config.get("dataset"),
            "objective": summary.study.objective.name,
            "direction": str(summary.study.objective.direction),
            "done": sum(n for state, n in summary.counts.items() if state.finished),
            "total": summary.study.n_trials,
            "complete": summary.counts.get(TrialState.COMPLETE, 0),
            "pruned": summary.counts.get(TrialState.PRUNED, 0),
            "infeasible": summary.counts.get(TrialState.INFEASIBLE, 0),
            "failed": summary.counts.get(TrialState.FAILED, 0),
            "created": f"{summary.study.created_at:%Y-%m-%d %H:%M}",
            "driver": summary.holder,
        }
        for summary in store.studies()
    ]


@dataclass(frozen=True, slots=True)
class TrialReport:
    """A trial as plain values.

    Attributes:
        facts: its fields, with the settings of its training.
        curve: its learning curve, a row for each step.
        learned: what its parameters became, a row for each of them at each site of the network.
    """

    facts: dict[str, Any]
    curve: list[dict[str, Any]]
    learned: list[dict[str, Any]]


def trial_report(store: Store, study: Study, number: int) -> TrialReport:
    """Describe a trial. A trial that cites another one has the curve and the learned parameters of that trial.

    Raises:
        UnknownStudy: the study has no trial of that number.
    """
    trial = store.trial(study, number)
    task = study.tasks[trial.task_config]
    facts = {"study": study.name, **_plain(trial, task), "task": task.config.task, **parameters(task.config)}
    curve = [{"step": point.step, **point.metrics} for point in store.curve(study, trial.training)]
    return TrialReport(facts, curve, [asdict(one) for one in store.learned(study, trial.training)])


def trial_rows(store: Store, study: Study) -> list[dict[str, Any]]:
    """Return all trials of a study as plain values, by number."""
    return [_plain(trial, study.tasks[trial.task_config]) for trial in store.trials(study)]


def export(rows: Sequence[Row], path: Path, *, force: bool = False) -> None:
    """Write rows to a `.csv`, `.json` or `.parquet` file.

    Args:
        force: replace the file if it exists.

    Raises:
        UsageError: the file name has another ending.
        ReportError: the file exists or cannot be written, or it is a Parquet file and pyarrow is missing.
    """
    writers = {".csv": _export_text, ".json": _export_text, ".parquet": _export_parquet}
    if path.suffix not in writers:
        raise UsageError(f"cannot export to {path.name!r}; accepted: names that end in {', '.join(writers)}")
    if path.exists() and not force:
        raise ReportError(f"{path} exists; --force replaces it")
    try:
        writers[path.suffix](rows, path)
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror or error}") from error


def as_json(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a JSON array of objects.

    Raises:
        ValueError: a number is not finite, which JSON cannot express.
    """
    yield "["
    before = ""
    for row in rows:
        if before:
            yield f"{before},"
        before = indent(display.as_json(dict(row), indent=2), "  ")
    if before:
        yield before
    yield "]"


def as_csv(rows: Iterable[Row], names: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of a CSV table: a line of names (by default the names in the first row), and a line for each
    row."""
    written = io.StringIO()
    writer = csv.writer(written)  # it quotes texts with characters of its line end, \r\n
    for values in _with_head(rows, names):
        writer.writerow(values)
        yield written.getvalue().removesuffix("\r\n")
        written.seek(0)
        written.truncate()


def _with_head(rows: Iterable[Row], names: Sequence[str]) -> Iterator[list[Any]]:
    if names:
        yield [*names]
    for n, row in enumerate(rows):
        if not (n or names):
            yield [*row]
        yield [*row.values()]


def as_yaml(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a YAML list of mappings."""
    import yaml

    row = None
    for row in rows:
        text = yaml.safe_dump([dict(row)], sort_keys=False, allow_unicode=True)
        if shown(text, lines=True) != text:  # YAML does not escape all hidden characters
            text = yaml.safe_dump([dict(row)], sort_keys=False)
        yield text.rstrip("\n")
    if row is None:
        yield "[]"


def as_markdown(rows: Iterable[Row], names: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of a Markdown table; `names` as in `as_csv`."""
    for n, values in enumerate(_with_head(rows, names)):
        texts = [str("" if value is None else value).replace("|", "\\|") for value in values]
        cells = ["<br>".join(map(shown, text.split("\n"))) for text in texts]
        yield f"| {' | '.join(cells)} |"
        if n == 0:
            yield f"| {' | '.join(['---'] * len(cells))} |"


def _export_text(rows: Sequence[Row], path: Path) -> None:
    lines = as_csv(rows) if path.suffix == ".csv" else as_json(rows)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _export_parquet(rows: Sequence[Row], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ReportError("a .parquet file needs pyarrow: pip install 'activation-searcher[parquet]'") from None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)


def _plain(trial: Trial, task: StudyTask) -> dict[str, Any]:
    """Return the fields of a trial as plain values, with a field for each metric instead of `metrics`."""
    found: dict[str, Any] = {}
    for name, value in asdict(trial).items():
        if name == "metrics":
            found |= {metric.name: trial.metrics.get(metric.name) for metric in task.shown}
        else:
            found[name] = str(value) if name in ("kind", "state") else value
    return found | {"choices": None if trial.choices is None else json.dumps(trial.choices)}
