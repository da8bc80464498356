"""The report in a real browser: nothing is fetched, nothing complains, it can be read and used everywhere.

Without a Chromium these tests are skipped, and without axe the check of accessibility. CONTRIBUTING.md says how to get
both.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from searcher.reports.document import files
from searcher.reports.document.data import report_data
from searcher.store.store import Store
from tests.support.browser import PHONE, Page, axe, browser, chromium
from tests.support.reported import a_confirmation, a_search, ended, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not chromium(), reason="there is no Chromium here; name one: SEARCHER_CHROMIUM=/usr/bin/chromium"
    ),
]
needs_axe = pytest.mark.skipif(axe() is None, reason="axe is not here: npm install --no-save axe-core, or SEARCHER_AXE")

PAGES = ("search", "confirmation", "hostile", "empty")
HOSTILE = "<script>alert(1)</script><img src=http://example.com/x.png onerror=alert(2)> {{ 7 * 7 }} \" ' & "
LONG = "max(x, " * 60 + "x" + ")" * 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reports: of a search, of its confirmation, of a study with hostile texts, and of an empty one."""
    made = tmp_path_factory.mktemp("reports")
    store = Store(f"sqlite:///{made}/searcher.db", create=True)
    study = a_search(store, HOSTILE, ())
    values = {"val_loss": 0.3, "val_acc": 0.9, "train_loss": 0.2}
    odd = [LONG.removesuffix(")") + ", " + HOSTILE + ")", LONG, HOSTILE]
    trials = [ended(0, "relu", 0, study.task, None, reason=HOSTILE)]
    for n, text in enumerate(odd, 1):
        trials.append(ended(n, "relu", n, study.task, values, expression=text, key=f"{n}", name=""))
    studies = {
        "search": a_search(store),
        "confirmation": a_confirmation(store),
        "hostile": write(store, study, trials),
        "empty": a_search(store, "empty", ()),
    }
    for name, one in studies.items():
        data = report_data(store, one, costs=name == "search")
        for path, text in files.contents_of(data, made / f"{name}.html").items():
            path.write_text(text)
    store.close()
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(page: Page, folder: Path) -> Page:
    """The browser, which remembers nothing of the test before."""
    page.complaints.clear()
    page.requests.clear()
    return page


@pytest.mark.parametrize("name", PAGES)
def test_nothing_complains_and_nothing_is_fetched(opened: Page, folder: Path, name: str) -> None:
    opened.open(folder / f"{name}.html")
    assert opened.run(
        "document.images.length == 0 || [...document.images].every(i => i.complete && i.naturalWidth > 100)"
    )
    assert opened.complaints == []
    assert opened.requests == [(folder / f"{name}.html").as_uri()]


def test_the_browser_of_these_tests_notices_what_is_wrong(opened: Page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!DOCTYPE html><title>bad</title><meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
        "<p style='width: 2000px'>wide<img src=http://127.0.0.1:9/x.png><script>console.log(1)</script>"
    )
    opened.open(bad, width=PHONE)
    assert "http://127.0.0.1:9/x.png" in opened.requests
    assert any("Content Security Policy" in text for text in opened.complaints)
    assert too_wide(opened)
    if axe():
        assert "image-alt" in violations(opened)


def too_wide(page: Page) -> bool:
    """Return True if a phone must scroll the page as a whole sideways, or shows all of it smaller."""
    return bool(page.run("document.scrollingElement.scrollWidth") > PHONE)


def violations(page: Page) -> dict[str, str]:
    """Return the rules of axe that the page breaks, each with the first place."""
    path = axe()
    assert path
    page.run(path.read_text() + "; 0")
    found = page.run("axe.run().then(r => r.violations.map(v => [v.id, v.nodes[0].html + v.nodes[0].failureSummary]))")
    return dict(found)


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_all_of_it_without_scrolling_the_page_sideways(opened: Page, folder: Path, name: str) -> None:
    opened.open(folder / f"{name}.html", width=PHONE)
    assert not too_wide(opened)
    boxes = "[...document.querySelectorAll('.scroll, pre')].every(box => box.getBoundingClientRect().right <= %d)"
    assert opened.run(boxes % PHONE)


@needs_axe
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1100, PHONE])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(opened: Page, folder: Path, name: str, width: int, dark: bool) -> None:
    opened.open(folder / f"{name}.html", width=width, dark=dark)
    opened.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert violations(opened) == {}


def test_it_is_dark_where_the_reader_wants_that(opened: Page, folder: Path) -> None:
    """Text and background swap; pictures, whose ink is black, stay on white."""
    colours = {}
    for dark in (False, True):
        opened.open(folder / "confirmation.html", dark=dark)
        background, text, card = (
            opened.run(f"getComputedStyle(document.querySelector('{where}')).{what}")
            for where, what in (("body", "backgroundColor"), ("body", "color"), (".card", "backgroundColor"))
        )
        colours[dark] = brightness(background), brightness(text)
        assert brightness(card) > 0.95
    assert colours[False][0] > 0.9 > 0.2 > colours[False][1]
    assert colours[True][0] < 0.2 < 0.8 < colours[True][1]


def brightness(colour: str) -> float:
    numbers = [float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(numbers) / 3 / 255


def test_a_table_is_sorted_by_the_keyboard(opened: Page, folder: Path) -> None:
    """By numbers, not by texts; rows without a value stay last; screen readers hear the order."""
    opened.open(folder / "confirmation.html")
    script = "[...document.querySelector('table').rows].slice(1).map(row => row.cells[%d].textContent)"
    heads = opened.run("[...document.querySelectorAll('table')[0].tHead.rows[0].cells].map(one => one.textContent)")
    column = heads.index("difference")
    opened.run(f"document.querySelectorAll('table')[0].tHead.rows[0].cells[{column}].firstChild.focus()")
    seen = []
    for _ in range(2):
        opened.press("Enter")
        values = opened.run(script % column)
        assert values[-1] == "", "the reference has no difference"
        seen.append([float(value) for value in values[:-1]])
    assert seen[0] == sorted(seen[0], reverse=True) and seen[1] == sorted(seen[1])
    sort = f"document.querySelectorAll('table')[0].tHead.rows[0].cells[{column}].getAttribute('aria-sort')"
    assert opened.run(sort) == "ascending"
    opened.run("document.querySelectorAll('table')[0].tHead.rows[0].cells[0].firstChild.click()")
    assert opened.run(script % 0) == ["relu", "swish1", "tanh", "x * sigmoid(2 * x)", "x * tanh(x)"]
    assert opened.run(sort) is None, "one column at a time"


@pytest.mark.parametrize("name", PAGES)
def test_it_can_be_printed(opened: Page, folder: Path, name: str) -> None:
    opened.open(folder / f"{name}.html", dark=True)
    assert opened.pdf().startswith(b"%PDF-")
    if name == "empty":
        return
    opened.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert brightness(opened.run("getComputedStyle(document.body).backgroundColor")) > 0.95, "paper is white"
    assert opened.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    opened.call("Emulation.setEmulatedMedia", media="")


def test_headings_are_in_order_and_landmarks_are_there(opened: Page, folder: Path) -> None:
    opened.open(folder / "confirmation.html")
    assert opened.run("[...document.querySelectorAll('h1, h2, h3')].map(one => one.tagName)") == ["H1", *["H2"] * 6]
    assert opened.run("['header', 'nav', 'main', 'footer'].every(one => document.querySelectorAll(one).length == 1)")
    assert opened.run("document.documentElement.lang") == "en"
    alts = opened.run("[...document.images].map(one => one.alt)")
    assert len(alts) >= 4 and all(len(alt) > 60 for alt in alts)
