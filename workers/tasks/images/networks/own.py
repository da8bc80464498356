"""Build a user's own network with `package.module:function`, a function or class that makes one."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn

from search_space import Activation, NothingToReplace, SpaceError, Surgery, nearest, replace_activations
from search_space.elementwise import ACTIVATIONS
from search_space.modules import code_name, import_module, raised
from workers.contract import WorkersError
from workers.tasks.images.networks.sites import Activations


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of replacing the activations of a user's own network.

    Attributes:
        report: what is replaced, and what stays.
        refusal: why a search does not accept the network; empty if it does.
    """

    report: Surgery
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a user's own network.

    Attributes:
        name: `package.module:function`.
        activation: makes the activation of each site.
        shape: the shape of one example, without the batch.
        classes: number of classes.
        width: the width of the network; None leaves that to the function.
        options: further arguments of the function.
        dtype: the type of the examples.
        match: a pattern of the dotted names of the activations to replace; empty means all.
    """

    name: str
    activation: Activations
    shape: tuple[int, ...]
    classes: int
    width: int | None
    options: Mapping[str, object]
    dtype: torch.dtype = torch.float32
    match: str = ""

    def function(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return the function, and its arguments by name."""
        function, size = _find(self.name), self.shape
        images = len(size) == 3
        offered = {"activation": self.activation, **({"in_channels": size[0]} if images else {"shape": size})}
        offered |= {"classes": self.classes, **({"image_size": size[1:]} if images else {}), "width": self.width}
        return function, _arguments(self.name, function, offered, self.options)

    def zeros(self) -> Tensor:
        """Return two examples of zeros."""
        return torch.zeros(2, *self.shape, dtype=self.dtype)

    def noise(self) -> Tensor:
        """Return two examples of random numbers (zeros for integers). With equal numbers, some in-place operations that
        change a result would not be noticed."""
        if not self.dtype.is_floating_point:
            return self.zeros()
        return torch.randn(2, *self.shape, dtype=self.dtype, generator=torch.Generator().manual_seed(0))


def build_own(request: Request, note: Callable[[str], object] = str) -> nn.Module:
    """Call the function to make a network, and try the network on two examples.

    The function gets the options, and the following arguments if it takes them: `activation` (an `Activations`),
    `in_channels`, `classes`, `image_size` (height, width) and `width` (only if the settings have one). For data that
    are not images, it gets `shape`, the shape of one example, in place of `in_channels` and `image_size`. If it does
    not take `activation`, the activation modules in its network are replaced: all, or those whose dotted name matches
    `match`. A function that takes `activation` and puts it at gates or norms says so with its attribute `sites`.

    Args:
        note: called with each remark on the replacements.

    Raises:
        WorkersError: the module or the function does not exist; it requires other arguments; it does not return a
            network; the network does not run, has another output than `(n, classes)` or calls no activation; there is
            nothing to replace, or not everything can be replaced.
    """
    name, activation = request.name, request.activation
    function, given = request.function()
    _check_site(name, activation.site, function, takes="activation" in given)
    made: list[nn.Module] = []

    def recorded(channels: int, dim: int) -> nn.Module:
        made.append(activation(channels, dim))
        return made[-1]

    if "activation" in given:
        given["activation"] = replace(activation, make=recorded)
    model = _call(name, function, given)
    if "activation" not in given:
        survey = _replace(request, model)
        if survey.refusal:
            raise WorkersError(survey.refusal)
        for line in survey.report.notes:
            note(f"model {name!r}: {line}")
    elif request.match:
        raise WorkersError(f"model {name!r} takes `activation` and puts it where it belongs; leave --match out")
    elif not made and not any(isinstance(module, Activation) for module in model.modules()):
        raise WorkersError(
            f"model {name!r} takes `activation` but never calls it, as in self.act = activation(channels)"
        )
    _dry_run(name, model, request.zeros(), request.classes, made)
    return model


