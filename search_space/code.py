r"""An expression as a file of its own, for people and programs that do not have this project.

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

from search_space.activation import Activation, checked_channels, fold_constants, undisturbed
from search_space.canonical import key
from search_space.expression import Expression, X, as_expression, beta
from search_space.notation import LANGUAGES, ONNX, ONNX_TERMS, distinct, in_onnx_terms, statements
from search_space.primitives import EPS, SpaceError, nearest

Array = npt.NDArray[np.float32]
Betas = Sequence[Sequence[float]]  # as `Activation.beta.tolist()`: one row a parameter, one value a channel

_OPSET, _IR = 20, 10  # ONNX 1.16, 2024: what runs it is older than what writes it

# Names that the files use for other things.
_TAKEN = frozenset({"F", "Tensor", "float", "jax", "jnp", "math", "sympy", "torch", "tuple", "_abs", "_sqrt"})

_SQRT = '''

def _sqrt(a: {0}) -> {0}:
    """The square root; its infinite slope at 0 is set to 0."""
    zero = a == 0
    return {1}
'''
_WITHIN = '''

def _within(number: float, x: Tensor) -> float:
    """A constant as the type of x holds it: infinite beyond its range."""
    return math.copysign(math.inf, number) if abs(number) > torch.finfo(x.dtype).max else number
'''
_ABS = '''

def _abs(a: jax.Array) -> jax.Array:
    """The absolute value; its slope at 0 is 0, where jax's own has 1."""
    return a * jnp.sign(a)
'''
_HELPERS: Mapping[str, Mapping[str, str]] = {
    "torch": {
        "_sqrt": _SQRT.format("Tensor", "torch.where(zero, 0.0, torch.sqrt(torch.where(zero, 1.0, a)))"),
        "_within": _WITHIN,
    },
    "jax": {
        "_abs": _ABS,
        "_sqrt": _SQRT.format("jax.Array", "jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, a)))"),
    },
    "sympy": {},
}

_FILE = '''\
"""{title}: {about}

{formula}

Needs {needs} only. Made of an expression with the key {key}.
"""

{imports}
{helpers}{definition}'''
_TORCH_CLASS = '''

class {name}(nn.Module):
    """{title}, element by element.

    {inner}

    Args:
        channels: the size of dimension 1 of the input, where each parameter has one value a channel; 1 shares the
            parameters among all channels.
        inplace: accepted, because timm and others pass it, and ignored.

    Shapes: input and output `(batch, channels, ...)`, same dtype and device.

    {example}
    """

    def __init__(self, channels: int = {channels}, inplace: bool = False) -> None:
        super().__init__()
        self.channels = channels
{parameters}
    def forward(self, x: Tensor) -> Tensor:
{body}
'''
_TORCH_PARAMETERS = """\
        start = torch.tensor({start})
        # Leave it out of weight decay, which would pull it to 0: that is no neutral value.
        self.beta = nn.Parameter(start.expand(-1, channels).clone())
"""
_TORCH_EXAMPLE = """\
>>> x = torch.tensor({points}, dtype=torch.float64).unsqueeze(1)
>>> y = torch.tensor({values}, dtype=torch.float64)
>>> torch.allclose({name}()(x.expand(-1, {channels}))[:, 0], y, equal_nan=True)
True
"""
_JAX_FUNCTION = '''

