"""`searcher compare`, `searcher find` and `searcher report` as a person types them. They only read the database."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path

import pytest

from searcher.store.store import Store
from tests.support.commands import Cli
from tests.support.reported import a_confirmation, a_search, the_plan

BEST = "x * sigmoid(2 * x)"


@pytest.fixture
def made(cli: Cli, sqlite_url: str) -> Cli:
    """The command line in a folder whose database has a search, its confirmation, and an empty search."""
    store = Store(sqlite_url, create=True)
    a_search(store, "found")
    a_confirmation(store, the_plan(seeds=(1, 2, 3, 4, 5), search="found"), "confirmed")
    a_search(store, "empty", ())
    store.close()
    return cli


def test_functions_are_compared_within_a_study(made: Cli) -> None:
    done = made("compare", BEST, "relu", "--study", "confirmed")
    assert done.returncode == 0, done.stderr
    assert "test_acc (maximize) of resnet8 on digits; from: confirmed" in done.stdout
    assert f"{BEST} is better than relu: test_acc is higher by" in done.stdout
    (first, second) = json.loads(made("compare", BEST, "relu", "--study", "confirmed", "-f", "json").stdout)
    assert (first["verdict"], first["common_seeds"], len(first["seeds"])) == ("better", 5, 5)
    assert first["seeds"][0].keys() == {"seed", BEST, "relu", "difference"}
    rows = list(csv.DictReader(io.StringIO(made("compare", BEST, "relu", "--study", "confirmed", "-f", "csv").stdout)))
    assert [row["judged_by"] for row in rows] == [first["judged_by"], second["judged_by"]]


def test_formulas_may_begin_with_a_minus(made: Cli) -> None:
    done = made("compare", "relu", "-max(0, x) * -1", "--study", "confirmed")
    assert (done.returncode, done.stdout) == (2, "")
    assert "relu and -max(0, x) * -1 are the same function: max(x, 0)" in done.stderr
    done = made("find", "-max(0, x) * -1", "-f", "json")
    assert {row["study"] for row in json.loads(done.stdout)} == {"found", "confirmed"}


def test_names_of_studies_are_studies_unless_functions_are_meant(made: Cli) -> None:
    done = made("compare", "found", "confirmed")
    assert done.returncode == 0, done.stderr
    assert "They measured different things (metric)" in done.stdout
    (found,) = json.loads(made("compare", "found", "confirmed", "-f", "json").stdout)
    assert [one["what"] for one in found["differences"]] == ["metric"] and not found["comparable"]
    for output in ("csv", "yaml", "markdown"):
        assert made("compare", "found", "confirmed", "-f", output).stdout
    done = made("compare", "found", "confirmed", "--functions")
    assert done.returncode == 2 and "found" in done.stderr
    done = made("compare", "found", "relu", "--studies")
    assert done.returncode == 1 and "no study 'relu'" in done.stderr
    done = made("compare", "found", "confirmed", "--studies", "--metric", "val_acc")
    assert done.returncode == 2 and "--metric is for comparing functions" in done.stderr


def test_find_prints_every_format(made: Cli) -> None:
    done = made("find", "x*sigmoid(x*2)")
    assert "11 trials in 2 studies, with 6 different seeds" in done.stdout
    rows = json.loads(made("find", BEST, "-f", "json").stdout)
    assert rows[0]["metrics"]["val_acc"] == rows[0]["value"]
    table = list(csv.DictReader(io.StringIO(made("find", BEST, "-f", "csv").stdout)))
    assert [int(row["number"]) for row in table] == [row["number"] for row in rows]
    for output in ("yaml", "markdown"):
        assert made("find", BEST, "-f", output).returncode == 0


def test_what_nobody_tried_is_said(made: Cli) -> None:
    done = made("find", "sinh(x) + x")
    assert done.returncode == 0 and "was not tried in any study" in done.stdout
    assert json.loads(made("find", "sinh(x) + x", "-f", "json").stdout) == []


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("compare", "found", "fuond"), 2, "'found' is a study, and there is no study 'fuond'; name two studies, or"),
        (("compare", "softplus(x)", "relu", "--study", "found"), 2, "softplus(x) was not trained in study 'found'"),
        (("compare", "relu", BEST, "--study", "empty"), 2, "no function was trained to the end in it"),
        (("compare", "relu", BEST, "--study", "nothing"), 1, "no study 'nothing'"),
        (("report", "nothing", "-o", "report.html"), 1, "no study 'nothing'"),
        (("report", "found"), 2, "name a file for the report: -o report.html"),
        (("report", "found", "-o", "report.pdf"), 2, "cannot write a report to 'report.pdf'; accepted: names that end"),
        (("report", "found", "-o", "no/report.md"), 1, "there is no folder no"),
        (("report", "found", "-o", "."), 2, "cannot write a report to ''"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_gets_one_line(made: Cli, tmp_path: Path, words: tuple[str, ...], status: int, message: str) -> None:
    before = sorted(tmp_path.iterdir())
    done = made(*words)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert message in done.stderr and done.stderr.startswith("searcher: ") and done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("words", [("compare", "max(x", "relu"), ("compare", "relu", "max(x"), ("find", "max(x")])
def test_a_text_that_is_no_function_has_its_mistake_shown(made: Cli, words: tuple[str, ...]) -> None:
    done = made(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "searcher: expected ')', not the end\n  max(x\n       ^ position 5\n"


@pytest.mark.parametrize("ending", ["html", "md", "json"])
def test_a_report_replaces_no_file_without_force(made: Cli, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"report.{ending}"
    file.write_text("mine")
    done = made("report", "empty", "-o", file.name)
    assert (done.returncode, file.read_text()) == (1, "mine")
    assert f"{file.name} exists; --force replaces it" in done.stderr
    done = made("report", "empty", "-o", file.name, "--force", "--no-costs")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"report written to {file.name}" in done.stderr
    assert "No function has been trained to the end." in file.read_text()


def test_a_database_that_is_read_only_is_enough(made: Cli, tmp_path: Path) -> None:
    """Each connection may only read, as for a user without rights. The file does not change either."""
    file = tmp_path / "searcher.db"
    before = file.read_bytes()

    def reading(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "connect", reading)
    try:
        for words in (
            ("compare", BEST, "relu"),
            ("compare", "found", "confirmed"),
            ("find", BEST),
            ("report", "confirmed", "-o", "report.md", "--no-costs"),
        ):
            done = made(*words)
            assert done.returncode == 0, done.stderr
    finally:
        event.remove(Engine, "connect", reading)
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", ["compare", "find", "report"])
def test_every_option_has_help(cli: Cli, command: str) -> None:
    done = cli(command, "--help")
    assert done.returncode == 0
    for line in done.stdout.splitlines():
        if line.strip().startswith("--") and "--help" not in line:
            assert len(line.split()) > 2, f"an option of {command} without help: {line}"
