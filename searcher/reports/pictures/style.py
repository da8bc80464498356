"""The look of all pictures: sizes for the columns of a paper, colours and marks that the colour-blind and a grey
printer can tell apart, words for axes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from searcher.display import cut, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Data = Mapping[str, Any]

COLUMN, PAGE = 3.3, 7.0  # inches: the width of a column and of a page of a paper
LABEL = 34  # characters of a function in a list below a picture
COLUMNS = 3  # panels in a row
ROW = 0.17  # inches for a line of text
MOST_POINTS = 2_000  # that stay vectors in a drawing; more are drawn as pixels

# Okabe and Ito 2008, without the colours that are too light for lines on white
BLACK, BLUE, RED, GREEN, PURPLE, ORANGE, SKY = (
    *("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
)
GREY, LIGHT, PALE = "#707070", "#b8b8b8", "#e6e6e6"
DASHES: Sequence[Any] = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (3, 1)), (0, (8, 2)))
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, BLACK, SKY)
MARKS = ("o", "s", "^", "D", "v", "P", "X")

STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a picture looks the same everywhere
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "hatch.linewidth": 0.5,
    "savefig.dpi": 300,
    "svg.fonttype": "path",  # needs no font where it is shown
    "svg.hashsalt": "searcher",  # the same picture is the same file
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
}


@contextmanager
def applied() -> Iterator[None]:
    """Draw and write in this style within the block."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context(dict(STYLE)):  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
        yield


def new(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row. It does not use pyplot's global state.

    Args:
        width, height: in inches.
        options: as in `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    picture = Figure(figsize=(width, height), layout="constrained")
    return picture, list(np.ravel(picture.subplots(rows, columns, **options)))


def grid(number: int, height: float, more: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel for each of some functions of x, at most `COLUMNS` in a row.

    Args:
        height: inches of a row.
        more: inches of the whole figure for legends.
    """
    columns = min(COLUMNS, number)
    rows = -(-number // columns)
    picture, panels = new(PAGE if columns > 1 else COLUMN, height * rows + more, rows, columns, squeeze=False)
    for axes in panels[number:]:
        axes.remove()
    for axes in panels[max(0, number - columns) : number]:
        axes.set_xlabel("x")
    return picture, panels[:number]


def plain(text: str) -> str:
    """Return a text in which matplotlib finds no mathematics, with hidden characters as escapes."""
    return shown(text, lines=True).replace("$", r"\$")


def metric_label(metric: Data, what: str = "") -> str:
    """Return the label of an axis: `val_loss (nats; lower is better)`."""
    better = "lower" if metric["direction"] == "minimize" else "higher"
    name = plain(f"{what} {metric['name']}".strip())
    return f"{name} ({', '.join(filter(None, [plain(metric['unit'])]))}{'; ' * bool(metric['unit'])}{better} is better)"


def unit_label(metric: Data, what: str) -> str:
    """Return the label of an axis of differences: `difference in test_loss (nats)`."""
    return plain(f"{what} {metric['name']}{' (' + metric['unit'] + ')' if metric['unit'] else ''}")


def value_range(
    values: Iterable[float], metric: Data, keep: Iterable[float] = (), share: float = 0.8
) -> tuple[float, float]:
    """Return the range of an axis of values: from the best one, over most of the others, and over all of `keep`.

    A few bad values do not flatten the good ones. An edge of 4 % is added.

    Args:
        share: at least this share of the values is in the range.
    """
    sign = -1.0 if metric["direction"] == "minimize" else 1.0
    merits = np.sort(sign * np.array(list(values), dtype=float))
    kept = [sign * value for value in keep]
    best = max([merits[-1], *kept])
    low = float(np.quantile(merits, 1 - share, method="lower"))
    bottom = min([merits[merits >= low - 0.5 * (best - low)][0], *kept])
    edge = 0.04 * (best - bottom) or 0.05 * abs(best) or 1.0
    ends = sorted((sign * (best + edge), sign * (bottom - edge)))
    return ends[0], ends[1]


def near(values: Sequence[float], keep: Sequence[float] = (), far: float = 6.0) -> tuple[float, float]:
    """Return the range of an axis of differences: over `keep` and all values but those that lie far from the others.

    Args:
        far: a value is far if its distance from the quartiles is more than so many times theirs.
    """
    found = np.array([*values, *keep], dtype=float)
    if not found.size:
        return -1.0, 1.0
    first, third = np.quantile(found, [0.25, 0.75])
    reach = far * (third - first)
    inside = found[(found >= first - reach) & (found <= third + reach)]
    low, high = min(*inside, *keep), max(*inside, *keep)
    edge = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return float(low - edge), float(high + edge)


def zero_lines(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Draw thin lines at zero, behind everything."""
    if y:
        axes.axhline(0, color=LIGHT, linewidth=0.6, zorder=0)
    if x:
        axes.axvline(0, color=LIGHT, linewidth=0.6, zorder=0)


def number_legend(picture: Figure, texts: Mapping[int, str], columns: int) -> None:
    """List below a picture which function each number in it stands for."""
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"color": BLACK, "markeredgewidth": 0.2, "linestyle": ""}
    handles = [
        Line2D(
            [], [], marker=f"${number}$", markersize=3.5 * len(str(number)) + 1, label=plain(cut(text, LABEL)), **look
        )
        for number, text in texts.items()
    ]
    picture.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1.2)


def whole_ticks(axis: Any) -> None:
    """Let an axis have ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def note(axes: Axes, text: str) -> None:
    """Write a remark in small grey letters above a panel, at its right end."""
    axes.annotate(
        plain(text),
        (1, 1),
        xytext=(0, 2),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=7,
        color=GREY,
    )
