"""Describe a function without training it, for people and for programs, and draw its curve in a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from search_space import (
    ALIASES,
    KNOWN,
    Activation,
    Expression,
    Profile,
    breakdown,
    canonical,
    key,
    mirror,
    parse,
    preflight,
    profile,
)
from search_space.activation import default_modes, gradients
from search_space.properties import CURVED, LAYERS, Tail

REACH = 5.0  # curves are drawn on [-REACH, REACH]
SHOWN = 6  # number of kinks or jumps that are listed

Array = NDArray[np.float64]


@default_modes()
def sampled(expression: Expression, x: Array) -> tuple[Array, Array]:
    """Return f and f' at each x in float64, with NaN for values that are not finite. All arrays have the same shape."""
    module = Activation(expression).double().requires_grad_(False)
    points = torch.tensor(x, requires_grad=True)
    y = module(points)
    value, slope = y.detach().numpy(), gradients(y, [points])[0].numpy()
    usable = np.isfinite(value)
    return np.where(usable, value, math.nan), np.where(usable & np.isfinite(slope), slope, math.nan)


def window(y: Array) -> tuple[float, float]:
    """Return the range of y to draw. It is the whole range, unless a pole or fast growth would flatten the rest."""
    y = y[np.isfinite(y)]
    if not y.size:
        return -1.0, 1.0
    low, high = np.percentile(y, [10, 90])
    reach = 2 * (high - low)
    bottom, top = max(y.min(), min(low - reach, -REACH)), min(y.max(), max(high + reach, REACH))
    if top - bottom < 1e-9 * max(1.0, abs(top)):
        return float(bottom - 1), float(top + 1)
    near = 0.1 * (top - bottom)  # the range includes 0 if it is almost in it
    return float(0 if 0 < bottom < near else bottom), float(0 if -near < top < 0 else top)


