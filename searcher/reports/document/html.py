"""Write a report as one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from searcher.display import shown
from searcher.reports.document.illustrations import drawn
from searcher.reports.document.layout import document

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Image:
    """A picture as a browser shows it: its content as a URL, its size in CSS pixels."""

    source: str
    width: int
    height: int


def page(data: Mapping[str, Any]) -> str:
    """Return the report as an HTML page. Every text is escaped; scripts but its own are forbidden."""
    style, script = ((HERE / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return _template().render(
        document=document(data),
        images={picture["kind"]: image(drawn(picture)) for picture in data["pictures"]},
        searcher=data["searcher"],
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'",
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_visible,
    )
    return environment.from_string((HERE / "page.html").read_text(encoding="utf-8"))


def _visible(value: Any) -> Any:
    """Show control characters and invisible ones as escapes, in every text that comes from outside."""
    return shown(value, lines=True) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def image(svg: str) -> Image | None:
    """Return an `<svg>` element as an image of its own, so that its ids and styles do not touch the page; None for an
    empty text."""
    if not svg:
        return None
    text = (
        svg if "xmlns=" in svg.partition(">")[0] else svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    )
    width, height = (_pixels(text, side) for side in ("width", "height"))
    return Image(f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}", width, height)


def _pixels(svg: str, side: str) -> int:
    """Return the size that an SVG has in points as CSS pixels."""
    found = re.search(rf'\b{side}="([\d.]+)pt"', svg.partition(">")[0])
    return round(float(found[1]) * 4 / 3) if found else 600
