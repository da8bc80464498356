"""The data flow of one run of a network: which operation made which values from which, and where each value is used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from search_space.axes import tensors
from search_space.elementwise import is_pointwise

_PRODUCTS = {"mul", "multiply", "mm", "bmm", "addmm", "baddbmm", "addcmul", "lerp"}
_LAYERS = ("conv", "mm", "mv", "linear", "norm", "rnn", "lstm", "gru", "dot", "embedding")  # parts of operation names
_SIGNS = {"gt", "ge", "lt", "le", "eq", "ne", "abs", "sign", "sgn", "heaviside", "signbit", "greater", "less"}
_JOINS = {"where", "masked_fill", "index_put"}


class Role(StrEnum):
    """The role of an activation in a network, which follows from where its output is used."""

    HIDDEN = "hidden"  # the output goes to another layer
    GATE = "gate"  # the output multiplies another value
    HEAD = "head"  # the output is an output of the network, and no layer uses it
    OWN_FACTOR = "own factor"  # the output multiplies the input, as the sigmoid in x * sigmoid(x) does


@dataclass(frozen=True, slots=True)
class Use:
    """One run of an operation.

    Attributes:
        name: the name of the operation, without a last underscore.
        inputs, outputs: the numbers of the values.
        layer: True if the operation combines data with weights, as a convolution does.
        inside: the name of the activation module that ran it; empty if none did.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: bool
    inside: str