def {name}(
    x: jax.Array,{arguments}
) -> jax.Array:
    """{title}, element by element.

    {inner}

    A parameter is a number or one value a channel, of a shape that broadcasts with x: `(channels,)` where channels are
    last, `(channels, 1, 1)` where they come before height and width. Leave it out of weight decay.
    """
{casts}{body}
'''
_CARD = """\
# {title}

$${latex}$$

* expression: `{text}`, key `{key}`
* parameters: {symbols}; values: {values}

Save this module as `{title}.py`; then

```python
from {title} import {name}

y = {name}(channels={channels})(torch.randn(8, {channels}, 4, 4))
```

```python
{module}```
"""


@undisturbed()
def code(
    expression: Expression | str, to: str, *, name: str = "", channels: int = 1, betas: Betas | None = None
) -> str:
    """The text of a file that defines this function in another language; it needs nothing of this project.

    Args:
        expression: a tree, or its text.
        to: one of `TARGETS`, but "onnx", which is no text: `onnx_bytes` makes it.
        name: what the class (as `MyName` also from `my_name`) or function is called; made of the key otherwise.
        channels: the size of dimension 1 of the input, the torch module's default.
        betas: trained values, as `Activation.beta.tolist()`; all 1 otherwise. LaTeX has the symbols only.

    Raises:
        ParseError: text that is no expression.
        SpaceError: an unknown target, one that cannot express the function, a bad name, betas of another shape.
    """
    if to not in TARGETS:
        raise SpaceError(f"unknown target {to!r}; {nearest(str(to), TARGETS)}")
    if to == "onnx":
        raise SpaceError(f"onnx is no text but bytes: use onnx_bytes; as text: {', '.join(_WRITERS)}")
    tree = _tree(expression, to)
    export = _Export(tree, to, name, channels, _starting(tree, channels, betas))
    export.identifier(camel=False)  # the name stands in every file
    return _WRITERS[to](export)


@dataclass(frozen=True, slots=True)
class _Export:
    """What is asked for, checked, and the texts that several files have in common."""

    tree: Expression
    to: str
    name: str
    channels: int
    betas: Betas

    @property
    def title(self) -> str:
        return self.name or f"activation_{key(self.tree)[:8]}"

    @property
    def symbols(self) -> list[str]:
        count = len(self.tree.betas)
        return ["beta"] if count == 1 else [f"beta{i}" for i in range(1, count + 1)]

    def identifier(self, camel: bool) -> str:
        """The name as a class's or a function's.

        Raises:
            SpaceError: it cannot be one, or the file needs it for something else.
        """
        parts = self.title.split("_")
        name = "".join(part[:1].upper() + part[1:] for part in parts) if camel else self.title
        if not re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", name) or keyword.iskeyword(name) or _TAKEN & {name, self.title}:
            raise SpaceError(f"{self.name!r} cannot be a name in the file; use letters, digits and _, as in MyName")
        return name

    def filled(self, template: str, **more: object) -> str:
        formula = fill(f"f(x) = {self.tree}", 110, break_long_words=False)
        inner = formula.replace("\n", "\n    ")
        common = {"title": self.title, "formula": formula, "inner": inner, "key": key(self.tree)}
        return template.format(**common, channels=self.channels, **more)

    def file(self, about: str, imports: str, definition: str) -> str:
        helpers = "".join(text for name, text in _HELPERS[self.to].items() if f"{name}(" in definition)
        more = {"about": about, "needs": self.to, "imports": imports, "helpers": helpers, "definition": definition}
        return self.filled(_FILE, **more)

    def body(self, constant: str, result: str = "return {}") -> str:
        """The statements that end in the `result`; `constant` is for a value that does not depend on x."""
        lines, value = statements(self.tree, self.to)
        constants = all(leaf.op != "x" for leaf in self.tree.leaves())
        return "\n".join([*lines, result.format(constant.format(value) if constants else value)])


def _starting(tree: Expression, channels: int, betas: Betas | None) -> Betas:
    """One row of values a parameter; values that all channels share stand once."""
    checked_channels(channels)
    count = len(tree.betas)
    if betas is None:
        return [[1.0]] * count
    if [len(row) for row in betas] != [channels] * count or not all(math.isfinite(v) for row in betas for v in row):
        raise SpaceError(f"betas must be {count} rows (parameters) of {channels} finite values (channels)")
    same = all(len(set(row)) == 1 for row in betas)
    return [[float(value) for value in (row[:1] if same else row)] for row in betas]


def _tree(expression: Expression | str, to: str) -> Expression:
    """The tree to export; SpaceError names the targets that can, where `to` lacks one of the functions."""
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
    body = export.body("torch.zeros_like(x) + {}")
    if symbols:
        unpacked = ", ".join(symbols) if len(symbols) > 1 else "(beta,)"
        body = (
            "if self.channels > 1 and x.shape[:2][-1:] != (self.channels,):\n"
            '    raise ValueError(f"dimension 1 must be the {self.channels} channels, not {tuple(x.shape)}")\n'
            "shape = (self.channels,) + (1,) * max(0, x.dim() - 2) if self.channels > 1 else ()\n"
            f"{unpacked} = self.beta.to(x.dtype).reshape(-1, *shape).unbind()\n{body}"
        )
    definition = export.filled(
        _TORCH_CLASS,
        name=name,
        example=indent(_example(export, name), " " * 4).strip(),
        parameters=_TORCH_PARAMETERS.format(start=_rows(export.betas)) if symbols else "",
        body=indent(body, " " * 8),
    )
    imports = [
        "from __future__ import annotations\n",
        "import math\n",
        "import torch",
        "import torch.nn.functional as F",
    ]
    used = [True, "math." in definition or "_within(" in definition, True, "F." in definition]
    return export.file(
        "a PyTorch module", "\n".join([*compress(imports, used), "from torch import Tensor, nn"]), definition
    )


def _rows(rows: Betas) -> str:
    """A table of numbers, in lines of a good length where there is one value a channel."""
    return fill(str([list(row) for row in rows]), 72, subsequent_indent=" " * 12)


def _example(export: _Export, name: str) -> str:
    """A doctest with what our own module computes."""
    module = Activation(export.tree, export.channels)
    for parameter, row in zip(module.betas, export.betas, strict=True):
        parameter.data = torch.tensor(row).expand(export.channels)
    points = torch.tensor([-2.0, -0.5, 0.0, 1.5], dtype=torch.float64)
    with torch.no_grad():
        values = module(points.unsqueeze(1).expand(-1, export.channels))[:, 0].tolist()
    literal = LANGUAGES["torch"].number
    shown = ", ".join(literal(float(f"{value:.8g}"))[0] for value in values)
    return _TORCH_EXAMPLE.format(name=name, channels=export.channels, points=points.tolist(), values=f"[{shown}]")


def _jax(export: _Export) -> str:
    body = export.body("jnp.broadcast_to(jnp.asarray({}, x.dtype), x.shape)")
    values = [str(row[0]) if len(row) == 1 else f"({_rows([row])[2:-2]})" for row in export.betas]
    pairs = zip(export.symbols, values, strict=True)
    definition = export.filled(
        _JAX_FUNCTION,
        name=export.identifier(camel=False),
        arguments="".join(f"\n    {symbol}: ArrayLike | tuple[float, ...] = {value}," for symbol, value in pairs),
        casts="".join(f"    {symbol} = jnp.asarray({symbol}, x.dtype)\n" for symbol in export.symbols),
        body=indent(body, " " * 4),
    )
    imports = "from __future__ import annotations\n\nimport jax\nimport jax.numpy as jnp"
    return export.file("for jax", imports + "\nfrom jax.typing import ArrayLike" * bool(values), definition)


def _sympy(export: _Export) -> str:
    if any(len(row) > 1 for row in export.betas):
        raise SpaceError("sympy has one value a parameter, not one a channel; torch, jax and onnx have both")
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
    return f"f(x) = {shown[0]}\n"


def _markdown(export: _Export) -> str:
    return export.filled(
        _CARD,
        latex=_latex(export).strip(),
        text=export.tree,
        symbols=", ".join(export.symbols) or "none",
        values=export.betas or "-",
        name=export.identifier(camel=True),
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


@undisturbed()
def onnx_bytes(expression: Expression | str, *, channels: int = 1, betas: Betas | None = None, rank: int = 4) -> bytes:
    """An ONNX model of the function: float32 input `x` of `rank` dimensions, output `y`, parameters as initialisers.

    Raises:
        ParseError: text that is no expression.
        SpaceError: the package onnx is missing, a function that ONNX cannot express, betas of another shape, a rank
            without channels.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        raise SpaceError(f"onnx files need a package: pip install onnx; without: {', '.join(_WRITERS)}") from None
    if rank < (2 if channels > 1 else 0):
        raise SpaceError(f"rank must be at least {2 if channels > 1 else 0}, not {rank!r}: dimension 1 is the channels")
    tree = _tree(expression, "onnx")
    nodes, constants = _graph(tree, _starting(tree, channels, betas), channels, rank)
    axes = ["batch", channels if channels > 1 else "channels", *(f"axis{i}" for i in range(2, rank))][:rank]
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
    tree: Expression, betas: Betas, channels: int, rank: int
) -> tuple[list[tuple[str, tuple[str, ...], str]], dict[str, Array]]:
    """Nodes (operation, inputs, output) in order, and the initialisers."""
    shape = (channels,) + (1,) * max(0, rank - 2) if channels > 1 else ()
    values: dict[str, Array] = {}
    for i, row in enumerate(betas, start=1):
        values[f"beta{i}"] = np.broadcast_to(np.array(row, np.float32), channels).reshape(shape)
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

    last = tree.fold(fold_constants).fold(in_onnx_terms).fold(place)
    # A value that does not depend on x has the shape of x all the same.
    nodes += [("Shape", ("x",), "shape"), ("Expand", (last, "shape"), "y")]
    return nodes, values