def _check_site(name: str, site: str, function: Callable[..., Any], *, takes: bool) -> None:
    """Raise WorkersError if the network does not offer the site. `takes`: the function takes `activation`."""
    sites = getattr(function, "sites", ("activation",)) if takes else ("activation",)
    if site not in sites:
        needs = "`activation(channels)` makes a module of f, a weight and a bias"
        if site == "gate":
            needs = "the layer before `activation(channels)` makes `activation.expansion * channels` channels"
        raise WorkersError(
            f"--site {site}: model {name!r} offers no {site}; let its function take `activation` and put it there "
            f'({needs}), and write below it: {name.partition(":")[2]}.sites = ("{site}",)'
        )


def survey_own(request: Request) -> Survey:
    """Return what `build_own` replaces in the network and what stays, also if it would refuse the network for that.

    Raises:
        WorkersError: as in `build_own`, or the function takes `activation`, so that nothing is replaced.
    """
    name = request.name
    function, given = request.function()
    if "activation" in given:
        raise WorkersError(f"model {name!r} takes `activation` and puts it where it belongs; nothing is replaced in it")
    model = _call(name, function, given)
    survey = _replace(request, model)
    if survey.refusal:
        return survey
    try:
        _dry_run(name, model, request.zeros(), request.classes)
    except WorkersError as error:
        return replace(survey, refusal=str(error))
    return survey


def _find(name: str) -> Callable[..., Any]:
    if (code := code_name(name)) is None:
        raise WorkersError(f"model {name!r} does not name a function; write it as package.module:function")
    module_name, attribute = code
    try:
        module = import_module(module_name)
    except SpaceError as error:
        raise WorkersError(f"model {name!r}: {error}") from error
    found = getattr(module, attribute, None)
    if isinstance(found, nn.Module):
        raise WorkersError(
            f"model {name!r} is one network, which all jobs would go on training; name a function or class that makes "
            "a new one"
        )
    if not callable(found):
        known = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        what = "nothing" if found is None else f"{found!r}, not a function,"
        raise WorkersError(
            f"model {name!r}: module {module_name!r} has {what} under that name; {_nearest(attribute, known)}"
        )
    return found  # type: ignore[no-any-return]


def _arguments(
    name: str, function: Callable[..., Any], offered: Mapping[str, object], options: Mapping[str, object]
) -> dict[str, Any]:
    """Return the arguments of the function by name. Values that are None are left to its defaults."""
    try:
        rows = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:  # some functions written in C
        raise WorkersError(f"model {name!r}: Python cannot tell which arguments it takes; wrap it in a def") from error
    named = {row.name for row in rows if row.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)}
    free = any(row.kind is Parameter.VAR_KEYWORD for row in rows)
    if offered["width"] is not None and "width" not in named:
        raise WorkersError(f"model {name!r} takes no `width`; leave --width out, or let the function take it")
    for option in options:
        if option in offered:
            given_as = "--width" if option == "width" else "the searcher itself"
            raise WorkersError(f"model {name!r}: {option!r} is given by {given_as}, not among the options")
        if not (free or option in named):
            raise WorkersError(f"model {name!r} has no option {option!r}; {_nearest(option, named - set(offered))}")
    given = {key: value for key, value in offered.items() if key in named and value is not None} | dict(options)
    for row in rows:
        needed = row.default is row.empty and row.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        if needed and (row.name not in given or row.kind is Parameter.POSITIONAL_ONLY):
            raise WorkersError(
                f"model {name!r} asks for {row.name!r}; it can have, by name, {', '.join(offered)}, and options that "
                "the settings give or that have defaults"
            )
    return given


