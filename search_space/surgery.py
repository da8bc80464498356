"""Put an expression in the place of the activation functions of any network.

A network is changed in place: each activation module is replaced by an `Activation` of its own, with as many channels
as a dry run on a copy saw there. The dry run (search_space/dryrun.py) also shows which modules are gates or output
heads, and which activations are calls in a `forward` (`F.relu(x)`), which no exchange of modules can reach.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from search_space import remarks
from search_space.activation import Activation
from search_space.dryrun import Call, Example, Recorder, Site, dry_run, need_in_place
from search_space.elementwise import ACTIVATIONS, CALLS, is_activation
from search_space.expression import Expression, as_expression
from search_space.primitives import SpaceError
from search_space.remarks import (
    HOOKS,
    OFF_PATH,
    REASONS,
    SEVERAL_INPUTS,
    Kept,
    Surgery,
    functional,
    kept_calls,
    kind,
    notes,
    reason_lines,
)

Match = type[nn.Module] | tuple[type[nn.Module], ...] | Callable[[str, nn.Module], bool] | str

_MATCH_HINT = "name it in match= to replace it all the same"


class NothingToReplace(SpaceError):
    """A model without an activation. `found` is what it has instead; `how`, if there is something to say, which
    arguments would name what to replace."""

    def __init__(self, found: str, how: str = "", kept: Sequence[Kept] = ()) -> None:
        super().__init__(f"{found}{how}")
        self.found, self.how, self.kept = found, how, tuple(kept)


def replace_activations(
    model: nn.Module,
    expression: Expression | str,
    example: Example | None = None,
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
        example: an input, a whole batch; a tuple of the arguments; or a dictionary of named arguments. It shows how
            many channels there are, calls of functions, gates and output heads.
        match: which modules. If not given: all activations of torch and all modules that compute one
            (search_space/elementwise.py), except gates, output heads and what makes weights. A pattern such as
            `layers.*.act`: the activations whose dotted names are like it, gates and heads among them. A class, a
            tuple of classes or `(name, module) -> bool`: any modules.
        per_channel: a parameter for each channel, where the dry run shows the dimension that channels have, 1 or -1;
            if False, and elsewhere, one for all.

    Raises:
        ParseError: text that is no expression.
        SpaceError: an argument of another type; nothing matches; channels are asked for without an example; the
            example does not go through; an activation inside a module of torch.jit.script. The model is then as it
            was.
    """
    _check(model, expression, match)
    tree = as_expression(expression)
    everything = list(_sites(model, lambda _, module: is_activation(module)))
    chosen = everything if match is None else list(_sites(model, _chosen(match, everything)))
    if match is None:
        _refuse_scripts(model)
    if not chosen:
        raise _nothing_to_replace(model, match, example, everything)
    if tree.betas and per_channel and example is None:
        raise SpaceError(
            f"{str(tree)!r} has a parameter for each channel, and how many channels there are shows only when the "
            "model runs: give example=<an input, a batch>, or per_channel=False for one that all channels share"
        )
    seen = None if example is None else dry_run(model, chosen, example, {site.name for site in everything})
    kept = [row for site in chosen if (row := _reason_to_keep(site, seen, match)) is not None]
    sites = [site for site in chosen if site.name not in {row.name for row in kept}]
    if not sites:
        raise NothingToReplace(f"every activation stays: {'; '.join(reason_lines(kept))}", f"; {_MATCH_HINT}", kept)
    return _replace(model, tree, sites, seen, kept, match=match, example=example, per_channel=per_channel)


def _replace(
    model: nn.Module,
    tree: Expression,
    sites: list[Site],
    seen: Recorder | None,
    kept: list[Kept],
    *,
    match: Match | None,
    example: Example | None,
    per_channel: bool,
) -> Surgery:
    in_place = [] if seen is None or example is None else need_in_place(model, sites, example, seen)
    layouts = {site.name: _layout(site.name, seen, per_channel) if tree.betas else _Layout() for site in sites}
    calls = [] if seen is None else [*kept_calls(seen)]
    all_notes = [*notes(model, sites, seen, [*kept, *calls], match), *map(remarks.in_place, in_place)]
    if seen is not None:
        all_notes += [f"{name}: {layout.note}" for name, layout in layouts.items() if layout.note]
    report = Surgery(
        expression=str(tree),
        replaced=tuple((site.name, kind(site.module), layouts[site.name].channels) for site in sites),
        functional=() if seen is None else tuple(functional(seen, kept)),
        notes=tuple(all_notes),
        kept=(*kept, *calls),
        last=tuple(name for name, layout in layouts.items() if layout.dim == -1),
        in_place=tuple(in_place),
    )
    fresh = [_prepared(site, model, layouts[site.name].make(tree)) for site in sites]
    for site, module in zip(sites, fresh, strict=True):
        setattr(site.parent, site.key, module)
    _disable_fast_paths(model)
    return report


