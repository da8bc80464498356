"""`searcher space`, `code` and `show`: the search spaces and their functions. They need no study and no database."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import dropwhile, islice
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from searcher import DEFAULT_STORAGE, UsageError
from searcher.commands import completion
from searcher.commands.console import (
    MOST,
    Format,
    Output,
    Storage,
    Wide,
    loading,
    no_result,
    opened,
    print_rows,
    print_text,
    write_file,
)
from searcher.commands.tables import Long, Row

if TYPE_CHECKING:
    from search_space import Choices, Expression, Grammar
    from searcher.reports.function import FunctionReport
    from searcher.reports.learned import LearnedFunction

app = typer.Typer()
group = typer.Typer(help="The search spaces, and the functions in them.", no_args_is_help=True)
app.add_typer(group, name="space")

EXACT = 10**6  # sizes of spaces from here on are shown in powers of ten
INDEX_WIDTH = 14  # characters of the index in a table that is printed line by line

SpaceName = Annotated[
    str,
    typer.Argument(
        help="A named space; `searcher space list` lists them.", autocompletion=completion.among(completion.SPACES)
    ),
]
Units = Annotated[int, typer.Option(help="Core units of the grammar.")]
Unary = Annotated[str | None, typer.Option(help="Use only these unary primitives: x,neg,sin,...")]
Binary = Annotated[str | None, typer.Option(help="Use only these binary primitives: add,mul,max,...")]
Primitives = Annotated[
    str | None, typer.Option(help="Modules that register primitives of your own: package.module,...")
]
Formula = Annotated[
    str,
    typer.Argument(
        help="A formula, as in 'x * sigmoid(beta * x)', or a known name (swish); with NUMBER, the name of a study."
    ),
]
Number = Annotated[
    int | None,
    typer.Argument(min=0, max=2**31 - 1, help="A trial of the study: take its function as it was learned."),
]


class TakesMinus(TyperCommand):
    """A command whose first argument is a formula, so that `-x + cos(x)` is not taken for an option `-x`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        options = {name for parameter in self.params for name in parameter.opts}
        if first.startswith("-") and not first.startswith("--") and first[:2] not in options:
            args = [*args[1:], "--", first]
        return super().parse_args(ctx, args)


@group.command("list")
def list_spaces(output: Output = Format.table) -> None:
    """List the named spaces, and how many choices each has with one, two and three core units."""
    with loading():
        from search_space import SPACES, space

    most = max(max(found.units) for found in SPACES.values())
    rows = [
        {
            "space": found.name,
            "units": ", ".join(map(str, found.units)),
            "unary": len(found.unary),
            "binary": len(found.binary),
            **{f"size_{n}": space(found.name, n).size if n in found.units else None for n in range(1, most + 1)},
            "title": found.title,
            "reference": found.reference,
        }
        for found in SPACES.values()
    ]
    if output is not Format.table:
        print_rows(rows, output)
        return
    print_rows([_in_short(row) for row in rows], output)
    for found in SPACES.values():
        print_text(f"{found.name}: {found.title} ({found.reference})")


def _in_short(row: Row) -> dict[str, Any]:
    """Return a space as people read it: large sizes in powers of ten, and no texts."""
    sizes = {
        name: size if size is None or size < EXACT else f"{size:.3g}"
        for name, size in row.items()
        if name.startswith("size_")
    }
    return {name: row[name] for name in ("space", "units", "unary", "binary")} | sizes


@group.command()
def info(
    name: SpaceName = "swish2017",
    units: Units = 1,
    unary: Unary = None,
    binary: Binary = None,
    primitives: Primitives = None,
    unique: Annotated[
        bool, typer.Option("--unique", help="Count the different functions; takes about 1 ms for each choice.")
    ] = False,
    output: Output = Format.table,
) -> None:
    """Describe a space: its size, decisions, primitives and reference (csv, markdown: the primitives only)."""
    with loading():
        from search_space import SPACES

    grammar = _grammar(name, units, unary, binary, primitives)
    facts: dict[str, Any] = {"space": name, "title": SPACES[name].title, "reference": SPACES[name].reference}
    facts |= {
        "units": units,
        "size": grammar.size,
        "unique": sum(1 for _ in _functions(grammar, bar=True)) if unique else None,
    }
    kinds = {"unary": (grammar.unary, grammar.unary_texts), "binary": (grammar.binary, grammar.binary_texts)}
    rows = [
        {"kind": kind, "name": word, "text": texts[word]} for kind, (words, texts) in kinds.items() for word in words
    ]
    if output in (Format.json, Format.yaml):
        decisions = [{"name": one.name, "options": list(one.options)} for one in grammar.decisions]
        print_rows([{**facts, "decisions": decisions, "primitives": rows}], output)
        return
    if output is Format.table:
        print_rows([{"": key, " ": value} for key, value in facts.items() if value is not None], output)
        print_rows([{"decision": one.name, "options": len(one.options)} for one in grammar.decisions], output)
    print_rows(rows, output)