class Flow:
    """The values of one run. Each value has a number; they are numbered in the order in which they are computed.

    Args:
        data: the tensors of the network's input.
        weights: its parameters and buffers.

    Attributes:
        data: the values that depend on the network's input.
        weights: the values that depend on parameters or buffers, and not on the input.
        origin: for each value, the earlier value of which it is an elementwise function; itself if there is none.
    """

    def __init__(self, data: Iterable[Tensor], weights: Iterable[Tensor]) -> None:
        self.data: set[int] = set()
        self.weights: set[int] = set()
        self._after_layer: set[int] = set()
        self.origin: list[int] = []
        self._signs: set[int] = set()  # values that switch where something changes its sign: comparisons, |x|, sign(x)
        self._uses: dict[int, list[Use]] = defaultdict(list)
        self._values = WeakTensorKeyDictionary()
        self._written: dict[int, int] = {}  # address of memory that was written in place -> the value it has since
        self.weights.update(self._new(x) for x in weights)
        self.data.update(self._new(x) for x in data)
        self._seeded = bool(self.data)  # if False, the example has no tensor, and it is unknown which values are data

    def values(self, value: object) -> tuple[int, ...]:
        """Return the values of all tensors in an object, and values that were later written into their memory."""
        found: dict[int, None] = {}
        for x in tensors(value):
            own = self._values.get(x)
            if own is None and isinstance(x, nn.Parameter):  # it was lazy, and has got its shape during the run
                self.weights.add(own := self._new(x))
            written = self._written.get(_memory(x), -1)
            found |= {} if own is None else {own: None}
            found |= {written: None} if written > (-1 if own is None else own) else {}
        return tuple(found)

    def constant(self, x: Tensor) -> bool:
        """Return True if the tensor does not depend on the network's input."""
        return self._seeded and self.data.isdisjoint(self.values(x))

    def off_path(self, values: Iterable[int]) -> bool:
        """Return True if these values depend on weights, and not on the network's input."""
        given = set(values)
        return self._seeded and self.data.isdisjoint(given) and not self.weights.isdisjoint(given)

    def ran(self, name: str, func: Any, args: object, inputs: tuple[int, ...], result: object, inside: str) -> bool:
        """Record an operation.

        Args:
            name: the name of the operation, without a last underscore.
            func: the operation, an overload of torch.ops.
            args: its positional arguments.
            inputs: the values of its arguments before it ran.
            result: what it returned.
            inside: the name of the activation module that ran it, or an empty text.

        Returns:
            True if it computes an activation by cases, as where(v > 0, v, 0) does.
        """
        if name.endswith("_like") or name.startswith("new_"):  # only the input's shape and type matter
            inputs = ()
        outputs = tuple(self._new(x) for x in tensors(result))
        mutated = [x for x, argument in zip(_listed(args), func._schema.arguments, strict=False) if _written(argument)]
        for x in tensors(mutated):
            number = self._values[x] if self._values.get(x) in outputs else self._new(x)
            self._written[_memory(x)] = number
            outputs = (*outputs, number) if number not in outputs else outputs
        data = [number for number in inputs if number in self.data]
        weights = not self.weights.isdisjoint(set(inputs) - self.data)
        layer = weights and bool(data) and any(part in name for part in _LAYERS)
        if layer or not self._after_layer.isdisjoint(inputs):
            self._after_layer.update(outputs)
        use = Use(name, inputs, outputs, layer, inside)
        for number in inputs:
            self._uses[number].append(use)
        self.data.update(outputs if data else ())
        self.weights.update(outputs if weights and not data else ())
        if name in _JOINS or is_pointwise(name):
            return self._elementwise(name, data, outputs, result)
        return False

    def _elementwise(self, name: str, data: Sequence[int], outputs: tuple[int, ...], result: object) -> bool:
        origins = {self.origin[number] for number in data}
        if len(origins) != 1:
            return False
        signs = [number in self._signs for number in data]
        joined = any(signs) and not all(signs) and all(x.is_floating_point() for x in tensors(result))
        for number in outputs:
            self.origin[number] = min(origins)
        if name in _SIGNS or (all(signs) and not joined):
            self._signs.update(outputs)
        return joined

    def _new(self, x: Tensor) -> int:
        self._values[x] = number = len(self.origin)
        self.origin.append(number)
        return number

    def role(self, taken: tuple[int, ...], made: tuple[int, ...], results: Iterable[int]) -> Role:
        """Return the role of an activation.

        Args:
            taken: its input values.
            made: its output values.
            results: the values that the network returned.
        """
        if not self._seeded:
            return Role.HIDDEN
        dependents, hidden, head = self._dependents(made), False, False
        for use, partners in self._followed(made, set(results)):
            if use is None:
                head = True
            elif not partners.isdisjoint(dependents):  # such as the image that a squeeze-and-excitation block scales
                hidden = True
            elif partners:
                own = {self.origin[number] for number in taken} & {self.origin[number] for number in partners}
                return Role.OWN_FACTOR if own else Role.GATE
            else:
                hidden |= use.layer or bool(use.inside)
        last = head and not hidden and not self._after_layer.isdisjoint(taken)
        return Role.HEAD if last else Role.HIDDEN

    def parallel(self, made: tuple[int, ...]) -> set[int]:
        """Return the values that multiply these values and do not depend on them."""
        factors = {number for _, partners in self._followed(made, set()) for number in partners}
        return {number for number in factors if self._dependents((number,)).isdisjoint(made)}

    def _followed(self, made: tuple[int, ...], results: set[int]) -> Iterator[tuple[Use | None, set[int]]]:
        """Follow values through operations up to the next layer, activation or product.

        Yields:
            (operation, the data values that it multiplies these values with). (None, empty set) if the network returns
            the value. After an addition to other data, a value is still followed, but its products do not count.
        """
        queue, seen = [(value, True) for value in made], set(made)
        while queue:
            value, factor = queue.pop()
            if value in results:
                yield None, set()
            for use in self._uses[value]:
                others = (self.data & set(use.inputs)) - {value}
                product = use.name in _PRODUCTS and not use.layer and bool(others)
                yield use, others if product and factor else set()
                if not (use.layer or use.inside or (product and factor)):
                    queue += [(number, factor and not others) for number in use.outputs if number not in seen]
                    seen.update(use.outputs)

    def _dependents(self, made: tuple[int, ...]) -> set[int]:
        """Return all values that depend on these, and these themselves."""
        queue, found = list(made), set(made)
        while queue:
            for use in self._uses[queue.pop()]:
                queue += [number for number in use.outputs if number not in found]
                found.update(use.outputs)
        return found


def _written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _listed(args: object) -> list[object]:
    return list(args) if isinstance(args, tuple | list) else [args]


def _memory(x: Tensor) -> int:
    """Return a number that is equal for all tensors that share their memory."""
    try:
        return int(x.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # some tensors have no storage, such as sparse ones
        return id(x)