def _check(model: object, expression: object, match: object) -> None:
    if not isinstance(model, nn.Module):
        raise SpaceError(f"the model must be a torch.nn.Module, not {model!r}; give the network itself")
    if isinstance(model, torch.jit.ScriptModule):
        raise SpaceError("the model itself is compiled by torch.jit.script; give the module from which it was made")
    if not isinstance(expression, Expression | str):
        raise SpaceError(f"the expression must be text such as 'x * sigmoid(beta * x)' or a tree, not {expression!r}")
    other = match is None or isinstance(match, str) or (callable(match) and not isinstance(match, type | nn.Module))
    classes = match if isinstance(match, tuple) else (match,)
    if not other and not all(isinstance(cls, type) and issubclass(cls, nn.Module) for cls in classes):
        raise SpaceError(f"match={match!r}: give a class of modules, a tuple of them, a predicate or a name pattern")


def _chosen(match: Match, activations: Sequence[Site]) -> Callable[[str, nn.Module], bool]:
    if isinstance(match, type | tuple):
        return lambda _, module: isinstance(module, match)
    if isinstance(match, str):  # '*' is every activation, not every module
        modules = {id(site.module) for site in activations}
        return lambda name, module: id(module) in modules and fnmatchcase(name, match)
    return match


def _sites(model: nn.Module, chosen: Callable[[str, nn.Module], bool]) -> Iterator[Site]:
    """Return each place once, though its parent may have several names; nothing inside a chosen module."""
    visited: set[nn.Module] = set()

    def walk(parent: nn.Module, prefix: str) -> Iterator[Site]:
        if parent in visited or isinstance(parent, torch.jit.ScriptModule):
            return
        visited.add(parent)
        for key, module in parent._modules.items():  # named_children() leaves out a module's second name
            if module is not None and chosen(prefix + key, module):
                yield Site(prefix + key, parent, key, module)
            elif module is not None:
                yield from walk(module, f"{prefix}{key}.")

    return walk(model, "")


