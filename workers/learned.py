"""Read the learned parameters of the activations in a network."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from search_space import Activation
from search_space.activation import beta_names
from workers.contract import Learned, Verdict
from workers.tasks.base import Ended

LARGEST_SITE = 4096  # bytes of the float32 values of one activation; of larger ones only statistics are kept
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def learned_parameters(modules: Iterable[tuple[str, nn.Module]]) -> tuple[Learned, ...]:
    """Return the learned parameters of the activations among modules with names, in their order.

    Raises:
        Ended: the training has diverged, because a parameter is not finite.
    """
    return tuple(
        _learned(name, module, parameter, values)
        for name, module in modules
        if isinstance(module, Activation)
        for parameter, values in zip(beta_names(len(module.betas)), module.betas, strict=True)
    )


def _learned(site: str, module: Activation, parameter: str, values: nn.Parameter) -> Learned:
    vector = values.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(vector).all():
        raise Ended(Verdict.INFEASIBLE, f"diverged: {parameter} of the activation {site} is not finite")
    kept = len(module.betas) * vector.size * 4 <= LARGEST_SITE
    minimum, lower, median, upper, maximum = (float(number) for number in np.quantile(vector, _SHARES))
    return Learned(
        site,
        parameter,
        module.channels,
        module.dim,
        *(float(vector.mean()), float(vector.std()), minimum, lower, median, upper, maximum),
        values=tuple(map(_shortest, vector.astype(np.float32))) if kept else (),
    )


def _shortest(value: np.float32) -> float:
    """Return the number with the fewest digits that is this value in float32."""
    return float(str(value))
