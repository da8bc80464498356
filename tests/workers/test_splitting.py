"""Stratified splits are those that scikit-learn draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from workers.tasks.images.splitting import stratified


@settings(max_examples=150)
@given(
    st.lists(st.integers(2, 60), min_size=2, max_size=12),
    st.sampled_from([0.1, 0.2, 0.37, 12, 20]),
    st.integers(0, 2**32 - 1),
)
def test_the_rows_are_those_of_scikit_learn(counts: list[int], held: float, seed: int) -> None:
    """Earlier studies have those splits, and their data digests depend on them."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    try:
        expected = train_test_split(np.arange(len(labels)), test_size=held, stratify=labels, random_state=seed)
    except ValueError:  # too few rows for each class to be on both sides
        return
    for ours, theirs in zip(stratified(labels, held, seed), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("counts", [[1, 30], [2, 2, 2, 90]])
def test_a_class_that_is_too_small_is_missing_on_one_side(counts: list[int]) -> None:
    """Whoever splits looks for that, and refuses such data."""
    labels = np.repeat(np.arange(len(counts)), counts)
    sides = stratified(labels, 0.1, 0)
    assert sorted(np.concatenate(sides)) == list(range(len(labels)))
    assert min(len(np.unique(labels[side])) for side in sides) < len(counts)
