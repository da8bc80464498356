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

from search_space.activation import Activation
from search_space.expression import Expression, parse
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
        example: an input, a whole batch, or a tuple of the arguments; needed for parameters per channel, and to find
            activations that are calls of functions.
        match: which modules: classes, `(name, module) -> bool`, or a pattern of dotted names such as `layers.*.act`;
            all of `ACTIVATIONS` unless given.
        per_channel: a parameter for each channel, dimension 1 of the input `(N, C)` or `(N, C, ...)`; else one for all.

    Raises:
        ParseError: text that is no expression.
        SpaceError: nothing matches; channels are asked for without an example; the example does not go through. The
            model is then as it was.
    """
    tree = parse(expression) if isinstance(expression, str) else expression
    sites = list(_sites(model, _chosen(match)))
    if not sites:
        raise SpaceError(_nothing(model, match))
    if tree.betas and per_channel and example is None:
        raise SpaceError(
            f"{str(tree)!r} has a parameter for each channel, and how many channels there are shows only when the "
            "model runs: give example=<an input, a batch>, or per_channel=False for one that all channels share"
        )
    seen = None if example is None else _dry_run(model, sites, example)
    channels, notes = {site.name: 1 for site in sites}, list(_shared(sites))
    if seen is None:
        notes.append("without example=... calls such as F.relu(x) in a forward were not looked for")
    elif tree.betas:
        for name, counts in seen.channels.items():
            channels[name], note = _decide(counts, per_channel)
            notes += [f"{name}: {note}"] if note else []
    fresh = [_like(site, model, Activation(tree, channels[site.name])) for site in sites]
    for site, module in zip(sites, fresh, strict=True):
        setattr(site.parent, site.key, module)
    _leave_fast_paths(model)
    replaced = tuple((site.name, type(site.module).__name__, channels[site.name]) for site in sites)
    functional = () if seen is None else tuple((*where, count) for where, count in seen.functional.items())
    return Surgery(str(tree), replaced, functional, tuple(notes))


def _chosen(match: Match | None) -> Callable[[str, nn.Module], bool]:
    if match is None or isinstance(match, type | tuple):
        classes = ACTIVATIONS if match is None else match
        return lambda _, module: isinstance(module, classes)
    if isinstance(match, str):
        return lambda name, _: fnmatchcase(name, match)
    return match


def _sites(model: nn.Module, chosen: Callable[[str, nn.Module], bool]) -> Iterator[_Site]:
    """Each place once, though its parent may have several names; nothing inside a chosen module."""
    visited: set[nn.Module] = set()

    def walk(parent: nn.Module, prefix: str) -> Iterator[_Site]:
        if parent in visited:
            return
        visited.add(parent)
        for key, module in parent._modules.items():  # named_children() leaves out a module's second name
            if module is None:
                continue
            if chosen(prefix + key, module):
                yield _Site(prefix + key, parent, key, module)
            else:
                yield from walk(module, f"{prefix}{key}.")

    return walk(model, "")


class _Watch(TorchFunctionMode):
    """What a model does while this context is entered: channels at each place, calls of functional activations."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.channels: dict[str, list[int]] = {name: [] for name in names}  # a number a call, 0: not at dimension 1
        self.functional: Counter[tuple[str, str]] = Counter()
        self._inside: list[tuple[str, bool]] = []  # the modules that run, and whether calls in them are of interest
        self._features_last: object = None
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name), prepend=True, with_kwargs=True)
            module.register_forward_hook(self._leave, always_call=True)

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        open_ = not self._inside or self._inside[-1][1]
        self._inside.append((name, open_ and name not in self.channels and not isinstance(module, ACTIVATIONS)))
        if name in self.channels:
            x = next((arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor)), None)
            known = x is not None and x.dim() > 1 and x is not self._features_last
            self.channels[name].append(x.shape[1] if known and x is not None else 0)

    def _leave(self, module: nn.Module, _: object, output: Any) -> None:
        self._inside.pop()
        if isinstance(module, nn.Linear) and isinstance(output, Tensor) and output.dim() > 2:
            self._features_last = output  # (N, ..., C): dimension 1 is a place in a sequence

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name.replace("_", "") in _CALLS and self._inside and self._inside[-1][1]:
            self.functional[self._inside[-1][0], str(resolve_name(func) or name)] += 1
        return func(*args, **(kwargs or {}))


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
        return 1, "dimension 1 of the input is not the channels, so all channels share each parameter"
    if per_channel and len(set(counts)) > 1:
        # An error would shut out torchvision's Bottleneck, which calls its one ReLU with 64, 64 and 256 channels.
        numbers = " and ".join(str(count) for count in dict.fromkeys(counts))
        return 1, f"one module called with {numbers} channels, so all channels share each parameter"
    note = f"one module called {len(counts)} times, so the calls share its parameters" if len(counts) > 1 else ""
    return (counts[0] if per_channel else 1), note


def _shared(sites: list[_Site]) -> Iterator[str]:
    names: dict[nn.Module, list[str]] = {}
    for site in sites:
        names.setdefault(site.module, []).append(site.name)
    for found in names.values():
        if len(found) > 1:
            yield f"{', '.join(found)} were one module and are now {len(found)}"


def _like(site: _Site, model: nn.Module, fresh: Activation) -> Activation:
    """On the device, with the type, of the parameters next to it, else of the model's first."""
    parameters = (p for module in (site.parent, model) for p in module.parameters() if p.is_floating_point())
    if (near := next(parameters, None)) is not None:
        fresh.to(near.device, near.dtype)
    return fresh.train(site.module.training)


def _leave_fast_paths(model: nn.Module) -> None:
    """A transformer layer in eval mode computes the relu or gelu that it was made with, past its `activation`."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and isinstance(module.activation, Activation):
            module.activation_relu_or_gelu = 0
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):  # and its nested tensors go through that fast path only
            module.use_nested_tensor &= all(getattr(layer, "activation_relu_or_gelu", 0) for layer in module.layers)


def _nothing(model: nn.Module, match: Match | None) -> str:
    if isinstance(model, ACTIVATIONS):
        return "the model is an activation itself, with no place to put another: use Activation(expression, channels)"
    found = Counter(type(module).__name__ for module in model.modules() if module is not model)
    classes = ", ".join(f"{name} ({count})" for name, count in sorted(found.items())) or "none"
    return (
        f"no module is {'an activation of torch' if match is None else 'matched'}; modules found: {classes}; say which "
        "with match=<a class>, match=<(name, module) -> bool> or match='<pattern of dotted names>'"
    )


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
