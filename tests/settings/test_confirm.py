"""The settings of confirmations agree with their document."""

from __future__ import annotations

import re

import pytest

from searcher.settings.config import ConfigError
from searcher.settings.confirm import ConfirmSettings
from searcher.settings.declared import declared
from tests.support import ROOT


def test_the_document_has_every_flag() -> None:
    table = re.findall(r"^\| (`--.*?) \| (.*?) \|", (ROOT / "docs" / "evidence.md").read_text(), re.MULTILINE)
    said = {flag: default for flags, default in table for flag in re.findall(r"`(--[\w-]+)`", flags)}
    settings = {one.flag: one.default for one in declared(ConfirmSettings)}
    assert set(settings) <= set(said)
    assert said["--alpha"] == str(settings["--alpha"])
    assert said["--tune-lr"] == str(settings["--tune-lr"])
    assert said["--reference"] == f"`{settings['--reference']}`"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 1}, "--seeds must be from 2 to 10000, not 1"),
        ({"seeds": "many"}, "seeds must be a whole number, not 'many'"),
        ({"alpha": 0.9}, "--alpha must be from 1e-09 to 0.5, not 0.9|--alpha must be at most 0.5, not 0.9"),
        ({"top": -1}, "--top must be from 0 to 10000, not -1"),
        ({"tune_lr": 4}, "--tune-lr must be 0 or an odd number from 3"),
        ({"reference": " "}, "--reference must name a function"),
    ],
)
def test_wrong_values(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConfirmSettings.of(given)
