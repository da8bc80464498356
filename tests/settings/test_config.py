"""Settings: defaults, preset, file and flags make one config; recipes by name and by field."""

from __future__ import annotations

import codecs
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from searcher.settings import loading
from searcher.settings.checking import check_on_resume
from searcher.settings.config import Config, ConfigError
from tests.support.commands import Cli
from workers.tasks.images.config import Recipe
from workers.tasks.images.recipes import RECIPES


@pytest.mark.parametrize(
    ("content", "flags", "expected"),
    [
        ("", {}, Recipe()),
        ('recipe = "wrn"', {}, RECIPES["wrn"]),
        ('[recipe]\nname = "he2016"\ncrop = 2', {"steps": 5}, replace(RECIPES["he2016"], crop=2, steps=5)),
        ('recipe = "he2016"', {"epochs": 3}, replace(RECIPES["he2016"], epochs=3, steps=0)),
        ('[recipe]\nname = "he2016"\ndrops = [1, 2.5]', {}, replace(RECIPES["he2016"], drops=(1.0, 2.5))),
        ("[recipe]\nepochs = 3", {"recipe": "densenet"}, RECIPES["densenet"]),
        ("", {"recipe_kwargs": '{"flip": true}', "epochs": 2}, Recipe(epochs=2, flip=True)),
    ],
)
def test_recipes_by_name_and_field(tmp_path: Path, content: str, flags: dict[str, Any], expected: Recipe) -> None:
    file = tmp_path / "e.toml"
    file.write_text(content)
    settings = loading.load(file, loading.from_flags(flags))
    assert settings.training.images.recipe == expected
    again = loading.load(None, json.loads(json.dumps(settings.to_dict())))
    assert again.training.images.recipe == expected, "stored and read again"


def test_presets_are_what_they_say() -> None:
    assert loading.load(None, {}, "quick") == Config()
    paper = loading.load(None, {}, "paper")
    stored = loading.load(None, {"units": 1, "width": 3}).to_dict()
    asked = loading.load(None, {"n_trials": 7}, "paper", before=stored)
    assert (asked.search.units, asked.training.images.width, asked.search.n_trials) == (2, 16, 7)
    assert (paper.search.units, paper.search.n_trials) == (2, 20_000)
    assert (paper.training.images.recipe, paper.training.images.dataset) == (RECIPES["he2016"], "cifar10")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("he2015", "unknown recipe 'he2015'; did you mean 'he2016'"),
        (3, "must be a name or a table, as in: [recipe] epochs = 8; not 3"),
        ({"name": "quik"}, "did you mean 'quick'"),
        ({"crops": 1}, "unknown setting 'crops' in recipe; did you mean 'crop'"),
        ({"crop": -1}, "recipe.crop must be at least 0, not -1"),
        ({"flip": 1}, "recipe.flip must be true or false, not 1"),
        ({"drops": ["x"]}, "recipe.drops must be a number, not 'x'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"precision": "float16"}, "accepted: auto, bfloat16, float32"),
        ({"label_smoothing": 1}, "recipe.label_smoothing must be from 0 to 0.999999, not 1"),
    ],
)
def test_a_wrong_recipe_is_refused(recipe: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loading.load(None, {"recipe": recipe})
    assert message in str(caught.value)


EXPERIMENT = 'n_trials = 7\n\n[recipe]\nname = "quick"  # \u00fc\u00f1\u4e2d\nepochs = 3\n'


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_experiment_file_in_utf8_is_read(tmp_path: Path, mark: bytes, newline: str) -> None:
    """Row D6: with a byte-order mark, as editors on Windows write it, and without."""
    file = tmp_path / "e.toml"
    file.write_bytes(mark + EXPERIMENT.replace("\n", newline).encode())
    settings = loading.load(file, {})
    assert (settings.search.n_trials, settings.training.images.recipe.epochs) == (7, 3)
    file.write_bytes(mark)
    assert loading.load(file, {}) == Config()
    file.write_bytes(mark + mark + b"n_trials = 7")
    assert loading.load(file, {}).search.n_trials == 7
    file.write_bytes(mark + b"n_trials = 7\nseed = 3\n" + codecs.BOM_UTF8 + b"epochs = 3\n")
    with pytest.raises(ConfigError, match="line 3 begins with a byte-order mark"):
        loading.load(file, {})


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("utf-16", "UTF-16; save it as UTF-8"),
        ("utf-16-le", "UTF-16, or is no text; save it as UTF-8"),
        ("utf-16-be", "UTF-16, or is no text"),
        ("utf-32", "UTF-32; save it as UTF-8"),
        ("utf-32-le", "UTF-32, or is no text"),
        ("utf-32-be", "UTF-32, or is no text"),
        ("latin-1", "not UTF-8 but perhaps Latin-1 or Windows-1252, by the byte 0xfc in line 4; save it as UTF-8"),
        ("cp1252", "not UTF-8 but perhaps Latin-1 or Windows-1252, by the byte 0xfc in line 4"),
        ("gb18030", "not UTF-8"),
        ("utf-16 and big", "UTF-16; save it as UTF-8"),
    ],
)
def test_an_experiment_file_in_another_encoding_is_refused_by_its_name(
    tmp_path: Path, cli: Cli, encoding: str, named: str
) -> None:
    """Row D6: each encoding that an editor may have chosen, with a byte-order mark and without, in one line. It is the
    one text file that a person gives; JSON and lists that come from files are in the tests below."""
    text = EXPERIMENT if encoding != "latin-1" else EXPERIMENT.replace("\u4e2d", "")
    text = text.replace("\u4e2d", "") if encoding == "cp1252" else text
    content = codecs.BOM_UTF16_BE + text.encode("utf-16-be") if " and big" in encoding else text.encode(encoding)
    (tmp_path / "e.toml").write_bytes(content)
    done = cli("launch", "e.toml")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("searcher: the experiment file e.toml is not TOML: its encoding is ")
    assert f"its encoding is {named}" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = " + "[" * 100_000, "is not TOML: "),
        ("model_kwargs = {a = " + "[" * 60 + "]" * 60 + "}", "nested more than 50 deep"),
        ("a." * 60 + "b = 1", "nested more than 50 deep"),
        ("n_trials = " + "9" * 5000, "is not TOML: "),
        ("# " + "x" * (1 << 20), "larger than 1,048,576 bytes"),
    ],
)
def test_an_experiment_file_of_unusual_content(tmp_path: Path, cli: Cli, content: str, message: str) -> None:
    """Row D6: what else a text file may have that is no experiment."""
    (tmp_path / "e.toml").write_text(content)
    for file in ("e.toml", "/dev/zero"):
        done = cli("launch", file)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert (message if file == "e.toml" else "larger than") in done.stderr


