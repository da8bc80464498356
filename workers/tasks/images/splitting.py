"""Splits of labelled rows in which every class keeps its share. NumPy alone, so that a worker needs no scikit-learn."""

from __future__ import annotations

import math

import numpy as np


def stratified(labels: np.ndarray, held: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions to keep and positions to hold back, each in random order.

    The draws are those of scikit-learn's `train_test_split(stratify=labels)`, whose splits earlier studies have: the
    same seed gives the same rows.

    Args:
        labels: `(n,)`, whole numbers.
        held: how many of them are held back, if it is an int; otherwise which share, rounded up.
    """
    back = held if isinstance(held, int) else math.ceil(held * len(labels))
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    draw = np.random.RandomState(seed)
    keep_counts = _apportioned(counts, len(labels) - back, draw)
    back_counts = _apportioned(counts - keep_counts, back, draw)
    kept, held_back = [], []
    for index, (keeps, backs) in enumerate(zip(keep_counts, back_counts, strict=True)):
        members = draw.permutation(np.flatnonzero(which == index))
        kept.append(members[:keeps])
        held_back.append(members[keeps : keeps + backs])
    return draw.permutation(np.concatenate(kept)), draw.permutation(np.concatenate(held_back))


def _apportioned(counts: np.ndarray, wanted: int, draw: np.random.RandomState) -> np.ndarray:
    """Share out `wanted` in proportion to `counts`: rounded down first, the rest to the largest remainders, and among
    equal remainders by lot."""
    exact = counts / counts.sum() * wanted
    given = np.floor(exact)
    remainders = exact - given
    for remainder in np.unique(remainders)[::-1]:
        left = int(wanted - given.sum())
        if left <= 0:
            break
        tied = np.flatnonzero(remainders == remainder)
        given[draw.choice(tied, size=min(len(tied), left), replace=False)] += 1
    return np.asarray(given, dtype=int)
