"""Pictures and Markdown tables of results, ready for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]

CHILDREN = {"streams": "streams, one process", "processes": "processes", "mps": "processes, MPS"}
WAYS = {
    "ours": "searcher",
    "ours_by_operations": "searcher, by operations",
    "torch": "torch's module",
    "compiled": "torch.compile",
}
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")  # told apart by colour-blind people too


def report(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write `gpu.md` and draw what was measured; return the files. Of a case that was measured more than once, the
    last figures count.

    Raises:
        ImportError: matplotlib is not installed; `gpu.md` is written nevertheless.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cases = {(r["measurement"], r["case"]): r for r in records if r["record"] == "case"}
    measured = [r for r in cases.values() if r["status"] == "measured"]
    text = "\n\n".join(
        filter(None, [*_headers(records), *(table(measured) for table in TABLES), _missing(cases.values())])
    )
    page = folder / "gpu.md"
    page.write_text(text + "\n")
    return [page, *(path for draw in DRAWINGS if (path := draw(measured, folder)))]


def of(measured: Iterable[Record], name: str) -> list[Record]:
    return [record for record in measured if record["measurement"] == name]


# Tables


def _headers(records: Sequence[Record]) -> list[str]:
    said = []
    for header in (r for r in records if r["record"] == "header"):
        where = header.get("gpu") or f"no GPU: {header['cpu']}, {header['cores']} cores"
        driver = f", driver {header['driver']}" if header.get("driver") else ""
        small = (
            " **Tiny sizes (`--small`): a test of the benchmark, no figures of a machine.**" if header["small"] else ""
        )
        said.append(
            f"{header['date']}, {where}{driver}, Python {header['python']}, torch {header['torch']}, "
            f"commit {(header['commit'] or 'unknown')[:7]}; {header['minutes']:g} minutes.{small}"
        )
    return said


def _number(figure: Any, unit: str = "") -> str:
    """A figure in three digits; of a spread the median and, in brackets, the lowest and the highest."""
    if isinstance(figure, Mapping):
        return f"{_number(figure['median'], unit)} ({_number(figure['low'])} to {_number(figure['high'])})"
    return (f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:#.3g}".rstrip(".")) + unit


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(record: Record, names: Iterable[str], unit: str = "") -> list[str]:
    figures = record["figures"]
    return [_number(figures[name], unit) if name in figures else "-" for name in names]


def _loop_table(measured: Sequence[Record]) -> str:
    sides = ("searcher", "eager", "eager_by_hand")
    rows = []
    for record in of(measured, "loop"):
        rates = _cells(record, [f"{side}_steps_per_s" for side in sides])
        rows.append([record["case"], *rates, *_cells(record, ["ratio_to_eager", "ratio_to_eager_by_hand"], "x")])
    head = ["network, function", "searcher", "eager", "eager, by hand", "searcher / eager", "searcher / by hand"]
    return _table("The training loop (steps/s)", head, rows)


def _paper_table(measured: Sequence[Record]) -> str:
    rows = []
    for record in of(measured, "paper"):
        figures = record["figures"]
        how = f"extrapolated from {figures['steps_measured']:,} steps" if figures["extrapolated"] else "measured"
        rows.append([record["case"], f"{figures['seconds']:.1f}", how])
    return _table("The paper's child", ["child", "seconds", "how"], rows)


def _captured_table(measured: Sequence[Record]) -> str:
    rows = []
    for record in of(measured, "captured"):
        figures = record["figures"]
        if record["case"] == "losses":
            same = f"{figures['equal_losses']} of {figures['steps']} losses are equal"
            rows.append(
                ["losses", same, f"largest difference {figures['largest_relative_difference']:.2g} of the loss"]
            )
        else:
            captured, eager = _cells(record, ["captured_steps_per_s", "eager_steps_per_s"])
            rows.append(["steps/s", f"captured {captured}, eager {eager}", *_cells(record, ["ratio"], "x")])
    return _table("Captured steps", ["", "captured and eager", "comparison"], rows)


def _children_table(measured: Sequence[Record]) -> str:
    rows = []
    for name, title in CHILDREN.items():
        for record in of(measured, name):
            figures = _cells(record, ["steps_per_s", "slowest_steps_per_s", "children_per_hour"])
            rows.append([title, str(record["figures"]["children"]), *figures])
    head = ["way", "children at once", "steps/s, all", "steps/s, slowest child", "children/hour"]
    return _table("Children at once", head, rows)


def _activations_table(measured: Sequence[Record]) -> str:
    rows = []
    for name, figures in _by_function(measured).items():
        taken = figures.get("compile_seconds")
        rows.append([name, *(_both_passes(figures, way) for way in WAYS), "-" if taken is None else f"{taken:.1f} s"])
    title = "Activations (picoseconds an element and share of copy bandwidth, forward / forward and backward)"
    return _table(title, ["function", *WAYS.values(), "compiling"], rows)


def _by_function(measured: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """The figures of each function and type; what was measured beside torch.compile too counts as in its own case."""
    figures: dict[str, dict[str, Any]] = {}
    for record in (*of(measured, "activations"), *of(measured, "compile")):
        found = figures.setdefault(record["case"], {})
        found |= {name: value for name, value in record["figures"].items() if name not in found}
    return figures


def _both_passes(figures: Mapping[str, Any], way: str) -> str:
    if f"{way}_forward_ns" not in figures:
        return "-"
    cells = []
    for kind in ("forward", "both"):
        taken, share = (figures[f"{way}_{kind}_{what}"]["median"] for what in ("ns", "of_copy"))
        cells.append(f"{_number(taken * 1000)} ({share:.0%})")
    return " / ".join(cells)


def _memory_table(measured: Sequence[Record]) -> str:
    names = ["allocated_mib", "reserved_mib", "process_mib", "data_mib", "images_per_s"]
    rows = [[record["case"], *_cells(record, names)] for record in of(measured, "memory")]
    head = ["child", "tensors, MiB", "reserved, MiB", "whole process, MiB", "of these data, MiB", "images/s"]
    return _table("Memory", head, rows)


def _precision_table(measured: Sequence[Record]) -> str:
    rows = []
    for record in of(measured, "precision"):
        for way in ("bfloat16", "tf32", "float32"):
            if f"{way}_steps_per_s" in record["figures"]:
                (rate,), (ratio,) = (
                    _cells(record, [f"{way}_steps_per_s"]),
                    _cells(record, [f"{way}_ratio_to_float32"], "x"),
                )
                rows.append([record["case"], way, rate, ratio])
    return _table("Precision", ["child", "precision", "steps/s", "ratio to float32"], rows)


def _missing(cases: Iterable[Record]) -> str:
    rows = [[r["measurement"], r["case"] or "all", r["status"], _escaped(r["reason"])] for r in cases if "reason" in r]
    return _table("Not measured", ["measurement", "case", "status", "reason"], rows)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


TABLES: tuple[Callable[[Sequence[Record]], str], ...] = (
    _loop_table,
    _paper_table,
    _captured_table,
    _children_table,
    _activations_table,
    _memory_table,
    _precision_table,
)


# Pictures


def _axes(columns: int = 1, width: float = 7.0, height: float = 4.0) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), squeeze=False, layout="constrained")
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def _saved(figure: Any, folder: Path, name: str) -> Path:
    from matplotlib import pyplot

    path = folder / f"{name}.png"
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return path


def _bars(axis: Any, groups: Sequence[str], series: Mapping[str, Sequence[Any]], horizontal: bool = False) -> None:
    """Groups of bars, one a series, with whiskers from the lowest to the highest; None leaves a gap."""
    thick = 0.8 / len(series)
    for index, (label, figures) in enumerate(series.items()):
        there = [(at, figure) for at, figure in enumerate(figures) if figure is not None]
        if not there:
            continue
        places = [at + (index - (len(series) - 1) / 2) * thick for at, _ in there]
        middle = [figure["median"] for _, figure in there]
        whiskers = [[f["median"] - f["low"] for _, f in there], [f["high"] - f["median"] for _, f in there]]
        draw = axis.barh if horizontal else axis.bar
        error = {"xerr" if horizontal else "yerr": whiskers, "error_kw": {"lw": 1, "ecolor": "#444444"}}
        draw(places, middle, thick, label=label, color=COLOURS[index], **error)
    if horizontal:
        axis.set_yticks(range(len(groups)), groups)
        axis.set_ylim(len(groups) - 0.4, -0.6)
    else:
        axis.set_xticks(range(len(groups)), groups)


def _draw_loop(measured: Sequence[Record], folder: Path) -> Path | None:
    rows = of(measured, "loop")
    if not rows:
        return None
    figure, (axis,) = _axes()
    sides = {"searcher": "searcher", "eager (DataLoader)": "eager", "eager, by hand": "eager_by_hand"}
    series = {label: [row["figures"].get(f"{side}_steps_per_s") for row in rows] for label, side in sides.items()}
    _bars(axis, [row["case"].replace(", ", "\n", 1) for row in rows], series)
    for at, row in enumerate(rows):
        ratio = row["figures"]["ratio_to_eager"]["median"]
        place = (at - 0.8 / len(series), row["figures"]["searcher_steps_per_s"]["high"])
        axis.annotate(f"{ratio:.2f}x eager", place, (0, 4), textcoords="offset points", ha="center")
    axis.margins(y=0.12)
    axis.set(ylabel=f"steps/s, batch {rows[0]['figures']['batch']}", title="The training loop", ylim=(0, None))
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _saved(figure, folder, "loop")


def _draw_children(measured: Sequence[Record], folder: Path) -> Path | None:
    lines = {name: [row["figures"] for row in of(measured, name)] for name in CHILDREN}
    if not any(lines.values()):
        return None
    figure, (axis,) = _axes()
    for colour, (name, rows) in zip(COLOURS, lines.items(), strict=False):
        if rows:
            at, rates = zip(*[(row["children"], row["children_per_hour"]) for row in rows], strict=True)
            axis.plot(at, rates, "o-", color=colour, label=CHILDREN[name])
    numbers = sorted({row["children"] for rows in lines.values() for row in rows})
    axis.set_xscale("log", base=2)
    axis.set_xticks(numbers, [str(number) for number in numbers])
    axis.minorticks_off()
    axis.set(xlabel="children at once", ylabel="children/hour, all together", title="Children at once", ylim=(0, None))
    axis.grid(axis="y", color="#dddddd")
    axis.legend(frameon=False)
    return _saved(figure, folder, "children")


def _draw_activations(measured: Sequence[Record], folder: Path) -> Path | None:
    figures = _by_function(measured)
    if not figures:
        return None
    figure, axes = _axes(2, 11.0, 1.5 + 0.55 * len(figures))
    for axis, kind, title in zip(axes, ("forward", "both"), ("forward", "forward and backward"), strict=True):
        series = {label: [row.get(f"{way}_{kind}_of_copy") for row in figures.values()] for way, label in WAYS.items()}
        _bars(axis, list(figures), series, horizontal=True)
        axis.axvline(1, color="#888888", lw=1, ls="--")
        axis.set(xlabel="share of the bandwidth of a copy", title=title)
    axes[1].set_yticklabels([])
    axes[1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _saved(figure, folder, "activations")


def _draw_steps(measured: Sequence[Record], folder: Path) -> Path | None:
    """Captured steps and precisions, in one picture."""
    captured = [row["figures"] for row in of(measured, "captured") if row["case"] == "speed"]
    precision = [row["figures"] for row in of(measured, "precision")]
    panels = [
        ("Captured steps", ("captured", "eager"), captured),
        ("Precision", ("bfloat16", "tf32", "float32"), precision),
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    figure, axes = _axes(len(panels), 4.0 * len(panels))
    for axis, (title, ways, found) in zip(axes, panels, strict=True):
        there = [way for way in ways if f"{way}_steps_per_s" in found[-1]]
        _bars(axis, there, {"steps/s": [found[-1][f"{way}_steps_per_s"] for way in there]})
        last = found[-1][f"{there[-1]}_steps_per_s"]["median"]
        for at, way in enumerate(there[:-1]):
            rate = found[-1][f"{way}_steps_per_s"]
            text = f"{rate['median'] / last:.2f}x"
            axis.annotate(text, (at, rate["high"]), (0, 4), textcoords="offset points", ha="center")
        axis.margins(y=0.12)
        axis.set(title=title, ylabel=f"steps/s, batch {found[-1]['batch']}", ylim=(0, None))
    return _saved(figure, folder, "steps")


def _draw_memory(measured: Sequence[Record], folder: Path) -> Path | None:
    rows = of(measured, "memory")
    if not rows:
        return None
    figure, (axis,) = _axes()
    labels = {"tensors": "allocated_mib", "reserved": "reserved_mib", "whole process": "process_mib"}
    series = {
        label: [dict.fromkeys(("median", "low", "high"), row["figures"][name]) for row in rows]
        for label, name in labels.items()
    }
    _bars(axis, [row["case"].rpartition(", ")[2] for row in rows], series)
    axis.set(ylabel="MiB at most", title=f"Memory of a child, {rows[0]['case'].partition(',')[0]}", ylim=(0, None))
    axis.legend(frameon=False)
    return _saved(figure, folder, "memory")


DRAWINGS: tuple[Callable[[Sequence[Record], Path], Path | None], ...] = (
    _draw_loop,
    _draw_children,
    _draw_activations,
    _draw_steps,
    _draw_memory,
)
