"""docs/evidence.md: its example prints what it shows, and what it says about few seeds is so."""

from __future__ import annotations

import re

import pytest

from searcher.evidence import power
from searcher.evidence.estimates import probability_interval
from searcher.evidence.paired import ROPES
from searcher.evidence.sequential import LOOKS
from searcher.evidence.significance import permutation_test
from tests.support import ROOT

TEXT = (ROOT / "docs" / "evidence.md").read_text()


def test_the_example_prints_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    own = TEXT.partition("## From Python")[2]
    (example,), (shown,) = (
        re.findall(rf"^```{kind}\n(.*?)^```", own, re.DOTALL | re.MULTILINE) for kind in ("python", "text")
    )
    exec(example, {})
    assert capsys.readouterr().out.split() == shown.split()


def test_the_numbers_of_the_document_are_those_of_the_code() -> None:
    words = " ".join(TEXT.split())
    five = probability_interval(5, 0, 0)
    assert f"five wins of five have the interval {five.low:.3f} to {five.high:g}" in words
    assert (
        f"is {ROPES['fraction']:g} for fractions such as accuracies and {ROPES['nats']:g} for losses in nats" in words
    )
    assert f"{power.noether(0.75)} pairs are a good number" in words
    *first, last = LOOKS
    assert f"After {', '.join(map(str, first))} and {last} seeds" in words
    assert f"Intervals are {100 * (1 - 0.05 / len(LOOKS)):g} % intervals" in words
    for seeds, p in ((4, 0.125), (5, 0.0625)):
        assert permutation_test([1.0 + i for i in range(seeds)]) == (p, True)
        assert f"goes below {p:g} |" in words
