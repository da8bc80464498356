"""Draw a study: the pictures of a search and of a confirmation, and the data that each of them shows.

`available` lists the kinds that a study may have, `data` reads what a kind shows as plain values, `figure` draws these
data alone, `svg` and `save` write the figure. Drawing needs the extra `plot` (matplotlib); the data do not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_space import nearest
from searcher import SearcherError, UsageError
from searcher.display import shown
from searcher.records import Study
from searcher.reports.pictures import confirmed, functions, learned, parts, progress, style, tradeoffs, trials
from searcher.reports.pictures.base import CONFIRMATION, SEARCH, Data, NothingToDraw, Picture, kind_of
from searcher.reports.plot import drawing_possible
from searcher.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ENDINGS", "KINDS", "NothingToDraw", "available", "check", "check_kind", "data", "figure", "save", "svg"]

ENDINGS = (".png", ".svg", ".pdf")
_SEARCHES, _CONFIRMATIONS = frozenset({SEARCH}), frozenset({CONFIRMATION})
_BOTH = _SEARCHES | _CONFIRMATIONS

KINDS: Mapping[str, Picture] = {
    "progress": Picture(
        "the best value so far, against trials and time", _SEARCHES, progress.progress_data, progress.draw_progress
    ),
    "trials": Picture(
        "how many candidates reached which value, with the baselines", _SEARCHES, trials.trials_data, trials.draw_trials
    ),
    "cost": Picture(
        "value against measured time and memory, with the Pareto front",
        _BOTH,
        tradeoffs.cost_data,
        tradeoffs.draw_cost,
    ),
    "size": Picture(
        "value against the number of nodes, with the Pareto front", _BOTH, tradeoffs.size_data, tradeoffs.draw_size
    ),
    "parts": Picture(
        "primitives and pairs that good functions have, with intervals", _SEARCHES, parts.parts_data, parts.draw_parts
    ),
    "reasons": Picture("why functions could not be trained", _SEARCHES, trials.reasons_data, trials.draw_reasons),
    "differences": Picture(
        "difference of each function to the reference, with intervals",
        _CONFIRMATIONS,
        confirmed.differences_data,
        confirmed.draw_differences,
    ),
    "confirmed": Picture(
        "gain in the search against confirmed gain (the winner's curse)",
        _CONFIRMATIONS,
        confirmed.confirmed_data,
        confirmed.draw_confirmed,
        confirmed.was_searched,
    ),
    "map": Picture(
        "differences and verdicts, functions by configurations",
        _CONFIRMATIONS,
        confirmed.map_data,
        confirmed.draw_map,
        confirmed.has_map,
    ),
    "ranks": Picture(
        "mean ranks over ten configurations or more, with the critical difference",
        _CONFIRMATIONS,
        confirmed.ranks_data,
        confirmed.draw_ranks,
        confirmed.has_ranks,
    ),
    "functions": Picture(
        "the leading functions and their slopes", _BOTH, functions.functions_data, functions.draw_functions
    ),
    "learned": Picture(
        "the leading functions with parameters as trainings have learned them, site by site",
        _BOTH,
        learned.learned_data,
        learned.draw_learned,
    ),
    "curves": Picture(
        "learning curves of the leaders and of baselines", _BOTH, progress.curves_data, progress.draw_curves
    ),
}


def available(study: Study) -> list[str]:
    """Return the kinds of pictures that a study may have. Whether it has something to draw, `data` says."""
    return [name for name, kind in KINDS.items() if kind_of(study) in kind.of and kind.fits(study)]


def check_kind(kind: str, study: Study) -> None:
    """Raise UsageError if there is no such kind, or this study cannot have it."""
    if kind_of(study) not in _known(kind).of:
        raise UsageError(
            f"study {study.name!r} is a {kind_of(study)} and has no picture {kind!r}; accepted: "
            f"{', '.join(available(study))}"
        )


def data(kind: str, store: Store, study: Study) -> dict[str, Any]:
    """Return what a picture shows, as plain values: texts, numbers, None, lists and mappings.

    Raises:
        UsageError: there is no such kind, or this study cannot have it.
        NothingToDraw: the study has nothing to show yet.
    """
    picture = _known(kind)
    check_kind(kind, study)
    return {"picture": kind, "title": picture.title, "study": study.name, **picture.data(store, study)}


def figure(kind: str, data: Data) -> Figure:
    """Draw the data of a kind. The figure has no title, because papers and pages have captions.

    Raises:
        UsageError: there is no such kind.
        SearcherError: matplotlib is missing.
    """
    drawing_possible()
    with style.applied():
        picture = _known(kind).draw(data)
    picture.set_label(f"{data['study']}: {data['title']}")
    return picture


def svg(figure: Figure) -> str:
    """Return a figure as an `<svg>` element that can stand in a page beside others.

    It refers to nothing outside, and its ids begin with a digest of the picture. The same figure gives the same text.
    """
    import io
    from html import escape

    file = io.StringIO()
    with style.applied():
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = f"p{hashlib.sha256(text.encode()).hexdigest()[:8]}-"
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{prefix}", text)
    text = text.replace("*{stroke", f"#{prefix}all *{{stroke")  # a rule for this picture, not for the page
    title = escape(shown(str(figure.get_label())))
    return text.replace(">", f' id="{prefix}all" role="img">\n <title>{title}</title>', 1)


def check(path: Path) -> None:
    """Check that a picture can be saved under this name.

    Raises:
        UsageError: the name has another ending.
        SearcherError: matplotlib is missing.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(
            f"cannot draw {path.name!r}; accepted: names that end in {', '.join(ENDINGS)}, or in .json for the data"
        )
    drawing_possible()


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file. The same figure gives the same file.

    Raises:
        UsageError, SearcherError: as in `check`, or the file cannot be written.
    """
    check(path)
    ending = path.suffix.lower()
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(ending)
    try:
        with style.applied():
            figure.savefig(path, metadata=metadata)
    except OSError as error:
        raise SearcherError(f"cannot write {path}: {error.strerror or error}") from error


def _known(kind: str) -> Picture:
    """Return a row of the table.

    Raises:
        UsageError: there is none of that name.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no picture {kind!r}; {nearest(kind, KINDS)}")
    return KINDS[kind]
