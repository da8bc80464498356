"""Split labelled rows so that every class keeps its share. This needs NumPy only, so a worker needs no scikit-learn."""

from __future__ import annotations

import math

import numpy as np


def stratified(labels: np.ndarray, held: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions to keep and positions to hold back, each in random order.

    The same seed gives the same rows as scikit-learn's `train_test_split(stratify=labels)`, which earlier studies used.

    Args:
        labels: `(n,)`, integers.
        held: how many to hold back if it is an int; otherwise which share, rounded up.
        seed: the seed of the draws.
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
    """Divide `wanted` in proportion to `counts`: the shares are rounded down, the rest goes to the largest remainders,
    and equal remainders are chosen among at random."""
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