@group.command()
def sample(
    name: SpaceName = "swish2017",
    units: Units = 1,
    unary: Unary = None,
    binary: Binary = None,
    primitives: Primitives = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=MOST, help="Number of functions.")] = 10,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same functions; a larger --count only adds some.")
    ] = 0,
    unique: Annotated[
        bool, typer.Option("--unique", help="Draw again if a function repeats, so that each comes once.")
    ] = False,
    output: Output = Format.table,
    wide: Wide = False,
) -> None:
    """Draw functions at random, uniformly over the choices; several choices can be the same function."""
    grammar = _grammar(name, units, unary, binary, primitives)
    given = _print_stream(islice(_draws(grammar, seed, unique), count), output, wide)
    if given < count:
        print(f"The whole space has {given} functions.", file=sys.stderr)


@group.command("enumerate")
def enumerate_space(
    name: SpaceName = "swish2017",
    units: Units = 1,
    unary: Unary = None,
    binary: Binary = None,
    primitives: Primitives = None,
    limit: Annotated[int | None, typer.Option(min=1, max=MOST, help="Number of functions; all if not given.")] = None,
    start: Annotated[
        int, typer.Option(min=0, help="The first index. Those before it are computed too, about 500 a second.")
    ] = 0,
    output: Output = Format.table,
    wide: Wide = False,
) -> None:
    """Print each function of a space once, with the index of the first choices that make it, as they are found."""
    grammar = _grammar(name, units, unary, binary, primitives)
    if start >= grammar.size:
        raise UsageError(f"--start must be below {grammar.size}, the size of the space, not {start}")
    found = _functions(grammar, bar=not sys.stdout.isatty())  # on a terminal, the rows themselves show the progress
    rows = dropwhile(lambda row: row["index"] < start, found)
    _print_stream(islice(rows, limit), output, wide)


