"""Arrange what a report says as headings, paragraphs, tables, pictures and code, for every format that people read."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any

from searcher.display import OWN, measured
from searcher.reports.document.illustrations import missing
from searcher.reports.words import counted

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table.

    Attributes:
        key: by which rows are sorted; None: by the text, and an empty one comes last.
    """

    text: str
    key: float | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        numeric: its cells are numbers, which stand at the right.
        code: its cells are expressions.
    """

    name: str
    numeric: bool = False
    code: bool = False


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str
    strong: bool = False
    block: str = "paragraph"


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences, each with remarks below it."""

    items: tuple[tuple[str, tuple[str, ...]], ...]
    block: str = "items"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be sorted by each column.

    Attributes:
        caption: what it shows, and how to read it.
        folded: it is long, and shown on demand.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False
    block: str = "table"


@dataclass(frozen=True, slots=True)
class Code:
    """Lines of code or commands."""

    text: str
    language: str
    label: str
    block: str = "code"


@dataclass(frozen=True, slots=True)
class Illustration:
    """A picture.

    Attributes:
        picture: its kind and its data, as in the data of the report.
    """

    caption: str
    title: str
    picture: Data
    block: str = "picture"


@dataclass(frozen=True, slots=True)
class Facts:
    """The few facts that a reader looks for first."""

    facts: tuple[Mapping[str, str], ...]
    block: str = "facts"


