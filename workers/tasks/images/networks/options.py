"""Check the options of a network, which are the keyword-only arguments of its factory.

The annotation of an option defines its values: `bool`, `Literal["same", "valid"]`, `Annotated[int, range(...)]` or
`Annotated[float, (low, high)]`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from search_space import nearest
from workers.contract import WorkersError

Shape: TypeAlias = tuple[int, int, int]  # channels, height and width of an image
Width: TypeAlias = Annotated[int, range(1, 4097)]
Stride: TypeAlias = Annotated[int, range(1, 5)]
Dropout: TypeAlias = Annotated[float, (0.0, 0.9)]


def options_of(factory: type) -> dict[str, Any]:
    """Return the annotations of a factory's options by name."""
    hints = get_type_hints(vars(factory)["__init__"], include_extras=True)
    rows = inspect.signature(factory).parameters.values()
    return {row.name: hints[row.name] for row in rows if row.kind is row.KEYWORD_ONLY}


def check_options(name: str, factory: type, options: Mapping[str, object]) -> None:
    """Check that the factory of the network `name` takes the options.

    Raises:
        WorkersError: an option is unknown, or a value has another type or is out of range.
    """
    kinds = options_of(factory)
    for option, value in options.items():
        if option not in kinds:
            raise WorkersError(f"model {name!r} has no option {option!r}; {nearest(option, kinds)}")
        if not _fits(kinds[option], value):
            raise WorkersError(f"model {name!r}: {option} must be {accepted(kinds[option])}, not {value!r}")


def accepted(kind: Any) -> str:
    """Describe the values that an option with this annotation takes."""
    if kind is bool:
        return "true or false"
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    values = get_args(kind)[1]
    if isinstance(values, range):
        steps = f" in steps of {values.step}" if values.step > 1 else ""
        return f"a whole number from {values[0]} to {values[-1]}{steps}"
    return f"a number from {values[0]:g} to {values[1]:g}"


def _fits(kind: Any, value: object) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    values = get_args(kind)[1]
    if isinstance(values, range):
        return type(value) is int and value in values  # isinstance would accept True
    return type(value) in (int, float) and values[0] <= value <= values[1]