def test_json_and_lists_from_files_with_a_mark() -> None:
    """Row D6: `--model-kwargs "$(cat FILE)"` and `--unary "$(cat FILE)"` pass the mark of the file on."""
    given = loading.from_flags({"model_kwargs": '\ufeff{"depth": 14}', "unary": "\ufeffx,neg"})
    assert given["model_kwargs"] == {"depth": 14} and loading.load(None, given).search.unary == ("x", "neg")
    for text in ('{"a": ' * 60 + "1" + "}" * 60, "[" * 100_000):
        with pytest.raises(ConfigError, match="--model-kwargs is not JSON"):
            loading.from_flags({"model_kwargs": text})


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_options_must_be_a_json_object(text: str) -> None:
    for what in ("sampler", "recipe"):
        with pytest.raises(ConfigError, match=f"--{what}-kwargs"):
            loading.from_flags({f"{what}_kwargs": text})


def test_paths_of_data_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = loading.load(None, {"dataset": "npz:mine.npz", "data_dir": "files"})
    assert settings.training.images.dataset == f"npz:{tmp_path}/mine.npz"
    assert settings.run.data_dir == f"{tmp_path}/files"
    assert loading.load(None, {"dataset": "a.b:c"}).training.images.dataset == "a.b:c"


TOO_MUCH = {
    **dict.fromkeys(("timeout", "trial_timeout", "checkpoint_seconds", "learning_rate", "weight_decay"), 10**12),
    **dict.fromkeys(("units", "limit_train", "limit_val", "width", "max_retries", "workers", "seed"), 10**11),
    **dict.fromkeys(("epochs", "steps", "batch_size", "clip_norm", "gpus_per_worker", "crop", "cutout"), 10**10),
    "threads": 10**11,
}


@pytest.mark.parametrize("name", TOO_MUCH)
@pytest.mark.parametrize("factor", [1, 10**30, 10**4000])
def test_every_size_has_a_bound(name: str, factor: int) -> None:
    """Row R13: `--threads 1000000`. Covers every other setting that is a number, and numbers that no float holds."""
    recipe = {"epochs", "steps", "batch_size", "learning_rate", "weight_decay", "clip_norm", "crop", "cutout"}
    value = {name: TOO_MUCH[name] * factor}
    with pytest.raises(ConfigError, match=r"must be (at most|from)") as caught:
        loading.load(None, {"recipe": value} if name in recipe else value)
    if factor < 10**100:
        assert str(value[name]) in str(caught.value), "the bad value is said"
    assert str(2**63 - 1) not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("value", ["0x{}", "[0x{}]", "{{a = 0x{}}}"])
