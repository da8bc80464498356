"""`searcher surgery` shows what a search would replace, before it begins."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_space import registry
from tests.support.commands import called

pytestmark = pytest.mark.slow

SOURCE = """
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self, inplace):
        super().__init__()

    def forward(self, x):
        return x.mul_(torch.sigmoid(x))

class Net(nn.Module):
    def __init__(self, in_channels, classes, hidden=8, call=False, in_place=False, kind="ReLU"):
        super().__init__()
        act = Mine if kind == "Mine" else getattr(nn, kind)
        self.first, self.act = nn.Conv2d(in_channels, hidden, 3), act(inplace=in_place)
        self.gate, self.head, self.call = nn.Sigmoid(), nn.Linear(hidden, classes), call
        print("made")

    def forward(self, x):
        h = self.first(x)
        x = h + self.act(h) * self.gate(self.first(x))
        x = torch.relu(x) if self.call else x
        return self.head(x.mean((2, 3)))

class Tokens(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Embedding(300, 8), nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.layers(x).mean(1))

def tokens():
    print("drawn")
    return torch.randint(0, 256, (100, 7), dtype=torch.uint8), torch.arange(100) % 2

def network(activation, classes):
    return nn.Sequential(nn.Flatten(), activation(64), nn.Linear(64, classes))
"""


WORD = """
import torch
from search_space import register
register("NAME", lambda a: torch.sin(a))
print("loaded")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the module `mine`. Other test files have other modules with that name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(SOURCE)
    yield tmp_path
    sys.modules.pop("mine", None)
    for module in ("bends", "prints0", "prints1"):
        registry._unregister(module)


def test_a_table_of_what_is_replaced_and_what_stays(folder: Path) -> None:
    done = called(folder, "surgery", "mine:Net", "x * sigmoid(beta * x)")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["act", "ReLU", "8", "1", "replaced"] in rows
    assert any(row[:3] == ["gate", "Sigmoid", "stays"] for row in rows)
    assert "note: gate: Sigmoid stays, because it is a gate" in done.stdout and "made" not in done.stdout


def test_the_same_as_json_and_csv(folder: Path) -> None:
    done = called(folder, "surgery", "mine:Net", "swish", "--model-kwargs", '{"hidden": 5}', "-f", "json")
    (found,) = json.loads(done.stdout)
    assert (found["model"], found["expression"], found["refusal"]) == ("mine:Net", "x * sigmoid(beta * x)", "")
    assert found["activations"] == [
        {"place": "act", "what": "ReLU", "channels": 5, "dimension": 1, "fate": "replaced", "why": ""},
        {
            "place": "gate",
            "what": "Sigmoid",
            "channels": None,
            "dimension": None,
            "fate": "stays",
            "why": "it is a gate: its output multiplies another value",
        },
    ]
    assert len(found["notes"]) == 1
    done = called(folder, "surgery", "mine:Net", "swish", "--match", "gate", "-f", "csv")
    assert done.stdout.splitlines() == ["place,what,channels,dimension,fate,why", "gate,Sigmoid,8,1,replaced,"]


def test_the_data_and_the_words_of_a_search(folder: Path) -> None:
    """Rows S4, D4: it takes the same data sets and options as `launch`. What a user's code prints does not become
    output."""
    (folder / "bends.py").write_text(WORD.replace("NAME", "bend"))
    flags = ("--primitives", "bends", "--dataset", "mine:tokens", "-f", "json")
    done = called(folder, "surgery", "mine:Tokens", "bend(beta * x)", *flags, "--no-standardise")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    row = found["activations"][0]
    assert (row["place"], row["channels"], row["dimension"], row["fate"]) == ("layers.2", 8, -1, "replaced")
    assert "loaded" in done.stderr and "drawn" in done.stderr
    refused = called(folder, "surgery", "mine:Tokens", "bend(x)", *flags)
    assert refused.returncode == 1 and "bytes are taken for pixels" in refused.stderr
    unknown = called(folder, "surgery", "mine:Tokens", "bend(x)", "--primitives", "absent")
    assert unknown.returncode in (1, 2) and "no module 'absent'" in unknown.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("data", "check", "mine:tokens", "--no-standardise"),
        ("show", "printing0(x)", "--primitives", "prints0"),
        ("space", "info", "--primitives", "prints1"),
    ],
    ids=str,
)
def test_what_code_of_ones_own_prints_is_no_result(folder: Path, words: tuple[str, ...]) -> None:
    for n in "01":
        (folder / f"prints{n}.py").write_text(WORD.replace("NAME", f"printing{n}"))
    done = called(folder, *words, "-f", "json")
    assert done.returncode == 0 and json.loads(done.stdout), done
    assert "drawn" in done.stderr or "loaded" in done.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ('{"call": true}', "calls torch.relu in its own forward, which cannot be replaced"),
        ('{"in_place": true}', "depends on act working in place"),
        ('{"in_place": true, "kind": "SiLU"}', "write nn.SiLU() without inplace=True"),
        ('{"in_place": true, "kind": "Mine"}', "let Mine leave its input as it is"),
    ],
)
def test_what_a_search_would_refuse_is_shown_and_is_an_error(folder: Path, options: str, why: str) -> None:
    done = called(folder, "surgery", "mine:Net", "swish", "--model-kwargs", options, "-f", "json")
    assert done.returncode == 1 and why in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert why in json.loads(done.stdout)[0]["refusal"]
    launched = called(folder, "launch", "--model", "mine:Net", "--model-kwargs", options, "--pool", "inline", "-q")
    assert launched.returncode == 1 and launched.stderr.splitlines()[-1] == done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet8", "swish"], "is made with the activation at each of its sites"),
        (["mine:network", "swish"], "takes `activation` and puts it where it belongs"),
        (["mine:Nothing", "swish"], "has nothing under that name"),
        (["nowhere:Net", "swish"], "no module 'nowhere'"),
        (["mine:Net", "x +"], "expected a number"),
        (["mine:Net", "maxout"], "takes no `activation`"),
        (["mine:Net", "swish", "--match", "other"], "activations found: act (ReLU), gate (Sigmoid)"),
        (["mine:Net", "swish", "--dataset", "mnist"], "unknown dataset 'mnist'"),
        (["mine:Net", "swish", "--model-kwargs", "5"], "--model-kwargs must be a JSON object"),
        (["unknown", "swish"], "unknown model 'unknown'"),
    ],
)
def test_bad_requests_are_one_error(folder: Path, words: list[str], message: str) -> None:
    done = called(folder, "surgery", *words)
    assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_images_of_another_data_set_need_not_be_there(folder: Path) -> None:
    done = called(folder, "surgery", "mine:Net", "swish", "--dataset", "cifar10", "--data-dir", str(folder))
    assert done.returncode == 0, done.stderr


def test_match_is_stored_and_shown(folder: Path) -> None:
    settings = ["--pool", "inline", "--baselines", "none", "--sampler", "random", "--n-trials", "1", "--epochs", "1"]
    done = called(folder, "launch", "--model", "mine:Net", "--match", "a?t", "--study-name", "s", "-q", *settings)
    assert done.returncode == 0, done.stderr
    (facts,) = json.loads(called(folder, "trial", "s", "0", "-f", "json").stdout)
    assert facts["match"] == "a?t"
    done = called(folder, "launch", "--match", "act", "--study-name", "t", "-q", *settings)
    assert done.returncode == 2 and "leave it out" in done.stderr