@app.command(cls=TakesMinus)
def code(
    expression: Formula,
    number: Number = None,
    to: Annotated[
        str,
        typer.Option(
            help="torch, jax, sympy, latex, markdown or onnx.", autocompletion=completion.among(completion.TARGETS)
        ),
    ] = "torch",
    file: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; stdout if not given.")] = None,
    name: Annotated[str, typer.Option(help="Name of the class or function; derived from the key if not given.")] = "",
    channels: Annotated[
        int | None, typer.Option(help="Channels of the input; each has its own parameters. Default: 1.")
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Dimension of the channels: 1 or -1 (the last). Default: 1, for jax -1.")
    ] = None,
    at: Annotated[
        str, typer.Option(help="Of a trial: start each channel as at this site of its network; see `searcher trial`.")
    ] = "",
    frozen: Annotated[
        bool, typer.Option("--frozen", help="Make the parameters constants, which are not trained.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    site: Annotated[
        str | None,
        typer.Option(
            help="gate or norm: also write the module f(a) * b, or weight * f(x) + bias. Default: activation, or what "
            "the trial's study searched."
        ),
    ] = None,
    primitives: Primitives = None,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write a function as code that does not need this project. The code of a trial starts from the parameters that it
    learned: from their medians over all sites, or from those of one site (--at)."""
    if number is None:
        if at:
            raise UsageError("--at is for the code of a trial: searcher code STUDY NUMBER --at SITE")
        start = Start(1 if channels is None else channels, dim, None)
        found = _of_formula(expression, primitives, site or "activation", start)
    else:
        learned = _learned(expression, number, storage, primitives)
        place = site or learned.replaces
        start = _start(learned, at, None if place == "norm" else channels, dim)
        found = Exported(learned.expression, "", place, start)
    if frozen and not found.tree.betas:
        raise UsageError(f"--frozen: {found.tree} has no parameters; leave it out")
    if to == "onnx":
        content = _onnx(found, file)
    else:
        width = channels if found.site == "norm" and channels is not None else found.start.channels
        content = _text(found, to, name, width, frozen).encode()
    if file is None:
        print(content.decode(), end="")
        return
    write_file(file, content, force)
    print(f"{to}, {len(content)} bytes, written to {file}", file=sys.stderr)


class Start(NamedTuple):
    """How exported code starts.

    Attributes:
        channels, dim: the number of channels and their dimension; None means the target's default dimension.
        betas: the start values, a row for each parameter; None means that all are 1.
    """

    channels: int
    dim: int | None
    betas: list[list[float]] | None


class Exported(NamedTuple):
    """A function to export.

    Attributes:
        known: its name; empty if it is not a known function.
        site: what it takes the place of in a network.
    """

    tree: Expression
    known: str
    site: str
    start: Start


def _of_formula(expression: str, primitives: str | None, site: str, start: Start) -> Exported:
    from search_space import GATES

    tree, known = _expression(GATES.get(expression, expression) if site == "gate" else expression, primitives)
    return Exported(tree, known, site, start)


def _onnx(found: Exported, file: Path | None) -> bytes:
    from search_space import onnx_bytes

    tree, _, site, start = found
    if site != "activation":
        raise UsageError(f"an onnx file holds f without its {site}; --site activation writes f, --to torch both")
    if file is None:
        raise UsageError("an onnx file is not text for a terminal; name a file: -o FILE.onnx")
    dim = 1 if start.dim is None else start.dim
    return onnx_bytes(tree, channels=start.channels, dim=dim, betas=start.betas)


def _text(found: Exported, to: str, name: str, channels: int, frozen: bool) -> str:
    from search_space import code as text_of

    tree, known, site, start = found
    return text_of(
        *(tree, to),
        name=name or known,
        channels=channels,
        dim=start.dim,
        betas=start.betas,
        frozen=frozen,
        site=site,
    )


def _start(learned: LearnedFunction, at: str, channels: int | None, dim: int | None) -> Start:
    """Return the start values that a trial has learned: those of one site, or the medians over all sites."""
    number = 1 if channels is None else channels
    if not (at or learned.parameters):
        return Start(number, dim, None)
    if not at:
        sizes = sorted({one.channels for one in learned.parameters})
        shown = ", ".join(f"{value:.6g}" for value in learned.medians)
        counts = f"{len(learned.sites)} sites with {', '.join(map(str, sizes))} channels"
        print(f"starts from {shown}, the median over {counts}; --at SITE: as at one of them", file=sys.stderr)
        return Start(number, dim, [[value] * number for value in learned.medians])
    found, module = learned.at(at), learned.module(at)
    if channels not in (None, module.channels):
        raise UsageError(
            f"--channels {channels}: {at} has {module.channels} channels, and each starts from its own values; leave "
            "--channels out, or leave --at out to start all channels from the medians"
        )
    return Start(module.channels, module.dim if dim is None else dim, [list(one.values) for one in found])


@app.command(cls=TakesMinus)
def show(
    expression: Formula,
    number: Number = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw a picture: FILE.png or FILE.svg.")] = None,
    primitives: Primitives = None,
    storage: Storage = DEFAULT_STORAGE,
    output: Output = Format.table,
) -> None:
    """Show a function's properties without training it: its shape, its slope, its effect in a deep network. With a
    study and the number of a trial, show the function as that training has learned it."""
    from searcher.reports.function import FunctionReport

    if number is None:
        report = FunctionReport(_expression(expression, primitives)[0])
        if plot:  # before printing, which a closed pipe may end
            from searcher.reports import plot as picture

            picture.save(report, plot)
            print(f"picture written to {plot}", file=sys.stderr)
        _print_report(report, output)
        return
    from searcher.reports.learned import table_row

    learned = _learned(expression, number, storage, primitives)
    if plot:
        from searcher.reports.pictures.learned import save

        save(learned, plot)
        print(f"picture written to {plot}", file=sys.stderr)
    rows = [asdict(one) for one in learned.parameters]
    if output is not Format.table:
        print_rows(rows, output)
        return
    if rows:
        print(f"{learned.where}: {learned.expression}, as learned")
        print_rows(map(table_row, rows), output, spare=["channels"])
        print(f"With the medians over all sites, {learned.typical}:\n")
    _print_report(FunctionReport(learned.typical), output)


def _learned(study: str, number: int, storage: str, primitives: str | None) -> LearnedFunction:
    from search_space import load_primitives
    from searcher.reports.learned import LearnedFunction

    with no_result():
        load_primitives(_names(primitives, ()))
    with opened(storage) as store:
        return LearnedFunction.of(store, store.study(study), number)


def _print_report(report: FunctionReport, output: Format) -> None:
    words = report.words()
    if output is Format.table:
        print("\n".join([*(f"{label:<14} {text}" for label, text in words.items()), ""]))
        print("\n".join(report.curves(braille=_can_print("⣿┊┈┼"))))
    elif output is Format.markdown:
        print_rows([{"": label, " ": text} for label, text in words.items()], output)
    elif output is Format.csv:  # CSV has no lists
        lists = {name: " ".join(map(str, value)) for name, value in report.facts().items() if isinstance(value, list)}
        print_rows([{**report.facts(), **lists}], output)
    else:
        print_rows([report.facts()], output)


def _expression(text: str, primitives: str | None) -> tuple[Expression, str]:
    """Return the expression of a text, and the text itself if it is a known name (otherwise an empty text)."""
    with loading():
        from search_space import ALIASES, KNOWN, load_primitives, parse

    with no_result():
        load_primitives(_names(primitives, ()))
    name = text.strip()
    return parse(text), name if ALIASES.get(name, name) in KNOWN else ""


def _grammar(name: str, units: int, unary: str | None, binary: str | None, primitives: str | None) -> Grammar:
    """Return the grammar of a named space with the primitives of the modules `primitives`, limited to `unary` and
    `binary`."""
    from dataclasses import replace

    with loading():
        from search_space import extended, load_primitives, space

    with no_result():
        own = load_primitives(_names(primitives, ()))
    whole = extended(space(name, units), own)
    return replace(whole, unary=_names(unary, whole.unary), binary=_names(binary, whole.binary))


def _names(text: str | None, every: tuple[str, ...]) -> tuple[str, ...]:
    return every if text is None else tuple(name.strip() for name in text.split(","))


def _draws(grammar: Grammar, seed: int, unique: bool) -> Iterator[Row]:
    """Yield drawn functions without end; with `unique`, until all choices were drawn."""
    from random import Random

    draw = Random(seed)
    drawn: set[Choices] = set()
    keys: set[str] = set()
    while not unique or len(drawn) < grammar.size:
        choices = grammar.sample(draw)
        if unique and choices in drawn:
            continue
        row = _row(grammar, choices)
        if not (unique and row["key"] in keys):
            yield row
        if unique:
            drawn.add(choices)
            keys.add(row["key"])


def _functions(grammar: Grammar, bar: bool) -> Iterator[Row]:
    """Yield each function once. With `bar`, show the progress on stderr if it is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    progress = Progress(
        console=console,
        transient=True,
        disable=not (bar and console.is_terminal),
        redirect_stdout=False,  # otherwise rows for a file would be written to the terminal
        redirect_stderr=False,
    )
    with progress:
        task = progress.add_task("", total=grammar.size)
        for number, (choices, _) in enumerate(grammar.enumerate_unique(), start=1):
            row = _row(grammar, choices)
            progress.update(task, completed=row["index"] + 1, description=f"{number} functions")
            yield row


def _row(grammar: Grammar, choices: Choices) -> dict[str, Any]:
    from search_space import key

    expression = grammar.decode(choices)
    return {"index": grammar.rank(choices), "key": key(expression), "expression": str(expression)}


def _print_stream(rows: Iterable[Row], output: Format, wide: bool) -> int:
    """Print each row as it comes, and return their number."""
    number = 0

    def counted() -> Iterator[Row]:
        nonlocal number
        for number, row in enumerate(rows, start=1):  # noqa: B007
            yield row

    if output is Format.table:
        narrow = sys.stdout.isatty() and not wide
        for line in _table_lines(counted(), get_terminal_size().columns if narrow else None):
            print(line)
    else:
        print_rows(counted(), output)
    return number


def _table_lines(rows: Iterable[Row], most: int | None) -> Iterator[str]:
    """Yield the lines of a table as its rows come. Only the last column has an unknown width; expressions are cut so
    that no line has more than `most` characters."""
    width = INDEX_WIDTH
    for n, row in enumerate(rows):
        if n == 0:
            yield f"{'index':>{width}}  {'key':<16}  expression"
        before = f"{row['index']:>{width}}  {row['key']}  "
        yield Long(row["expression"], before).within(most) if most else f"{before}{row['expression']}"


def _can_print(characters: str) -> bool:
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
