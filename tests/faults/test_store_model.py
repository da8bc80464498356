"""The store against a model of it, by random histories: what two drivers and two readers may do, in any order."""

from __future__ import annotations

import pytest

from tests.support.histories import explore

pytestmark = pytest.mark.slow

EXAMPLES, STEPS = 40, 30  # benchmarks/soak.py has more


@pytest.fixture(autouse=True)
def long_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the model leases do not run out."""
    monkeypatch.setattr("searcher.store.store.LEASE_SECONDS", 1e6)


def test_the_store_agrees_with_its_model(database_url: str) -> None:
    """Seen to fail with the state left out of the update's WHERE, and with `release` not asking for the generation."""
    explore(database_url, EXAMPLES, STEPS)
