"""Run a copy of a network once, and record the inputs and outputs of its activations and the functions that it calls.

Two modes of torch observe the run. The function mode sees calls from Python, such as `F.relu`, by name. The dispatch
mode sees every operation, also those that come from torch.jit.script and torch.ops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from search_space.axes import Axes, tensors
from search_space.elementwise import CALLS, Range, range_of
from search_space.flow import Flow, Role
from search_space.modules import raised
from search_space.primitives import SpaceError

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the tree of modules: `module` is registered in `parent` as `key`. `name` is its dotted name."""

    name: str
    parent: nn.Module
    key: str
    module: nn.Module


@dataclass
class Call:
    """One call of a module at a site, or of a function.

    Attributes:
        shape: the shape of the input.
        nodes: the axes of the input (search_space/axes.py).
        taken: the numbers of the input values (search_space/flow.py).
        function: what was called, as a function of one tensor.
        plain: True if the only argument was one tensor. Otherwise no other module can take its place.
        made: the numbers of the output values.
        in_place: True if the call changed its input.
    """

    shape: torch.Size
    nodes: tuple[int, ...]
    taken: tuple[int, ...]
    function: Callable[[Tensor], Tensor]
    plain: bool = True
    made: tuple[int, ...] = ()
    in_place: bool = False

    @cached_property
    def range(self) -> Range:
        """The range of the called function."""
        return range_of(self.function)


