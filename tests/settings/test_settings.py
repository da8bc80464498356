"""Every setting is declared once. Its flag, its key in a file, its keyword in Python, the checks, the stored form and
the documentation agree with the declaration."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from cli import app
from searcher.commands.options import SectionedCommand, with_settings
from searcher.settings import loading
from searcher.settings.checking import check
from searcher.settings.config import Config, ConfigError, RunSettings, differences
from searcher.settings.declared import Declared, declared, keywords, values
from tests.support import ROOT
from tests.support.architecture import SOURCES
from tests.support.commands import called
from workers.settings import setting

SETTINGS = [one for one, _ in values(Config())]  # with the fields of the recipe in place of the recipe
IDS = [one.key for one in SETTINGS]
SECTIONS = {"Training", "Search", "Run"}
# Options of `launch` and `resume` that are no settings of a study.
OTHERS = {"--storage", "--metrics-port", "--metrics-host", "--quiet", "--help"}
# What a table of the document says where the default is an empty text, list or table, or None.
WORDS = {"none", "all", "not set", "made up", "the task's", "the same as `seed`"}
FOREIGN = {"--always", "--dirty", "--exclude", "--abbrev", "--head"}  # flags of git and ray

TEXTS = {
    "task": "my_package.tasks:train",
    "objective": "val_acc",
    "recipe.name": "wrn",
    "dataset": "cifar10",
    "data_dir": "/a/folder",
    "checkpoint_dir": "/a/folder",
}


def other(one: Declared) -> Any:
    """Return an accepted value that is not the default."""
    if one.facts.one_of:
        return next(choice for choice in one.facts.one_of if choice not in ("", one.default))
    if one.kind is bool:
        return not one.default
    if one.kind is int:
        return (one.default or 0) + 1
    if one.kind is float:
        return one.default / 2 + 0.25
    if one.kind is tuple:
        return ("a", "b") if str in get_args(one.hint) else (1.5, 2.0)
    if one.key == "recipe.optimizer_kwargs":
        return {"dampening": 0.5}
    return {"a": 1} if one.kind is dict else TEXTS.get(one.key, "another")


def written(one: Declared, value: Any) -> str:
    """Return a line of an experiment file."""
    if isinstance(value, dict):
        inner = ", ".join(f"{name} = {json.dumps(item)}" for name, item in value.items())
        return f"{one.key} = {{{inner}}}"
    return f"{one.key} = {json.dumps(value)}"


def flags(one: Declared, value: Any) -> list[str]:
    """Return the words on the command line; through JSON if the setting has no flag but its table has."""
    if not one.flag:
        assert one.table
        return (
            [f"--{one.table}", value]
            if one.name == "name"
            else [f"--{one.table}-kwargs", json.dumps({one.name: value})]
        )
    if one.kind is bool:
        return [one.flag if value else f"--no-{one.flag[2:]}"]
    if one.kind is tuple:
        return [one.flag, ",".join(value)]
    return [one.flag, json.dumps(value) if one.kind is dict else str(value)]


def parsed(settings: Sequence[Declared], words: Sequence[str]) -> dict[str, Any]:
    """Return what a command with these settings is given."""
    found: list[dict[str, Any]] = []
    probing = typer.Typer()

    @probing.command(cls=SectionedCommand)
    @with_settings(settings)
    def probe(**given: Any) -> None:
        found.append(given)

    done = CliRunner().invoke(probing, words)
    assert done.exit_code == 0, done.output
    return found[0]


def value_of(config: Config, one: Declared) -> Any:
    return next(value for each, value in values(config) if each.key == one.key)


def needs_a_task(one: Declared) -> dict[str, str]:
    return {"task": TEXTS["task"]} if one.name == "task_kwargs" else {}


@cache
def help_of(command: str) -> dict[str, str]:
    """Return the options in the help of a command, each with the heading that it is under."""
    heading, found = "", {}
    for line in called(ROOT, command, "--help").stdout.splitlines():
        if title := re.fullmatch(r"(\w+):", line):
            heading = title[1]
        if option := re.match(r"  (?:-\w, )?(--[a-z-]+)( / --no-[a-z-]+)?", line):
            found[option[1]] = heading
            if option[2]:
                assert option[2] == f" / --no-{option[1][2:]}"
    return found


def test_names_are_unique() -> None:
    names = [one.name for one in keywords(Config)]
    assert len(names) == len(set(names)) and not {one.name for one in declared(Config)} & {"training", "search", "run"}


@pytest.mark.parametrize(
    ("command", "more"), [("launch", {"--preset", "--skip-if-exists"}), ("resume", {"--trust-code"})]
)
def test_the_flags_of_a_command_are_those_that_are_declared(command: str, more: set[str]) -> None:
    resumed = command == "resume"
    expected = {
        one.flag: one.section.capitalize() or "Options"
        for one in keywords(Config)
        if one.flag and (one.facts.on_resume or not resumed)
    }
    shown = help_of(command)
    assert shown == expected | dict.fromkeys(OTHERS | more, "Options")
    assert set(shown.values()) == {"Options", *(SECTIONS - {"Training"} if resumed else SECTIONS)}


def test_what_may_change_on_resume_is_how_a_study_is_run_its_length_and_its_pruner() -> None:
    free = {one.name for one in SETTINGS if one.facts.on_resume}
    assert free == {one.name for one in declared(RunSettings)} | {"n_trials", "pruner"}


@pytest.mark.parametrize("one", SETTINGS, ids=IDS)
def test_a_setting_is_the_same_in_file_flag_keyword_and_database(one: Declared, tmp_path: Path) -> None:
    value, rest = other(one), needs_a_task(one)
    file = tmp_path / "e.toml"
    file.write_text("\n".join([*(f"{name} = {text!r}" for name, text in rest.items()), written(one, value)]))
    config = loading.load(file, {})
    assert value_of(config, one) == value != one.default
    if one.flag or one.table:
        given = parsed(keywords(Config), flags(one, value))
        assert loading.load(None, loading.from_flags(given | rest)) == config
    keyword = {"recipe": value} if one.key == "recipe.name" else {one.name: value}
    assert loading.load(None, loading.from_keywords(keyword | rest)) == config

    stored = json.loads(json.dumps(config.to_dict()))
    flat = stored["recipe"] if one.table else stored
    assert flat[one.name] == json.loads(json.dumps(value))
    assert loading.load(None, {}, before=stored) == config
    changed = {key for key, _, _ in differences(loading.load(None, rest), config)}
    kept = one.facts.on_resume or one.name == "study_name"
    assert kept is (one.key not in changed)


@pytest.mark.parametrize("one", SETTINGS, ids=IDS)
def test_a_setting_is_documented_with_its_default(one: Declared) -> None:
    text = (ROOT / "docs" / "experiments.md").read_text()
    rows = re.findall(rf"^\| `{one.name}`[^|]*\| ([^|]+) \| (.+) \|$", text, re.MULTILINE)
    default = one.default if one.default != ("all",) else "all"
    if default in ("", (), None) or default == {}:
        assert rows[0][0] in WORDS
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default).lower()
        assert rows[0][0] == (f"`{shown}`" if isinstance(default, str) else shown)
    assert len(rows) == 1


def bad_values(one: Declared) -> Iterator[Any]:
    """Yield values that the setting does not take: another type, below and above its range, none of its choices."""
    yield "x" if {one.kind, *get_args(one.hint)} & {int, float} else 3
    yield [[]]
    if one.facts.at_least is not None:
        yield one.facts.at_least - 1
    for most in (one.facts.at_most, one.facts.sensible_at_most):
        if most is not None:
            yield most + 1
    if one.facts.one_of:
        yield "neither"
    if one.kind is dict:
        yield {"a": float("nan")}
    if one.kind in (int, float):
        yield 10**30


@pytest.mark.parametrize("one", SETTINGS, ids=IDS)
def test_a_message_names_the_flag_or_the_key_of_the_bad_setting(one: Declared) -> None:
    """Seen to fail: `--checkpoint-seconds` and `--crop` were named, which are no flags."""
    for value in bad_values(one):
        nested = {one.table: {one.name: value}} if one.table else {one.name: value}
        with pytest.raises(ConfigError) as caught:
            loading.load(None, nested | needs_a_task(one))
        named = re.match(r"(?:unknown )?(--[a-z-]+|[a-z_.]+) ", str(caught.value))
        assert named and named[1] in ({one.flag, one.key} if one.flag else {one.key, one.table}), caught.value
        if named[1].startswith("--"):
            assert named[1] in help_of("launch")


def test_every_flag_that_the_program_names_exists() -> None:
    """In messages, docstrings and help. Seen to fail with a flag renamed in a message."""
    known = set(FOREIGN)
    commands = [typer.main.get_command(app)]
    while commands:
        command = commands.pop()
        known |= {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
        commands += getattr(command, "commands", {}).values()
    named = {
        (flag, path.name)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", node.value)
        if not flag.endswith("-")  # the beginning of one, completed by a value
    }
    assert len(named) > 50
    assert not {(flag, where) for flag, where in named if flag not in known}


@dataclass(frozen=True, slots=True)
class MoreRun(RunSettings):
    patience: float = setting(3.0, help="Minutes to wait.", at_least=1, on_resume=True)


@dataclass(frozen=True, slots=True)
class MoreConfig(Config):
    run: MoreRun = field(default_factory=MoreRun)


def test_a_new_setting_is_written_once() -> None:
    """One more field gives a flag with its help, a key, a check and a place in the stored form."""
    (new,) = set(IDS) ^ {one.key for one, _ in values(MoreConfig())}
    assert new == "patience"
    given = parsed(keywords(MoreConfig), ["--patience", "4.5"])
    config = loading.merged(MoreConfig(), {name: value for name, value in given.items() if value is not None})
    assert config.run.patience == 4.5 and config.to_dict() == Config().to_dict() | {"patience": 4.5}
    assert loading.merged(MoreConfig(), json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match="patience must be a number, not 'x'"):
        loading.merged(MoreConfig(), {"patience": "x"})
    with pytest.raises(ConfigError, match="--patience must be at least 1, not 0"):
        check(loading.merged(MoreConfig(), {"patience": 0}))


def test_settings_are_made_from_flat_names() -> None:
    config = Config.of(n_trials=8, width=3)
    assert (config.search.n_trials, config.training.images.width, config.run) == (8, 3, RunSettings())
    assert config.replace(n_trials=100, width=0) == Config()
    for name in ("trials", "epochs", "run"):
        with pytest.raises(TypeError, match=f"Config has no setting '{name}'"):
            Config.of(**{name: 8})