def _call(name: str, function: Callable[..., Any], given: Mapping[str, Any]) -> nn.Module:
    try:
        model = function(**given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's code may raise anything
        raise WorkersError(f"model {name!r} fails: {raised(error)}") from error
    if not isinstance(model, nn.Module):
        raise WorkersError(f"model {name!r} returns {_brief(model)}; it must return a torch.nn.Module")
    return model


def _replace(request: Request, model: nn.Module) -> Survey:
    name, activation, match = request.name, request.activation, request.match
    if activation.expression is None:
        raise WorkersError(
            f"model {name!r} takes no `activation`, and in a finished network only functions of one number can be put; "
            "let it take `activation`, and make `activation.expansion` times the channels before each"
        )
    try:
        report = replace_activations(model, activation.expression, request.noise(), match=match or None)
    except NothingToReplace as error:
        remedy = "make modules of its activations, as in self.act = nn.ReLU(), or let the function take `activation`"
        if error.kept:
            remedy = f"--match {shlex.quote(error.kept[0].name)} replaces it all the same"
        text = f"{error.found}; {remedy}" if error.how else str(error)
        raise WorkersError(f"model {name!r}, whose activations were to be replaced: {text}") from error
    except SpaceError as error:
        raise WorkersError(f"model {name!r}, whose activations were to be replaced: {error}") from error
    return Survey(report, _refusal(name, report, match))


def _refusal(name: str, report: Surgery, match: str) -> str:
    """Return why a search cannot use the network; empty if it can.

    Calls of activation functions in a forward pass cannot be replaced. They may stay if `match` names the modules to
    replace, and always if they are gates or heads.
    """
    if report.in_place:
        sites = ", ".join(report.in_place)
        return (
            f"model {name!r} depends on {sites} working in place: as in h + f(act(h)), its input is used again, which "
            f"another function would not change; {_not_in_place(report)}"
        )
    if report.unreachable and not match:
        calls = ", ".join(f"{function} in {where or 'its own forward'}" for where, function, _ in report.unreachable)
        return (
            f"model {name!r} calls {calls}, which cannot be replaced; make modules of them, as in self.act = "
            "nn.ReLU(), let the function take `activation`, or say with --match which modules alone to replace"
        )
    return ""


def _not_in_place(report: Surgery) -> str:
    """Describe how to rewrite the activations that work in place."""
    classes = dict.fromkeys(what for name, what, _ in report.replaced if name in report.in_place)
    ours = [f"nn.{what}()" for what in classes if getattr(nn, what, None) in ACTIVATIONS]
    others = [what for what in classes if getattr(nn, what, None) not in ACTIVATIONS]
    ways = [f"write {' and '.join(ours)} without inplace=True"] if ours else []
    return ", and ".join([*ways, *(f"let {what} leave its input as it is" for what in others)])


def _dry_run(name: str, model: nn.Module, two: Tensor, classes: int, made: Iterable[nn.Module] = ()) -> None:
    """Run the network on two examples in eval mode. Running statistics and torch's random state do not change.

    Args:
        two: the examples.
        made: activations that the network's function made itself.

    Raises:
        WorkersError: the network fails, its output has a wrong shape, or it calls no activation.
    """
    try:
        with torch.random.fork_rng([]), torch.no_grad(), _counted(model, made) as calls:
            out = model.eval()(two)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's code may raise anything
        images = "x".join(map(str, two.shape[1:]))
        raise WorkersError(f"model {name!r} fails on two {images} images: {raised(error)}") from error
    model.train()
    if not isinstance(out, Tensor) or out.shape != (2, classes):
        raise WorkersError(
            f"model {name!r} makes {_brief(out)} of two images; it must be a tensor of shape (2, {classes})"
        )
    if not calls:
        raise WorkersError(
            f"model {name!r} calls none of its activations in its forward, so that it would be the same network with "
            "every function; call them, as in x = self.act(x)"
        )


@contextmanager
def _counted(model: nn.Module, made: Iterable[nn.Module]) -> Iterator[list[nn.Module]]:
    """Yield a list, to which each call of an activation in the block adds that activation."""
    calls: list[nn.Module] = []
    activations = {*made, *(module for module in model.modules() if isinstance(module, Activation))}
    hooks = [module.register_forward_hook(lambda module, *_: calls.append(module)) for module in activations]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _brief(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    return nearest(word, names) if names else "there are none"