class Recorder:
    """Records what a network does during `run`.

    Args:
        model: the network; hooks are registered on its modules until `run` ends.
        sites: the modules whose calls are recorded.
        example: the input, as `run` gets it.
        excluded: names of other modules in which calls of functions do not count.

    Attributes:
        module_calls: name of a site -> its calls.
        function_calls: (name of the module that makes the calls, name of the function) -> the calls of a functional
            activation.
        flow: the values of the run (search_space/flow.py).
        axes: the axes of the tensors (search_space/axes.py).
        output: what the network returned.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], example: Example, excluded: Collection[str]) -> None:
        self._excluded, self._handles = excluded, list[RemovableHandle]()
        self.module_calls: dict[str, list[Call]] = {site.name: [] for site in sites}
        self.function_calls: dict[tuple[str, str], list[Call]] = {}
        self.output: object = None
        self.flow = Flow(tensors(example), [*model.parameters(), *model.buffers()])
        self.axes = Axes(self.flow.constant)
        self._results: tuple[int, ...] = ()
        self._running: list[tuple[str, bool]] = []  # the modules that are running; True if calls in them count
        self._versions: list[tuple[Tensor, int]] = []
        self._function: tuple[str, bool] | None = None  # the torch function that is running; True if it is counted
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):
                self._hook(name, module)
        for site in sites:
            if isinstance(site.parent._modules[site.key], torch.jit.ScriptModule):
                self._hook(site.name, _hookable(site))

    def run(self, model: nn.Module, example: Example) -> None:
        """Run the network once. To be called once."""
        with _Functions(self), _Operations(self):
            self.output = run_model(model, example)
            self._results = self.flow.values(self.output)
        for handle in self._handles:
            handle.remove()

    def role(self, calls: Sequence[Call]) -> Role:
        """Return the role of an activation, given all its calls; HIDDEN if there are none."""
        if not calls:
            return Role.HIDDEN
        roles = {self._role_of(call) for call in calls}
        return next((role for role in (Role.HIDDEN, Role.OWN_FACTOR, Role.GATE) if role in roles), Role.HEAD)

    def _role_of(self, call: Call) -> Role:
        role = self.flow.role(call.taken, call.made, self._results)
        if role is Role.HIDDEN or not (call.range.bounded or (role is Role.HEAD and not call.range.zero)):
            return Role.HIDDEN
        if role is Role.GATE and call.range.signed and self.flow.parallel(call.made) & self._gated():
            return Role.HIDDEN  # this is the tanh of tanh(a) * sigmoid(b): only the sigmoid is a gate
        return role

    def _gated(self) -> set[int]:
        """Return the outputs of all bounded functions that are nowhere negative or nowhere positive."""
        calls = [call for calls in (*self.module_calls.values(), *self.function_calls.values()) for call in calls]
        return {value for call in calls if call.range.bounded and not call.range.signed for value in call.made}

    # The hooks and the modes call these methods.

    def _hook(self, name: str, module: nn.Module) -> None:
        enter = partial(self._enter, name)
        self._handles.append(module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
        self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        open_ = not self._running or self._running[-1][1]
        self._running.append((name, open_ and name not in self.module_calls and name not in self._excluded))
        if name in self.module_calls:
            given = list(tensors([args, kwargs]))
            x = given[0] if given else torch.empty(())
            self._versions.append((x, x._version))
            self.module_calls[name].append(call := self._new_call(x, module))
            call.plain = len(args) + len(kwargs) == len(given) == 1

    def _leave(self, _module: nn.Module, _args: object, output: object) -> None:
        name, _ = self._running.pop()
        if name in self.module_calls:
            call, (x, version) = self.module_calls[name][-1], self._versions.pop()
            call.made, call.in_place = self.flow.values(output), x._version != version

    def _new_call(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Call:
        return Call(x.shape, self.axes.of(x), self.flow.values(x), function)

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a torch function, and record it if it is an activation."""
        name = getattr(func, "__name__", "").partition(".")[0]
        label = str(resolve_name(func) or name)
        label = f"torch.ops.{label}" if label.startswith("aten.") else label
        call, outer = self._activation(name, func, args, kwargs), self._function
        self._function = (label, call is not None)
        try:
            result = func(*args, **kwargs)
        finally:
            self._function = outer
        if call is not None:
            self._count(label, call, result)
        self.axes.called(name, result)
        return result

    def ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a torch operation, and record what it does with values and axes."""
        name = func._schema.name.partition("::")[2].rstrip("_")
        given = [args, kwargs]
        inputs, before = self.flow.values(given), [self.axes.of(x) for x in tensors(given)]
        call = None if self._function else self._activation(name, func, args, kwargs)
        result = func(*args, **kwargs)
        joined = self.flow.ran(name, func, args, inputs, result, self._site())
        self.axes.ran(name, (*args, *kwargs.values()), before, result)
        label, counted = self._function or (f"torch.ops.aten.{name}", call is not None)
        if call is not None:
            self._count(label, call, result)
        elif joined and self._is_counted() and not counted:
            made = next(tensors(result))
            self._count(label, Call(made.shape, self.axes.of(made), inputs, _unknown), result)
        return result

    def _site(self) -> str:
        return next((name for name, _ in reversed(self._running) if name in self.module_calls), "")

    def _is_counted(self) -> bool:
        return bool(self._running) and self._running[-1][1]

    def _activation(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        x = next(tensors([args, kwargs]), None)
        if x is None or not self._is_counted() or not (name.replace("_", "") in CALLS or _is_relu(name, args, kwargs)):
            return None
        return self._new_call(x, lambda x: func(x, *args[1:], **kwargs))

    def _count(self, label: str, call: Call, result: object) -> None:
        call.made = self.flow.values(result)
        self.function_calls.setdefault((self._running[-1][0], label), []).append(call)


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._recorder.called(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # if True, torch imports its compiler, which takes a second per process
        return False

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # otherwise the function mode would see the operation again
            return self._recorder.ran(func, args, kwargs or {})


class _Hooked(nn.Module):
    """Wrap a torch.jit.script module, which does not accept hooks, in a module that does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def _unknown(_: Tensor) -> Tensor:
    raise NotImplementedError("this function consists of several operations")