Block = Paragraph | Items | Table | Code | Illustration | Facts


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report with its heading.

    Attributes:
        name: its anchor, in ASCII.
    """

    name: str
    title: str
    blocks: tuple[Block, ...] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    summary: str
    sections: tuple[Section, ...]


def document(data: Data) -> Document:
    """Return a report: the story first, then pictures, then tables, then the code, then how to reproduce it."""
    sections = (
        Section("story", "What was found", (*_story(data),)),
        Section("pictures", "Pictures", (*_pictures(data),)),
        Section("tables", "The numbers", (*_tables(data),)),
        Section("published", "Beside the published figures", (*_published(data["published"]),)),
        Section("code", "The best function as code", (*_code(data),)),
        Section("related", _related_title(data), (*_related(data),)),
        Section("reproduce", "How to reproduce it", (*_reproduction(data),)),
    )
    return Document(data["title"], data["headline"], tuple(section for section in sections if section.blocks))


def _story(data: Data) -> Iterator[Block]:
    yield Paragraph(data["headline"], strong=True)
    yield Facts(tuple(data["facts"]))
    for paragraph in data["story"]:
        yield Paragraph(paragraph)


def _pictures(data: Data) -> Iterator[Block]:
    if why := missing():
        yield Paragraph(why)
        return
    for picture in data["pictures"]:
        yield Illustration(picture["caption"], picture["title"], picture)


# Tables --------------------------------------------------------------------------------------------------------------


def _tables(data: Data) -> Iterator[Block]:
    found = data["confirmation"]
    if found:
        for one in found["configurations"]:
            yield from _verdicts(found, one)
        for one in found["configurations"]:
            yield from _seeds(one["name"], one["metric"], one["values"])
        yield from _ranks(found["ranks"])
        yield from _curse(found["curse"])
        if found["rule"]:
            yield Paragraph(f"The rule, stated before the first training: {found['rule']}")
    else:
        search = data["search"]
        yield from _leaderboard(search["leaderboard"], search["metrics"], data["study"]["tasks"][0])
        for other in search["others"]:
            yield from _leaderboard(other["leaderboard"], [other["objective"]], other["configuration"])
        several = {row["label"]: row["values"] for row in search["leaderboard"] if len(row["values"]) > 1}
        if several:
            yield from _seeds(data["study"]["tasks"][0], search["objective"], several)
    yield from _costs(data["costs"])


def _leaderboard(board: Sequence[Data], metrics: Sequence[str], under: str) -> Iterator[Table]:
    if not board:
        return
    columns = (
        *(
            Column("rank", numeric=True),
            Column("function", code=True),
            Column("known as"),
            Column("seeds", numeric=True),
        ),
        *(Column(metric, numeric=True) for metric in metrics),
        *(Column("mirror"), Column("trial", numeric=True)),
    )
    rows = []
    for row in board:
        cells = (
            *(_whole(row["rank"]), Cell(row["expression"]), Cell("" if row["name"] == OWN else row["name"])),
            *(_whole(row["n_trials"]), *(_measured(row.get(metric)) for metric in metrics)),
            *(Cell(row.get("mirror") or ""), _whole(row["number"])),
        )
        rows.append(cells)
    caption = f"{counted(len(board), 'function')}, best first: means over seeds under {under}."
    yield _without_empty(Table(caption, columns, tuple(rows)))


def _without_empty(table: Table, names: Collection[str] = ()) -> Table:
    """Return a table without the columns that are empty in every row, and without those of these names."""
    kept = [
        column.name not in names and any(row[place].text for row in table.rows)
        for place, column in enumerate(table.columns)
    ]
    columns = tuple(compress(table.columns, kept))
    return replace(table, columns=columns, rows=tuple(tuple(compress(row, kept)) for row in table.rows))


def _verdicts(found: Data, one: Data) -> Iterator[Block]:
    if not one["comparisons"]:
        yield Paragraph(f"{one['name']}: nothing can be compared yet.")
        return
    means = {row["function"]: row for row in one["summaries"]}
    reference = found["reference"]
    corrected = one["comparisons"][0]["corrected_for"]
    columns = (
        *(Column("function", code=True), Column("verdict"), Column("seeds", numeric=True)),
        *(Column("diverged", numeric=True), Column("mean", numeric=True), Column("difference", numeric=True)),
        *(Column("interval", numeric=True), Column("p, t test", numeric=True)),
        *(Column("p, permutation", numeric=True), Column("p, corrected", numeric=True)),
        *(Column("P(better)", numeric=True), Column("seeds needed", numeric=True)),
    )
    rows = [_verdict(row, means[row["function"]]) for row in _best_first(one["comparisons"])]
    own = means[reference]
    counts = (_whole(own["n"] + own["diverged"]), _whole(own["diverged"]))
    rest = (Cell("") for _ in columns[5:])
    rows.append((Cell(reference), Cell("reference"), *counts, _measured(own["mean"]), *rest))
    empty = {"diverged"} if not any(one["diverged"].values()) else set()
    level = one["comparisons"][0]["interval"]
    percent = f"{100 * level['level']:.4g} %" if level else ""
    caption = (
        f"Verdicts about {one['metric']} against {reference} under {one['name']}. A positive difference is better, "
        f"whatever the metric's direction. Intervals {f'({percent}) ' if percent else ''}are of the mean paired "
        f"difference; the verdict goes by the p-value of the deciding test, corrected for "
        f"{counted(corrected, 'comparison')}."
    )
    yield _without_empty(Table(caption, columns, tuple(rows)), empty)
    yield Items(tuple((row["sentence"], (*_remarks(row, one),)) for row in _best_first(one["comparisons"])))


def _remarks(row: Data, one: Data) -> Iterator[str]:
    yield from row["remarks"]
    if row["function"] in one["dropped"]:
        yield f"By the rule it was trained no further after {counted(one['dropped'][row['function']], 'seed')}."
    if row["function"] in one["rates"]:
        yield f"Its learning rate, chosen by validation: {one['rates'][row['function']]:g}."


def _published(found: Data | None) -> Iterator[Block]:
    """Yield the published figures of a reproduced experiment and ours."""
    if not found:
        return
    for text in found["story"]:
        yield Paragraph(text)
    places = list(found["functions"][0]["published"])
    ours = list(found["functions"][0]["ours"])
    columns = (
        Column("function", code=True),
        *(Column(f"published: {place}", numeric=True) for place in places),
        *(Column(f"here: {configuration}", numeric=True) for configuration in ours),
    )
    rows = tuple(
        (
            Cell(row["function"]),
            *(_measured(row["published"][place]) for place in places),
            *(_measured(row["ours"][configuration]) for configuration in ours),
        )
        for row in found["functions"]
    )
    yield Table(f"Accuracies. Published: {found['source']}. Here: means over seeds on the test part.", columns, rows)
    yield from _agreement(found["agreement"])
    yield from _published_tests(found["published_tests"])
    yield Items((("What is smaller or other than in the publication:", tuple(found["reduced"])),))
    yield Items((("What cannot be concluded:", tuple(found["cannot"])),))


def _agreement(found: Sequence[Data]) -> Iterator[Table]:
    columns = (
        *(Column("here"), Column("published"), Column("functions", numeric=True)),
        *(Column("rank correlation", numeric=True), Column("95 % interval", numeric=True), Column("p", numeric=True)),
    )
    rows = []
    for row in found:
        between = "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        numbers = (_whole(row["functions"]), _number(row["spearman"], ".2f"), Cell(between, row["low"]), _p(row["p"]))
        rows.append((Cell(row["configuration"]), Cell(row["published"]), *numbers))
    yield Table(
        "Do both order the functions alike? Spearman's rank correlation, with its interval by Fisher's transformation.",
        columns,
        tuple(rows),
    )


def _published_tests(found: Sequence[Data]) -> Iterator[Table]:
    if not found:
        return
    columns = (
        *(Column("function", code=True), Column("published"), Column("difference", numeric=True)),
        *(Column("p", numeric=True), Column("p, corrected", numeric=True)),
    )
    rows = tuple(
        (
            *(Cell(row["function"]), Cell(row["published"]), _measured(row["difference"])),
            *(_p(row["p"]), _p(row["p_holm"])),
        )
        for row in found
    )
    yield Table(
        "The published runs by themselves, against ReLU: Welch's t test, corrected by Holm's method.", columns, rows
    )


def _ranks(ranks: Data | None) -> Iterator[Table]:
    """Yield mean ranks over ten configurations or more."""
    if not ranks:
        return
    columns = (
        *(Column("function", code=True), Column("mean rank", numeric=True)),
        *(Column("p, Wilcoxon", numeric=True), Column("p, corrected", numeric=True)),
    )
    rows = tuple(
        (Cell(row["function"]), _number(row["mean_rank"], ".3g"), _p(row["p_wilcoxon"]), _p(row["p_holm"]))
        for row in ranks["functions"]
    )
    p = _p(ranks["p"]).text
    friedman = f" Friedman's test that all are equal: p {p if '<' in p else f'= {p}'}." if p else ""
    caption = (
        f"Mean ranks over {ranks['configurations']} configurations; 1 is best.{friedman} Mean ranks that differ by "
        f"less than {ranks['critical_difference']:.3g} are not told apart."
    )
    yield Table(caption, columns, rows)


def _best_first(rows: Sequence[Data]) -> list[Data]:
    return sorted(rows, key=lambda row: -(row["difference"] if row["difference"] is not None else float("-inf")))


def _verdict(row: Data, mean: Data) -> tuple[Cell, ...]:
    interval, superiority = row["interval"], row["superiority"]
    return (
        Cell(row["function"]),
        Cell(str(row["verdict"])),
        _whole(row["n"]),
        _whole(mean["diverged"]),
        _measured(mean["mean"]),
        _number(row["difference"], "+.3g"),
        Cell(f"{interval['low']:+.2g} to {interval['high']:+.2g}", interval["low"]) if interval else Cell(""),
        _p(row["p_t"]),
        _p(row["p_permutation"]),
        _p(row["p_holm"]),
        _number(superiority["probability"] if superiority else None, ".2g"),
        _whole(row["seeds_needed"]),
    )


def _seeds(under: str, metric: str, values: Mapping[str, Mapping[str, float | None]]) -> Iterator[Table]:
    """Yield the value of each function with each seed; functions are rows."""
    seeds = sorted({int(seed) for own in values.values() for seed in own})
    if not seeds:
        return
    columns = (Column("function", code=True), *(Column(f"seed {seed}", numeric=True) for seed in seeds))
    rows = tuple((Cell(label), *(_at(own, str(seed)) for seed in seeds)) for label, own in values.items())
    yield Table(f"{metric} of each training under {under}, by training seed.", columns, rows)


def _at(values: Mapping[str, float | None], seed: str) -> Cell:
    if seed not in values:
        return Cell("not trained")
    return Cell("diverged") if values[seed] is None else _measured(values[seed])


def _curse(found: Data | None) -> Iterator[Table]:
    if not found or not found["functions"]:
        return
    columns = (
        *(Column("function", code=True), Column("in the search", numeric=True), Column("new seeds", numeric=True)),
        *(Column("mean with new seeds", numeric=True), Column("interval of the mean", numeric=True)),
        Column("better by", numeric=True),
    )
    rows = []
    for row in found["functions"]:
        ends = row["interval"]
        interval = Cell(f"{measured(ends['low'])} to {measured(ends['high'])}", ends["low"]) if ends else Cell("")
        numbers = (_measured(row["searched"]), _whole(row["n"]), _measured(row["mean"]), interval)
        rows.append((Cell(row["label"]), *numbers, _number(row["better_by"], "+.3g")))
    caption = (
        f"The winner's curse: {found['metric']} in the search, with its one seed, against the mean with new seeds "
        f"under {found['configuration']}. The best of many single trainings is often a lucky one."
    )
    yield Table(caption, columns, tuple(rows))


def _costs(costs: Data) -> Iterator[Table]:
    if not costs["functions"]:
        return
    noted = any(row["note"] for row in costs["functions"])
    columns = (
        *(
            Column("function", code=True),
            Column("forward, ns", numeric=True),
            Column("with backward, ns", numeric=True),
        ),
        *(Column("forward, times ReLU", numeric=True), Column("with backward, times ReLU", numeric=True)),
        *(Column("kept, bytes", numeric=True), *([Column("note")] if noted else [])),
    )
    names = ("forward_ns", "both_ns", "forward_ratio", "both_ratio", "saved_bytes")
    rows = tuple(
        (Cell(row["label"]), *(_number(row[name], ".3g") for name in names), *([Cell(row["note"])] if noted else []))
        for row in costs["functions"]
    )
    yield Table(f"What functions cost. {costs['conditions']}", columns, rows)


# The rest ------------------------------------------------------------------------------------------------------------


def _code(data: Data) -> Iterator[Block]:
    found, won = data["code"], data["winner"]
    if not found or not won:
        return
    what = f"the reference {won['label']}" if data["confirmation"] and not won["beats_reference"] else won["label"]
    if found["why_not"]:
        yield Paragraph(f"There is no code for {what}: {found['why_not']}.")
        return
    starts = ""
    if found["learned"]:
        starts = (
            f" Its parameters start from what {found['learned_by']} has learned: the medians over all sites of the "
            "network. `searcher code STUDY NUMBER --at SITE` starts from one of the sites, --frozen makes constants."
        )
    yield Paragraph(
        f"This is {what} as a PyTorch module. It needs torch alone; copy it into a file of your own.{starts}"
    )
    yield Code(found["text"], "python", f"{what} as a PyTorch module")
    if found["learned"]:
        yield _learned(found["learned"])


def _learned(rows: Sequence[Data]) -> Table:
    """Return a table of what the parameters became at each site."""
    columns = (
        *(Column("site", code=True), Column("parameter", code=True), Column("channels", numeric=True)),
        *(Column(name, numeric=True) for name in ("median", "lower quartile", "upper quartile", "least", "most")),
    )
    statistics = ("median", "lower_quartile", "upper_quartile", "minimum", "maximum")
    return Table(
        "What the parameters became in that training, over the channels of each site, from the first site to the last. "
        "All started at 1.",
        columns,
        tuple(
            (
                *(Cell(row["site"]), Cell(row["parameter"]), Cell(str(row["channels"]), row["channels"])),
                *(Cell(f"{row[name]:.4g}", row[name]) for name in statistics),
            )
            for row in rows
        ),
        folded=True,
    )


def _related_title(data: Data) -> str:
    return "The search behind it" if data["confirmation"] else "Confirmed elsewhere"


def _related(data: Data) -> Iterator[Block]:
    for one in data["related"]:
        if one["kind"] == "confirmation":
            yield Paragraph(f'Study "{one["study"]}":')
        for paragraph in one["story"]:
            yield Paragraph(paragraph)
        if one["kind"] == "search":
            yield from _leaderboard(one["leaderboard"], one["metrics"], f"the search {one['study']}")
        yield Paragraph("Its own report:")
        yield Code(f"searcher report {shlex.quote(one['study'])} -o report.html", "sh", f"The report of {one['study']}")


def _reproduction(data: Data) -> Iterator[Block]:
    found = data["reproduction"]
    if found["commands"]:
        yield Paragraph("These commands make the study again, in a new database, with the versions below:")
        yield Code("\n".join(found["commands"]), "sh", "Commands")
    else:
        yield Paragraph("A program made this study, so no command does; its list of trainings is in the JSON report.")
    yield Table("Seeds, code and versions.", (Column("what"), Column("value", code=True)), (*_versions(data),))
    columns = (
        Column("number", numeric=True),
        Column("configuration"),
        Column("ranked by"),
        Column("digest of the data"),
    )
    rows = tuple(
        (
            *(_whole(one["number"]), Cell(one["words"]), Cell(f"{one['objective']} ({one['direction']})")),
            Cell(one["data_digest"] or "not known"),
        )
        for one in found["task_configs"]
    )
    yield Table("Task configurations: what one training means.", columns, rows)
    for one in found["task_configs"]:
        yield _settings(f"Every parameter of task configuration {one['number']} (hash {one['hash']}).", one["settings"])
    yield _settings("Every setting of the study.", found["settings"])


def _versions(data: Data) -> Iterator[tuple[Cell, ...]]:
    found = data["reproduction"]
    for name, value in found["seeds"].items():
        if value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield Cell(f"seed of the {name}" if not isinstance(value, list) else f"{name} seeds"), Cell(shown)
    yield Cell("study created"), Cell(data["study"]["created"])
    yield Cell("git commit"), Cell(found["git_commit"] or "not known: it ran from an installed package")
    for name, version in found["versions"].items():
        if name != "git_commit":
            yield Cell(f"version of the rules for {name}" if name == "keys" else name), Cell(str(version))


def _settings(caption: str, settings: Mapping[str, Any]) -> Table:
    rows = tuple((Cell(name), Cell("" if value is None else str(value))) for name, value in settings.items())
    return Table(caption, (Column("setting"), Column("value", code=True)), rows, folded=True)


def _whole(value: int | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:,}", float(value))


def _measured(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(measured(value), value)


def _number(value: float | None, form: str) -> Cell:
    return Cell("") if value is None else Cell(format(value, form), value)


def _p(value: float | None) -> Cell:
    if value is None:
        return Cell("")
    return Cell("< 0.0001" if value < 1e-4 else f"{value:.3g}", value)