def _refuse_scripts(model: nn.Module) -> None:
    """Raise SpaceError if a module of torch.jit.script or torch.jit.trace has activations inside."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and not is_activation(module):
            operations = dict.fromkeys(re.findall(r"aten::(\w+)", str(module.inlined_graph)))
            if inside := [word for word in operations if word.replace("_", "") in CALLS]:
                raise SpaceError(
                    f"{name}: this module is compiled by torch.jit.script, and what it calls ({', '.join(inside)}) "
                    "cannot be replaced; give it as it was before that, or say with match= which other activations "
                    "to replace"
                )


def _reason_to_keep(site: Site, seen: Recorder | None, match: Match | None) -> Kept | None:
    """Return why an activation is not replaced, if it is not. What is asked for by name or class is."""
    calls = [] if seen is None else seen.module_calls[site.name]
    reason = ""
    if ".parametrizations." in f".{site.name}" and (match is None or isinstance(match, str | type | tuple)):
        reason = OFF_PATH
    elif seen is not None and calls and match is None:
        if any(seen.flow.off_path(call.taken) for call in calls):
            reason = OFF_PATH
        elif not all(call.plain for call in calls):
            reason = SEVERAL_INPUTS
        else:
            reason = REASONS.get(seen.role(calls), "")
    return Kept(site.name, kind(site.module), reason) if reason else None


@dataclass(frozen=True, slots=True)
class _Layout:
    """How many channels a new activation has, in which dimension, and what to note about it."""

    channels: int = 1
    dim: int = 1
    note: str = ""

    def make(self, tree: Expression) -> Activation:
        return Activation(tree, self.channels, dim=self.dim)


def _layout(name: str, seen: Recorder | None, per_channel: bool) -> _Layout:
    calls = [] if seen is None else seen.module_calls[name]
    note = f"one module called {len(calls)} times, so the calls share its parameters" if len(calls) > 1 else ""
    if seen is None or not per_channel:
        return _Layout(note=note)
    if not calls:
        return _Layout(note="the example does not come here, so all channels share each parameter")
    dims = set.intersection(*(_dims(call, seen) for call in calls))
    if len(dims) == 2 and any(len(call.shape) > 2 for call in calls):
        return _Layout(
            note="dimension 1 of the input and the last both look like channels, so all share each parameter"
        )
    if not dims:
        return _Layout(note="nothing shows which dimension of the input is channels, so all share each parameter")
    dim = max(dims)
    counts = dict.fromkeys(call.shape[dim] if len(call.shape) > 1 else call.shape[0] for call in calls)
    if len(counts) > 1:
        # An error would shut out torchvision's Bottleneck, which calls its one ReLU with 64, 64 and 256 channels.
        numbers = " and ".join(map(str, counts))
        return _Layout(note=f"one module called with {numbers} channels, so all channels share each parameter")
    return _Layout(next(iter(counts)), dim, note)


def _dims(call: Call, seen: Recorder) -> set[int]:
    """Return which of 1 and -1 is the dimension of the channels; both for (batch, features), without evidence."""
    last = len(call.shape) - 1
    axes = seen.axes.channels(call.nodes)
    if last == 1:
        return {1, -1} if 1 in axes or 0 not in axes else set()
    return {dim for dim, axis in ((1, 1), (-1, last)) if axis in axes}


def _prepared(site: Site, model: nn.Module, fresh: Activation) -> Activation:
    """Move it to the device and type of the nearest parameters before it, else of the parent's or the model's first.

    It takes over the hooks of the old module, so that the handles of those who registered them still remove them.
    """
    siblings = list(site.parent._modules.items())
    before = [module for _, module in siblings[: [key for key, _ in siblings].index(site.key)] if module is not None]
    near_first = (*reversed(before), site.parent, model)
    parameters = (p for module in near_first for p in module.parameters() if p.is_floating_point())
    if (near := next(parameters, None)) is not None:
        fresh.to(near.device, near.dtype)
    for name in HOOKS:
        if getattr(site.module, name, None):
            setattr(fresh, name, getattr(site.module, name))
    fresh._is_full_backward_hook = getattr(site.module, "_is_full_backward_hook", None)
    return fresh.train(site.module.training)


def _disable_fast_paths(model: nn.Module) -> None:
    """A transformer layer in eval mode computes the relu or gelu that it was made with, past its `activation`."""
    for module in reversed([*model.modules()]):  # layers before what they are in
        if isinstance(module, nn.TransformerEncoderLayer) and isinstance(module.activation, Activation):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder):  # its nested tensors go through that fast path only
            module.use_nested_tensor &= all(getattr(layer, "activation_relu_or_gelu", 0) for layer in module.layers)


def _nothing_to_replace(
    model: nn.Module, match: Match | None, example: Example | None, activations: Collection[Site]
) -> NothingToReplace:
    if isinstance(model, ACTIVATIONS):
        whole = "the model is an activation itself, with no place to put another: use Activation(expression, channels)"
        return NothingToReplace(whole)
    named = f"an activation of torch with a name like {match!r}" if isinstance(match, str) else "matched"
    what = f"no module is {'an activation of torch' if match is None else named}"
    if activations:
        names = ", ".join(f"{site.name} ({kind(site.module)})" for site in activations)
        return NothingToReplace(f"{what}; activations found: {names}")
    if example is not None and (calls := dry_run(model, [], example).function_calls):
        found = ", ".join(f"{call} in {name or 'the model itself'} ({len(n)})" for (name, call), n in calls.items())
        how = "self.act = nn.ReLU() and self.act(x), or activation=nn.ReLU() for torch's transformer layers"
        swap = "a call cannot be swapped: change the code to make a module of it"
        return NothingToReplace(f"{what}; calls found: {found}; {swap}, {how}")
    classes = Counter(type(module).__name__ for module in model.modules() if module is not model)
    found = ", ".join(f"{name} ({count})" for name, count in sorted(classes.items())) or "none"
    how = "match=<a class>, match=<(name, module) -> bool> or match='<pattern of dotted names of activations>'"
    more = "; example=<an input, a batch> also finds calls such as F.relu(x)" if example is None else ""
    return NothingToReplace(f"{what}; modules found: {found}", f"; say which with {how}{more}")
