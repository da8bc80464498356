"""Primitives of a user's own, from a module of theirs (`searcher launch --primitives package.module`).

The module calls `register` when it is imported; a definition is tested there and then (search_space/checks.py). A text
becomes a primitive. A function of tensors becomes a word of the language too, which is all that expressions know of it:
whoever reads them imports the same module first, by `load_primitives`.
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
    # Nodes first: the text of a tree beyond them could fill the memory.
    (lambda tree: tree.size, MAX_NODES, "nodes"),
    (lambda tree: tree.depth, MAX_DEPTH, "levels"),
    (lambda tree: len(str(tree)), MAX_CHARACTERS, "characters"),
)


@dataclass(frozen=True, slots=True)
class Registered:
    """A primitive of a user's: `text` is of x where `arity` is 1, of a and b where it is 2."""

    name: str
    arity: int
    text: str


# What a function computes is in WORDS and OPERATIONS; here is who brought a primitive.
_REGISTERED: dict[str, dict[str, Registered]] = {}  # module -> name -> what it registered, in that order


def register(
    name: str, definition: str | Callable[..., Tensor], *, finite: Interval | None = DEFAULT, meaning: str = ""
) -> Registered:
    """Makes `definition` a primitive, tested before anything is changed. To be called by a module at its import.

    The same definition again, as when the module is loaded anew, changes nothing.

    Args:
        name: letters, digits and _; not the name of anything else.
        definition: a text of x, or of a and b, with at most one `beta`; or a function of one or two tensors, which
            becomes the word `name` of the language. Its operands broadcast: one can be a constant or a parameter.
        finite: where value and slopes are claimed to be finite, for each operand; None claims nothing.
        meaning: a line about a function, for tables of the language.

    Raises:
        SpaceError: a name that is taken, a definition that fails a test; the message names the primitive and says how.
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
            "start Python anew if it replaces that one"
        )
    if before is None and not isinstance(definition, str):
        WORDS[name] = Function(name, row.arity, function, meaning or f"registered by {module}")
        OPERATIONS[name] = function
    _REGISTERED.setdefault(module, {})[name] = row
    return row


def load_primitives(modules: Iterable[str]) -> tuple[Registered, ...]:
    """What these modules register, in order, whether they are imported now or were before. They are looked for where
    Python looks, and then in the current directory.

    Raises:
        SpaceError: no such module, one that fails at its import or registers nothing; the message names it.
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
    """The grammar with these primitives after its own, in their order. The one given stays as it is.

    Raises:
        SpaceError: a name that one of its primitives has; functions too large to be read.
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
    """Whether the name has a meaning already; exports and programs have operations (`within`, `square`) that cannot be
    written, but a word of that name would be mistaken for them."""
    exported = any(name in language.forms for language in LANGUAGES.values())
    known = any(name in table for table in (FUNCTIONS, KERNELS, KNOWN, ALIASES, _LEAVES))
    return known or exported or bool(re.fullmatch("beta[0-9]*", name))


def _find(name: str) -> Registered | None:
    return next((rows[name] for rows in _REGISTERED.values() if name in rows), None)


def _is_same(before: Registered, row: Registered, candidate: Candidate) -> bool:
    """Texts by their trees, functions by their numbers: a module that is loaded anew makes new functions."""
    if before != row or row.name not in FUNCTIONS:
        return before == row
    return agree(candidate, Candidate(row.name, candidate.variables, FUNCTIONS[row.name].apply))


def _read(name: str, definition: str | Callable[..., Tensor]) -> tuple[Registered, Apply]:
    """The row, and what it computes, of tensors and (one of two) numbers."""
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
    """The tree as a function of tensors, its parameter at 1."""

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
    """The language hands constants on as Python numbers, which many functions of torch refuse."""

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
    except (TypeError, ValueError) as error:  # some functions written in C
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
    """Takes back what the module registered: its import failed, and it may look different the next time."""
    rows = _REGISTERED.pop(module, {})
    if kept := {name: rows[name] for name in but}:
        _REGISTERED[module] = kept
    for name in rows:
        if _find(name) is None:
            WORDS.pop(name, None)
            OPERATIONS.pop(name, None)


def _check_limits(grammar: Grammar, added: Iterable[str]) -> None:
    """Each unit the largest on top of the largest so far: a larger input never makes a smaller tree."""
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
                f"{what}, over {most}; use fewer units, shorter texts, or functions of tensors, which are one word"
            )
