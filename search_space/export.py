r"""Export an expression as a file that works without this project: for torch, jax, sympy, LaTeX, Markdown and ONNX.

>>> print(code("x * sigmoid(beta * x)", "latex"), end="")
f(x) = x \cdot \sigma\left(\beta \cdot x\right)
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from textwrap import fill, indent

import numpy as np
import numpy.typing as npt
import torch

from search_space import templates
from search_space.activation import (
    Activation,
    beta_names,
    checked_channels,
    checked_dim,
    default_modes,
    fold_constants,
)
from search_space.expression import Expression, X, as_expression, beta
from search_space.normal_form import key
from search_space.notation import LANGUAGES, ONNX, ONNX_TERMS, distinct, in_terms, statements
from search_space.primitives import EPS, SpaceError, nearest
from search_space.sites import SITES

Array = npt.NDArray[np.float32]
Betas = Sequence[Sequence[float]]  # one row per parameter, one value per channel

_OPSET, _IR = 20, 10  # ONNX 1.16 of 2024, because programs that read ONNX are often older than the onnx package

# Names that exported files use for other things, so that no class or function can have them.
_TAKEN = frozenset(
    {"F", "Tensor", "float", "jax", "jnp", "math", "sympy", "torch", "tuple"}
    | {"_abs", "_placed", "_prelu", "_sinc", "_sqrt", "_within"}
)


@default_modes()
def code(
    expression: Expression | str,
    to: str,
    *,
    name: str = "",
    channels: int = 1,
    dim: int | None = None,
    betas: Betas | None = None,
    frozen: bool = False,
    site: str = "activation",
) -> str:
    """Return the text of a file that defines this function in another language. The file works without this project.

    Args:
        expression: a tree, or its text.
        to: one of `TARGETS` except "onnx", whose files are not text: see `onnx_bytes`.
        name: the name of the class or function. Class names are capitalised: `my_name` becomes `MyName`. If empty, a
            name is made from the key.
        channels: the number of channels of the input; the torch module has it as its default.
        dim: the dimension of the channels, as in `Activation`; the torch module (1 if not given) and the jax function
            (-1 if not given) have it as their default.
        betas: the trained values, as `[beta.tolist() for beta in activation.betas]`; all 1 if not given. LaTeX shows
            symbols instead of values. In the place of a norm, all channels share each parameter: one value in a row.
        frozen: make the parameters constants, which are not trained.
        site: what the function takes the place of in its network, one of `SITES`. For a gate or a norm, files for torch
            and markdown also define a module for it, which can load the state of `Gate` or `ElementwiseNorm`.

    Raises:
        ParseError: the text is not an expression.
        SpaceError: the target or the site is unknown, the target cannot express the function, the name is not a valid
            name, or `betas` has another shape than (parameters, channels).
    """
    if to not in TARGETS:
        raise SpaceError(f"unknown target {to!r}; {nearest(str(to), TARGETS)}")
    if site not in SITES:
        raise SpaceError(f"unknown site {site!r}; {nearest(str(site), SITES)}")
    if to == "onnx":
        raise SpaceError(f"onnx files are not text: use onnx_bytes; targets with text: {', '.join(_WRITERS)}")
    tree = _tree(expression, to)
    dim = (-1 if to == "jax" else 1) if dim is None else checked_dim(dim)
    own = 1 if site == "norm" else checked_channels(channels)
    starts = _start_values(tree, own, betas)
    if frozen and all(len(row) == 1 for row in starts):
        tree, starts = tree.with_numbers([row[0] for row in starts]), []
    export = _Export(tree, to, name, own, dim, starts, site, channels, frozen)
    export.identifier(camel=False)  # check the name, because every file contains it
    return _WRITERS[to](export)


@dataclass(frozen=True, slots=True)
class _Export:
    """The checked arguments of `code`, and the texts that files for several targets have in common."""

    tree: Expression
    to: str
    name: str
    channels: int
    dim: int
    betas: Betas
    site: str
    width: int  # the channels of the gate or the norm
    frozen: bool = False

    @property
    def title(self) -> str:
        return self.name or f"activation_{key(self.tree)[:8]}"

    @property
    def symbols(self) -> tuple[str, ...]:
        return beta_names(len(self.tree.betas))

    def identifier(self, camel: bool) -> str:
        """Return the name of the class (`camel`) or of the function.

        Raises:
            SpaceError: it is not a valid name in Python, or the file uses it for something else.
        """
        parts = self.title.split("_")
        name = "".join(part[:1].upper() + part[1:] for part in parts) if camel else self.title
        if not re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", name) or keyword.iskeyword(name) or _TAKEN & {name, self.title}:
            raise SpaceError(f"{self.name!r} cannot be a name in the file; use letters, digits and _, as in MyName")
        return name

    def filled(self, template: str, **more: object) -> str:
        """Return a template of search_space/templates.py with its names filled in."""
        formula = fill(f"f(x) = {self.tree}", 110, break_long_words=False)
        inner = formula.replace("\n", "\n    ")
        common = {"title": self.title, "formula": formula, "inner": inner, "key": key(self.tree)}
        return template.format(**common, channels=self.channels, width=self.width, dim=self.dim, **more)

    def helpers(self, definition: str) -> str:
        """Return the definitions of the helper functions that the definition calls."""
        return "".join(text for name, text in templates.HELPERS[self.to].items() if f"{name}(" in definition)

    def file(self, about: str, imports: str, definition: str) -> str:
        """Return a whole file: a docstring, the imports, the helper functions and the definition."""
        about += templates.ABOUT_SITES[self.site]
        more = {"about": about, "needs": self.to, "imports": imports, "definition": definition}
        return self.filled(templates.FILE, helpers=self.helpers(definition), **more)

    def shape(self, rank: int, other: int) -> list[int]:
        """Return the shape of an input: the channels at `dim`, and `other` for each other dimension.

        It has `rank` dimensions, or more if `dim` requires them.
        """
        rank = max(rank, self.dim + 1, -self.dim)
        return [self.channels if axis == self.dim % rank else other for axis in range(rank)]

    def body(self, constant: str, result: str = "return {}") -> str:
        """Return the statements that compute the function.

        Args:
            constant: a template that gives a value the shape of x; for functions that do not depend on x.
            result: a template of the last statement.
        """
        lines, value = statements(self.tree, self.to)
        constants = all(leaf.op != "x" for leaf in self.tree.leaves())
        return "\n".join([*lines, result.format(constant.format(value) if constants else value)])


def _start_values(tree: Expression, channels: int, betas: Betas | None) -> Betas:
    """Check the start values, and return one row per parameter. A row has one value if all channels share it."""
    checked_channels(channels)
    count = len(tree.betas)
    if betas is None:
        return [[1.0]] * count
    if [len(row) for row in betas] != [channels] * count or not all(math.isfinite(v) for row in betas for v in row):
        raise SpaceError(f"betas must be {count} rows (parameters) of {channels} finite values (channels)")
    same = all(len(set(row)) == 1 for row in betas)
    return [[float(value) for value in (row[:1] if same else row)] for row in betas]


def _tree(expression: Expression | str, to: str) -> Expression:
    """Return the tree to export.

    Raises:
        SpaceError: the target lacks one of its functions. The message names the targets that have all of them.
    """
    tree = as_expression(expression).normal()
    tables = {**{name: {*language.forms} for name, language in LANGUAGES.items()}, "onnx": {*ONNX, *ONNX_TERMS}}
    tables["markdown"] = tables["torch"] & tables["latex"]
    used = {node.op for node in distinct(tree) if node.args}
    if missing := sorted(used - tables[to]):
        able = [name for name in TARGETS if used <= tables[name]]
        raise SpaceError(f"{to} cannot express {', '.join(missing)}; these can: {', '.join(able) or 'none'}")
    return tree


def _torch(export: _Export) -> str:
    name, symbols = export.identifier(camel=True), export.symbols
    body, parameters = export.body("torch.zeros_like(x) + {}"), ""
    if symbols:
        places = "".join(f"{symbol} = self.{symbol}.to(x.dtype).reshape(shape)\n" for symbol in symbols)
        body = f"shape = self._broadcast_shape(x)\n{places}{body}"
        pairs = zip(symbols, export.betas, strict=True)
        start, each = (
            ("", templates.TORCH_BUFFER) if export.frozen else (templates.TORCH_START, templates.TORCH_PARAMETER)
        )
        starts = (each.format(symbol=symbol, start=f"[{_row(row)}]") for symbol, row in pairs)
        parameters = "".join([start, *starts, templates.TORCH_SHAPE])
    definition = export.filled(
        templates.TORCH_CLASS,
        name=name,
        example=indent(_example(export, name), " " * 4).strip(),
        parameters=parameters,
        body=indent(body, " " * 8),
    )
    definition += export.filled(templates.TORCH_SITES[export.site], name=name)
    imports = [
        "from __future__ import annotations\n",
        "import math\n",
        "import torch",
        "import torch.nn.functional as F",
    ]
    text = export.helpers(definition) + definition
    used = [True, "math." in text, True, "F." in text]
    return export.file(
        "a PyTorch module", "\n".join([*compress(imports, used), "from torch import Tensor, nn"]), definition
    )


def _row(values: Sequence[float]) -> str:
    """Return the values as text, separated by commas and wrapped to short lines."""
    return fill(", ".join(map(str, values)), 64, subsequent_indent=" " * 12)


def _example(export: _Export, name: str) -> str:
    """Return a doctest with values that `Activation` computes."""
    module = Activation(export.tree, export.channels)
    for parameter, row in zip(module.betas, export.betas, strict=True):
        parameter.data = torch.tensor(row).expand(export.channels)
    points = torch.tensor([-2.0, -0.5, 0.0, 1.5], dtype=torch.float64)
    with torch.no_grad():
        values = module(points.unsqueeze(1).expand(-1, export.channels))[:, 0].tolist()
    literal = LANGUAGES["torch"].number
    shown = ", ".join(literal(float(f"{value:.8g}"))[0] for value in values)
    shape = export.shape(2, -1)
    column = [1] * len(shape)
    column[0 if export.dim % len(shape) else 1] = -1
    return templates.TORCH_EXAMPLE.format(
        name=name,
        column=", ".join(map(str, column)),
        shape=", ".join(map(str, shape)),
        dim=export.dim,
        points=points.tolist(),
        values=f"[{shown}]",
    )


def _jax(export: _Export) -> str:
    body = export.body("jnp.broadcast_to(jnp.asarray({}, x.dtype), x.shape)")
    values = [str(row[0]) if len(row) == 1 else f"({_row(row)})" for row in export.betas]
    pairs = zip(export.symbols, values, strict=True)
    arguments = [f"\n    {symbol}: ArrayLike | tuple[float, ...] = {value}," for symbol, value in pairs]
    definition = export.filled(
        templates.JAX_FUNCTION,
        name=export.identifier(camel=False),
        arguments="".join([*arguments, f"\n    *,\n    dim: int = {export.dim}," * bool(values)]),
        casts="".join(f"    {symbol} = _placed({symbol}, x, dim)\n" for symbol in export.symbols),
        channels_text=templates.JAX_CHANNELS * bool(values),
        body=indent(body, " " * 4),
    )
    imports = "from __future__ import annotations\n\nimport jax\nimport jax.numpy as jnp"
    return export.file("for jax", imports + "\nfrom jax.typing import ArrayLike" * bool(values), definition)


def _sympy(export: _Export) -> str:
    if any(len(row) > 1 for row in export.betas):
        raise SpaceError("sympy can have one value per parameter, not one per channel; torch, jax and onnx have both")
    symbols = "".join(f'{symbol} = sp.Symbol("{symbol}", real=True)\n' for symbol in ["x", *export.symbols])
    start = ", ".join(f"{symbol}: {row[0]}" for symbol, row in zip(export.symbols, export.betas, strict=True))
    formula = export.body("sp.sympify({})", "f = {}")
    about = "the expression `f`; `f.subs(start)` has the parameters' values in it"
    return export.file(about, "import sympy as sp", f"\n{symbols}{formula}\nstart = {{{start}}}\n")


def _latex(export: _Export) -> str:
    language = LANGUAGES["latex"]
    language = replace(language, beta=r"\beta") if len(export.symbols) == 1 else language
    eps = Expression("number", value=EPS)
    shown = export.tree.fold(lambda node, args: language.write(eps if node.op == "eps" else node, args))
    return f"f(x) = {shown[0]}{templates.LATEX_SITES[export.site]}\n"


def _markdown(export: _Export) -> str:
    used = replace(export, channels=export.width * (2 if export.site == "gate" else 1))
    return export.filled(
        templates.CARD,
        shape=", ".join(map(str, [8, *used.shape(4, 4)[1:]] if export.dim % 4 else used.shape(4, 4))),
        latex=_latex(export).strip(),
        text=export.tree,
        symbols=", ".join(export.symbols) or "none",
        values=export.betas or "-",
        name=export.identifier(camel=True) + {"gate": "Gate", "norm": "Norm"}.get(export.site, ""),
        module=_torch(replace(export, to="torch")),
    )


_WRITERS: Mapping[str, Callable[[_Export], str]] = {
    "torch": _torch,
    "jax": _jax,
    "sympy": _sympy,
    "latex": _latex,
    "markdown": _markdown,
}
TARGETS = (*_WRITERS, "onnx")


@default_modes()
def onnx_bytes(
    expression: Expression | str,
    *,
    channels: int = 1,
    dim: int = 1,
    betas: Betas | None = None,
    rank: int = 4,
) -> bytes:
    """Return an ONNX model as bytes. It has a float32 input `x`, an output `y` of the same shape, and the parameters as
    initialisers.

    Args:
        expression: a tree, or its text.
        channels: the number of channels; with 1, all channels share each parameter.
        dim: the dimension of the channels, as in `Activation`.
        betas: the trained values, as `[beta.tolist() for beta in activation.betas]`; all 1 if not given.
        rank: the number of dimensions of the input.

    Raises:
        ParseError: the text is not an expression.
        SpaceError: the package onnx is missing, ONNX cannot express the function, `betas` has another shape than
            (parameters, channels), or an input of this rank has no dimension `dim`.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        raise SpaceError(
            "an onnx file needs onnx: pip install 'activation-searcher[onnx]'; without it, the languages are "
            f"{', '.join(_WRITERS)}"
        ) from None
    tree = _tree(expression, "onnx")
    starting, least = _start_values(tree, channels, betas), max(2, dim + 1, -checked_dim(dim)) if channels > 1 else 0
    if rank < least:
        raise SpaceError(f"rank must be at least {least}, not {rank!r}: dimension {dim} is the channels")
    axes: list[int | str] = [f"axis{i}" if i else "batch" for i in range(rank)]
    if -rank <= dim < rank:
        axes[dim] = channels if channels > 1 else "channels"
    shape = (channels, *(1,) * ((rank - 1 - dim) % rank)) if channels > 1 else ()
    nodes, constants = _graph(tree, starting, shape)
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes],
        f"f(x) = {tree}",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, axes)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _graph(
    tree: Expression, betas: Betas, shape: Sequence[int]
) -> tuple[list[tuple[str, tuple[str, ...], str]], dict[str, Array]]:
    """Return the nodes (operation, inputs, output) in order, and the initialisers. `shape`: of a parameter."""
    values: dict[str, Array] = {}
    for i, row in enumerate(betas, start=1):
        values[f"beta{i}"] = np.broadcast_to(np.array(row, np.float32), math.prod(shape)).reshape(shape)
    names = {X: "x", **{beta(i): name for i, name in enumerate(values, start=1)}}
    nodes: list[tuple[str, tuple[str, ...], str]] = []

    def place(node: Expression, args: tuple[str, ...]) -> str:
        if node not in names:
            names[node] = f"t{len(names)}"
            if args:
                nodes.append((ONNX[node.op], args, names[node]))
            else:
                with np.errstate(over="ignore"):
                    values[names[node]] = np.array(node.value, np.float32)
        return names[node]

    last = tree.fold(fold_constants).fold(lambda node, args: in_terms(node, args, ONNX_TERMS)).fold(place)
    # Expand gives the shape of x to a value that does not depend on x.
    nodes += [("Shape", ("x",), "shape"), ("Expand", (last, "shape"), "y")]
    return nodes, values
