"""Write an experiment file with all settings, from their declarations: the first file of a new user."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from searcher.settings.config import Config
from searcher.settings.declared import Declared, declared
from workers.tasks.base import IMAGES
from workers.tasks.images.config import ImageConfig

WIDTH = 80
# What the file sets, beside the task. All other settings stand there as comments, with their defaults.
CHOSEN = ("dataset", "model", "sampler", "n_trials", "baselines")
TITLES = {
    "": "The study",
    "training": "Training: what judges a function",
    "search": "Search: what is proposed",
    "run": "Run: how it is run; all of this may change when the study is resumed",
}
TASK = '''"""A task of your own: what judges a function. Replace the body of `train` by your training.

    searcher task check {name}     trains it three times, and says what it measures
"""

import torch
from torch import nn


def train(activation, report, *, width=16):
    """Fit a sine. `width` is an option: it is set in [task_kwargs] of the experiment file."""
    x = torch.linspace(-2, 2, 64)[:, None]
    net = nn.Sequential(nn.Linear(1, width), activation(width), nn.Linear(width, 1))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(1, 51):
        loss = (net(x) - torch.sin(3 * x)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step, val_mse=loss.item())
    return {{"val_mse": loss.item()}}


train.metrics = {{"val_mse": "minimize"}}
train.steps = 50
'''


def experiment(task: str, file: str) -> str:
    """Return the text of an experiment file.

    Args:
        task: the task, as for `--task`.
        file: the name of the file, which its first line says how to launch.
    """
    lines = [f"# searcher launch {file}", "#", "# Lines that begin with # are defaults; remove the # to change one."]
    others = {one.name for one in declared(ImageConfig)} if task != IMAGES else {"task_kwargs"}
    settings = [one for one in declared(Config) if one.name not in others]
    tables: list[str] = []
    section = None
    for one in settings:
        if one.fields or one.kind is dict:
            tables += ["", *_table(one)]
            continue
        if one.section != section:
            section = one.section
            lines += ["", f"# {TITLES[section]}", f"# {'-' * len(TITLES[section])}"]
        value = task if one.name == "task" else one.default
        lines += _lines(one, value, chosen=one.name in CHOSEN or one.name == "task")
    heading = ["", "# Tables: these stand at the end of the file", "# " + "-" * 43]
    return "\n".join([*lines, *heading, *tables, ""])


def _lines(setting: Declared, value: Any, chosen: bool) -> Iterator[str]:
    """Yield the comment of a setting and its line, which is a comment too unless it is chosen."""
    yield from textwrap.wrap(setting.facts.help, WIDTH, initial_indent="# ", subsequent_indent="# ")
    if setting.facts.one_of:
        yield f"# One of: {', '.join(filter(None, map(str, setting.facts.one_of)))}"
    yield f"{'' if chosen else '# '}{setting.name} = {_toml(value)}".rstrip()


def _table(setting: Declared) -> Iterator[str]:
    if setting.fields:
        yield from textwrap.wrap(setting.facts.help, WIDTH, initial_indent="# ", subsequent_indent="# ")
        yield f"[{setting.name}]"
        for field in setting.fields:
            yield from _lines(field, field.default, chosen=field.name == "name")
        return
    yield f"# {setting.facts.help}"
    yield f"# [{setting.name}]"
    for name, value in json.loads(setting.facts.example or "{}").items():
        yield f"# {name} = {_toml(value)}"


def _toml(value: Any) -> str:
    """Return a plain value as TOML writes it; empty for None, which TOML does not have."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)  # the same for texts, numbers and lists
