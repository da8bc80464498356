"""Test whether a definition can become a primitive.

A primitive is computed element by element, keeps shape and type, has one value at each point, is finite where it claims
to be, and has a gradient that agrees with its slope.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from search_space.activation import default_modes, gradients
from search_space.modules import text_of
from search_space.primitives import SpaceError, Value

Apply = Callable[..., Tensor]
Interval = tuple[float, float]

DEFAULT = (-10.0, 10.0)  # the interval on which a primitive must be finite, unless `finite` says something else
_SHAPES = ((), (0,), (3,), (2, 3), (2, 3, 4, 5))
_POINTS = 120  # the number of elements of the largest shape
_IRRATIONAL = (0.6180339887498949, 0.7548776662466927)
_MAX_KINKS_HIT = 2  # points at which the gradient may be wrong because a kink lies there


@dataclass(frozen=True, slots=True)
class Candidate:
    """A definition under test.

    Attributes:
        name: of the primitive.
        variables: the names of its operands, for messages.
        function: takes one tensor per operand, and returns a tensor.
    """

    name: str
    variables: tuple[str, ...]
    function: Apply

    def error(self, what: str) -> SpaceError:
        """Return an error whose message is the primitive's name, followed by `what`."""
        return SpaceError(f"primitive {self.name!r} {what}")

    def value(self, *operands: Value) -> Tensor:
        """Call the function.

        Raises:
            SpaceError: the function raises, or returns anything but a tensor of the operands' shape and type.
        """
        tensors = [operand for operand in operands if isinstance(operand, Tensor)]
        shape, dtype = torch.broadcast_shapes(*(tensor.shape for tensor in tensors)), tensors[0].dtype
        given = ", ".join(map(_shown, operands))
        try:
            value = self.function(*operands)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a user's code may raise anything
            raise self.error(f"raises {type(error).__name__} when given {given}: {text_of(error)}") from error
        if not isinstance(value, Tensor):
            raise self.error(f"returns {value!r} when given {given}; it must return a tensor")
        if value.shape != shape or value.dtype != dtype:
            raise self.error(f"returns {_shown(value)} when given {given}; it must keep shape and type")
        return value

    @default_modes()
    def slopes(self, *operands: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the value, and the slope by each operand as autograd computes it.

        Raises:
            SpaceError: as `value`, or the gradient cannot be computed.
        """
        inputs = [operand.detach().clone().requires_grad_() for operand in operands]
        value = self.value(*inputs)
        try:
            return value.detach(), gradients(value, inputs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a user's code may raise anything
            raise self.error(f"raises {type(error).__name__} when its gradient is taken: {text_of(error)}") from error

    def location(self, point: int, operands: Sequence[Tensor]) -> str:
        """Describe the operands at an index of the flattened tensors, such as `x = -2 in float32`."""
        pairs = zip(self.variables, operands, strict=True)
        where = ", ".join(f"{name} = {float(operand.flatten()[point]):g}" for name, operand in pairs)
        return f"{where} in {_type(operands[0])}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shown(operand: Value) -> str:
    return f"{_type(operand)} of shape {tuple(operand.shape)}" if isinstance(operand, Tensor) else repr(operand)


@default_modes()
def check(candidate: Candidate, finite: Interval | None) -> None:
    """Run all tests. This takes about 20 ms.

    Args:
        candidate: the definition.
        finite: the interval on which value and slopes must be finite; None if they need not be.

    Raises:
        SpaceError: a test fails. The message names the primitive, and the point, shape or type at which it fails.
    """
    if finite is not None and not (len(finite) == 2 and all(map(math.isfinite, finite)) and finite[0] < finite[1]):
        raise candidate.error(f"cannot be tested on {finite!r}; finite takes (low, high), two numbers, or None")
    middle = _usual_part(finite or DEFAULT)
    generic = _generic_points(middle, len(candidate.variables))
    _check_pure(candidate, generic)
    _check_elementwise(candidate, generic)
    _check_types(candidate, generic)
    if len(candidate.variables) == 2:
        _check_broadcasting(candidate, *generic)
    if finite is not None:
        _check_finite(candidate, _test_points(finite, len(candidate.variables)), finite)
    _check_trainable(candidate, _test_points(middle, len(candidate.variables)), middle)
    _check_slopes(candidate, generic)


def _usual_part(interval: Interval) -> Interval:
    """Return the part of the interval inside [-10, 10], or all of it if no part lies inside.

    Inputs of activation functions usually lie in [-10, 10].
    """
    low, high = max(interval[0], DEFAULT[0]), min(interval[1], DEFAULT[1])
    return (low, high) if low < high else interval


def _generic_points(interval: Interval, arity: int) -> list[Tensor]:
    """Return one float64 tensor of 120 points per operand. They are multiples of irrational numbers, modulo 1, scaled
    to the interval: no formula is likely to have a kink or a pole at one of them."""
    low, high = interval
    steps = torch.arange(1, _POINTS + 1, dtype=torch.float64)
    return [low + (high - low) * (steps * irrational).frac() for irrational in _IRRATIONAL[:arity]]


def _test_points(interval: Interval, arity: int) -> list[Tensor]:
    """Return one float64 tensor of points per operand, with those where functions often fail.

    These are evenly spaced points with both ends of the interval, whole and half numbers, and tiny numbers. For two
    operands, they are all pairs of fewer such points.
    """
    low, high = interval
    even = torch.linspace(low, high, 1_001 if arity == 1 else 41, dtype=torch.float64)
    halves = torch.arange(-20, 21, dtype=torch.float64) / 2
    tiny = torch.tensor([sign * 10.0**-power for power in (3, 6, 9, 12, 30) for sign in (1, -1)], dtype=torch.float64)
    points = torch.cat([even, halves, tiny])
    points = points[(points >= low) & (points <= high)].unique()
    return [points] if arity == 1 else list(torch.cartesian_prod(points, points).T)


def _check_pure(candidate: Candidate, operands: Sequence[Tensor]) -> None:
    given = [operand.clone() for operand in operands]
    first = candidate.value(*given).clone()
    if not all(map(torch.equal, given, operands)):
        raise candidate.error("changes its operand in place; work on a copy: a + 1, not a.add_(1)")
    if not _same(first, candidate.value(*operands), 0.0):
        raise candidate.error("returns another value each time; it must have no randomness and no memory")


def _check_elementwise(candidate: Candidate, operands: Sequence[Tensor]) -> None:
    """Compare the values of tensors of several shapes and memory orders with the values of single elements."""
    points = zip(*(operand.split(1) for operand in operands), strict=True)
    alone = torch.cat([candidate.value(*point) for point in points])
    for shape in _SHAPES:
        count = math.prod(shape)
        shaped = [operand[:count].reshape(shape) for operand in operands]
        together = [candidate.value(*shaped)]
        if len(shape) == 4:
            together.append(candidate.value(*(one.contiguous(memory_format=torch.channels_last) for one in shaped)))
        if not all(_same(value.flatten(), alone[:count], 1e-6) for value in together):
            raise candidate.error(
                f"is not elementwise: of shape {shape} its value at a point depends on the other points"
            )


def _check_types(candidate: Candidate, operands: Sequence[Tensor]) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        try:
            candidate.value(*(operand.to(dtype) for operand in operands))
        except SpaceError as error:
            # No training here uses float16, and some torch functions do not have it on CPUs. So an exception that the
            # function raises in float16 is accepted; a wrong shape or type is not.
            if dtype != torch.float16 or error.__cause__ is None:
                raise


def _check_broadcasting(candidate: Candidate, a: Tensor, b: Tensor) -> None:
    """Check that one operand, left or right, may be a number, a 0-d tensor, or a tensor with one value per channel."""
    shape = _SHAPES[-1]
    a, b = (operand[: math.prod(shape)].reshape(shape) for operand in (a, b))
    channel, number = b[0, :, :1, :1], float(b[0, 0, 0, 0])
    for other in (channel, channel[0, 0, 0], number):
        whole = other.expand(shape) if isinstance(other, Tensor) else torch.full_like(a, other)
        for one, two, same in ((a, other, (a, whole)), (other, a, (whole, a))):
            if not _same(candidate.value(one, two), candidate.value(*same), 1e-6):
                raise candidate.error(f"has another value where an operand is {_shown(other)}, to be broadcast")


def _check_finite(candidate: Candidate, operands: Sequence[Tensor], interval: Interval) -> None:
    for dtype in (torch.float64, torch.float32):
        given = [operand.to(dtype) for operand in operands]
        value, slopes = candidate.slopes(*given)
        names = ["value", *(f"slope by {variable}" for variable in candidate.variables)]
        for name, row in zip(names, [value, *slopes], strict=True):
            if (broken := ~row.isfinite()).any():
                point = int(broken.nonzero()[0])
                raise candidate.error(
                    f"must be finite on {list(interval)}, but its {name} is {float(row[point])} at "
                    f"{candidate.location(point, given)}; give a smaller interval, finite=(low, high), or finite=None"
                )


def _check_trainable(candidate: Candidate, operands: Sequence[Tensor], interval: Interval) -> None:
    value, slopes = candidate.slopes(*operands)
    for variable, slope in zip(candidate.variables, slopes, strict=True):
        if not (slope[value.isfinite()].nan_to_num() != 0).any():
            raise candidate.error(
                f"cannot be trained through: its slope by {variable} is 0 or not a number everywhere on "
                f"{list(interval)}. Step functions have such slopes, and so has what is computed outside autograd "
                "(detach, no_grad, numpy)"
            )


def _check_slopes(candidate: Candidate, operands: Sequence[Tensor]) -> None:
    """Compare autograd's slopes with central differences. A kink may lie at one or two of the points by chance."""
    value, slopes = candidate.slopes(*operands)
    for index, (variable, slope) in enumerate(zip(candidate.variables, slopes, strict=True)):
        step = 1e-6 * operands[index].abs().clamp_min(1.0)
        up, down = (
            candidate.value(*(one + side * step if i == index else one for i, one in enumerate(operands)))
            for side in (1, -1)
        )
        wanted = ((up - down) / (2 * step)).detach()
        tolerance = 1e-4 * torch.maximum(slope.abs(), wanted.abs()) + 1e-7 * (1 + value.abs())
        wrong = (slope - wanted).abs() > tolerance  # False where either is NaN
        if wrong.sum() > _MAX_KINKS_HIT:
            point = int(wrong.nonzero()[0])
            raise candidate.error(
                f"has a gradient that is not its slope: by {variable} autograd has {float(slope[point]):g}, "
                f"differences {float(wanted[point]):g} at {candidate.location(point, operands)}"
            )


def agree(one: Candidate, other: Candidate) -> bool:
    """Return True if both functions return exactly the same values at many points within [-100, 100]."""
    points = _test_points((-100.0, 100.0), len(one.variables))
    return _same(one.value(*points), other.value(*points), 0.0)


def _same(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance / 1_000, equal_nan=True)
