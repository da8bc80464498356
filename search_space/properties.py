"""Properties of a function that can be measured without training.

They are measured at points with a distance of 1/512 on [-10, 10], so they can miss what happens between two points.
Parameters have their start value 1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from search_space.activation import Activation, default_modes, gradients, lower
from search_space.expression import Expression

LAYERS = 50  # the depth of the network in `Depth`
CURVED = 0.05  # a function counts as linear where its second derivative is below this
VANISHED, EXPLODED = 1e-4, 1e4  # bounds of the second moment of signals and gradients, which starts at 1

Array = NDArray[np.float64]
Trend = Literal["increasing", "decreasing", "constant"]
Behaviour = Literal["vanish", "stable", "explode"]

_STEP = 1 / 512
# The middles of cells. A kink at 0, 1, ... lies between two points, so the midpoint rule stays exact to second order.
_X: Array = (np.arange(-10 / _STEP, 10 / _STEP) + 0.5) * _STEP
_MASS: Array = np.exp(-(_X**2) / 2) * _STEP / math.sqrt(2 * math.pi)  # N(0, 1); its mass outside [-10, 10] is 2e-23
EXACT: Array = np.arange(-1280, 1281) / 128  # round numbers, such as 0, -1 and 0.5, at which functions often fail
_LOG_STEP = math.log(10) * 18 / 1200
_RADIUS: Array = np.exp(math.log(1e-12) + _LOG_STEP * np.arange(1200))  # 1e-12 to 1e6
_FAR: Array = np.array([1e2, 1e5, 1e8])[:, None] * 2.3 ** np.linspace(0, 1, 16)  # three windows, 16 points each


@dataclass(frozen=True, slots=True)
class Tail:
    """The behaviour of a function f for large |x| on one side. It is measured at 1e2, 1e5 and 1e8, times 1 to 2.3.

    Attributes:
        limit: the limit of f, which can be -inf or inf; None if there is none (f oscillates) or it was not found.
        slope: the limit of the slope f', in the same way.
    """

    limit: float | None
    slope: float | None

    @property
    def saturates(self) -> bool:
        """True if f has a finite limit and its slope goes to 0, so that gradients vanish."""
        return self.limit is not None and math.isfinite(self.limit) and self.slope == 0


@dataclass(frozen=True, slots=True)
class Depth:
    """Signals and gradients in 50 wide random layers without normalisation (weights of mean 0 and variance 1/width, no
    biases).

    The inputs of f have mean 0 and a second moment q. The next layer's inputs have the second moment
    E[f(sqrt(q) z)^2], where z has the distribution N(0, 1). The second moment of gradients is multiplied by
    E[f'(sqrt(q) z)^2] in each layer (Poole et al. 2016, Schoenholz et al. 2017). For functions with mean output 0, this
    is the map of Klambauer et al. 2017 with omega = 0 and tau = 1; its fixed point for SELU is q = 1.

    Attributes:
        fixed_point: the value to which q converges from q = 1. It is 0 if q falls below 1e-6, inf if q exceeds 1e4, and
            None if it was not found.
        chi: E[f'(sqrt(q) z)^2] at the fixed point; None if that is inf or unknown.
        signals: "vanish" if q is below 1e-4 after 50 layers from q = 1, "explode" if it is above 1e4, "stable"
            otherwise; None if f is NaN at some of the points.
        gradients: the same for the product of the 50 factors.
    """

    fixed_point: float | None
    chi: float | None
    signals: Behaviour | None
    gradients: Behaviour | None


@dataclass(frozen=True, slots=True)
class Profile:
    """Properties of a scalar function f, computed in float64. E[] is the mean over x from N(0, 1).

    If f is NaN or infinite at some points, properties that depend on these points are None or False.

    Attributes:
        broken_at: the x nearest to 0 within [-10, 10] at which f or f' is infinite or NaN; None if there is none.
        trend: "increasing", "decreasing" (not strictly) or "constant" on [-10, 10]; None if f is none of these.
        odd: True if f(-x) = -f(x) on [-10, 10], to 1e-9.
        even: True if f(-x) = f(x) on [-10, 10], to 1e-9.
        left: the behaviour for x towards -inf.
        right: the behaviour for x towards inf.
        infimum: over the points of [-10, 10] and both tails; -inf if f is unbounded below; None if it is not known.
        supremum: over the same points; inf if f is unbounded above; None if it is not known.
        mean: E[f]; 0 means that outputs are centred around zero.
        second_moment: E[f^2].
        slope_second_moment: E[f'^2], by which one layer multiplies the second moment of gradients.
        linear: probability under N(0, 1) of |f''| < 0.05, in [0, 1].
        dead: probability under N(0, 1) of f' = 0 exactly, in [0, 1].
        lipschitz: the largest |f'| on [-5, 5]; inf if f jumps there or f' is unbounded, as in sqrt(abs(x)).
        kinks: the points of [-5, 5] at which f' jumps. A change counts as a jump if it is 1e-6 or more, and more than
            three times the change over 1/512 nearby. Smaller jumps look like curves.
        jumps: the points of [-5, 5] at which f jumps in the same sense. Poles of odd order are among them.
        depth: what happens to signals and gradients in a deep network.
        parameters: the number of trainable parameters per channel.
        steps: the number of elementwise operations in a forward pass.
    """

    broken_at: float | None
    trend: Trend | None
    odd: bool
    even: bool
    left: Tail
    right: Tail
    infimum: float | None
    supremum: float | None
    mean: float | None
    second_moment: float | None
    slope_second_moment: float | None
    linear: float
    dead: float
    lipschitz: float | None
    kinks: tuple[float, ...]
    jumps: tuple[float, ...]
    depth: Depth
    parameters: int
    steps: int

    @property
    def finite(self) -> bool:
        """True if f and f' are finite at all points of [-10, 10]."""
        return self.broken_at is None

    @property
    def bounded_below(self) -> bool:
        """True if the infimum is known and finite."""
        return self.infimum is not None and self.infimum > -math.inf

    @property
    def bounded_above(self) -> bool:
        """True if the supremum is known and finite."""
        return self.supremum is not None and self.supremum < math.inf


@default_modes()
def profile(expression: Expression | str) -> Profile:
    """Measure the properties of a function. This takes about 10 ms.

    Args:
        expression: a tree, or its text.

    Raises:
        ParseError: the text is not an expression.
    """
    module = Activation(expression).double().requires_grad_(False)
    with np.errstate(all="ignore"):
        everywhere = np.concatenate([_X, EXACT])
        all_values, all_slopes = _sample(module, everywhere)
        value, slope = all_values[: len(_X)], all_slopes[: len(_X)]
        (left_far, left_slope), (right_far, right_slope) = (_sample(module, side * _FAR) for side in (-1, 1))
        left = Tail(_limit(left_far), _limit(left_slope))
        right = Tail(_limit(right_far), _limit(right_slope))
        ends = (left.limit, left_far), (right.limit, right_far)
        broken_at = _nearest_broken(everywhere, all_values, all_slopes)
        jumps = _discontinuities(lambda x: _sample(module, x)[0], value)
        kinks = _discontinuities(lambda x: _sample(module, x)[1], slope)
        return Profile(
            broken_at=broken_at,
            trend=_trend(value),
            odd=_alike(value, -value[::-1]),
            even=_alike(value, value[::-1]),
            left=left,
            right=right,
            infimum=None if broken_at is not None else _extreme(all_values, ends, -1),
            supremum=None if broken_at is not None else _extreme(all_values, ends, 1),
            mean=_number(_expected(value)),
            second_moment=_number(_expected(value**2)),
            slope_second_moment=_number(_expected(slope**2)),
            linear=_expected(_curvature(slope) < CURVED),
            dead=_expected(slope == 0),
            lipschitz=_lipschitz(module, everywhere, all_slopes, jumps, kinks),
            kinks=tuple(kink for kink in kinks if all(abs(kink - jump) > 1e-6 for jump in jumps)),
            jumps=jumps,
            depth=_depth(module),
            parameters=len(module.expression.betas),
            steps=len(lower(module.expression, native=False).steps),
        )


def _sample(module: Activation, x: Array) -> tuple[Array, Array]:
    """Return f and f' at each x, in the shape of x."""
    points = torch.tensor(x, requires_grad=True)
    y = module(points)
    slope = gradients(y, [points])[0]
    value: Array = y.detach().numpy()
    return value, np.where(np.isnan(value), math.nan, slope.numpy())  # torch returns a number as the slope of log(-1)


def _expected(y: Array | NDArray[np.bool_]) -> float:
    """Return E[y] over N(0, 1), given the values at `_X`."""
    return float((_MASS * y).sum())  # not `@`: on busy machines, starting its threads takes 10 ms


def _number(value: float) -> float | None:
    """Return the value, or None if it is infinite or NaN."""
    return float(value) if math.isfinite(value) else None


def _nearest_broken(x: Array, value: Array, slope: Array) -> float | None:
    broken = x[~(np.isfinite(value) & np.isfinite(slope))]
    return float(broken[np.abs(broken).argmin()]) if broken.size else None


def _trend(value: Array) -> Trend | None:
    change, rounding = np.diff(value), 1e-12 * _scale(value)[1:]
    up, down = bool((change >= -rounding).all()), bool((change <= rounding).all())
    if up and down:
        return "constant"
    return "increasing" if up else "decreasing" if down else None


def _alike(one: Array, other: Array) -> bool:
    """Return True if all values are finite, and equal to 1e-9."""
    return bool((np.isfinite(one) & (np.abs(one - other) <= 1e-9 * _scale(one))).all())


def _scale(value: Array) -> Array:
    """Return the scale that differences are compared with: |value|, but at least 1, or the largest |value| if that is
    less than 1."""
    return np.maximum(min(1.0, float(np.fmax.reduce(np.abs(value)))), np.abs(value))


def _curvature(slope: Array) -> Array:
    """Return |f''| from differences of f'. The smaller of both sides is taken, so that kinks do not count as curves."""
    change = np.abs(np.diff(slope, prepend=math.inf, append=math.inf)) / _STEP
    return np.asarray(np.fmin(change[:-1], change[1:]))


def _lipschitz(
    module: Activation, x: Array, slope: Array, jumps: tuple[float, ...], kinks: tuple[float, ...]
) -> float | None:
    """Return the largest |f'| on [-5, 5], given f' at each x. Points close to the kinks are also measured."""
    if jumps:
        return math.inf
    order = np.argsort(x)
    order = order[np.abs(x[order]) <= 5]
    x, slope = x[order], np.abs(slope[order])
    finite = np.isfinite(slope)
    edges = x[:-1][np.diff(finite)], x[1:][np.diff(finite)]
    steepest = x[np.where(finite, slope, -1).argmax()]
    if _is_unbounded(lambda x: _sample(module, x)[1], np.array([*kinks, *np.concatenate(edges), steepest])):
        return math.inf
    beside = np.array([kink + side for kink in kinks for side in (-1e-9, 1e-9)])
    return _number(np.concatenate([slope, np.abs(_sample(module, beside)[1])]).max())


def _is_unbounded(slope: Callable[[Array], Array], places: Array) -> bool:
    """Return True if |f'| is unbounded at one of these places.

    |f'| is measured in smaller and smaller windows around its maximum, down to the resolution of float64 or 1e-40. If
    it is bounded, it stops growing at some size of the window.
    """
    width, largest = 2 * _STEP, np.zeros((4, len(places)))  # the maxima in the last four windows, the newest first
    while places.size:
        x = np.clip(places[:, None] + width * np.linspace(-0.5, 0.5, 62), -5, 5)
        steep = np.abs(slope(x))
        steep[~np.isfinite(steep)] = -1  # outside the domain, or overflow
        places = x[np.arange(len(x)), steep.argmax(1)]
        largest = np.stack([np.maximum(steep.max(1), largest[0]), *largest[:3]])
        smallest = width < np.maximum(1e-40, 1_000 * np.spacing(np.abs(places)))
        if (smallest & (largest[0] > 1.03 * largest[3])).any():
            return True
        grows = ~smallest & (largest[0] > (1 + 1e-9) * largest[2])
        places, largest, width = places[grows], largest[:, grows], width / 30.5
    return False


def _limit(windows: Array) -> float | None:
    """Return the limit of values measured at 1e2, 1e5 and 1e8 (one row each), or None. Rows with NaN are skipped."""
    for row in windows[::-1]:
        if np.isinf(row[0]) and (row == row[0]).all():
            return float(row[0])
        if np.ptp(row) <= 1e-6 * max(1.0, abs(row[0])):
            return float(row[0]) if abs(row[0]) > 1e-6 else 0.0
        change = np.diff(windows[1:].ravel())
        if (change >= 0).all() or (change <= 0).all():
            return _extrapolated(*(float(value) for value in windows[:, 0]))
    return None


def _extrapolated(near: float, middle: float, far: float) -> float | None:
    """Return L if the values are like L + c x^-p (Aitken's method), or infinity if they grow like log(x) or faster."""
    first, second = middle - near, far - middle
    if abs(second) >= abs(first) / 2:
        return math.copysign(math.inf, second)
    if abs(second) > abs(first) / 10:
        return None  # it converges more slowly than x^(-1/3), as 1/log(x) does
    limit = far + second**2 / (first - second)
    return limit if abs(limit) > 1e-3 * abs(near) else 0.0


def _extreme(value: Array, ends: tuple[tuple[float | None, Array], ...], sign: int) -> float | None:
    """Return the supremum (sign 1) or infimum (sign -1). An oscillation counts as unbounded if its amplitude at 1e8 is
    more than 1.2 times its earlier amplitudes."""
    top = np.fmax.reduce(sign * value)
    for limit, far in ends:
        near, last = np.fmax.reduce(sign * far[:2].ravel()), np.fmax.reduce(sign * far[2])
        if limit is None and np.isnan(far[2]).any():
            return None  # it overflows, so its values there are unknown
        if limit is None and last > 1.2 * max(top, near, 0):
            return sign * math.inf
        top = np.fmax(top, near if limit is None else sign * limit)
    return None if math.isnan(top) else float(sign * top)


def _discontinuities(f: Callable[[Array], Array], value: Array) -> tuple[float, ...]:
    """Return the points of [-5, 5] at which f jumps, given its values at `_X`.

    Over a cell with a jump, f changes more than three times as much as over the cells nearby. Such a cell is divided
    by 31 six times, down to 2e-12; if it has a jump, one of the parts still has at least half of the change.
    """
    change = np.abs(np.diff(value))
    nearby = np.fmax(change[:-4], change[4:])
    found = 2 + np.flatnonzero(change[2:-2] > 3 * nearby + 1e-6 * np.maximum(1, np.abs(value[2:-3])))
    found = found[np.isfinite(change[found]) & (np.abs(_X[found] + _STEP / 2) <= 5)]
    if not found.size:
        return ()
    left, width, parts = _X[found], _STEP, change[found, None]
    for _ in range(6):
        x = left[:, None] + width * np.linspace(0, 1, 32)  # an even number of points, so that 0 is not one of them
        parts = np.nan_to_num(np.abs(np.diff(f(x))))
        left, width = x[np.arange(len(x)), parts.argmax(1)], width / 31
    stays = parts.max(1) >= change[found] / 2
    return tuple(sorted({round(float(x), 8) + 0.0 for x in left[stays] + width / 2}))


def _depth(module: Activation) -> Depth:
    value, slope = _sample(module, np.stack([_RADIUS, -_RADIUS]))
    squares = np.stack([(value**2).mean(0), (slope**2).mean(0)])

    def layer(q: float) -> tuple[float, float]:
        """Return the next q, and the factor of the gradients' second moment. All q use the same values of f."""
        mass = _RADIUS * np.exp(-(_RADIUS**2) / (2 * min(max(q, 1e-12), 1e8)))
        moments = np.where(mass == 0, 0, squares * mass).sum(1) / mass.sum()  # f may overflow where the mass is 0
        return float(moments[0]), float(moments[1])

    q, log_gradient = 1.0, 0.0
    for _ in range(LAYERS):
        q, factor = layer(q)
        log_gradient += math.log(factor) if factor else -math.inf
    fixed_point = _fixed_point(lambda q: layer(q)[0], q)
    return Depth(
        fixed_point=fixed_point,
        chi=None if fixed_point in (None, math.inf) else _number(layer(fixed_point or 0.0)[1]),
        signals=_behaviour(q),
        gradients=_behaviour(math.exp(min(log_gradient, 700.0))),
    )


def _fixed_point(f: Callable[[float], float], q: float) -> float | None:
    """Iterate q = f(q), and return the fixed point; None if there is none after 40 rounds.

    Steffensen's method accelerates the iteration while its steps get smaller. Otherwise the iteration continues as it
    is, and so moves away from unstable fixed points.
    """
    for _ in range(40):
        if math.isnan(q) or q > EXPLODED:
            return None if math.isnan(q) else math.inf
        if q < 1e-6:
            return 0.0
        one = f(q)
        two = f(one)
        if abs(one - q) <= 1e-10 * q:
            return q
        shrinks = abs(two - one) < abs(one - q)
        better = q - (one - q) ** 2 / (two - 2 * one + q) if shrinks else two
        q = better if better > 0 else two
    return None


def _behaviour(moment: float) -> Behaviour | None:
    if math.isnan(moment):
        return None
    return "vanish" if moment < VANISHED else "explode" if moment > EXPLODED else "stable"


def cost_per_element(expression: Expression | str, elements: int = 1 << 18, repeats: int = 5) -> float:
    """Measure the time of a forward and a backward pass in float32 on this CPU.

    Args:
        expression: a tree, or its text.
        elements: the number of elements of the input.
        repeats: the number of measurements.

    Returns:
        Nanoseconds per element, in the fastest measurement.
    """
    module = Activation(expression)
    x = torch.randn(elements, requires_grad=True)
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        gradients(module(x), [x, *module.parameters()])
        taken.append(time.perf_counter() - start)
    return min(taken) / elements * 1e9
