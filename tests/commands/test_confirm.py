"""`searcher confirm`, `evidence` and `top` of a confirmation, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from searcher import confirming, sessions
from tests.support.commands import Cli, Done
from tests.support.searches import FAST

SEARCH = ("--study-name", "s", "--sampler", "random", "--n-trials", "8", *FAST, "--threads", "1")
TASK = """
import torch

def train(activation, report, *, learning_rate=0.1):
    network = torch.nn.Sequential(torch.nn.Linear(1, 8), activation(8), torch.nn.Linear(8, 1))
    x = torch.linspace(-1, 1, 16)[:, None]
    optimizer = torch.optim.SGD(network.parameters(), learning_rate)
    for step in range(1, 11):
        error = (network(x) - torch.sin(3 * x)).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        report(step, val_mse=error.item())
    return {"val_mse": error.item()}

train.metrics = {"val_mse": "minimize"}

def constant(activation, report):
    activation(1)(torch.ones(1, 1))
    return {"val_score": 0.5}

constant.metrics = {"val_score": "maximize"}
"""


@pytest.fixture
def searched(cli: Cli) -> Cli:
    """A search of eight trials, with ReLU."""
    done = cli("launch", *SEARCH)
    assert done.returncode == 0, done.stderr
    return cli


def rows(done: Done) -> list[dict]:  # type: ignore[type-arg]
    assert done.returncode == 0, done.stderr
    found: list[dict] = json.loads(done.stdout)  # type: ignore[type-arg]
    return found


def test_search_confirm_and_read(searched: Cli) -> None:
    """The best functions of a search are trained with new seeds, on its network and another one; the sentences say what
    the numbers do."""
    done = searched("confirm", "s", "--top", "2", "--seeds", "3", "--models", "lecture")
    assert done.returncode == 0, done.stderr
    assert "3 functions with 3 seeds under 2 configurations: 18 trainings" in done.stderr
    assert "3 seeds show great differences only" in done.stderr
    assert "resnet8 on digits" in done.stdout
    assert "lecture on digits" in done.stdout
    assert "With 3 seeds, neither the sign test nor the permutation test can go below p = 0.25" in done.stdout
    found = rows(searched("evidence", "s-confirmed-1", "-f", "json"))
    assert [(row["configuration"], row["seeds"]) for row in found] == [
        *[("resnet8 on digits", 3)] * 3,
        *[("lecture on digits", 3)] * 3,
    ]
    better = [row["function"] for row in found if row["verdict"] == "better"]
    assert ("Nothing is shown to be better than relu" in done.stdout) == (len(better) < 2)
    trials = [rows(searched("trial", "s-confirmed-1", str(number), "-f", "json"))[0] for number in range(18)]
    assert {trial["seed"] for trial in trials} == {1, 2, 3}, "the search had seed 0"
    assert all(trial["test_loss"] is not None for trial in trials)
    for row in found:
        own = [t for t in trials if t["expression"] == row["expression"] and t["model"] in row["configuration"]]
        assert row["mean"] == pytest.approx(sum(trial["test_loss"] for trial in own) / 3)
    (study,) = [row for row in rows(searched("studies", "-f", "json")) if row["study"] == "s-confirmed-1"]
    assert (study["kind"], study["done"], study["total"]) == ("design", 18, 18)
    top = rows(searched("top", "s-confirmed-1", "-f", "json"))
    assert [row["rank"] for row in top] == [1, 2, 3, 1, 2, 3]
    assert all(row["bound"] > row["test_loss"] for row in top)
    assert searched("top", "s", "-f", "json").stdout.count("test_loss") == 0, (
        "a confirmation is not mixed into a search"
    )
    resumed = searched("resume", "s-confirmed-1", "-q")
    assert resumed.returncode == 0, resumed.stderr
    assert done.stdout == resumed.stdout


def test_functions_of_a_task_of_ones_own_without_a_search(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(TASK)
    done = cli(
        *("confirm", "--task", "my_task.py:train", "--expression", "sin(x)", "--expression", "swish1", "--seeds", "4"),
        *("--tune-lr", "3", "--pool", "inline", "--study-name", "mine"),
    )
    assert done.returncode == 0, done.stderr
    assert "3 functions with 4 seeds" in done.stderr
    assert "21 trainings" in done.stderr
    assert "the task has no test split, so val_mse decides: validation only, optimistic" in done.stderr
    assert "val_mse is no test metric: validation only, optimistic." in done.stdout
    found = rows(cli("evidence", "mine", "-f", "json"))
    assert {row["learning_rate"] for row in found} <= {0.0333333, 0.1, 0.3}
    assert [row["seeds"] for row in found] == [4, 4, 4]
    other = cli("evidence", "mine", "--reference", "swish1")
    assert "than swish1 by" in other.stdout
    again = cli("confirm", "--study-name", "mine", "--skip-if-exists")
    assert again.returncode == 0, again.stderr
    assert "going on with its stored plan" in again.stderr


def test_ties_everywhere(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(TASK)
    done = cli("confirm", "--task", "my_task.py:constant", "--expression", "sin(x)", "--seeds", "5", "--pool", "inline")
    assert done.returncode == 0, done.stderr
    assert "Nothing is shown to be better than relu by val_score" in done.stdout
    assert "The differences are the same on every seed, so noise is not known and the sign test decides." in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seeds", "1"), "--seeds must be from 2 to 10000, not 1"),
        (("--first-seed", "0"), "the search chose its functions by trainings with seed 0"),
        (("--top", "0", "--baselines", "none"), "there is no function to compare with relu; name some"),
        (("--models", "nosuch"), "unknown model 'nosuch'; accepted: resnet8"),
        (("--datasets", "nosuch"), "unknown dataset 'nosuch'; accepted: digits"),
        (("--models", "densenet-100-12", "--width", "99999"), "width must be a whole number from 1 to 4096"),
        (("--tune-lr", "2"), "--tune-lr must be 0 or an odd number from 3"),
        (("--reference", "nosuch"), "unknown baseline 'nosuch'"),
        (("--alpha", "nan"), "--alpha must be a finite number, not nan"),
        (("--rope", "-1"), "--rope must be at least 1e-12, not -1.0"),
        (("--expression", "max(x"), "expected ')', not the end"),
        (("--study-name", "s"), "study 's' exists"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(searched: Cli, flags: tuple[str, ...], message: str) -> None:
    done = searched("confirm", "s", *flags)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(rows(searched("studies", "-f", "json"))) == 1, "nothing was written"


def test_what_is_no_confirmation(searched: Cli) -> None:
    assert "study 's' is a search and no confirmation; make one: searcher confirm" in searched("evidence", "s").stderr
    assert "there is no function to compare with relu" in searched("confirm").stderr
    assert "--top takes the best functions of a search; name it" in searched("confirm", "--top", "3").stderr
    assert "no study 'nosuch'" in searched("confirm", "nosuch").stderr
    assert searched("confirm", "s", "--top", "1", "--seeds", "2", "-q").returncode == 0
    again = searched("confirm", "s-confirmed-1")
    assert again.returncode == 2
    assert "is no search but a design; confirm the functions of a search" in again.stderr
    missing = searched("evidence", "s-confirmed-1", "--reference", "sin(x)")
    assert "the reference 'sin(x)' was not trained in this confirmation; choose among: " in missing.stderr


def test_reading_writes_nothing(searched: Cli, tmp_path: Path) -> None:
    """So a database opened read only will do."""
    assert searched("confirm", "s", "--top", "1", "--seeds", "2", "-q").returncode == 0
    before = (tmp_path / "searcher.db").read_bytes()
    for command in (("evidence", "s-confirmed-1"), ("top", "s-confirmed-1"), ("status", "s-confirmed-1")):
        done = searched(*command)
        assert done.returncode == 0
    assert "searcher evidence s-confirmed-1" in done.stdout
    assert (tmp_path / "searcher.db").read_bytes() == before


TESTED = """
import torch