@pytest.mark.parametrize("name", ["model_kwargs", "baselines", "dataset", "recipe.name", "recipe.drops", "seed"])
def test_numbers_that_python_does_not_write_are_refused(tmp_path: Path, name: str, value: str) -> None:
    """Row R12: TOML takes hexadecimal numbers of any length; Python writes none of more than 4,300 decimal digits."""
    file = tmp_path / "e.toml"
    file.write_text(f"{name} = {value.format('f' * 9000)}")
    with pytest.raises(ConfigError) as caught:
        loading.load(file, {})
    assert str(file) in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "beyond",
    [{"width": 2**15}, {"epochs": 10**7}, {"limit_train": 2**40}, {"study_name": "a\nb"}, {"study_name": "a" * 300}],
    ids=str,
)
def test_what_a_study_has_stays_accepted(beyond: dict[str, Any]) -> None:
    """Row R13: a bound is for new settings. A study of an older version that lies beyond one must be able to go on."""
    given = {"recipe": beyond} if "epochs" in beyond else beyond
    with pytest.raises(ConfigError):
        loading.load(None, given)
    stored = {**Config().to_dict(), **beyond} if "epochs" not in beyond else {**Config().to_dict(), "recipe": beyond}
    asked = loading.load(None, {"n_trials": 7}, before=stored)
    assert asked.search.n_trials == 7 and asked.study_name == stored["study_name"]
    assert asked.training.images.width == stored["width"]
    with pytest.raises(ConfigError, match="must be"):
        loading.load(None, {"width": 10**5, "study_name": "a\tb"}, before=stored)


def test_how_a_study_is_run_keeps_its_bounds() -> None:
    """Row R13: a stored `threads` of a million is refused until another is given."""
    stored = {**Config().to_dict(), "threads": 10**6}
    with pytest.raises(ConfigError, match="--threads must be at most 1024, not 1000000; give another"):
        check_on_resume(loading.load(None, {}, before=stored))
    check_on_resume(loading.load(None, {"threads": 2}, before=stored))


DEEP = 5_000


@pytest.mark.parametrize(
    "text",
    [
        f"baselines = {'[' * DEEP}{']' * DEEP}",
        f"model_kwargs.{'a.' * DEEP}b = 1",
        f"[model_kwargs]\nx = {'{a=' * DEEP}1{'}' * DEEP}",
        f"[recipe]\ndrops = {'[' * 300}{']' * 300}",
        f"[{'model_kwargs.' + 'a.' * 300}b]",
        f"seed = {'9' * 5000}",
        "[model_kwargs]\nday = 1979-05-27",
        f"[model_kwargs]\nx = {'9' * 400}",
    ],
    ids=["lists", "dotted keys", "tables", "lists in a recipe", "headers", "digits", "a date", "a large number"],
)
def test_what_no_database_holds_is_refused(tmp_path: Path, text: str) -> None:
    """Row R12: deep TOML. Covers the same in JSON below, and values that JSON does not have."""
    file = tmp_path / "e.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        loading.load(file, {})
    assert str(file) in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("depth", [51, 300, 900, DEEP])
@pytest.mark.parametrize("what", ["model", "sampler", "recipe"])
def test_deep_json_is_refused(what: str, depth: int) -> None:
    """Row R12: deep JSON, whether Python's parser takes it or not."""
    name = "drops" if what == "recipe" else "a"
    text = f'{{"{name}": {"[" * depth}{"]" * depth}}}'
    with pytest.raises(ConfigError) as caught:
        loading.load(None, loading.from_flags({f"{what}_kwargs": text}))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"task_kwargs": {"width": 3}}, "--task-kwargs are options of a task of your own; name it with --task"),
        ({"task": "my.py:train", "dataset": "cifar10"}, "--dataset is a setting of image trainings"),
        ({"task": "my.py:train", "recipe": {"epochs": 3}}, "--recipe is a setting of image trainings"),
        ({"direction": "up"}, "unknown direction 'up'; accepted: minimize, maximize$"),
    ],
)
def test_a_setting_of_another_task_is_refused(flags: dict[str, Any], message: str) -> None:
    """It would have no effect. Seen to fail: the search ran without a word."""
    with pytest.raises(ConfigError, match=message):
        loading.load(None, flags)
