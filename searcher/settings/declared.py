"""Read from the records of settings what they declare: names, types, defaults, flags and keys.

A record is a dataclass. Each of its fields is a setting (`workers.settings.setting`) or another record, a section. A
setting whose value is a record itself is a table: `[recipe]` in a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from workers.settings import KEY, Setting

R = TypeVar("R")

_DECLARED: dict[type, tuple[Declared, ...]] = {}  # reading types is slow; mypy refuses functools.cache on types


@dataclass(frozen=True, slots=True)
class Declared:
    """A setting of a record.

    Attributes:
        name: the name of the field, which is its keyword in Python.
        hint: its type.
        default: its default.
        facts: what is declared about it.
        section: the name of the section of the outermost record that it is in; empty: in none.
        table: the name of the table that it is a field of; empty: of none.
        fields: of a table, its fields.
    """

    name: str
    hint: Any
    default: Any
    facts: Setting
    section: str = ""
    table: str = ""
    fields: tuple[Declared, ...] = ()

    @property
    def key(self) -> str:
        """Its key in an experiment file, `recipe.epochs` in a table."""
        return f"{self.table}.{self.name}" if self.table else self.name

    @property
    def flag(self) -> str:
        """Its flag on the command line; empty if it has none."""
        return "--" + self.name.replace("_", "-") if self.facts.flag else ""

    @property
    def label(self) -> str:
        """Its name in messages: its flag or, if it has none, its key."""
        return self.flag or self.key

    @property
    def kind(self) -> type:
        """The type of its value, without None and without what a table or a list holds."""
        (kind,) = [kind for kind in get_args(self.hint) if kind is not type(None)] if self.optional else [self.hint]
        origin = get_origin(kind) or kind
        return dict if origin is Mapping else origin

    @property
    def optional(self) -> bool:
        """Whether its value may be None."""
        return type(None) in get_args(self.hint)


def declared(record: type) -> tuple[Declared, ...]:
    """Return the settings of a record and its sections, in their order."""
    if record not in _DECLARED:
        _DECLARED[record] = tuple(_declared(record))
    return _DECLARED[record]


def _declared(record: type, section: str = "", inside: str = "") -> Iterator[Declared]:
    hints, defaults = get_type_hints(record), record()
    for field in fields(defaults):
        hint, default = hints[field.name], getattr(defaults, field.name)
        facts = field.metadata.get(KEY)
        if facts is None:
            yield from _declared(hint, section or field.name)
            continue
        table = isinstance(hint, type) and is_dataclass(hint)
        inner = tuple(_declared(hint, section, field.name)) if table else ()
        yield Declared(field.name, hint, default, facts, section, inside, inner)


def keywords(record: type) -> tuple[Declared, ...]:
    """Return what the command line and the Python API can name: the settings, the fields of their tables, and each
    table itself as `<table>_kwargs`. `name` of a table is what the setting takes as a text."""
    return tuple(keyword for one in declared(record) for keyword in (one, *_of_table(one)))


def _of_table(table: Declared) -> Iterator[Declared]:
    if table.fields:
        whole = Setting(f"Fields of the {table.name}", example=table.facts.example)
        yield Declared(f"{table.name}_kwargs", dict[str, Any], None, whole, table.section)
        yield from (field for field in table.fields if field.name != "name")


def values(record: Any) -> Iterator[tuple[Declared, Any]]:
    """Yield the settings of a record with their values, and the fields of a table in place of the table."""
    flat_values = flat(record)
    for one in declared(type(record)):
        value = flat_values[one.name]
        yield from ((field, getattr(value, field.name)) for field in one.fields)
        if not one.fields:
            yield one, value


def flat(record: Any) -> dict[str, Any]:
    """Return the values of a record and its sections by name."""
    found: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        found |= {field.name: value} if KEY in field.metadata else flat(value)
    return found


def replaced(record: R, changes: Mapping[str, Any]) -> R:
    """Return a record with other values, which are named as in `flat`.

    Raises:
        TypeError: The record has no setting of such a name.
    """
    left = dict(changes)
    new: R = _replaced(record, left)
    if left:
        raise TypeError(f"{type(record).__name__} has no setting {next(iter(left))!r}")
    return new


def _replaced(record: Any, left: dict[str, Any]) -> Any:
    new = {}
    for field in fields(record):
        if KEY not in field.metadata:
            new[field.name] = _replaced(getattr(record, field.name), left)
        elif field.name in left:
            new[field.name] = left.pop(field.name)
    return replace(record, **new)