def _is_relu(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return True if a call computes relu under another name: x.clamp(min=0), torch.maximum(x, zeros) and others."""
    if name.strip("_") == "threshold":
        given = {**dict(zip(("threshold", "value"), args[1:], strict=False)), **kwargs}
        return bool(given.get("threshold") == given.get("value") == 0)
    low, high = (*args[1:], kwargs.get("min", kwargs.get("other")))[0], (*args[2:], kwargs.get("max"))[0]
    if name.rstrip("_") not in ("clamp", "clip", "clamp_min", "maximum", "max", "fmax") or high is not None:
        return False
    if name == "max" and not isinstance(low, Tensor):  # then it is a dimension
        return False
    return low == 0 if isinstance(low, int | float) else type(low) is Tensor and not low.is_meta and not low.any()


def run_model(model: nn.Module, example: Example) -> Any:
    """Call a model with an example: an input, a tuple of arguments, or a mapping of named arguments."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def dry_run(model: nn.Module, sites: Sequence[Site], example: Example, excluded: Collection[str] = ()) -> Recorder:
    """Run a copy of the model on a copy of the example, in eval mode and without gradients.

    The model itself is not run, because a run changes running statistics, lazy modules, and the inputs of modules that
    work in place.

    Args:
        model: any module.
        sites: the modules whose calls are recorded.
        example: an input, a tuple of arguments, or a mapping of named arguments.
        excluded: names of other modules in which calls of functions do not count.

    Raises:
        SpaceError: the model cannot be copied, or it raises an exception when it is called with the example.
    """
    model, sites, example = _copied(model, sites, example)
    recorder = Recorder(model.eval(), sites, example, excluded)
    with _naming_the_example(model):
        recorder.run(model, example)
    return recorder


def need_in_place(model: nn.Module, sites: Sequence[Site], example: Example, recorder: Recorder) -> list[str]:
    """Return the names of the sites that change their input in place, if the network's output depends on that.

    An example is `h + f(act(h))`: in place, `act` also changes the `h` that is added. To find these sites, the network
    is run with the modules as they are, and then with copies of the inputs given to them; the outputs are compared.
    Constant tensors of the example are replaced by noise first, because with zeros both outputs could be zero.

    Args:
        model, sites, example: as in `dry_run`.
        recorder: the result of `dry_run`.

    Raises:
        SpaceError: as in `dry_run`.
    """
    changing = [site.name for site in sites if any(call.in_place for call in recorder.module_calls[site.name])]
    if not changing:
        return []
    varied = tree_map_only(Tensor, _with_noise, example)
    as_is = _outputs(model, sites, varied, ())
    if _same(as_is, _outputs(model, sites, varied, changing)) or not _same(as_is, _outputs(model, sites, varied, ())):
        return []
    alone = [name for name in changing if not _same(as_is, _outputs(model, sites, varied, [name]))]
    return alone or changing


def _outputs(model: nn.Module, sites: Sequence[Site], example: Example, copying: Sequence[str]) -> list[Tensor]:
    """Return the outputs of a copy of the model, in which the sites named in `copying` get copies of their inputs."""
    model, sites, example = _copied(model, sites, example)
    for site in sites:
        if site.name in copying:
            hook = partial(tree_map_only, Tensor, Tensor.clone)
            _hookable(site).register_forward_pre_hook(lambda _, args, hook=hook: hook(args))
    with _naming_the_example(model):
        return list(tensors(run_model(model.eval(), example)))


def _with_noise(x: Tensor) -> Tensor:
    """Return normally distributed numbers if all elements of a floating-point tensor are equal; otherwise x."""
    if not x.is_floating_point() or x.is_meta or x.numel() < 2 or bool((x != x.flatten()[0]).any()):
        return x
    return torch.randn(x.shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu").to(x)


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    if len(one) != len(other) or any(x.shape != y.shape for x, y in zip(one, other, strict=True)):
        return False
    return all(_close(x, y) for x, y in zip(one, other, strict=True) if not x.is_meta)  # meta tensors have no data


def _close(x: Tensor, y: Tensor) -> bool:
    return torch.allclose(x, y, rtol=1e-3, atol=1e-5, equal_nan=True) if x.is_floating_point() else torch.equal(x, y)


def _hookable(site: Site) -> nn.Module:
    """Return the module at a site of a copied model. A torch.jit.script module is wrapped, so that it accepts hooks."""
    module: nn.Module = getattr(site.parent, site.key)
    if isinstance(module, torch.jit.ScriptModule):
        module = _Hooked(module)
        setattr(site.parent, site.key, module)
    return module


def _copied(model: nn.Module, sites: Sequence[Site], example: Example) -> tuple[nn.Module, list[Site], Example]:
    """Copy all three arguments. A module that is at several sites becomes one copy for each site, as it will be after
    the replacement."""
    lazy: list[Any] = [buffer for buffer in model.buffers() if is_lazy(buffer)]  # torch cannot copy lazy buffers
    blank = {id(buffer): type(buffer)(device=buffer.device, dtype=buffer.dtype) for buffer in lazy}
    try:
        model, found, example = copy.deepcopy((model, list(sites), example), blank)
        for site in found:
            setattr(site.parent, site.key, copy.deepcopy(site.module))
    except Exception as error:
        raise SpaceError(
            f"the model and the example cannot be copied for a dry run ({raised(error)}); "
            "leave out example=... and give per_channel=False to do without a dry run"
        ) from error
    return model, found, example


@contextmanager
def _naming_the_example(model: nn.Module) -> Iterator[None]:
    """Run the body without gradients, restore the random state afterwards, and turn exceptions into a SpaceError."""
    cards = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(sorted(cards)), torch.no_grad():
        try:
            yield
        except Exception as error:
            raise SpaceError(f"the example did not go through the model: {raised(error)}") from error
