"""`searcher task check`: check whether a user's own task is ready for a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from searcher import SearcherError, UsageError
from searcher.commands.console import Format, Output, loading, no_result, print_rows, print_text
from searcher.commands.options import with_settings
from searcher.display import metrics_line
from searcher.observe import logs
from searcher.settings.config import Config
from searcher.settings.declared import declared

if TYPE_CHECKING:
    from searcher.records import StudyTask
    from workers.tasks.checking import Check

app = typer.Typer(help="Tasks of your own: training functions that judge the candidates.", no_args_is_help=True)


class TaskNotReady(SearcherError):
    """A user's own task does not keep its contract."""


@app.callback()
def _task() -> None:
    """Tasks of your own: training functions that judge the candidates."""


@app.command()
@with_settings(setting for setting in declared(Config) if setting.name in ("task_kwargs", "objective", "direction"))
def check(
    task: Annotated[str, typer.Argument(help="The function: package.module:function or path/to/file.py:function.")],
    expression: Annotated[str, typer.Option(help="The activation to train with: a known name, or a formula.")] = "relu",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 2, help="Seed of the first training.")] = 0,
    output: Output = Format.table,
    **given: Any,
) -> None:
    """Train a task three times with one activation, and show what a search would see. Exit status 1 means not ready."""
    with loading():
        import torch

        from searcher.settings.loading import from_flags, load
        from searcher.settings.plan import study_task, task_config_of
        from workers.tasks import checking, own
        from workers.tasks.base import IMAGES

    settings = load(None, from_flags({"task": task, **given}))
    if settings.training.task == IMAGES:
        raise UsageError("the task `images` is this program's own; give yours, as in: searcher task check my.py:train")
    own.check_name(settings.training.task)
    torch.set_num_threads(1)  # as a worker has
    with no_result(), logs.waiting(f"training {task} three times"):
        found = checking.check(task_config_of(settings), _text_of(expression), seed)
    ranked = study_task(settings, found.declared)
    if output is Format.table:
        rows = _lines(found, ranked)
        print_rows([{"": key, " ": value} for key, value in rows.items() if value not in ("", ())], output)
        _, _, traceback = found.first.outcome.reason.partition("\n")
        if traceback:
            print_text(traceback)
    else:
        print_rows([_facts(found, ranked)], output)
    if problems := found.problems():
        raise TaskNotReady(f"task {task} is not ready: {'; '.join(problems)}")


def _text_of(expression: str) -> str:
    """Return a known function or a formula as canonical text."""
    from search_space import baseline, parse

    return str(
        parse(baseline(expression).expression if expression.isidentifier() and expression != "x" else expression)
    )


def _facts(found: Check, ranked: StudyTask) -> dict[str, Any]:
    """Return the results of the check as plain values."""
    outcome, declared = found.first.outcome, found.declared
    return {
        "task": ranked.config.task,
        "ready": not found.problems(),
        "problems": found.problems(),
        "remarks": found.remarks(),
        "metrics": [{"name": m.name, "direction": str(m.direction), "unit": m.unit} for m in declared.metrics],
        "objective": ranked.objective.name,
        "options": dict(declared.options),
        "steps_declared": declared.steps,
        "steps_reported": found.last_step,
        "verdict": str(outcome.verdict),
        "reason": outcome.reason,
        "result": dict(outcome.metrics),
        "seconds": round(found.seconds, 3),
        "parameters": outcome.parameters,
        "device": found.device.type,
        "same_seed_same_result": found.same_seed_is_equal,
        "other_seed_same_result": found.other_seed_is_equal,
        "activations_made": found.first.made,
        "activations_called": len(found.first.shapes),
        "first_inputs": [list(shape) for shape in found.first.shapes],
    }


def _lines(found: Check, ranked: StudyTask) -> dict[str, Any]:
    """Return the results of the check in words, by label."""
    from workers.tasks.checking import described

    outcome, declared, made = found.first.outcome, found.declared, found.first.made
    reported = "none reported" if found.last_step is None else f"the last one reported is {found.last_step}"
    same, other = (
        {None: "", True: "gives the same result to the last bit", False: "gives another result"}[equal]
        for equal in (found.same_seed_is_equal, found.other_seed_is_equal)
    )
    return {
        "task": ranked.config.task,
        "metrics": tuple(map(described, declared.metrics)),
        "objective": ranked.objective.name,
        "options": ", ".join(f"{name} = {value!r}" for name, value in declared.options.items()) or "none",
        "steps": f"{reported}, {declared.steps or 'none'} declared",
        "result": f"{outcome.verdict} {metrics_line(outcome.metrics)}".strip(),
        "seconds": f"{found.seconds:.2f} on {found.device.type}",
        "parameters": "" if outcome.parameters is None else str(outcome.parameters),
        "same seed": same,
        "another seed": other,
        "activation": f"{made} made, {len(found.first.shapes)} called" if found.again else "",
        "first inputs": tuple(map(str, found.first.shapes[:20])),
        "remarks": tuple(found.remarks()),
        "ready": "no" if found.problems() else "yes",
    }
