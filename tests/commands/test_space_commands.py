"""`searcher space`, `code` and `show`, checked against the library; the curves and pictures that they draw."""

from __future__ import annotations

import csv
import doctest
import importlib.util
import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import sympy
import torch
import yaml

from search_space import BASELINES, KNOWN, SPACES, Activation, Grammar, canonical, key, parse, preflight, profile, space
from searcher.commands.space import _can_print  # terminals of other encodings
from searcher.reports.function import FunctionReport, sampled, window
from tests.support import ROOT
from tests.support.commands import Cli

pytestmark = pytest.mark.slow

NARROW = ("--unary", "x,neg,sin", "--binary", "add,mul")
SMALL = Grammar(1, ("x", "neg", "sin"), ("add", "mul"))
HARD = ["1 / x", "log(x)", "exp(exp(exp(x)))", "sqrt(-x^2 - 1)", "sin(x) * x^3", "1 / (x - x)", "beta", "sign(x) + 100"]


def rows_of(text: str) -> list[dict[str, object]]:
    """Strict JSON: NaN and Infinity, which Python would read, are refused."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    rows = json.loads(text, parse_constant=refuse)
    assert isinstance(rows, list)
    return rows


def in_every_format(cli: Cli, *command: str) -> list[dict[str, object]]:
    """The rows of a command, after checking that every format has them."""
    rows = rows_of(cli(*command, "-f", "json").stdout)
    assert yaml.safe_load(cli(*command, "-f", "yaml").stdout) == rows
    flat = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert list(csv.DictReader(cli(*command, "-f", "csv").stdout.splitlines())) == flat
    markdown = cli(*command, "-f", "markdown").stdout.splitlines()
    assert len(markdown) == len(rows) + 2
    for row, line in zip(flat, markdown[2:], strict=True):
        assert line == "| " + " | ".join(row.values()) + " |"
    table = cli(*command).stdout
    assert all(str(row["expression" if "expression" in row else "space"]) in table for row in rows)
    return rows


# searcher space ----------------------------------------------------------------------------------------------------


def test_list_has_every_space_with_its_exact_sizes(cli: Cli) -> None:
    rows = in_every_format(cli, "space", "list")
    assert [row["space"] for row in rows] == list(SPACES)
    for row in rows:
        found = SPACES[str(row["space"])]
        sizes = [row[f"size_{n}"] for n in (1, 2, 3)]
        assert sizes == [space(found.name, n).size if n in found.units else None for n in (1, 2, 3)]
        assert (row["unary"], row["binary"]) == (len(found.unary), len(found.binary))
        assert (row["title"], row["reference"]) == (found.title, found.reference)
    assert rows[0]["size_3"] == 8_789_062_500_000


def test_info_says_what_the_space_is_made_of(cli: Cli) -> None:
    (row,) = rows_of(cli("space", "info", "large1", "--units", "2", "-f", "json").stdout)
    grammar, found = space("large1", 2), SPACES["large1"]
    assert (row["size"], row["units"], row["unique"]) == (grammar.size, 2, None)
    assert row["reference"] == found.reference
    assert row["decisions"] == [{"name": d.name, "options": list(d.options)} for d in grammar.decisions]
    primitives = [("unary", *item) for item in found.unary.items()] + [
        ("binary", *item) for item in found.binary.items()
    ]
    assert [tuple(p.values()) for p in row["primitives"]] == primitives
    table = cli("space", "info", "large1", "--units", "2").stdout
    for text in (str(grammar.size), "unit2.binary", "hard_gate", "max(min(a / 6 + 0.5, 1), 0) * b", found.title):
        assert text in table
    as_csv = list(csv.DictReader(cli("space", "info", "large1", "-f", "csv").stdout.splitlines()))
    assert [tuple(p.values()) for p in as_csv] == primitives


def test_info_counts_unique_functions_if_asked(cli: Cli) -> None:
    (row,) = rows_of(cli("space", "info", *NARROW, "--unique", "-f", "json").stdout)
    assert row["size"] == 18
    assert row["unique"] == len({key(SMALL.decode(SMALL.unrank(i))) for i in range(18)}) < 18


def test_a_sample_comes_from_its_seed_uniformly_over_choices(cli: Cli) -> None:
    rows = in_every_format(cli, "space", "sample", "--units", "2", "-n", "7", "--seed", "5")
    grammar, draw = space("swish2017", 2), Random(5)
    for row in rows:
        choices = grammar.sample(draw)
        assert row["index"] == grammar.rank(choices)
        assert row["expression"] == str(grammar.decode(choices))
        assert row["key"] == key(parse(str(row["expression"])))
    fewer = rows_of(cli("space", "sample", "--units", "2", "-n", "3", "--seed", "5", "-f", "json").stdout)
    assert fewer == rows[:3]
    assert rows_of(cli("space", "sample", "--units", "2", "-n", "3", "--seed", "6", "-f", "json").stdout) != fewer


def test_a_unique_sample_has_each_function_once_and_ends_with_the_space(cli: Cli) -> None:
    plain = rows_of(cli("space", "sample", *NARROW, "-n", "40", "-f", "json").stdout)
    assert len(plain) == 40
    done = cli("space", "sample", *NARROW, "-n", "40", "--unique", "-f", "json")
    keys = [row["key"] for row in rows_of(done.stdout)]
    every = {key(expression) for _, expression in SMALL.enumerate_unique()}
    assert len(keys) == len(every)
    assert set(keys) == every
    assert done.stderr == f"The whole space has {len(every)} functions.\n"


def test_enumerate_has_each_function_once_in_order(cli: Cli) -> None:
    rows = in_every_format(cli, "space", "enumerate", *NARROW)
    wanted = [(SMALL.rank(choices), str(expression)) for choices, expression in SMALL.enumerate_unique()]
    assert [(row["index"], row["expression"]) for row in rows] == wanted
    part = cli("space", "enumerate", *NARROW, "--start", str(wanted[3][0]), "--limit", "4", "-f", "json")
    assert rows_of(part.stdout) == rows[3:7]
    last = cli("space", "enumerate", *NARROW, "--start", str(SMALL.size - 1))
    assert last.returncode == 0 and len(last.stdout.splitlines()) <= 2


def test_a_large_space_is_enumerated_lazily(cli: Cli) -> None:
    done = cli("space", "enumerate", "swish2017", "--units", "3", "--limit", "3")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["index", "0", "1", "2"]


def test_rows_go_to_the_file_and_progress_to_the_terminal() -> None:
    """stderr is a terminal here, stdout is not."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cli", "space", "enumerate", "--units", "3", "-f", "csv", "--limit", "40"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=60)
    os.write(theirs, b".")  # so that there is something to read
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(theirs)
    lines = done.stdout.splitlines()
    assert lines[0] == "index,key,expression"
    assert len(lines) == 41
    assert "functions" in shown
    assert lines[1] not in shown


