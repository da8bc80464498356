"""Draw a function and its slope together with ReLU and Swish. This needs the extra `plot` (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_space import KNOWN, SpaceError, code, parse
from searcher import SearcherError, UsageError
from searcher.reports.function import REACH, Array, FunctionReport, sampled, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg")
POINTS = 2000  # an even number, so that x = 0 is left out: many functions have a kink or jump there
FARTHEST = (10.0, 4.0)  # largest |y| drawn for f and for f'; with more, ReLU and Swish would look flat
OTHERS = {"relu": ("ReLU", "-"), "swish": ("Swish", "--")}  # label and line style of the functions for comparison
MORE = {0.5: ":", 2.0: "-."}  # other values of the parameters, with their line styles
STRONG, LIGHT, LINE = "#0b5394", "#8a8a8a", "#dddddd"
MATH_FONT = "stix"
SIZES = (16, 14, 12, 10, 8)  # font sizes of the title; the first that fits is used
WIDTH = 9.0  # inches


def check(path: Path) -> None:
    """Check that a picture can be saved under this name.

    Raises:
        UsageError: the name does not end in .png or .svg.
        SearcherError: matplotlib is missing.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"cannot draw {path.name!r}; accepted: names that end in {' or '.join(ENDINGS)}")
    drawing_possible()


def drawing_possible() -> None:
    """Check that matplotlib is there.

    Raises:
        SearcherError: it is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SearcherError("a picture needs matplotlib: pip install 'activation-searcher[plot]'") from None


def save(report: FunctionReport, path: Path) -> None:
    """Draw a function into a file. The same function gives the same file.

    Raises:
        UsageError, SearcherError: as in `check`, or the file cannot be written.
    """
    check(path)
    write(figure(report), path, report.key)


def write(picture: Figure, path: Path, salt: str) -> None:
    """Write a figure to a file. The same figure and the same salt of its ids give the same file.

    Raises:
        SearcherError: the file cannot be written.
    """
    import matplotlib

    try:
        with matplotlib.rc_context({"svg.hashsalt": salt}):
            picture.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise SearcherError(f"cannot write {path}: {error.strerror or error}") from error


def figure(report: FunctionReport) -> Figure:
    """Return a figure with f at the left and f' at the right. It does not use pyplot's global state."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    panels = picture.subplots(1, 2, sharex=True)
    text, size = _title(report)
    picture.suptitle(text, fontsize=size, math_fontfamily=MATH_FONT)
    curves = _curves(report)
    for which, axes in enumerate(panels):
        _panel(axes, curves, which)
    picture.legend(handles=panels[0].get_lines()[2:], loc="outside lower center", ncols=5, frameon=False)
    return picture


def _curves(report: FunctionReport) -> list[tuple[FunctionReport, dict[str, Any]]]:
    """Return the functions to draw, the function itself first, each with matplotlib's options for its line."""
    own = {
        "label": report.names[0] if report.names else "this function",
        "color": STRONG,
        "linewidth": 2.4,
        "zorder": 3,
    }
    curves = [(report, own)]
    betas = {0: "", 1: "beta"}.get(len(report.expression.betas), "every beta")
    for value, style in MORE.items() if betas else ():
        look = {"label": f"{betas} = {value:g}", "linestyle": style, "color": STRONG, "linewidth": 1.1, "alpha": 0.6}
        fixed = report.expression.with_numbers([value] * len(report.expression.betas))
        curves.append((FunctionReport(fixed), look))
    for name, (label, style) in OTHERS.items():
        if name not in report.names:
            look = {"label": label, "linestyle": style, "color": LIGHT, "linewidth": 1.1, "zorder": 1}
            curves.append((FunctionReport(parse(KNOWN[name].expression)), look))
    return curves


def _panel(axes: Axes, curves: Sequence[tuple[FunctionReport, dict[str, Any]]], which: int) -> None:
    x = np.linspace(-REACH, REACH, POINTS)
    axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
    axes.axvline(0, color=LINE, linewidth=0.8, zorder=0)
    drawn = []
    for report, look in curves:
        y = sampled(report.expression, x)[which]
        drawn.append(y)
        breaks = (*report.profile.jumps, *(report.profile.kinks if which else ()))
        axes.plot(x, broken_at(x, y, breaks), **look)
    axes.set_xlim(-REACH, REACH)
    axes.set_ylim(*limits(drawn, FARTHEST[which]))
    axes.set_title(("f(x)", "f'(x)")[which], fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def broken_at(x: Array, y: Array, breaks: Sequence[float]) -> Array:
    """Return y with NaN at the first point after each break, so that no line is drawn across a jump."""
    y = y.copy()
    after = [i for i in np.searchsorted(x, breaks) if i < len(x)]
    y[after] = np.nan
    return y


def limits(curves: Sequence[Array], farthest: float) -> tuple[float, float]:
    """Return the range of y to draw: the range of all curves, limited to [-farthest, farthest], or the function's own
    range if most of its values are outside these limits."""
    own = curves[0][np.isfinite(curves[0])]
    if own.size and np.mean(np.abs(own) <= farthest) < 0.25:
        low, high = window(own)
    else:
        low, high = window(np.concatenate(curves))
        low, high = max(low, -farthest), min(high, farthest)
    edge = 0.05 * (high - low)
    return low - edge, high + edge


def _title(report: FunctionReport) -> tuple[str, int]:
    """Return the title and its font size: the formula as mathematics if matplotlib can draw it and it fits, otherwise
    as text."""
    from textwrap import fill

    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    plain = f"f(x) = {report.expression}"
    try:
        formula = f"${code(report.expression, 'latex').strip()}$"
        for size in SIZES:
            font = FontProperties(size=size, math_fontfamily=MATH_FONT)
            if MathTextParser("path").parse(formula, dpi=72, prop=font).width <= 68 * WIDTH:
                return formula, size
    except (SpaceError, ValueError):  # the function has no LaTeX, or matplotlib does not know a command in it
        return fill(plain, 100), 10
    return fill(plain, 100), 10
