"""Find out which axes of tensors are channels, from the operations that a network runs.

Convolutions and batch, group and instance norms have their channels at axis 1. Linear layers, embeddings, layer norms
and recurrent layers have them at the last axis. Other operations move axes (permute), keep them (a sum, a pooling) or
merge them (a view). An axis that passes through an operation unchanged is the same axis in its input and its output:
`Axes` joins the two. So what one layer shows about an axis holds for all tensors before and after it that share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import takewhile
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakTensorKeyDictionary

from search_space.elementwise import is_pointwise

CHANNELS = 0  # the node that all channel axes are joined with

_REDUCTIONS = ("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "linalg_vector_norm", "logsumexp")
# Torch operations that keep each dimension in its place, besides pointwise ones. `_KEEP_LIKE` has parts of names.
_KEEP = {
    *("cat", "clone", "contiguous", "detach", "alias", "lift_fresh", "_to_copy", "copy", "constant_pad_nd", "expand"),
    *("slice", "split", "split_with_sizes", "chunk", "narrow", "roll", "flip", "cumsum", "cumprod", "sort", "topk"),
    *("_softmax", "_log_softmax", "glu", "pixel_shuffle", "channel_shuffle", "native_channel_shuffle"),
    *_REDUCTIONS,
}
_KEEP_LIKE = ("pool", "dropout", "upsample", "_pad", "norm")
_FEATURES_LAST = {"layer_norm", "rms_norm", "lstm", "gru", "rnn_tanh", "rnn_relu"}  # torch functions
# Matrix products: name -> index of the left factor among the tensor arguments.
_PRODUCTS = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1, "linear": 0, "_addmm_activation": 1}


def tensors(value: object) -> Iterator[Tensor]:
    """Yield all tensors in `value`: a tensor, or nested tuples, lists, mappings and dataclasses.

    Lazy parameters, which have no shape yet, are left out.
    """
    if isinstance(value, Tensor):
        if not is_lazy(value):
            yield value
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors([getattr(value, field.name, None) for field in fields(value)])


class Axes:
    """The axes of all tensors of one run, as nodes of a union-find forest. Nodes with the same root are one axis.

    Args:
        constant: returns True for a tensor that does not depend on the network's input, such as a weight.
    """

    def __init__(self, constant: Callable[[Tensor], bool]) -> None:
        self._constant = constant
        self._parents = [CHANNELS]
        self._nodes = WeakTensorKeyDictionary()

    def of(self, x: Tensor) -> tuple[int, ...]:
        """Return the nodes of a tensor's axes, in order; create them if the tensor is new."""
        nodes = self._nodes.get(x)
        if nodes is None or len(nodes) != x.dim():
            nodes = self._nodes[x] = tuple(self._new() for _ in range(x.dim()))
        return tuple(nodes)

    def channels(self, nodes: Sequence[int]) -> list[int]:
        """Return the indices of the channel axes of a tensor with these nodes."""
        at = self._root(CHANNELS)
        return [axis for axis, node in enumerate(nodes) if self._root(node) == at]

    def called(self, name: str, result: object) -> None:
        """Record a call of a torch function whose channels its operations do not show, such as `lstm`."""
        outputs = [x for x in tensors(result) if x.dim() > 1]
        if name in _FEATURES_LAST and outputs:
            self._join(CHANNELS, self.of(outputs[0])[-1])
        elif name == "instance_norm" and outputs:
            self._join(CHANNELS, self.of(outputs[0])[1])

    def ran(self, name: str, args: Sequence[Any], before: Sequence[tuple[int, ...]], result: object) -> None:
        """Record an operation that has run.

        Args:
            name: the name of the operation in torch.ops.aten, without a last underscore.
            args: its arguments.
            before: the nodes of its input tensors before it ran. It may have changed these tensors in place.
            result: what it returned.
        """
        inputs, outputs = list(tensors(list(args))), list(tensors(result))
        if not inputs or not outputs:
            return
        if name in ("convolution", "mkldnn_convolution", "embedding") or name in _PRODUCTS:
            self._layer(name, inputs, before, outputs[0])
        elif (moved := _moved(name, args, len(before[0]), outputs[0])) is not None:
            for output in outputs:
                self._nodes[output] = tuple(self._new() if i is None else before[0][i] for i in moved)
        elif "view" in name or name == "reshape":
            self._nodes[outputs[0]] = self._viewed(before[0], inputs[0].shape, outputs[0].shape)
        elif _keeps(name):
            self._keep(inputs, before, outputs)
            self._evidence(name, args, outputs[0])
        else:
            for output in outputs:
                self._nodes.pop(output, None)

    def _layer(self, name: str, inputs: list[Tensor], before: Sequence[tuple[int, ...]], output: Tensor) -> None:
        nodes = [self._new() for _ in range(output.dim())]
        left = _PRODUCTS.get(name, 0)
        right = inputs[left + 1] if len(inputs) > left + 1 else inputs[left]
        if "convolution" in name:
            self._join(CHANNELS, before[0][1])
            nodes[1] = CHANNELS
        elif name == "embedding":
            nodes = [*before[1], CHANNELS]
        elif self._constant(right) and len(before[left]) == output.dim():
            self._join(CHANNELS, before[left][-1])
            nodes = [*before[left][:-1], CHANNELS]
        self._nodes[output] = tuple(nodes)

    def _keep(self, inputs: list[Tensor], before: Sequence[tuple[int, ...]], outputs: list[Tensor]) -> None:
        for output in outputs:
            self._nodes[output] = nodes = tuple(self._new() for _ in range(output.dim()))
            for x, axes in zip(inputs, before, strict=True):
                if len(axes) == len(nodes):
                    for size, to, one, other in zip(x.shape, output.shape, axes, nodes, strict=True):
                        if size != 1 or to == 1:  # an axis that is broadcast is another axis than in the output
                            self._join(one, other)

    def _evidence(self, name: str, args: Sequence[Any], output: Tensor) -> None:
        if "batch_norm" in name or "group_norm" in name:
            self._join(CHANNELS, self.of(output)[1])
        elif "layer_norm" in name and len(args[1]) == 1:
            self._join(CHANNELS, self.of(output)[-1])

    def _viewed(self, axes: Sequence[int], before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
        """Return the nodes of a view. Axes of equal size at the start and at the end keep their nodes."""
        nodes = [self._new() for _ in after]
        first = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))))
        last = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(before[::-1], after[::-1], strict=False))))
        nodes[:first] = axes[:first]
        if last:
            nodes[-last:] = axes[-last:]
        return tuple(nodes)

    def _new(self) -> int:
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def _root(self, node: int) -> int:
        while self._parents[node] != node:
            self._parents[node] = node = self._parents[self._parents[node]]
        return node

    def _join(self, one: int, other: int) -> None:
        self._parents[self._root(other)] = self._root(one)