def test_who_has_read_enough_may_leave() -> None:
    command = [sys.executable, "-m", "cli", "space", "enumerate", "--units", "3"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["index", "key", "expression"]
        process.stdout.close()
        process.wait(timeout=60)
        assert process.stderr is not None
        assert process.stderr.read() == ""


# searcher code -----------------------------------------------------------------------------------------------------


def module_of(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_torch_file_computes_what_the_library_does(cli: Cli, tmp_path: Path) -> None:
    text = "max(x, 0) + beta * sin(x)"
    done = cli("code", text, "-o", "mine.py", "--name", "my_wave", "--channels", "3")
    file = tmp_path / "mine.py"
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"torch, {file.stat().st_size} bytes, written to mine.py\n"
    assert file.read_text().endswith("\n")
    module = module_of(file)
    x = torch.randn(4, 3, 5)
    assert torch.equal(module.MyWave()(x), Activation(text, 3)(x))
    assert module.MyWave().beta.shape == (3,)
    assert doctest.testmod(module) == (0, 3)


@pytest.mark.parametrize(
    ("to", "texts"),
    [
        ("torch", ["class Swish(nn.Module)"]),
        ("jax", ["def swish(", "jax.nn.sigmoid"]),
        ("sympy", ["import sympy as sp", "f = x * ", "start = {beta: 1.0}"]),
        ("latex", [r"f(x) = x \cdot \sigma\left(\beta \cdot x\right)"]),
        ("markdown", ["# swish\n", "class Swish(nn.Module)"]),
    ],
)
def test_code_goes_to_stdout(cli: Cli, to: str, texts: list[str]) -> None:
    done = cli("code", "swish", "--to", to)
    assert (done.returncode, done.stderr) == (0, "")
    for text in texts:
        assert text in done.stdout
    assert done.stdout.endswith("\n")
    assert not done.stdout.endswith("\n\n")
    assert cli("code", "swish", "--to", to, "-o", f"{to}.txt").returncode == 0
    assert Path(f"{to}.txt").read_text() == done.stdout  # `cli` has changed into its empty directory


def test_the_sympy_file_runs(cli: Cli, tmp_path: Path) -> None:
    assert cli("code", "tanh", "--to", "sympy", "-o", "t.py").returncode == 0
    assert module_of(tmp_path / "t.py").f == sympy.tanh(sympy.Symbol("x", real=True))


def test_the_onnx_file_runs(cli: Cli, tmp_path: Path) -> None:
    import onnxruntime

    assert cli("code", "swish", "--to", "onnx", "-o", "s.onnx", "--channels", "2").returncode == 0
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    (y,) = onnxruntime.InferenceSession((tmp_path / "s.onnx").read_bytes()).run(None, {"x": x})
    assert np.allclose(y, torch.nn.functional.silu(torch.tensor(x)).numpy(), atol=1e-6)


def test_a_file_is_replaced_only_by_force(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("precious")
    refused = cli("code", "relu", "-o", "a.py")
    assert (refused.returncode, refused.stderr) == (1, "searcher: a.py exists; --force replaces it\n")
    assert (tmp_path / "a.py").read_text() == "precious"
    assert cli("code", "relu", "-o", "a.py", "--force").returncode == 0
    assert "class Relu" in (tmp_path / "a.py").read_text()


# searcher show -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*BASELINES, *HARD])
def test_the_facts_are_those_of_the_library(cli: Cli, text: str) -> None:
    (facts,) = rows_of(cli("show", text, "-f", "json").stdout)
    expression = parse(KNOWN[text].expression if text in KNOWN else text)
    found = profile(expression)
    assert facts["expression"] == str(expression)
    assert facts["canonical"] == str(canonical(expression))
    assert facts["key"] == key(expression)
    assert (facts["trainable"], facts["objection"]) == (preflight(expression) is None, preflight(expression))
    assert (text in facts["names"]) == (text in KNOWN)
    for name in found.__dataclass_fields__:
        value = getattr(found, name)
        if name in ("left", "right", "depth"):
            for inner in value.__dataclass_fields__:
                assert same(facts[f"{name}.{inner}"], getattr(value, inner)), (name, inner)
        else:
            assert same(facts[name], value), name


def same(shown: object, value: object) -> bool:
    if isinstance(value, tuple):
        return shown == list(value)
    if isinstance(value, float) and math.isinf(value):
        return shown == ("inf" if value > 0 else "-inf")
    return shown == value


def test_facts_as_yaml_and_csv(cli: Cli) -> None:
    (facts,) = rows_of(cli("show", "relu", "-f", "json").stdout)
    assert yaml.safe_load(cli("show", "relu", "-f", "yaml").stdout) == [facts]
    (row,) = csv.DictReader(cli("show", "relu", "-f", "csv").stdout.splitlines())
    assert list(row) == list(facts)
    assert (row["names"], row["kinks"], row["right.limit"], row["dead"]) == ("relu", "0.0", "inf", "0.5")


def test_the_card_says_it_in_words(cli: Cli) -> None:
    card = cli("show", "x*sigmoid(beta*x)").stdout
    lines = {line[:14].strip(): line[15:] for line in card.split("\n\n")[0].splitlines()}
    assert lines["f(x)"] == "x * sigmoid(beta * x)"
    assert lines["known as"] == "swish (Ramachandran et al. 2017)"
    assert lines["in a search"] == "would be trained"
    assert lines["shape"] == "not monotone, neither odd nor even, bounded below by -0.2785, unbounded above"
    assert lines["to the left"] == "f goes to 0, its slope to 0: it saturates"
    assert lines["to the right"] == "f goes to inf, its slope to 1"
    assert lines["x of N(0, 1)"] == "E[f] 0.2066, E[f^2] 0.3558, E[f'^2] 0.3795"
    assert lines["50 layers"].startswith("signals vanish, gradients vanish")
    assert lines["cost"] == "3 operations, 1 parameter a channel"
    markdown = cli("show", "x*sigmoid(beta*x)", "-f", "markdown").stdout
    for label, text in lines.items():
        assert f"| {label} | {text.replace('|', chr(92) + '|')} |" in markdown


@pytest.mark.parametrize(
    ("text", "label", "words"),
    [
        ("max(x, 0)", "gradient", "slope exactly 0 on 50 % of x, almost linear (|f''| < 0.05) on 100 %"),
        ("max(x, 0)", "breaks", "kinks at x = 0; jumps none"),
        ("sign(x)", "in a search", "not trained: it has no gradient"),
        ("sign(x)", "breaks", "kinks none; jumps at x = 0"),
        ("sign(x)", "steepest", "no bound on the slope: f jumps"),
        ("1/(x)", "in a search", "not trained: its value is inf at x = 0"),
        ("1/(x)", "shape", "no finite number at x = 0"),
        ("sin(x)", "to the left", "f has no limit, its slope has no limit"),
        ("sin(x)", "shape", "not monotone, odd, bounded below by -1, bounded above by 1"),
        ("x^2", "shape", "not monotone, even, bounded below by 0, unbounded above"),
        ("-tanh(x)", "shape", "monotone (decreasing), odd"),
        ("2 * x^2", "variance", "grows without end"),
        ("selu", "variance", "settles at 1 "),
        ("tanh(x) + 0 * x", "simplest form", "tanh(x)"),
        ("abs(sin(9 * x))", "breaks", "and 23 more"),
        ("log(x)", "x of N(0, 1)", "E[f] unknown"),
    ],
)
def test_words_for_other_functions(text: str, label: str, words: str) -> None:
    expression = parse(KNOWN[text].expression if text in KNOWN else text)
    assert words in FunctionReport(expression).words()[label]


# The curve ---------------------------------------------------------------------------------------------------------


def panels(text: str, *, braille: bool) -> tuple[list[str], list[str]]:
    """What is drawn of f and of f', without title, margins and the numbers of x."""
    lines = FunctionReport(parse(text)).curves(30, 12, braille=braille)
    split = lines[0].index("f'(x)")
    left = [f"{line[:split]:{split}}"[lines[0].index("f(x)") :][:30] for line in lines[1:-1]]
    return left, [f"{line[split:]:30}"[:30] for line in lines[1:-1]]


def where(panel: list[str], drawn: str) -> dict[int, list[int]]:
    """Column -> rows in which the curve is."""
    columns = {column: [row for row in range(12) if panel[row][column] in drawn] for column in range(30)}
    return {column: rows for column, rows in columns.items() if rows}


BRAILLE = "".join(map(chr, range(0x2801, 0x2900)))


@pytest.mark.parametrize("braille", [True, False])
def test_the_line_of_x_is_a_diagonal_and_its_slope_a_level(braille: bool) -> None:
    drawn = BRAILLE if braille else "':."
    line, level = panels("x", braille=braille)
    found = where(line, drawn)
    assert sorted(found) == list(range(30))
    for column, rows in found.items():
        assert all(abs(row - (11 - column * 12 / 30)) <= 1 for row in rows)
    assert found[0] == [11]
    assert found[29] == [0]
    assert len({row for rows in where(level, drawn).values() for row in rows}) == 1


def test_the_curve_is_where_the_function_is() -> None:
    """Every column of the picture of a sine holds its values there, to a row; other functions look other."""
    found = where(panels("sin(x)", braille=True)[0], BRAILLE)
    for column, rows in found.items():
        x = -5 + (column + 0.5) / 3
        exact = (1 - math.sin(x)) * 6
        assert min(rows) - 1 <= exact <= max(rows) + 2, column
    assert panels("sin(x)", braille=True) != panels("cos(x)", braille=True)


def test_a_curve_is_torn_where_the_function_jumps() -> None:
    drawn = where(panels("sign(x)", braille=False)[0], "':.")
    assert all(len(rows) == 1 for column, rows in drawn.items() if column not in (14, 15))
    assert drawn[13] == [11]
    assert drawn[16] == [0]
    assert sum(map(len, drawn.values())) <= 31
    slope = where(panels("max(x, 0)", braille=False)[1], "':.")
    assert all(len(rows) == 1 for rows in slope.values()), "f' of ReLU jumps at the kink"


def test_the_window_is_not_flattened_by_a_pole_and_holds_a_narrow_bump() -> None:
    x = np.linspace(-5, 5, 400)
    low, high = window(1 / x)
    assert -10 < low < -4 < 4 < high < 10
    bump = np.exp(-100 * x**2)
    assert window(bump) == (0.0, bump.max())
    assert window(np.full(9, 3.0)) == (2.0, 4.0)
    assert window(np.full(9, np.nan)) == (-1.0, 1.0)
    assert window(np.tanh(x) + 1.001) == (0.0, pytest.approx(2.0009, abs=1e-4))


def test_the_axes_have_the_numbers() -> None:
    lines = FunctionReport(parse("exp(-x^2) * 3")).curves()
    assert lines[0].split() == ["f(x)", "f'(x)"]
    assert lines[-1].split() == ["-5", "0", "5"] * 2
    assert lines[1].split()[0] == "3"
    assert lines[12].split()[0] == "0"
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize("text", HARD)
def test_every_function_has_a_curve(text: str) -> None:
    lines = FunctionReport(parse(text)).curves(braille=False)
    assert len(lines) == 14
    assert all(line.isascii() and "nan" not in line for line in lines)


def test_samples_are_the_function_and_its_slope() -> None:
    x = np.array([-1.0, 0.5, 2.0])
    value, slope = sampled(parse("log(x) * beta"), x)
    assert np.isnan([value[0], slope[0]]).all()
    assert np.allclose([value[1:], slope[1:]], [np.log(x[1:]), 1 / x[1:]])


def test_a_terminal_without_unicode_gets_ascii(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    assert any(c in BRAILLE for c in cli("show", "swish").stdout)
    monkeypatch.setattr("searcher.commands.space._can_print", lambda _: False)
    assert cli("show", "swish").stdout.isascii()


@pytest.mark.parametrize(("encoding", "able"), [("utf-8", True), ("ascii", False), ("latin-1", False), (None, False)])
def test_what_an_encoding_can_print(monkeypatch: pytest.MonkeyPatch, encoding: str | None, able: bool) -> None:
    stdout = SimpleNamespace(encoding=encoding)
    monkeypatch.setattr("searcher.commands.space.sys", SimpleNamespace(stdout=stdout))
    assert _can_print("⣿┊") is able


# The picture -------------------------------------------------------------------------------------------------------


def test_pictures_are_whole_and_differ(cli: Cli, tmp_path: Path) -> None:
    from matplotlib.image import imread

    for text, name in (("swish", "a.png"), ("sin(x) * x^3", "b.png"), ("swish", "c.png")):
        done = cli("show", text, "--plot", name)
        assert (done.returncode, done.stderr) == (0, f"picture written to {name}\n")
        assert "f(x)" in done.stdout
    pictures = {name: imread(tmp_path / name) for name in ("a.png", "b.png", "c.png")}
    assert pictures["a.png"].shape[:2] == (630, 1350)
    assert not np.array_equal(pictures["a.png"], pictures["b.png"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()


def test_a_vector_picture_is_svg(cli: Cli, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        assert cli("show", "max(x, sigmoid(x))", "--plot", name, "-f", "json").returncode == 0
    root = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 20
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def labels(text: str) -> list[str]:
    from searcher.reports.plot import figure

    return [entry.get_text() for entry in figure(FunctionReport(parse(text))).legends[0].get_texts()]


def test_a_picture_has_relu_swish_and_other_parameters() -> None:
    assert labels("sin(x) - x") == ["this function", "ReLU", "Swish"]
    assert labels("relu") == ["relu", "Swish"]
    assert labels("swish") == ["swish", "beta = 0.5", "beta = 2", "ReLU"]
    assert labels("beta1 * x + beta2")[:3] == ["this function", "every beta = 0.5", "every beta = 2"]


@pytest.mark.parametrize(
    ("text", "bottom", "top"),
    [("1 / x", -9, 10), ("sin(x) * x^3", -10, 10), ("sign(x) + 100", 99, 101), ("exp(x)", 0, 10), ("swish", -0.6, 5)],
)
def test_a_picture_shows_where_the_function_is(text: str, bottom: float, top: float) -> None:
    from searcher.reports.plot import figure

    axes = figure(FunctionReport(parse(text))).axes[0]
    assert axes.get_ylim() == pytest.approx((bottom, top), abs=1.1)
    curve = axes.get_lines()[2].get_ydata()
    low, high = axes.get_ylim()
    assert np.mean((low <= curve) & (curve <= high)) > 0.5


def test_the_curve_in_a_picture_is_the_function() -> None:
    from searcher.reports.plot import figure

    for text in ("max(x, 0)", "beta * sin(x)"):
        f, slope = figure(FunctionReport(parse(text))).axes
        x, y = f.get_lines()[2].get_data()
        assert np.array_equal(y, sampled(parse(text), x)[0], equal_nan=True)
        assert np.nanmax(np.abs(slope.get_lines()[2].get_ydata() - sampled(parse(text), x)[1])) == 0
    half = figure(FunctionReport(parse("beta * sin(x)"))).axes[0].get_lines()[3].get_ydata()
    assert np.allclose(half, np.sin(x) / 2)
    relu = figure(FunctionReport(parse("max(x, 0)"))).axes[1].get_lines()[2].get_ydata()
    assert np.isnan(relu).sum() == 1, "f' is torn at the kink"


def test_the_title_is_mathematics_where_it_fits() -> None:
    from searcher.reports.plot import figure

    def title(text: str) -> str:
        return figure(FunctionReport(parse(text))).get_suptitle()

    assert title("x * sigmoid(x)") == r"$f(x) = x \cdot \sigma\left(x\right)$"
    long = " + ".join(f"sin({n} * x)" for n in range(1, 26))
    assert title(long).replace("\n", " ") == f"f(x) = {parse(long)}"
    assert title("erf(asinh(x)) * softplus(atan(x)) + sign(x)").startswith("$")


def test_pictures_need_the_extra(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cli("show", "swish", "--plot", "a.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "searcher: a picture needs matplotlib: pip install 'activation-searcher[plot]'\n"
    assert cli("show", "swish").returncode == 0
    assert list(tmp_path.iterdir()) == []


# What is asked for wrongly -----------------------------------------------------------------------------------------

BAD = [
    (("space", "info", "swish"), 2, "unknown space 'swish'; did you mean 'swish2017'"),
    (("space", "info", "large1", "--units", "3"), 2, "space 'large1' has 1, 2 units, not 3"),
    (("space", "info", "--unary", "x,sinn"), 2, "unknown unary primitive 'sinn'; did you mean 'sin'"),
    (("space", "sample", "--binary", "ad"), 2, "unknown binary primitive 'ad'; did you mean 'add'"),
    (("space", "sample", "--unary", "x,x"), 2, "named twice"),
    (("space", "sample", "--unary", ""), 2, "unknown unary primitive ''; accepted: x, neg"),
    (("space", "sample", "-n", "0"), 2, "'-n'"),
    (("space", "enumerate", "--limit", "0"), 2, "'--limit'"),
    (("space", "enumerate", "--start", "-1"), 2, "'--start'"),
    (("space", "list", "-f", "xml"), 2, "'-f'"),
    (("code", "x +"), 2, "not the end\n  x +\n     ^ position 3"),
    (("code", "swich"), 2, "unknown name 'swich'; did you mean 'swish'"),
    (("code", "swish", "--to", "pytorch"), 2, "unknown target 'pytorch'; did you mean 'torch'"),
    (("code", "swish", "--to", "onnx"), 2, "-o FILE.onnx"),
    (("code", "swish", "--name", "my name"), 2, "'my name' cannot be a name in the file"),
    (("code", "swish", "--channels", "0"), 2, "channels must be a whole number from 1 to 1000000, not 0"),
    (("code", "swish", "--channels", "99999999999"), 2, "from 1 to 1000000, not 99999999999"),
    (("code", "swish", "--name", "torch"), 2, "'torch' cannot be a name in the file"),
    (("space", "enumerate", "--start", "6250"), 2, "--start must be below 6250, the size of the space, not 6250"),
    (("code", "swish", "-o", "no/such/a.py"), 1, "cannot write no/such/a.py: No such file or directory"),
    (("show", "swish(x, x)"), 2, "position"),
    (("show", "swish", "--plot", "a.jpg"), 2, "cannot draw 'a.jpg'; accepted: names that end in .png or .svg"),
    (("show", "swish", "--plot", "no/such/a.png"), 1, "cannot write no/such/a.png: No such file or directory"),
]


@pytest.mark.parametrize(("args", "status", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_gets_one_message(cli: Cli, tmp_path: Path, args: tuple[str, ...], status: int, message: str) -> None:
    done = cli(*args)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["space list", "space info", "space sample", "space enumerate", "code", "show"])
def test_every_option_says_what_it_does(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert done.returncode == 0
    options = [line for line in done.stdout.splitlines() if line.strip().startswith("-") and "--help" not in line]
    assert options
    for line in options:
        assert len(line.split()) > 2, f"an option of {command} without help: {line}"


@pytest.mark.parametrize("text", ["-x", "-x + cos(x)", "-(x * tanh(x))"])
def test_a_formula_may_begin_with_a_minus(cli: Cli, text: str) -> None:
    assert text in cli("show", text).stdout.splitlines()[0]
    assert cli("code", text, "--to", "latex").stdout == cli("code", "--to", "latex", "--", text).stdout != ""
    assert "No such option: --plto" in cli("show", "--plto", "a.png", text).stderr