@dataclass(frozen=True)
class FunctionReport:
    """A function and its properties. Each property is computed when it is first used."""

    expression: Expression

    @cached_property
    def key(self) -> str:
        """The key of the function."""
        return key(self.expression)

    @cached_property
    def profile(self) -> Profile:
        """The measured properties of the function."""
        return profile(self.expression)

    @cached_property
    def objection(self) -> str | None:
        """The reason why a search would not train the function; None if it would."""
        return preflight(self.expression) or breakdown(self.expression)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of known functions that this function is equal to."""
        return _names(self.key)

    @cached_property
    def mirror(self) -> Expression:
        """The function -f(-x)."""
        return mirror(self.expression)

    @cached_property
    def own_mirror(self) -> bool:
        """True if the function is odd, and so its own mirror."""
        return key(self.mirror) == self.key

    @cached_property
    def mirror_of(self) -> tuple[str, ...]:
        """Names of known functions, other than f, that -f(-x) is equal to."""
        return () if self.own_mirror else _names(key(self.mirror))

    @property
    def reference(self) -> str:
        """The publication of the known function; empty for others."""
        return KNOWN[self.names[0]].reference if self.names else ""

    def facts(self) -> dict[str, Any]:
        """Return the properties as plain values by name, such as `left.limit`. Infinities are the texts "inf" and
        "-inf"; None means that the number does not exist or was not found."""
        found = self.profile
        derived = {name: getattr(found, name) for name in ("finite", "bounded_below", "bounded_above")}
        return {
            "expression": str(self.expression),
            "canonical": str(canonical(self.expression)),
            "key": self.key,
            "names": list(self.names),
            "reference": self.reference,
            "mirror": str(self.mirror),
            "mirror_of": list(self.mirror_of),
            "own_mirror": self.own_mirror,
            "trainable": self.objection is None,
            "objection": self.objection,
            **derived,
            **_flat("", found),
        }

    def words(self) -> dict[str, str]:
        """Return the properties as texts for people, by label."""
        found, simplest = self.profile, str(canonical(self.expression))
        depth = found.depth
        return {
            "f(x)": str(self.expression),
            **({"simplest form": simplest} if simplest != str(self.expression) else {}),
            **({"known as": f"{', '.join(self.names)} ({self.reference})"} if self.names else {}),
            "key": self.key,
            "mirror": self._mirror_in_words(),
            "in a search": f"not trained: {self.objection}" if self.objection else "would be trained",
            "shape": ", ".join(_shape(found)),
            "to the left": _tail(found.left),
            "to the right": _tail(found.right),
            "steepest": _steepest(found),
            "breaks": f"kinks {_places(found.kinks)}; jumps {_places(found.jumps)}",
            "x of N(0, 1)": f"E[f] {_number(found.mean)}, E[f^2] {_number(found.second_moment)}, "
            f"E[f'^2] {_number(found.slope_second_moment)}",
            "gradient": f"slope exactly 0 on {100 * found.dead:.3g} % of x, almost linear (|f''| < {CURVED}) on "
            f"{100 * found.linear:.3g} %",
            f"{LAYERS} layers": f"signals {depth.signals or 'are not finite'}, "
            f"gradients {depth.gradients or 'are not finite'} (random weights, no normalisation)",
            "variance": _fixed_point(depth.fixed_point, depth.chi),
            "cost": f"{_count(found.steps, 'operation')}, {_count(found.parameters, 'parameter')} a channel",
        }

    def _mirror_in_words(self) -> str:
        if self.own_mirror:
            return "its own mirror: -f(-x) = f(x)"
        known = f"mirror of {', '.join(self.mirror_of)}: " if self.mirror_of else ""
        return f"{known}-f(-x) = {self.mirror}"

    def curves(self, width: int = 30, height: int = 12, *, braille: bool = True) -> list[str]:
        """Return lines of text with the curves of f and f' side by side.

        Args:
            width, height: the size of each curve in characters, without its axes.
            braille: draw with Braille characters; otherwise with ASCII.
        """
        x = np.linspace(-REACH, REACH, 16 * width)  # an even number leaves out 0, where many functions break
        value, slope = sampled(self.expression, x)
        jumps = self.profile.jumps
        left = drawing("f(x)", x, value, jumps, width, height, braille)
        right = drawing("f'(x)", x, slope, (*jumps, *self.profile.kinks), width, height, braille)
        wide = max(map(len, left))
        return [f"{one:{wide}}   {other}".rstrip() for one, other in zip(left, right, strict=True)]


def _names(found: str) -> tuple[str, ...]:
    """Return the names of the known functions with that key, then their aliases."""
    names = [name for name, row in KNOWN.items() if key(parse(row.expression)) == found]
    return (*names, *(alias for alias, name in ALIASES.items() if name in names))


def drawing(
    title: str, x: Array, y: Array, breaks: Sequence[float], width: int, height: int, braille: bool
) -> list[str]:
    """Return a curve as lines of text: the title, `height` lines with values of y at the left, and values of x."""
    low, high = window(y)
    dots = _dots(x, y, breaks, low, high, (4 * height, 2 * width))
    zero = math.floor(high / (high - low) * height) if low <= 0 <= high else -1
    zero = min(zero, height - 1)
    labels = {0: high, height - 1: low} | ({zero: 0.0} if 0 < zero < height - 1 else {})
    margin = max(len(f"{number:.3g}") for number in labels.values())
    lines = []
    for row in range(height):
        cells = [dots[4 * row : 4 * row + 4, 2 * column : 2 * column + 2] for column in range(width)]
        blanks = [_background(row == zero, column == width // 2, braille) for column in range(width)]
        glyph = _braille if braille else _ascii
        line = "".join(glyph(cell) if cell.any() else blank for cell, blank in zip(cells, blanks, strict=True))
        lines.append(f"{f'{labels[row]:.3g}' if row in labels else '':>{margin}} {line}")
    ends = f"{-REACH:g}{'0':^{width - 3}}{REACH:g}"
    return [f"{'':{margin}} {title}", *lines, f"{'':{margin}} {ends}"]


def _dots(
    x: Array, y: Array, breaks: Sequence[float], low: float, high: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return a grid that is True at the dots on the curve. Lines join the points, except across breaks."""
    rows, columns = shape
    dots = np.zeros(shape, dtype=bool)
    across = np.minimum((x - x[0]) / (x[-1] - x[0]) * columns, columns - 1).astype(int)
    height = (high - y) / (high - low) * rows
    inside = (y >= low) & (y <= high)
    down = np.minimum(np.clip(np.nan_to_num(height), -1, rows), rows - 1 + ~inside).astype(int)
    for i in range(len(x)):
        joined = i and np.isfinite(y[i - 1 : i + 1]).all() and not any(x[i - 1] < at <= x[i] for at in breaks)
        if joined and (inside[i] or inside[i - 1]):
            first, last = sorted((down[i - 1], down[i]))
            dots[max(first, 0) : last + 1, across[i]] = True
        elif inside[i]:
            dots[down[i], across[i]] = True
    return dots


