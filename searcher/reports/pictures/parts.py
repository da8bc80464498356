"""Which primitives, and which pairs of them, the good functions of a search have."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from search_space import Expression
from searcher.records import Kind, Study, Trial, TrialState
from searcher.reports.pictures import style
from searcher.reports.pictures.base import Data, NothingToDraw, finished_trials, tree_of
from searcher.store.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 5  # functions with a part, and without it, for an interval
SHOWN = 14  # rows of each panel
LEVEL = 0.95
LEAVES = ("x", "number", "eps")  # every function has one of them
SIGNS = {"+": "a + b", "-": "a - b", "*": "a * b", "/": "a / b", "^": "a^b", "neg": "-a"}


def parts_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the difference of the mean rank between functions with and without each part.

    Ranks are shares: 1 is the best function, 0 the worst. Functions that could not be trained are worst, and those that
    a pruner stopped come before them. Each function counts once.
    """
    functions = _functions(finished_trials(store, study))
    trees = {text: tree for text in functions if (tree := tree_of(text))}
    if len(trees) < 2 * LEAST:
        raise NothingToDraw(
            f"study {study.name!r} has judged {len(trees)} candidates; effects of primitives need {2 * LEAST} or more"
        )
    ranks = _ranks([functions[text] for text in trees])
    owned = [_primitives(tree) for tree in trees.values()]
    singles: dict[str, list[bool]] = {name: [name in own for own in owned] for name in sorted(set().union(*owned))}
    pairs: dict[str, list[bool]] = {
        f"{one} and {other}": [one in own and other in own for own in owned]
        for one, other in combinations(sorted(set().union(*owned)), 2)
    }
    found = {"primitives": _effects(singles, ranks), "pairs": _effects(pairs, ranks)}
    if not any(found.values()):
        raise NothingToDraw(
            f"no primitive of study {study.name!r} is in {LEAST} functions and missing in {LEAST} others"
        )
    return {"functions": len(trees), "level": LEVEL, "least": LEAST, **found}


def _functions(trials: Sequence[Trial]) -> dict[str, tuple[int, float]]:
    """Return how good each candidate was, by its expression: greater is better."""
    found: dict[str, tuple[int, float]] = {}
    for trial in trials:
        if trial.kind is Kind.CANDIDATE and trial.cites is None and not trial.left_untrained:
            if trial.state is TrialState.COMPLETE and trial.merit is not None:
                found[trial.expression] = (2, trial.merit)
            elif trial.state is TrialState.PRUNED:
                found[trial.expression] = (1, 0.0)
            elif trial.state is TrialState.INFEASIBLE:
                found[trial.expression] = (0, 0.0)
    return found


def _ranks(goodness: Sequence[tuple[int, float]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return ranks from 0 (worst) to 1 (best); equal ones share theirs."""
    from scipy import stats

    order = {value: place for place, value in enumerate(sorted(set(goodness)))}
    ranks = stats.rankdata([order[value] for value in goodness])
    return np.asarray((ranks - 1) / (len(ranks) - 1), dtype=np.float64)


def _primitives(tree: Expression) -> frozenset[str]:
    names = tree.fold(lambda node, args: frozenset({node.op}).union(*args))
    return frozenset(SIGNS.get(name, name) for name in names - set(LEAVES))


def _effects(
    owners: Mapping[str, Sequence[bool]], ranks: np.ndarray[Any, np.dtype[np.float64]]
) -> list[dict[str, Any]]:
    """Return effects with Welch's intervals, best first."""
    from scipy import stats

    rows: list[dict[str, Any]] = []
    for name, owned in owners.items():
        mask = np.array(owned)
        own, others = ranks[mask], ranks[~mask]
        if min(len(own), len(others)) < LEAST or np.ptp(own) == np.ptp(others) == 0:
            continue
        with warnings.catch_warnings():  # about one side whose ranks are all equal: Welch's interval holds all the same
            warnings.simplefilter("ignore", RuntimeWarning)
            interval = stats.ttest_ind(own, others, equal_var=False).confidence_interval(LEVEL)
        rows.append(
            {
                "part": name,
                "with": len(own),
                "without": len(others),
                "effect": float(own.mean() - others.mean()),
                "low": float(interval.low),
                "high": float(interval.high),
            }
        )
    return sorted(rows, key=lambda row: -row["effect"])


def draw_parts(data: Data) -> Figure:
    """Draw the effects of primitives and of pairs, ordered, with their intervals."""
    shown = {name: _clearest(data[name]) for name in ("primitives", "pairs") if data[name]}
    most = max(map(len, shown.values()))
    picture, panels = style.new(style.PAGE, 1.0 + style.ROW * most, 1, len(shown), squeeze=False)
    for axes, (name, rows) in zip(panels, shown.items(), strict=True):
        _forest(axes, rows, most)
        more = len(data[name]) - len(rows)
        axes.set_title(name + (f" ({len(rows)} clearest of {len(data[name])})" if more else ""))
    picture.supxlabel(
        f"difference of the mean rank (0: worst, 1: best of {data['functions']} functions) between functions with and "
        f"without it;\nin brackets: functions with it; {100 * data['level']:g} % intervals, not corrected for their "
        "number; filled: 0 is outside.\nThis is a correlation: primitives come together, and samplers choose them.",
        fontsize=7,
    )
    return picture


def _clearest(rows: Sequence[Data]) -> list[Data]:
    """Return the rows whose intervals are farthest from 0 for their width, in their order."""
    kept = sorted(rows, key=lambda row: -abs(row["effect"]) / max(row["high"] - row["low"], 1e-9))[:SHOWN]
    return [row for row in rows if row in kept]


def _forest(axes: Axes, rows: Sequence[Data], height: int) -> None:
    style.zero_lines(axes, x=True)
    for place, row in enumerate(rows):
        sure = row["low"] > 0 or row["high"] < 0
        colour = style.BLUE if row["effect"] > 0 else style.RED
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.2)
        axes.plot(
            row["effect"],
            place,
            marker="o" if row["effect"] > 0 else "s",
            markersize=4,
            color=colour,
            markerfacecolor=colour if sure else "white",
        )
    axes.set_yticks(range(len(rows)), [style.plain(f"{row['part']}  ({row['with']})") for row in rows])
    axes.set_ylim(height - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
