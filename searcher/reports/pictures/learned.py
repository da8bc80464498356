"""Functions as trainings have learned them: a line for each site of the network, from the first to the last."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from searcher.display import cut
from searcher.records import Study
from searcher.reports.function import REACH, sampled
from searcher.reports.learned import LearnedFunction
from searcher.reports.pictures import style
from searcher.reports.pictures.base import Data, NothingToDraw, label, leading, tree_of
from searcher.reports.pictures.functions import POINTS, plain_curve
from searcher.reports.plot import FARTHEST, limits
from searcher.store import queries
from searcher.store.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 6  # functions
BAND_SITES = 12  # with more sites, bands would cover everything


def learned_data(store: Store, study: Study) -> dict[str, Any]:
    """Return the curves of the leading functions that have parameters, each as its first training has learned it."""
    _, configuration, found = leading(store, study, SHOWN)
    functions = [one for row in found if (one := _learned(store, study, row))]
    if not functions:
        raise NothingToDraw(f"no leading function of study {study.name!r} has learned parameters")
    return {"configuration": configuration, **data_of(functions[:SHOWN])}


def _learned(store: Store, study: Study, row: Data) -> tuple[str, LearnedFunction] | None:
    """Return the label of a ranked function, and what its first training has learned; None if that is nothing."""
    tree = tree_of(row["expression"])
    if tree is None or not tree.betas:
        return None
    number = queries.first_learned(store, study, row["expression"])
    return None if number is None else (label(row), LearnedFunction.of(store, study, number))


def data_of(functions: list[tuple[str, LearnedFunction]]) -> dict[str, Any]:
    """Return the curves of functions with labels: at the start of the training, and at each site after it."""
    x = np.linspace(-REACH, REACH, POINTS)
    rows = []
    for name, learned in functions:
        sites = []
        for site in learned.sites:
            middle, low, high = map(plain_curve, learned.curve(site, x))
            sites.append({"site": site, "median": middle, "low": low, "high": high})
        start = plain_curve(sampled(learned.expression, x)[0])
        rows.append(
            {"label": name, "expression": str(learned.expression), "trial": learned.where, "f": start, "sites": sites}
        )
    return {"x": x.tolist(), "functions": rows}


def save(learned: LearnedFunction, path: Path) -> None:
    """Draw one function as learned into a .png or .svg file.

    Raises:
        UsageError, SearcherError: as in `searcher.reports.plot.check`, or the file cannot be written.
    """
    from searcher.reports import plot

    plot.check(path)
    with style.applied():
        picture = draw_learned(data_of([(str(learned.expression), learned)]))
        plot.write(picture, path, learned.where)


def draw_learned(data: Data) -> Figure:
    """Draw a panel for each function: f at the start, and f as learned at each site."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    functions = data["functions"]
    picture, panels = style.grid(len(functions), 2.2, 0.6)
    for axes, row in zip(panels, functions, strict=True):
        _draw(axes, data["x"], row)
    handles, names = panels[0].get_legend_handles_labels()
    picture.legend(handles, names, loc="outside lower center", ncols=2)
    scale = ScalarMappable(Normalize(0, 1), _colours())
    bar = picture.colorbar(scale, ax=panels, ticks=[0, 1], aspect=30)
    bar.ax.set_yticklabels(["first\nsite", "last\nsite"])
    return picture


def _colours() -> Any:
    """Return colours from light to dark, which a grey printer and the colour-blind can order."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, 256)))


def _draw(axes: Axes, x: list[float], row: Data) -> None:
    style.zero_lines(axes, x=True, y=True)
    colours, sites = _colours(), row["sites"]
    drawn = [np.array(row["f"], dtype=float)]
    for place, site in enumerate(sites):
        colour = colours(place / max(1, len(sites) - 1))
        middle, low, high = (np.array(site[name], dtype=float) for name in ("median", "low", "high"))
        if len(sites) <= BAND_SITES:
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, middle, color=colour, linewidth=1.2, label="after training, median and quartiles" * (not place))
        drawn.append(middle)
    axes.plot(x, drawn[0], color=style.BLACK, linestyle="--", linewidth=1.1, label="at the start")
    axes.set_xlim(-REACH, REACH)
    axes.set_ylim(*limits(drawn, FARTHEST[0]))
    axes.set_title(style.plain(fill(cut(row["label"], 64), 34)), fontsize=7.5)