def _braille(cell: NDArray[np.bool_]) -> str:
    order = (cell[0, 0], cell[1, 0], cell[2, 0], cell[0, 1], cell[1, 1], cell[2, 1], cell[3, 0], cell[3, 1])
    return chr(0x2800 + sum(1 << bit for bit, dot in enumerate(order) if dot))


def _ascii(cell: NDArray[np.bool_]) -> str:
    upper, lower = cell[:2].any(), cell[2:].any()
    return ":" if upper and lower else "'" if upper else "."


def _background(across: bool, down: bool, braille: bool) -> str:
    """Return the character of an empty cell, which may be on an axis."""
    if braille:
        return "┼" if across and down else "┈" if across else "┊" if down else " "
    return "+" if across and down else "-" if across else "|" if down else " "


def _flat(prefix: str, record: Any) -> dict[str, Any]:
    """Return the fields of a record as plain values; fields of records in it are named `outer.inner`."""
    found: dict[str, Any] = {}
    for item in fields(record):
        name, value = prefix + item.name, getattr(record, item.name)
        if hasattr(value, "__dataclass_fields__"):
            found |= _flat(f"{name}.", value)
            found |= {f"{name}.saturates": value.saturates} if isinstance(value, Tail) else {}
        else:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _shape(found: Profile) -> list[str]:
    """Describe trend, symmetry and bounds, or say where f is not finite."""
    if not found.finite:
        return [f"no finite number at x = {found.broken_at:g}"]
    words = {"constant": "constant", None: "not monotone"}.get(found.trend, f"monotone ({found.trend})")
    symmetry = "odd" if found.odd else "even" if found.even else "neither odd nor even"
    below = f"bounded below by {_number(found.infimum)}" if found.bounded_below else "unbounded below"
    above = f"bounded above by {_number(found.supremum)}" if found.bounded_above else "unbounded above"
    return [words, symmetry, below, above]


def _tail(tail: Tail) -> str:
    value = "f has no limit" if tail.limit is None else f"f goes to {_number(tail.limit)}"
    slope = "its slope has no limit" if tail.slope is None else f"its slope to {_number(tail.slope)}"
    return f"{value}, {slope}{': it saturates' * tail.saturates}"


def _steepest(found: Profile) -> str:
    if found.lipschitz == math.inf:
        return "no bound on the slope: f jumps" if found.jumps else "no bound on the slope on [-5, 5]"
    return "not found" if found.lipschitz is None else f"slope {_number(found.lipschitz)} on [-5, 5] (Lipschitz)"


def _places(points: tuple[float, ...]) -> str:
    if not points:
        return "none"
    more = f" and {len(points) - SHOWN} more" if len(points) > SHOWN else ""
    return f"at x = {', '.join(f'{point:.4g}' for point in points[:SHOWN])}{more}"


def _fixed_point(q: float | None, chi: float | None) -> str:
    """Describe the limit of the signals' variance in a deep stack, and by which factor a layer there multiplies the
    variance of gradients."""
    if q is None or q == math.inf:
        return "no fixed point found" if q is None else "grows without end from layer to layer"
    factor = "" if chi is None else f"; there a layer multiplies that of gradients by {_number(chi)}"
    return f"{'dies out' if q == 0 else f'settles at {_number(q)}'} from layer to layer{factor}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
