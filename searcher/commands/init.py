"""`searcher init` writes a first experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from searcher import UsageError
from searcher.commands import completion
from searcher.commands.console import print_text, write_file
from searcher.display import shown

app = typer.Typer()


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="The experiment file to write.")] = Path("experiment.toml"),
    task: Annotated[
        str,
        typer.Option(
            help="What judges a function: images, or FILE.py:function. If the file is not there, it is written too.",
            autocompletion=completion.among(("images", "my_task.py:train")),
        ),
    ] = "images",
    force: Annotated[bool, typer.Option("--force", help="Replace the experiment file if it exists.")] = False,
) -> None:
    """Write an experiment file with all settings, explained, that can be launched as it is."""
    from searcher.settings import template
    from workers.tasks.base import IMAGES

    if file.suffix != ".toml":
        raise UsageError(f"an experiment file ends in .toml, not {file.name!r}; as in: searcher init experiment.toml")
    script, colon, function = task.rpartition(":")
    if task != IMAGES and not (colon and script and function.isidentifier()):
        raise UsageError(f"--task is images, FILE.py:function or package.module:function, not {task!r}")
    new = script.endswith(".py") and not Path(script).exists()
    if new and function != "train":
        raise UsageError(f"there is no file {script}; to let it be written, call the function train: {script}:train")
    write_file(file, template.experiment(task, shown(str(file))).encode(), force)
    print_text(f"{file} is written")
    if new:
        write_file(Path(script), template.TASK.format(name=task).encode(), force=False)
        print_text(f"{script} is written: replace its training by yours")
    if task != IMAGES:
        print_text(f"Next: searcher task check {task}")
    print_text(f"{'Next: ' if task == IMAGES else '      '}searcher launch {file}")