def _keeps(name: str) -> bool:
    return name in _KEEP or any(part in name for part in _KEEP_LIKE) or is_pointwise(name)


def _moved(name: str, args: Sequence[Any], dims: int, output: Tensor) -> list[int | None] | None:
    """Return, for each axis of the output, the index of the same axis in the input; None for a new axis.

    Returns None instead of a list if the operation does not move axes.
    """
    axes: list[int | None] = list(range(dims))
    given = [arg for arg in args[1:] if not isinstance(arg, Tensor)]
    if name == "permute":
        return [axis % dims for axis in given[0]]
    if name in ("transpose", "t", "swapaxes"):
        one, other = (axis % dims for axis in given[:2]) if given else (0, dims - 1)
        axes[one], axes[other] = axes[other], axes[one]
        return axes
    if name == "unsqueeze":
        axes.insert(given[0] % (dims + 1), None)
        return axes
    if name == "stack":
        axes.insert((given[0] if given else 0) % (dims + 1), None)
        return axes
    if name in ("select", "unbind"):
        del axes[given[0] % dims if given else 0]
        return axes
    if name in ("squeeze", *_REDUCTIONS) and given and given[0] is not None and output.dim() < dims:
        gone = {axis % dims for axis in (given[0] if isinstance(given[0], list | tuple) else given[:1])}
        return [axis for axis in axes if axis not in gone] if output.dim() == dims - len(gone) else None
    return None
