"""Swapping the activation functions of any network.

A network is changed in place: each place where an activation module stands gets an `Activation` of its own, with as
many channels as a dry run saw there. What no swap of modules can reach (`F.relu(x)` in a `forward`) is reported.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakTensorKeyDictionary

from search_space.activation import Activation
from search_space.expression import Expression, as_expression
from search_space.primitives import SpaceError

Match = type[nn.Module] | tuple[type[nn.Module], ...] | Callable[[str, nn.Module], bool] | str

# The functions of one number. Softmax and GLU mix numbers; Threshold and MultiheadAttention are torch's filing.
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Hardshrink, nn.Softshrink, nn.Softplus, nn.Softsign),
    *(nn.Tanh, nn.Tanhshrink, nn.Sigmoid, nn.LogSigmoid, Activation),
)
# Their functions, without underscores: relu, relu_, leaky_relu, log_sigmoid.
_CALLS = {cls.__name__.lower() for cls in ACTIVATIONS} | {"specialexpit"}
_CONVOLUTIONS = {f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)}
_NORMS = {"batch_norm", "group_norm", "instance_norm"}  # of channels, which they take to be at dimension 1
# What leaves dimensions in their places, besides pointwise functions of torch, pooling and dropout.
_KEEP = {
    *("rsub", "rdiv", "rpow", "cat", "concat", "concatenate", "pad", "interpolate", "pixel_shuffle", "channel_shuffle"),
    *("chunk", "split", "clone", "contiguous", "detach", "to", "float", "double", "half", "bfloat16", "mean", "sum"),
    *("amax", "amin", "max", "min", "var", "std", "softmax", "normalize", "layer_norm", "rms_norm", "expand"),
}


class NothingToReplace(SpaceError):
    """A model without an activation. `found` is what it has instead; `how`, if there is something to say, which
    arguments would name what to replace."""

    def __init__(self, found: str, how: str = "") -> None:
        super().__init__(f"{found}{how}")
        self.found, self.how = found, how


@dataclass(frozen=True, slots=True)
class Surgery:
    """What was done to a network; `str` of it is for reading.

    `replaced`: (name, class before, channels). `functional`: (name of the module, function, calls), activations that
    are calls in its `forward` and so stayed; the root's name is "". `notes`: what a person should know, a line each.
    """

    expression: str
    replaced: tuple[tuple[str, str, int], ...]
    functional: tuple[tuple[str, str, int], ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{_times(len(self.replaced), 'module')} replaced by {self.expression}"]
        lines += [f"  {name}: {old}, {_times(channels, 'channel')}" for name, old, channels in self.replaced]
        if self.functional:
            lines.append("stayed, because only a change of the code could replace a call in a forward:")
        for name, function, count in self.functional:
            lines.append(f"  {name or 'the model itself'}: {function}, {_times(count, 'call')}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


@dataclass(frozen=True, slots=True)
class _Site:
    """A place in the tree of modules: `module` is registered in `parent` as `key`."""

    name: str
    parent: nn.Module
    key: str
    module: nn.Module


def replace_activations(
    model: nn.Module,
    expression: Expression | str,
    example: Tensor | tuple[Any, ...] | None = None,
    *,
    match: Match | None = None,
    per_channel: bool = True,
) -> Surgery:
    """Put `expression` in the place of activation modules, in `model` itself; make the optimiser afterwards.

    The example goes through a copy of the model (eval mode, no gradients; the state of the random numbers is put
    back), so this needs the memory of a second model for a moment and changes nothing but the activations.

    Args:
        model: any module; what it computes between its modules does not matter.
        expression: a tree, or its text.
        example: an input, a whole batch, or a tuple of the arguments; to count channels and to find calls of functions.
        match: which modules: all of `ACTIVATIONS` unless given; those of them with a dotted name like a pattern such
            as `layers.*.act`; or any module at all, by class or by `(name, module) -> bool`.
        per_channel: a parameter for each channel, dimension 1 of the input; else one for all, as also where an input
            of 3 or more dimensions has no convolution and no batch, group or instance norm before or behind it.

    Raises:
        ParseError: text that is no expression.
        SpaceError: an argument of another type; nothing matches; channels are asked for without an example; the
            example does not go through. The model is then as it was.
    """
    _check(model, expression, match)
    tree = as_expression(expression)
    sites = list(_sites(model, _chosen(match)))
    if not sites:
        raise _nothing(model, match, example)
    if tree.betas and per_channel and example is None:
        raise SpaceError(
            f"{str(tree)!r} has a parameter for each channel, and how many channels there are shows only when the "
            "model runs: give example=<an input, a batch>, or per_channel=False for one that all channels share"
        )
    seen = None if example is None else _dry_run(model, sites, example)
    channels, notes = {site.name: 1 for site in sites}, _shared(sites)
    if seen is None:
        notes.append("without example=... calls such as F.relu(x) in a forward were not looked for")
    elif tree.betas:
        for name in seen.inputs:
            channels[name], note = _decide(seen.channels(name), per_channel)
            notes += [f"{name}: {note}"] if note else []
    fresh = [_like(site, model, Activation(tree, channels[site.name])) for site in sites]
    for site, module in zip(sites, fresh, strict=True):
        setattr(site.parent, site.key, module)
    _leave_fast_paths(model)
    replaced = tuple((site.name, type(site.module).__name__, channels[site.name]) for site in sites)
    functional = () if seen is None else tuple((*where, count) for where, count in seen.functional.items())
    return Surgery(str(tree), replaced, functional, tuple(notes))


def _check(model: object, expression: object, match: object) -> None:
    if not isinstance(model, nn.Module):
        raise SpaceError(f"the model must be a torch.nn.Module, not {model!r}; give the network itself")
    if not isinstance(expression, Expression | str):
        raise SpaceError(f"the expression must be text such as 'x * sigmoid(beta * x)' or a tree, not {expression!r}")
    other = match is None or isinstance(match, str) or (callable(match) and not isinstance(match, type | nn.Module))
    classes = match if isinstance(match, tuple) else (match,)
    if not other and not all(isinstance(cls, type) and issubclass(cls, nn.Module) for cls in classes):
        raise SpaceError(f"match={match!r}: give a class of modules, a tuple of them, a predicate or a name pattern")


def _chosen(match: Match | None) -> Callable[[str, nn.Module], bool]:
    if match is None or isinstance(match, type | tuple):
        classes = ACTIVATIONS if match is None else match
        return lambda _, module: isinstance(module, classes)
    if isinstance(match, str):  # '*' is every activation, not every module
        return lambda name, module: isinstance(module, ACTIVATIONS) and fnmatchcase(name, match)
    return match


def _sites(model: nn.Module, chosen: Callable[[str, nn.Module], bool]) -> Iterator[_Site]:
    """Each place once, though its parent may have several names; nothing inside a chosen module."""
    visited: set[nn.Module] = set()

    def walk(parent: nn.Module, prefix: str) -> Iterator[_Site]:
        if parent in visited:
            return
        visited.add(parent)
        for key, module in parent._modules.items():  # named_children() leaves out a module's second name
            if module is not None and chosen(prefix + key, module):
                yield _Site(prefix + key, parent, key, module)
            elif module is not None:
                yield from walk(module, f"{prefix}{key}.")

    return walk(model, "")


class _Layouts:
    """Which tensors have their channels at dimension 1: those joined to 0, as convolutions and norms join them.

    Functions that leave dimensions in their places join inputs and outputs; so what comes later counts too.
    """

    def __init__(self) -> None:
        self._parents = [0]  # a forest of numbers of tensors; joined are those with the same root
        self._numbers = WeakTensorKeyDictionary()

    def number(self, x: Tensor) -> int:
        if x not in self._numbers:
            self._numbers[x] = len(self._parents)
            self._parents.append(len(self._parents))
        return int(self._numbers[x])

    def root(self, number: int) -> int:
        while self._parents[number] != number:
            number = self._parents[number]
        return number

    def follow(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Join what a call shows to be alike."""
        inputs, outputs, alike = list(_tensors(args)), list(_tensors(result)), [0]
        if name in _NORMS or (name in _CONVOLUTIONS and inputs[0].dim() == inputs[1].dim()):  # not of (C, ...)
            alike += map(self.number, (inputs[0], *outputs))
        elif outputs and _keeps(name, args):  # what is broadcast, a shared scale of (1, 1, 1) too, says nothing
            to = outputs[0].shape
            same = [x for x in inputs + outputs if x.dim() == len(to) and (1 not in x.shape[1:2] or 1 in to[1:2])]
            alike = [self.number(x) for x in same]
        else:
            for x in outputs:
                self._numbers.pop(x, None)  # transpose_ returns its input, which was something else
        for number in alike[1:]:
            self._parents[self.root(number)] = self.root(alike[0])


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    for item in value if isinstance(value, tuple | list) else ():
        yield from _tensors(item)