def train(activation, report, *, learning_rate=0.1):
    value = activation(1)(torch.full((1, 1), learning_rate + report.seed)).item()
    report(1, val_mse=value, test_mse=value + 1)
    return {"val_mse": value, "test_mse": value + 1}

train.metrics = {"val_mse": "minimize", "test_mse": "minimize"}
train.tie_breaker = "test_mse"

def other(activation, report):
    return {"val_mse": activation(1)(torch.ones(1, 1)).item()}

other.metrics = {"val_mse": "minimize"}
"""


@pytest.fixture
def own(cli: Cli, tmp_path: Path) -> Cli:
    """A search by a task of one's own that measures the test part too."""
    (tmp_path / "my_task.py").write_text(TESTED)
    flags = ("--task", "my_task.py:train", "--sampler", "random", "--n-trials", "6", "--baselines", "relu")
    done = cli("launch", *flags, "--pool", "inline", "--study-name", "s")
    assert done.returncode == 0, done.stderr
    return cli


def test_a_search_and_the_tuning_never_see_the_test_part(own: Cli) -> None:
    """Seen to fail: `top` ranked a search with test metrics beside the others, and ties by them."""
    assert all("test_mse" not in row for row in rows(own("top", "s", "-f", "json")))
    assert "test_mse" not in own("trial", "s", "0", "-f", "json").stdout
    assert "test_mse" not in own("query", "SELECT declaration, tie_breaker FROM searcher_task_config").stdout
    assert own("resume", "s", "--n-trials", "7", "-q").returncode == 0  # the task still declares both
    done = own("confirm", "s", "--top", "1", "--seeds", "2", "--tune-lr", "3", "--study-name", "c", "-q")
    assert done.returncode == 0, done.stderr
    trials = [rows(own("trial", "c", str(number), "-f", "json"))[0] for number in range(10)]
    assert {trial["task_config"] >= 3 for trial in trials} == {True, False}  # of the tuning, and compared
    assert all(("test_mse" in trial) == (trial["task_config"] < 3) for trial in trials)


