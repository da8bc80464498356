"""Replace the activation functions of a network by an expression.

The network is changed in place: each activation module is replaced by a new `Activation`. Its number of channels comes
from a dry run on a copy (search_space/dryrun.py). The dry run also shows which modules are gates or output heads. Some
activations are function calls in a `forward`, such as `F.relu(x)`. They are reported, but cannot be replaced.
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
    """The model has no activation that can be replaced.

    Attributes:
        found: what was found in the model.
        how: how to say with `match` what to replace; empty if that would not help.
        kept: the activations that stay.
    """

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
    """Replace activation modules of `model`, in place, by `expression`. Make the optimizer afterwards.

    If there is an example, a copy of the model is run on it, in eval mode and without gradients. So memory for a second
    model is needed for a short time. Nothing changes except the activations; the random state is restored.

    Args:
        model: any module.
        expression: a tree, or its text.
        example: an input with a whole batch, a tuple of arguments, or a dictionary of named arguments. The numbers of
            channels, function calls, gates and output heads are found with it.
        match: the modules to replace. If not given, all activation modules (search_space/elementwise.py), except gates,
            output heads and what makes weights. A pattern such as `layers.*.act` selects activations by their dotted
            names; gates and heads can be among them. A class, a tuple of classes or a function `(name, module) -> bool`
            selects any modules.
        per_channel: if True, each channel has its own parameters, if the dry run shows which dimension (1 or -1) has
            the channels; otherwise all channels share them. If False, all channels share them.

    Returns:
        A report of what was replaced, what was not, and why.

    Raises:
        ParseError: the text is not an expression.
        SpaceError: an argument has the wrong type; the expression has parameters, `per_channel` is True and there is no
            example; the model cannot be copied or fails on the example; or a torch.jit.script module contains
            activations. The model has not changed then.
        NothingToReplace: no activation was found, or all stay. This is a SpaceError too.
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
            f"{str(tree)!r} has a parameter for each channel, and the number of channels is known only when the "
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
    """Return a function (name, module) -> bool that selects what `match` means."""
    if isinstance(match, type | tuple):
        return lambda _, module: isinstance(module, match)
    if isinstance(match, str):  # '*' selects every activation, not every module
        modules = {id(site.module) for site in activations}
        return lambda name, module: id(module) in modules and fnmatchcase(name, match)
    return match


def _sites(model: nn.Module, chosen: Callable[[str, nn.Module], bool]) -> Iterator[Site]:
    """Yield the sites of the chosen modules. Modules inside a chosen module are not searched.

    A site is yielded once, even if its parent has several names.
    """
    visited: set[nn.Module] = set()

    def walk(parent: nn.Module, prefix: str) -> Iterator[Site]:
        if parent in visited or isinstance(parent, torch.jit.ScriptModule):
            return
        visited.add(parent)
        for key, module in parent._modules.items():  # named_children() would omit the second name of a module
            if module is not None and chosen(prefix + key, module):
                yield Site(prefix + key, parent, key, module)
            elif module is not None:
                yield from walk(module, f"{prefix}{key}.")

    return walk(model, "")


def _refuse_scripts(model: nn.Module) -> None:
    """Raise SpaceError if a module made by torch.jit.script or torch.jit.trace contains activations."""
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
    """Return why an activation is not replaced; None if it is. `match` overrides most reasons."""
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
    """The channels of a new activation.

    Attributes:
        channels: their number; 1 if all channels share each parameter.
        dim: their dimension.
        note: a remark for the user; empty if there is none.
    """

    channels: int = 1
    dim: int = 1
    note: str = ""

    def make(self, tree: Expression) -> Activation:
        return Activation(tree, self.channels, dim=self.dim)


def _layout(name: str, seen: Recorder | None, per_channel: bool) -> _Layout:
    """Return the layout of the activation at a site, from the recorded calls of the old module."""
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
        # This is not an error, because torchvision's Bottleneck calls its only ReLU with 64, 64 and 256 channels.
        numbers = " and ".join(map(str, counts))
        return _Layout(note=f"one module called with {numbers} channels, so all channels share each parameter")
    return _Layout(next(iter(counts)), dim, note)


def _dims(call: Call, seen: Recorder) -> set[int]:
    """Return the possible dimensions of the channels, 1 and -1: both for (batch, features), unless the channels are
    dimension 0."""
    last = len(call.shape) - 1
    axes = seen.axes.channels(call.nodes)
    if last == 1:
        return {1, -1} if 1 in axes or 0 not in axes else set()
    return {dim for dim, axis in ((1, 1), (-1, last)) if axis in axes}


def _prepared(site: Site, model: nn.Module, fresh: Activation) -> Activation:
    """Return the new activation with the device, dtype, mode and hooks that it needs at this site.

    Device and dtype come from the nearest module before it that has parameters, else from the parent or the model. The
    hooks are moved from the old module, so the handles that were returned at their registration still remove them.
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
    """Turn off the fast paths of torch's transformer layers.

    In eval mode, these compute the relu or gelu that the layer was made with, and do not call its `activation`.
    """
    for module in reversed([*model.modules()]):  # layers come before the encoder that contains them
        if isinstance(module, nn.TransformerEncoderLayer) and isinstance(module.activation, Activation):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder):  # it may use nested tensors only with the fast path
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
