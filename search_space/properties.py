"""What a function is like before anything is trained with it.

Everything here is measured on points, so it holds up to their spacing: 1/512 on [-10, 10]. Parameters have their start
value 1.
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

LAYERS = 50
CURVED = 0.05  # a second derivative below this counts as linear
VANISHED, EXPLODED = 1e-4, 1e4  # a second moment beyond these, from 1 at the first layer, has vanished or exploded

Array = NDArray[np.float64]
Trend = Literal["increasing", "decreasing", "constant"]
Behaviour = Literal["vanish", "stable", "explode"]

_STEP = 1 / 512
# Middles of cells: a kink at 0, 1, ... lies between two points, where the midpoint rule stays exact to second order.
_X: Array = (np.arange(-10 / _STEP, 10 / _STEP) + 0.5) * _STEP
_MASS: Array = np.exp(-(_X**2) / 2) * _STEP / math.sqrt(2 * math.pi)  # of N(0, 1); outside [-10, 10] are 2e-23
EXACT: Array = np.arange(-1280, 1281) / 128  # where functions like to break: 0, -1, 0.5
_LOG_STEP = math.log(10) * 18 / 1200
_RADIUS: Array = np.exp(math.log(1e-12) + _LOG_STEP * np.arange(1200))  # 1e-12 to 1e6
_FAR: Array = np.array([1e2, 1e5, 1e8])[:, None] * 2.3 ** np.linspace(0, 1, 16)  # three windows, 16 points each


@dataclass(frozen=True, slots=True)
class Tail:
    """How a function ends on one side: judged at 100, 1e5 and 1e8 times 1 to 2.3."""

    limit: float | None  # of f, -inf and inf included; None where there is none (it oscillates) or none was found
    slope: float | None  # of f', in the same way

    @property
    def saturates(self) -> bool:
        """A finite limit, which gradients do not get through: the slope goes to 0."""
        return self.limit is not None and math.isfinite(self.limit) and self.slope == 0


@dataclass(frozen=True, slots=True)
class Depth:
    """A stack of 50 wide random layers without normalisation: weights of mean 0 and variance 1/width, no bias.

    The second moment q of the inputs of f (they have mean 0) goes to E[f(sqrt(q) z)^2], z from N(0, 1), from layer to
    layer, and that of gradients is multiplied by E[f'(sqrt(q) z)^2] (Poole et al. 2016, Schoenholz et al. 2017). With
    zero mean output this is the map of Klambauer et al. 2017 at omega 0, tau 1, whose fixed point for SELU is q = 1.
    """

    # The q to which q = 1 leads, 0 (below 1e-6) and inf (above 1e4) included; None: not found.
    fixed_point: float | None
    chi: float | None  # E[f'(sqrt(q) z)^2] there; None at inf
    signals: (
        Behaviour | None
    )  # q after 50 layers from q = 1: below 1e-4, above 1e4, or between; None where f is no number
    gradients: Behaviour | None  # the product of the 50 factors, by the same bounds


@dataclass(frozen=True, slots=True)
class Profile:
    """Properties of a scalar function f, in float64. E[] is over x from N(0, 1), by the midpoint rule on [-10, 10].

    Where f is no number at some points, what depends on them is None or False.
    """

    broken_at: float | None  # the x nearest to 0 within [-10, 10] where f or f' is infinite or no number
    trend: Trend | None  # on [-10, 10], not strictly; None: neither
    odd: bool  # f(-x) = -f(x) on [-10, 10], to 1e-9
    even: bool  # f(-x) = f(x)
    left: Tail
    right: Tail
    infimum: float | None  # over the points of [-10, 10] and the tails; -inf: unbounded below; None: not known
    supremum: float | None  # inf: unbounded above
    mean: float | None  # E[f]; 0: zero-centred
    second_moment: float | None  # E[f^2]
    slope_second_moment: float | None  # E[f'^2]: what one layer does to gradients
    linear: float  # N(0, 1) mass where |f''| < 0.05
    dead: float  # N(0, 1) mass where f' is exactly 0
    lipschitz: float | None  # the largest |f'| on [-5, 5]; inf if f jumps there or f' has no bound, as in sqrt(abs(x))
    # Points of [-5, 5] where f' jumps, and where f does, poles of odd order included: by 1e-6 or more, and by more than
    # three times what it changes within 1/512 nearby. Smaller ones are not told from curves.
    kinks: tuple[float, ...]
    jumps: tuple[float, ...]
    depth: Depth
    parameters: int  # trainable, a channel
    steps: int  # elementwise operations a forward pass

    @property
    def finite(self) -> bool:
        return self.broken_at is None

    @property
    def bounded_below(self) -> bool:
        return self.infimum is not None and self.infimum > -math.inf

    @property
    def bounded_above(self) -> bool:
        return self.supremum is not None and self.supremum < math.inf


@default_modes()
def profile(expression: Expression | str) -> Profile:
    """Measures `expression`; some 10 ms.

    Raises:
        ParseError: text that is no expression.
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
    """f and f' at each x, in its shape."""
    points = torch.tensor(x, requires_grad=True)
    y = module(points)
    slope = gradients(y, [points])[0]
    value: Array = y.detach().numpy()
    return value, np.where(np.isnan(value), math.nan, slope.numpy())  # torch has a slope of log(-1)


def _expected(y: Array | NDArray[np.bool_]) -> float:
    """E[y] over N(0, 1) of values at `_X`. No `@`: its threads cost 10 ms where cores are busy."""
    return float((_MASS * y).sum())


def _number(value: float) -> float | None:
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
    return bool((np.isfinite(one) & (np.abs(one - other) <= 1e-9 * _scale(one))).all())


def _scale(value: Array) -> Array:
    """What differences are small against: the value itself, or where that is less, 1 or the greatest of them."""
    return np.maximum(min(1.0, float(np.fmax.reduce(np.abs(value)))), np.abs(value))


def _curvature(slope: Array) -> Array:
    """|f''| by differences, the smaller of both sides: a kink between two linear pieces is no curve."""
    change = np.abs(np.diff(slope, prepend=math.inf, append=math.inf)) / _STEP
    return np.asarray(np.fmin(change[:-1], change[1:]))


def _lipschitz(
    module: Activation, x: Array, slope: Array, jumps: tuple[float, ...], kinks: tuple[float, ...]
) -> float | None:
    """Return the largest |f'| on [-5, 5], given f' at each x; also close to the kinks, which the points can miss."""
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
    """Return whether |f'| keeps growing at one of these places, in ever smaller windows around where it is largest.

    The windows end where float64 can hardly tell points apart, or at 1e-40. A slope that is steep but bounded stops
    growing once the windows are smaller than what makes it steep.
    """
    width, largest = 2 * _STEP, np.zeros((4, len(places)))  # of the last windows, the newest first
    while places.size:
        x = np.clip(places[:, None] + width * np.linspace(-0.5, 0.5, 62), -5, 5)
        steep = np.abs(slope(x))
        steep[~np.isfinite(steep)] = -1  # beyond an edge of the domain, or overflow
        places = x[np.arange(len(x)), steep.argmax(1)]
        largest = np.stack([np.maximum(steep.max(1), largest[0]), *largest[:3]])
        smallest = width < np.maximum(1e-40, 1_000 * np.spacing(np.abs(places)))
        if (smallest & (largest[0] > 1.03 * largest[3])).any():
            return True
        grows = ~smallest & (largest[0] > (1 + 1e-9) * largest[2])
        places, largest, width = places[grows], largest[:, grows], width / 30.5
    return False


def _limit(windows: Array) -> float | None:
    """Where values at 1e2, 1e5 and 1e8 go, one row each; a row with overflow to NaN is passed over."""
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
    """What L + c x^-p comes to (Aitken), or infinity if the values still go on like a logarithm or faster."""
    first, second = middle - near, far - middle
    if abs(second) >= abs(first) / 2:
        return math.copysign(math.inf, second)
    if abs(second) > abs(first) / 10:
        return None  # slower than x^(-1/3): like 1/log(x)
    limit = far + second**2 / (first - second)
    return limit if abs(limit) > 1e-3 * abs(near) else 0.0


def _extreme(value: Array, ends: tuple[tuple[float | None, Array], ...], sign: int) -> float | None:
    """The supremum (sign 1) or infimum (-1). Oscillation that still grows by a fifth at 1e8 is unbounded."""
    top = np.fmax.reduce(sign * value)
    for limit, far in ends:
        near, last = np.fmax.reduce(sign * far[:2].ravel()), np.fmax.reduce(sign * far[2])
        if limit is None and np.isnan(far[2]).any():
            return None  # it overflows there, whatever its formula comes to
        if limit is None and last > 1.2 * max(top, near, 0):
            return sign * math.inf
        top = np.fmax(top, near if limit is None else sign * limit)
    return None if math.isnan(top) else float(sign * top)


def _discontinuities(f: Callable[[Array], Array], value: Array) -> tuple[float, ...]:
    """Where f jumps on [-5, 5], given its values at `_X`: cells over which it changes three times as much as over
    those nearby, and in which the change stays when they are divided by 31 again and again, down to 2e-12."""
    change = np.abs(np.diff(value))
    nearby = np.fmax(change[:-4], change[4:])
    found = 2 + np.flatnonzero(change[2:-2] > 3 * nearby + 1e-6 * np.maximum(1, np.abs(value[2:-3])))
    found = found[np.isfinite(change[found]) & (np.abs(_X[found] + _STEP / 2) <= 5)]
    if not found.size:
        return ()
    left, width, parts = _X[found], _STEP, change[found, None]
    for _ in range(6):
        x = left[:, None] + width * np.linspace(0, 1, 32)  # an even number: 0 is a place where f can be no number
        parts = np.nan_to_num(np.abs(np.diff(f(x))))
        left, width = x[np.arange(len(x)), parts.argmax(1)], width / 31
    stays = parts.max(1) >= change[found] / 2
    return tuple(sorted({round(float(x), 8) + 0.0 for x in left[stays] + width / 2}))


def _depth(module: Activation) -> Depth:
    value, slope = _sample(module, np.stack([_RADIUS, -_RADIUS]))
    squares = np.stack([(value**2).mean(0), (slope**2).mean(0)])

    def layer(q: float) -> tuple[float, float]:
        """The next q, and the factor of gradients: one evaluation of f serves every q."""
        mass = _RADIUS * np.exp(-(_RADIUS**2) / (2 * min(max(q, 1e-12), 1e8)))
        moments = np.where(mass == 0, 0, squares * mass).sum(1) / mass.sum()  # f may overflow where there is no mass
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
    """By Steffensen's method where steps get shorter, else by plain steps, which run away from unstable points."""
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
    """Nanoseconds an element for a forward and a backward pass in float32 on this CPU; the fastest of `repeats`."""
    module = Activation(expression)
    x = torch.randn(elements, requires_grad=True)
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        gradients(module(x), [x, *module.parameters()])
        taken.append(time.perf_counter() - start)
    return min(taken) / elements * 1e9
