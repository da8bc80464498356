"""Samplers by name: those of this package, those of Optuna, and classes of a person's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from search_space import Choices, Expression, Grammar, SpaceError, nearest, parse
from search_space.modules import CodeName, code_name, import_module, raised
from searcher.samplers.contract import Observation, Pending, Sampler, SamplerError, SamplerFailed

# The name of each sampler of ours, and where its class is.
BUILT_IN: Mapping[str, CodeName] = {
    "random": CodeName("searcher.samplers.random", "RandomSampler"),
    "rnn": CodeName("searcher.samplers.rnn", "RnnSampler"),
}
OWN = "package.module:Class"

T = TypeVar("T")


def make_sampler(name: str, grammar: Grammar, *, seed: int, kwargs: Mapping[str, Any] | None = None) -> Sampler:
    """Return a new sampler.

    Args:
        name: `random`, `rnn`, `optuna:NAME`, or `package.module:Class` for a class of one's own.
        kwargs: the sampler's own options.

    Raises:
        SamplerError: no such sampler, one that cannot serve here, or an option that it does not take.
    """
    options = dict(kwargs or {})
    family, _, member = name.partition(":")
    if family == "optuna":
        from searcher.samplers.optuna import OptunaSampler

        return OptunaSampler(member or "tpe", options, grammar=grammar, seed=seed)
    if name in BUILT_IN:
        return configured(_class(BUILT_IN[name], name), name, options, grammar=grammar, seed=seed)
    if own := code_name(name):
        made = configured(_class(own, name), name, options, grammar=grammar, seed=seed)
        return CheckedSampler(made, name, grammar)
    raise SamplerError(f"unknown sampler {name!r}; {nearest(name, [*BUILT_IN, 'optuna:tpe', 'optuna:NAME', OWN])}")


def _class(code: CodeName, name: str) -> Callable[..., Sampler]:
    try:
        found = getattr(import_module(code.module), code.attribute, None)
    except SpaceError as error:
        raise SamplerError(f"sampler {name!r}: {error}") from error
    if not isinstance(found, type):
        lacks = f"no class {code.attribute!r} there"
    elif missing := [method for method in ("ask", "tell") if not callable(getattr(found, method, None))]:
        lacks = f"it has no {' and no '.join(missing)}"
    else:
        return found
    raise SamplerError(f"sampler {name!r} is no sampler: {lacks}; see searcher.samplers.contract.Sampler")


def configured(make: Callable[..., T], name: str, options: Mapping[str, Any], **fixed: Any) -> T:
    """Return `make(**options, **fixed)`.

    Raises:
        SamplerError: an option that it does not take, or a value of another kind than the default's.
    """
    parameters = inspect.signature(make).parameters
    named = {p: facts for p, facts in parameters.items() if facts.kind is not facts.VAR_KEYWORD}
    taken = {p: facts.default for p, facts in named.items() if p not in fixed}
    for option, value in options.items():
        if option not in taken:
            accepted = nearest(option, taken) if taken else "it takes none"
            raise SamplerError(f"sampler {name!r} has no option {option!r}; {accepted}")
        if not _like(value, taken[option]):
            raise SamplerError(
                f"sampler {name!r} does not accept {option} {value!r}; it is {taken[option]!r} if not given"
            )
    try:
        return make(**options, **fixed)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # of a person's own class
        given = f"{dict(options)}: {error}" if isinstance(error, (TypeError, ValueError)) else raised(error)
        raise SamplerError(f"sampler {name!r} does not accept {given}") from error


def _like(value: Any, default: Any) -> bool:
    """Return True if a value is of the kind of a default, as far as that tells."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, (int, float)):
        number = isinstance(value, int) or (isinstance(default, float) and isinstance(value, float))
        return number and not isinstance(value, bool)
    return not isinstance(default, str) or isinstance(value, str)


class CheckedSampler:
    """A sampler of a person's own, whose answers are checked against the contract.

    Raises (in `ask` and `tell`):
        SamplerFailed: it raised an exception, or broke a rule; the message says which.
    """

    def __init__(self, sampler: Sampler, name: str, grammar: Grammar) -> None:
        self._sampler, self._name, self._grammar = sampler, name, grammar

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices | Expression | None:
        """Return what the sampler proposes, if it keeps the contract."""
        try:
            found = self._sampler.ask(number, pending)
        except Exception as error:
            raise SamplerFailed(f"sampler {self._name!r} failed in ask({number}): {raised(error)}") from error
        if found is None:
            return None
        if isinstance(found, Expression) and not getattr(self._sampler, "any_expression", False):
            raise self._broken(number, found, "an Expression needs `any_expression = True` in the class")
        try:
            if isinstance(found, Expression):
                return parse(str(found))  # within the limits of the language
            choices = tuple(int(choice) for choice in found)
            self._grammar.decode(choices)
        except (TypeError, ValueError, SpaceError, LookupError) as error:
            raise self._broken(number, found, str(error) or type(error).__name__) from error
        return choices

    def tell(self, observation: Observation) -> None:
        """Tell the sampler a judged trial."""
        try:
            self._sampler.tell(observation)
        except Exception as error:
            raise SamplerFailed(
                f"sampler {self._name!r} failed in tell, of trial {observation.number}: {raised(error)}"
            ) from error

    def _broken(self, number: int, found: object, why: str) -> SamplerFailed:
        return SamplerFailed(
            f"sampler {self._name!r} broke rule 3 of its contract: ask({number}) returned {str(found)[:200]!r}, not "
            f"{len(self._grammar.decisions)} decisions of the grammar, or None ({why})"
        )
