"""Where values go in a network: which operations made a value of which others, and what becomes of it."""

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
_LAYERS = ("conv", "mm", "mv", "linear", "norm", "rnn", "lstm", "gru", "dot", "embedding")  # parts of their names
_SIGNS = {"gt", "ge", "lt", "le", "eq", "ne", "abs", "sign", "sgn", "heaviside", "signbit", "greater", "less"}
_JOINS = {"where", "masked_fill", "index_put"}


class Role(StrEnum):
    """What an activation is for, by where its output goes."""

    HIDDEN = "hidden"
    GATE = "gate"  # it multiplies another value
    HEAD = "head"  # it comes out of the network, and no layer is behind it
    OWN_FACTOR = "own factor"  # it multiplies its own input, as the sigmoid of a Swish written by hand


@dataclass(frozen=True, slots=True)
class Use:
    """An operation that took some values and made others. `inside`: the activation module that ran it, if one did."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: bool
    inside: str


class Flow:
    """The values of one run as numbers, in the order in which they came to be.

    Attributes:
        data: the values that depend on the network's input.
        weights: the values that depend on parameters or buffers, and not on the input.
        origin: the value of which a value is a function element by element; itself if there is none.
    """

    def __init__(self, data: Iterable[Tensor], weights: Iterable[Tensor]) -> None:
        self.data: set[int] = set()
        self.weights: set[int] = set()
        self._after_layer: set[int] = set()
        self.origin: list[int] = []
        self._signs: set[int] = set()  # values that are constant between zeros of something: comparisons, |x|, sign(x)
        self._uses: dict[int, list[Use]] = defaultdict(list)
        self._values = WeakTensorKeyDictionary()
        self._written: dict[int, int] = {}  # memory that was written in place: the value after it
        self.weights.update(self._new(x) for x in weights)
        self.data.update(self._new(x) for x in data)
        self._seeded = bool(self.data)  # without a tensor in the example, nothing is known of where data come from

    def values(self, value: object) -> tuple[int, ...]:
        """Return the values of the tensors in an object, with what was written into their memory since."""
        found: dict[int, None] = {}
        for x in tensors(value):
            own = self._values.get(x)
            if own is None and isinstance(x, nn.Parameter):  # a lazy one that has been made
                self.weights.add(own := self._new(x))
            written = self._written.get(_memory(x), -1)
            found |= {} if own is None else {own: None}
            found |= {written: None} if written > (-1 if own is None else own) else {}
        return tuple(found)

    def constant(self, x: Tensor) -> bool:
        return self._seeded and self.data.isdisjoint(self.values(x))

    def off_path(self, values: Iterable[int]) -> bool:
        """Return True if these values are made of weights alone."""
        given = set(values)
        return self._seeded and self.data.isdisjoint(given) and not self.weights.isdisjoint(given)

    def ran(self, name: str, func: Any, args: object, inputs: tuple[int, ...], result: object, inside: str) -> bool:
        """Note an operation. Returns True if it joins values of one origin by cases, as where(v > 0, v, 0) does."""
        if name.endswith("_like") or name.startswith("new_"):  # of the input, only its shape and type count
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
        """Return what an activation that took and made these values is for."""
        if not self._seeded:
            return Role.HIDDEN
        dependents, hidden, head = self._dependents(made), False, False
        for use, partners in self._followed(made, set(results)):
            if use is None:
                head = True
            elif not partners.isdisjoint(dependents):  # as of the image that a squeeze-and-excitation block scales
                hidden = True
            elif partners:
                own = {self.origin[number] for number in taken} & {self.origin[number] for number in partners}
                return Role.OWN_FACTOR if own else Role.GATE
            else:
                hidden |= use.layer or bool(use.inside)
        last = head and not hidden and not self._after_layer.isdisjoint(taken)
        return Role.HEAD if last else Role.HIDDEN

    def parallel(self, made: tuple[int, ...]) -> set[int]:
        """Return the values that these are multiplied with and that they do not depend on."""
        factors = {number for _, partners in self._followed(made, set()) for number in partners}
        return {number for number in factors if self._dependents((number,)).isdisjoint(made)}

    def _followed(self, made: tuple[int, ...], results: set[int]) -> Iterator[tuple[Use | None, set[int]]]:
        """Follow values through operations up to layers, activations and products; also say what they multiply.

        A value that was added to another one is followed to the end of the network, but is no factor any more.
        None stands for the end.
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
        """Return all values that depend on these."""
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
    try:
        return int(x.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a tensor without memory of its own, such as a sparse one
        return id(x)