def test_configurations_that_measure_different_things_are_refused(own: Cli) -> None:
    """Seen to fail: validation errors of one were read as test errors."""
    done = own("confirm", "s", "--task", "my_task.py:other", "--seeds", "2")
    assert done.returncode == 2
    assert "my_task.py:train is compared by test_mse (minimize), and my_task.py:other by val_mse" in done.stderr


def test_what_cannot_be_confirmed_is_said_before_workers_start(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail: Ray was started first, which took ten seconds."""
    monkeypatch.setattr("searcher.driver.session.make_pool", lambda *_: pytest.fail("workers were started"))
    for flags in ((), ("--expression", "relu"), ("--expression", "swish1", "--top", "3"), ("--expression", "sin(")):
        assert cli("confirm", *flags).returncode == 2


def test_maxout_may_be_written_as_it_is_shown(searched: Cli) -> None:
    flags = ("--seeds", "2", "--top", "0", "--baselines", "none", "--study-name", "c", "-q")
    done = searched("confirm", "s", "--expression", "maxout(2)", "--expression", "maxout", *flags)
    assert done.returncode == 0, done.stderr
    assert {row["function"] for row in rows(searched("evidence", "c", "-f", "json"))} == {"maxout", "relu"}


def test_the_greatest_seed(searched: Cli) -> None:
    greatest = 2**31 - 1
    done = searched("launch", *SEARCH, "--training-seed", str(greatest), "--study-name", "great")
    assert done.returncode == 0, done.stderr
    assert searched("confirm", "great", "--seeds", "2", "--top", "1", "--study-name", "c", "-q").returncode == 0
    seeds = {row["seed"] for number in range(4) for row in rows(searched("trial", "c", str(number), "-f", "json"))}
    assert seeds == {0, 1}, "no seed follows the greatest one"


def test_two_confirmations_at_once_get_names_of_their_own(searched: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail: the second one of two that had found the same free name was refused."""
    found, free = [], confirming._free_name

    def name(*args: object) -> str:
        found.append(free(*args))  # type: ignore[arg-type]
        return "s-confirmed-1" if len(found) == 2 else found[-1]

    monkeypatch.setattr(confirming, "_free_name", name)
    flags = ("--top", "1", "--seeds", "2", "-q")
    assert searched("confirm", "s", *flags).returncode == 0
    done = searched("confirm", "s", *flags)
    assert done.returncode == 0, done.stderr
    assert {row["study"] for row in rows(searched("studies", "-f", "json"))} == {"s", "s-confirmed-1", "s-confirmed-2"}


def test_a_confirmation_that_another_process_has_just_made_goes_on(
    searched: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen to fail: `--skip-if-exists` refused it."""
    flags = ("--study-name", "c", "--top", "1", "--seeds", "2", "-q")
    assert searched("confirm", "s", *flags).returncode == 0
    existing, asked = sessions._existing, []

    def late(storage: str, name: str) -> str:
        asked.append(name)
        return "" if len(asked) == 1 else existing(storage, name)

    monkeypatch.setattr(sessions, "_existing", late)
    done = searched("confirm", "s", *flags, "--skip-if-exists")
    assert done.returncode == 0, done.stderr