def _keeps(name: str, args: tuple[Any, ...]) -> bool:
    if name == "__getitem__":  # x[:, :, ::2] does; a number or None moves dimensions
        return all(isinstance(i, slice) or i is ... for i in (args[1] if isinstance(args[1], tuple) else args[1:]))
    name = name.strip("_")
    listed = name in _KEEP or name.replace("_", "") in _CALLS or "pool" in name or "dropout" in name
    operator: Any = getattr(torch.ops.aten, name, None)
    overloads = operator.overloads() if hasattr(operator, "overloads") else ()
    return listed or any(torch.Tag.pointwise in getattr(operator, overload).tags for overload in overloads)


class _Watch(TorchFunctionMode):
    """What a model does while this context is entered: inputs at each place, calls of functional activations."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.inputs: dict[str, list[tuple[torch.Size, int]]] = {name: [] for name in names}  # of each call
        self.functional: Counter[tuple[str, str]] = Counter()
        self._inside: list[tuple[str, bool]] = []  # the modules that run, and whether calls in them are of interest
        self._layouts = _Layouts()
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name), prepend=True, with_kwargs=True)
            module.register_forward_hook(self._leave, always_call=True)

    def channels(self, name: str) -> list[int]:
        """Of each call; 0 where they are not known to be at dimension 1. (N, features) needs no evidence."""
        root, at_1 = self._layouts.root, self._layouts.root(0)
        return [shape[1] if len(shape) == 2 or root(number) == at_1 else 0 for shape, number in self.inputs[name]]

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        open_ = not self._inside or self._inside[-1][1]
        self._inside.append((name, open_ and name not in self.inputs and not isinstance(module, ACTIVATIONS)))
        if name in self.inputs:
            x = next(_tensors((*args, *kwargs.values())), torch.empty(()))
            self.inputs[name].append((x.shape, self._layouts.number(x)))

    def _leave(self, *_: object) -> None:
        self._inside.pop()

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if self._inside and self._inside[-1][1] and (name.replace("_", "") in _CALLS or _relu(name, args, kwargs)):
            self.functional[self._inside[-1][0], str(resolve_name(func) or name)] += 1
        result = func(*args, **kwargs)
        self._layouts.follow(name, (*args, *kwargs.values()), result)
        return result


def _relu(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """x.clamp(min=0), torch.maximum(x, zeros), F.threshold(x, 0, 0): relu by another name."""
    if name.strip("_") == "threshold":
        given = {**dict(zip(("threshold", "value"), args[1:], strict=False)), **kwargs}
        return given.get("threshold") == given.get("value") == 0
    low, high = (*args[1:], kwargs.get("min", kwargs.get("other")))[0], (*args[2:], kwargs.get("max"))[0]
    if name.rstrip("_") not in ("clamp", "clip", "clamp_min", "maximum", "max", "fmax") or high is not None:
        return False
    if name == "max" and not isinstance(low, Tensor):  # a dimension
        return False
    return low == 0 if isinstance(low, int | float) else type(low) is Tensor and not low.is_meta and not low.any()


def _dry_run(model: nn.Module, sites: list[_Site], example: Tensor | tuple[Any, ...]) -> _Watch:
    """On a copy, because a run changes running statistics, lazy modules, and inputs where activations work in place."""
    cards = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    lazy: list[Any] = [buffer for buffer in model.buffers() if is_lazy(buffer)]  # torch cannot copy these
    blank = {id(buffer): type(buffer)(device=buffer.device, dtype=buffer.dtype) for buffer in lazy}
    try:
        model, sites, example = copy.deepcopy((model, sites, example), blank)
    except Exception as error:
        raise SpaceError(
            f"the model and the example cannot be copied for a dry run ({type(error).__name__}: {error}); "
            "without example=... and with per_channel=False none is needed"
        ) from error
    for site in sites:
        setattr(site.parent, site.key, copy.deepcopy(site.module))  # one object a place, as there will be
    watch = _Watch(model.eval(), [site.name for site in sites])
    try:
        with torch.random.fork_rng(sorted(cards)), torch.no_grad(), watch:
            model(*example) if isinstance(example, tuple) else model(example)
    except Exception as error:
        raise SpaceError(f"the example did not go through the model: {type(error).__name__}: {error}") from error
    return watch


def _decide(counts: list[int], per_channel: bool) -> tuple[int, str]:
    """Channels for a module that was called with these, and what to note."""
    if per_channel and not counts:
        return 1, "the example does not come here, so all channels share each parameter"
    if per_channel and 0 in counts:
        return 1, "nothing shows that dimension 1 of the input is channels, so all share each parameter"
    if per_channel and len(set(counts)) > 1:
        # An error would shut out torchvision's Bottleneck, which calls its one ReLU with 64, 64 and 256 channels.
        numbers = " and ".join(str(count) for count in dict.fromkeys(counts))
        return 1, f"one module called with {numbers} channels, so all channels share each parameter"
    note = f"one module called {len(counts)} times, so the calls share its parameters" if len(counts) > 1 else ""
    return (counts[0] if per_channel else 1), note


def _shared(sites: list[_Site]) -> list[str]:
    names: dict[nn.Module, list[str]] = {}
    for site in sites:
        names.setdefault(site.module, []).append(site.name)
    return [f"{', '.join(found)} were one module and are now {len(found)}" for found in names.values() if found[1:]]


def _like(site: _Site, model: nn.Module, fresh: Activation) -> Activation:
    """On the device, with the type, of the nearest parameters before it, else of the parent's or the model's first."""
    siblings = list(site.parent._modules.items())
    before = [module for _, module in siblings[: [key for key, _ in siblings].index(site.key)] if module is not None]
    near_first = (*reversed(before), site.parent, model)
    parameters = (p for module in near_first for p in module.parameters() if p.is_floating_point())
    if (near := next(parameters, None)) is not None:
        fresh.to(near.device, near.dtype)
    return fresh.train(site.module.training)


def _leave_fast_paths(model: nn.Module) -> None:
    """A transformer layer in eval mode computes the relu or gelu that it was made with, past its `activation`."""
    for module in reversed([*model.modules()]):  # layers before what they are in
        if isinstance(module, nn.TransformerEncoderLayer) and isinstance(module.activation, Activation):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder):  # its nested tensors go through that fast path only
            module.use_nested_tensor &= all(getattr(layer, "activation_relu_or_gelu", 0) for layer in module.layers)


def _nothing(model: nn.Module, match: Match | None, example: Tensor | tuple[Any, ...] | None) -> NothingToReplace:
    if isinstance(model, ACTIVATIONS):
        whole = "the model is an activation itself, with no place to put another: use Activation(expression, channels)"
        return NothingToReplace(whole)
    named = f"an activation of torch with a name like {match!r}" if isinstance(match, str) else "matched"
    what = f"no module is {'an activation of torch' if match is None else named}"
    if example is not None and (calls := _dry_run(model, [], example).functional):
        found = ", ".join(f"{call} in {name or 'the model itself'} ({count})" for (name, call), count in calls.items())
        how = "self.act = nn.ReLU() and self.act(x), or activation=nn.ReLU() for torch's transformer layers"
        swap = "a call cannot be swapped: change the code to make a module of it"
        return NothingToReplace(f"{what}; calls found: {found}; {swap}, {how}")
    classes = Counter(type(module).__name__ for module in model.modules() if module is not model)
    found = ", ".join(f"{name} ({count})" for name, count in sorted(classes.items())) or "none"
    how = "match=<a class>, match=<(name, module) -> bool> or match='<pattern of dotted names of activations>'"
    more = "; example=<an input, a batch> also finds calls such as F.relu(x)" if example is None else ""
    return NothingToReplace(f"{what}; modules found: {found}", f"; say which with {how}{more}")


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
