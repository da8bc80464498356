"""The report of `replace_activations`: what was replaced, what was not and why, and notes for the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from search_space.dryrun import Recorder, Site
from search_space.elementwise import has_own_parameters
from search_space.flow import Role

HOOKS = (
    *("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks"),
    *("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
)
REASONS = {
    Role.GATE: "it is a gate: its output multiplies another value",
    Role.HEAD: "it is an output head: no layer comes after it",
    Role.OWN_FACTOR: "it is part of an activation written by hand: its output multiplies its own input",
}
OFF_PATH = "it is not on the path of the data: it makes weights out of parameters"
SEVERAL_INPUTS = "it is called with more than one tensor"


@dataclass(frozen=True, slots=True)
class Kept:
    """An activation that is not replaced.

    Attributes:
        name: the name of the module; for a function, of the module that calls it.
        what: the name of its class, or of the function.
        reason: why it is not replaced; a sentence.
    """

    name: str
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Surgery:
    """The report of a replacement. `str` makes a text for people.

    Attributes:
        expression: the text of the new activation function.
        replaced: (name, class of the old module, number of channels) for each replaced module.
        functional: (name of the module, function, number of calls) for activations that are function calls in a
            `forward`, and so cannot be replaced. The name of the model itself is "".
        notes: remarks for the user, one line each.
        kept: activations that should not be replaced: gates, output heads, and what makes weights.
        last: names of the replaced modules whose channels are the last dimension of their input, not dimension 1.
        in_place: names of the replaced modules that changed their input, if the network's output depended on that.
    """

    expression: str
    replaced: tuple[tuple[str, str, int], ...]
    functional: tuple[tuple[str, str, int], ...]
    notes: tuple[str, ...]
    kept: tuple[Kept, ...] = ()
    last: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{times(len(self.replaced), 'module')} replaced by {self.expression}"]
        for name, old, channels in self.replaced:
            where = " in the last dimension" if name in self.last else ""
            lines.append(f"  {name}: {old}, {times(channels, 'channel')}{where}")
        if self.functional:
            lines.append("stayed, because only a change of the code could replace a call in a forward:")
        for name, function, count in self.functional:
            lines.append(f"  {name or 'the model itself'}: {function}, {times(count, 'call')}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])

    @property
    def unreachable(self) -> tuple[tuple[str, str, int], ...]:
        """The rows of `functional` that are neither gates nor output heads. A search should have replaced these."""
        kept = {(row.name, row.what) for row in self.kept}
        return tuple(row for row in self.functional if row[:2] not in kept)


def kept_calls(seen: Recorder) -> Iterator[Kept]:
    """Yield the function calls that would not be replaced even if they were modules."""
    for (name, function), calls in seen.function_calls.items():
        role = seen.role(calls)
        if any(seen.flow.off_path(call.taken) for call in calls):
            yield Kept(name, function, OFF_PATH)
        elif role in (Role.GATE, Role.HEAD):
            yield Kept(name, function, REASONS[role])


def functional(seen: Recorder, kept: Sequence[Kept]) -> Iterator[tuple[str, str, int]]:
    """Yield the rows of `Surgery.functional`: function calls, and modules that multiply their own input."""
    for (name, function), calls in seen.function_calls.items():
        yield name, function, len(calls)
    for row in kept:
        if row.reason == REASONS[Role.OWN_FACTOR]:
            yield row.name, f"x * {row.what}(x)", len(seen.module_calls[row.name])


def reason_lines(kept: Sequence[Kept]) -> list[str]:
    """Return one line for all activations that stay for the same reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in kept:
        groups.setdefault((row.what, row.reason), []).append(row.name or "the model itself")
    return [f"{', '.join(names)}: {what} stays, because {reason}" for (what, reason), names in groups.items()]


def notes(
    model: nn.Module, sites: Sequence[Site], seen: Recorder | None, kept: Sequence[Kept], match: object
) -> Iterator[str]:
    """Yield remarks for the user.

    Args:
        model: the model before the replacement.
        sites: the modules that will be replaced.
        seen: the recorded dry run; None if there was none.
        kept: the activations that stay.
        match: the argument of `replace_activations`.
    """
    yield from _shared(sites)
    if seen is None:
        yield "without example=... calls such as F.relu(x) in a forward were not looked for, nor gates and output heads"
    else:
        yield from _named_by_match(sites, seen, match)
        yield from _bounded_among_others(sites, seen)
    yield from reason_lines(kept)
    yield from (_with_parameters(model, sites) if match is None else ())
    for site in sites:
        if count := sum(len(getattr(site.module, name)) for name in HOOKS[:4] if hasattr(site.module, name)):
            yield f"{site.name}: {times(count, 'hook')} of the old module now belong{'s' * (count == 1)} to the new one"


def in_place(name: str) -> str:
    """Return the remark on a replaced module that changed its input."""
    return (
        f"{name}: it worked in place, and the network's output depended on that (as in h + f(act(h))); the new module "
        "does not work in place, so the network computes something else, whatever the expression"
    )


def _shared(sites: Sequence[Site]) -> Iterator[str]:
    names: dict[nn.Module, list[str]] = {}
    for site in sites:
        names.setdefault(site.module, []).append(site.name)
    for found in names.values():
        if found[1:]:
            yield f"{', '.join(found)} were one module and are now {len(found)}"


def _named_by_match(sites: Sequence[Site], seen: Recorder, match: object) -> Iterator[str]:
    for site in sites if isinstance(match, str) else ():
        if reason := REASONS.get(seen.role(seen.module_calls[site.name])):
            yield f"{site.name}: {kind(site.module)} is replaced, because match= names it, although {reason}"


def _bounded_among_others(sites: Sequence[Site], seen: Recorder) -> Iterator[str]:
    """Yield remarks on bounded functions if most others are unbounded, such as the tanh of BERT's pooler."""
    bounded = {site.name for site in sites if any(call.range.bounded for call in seen.module_calls[site.name])}
    others = Counter(kind(site.module) for site in sites if site.name not in bounded)
    usual, count = others.most_common(1)[0] if others else ("", 0)
    for site in sites if 2 <= count > len(bounded) else ():
        if site.name in bounded:
            yield (
                f"{site.name}: {kind(site.module)}, a bounded function, is replaced like the {count} of {usual}; "
                "match= can leave it out"
            )


def _with_parameters(model: nn.Module, sites: Sequence[Site]) -> Iterator[str]:
    names = {site.name for site in sites}
    for name, module in model.named_modules():
        if name and name not in names and not isinstance(module, torch.jit.ScriptModule) and has_own_parameters(module):
            yield (f"{name}: {kind(module)} stays, because it has parameters of its own; match=<its class> replaces it")


def kind(module: nn.Module) -> str:
    """Return the name of the module's class. For a torch.jit.script module, this is the class that was compiled."""
    return str(getattr(module, "original_name", "") or type(module).__name__)


def times(count: int, noun: str) -> str:
    """Return a count with its noun: `1 module`, `2 modules`."""
    return f"{count} {noun}{'s' * (count != 1)}"
