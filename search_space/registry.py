"""Primitives that users define in a module of their own (`searcher launch --primitives package.module`).

The module calls `register` when it is imported, and `register` tests the definition (search_space/checks.py). A
definition is a text in the expression language, or a function of tensors. A function also becomes a function of the
language under its name. Expressions contain this name only, so every program that reads them must import the same
module first, with `load_primitives`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from search_space.baselines import ALIASES, KNOWN
from search_space.checks import DEFAULT, Apply, Candidate, Interval, agree, check
from search_space.expression import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, Expression, X, parse
from search_space.grammar import Grammar
from search_space.kernels import KERNELS, OPERATIONS
from search_space.modules import import_module
from search_space.notation import LANGUAGES
from search_space.primitives import EPS, FUNCTIONS, WORDS, Function, SpaceError, Value
from search_space.reading import VARIABLES, parsed

_LEAVES = frozenset({"x", "a", "b", "eps", "number"})
_LIMITS: tuple[tuple[Callable[[Expression], int], int, str], ...] = (
    # Nodes come first, because the text of a tree with too many nodes could fill the memory.
    (lambda tree: tree.size, MAX_NODES, "nodes"),
    (lambda tree: tree.depth, MAX_DEPTH, "levels"),
    (lambda tree: len(str(tree)), MAX_CHARACTERS, "characters"),
)


@dataclass(frozen=True, slots=True)
class Registered:
    """A primitive that a user has defined.

    Attributes:
        name: of the primitive.
        arity: the number of operands, 1 or 2.
        text: an expression of x if `arity` is 1, of a and b if it is 2.
    """

    name: str
    arity: int
    text: str


# Module -> name -> the primitive that it registered, in order. The functions themselves are in WORDS and OPERATIONS.
_REGISTERED: dict[str, dict[str, Registered]] = {}


def register(
    name: str, definition: str | Callable[..., Tensor], *, finite: Interval | None = DEFAULT, meaning: str = ""
) -> Registered:
    """Test a definition, and make it a primitive. A module calls this when it is imported.

    Registering the same definition again changes nothing, so a module may be reloaded.

    Args:
        name: letters, digits and _; no name that has a meaning already.
        definition: a text of x, or of a and b, with at most one `beta`; or a function of one or two tensors. The
            function can then be used in expressions under its name. Its operands must broadcast, because one can be a
            constant or a parameter.
        finite: (low, high), the interval of each operand on which the value and the slopes must be finite; None if
            they need not be finite anywhere.
        meaning: a line about a function, for tables of the language.

    Returns:
        The primitive.

    Raises:
        SpaceError: the name is taken or not valid, or the definition fails a test. The message names the primitive and
            the test. Nothing is registered then.
    """
    module = str(sys._getframe(1).f_globals.get("__name__"))
    before = _find(name)
    if before is None:
        _check_name(name)
    row, function = _read(name, definition)
    candidate = Candidate(name, VARIABLES[row.arity], function)
    check(candidate, finite)
    if before is not None and not _is_same(before, row, candidate):
        raise SpaceError(
            f"primitive {name!r}: another definition has this name: {before.text}; give this one another name, or "
            "restart Python if it replaces that one"
        )
    if before is None and not isinstance(definition, str):
        WORDS[name] = Function(name, row.arity, function, meaning or f"registered by {module}")
        OPERATIONS[name] = function
    _REGISTERED.setdefault(module, {})[name] = row
    return row


def load_primitives(modules: Iterable[str]) -> tuple[Registered, ...]:
    """Import modules, and return the primitives that they register, in order.

    Python's search path is searched first, then the current directory. A module that is imported already is not
    imported again, but its primitives are returned.

    Args:
        modules: dotted names.

    Raises:
        SpaceError: a module does not exist, raises an exception when it is imported, or registers nothing.
    """
    found: dict[str, Registered] = {}
    for module in modules:
        _import(module)
        rows = _REGISTERED.get(module)
        if not rows:
            raise SpaceError(f"module {module!r} registers no primitive; {_hint(module)}")
        found |= rows
    return tuple(found.values())


def extended(grammar: Grammar, registered: Iterable[Registered]) -> Grammar:
    """Return a grammar with these primitives after its own. The given grammar does not change.

    Raises:
        SpaceError: the grammar has a primitive of the same name, or its largest functions would exceed the limits of
            the parser.
    """
    more: dict[int, dict[str, str]] = {1: {}, 2: {}}
    for row in registered:
        if row.name in (grammar.unary_texts, grammar.binary_texts)[row.arity - 1]:
            raise SpaceError(f"primitive {row.name!r}: the space has one of this name; give yours another")
        more[row.arity][row.name] = row.text
    larger = replace(
        grammar,
        unary=(*grammar.unary, *more[1]),
        binary=(*grammar.binary, *more[2]),
        unary_texts={**grammar.unary_texts, **more[1]},
        binary_texts={**grammar.binary_texts, **more[2]},
    )
    _check_limits(larger, [*more[1], *more[2]])
    return larger


def _check_name(name: str) -> None:
    if not re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", name):
        raise SpaceError(f"a primitive cannot be called {name!r}; use letters, digits and _, as in my_swish")
    if _is_taken(name):
        raise SpaceError(f"primitive {name!r}: the name has a meaning in the language already; give it another")


def _is_taken(name: str) -> bool:
    """Return True if the name has a meaning already.

    Exports and programs use some names that no expression can contain (`within`, `square`). These are taken too,
    because a function with such a name would be mistaken for the operation.
    """
    exported = any(name in language.forms for language in LANGUAGES.values())
    known = any(name in table for table in (FUNCTIONS, KERNELS, KNOWN, ALIASES, _LEAVES))
    return known or exported or bool(re.fullmatch("beta[0-9]*", name))


def _find(name: str) -> Registered | None:
    """Return the registered primitive with this name, whichever module registered it."""
    return next((rows[name] for rows in _REGISTERED.values() if name in rows), None)


def _is_same(before: Registered, row: Registered, candidate: Candidate) -> bool:
    """Return True if the definition is the registered one.

    Texts are compared as expressions. Functions are compared by their values, because reloading a module makes new
    function objects.
    """
    if before != row or row.name not in FUNCTIONS:
        return before == row
    return agree(candidate, Candidate(row.name, candidate.variables, FUNCTIONS[row.name].apply))


def _read(name: str, definition: str | Callable[..., Tensor]) -> tuple[Registered, Apply]:
    """Return the primitive, and the function that computes it. One of two operands may be a Python number."""
    row, function = _from_text(name, definition) if isinstance(definition, str) else _from_function(name, definition)
    return row, _accepting_numbers(function) if row.arity == 2 else function


def _from_text(name: str, text: str) -> tuple[Registered, Apply]:
    try:
        tree = parse(text, ("x", "a", "b"))
    except SpaceError as error:
        raise SpaceError(f"primitive {name!r}: {error}") from error
    used = {leaf.op for leaf in tree.leaves()} & {"x", "a", "b"}
    arity = {frozenset("x"): 1, frozenset("ab"): 2}.get(frozenset(used))
    if arity is None:
        raise SpaceError(f"primitive {name!r}: {text!r} must be a function of x, or of both a and b")
    if len(tree.betas) > 1:
        raise SpaceError(f"primitive {name!r}: it may have one parameter at most; {text!r} has {len(tree.betas)}")
    return Registered(name, arity, str(tree)), _function_of(tree, VARIABLES[arity])


def _function_of(tree: Expression, variables: tuple[str, ...]) -> Apply:
    """Return a function of tensors that evaluates the tree, with its parameter at 1."""

    def apply(*operands: Tensor) -> Tensor:
        given = dict(zip(variables, operands, strict=True))

        def compute(node: Expression, args: tuple[Tensor, ...]) -> Tensor:
            if node.args:
                result: Tensor = FUNCTIONS[node.op].apply(*args)
                return result
            constant = {"eps": EPS, "beta": 1.0}.get(node.op, node.value)
            return given[node.op] if node.op in given else operands[0].new_tensor(constant)

        return tree.fold(compute)

    return apply


def _from_function(name: str, function: Callable[..., Tensor]) -> tuple[Registered, Apply]:
    arity = _arity(name, function)
    return Registered(name, arity, f"{name}({', '.join(VARIABLES[arity])})"), function


def _accepting_numbers(function: Apply) -> Apply:
    """Return the function for operands that may be Python numbers; they become tensors.

    Expressions pass constants as Python numbers, which many torch functions do not accept.
    """

    def apply(a: Value, b: Value) -> Value:
        like = a if isinstance(a, Tensor) else b
        both = (v if isinstance(v, Tensor) else torch.tensor(v, dtype=like.dtype, device=like.device) for v in (a, b))
        return function(*both)

    return apply


def _arity(name: str, function: Callable[..., Tensor]) -> int:
    if not callable(function):
        raise SpaceError(f"primitive {name!r}: {function!r} is neither a text nor a function of tensors")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:  # some functions written in C have no signature
        raise SpaceError(
            f"primitive {name!r}: Python does not know how many arguments {function!r} takes; wrap it: lambda a: f(a)"
        ) from error
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(p.kind in places and p.default is p.empty for p in parameters)
    if count not in VARIABLES:
        raise SpaceError(
            f"primitive {name!r}: a function of one or two tensors is needed; this takes {count} (wrap a "
            "module of torch: lambda a: module(a))"
        )
    return count


def _import(module: str) -> None:
    """Import a module. If that fails, remove the primitives that it registered during this import."""
    before = set(_REGISTERED.get(module, ()))
    try:
        import_module(module)
    except SpaceError:
        _unregister(module, before)
        raise


def _hint(module: str) -> str:
    inside = [name for name in _REGISTERED if name.startswith(f"{module}.")]
    return f"name those that do: {', '.join(inside)}" if inside else "it must call search_space.register at its import"


def _unregister(module: str, but: Iterable[str] = ()) -> None:
    """Remove the primitives of a module, except those named in `but`."""
    rows = _REGISTERED.pop(module, {})
    if kept := {name: rows[name] for name in but}:
        _REGISTERED[module] = kept
    for name in rows:
        if _find(name) is None:
            WORDS.pop(name, None)
            OPERATIONS.pop(name, None)


def _check_limits(grammar: Grammar, added: Iterable[str]) -> None:
    """Raise SpaceError if the largest function of the grammar exceeds a limit of the parser.

    The largest function has the largest primitive in each place, because a larger input never makes a smaller tree.
    """
    unary = [parsed(grammar.unary_texts[name], VARIABLES[1]) for name in grammar.unary]
    binary = [parsed(grammar.binary_texts[name], VARIABLES[2]) for name in grammar.binary]
    for measure, most, what in _LIMITS:
        largest = X
        for _ in range(grammar.units):
            side = max((tree.substitute({"x": largest}) for tree in unary), key=measure)
            largest = max((tree.substitute({"a": side, "b": side}) for tree in binary), key=measure)
        if measure(largest) > most:
            raise SpaceError(
                f"with {', '.join(added)}, {grammar.units} core units make functions of up to {measure(largest)} "
                f"{what}, over {most}; use fewer units, shorter texts, or functions of tensors, which are one node"
            )
