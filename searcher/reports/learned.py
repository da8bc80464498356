"""Describe a function as a training has learned it: with the values that its parameters had at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from search_space import Activation, Expression, nearest, parse
from search_space.activation import default_modes
from searcher import SearcherError, UsageError
from searcher.records import Study
from searcher.reports.function import Array
from searcher.store.store import Store
from workers.contract import Learned


class NothingLearned(SearcherError):
    """A trial has no learned parameters."""


@dataclass(frozen=True, slots=True)
class LearnedFunction:
    """A function with the parameters that one training has learned.

    Attributes:
        expression: the function.
        where: the trial, in words.
        parameters: the learned parameters, site by site; empty if the function has none.
        replaces: what the function took the place of in the network: "activation", "gate" or "norm".
    """

    expression: Expression
    where: str
    parameters: tuple[Learned, ...]
    replaces: str = "activation"

    @classmethod
    def of(cls, store: Store, study: Study, number: int) -> LearnedFunction:
        """Read a trial. A trial that cites another one has the learned parameters of that one.

        Raises:
            UnknownStudy: the study has no such trial.
            NothingLearned: the function has parameters, but those that were learned are not there.
            ParseError: the function needs primitives that were not loaded.
        """
        trial = store.trial(study, number)
        expression = parse(trial.expression)
        found = store.learned(study, trial.training)
        where = f"trial {number} of study {study.name}"
        if expression.betas and not found:
            raise NothingLearned(
                f"{where} ({trial.state}) has no learned parameters. They are kept of trainings that came to their "
                "end, but not by older versions; train the function again: searcher confirm --help"
            )
        replaces = study.tasks[trial.task_config].config.parameters.get("site", "activation")
        return cls(expression, where, tuple(found), replaces)

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the activations in the network, in its order."""
        return tuple(dict.fromkeys(one.site for one in self.parameters))

    def at(self, site: str) -> tuple[Learned, ...]:
        """Return the parameters at one site.

        Raises:
            NothingLearned: the function has no parameters.
            UsageError: there is no such site.
        """
        if not self.parameters:
            raise NothingLearned(f"{self.where}: {self.expression} has no parameters, so nothing in it was learned")
        if site not in self.sites:
            raise UsageError(f"{self.where} has no activation {site!r}; {nearest(site, self.sites)}")
        return tuple(one for one in self.parameters if one.site == site)

    @property
    def medians(self) -> tuple[float, ...]:
        """The median over the sites of each parameter's median over the channels, to six digits."""
        names = dict.fromkeys(one.parameter for one in self.parameters)
        found = (median(one.median for one in self.parameters if one.parameter == name) for name in names)
        return tuple(float(f"{value:.6g}") for value in found)

    @property
    def typical(self) -> Expression:
        """The function with the medians in place of its parameters."""
        return self.expression.with_numbers(self.medians)

    def module(self, site: str) -> Activation:
        """Return the activation of a site as it was at the end of the training.

        Raises:
            NothingLearned: the function has no parameters.
            UsageError: there is no such site, or only statistics of its parameters were kept.
        """
        found = self.at(site)
        if not all(one.values for one in found):
            raise UsageError(
                f"{self.where}: of the {found[0].channels} channels at {site} only statistics are kept, because they "
                "are too many; without a site, the medians over all sites are used"
            )
        made = Activation(self.expression, found[0].channels, dim=found[0].dim).requires_grad_(False)
        for beta, one in zip(made.betas, found, strict=True):
            beta.copy_(torch.tensor(one.values))
        return made.requires_grad_(True)

    @default_modes()
    def curve(self, site: str, x: Array) -> tuple[Array, Array, Array]:
        """Return the median over the channels of f at each x, and the quartiles below and above it. Where only
        statistics were kept, all three are f with the medians of the parameters."""
        found = self.at(site)
        rows = [one.values or (one.median,) for one in found]
        made = Activation(self.expression, len(rows[0])).double().requires_grad_(False)
        for beta, row in zip(made.betas, rows, strict=True):
            beta.copy_(torch.tensor(row, dtype=torch.float64))
        y = made(torch.tensor(x).unsqueeze(1).expand(-1, len(rows[0]))).numpy()
        low, middle, high = np.quantile(y, (0.25, 0.5, 0.75), axis=1)
        return middle, low, high


def table_row(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return a learned parameter, given as plain values, as a row of a table that people read."""
    return {
        "site": one["site"],
        "parameter": one["parameter"],
        "channels": one["channels"],
        "median": f"{one['median']:.4g}",
        "quartiles": f"{one['lower_quartile']:.4g} to {one['upper_quartile']:.4g}",
        "range": f"{one['minimum']:.4g} to {one['maximum']:.4g}",
    }
