"""Make samplers by name: samplers of this package, samplers of Optuna, and a user's own classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from search_space import Choices, Expression, Grammar, SpaceError, nearest, parse
from search_space.modules import CodeName, code_name, import_module, raised
from searcher.samplers.contract import Observation, Pending, Sampler, SamplerError, SamplerFailed

# The samplers of this package by name, and the modules of their classes.
BUILT_IN: Mapping[str, CodeName] = {
    "random": CodeName("searcher.samplers.random", "RandomSampler"),
    "rnn": CodeName("searcher.samplers.rnn", "RnnSampler"),
}
OWN = "package.module:Class"

T = TypeVar("T")


def make_sampler(name: str, grammar: Grammar, *, seed: int, kwargs: Mapping[str, Any] | None = None) -> Sampler:
    """Return a new sampler.

    Args:
        name: `random`, `rnn`, `optuna:NAME`, or `package.module:Class` for a user's own class.
        grammar: the grammar of the proposals.
        seed: the seed of the search.
        kwargs: the sampler's own options.

    Raises:
        SamplerError: there is no such sampler, it cannot be used here, or it does not take an option.
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
    raise SamplerError(f"sampler {name!r} is not a sampler: {lacks}; see searcher.samplers.contract.Sampler")


def configured(make: Callable[..., T], name: str, options: Mapping[str, Any], **fixed: Any) -> T:
    """Return `make(**options, **fixed)`.

    Raises:
        SamplerError: `make` does not take an option, or the value of an option has another type than the default.
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
    except Exception as error:  # a user's own class may raise anything
        given = f"{dict(options)}: {error}" if isinstance(error, (TypeError, ValueError)) else raised(error)
        raise SamplerError(f"sampler {name!r} does not accept {given}") from error


def _like(value: Any, default: Any) -> bool:
    """Return True if a value has the type of a default. Integers are accepted for floats; defaults of other types than
    booleans, numbers and texts accept any value."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, (int, float)):
        number = isinstance(value, int) or (isinstance(default, float) and isinstance(value, float))
        return number and not isinstance(value, bool)
    return not isinstance(default, str) or isinstance(value, str)


class CheckedSampler:
    """Wraps a user's own sampler and checks its answers against the contract.

    Raises (`ask` and `tell`):
        SamplerFailed: the sampler raised an exception or broke a rule; the message says which.
    """

    def __init__(self, sampler: Sampler, name: str, grammar: Grammar) -> None:
        self._sampler, self._name, self._grammar = sampler, name, grammar

    def ask(self, number: int, pending: Sequence[Pending] = ()) -> Choices | Expression | None:
        """Return the sampler's proposal after checking it."""
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
        """Tell the sampler about a judged trial."""
        try:
            self._sampler.tell(observation)
        except Exception as error:
            raise SamplerFailed(
                f"sampler {self._name!r} failed in tell, for trial {observation.number}: {raised(error)}"
            ) from error

    def _broken(self, number: int, found: object, why: str) -> SamplerFailed:
        return SamplerFailed(
            f"sampler {self._name!r} broke rule 3 of its contract: ask({number}) returned {str(found)[:200]!r}, not "
            f"{len(self._grammar.decisions)} decisions of the grammar, or None ({why})"
        )
