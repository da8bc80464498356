"""Tell in plain sentences what a study has found: what won, by how much, how sure that is, and what it costs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from searcher.display import measured
from searcher.reports.words import brief, counted

Data = dict[str, Any]
SHOWN = 2  # configurations among the key facts
VALIDATION = "validation only, optimistic"


def title(data: Data) -> str:
    """Return the heading of a report."""
    kind = {"search": "Search", "confirmation": "Confirmation", "design": "Trainings"}[data["study"]["kind"]]
    return f"{kind}: {data['study']['name']}"


def sentences(data: Data) -> list[str]:
    """Return the story of a study, a paragraph in each string."""
    told = _confirmation(data) if data["confirmation"] else _search(data)
    return [paragraph for paragraph in told if paragraph]


def headline(data: Data) -> str:
    """Return the result in one sentence."""
    return _confirmed_headline(data) if data["confirmation"] else _searched_headline(data)


def _confirmed_headline(data: Data) -> str:
    found, won = data["confirmation"], data["winner"]
    so_far = "" if found["finished"] else "So far, "
    if won is None:
        return "Nothing can be compared yet."
    if not won["beats_reference"]:
        nothing = "nothing is" if so_far else "Nothing is"
        mixed = " without losing under another configuration" if won["mixed"] else ""
        return f"{so_far}{nothing} shown to beat {found['reference']}{mixed}."
    verdicts = [one["verdict"] for _, one in _of_function(found, won["label"])]
    better = sum(verdict == "better" for verdict in verdicts)
    under = f" under {better} of {counted(len(verdicts), 'configuration')}" if len(verdicts) > 1 else ""
    return f"{so_far}{brief(won['label'])} beats {found['reference']} by {found['metric']['name']}{under}."


def _searched_headline(data: Data) -> str:
    found, won, against = data["search"], data["winner"], data["search"]["against_relu"]
    if won is None:
        return "No function has been trained to the end."
    if won["name"] == "relu":
        return f"Nothing beat ReLU by {found['objective']}."
    first = f"{brief(won['label'])} ranks first by {found['objective']}"
    if against is None:
        return f"{first}; ReLU was not trained to the end."
    if against["better_by"] == 0:
        return f"Nothing beat ReLU by {found['objective']}: {brief(won['label'])} has the same value."
    weak = ": weak evidence, from one seed" if against["seeds"] == 1 else ""
    return f"{first}, {_number(against['better_by'])} better than ReLU{weak}."


def key_facts(data: Data) -> list[dict[str, str]]:
    """Return the few facts that a reader looks for first: `what`, `value` and `note` of each."""
    found = [*_best_fact(data), *_how_sure(data), _trainings_fact(data), *_cost_fact(data)]
    return [{"what": what, "value": value, "note": note} for what, value, note in found]


# A search ------------------------------------------------------------------------------------------------------------


def _search(data: Data) -> Iterator[str]:
    yield _what_was_searched(data)
    yield _what_won(data)
    yield from _how_sure_is_a_search(data)
    yield _cost(data)
    yield _infeasible(data["search"])


def of_search_in_short(data: Data) -> list[str]:
    """Return the story of the search that a confirmation belongs to."""
    return [_what_was_searched(data), _what_won(data)]


def _what_was_searched(data: Data) -> str:
    study, found = data["study"], data["search"]
    totals = found["totals"]
    tasks = _listed(study["tasks"])
    if study["kind"] == "design":
        return (
            f"The study {_quoted(study['name'])} trained functions by a fixed list: {study['ended']} of "
            f"{study['n_trials']} trainings have ended. What was trained: {tasks}."
        )
    units = f" ({counted(found['units'], 'core unit')})" if found["units"] else ""
    space = f"the space {found['space']}{units}" if found["space"] else "a space of functions"
    seeds = found["training_seeds"]
    with_seed = f" with {'seed' if len(seeds) == 1 else 'seeds'} {_listed(map(str, seeds[:10]))}" if seeds else ""
    ended = "" if study["ended"] == study["n_trials"] else f" of {study['n_trials']}"
    sampler = f", proposed by the sampler {found['sampler']}" if found["sampler"] else ""
    return (
        f"The search {_quoted(study['name'])} looked for activation functions in {space}{sampler}. It ranks them by "
        f"{found['objective']} ({'higher' if found['direction'] == 'maximize' else 'lower'} is better) after training "
        f"{tasks}{with_seed}. {study['ended']}{ended} trials have ended: {_listed(_ended(totals))}."
    )


def _ended(totals: Data) -> Iterator[str]:
    """Yield how many trials ended in which way."""
    yield (
        f"{counted(totals['candidates'], 'training')} of candidates and {totals['baselines']} of known functions were "
        "complete"
    )
    ways = {
        "pruned": "stopped early",
        "mirrors": "left out as mirrors of others",
        "cited": "answered by an equal function's result",
        "infeasible": "impossible to train",
        "failed": "failed on a machine",
    }
    yield from (f"{totals[name]} {way}" for name, way in ways.items() if totals[name])


def _what_won(data: Data) -> str:
    found, won = data["search"], data["winner"]
    objective = found["objective"]
    if won is None:
        return "No function has been trained to the end, so there is nothing to rank."
    relu = next((row for row in found["leaderboard"] if row["name"] == "relu"), None)
    value = measured(found["leaderboard"][0][objective])
    if won["name"] == "relu":
        return f"Nothing beat ReLU: it ranks first itself by {objective} ({value})."
    known = ", a known function," if won["name"] not in ("", "own") else ""
    first = f"{won['label']}{known} ranks first: its {objective} is {value}."
    if relu is None:
        return f"{first} ReLU was not trained to the end here, so nothing can be said against it."
    against = found["against_relu"]
    if against["better_by"] == 0:
        return f"{first} ReLU has the same value, so nothing beat ReLU by {objective}: the tie-breaker decides."
    return f"{first} ReLU has {measured(against['relu'])}, so the difference is {_number(against['better_by'])}."


def _how_sure_is_a_search(data: Data) -> Iterator[str]:
    found, won, against = data["search"], data["winner"], data["search"]["against_relu"]
    if won is None:
        return
    seeds = against["seeds"] if against else min(row["n_trials"] for row in found["leaderboard"])
    if seeds == 1:
        tried = counted(found["totals"]["candidates"] + found["totals"]["baselines"], "training")
        yield (
            f"How sure is that? One seed: weak evidence. The best of {tried} looks better than it is, because luck "
            "helped to choose it."
        )
    elif against and against["sentence"]:
        yield f"How sure is that? {against['sentence']} {' '.join(against['remarks'])}"
    confirmed = data.get("related") or []
    if confirmed:
        for other in confirmed:
            yield f"Its functions were trained again with new seeds in the study {_quoted(other['study'])}:"
            yield from other["story"]
    elif data["study"]["kind"] == "search":
        yield f"Confirm it with: searcher confirm {shlex.quote(data['study']['name'])}"
    said = seeds > 1 and against and any(VALIDATION in remark for remark in against["remarks"])
    if data["metric"]["split"] != "test" and not said:
        yield f"No test metric was measured: {found['objective']} is {VALIDATION}."


def _infeasible(found: Data) -> str:
    reasons = "; ".join(f"{one['reason']} ({one['count']})" for one in found["reasons"])
    return f"Why trainings could not be finished, the most frequent reason first: {reasons}." if reasons else ""


# A confirmation ------------------------------------------------------------------------------------------------------


def _confirmation(data: Data) -> Iterator[str]:
    found = data["confirmation"]
    yield _what_was_confirmed(found)
    yield from of_confirmation_in_short(found)
    yield from _verdict_on_winner(data)
    yield _divergence(found)
    yield _curse(found["curse"])
    yield _cost(data)
    if found["metric"]["name"].partition("_")[0] != "test":
        yield f"No test metric was measured: {found['metric']['name']} is {VALIDATION}."
    if found["failed"]:
        yield f"{counted(found['failed'], 'training')} failed on a machine, which says nothing about the function."


def _what_was_confirmed(found: Data) -> str:
    others = [one["label"] for one in found["functions"] if one["label"] != found["reference"]]
    names = [one["name"] for one in found["configurations"]]
    seeds = found["seeds"][: found["looks"][-1]]
    at_most = "at most " if found["until_sure"] else ""
    source = (
        f" The functions are from the search {_quoted(found['search'])}, which had another seed."
        if found["search"]
        else ""
    )
    return (
        f"{counted(len(others), 'function')} ({_listed(others)}) {'is' if len(others) == 1 else 'are'} compared with "
        f"{found['reference']} by {found['metric']['name']}. Each is trained with the same {at_most}{len(seeds)} seeds "
        f"({_range(seeds)}), so that differences are paired, under {counted(len(names), 'configuration')}: "
        f"{_listed(names)}.{source}"
    )


def of_confirmation_in_short(found: Data) -> list[str]:
    """Return what a confirmation has shown under each configuration."""
    told = []
    if not found["finished"]:
        done = f"{found['ended']} of {'at most ' * found['until_sure']}{found['most_trainings']} trainings have ended"
        told.append(f"The confirmation is not finished: {done}, so this may change.")
    if found["nothing_yet"]:
        return [*told, f"Nothing can be compared yet: {found['nothing_yet']}."]
    several = len(found["configurations"]) > 1
    for one in found["configurations"]:
        said = one["conclusion"] or "Nothing can be compared yet."
        told.append(f"{one['name']}: {said}" if several else said)
    return told


def _verdict_on_winner(data: Data) -> Iterator[str]:
    found, won = data["confirmation"], data["winner"]
    if won is None:
        return
    told = won["label"] if won["beats_reference"] else won["closest"]
    if told and not won["beats_reference"]:
        yield f"The function that comes closest to beating {found['reference']} is {told}:"
    for name, comparison in _of_function(found, told):
        yield f"{name}: {comparison['sentence']} {' '.join(comparison['remarks'])}"


def _of_function(found: Data, label: str) -> Iterator[tuple[str, Data]]:
    """Yield the comparisons of a function with the reference, each with the name of its configuration."""
    for one in found["configurations"]:
        for comparison in one["comparisons"]:
            if comparison["function"] == label:
                yield one["name"], comparison


def _divergence(found: Data) -> str:
    """Say on which seeds trainings diverged; they are never dropped silently."""
    told = []
    for one in found["configurations"]:
        for label, seeds in one["diverged"].items():
            if seeds:
                of = one["trained"][label]
                named = f"seed{'s' * (len(seeds) > 1)} {_listed(seeds)}"
                told.append(f"{label} on {len(seeds)} of {counted(of, 'seed')} under {one['name']} ({named})")
    if not told:
        trained = any(any(one["trained"].values()) for one in found["configurations"])
        return "No training diverged." if trained else ""
    return f"Trainings that diverged, which count as lost: {'; '.join(told)}."


def _curse(found: Data | None) -> str:
    """Say by how much values in the search were better than with new seeds."""
    rows = [row for row in found["functions"] if row["better_by"] is not None] if found else []
    if not found or not rows:
        return ""
    candidates = [row for row in rows if not row["name"]] or rows
    worth = 1 if found["direction"] == "maximize" else -1
    best = max(candidates, key=lambda row: worth * row["searched"])
    told = (
        f"The winner's curse: of the functions found by the search, {best['label']} had the best {found['metric']} "
        f"there, {measured(best['searched'])}; with {counted(best['n'], 'new seed')} its mean is "
        f"{measured(best['mean'])}, {_worse(best['better_by'])}."
    )
    if found["found"] > 1:
        told += (
            f" Over the {found['found']} functions found by the search: {_worse(found['mean_better_by'])} on average."
        )
    return told


def _worse(better_by: float) -> str:
    if better_by == 0:
        return "the same"
    return f"{_number(abs(better_by))} {'better' if better_by > 0 else 'worse'}"


# Both ----------------------------------------------------------------------------------------------------------------


def _cost(data: Data) -> str:
    """Say what the best function costs beside ReLU."""
    cost = _cost_of(data)
    if cost is None or cost["both_ratio"] is None:
        return ""
    label = data["winner"]["label"]
    return (
        f"What it costs: forward and backward, {label} takes {cost['both_ratio']:.2g} times as long as ReLU "
        f"({cost['both_ns']:.2g} ns for each element on this machine), and keeps {cost['saved_bytes']:.3g} bytes for "
        "each element for backward. That is the activation alone, not the network."
    )


def _cost_of(data: Data) -> Data | None:
    """Return what the best function costs; None if that is not known, or it is ReLU itself."""
    rows: Sequence[Data] = data["costs"]["functions"]
    won = data["winner"] if data["winner"] and data["winner"]["name"] != "relu" else None
    return next((row for row in rows if won and row["label"] == won["label"]), None)


def _best_fact(data: Data) -> Iterator[tuple[str, str, str]]:
    won = data["winner"]
    if won is None:
        yield "Best function", "none yet", "nothing was trained to the end"
    elif data["confirmation"] and not won["beats_reference"]:
        yield "Best function", brief(won["label"]), "the reference: nothing is shown to beat it"
    else:
        yield (
            "Best function",
            brief(won["label"]),
            "confirmed with new seeds" if won["confirmed"] else "first in the ranking",
        )


def _how_sure(data: Data) -> Iterator[tuple[str, str, str]]:
    won, metric = data["winner"], data["metric"]["name"]
    if won is None:
        return
    if not data["confirmation"]:
        against = data["search"]["against_relu"]
        if against:
            value = f"{against['better_by']:+.3g}"
            seeds = "one seed: weak evidence" if against["seeds"] == 1 else counted(against["seeds"], "seed")
            yield "Against ReLU", value, f"{metric}, {seeds}"
        return
    for name, comparison in list(_of_function(data["confirmation"], won["label"]))[:SHOWN]:
        difference, interval = comparison["difference"], comparison["interval"]
        if difference is not None:
            ends = f"{interval['low']:+.2g} to {interval['high']:+.2g}, " if interval else ""
            yield (
                f"Against {won['reference']}, {name}",
                f"{difference:+.3g}",
                f"{metric}, {ends}{comparison['verdict']}",
            )


def _trainings_fact(data: Data) -> tuple[str, str, str]:
    study = data["study"]
    if data["confirmation"]:
        seeds = data["confirmation"]["looks"][-1]
        finished = data["confirmation"]["finished"]
        return (
            "Trainings",
            f"{study['ended']:,}",
            f"{counted(seeds, 'seed')}, {'finished' if finished else 'not finished'}",
        )
    of = "" if study["ended"] == study["n_trials"] else f" of {study['n_trials']:,}"
    return "Trials", f"{study['ended']:,}{of}", f"{counted(study['states']['COMPLETE'], 'complete trial')}"


def _cost_fact(data: Data) -> Iterator[tuple[str, str, str]]:
    cost = _cost_of(data)
    if cost and cost["both_ratio"] is not None:
        yield (
            "Cost beside ReLU",
            f"{cost['both_ratio']:.2g} times",
            "time of the activation alone, forward and backward",
        )


def _quoted(name: str) -> str:
    return f'"{name}"'


def _number(value: float) -> str:
    return f"{value:.3g}"


def _listed(items: Any) -> str:
    """Return items in words: `a, b and c`."""
    texts = [str(item) for item in items]
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def _range(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return _listed(seeds)
