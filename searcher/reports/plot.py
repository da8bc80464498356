"""A picture of a function and its slope, beside ReLU and Swish. Needs the extra `plot` (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_space import KNOWN, Expression, SpaceError, code, parse
from search_space.expression import number
from searcher import SearcherError, UsageError
from searcher.reports.function import REACH, Array, FunctionReport, sampled, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg")
POINTS = 2000  # an even number: 0 is a place where functions like to break
FARTHEST = (10.0, 4.0)  # of f and of f': beyond them ReLU and Swish would be flat
OTHERS = {"relu": ("ReLU", "-"), "swish": ("Swish", "--")}  # as they are called and drawn
MORE = {0.5: ":", 2.0: "-."}  # other values of the parameters
STRONG, LIGHT, LINE = "#0b5394", "#8a8a8a", "#dddddd"
MATH_FONT = "stix"
SIZES = (16, 14, 12, 10, 8)  # of the title, until it fits
WIDTH = 9.0  # inches


def check(path: Path) -> None:
    """Whether a picture can be made under this name at all.

    Raises:
        UsageError: a name with another ending.
        SearcherError: matplotlib is missing.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"cannot draw {path.name!r}; accepted: names that end in {' or '.join(ENDINGS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SearcherError("a picture needs matplotlib: pip install 'activation-searcher[plot]'") from None


def save(report: FunctionReport, path: Path) -> None:
    """Draws `report` into a file; the same function makes the same file.

    Raises:
        UsageError, SearcherError: as `check`; a file that cannot be written.
    """
    check(path)
    import matplotlib

    try:
        with matplotlib.rc_context({"svg.hashsalt": report.key}):
            figure(report).savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise SearcherError(f"cannot write {path}: {error.strerror or error}") from error


def figure(report: FunctionReport) -> Figure:
    """f at the left, f' at the right. A figure of its own: nothing of pyplot's global state is touched."""
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
    """What is drawn, the function itself first, and how."""
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
        curves.append((FunctionReport(_with_betas(report.expression, value)), look))
    for name, (label, style) in OTHERS.items():
        if name not in report.names:
            look = {"label": label, "linestyle": style, "color": LIGHT, "linewidth": 1.1, "zorder": 1}
            curves.append((FunctionReport(parse(KNOWN[name].expression)), look))
    return curves


def _with_betas(expression: Expression, value: float) -> Expression:
    return expression.fold(
        lambda node, args: number(value) if node.op == "beta" else Expression(node.op, args, node.value)
    )


def _panel(axes: Axes, curves: Sequence[tuple[FunctionReport, dict[str, Any]]], which: int) -> None:
    x = np.linspace(-REACH, REACH, POINTS)
    axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
    axes.axvline(0, color=LINE, linewidth=0.8, zorder=0)
    drawn = []
    for report, look in curves:
        y = sampled(report.expression, x)[which]
        drawn.append(y)
        breaks = (*report.profile.jumps, *(report.profile.kinks if which else ()))
        axes.plot(x, _broken_at(x, y, breaks), **look)
    axes.set_xlim(-REACH, REACH)
    axes.set_ylim(*_limits(drawn, FARTHEST[which]))
    axes.set_title(("f(x)", "f'(x)")[which], fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _broken_at(x: Array, y: Array, breaks: Sequence[float]) -> Array:
    """No line where the curve jumps: the point after the break is left out."""
    y = y.copy()
    after = [i for i in np.searchsorted(x, breaks) if i < len(x)]
    y[after] = np.nan
    return y


def _limits(curves: Sequence[Array], farthest: float) -> tuple[float, float]:
    """Everything if it is near, else what is near; a function that is mostly far away is shown where it is."""
    own = curves[0][np.isfinite(curves[0])]
    if own.size and np.mean(np.abs(own) <= farthest) < 0.25:
        low, high = window(own)
    else:
        low, high = window(np.concatenate(curves))
        low, high = max(low, -farthest), min(high, farthest)
    edge = 0.05 * (high - low)
    return low - edge, high + edge


def _title(report: FunctionReport) -> tuple[str, int]:
    """The formula as mathematics, if matplotlib can set it and it fits; else its text, in lines."""
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
    except (SpaceError, ValueError):  # LaTeX cannot say it; matplotlib does not know the word
        return fill(plain, 100), 10
    return fill(plain, 100), 10
