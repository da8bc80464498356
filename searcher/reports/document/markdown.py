"""Write a report as Markdown, as GitHub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from searcher.display import shown
from searcher.reports.document.layout import (
    Code,
    Column,
    Facts,
    Illustration,
    Items,
    Paragraph,
    Section,
    Table,
    document,
)

_SPECIAL = re.compile(r"([\\`*_\[\]~|#$])")


def text(data: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Return the report as Markdown.

    Args:
        pictures: the names of the pictures' files by kind, from the folder of the report.
    """
    report = document(data)
    lines = [f"# {escaped(report.title)}", ""]
    for section in report.sections:
        lines += [f"## {escaped(section.title)}", "", *_section(section, pictures)]
    lines.append(f"Made by searcher {escaped(data['searcher'])}.")
    return "\n".join(lines) + "\n"


def escaped(written: str) -> str:
    """Return a text in which Markdown and HTML see nothing special, in one line."""
    plain = shown(" ".join(written.split("\n")))
    return _SPECIAL.sub(r"\\\1", plain).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _section(section: Section, pictures: Mapping[str, str]) -> Iterator[str]:
    for block in section.blocks:
        match block:
            case Paragraph():
                yield from (f"**{escaped(block.text)}**" if block.strong else escaped(block.text), "")
            case Items():
                for item, remarks in block.items:
                    yield from (f"- {escaped(item)}", *(f"  - {escaped(remark)}" for remark in remarks))
                yield ""
            case Facts():
                yield from (*(f"- {_fact(fact)}" for fact in block.facts), "")
            case Code():
                fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
                yield from (f"{fence}{block.language}", shown(block.text.rstrip("\n"), lines=True), fence, "")
            case Illustration():
                if name := pictures.get(block.picture["kind"]):
                    yield from (f"![{escaped(block.title)}]({name})", "", escaped(block.caption), "")
            case Table():
                yield from _table(block)


def _fact(fact: Mapping[str, str]) -> str:
    return f"{escaped(fact['what'])}: **{escaped(fact['value'])}** ({escaped(fact['note'])})"


def _table(table: Table) -> Iterator[str]:
    yield from (escaped(table.caption), "")
    yield _row([escaped(column.name) for column in table.columns])
    yield _row(["---:" if column.numeric else "---" for column in table.columns])
    for row in table.rows:
        yield _row([_cell(cell.text, column) for cell, column in zip(row, table.columns, strict=True)])
    yield ""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(written: str, column: Column) -> str:
    if column.code and written and not set(written) & set("`|\n"):
        return f"`{shown(written)}`"
    return escaped(written)
