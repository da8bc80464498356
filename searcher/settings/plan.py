"""What a study searches and what it begins with: its grammar, and known functions to compare with."""

from __future__ import annotations

from dataclasses import replace

from search_space import BASELINES, Grammar, baseline, extended, key, load_primitives, parse, space
from searcher.records import Kind, Trial
from searcher.settings.config import Config


def grammar_of(config: Config) -> Grammar:
    """The search space of a study.

    Raises:
        SpaceError: an unknown space, units that it has not, an unknown primitive, a module that registers none.
    """
    whole = extended(space(config.space, config.units), load_primitives(config.primitives))
    return replace(whole, unary=config.unary or whole.unary, binary=config.binary or whole.binary)


def baseline_trials(config: Config) -> list[Trial]:
    """As many of the chosen functions, known by name or written out, as fit into half of the study's total.

    Raises:
        SpaceError: an unknown baseline. ParseError: one written out that is no expression.
    """
    load_primitives(config.primitives)
    chosen = _chosen(config)[: config.n_trials // 2]
    return [_baseline_trial(number, name, config.seed) for number, name in enumerate(chosen)]


def left_out(config: Config) -> list[str]:
    """Those of the chosen functions that do not fit."""
    return _chosen(config)[config.n_trials // 2 :]


def _chosen(config: Config) -> list[str]:
    names = BASELINES if config.baselines == ("all",) else config.baselines
    return [name for name in names if name != "none"]


def _baseline_trial(number: int, name: str, seed: int) -> Trial:
    """`x` and names of known functions stand for these, anything else for itself. Maxout is no expression."""
    if name == "maxout":
        text, found = "maxout(2)", "maxout(2)"
    else:
        tree = parse(baseline(name).expression if name.isidentifier() and name != "x" else name)
        text, found = str(tree), key(tree)
    return Trial(number, Kind.BASELINE, text, found, seed, name=name if name.isidentifier() else "own")
