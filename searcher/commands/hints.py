"""Answer an option that a command does not have with the option that the user means."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Command, Context

# What people type from habit, by what it is called here. Words are written without dashes in front, with dashes inside.
HABITS: dict[str, tuple[str, ...]] = {
    "--learning-rate": ("lr", "learningrate", "eta", "rate", "max-lr"),
    "--n-trials": ("n", "trials", "num-trials", "number-of-trials", "max-trials", "budget", "num-samples"),
    "--study-name": ("name", "study", "experiment", "experiment-name", "run-name"),
    "--gpus-per-worker": ("gpus", "gpu", "num-gpus", "n-gpus", "gpus-per-trial"),
    "--workers": ("w", "j", "jobs", "n-jobs", "num-workers", "n-workers", "parallel", "cpus"),
    "--threads": ("t", "num-threads", "n-threads"),
    "--batch-size": ("b", "bs", "batch", "batchsize"),
    "--storage": ("s", "db", "database", "db-url", "url"),
    "--dataset": ("d", "data", "data-set", "ds"),
    "--data-dir": ("data-path", "data-root", "data-folder", "root"),
    "--epochs": ("e", "n-epochs", "num-epochs", "max-epochs"),
    "--steps": ("max-steps", "n-steps", "num-steps", "iterations"),
    "--weight-decay": ("wd", "decay", "l2"),
    "--clip-norm": ("clip", "grad-clip", "max-grad-norm", "gradient-clip-val"),
    "--model": ("m", "net", "network", "arch", "architecture"),
    "--seed": ("random-seed", "random-state"),
    "--seeds": ("n-seeds", "num-seeds", "repeats"),
    "--sampler": ("algorithm", "optimizer", "strategy", "searcher"),
    "--sampler-kwargs": ("sampler-args", "sampler-options"),
    "--objective": ("metric", "target", "monitor", "goal"),
    "--direction": ("mode", "minimize", "maximize"),
    "--pruner": ("prune", "scheduler", "early-stopping"),
    "--timeout": ("time", "max-time", "time-limit", "time-budget"),
    "--trial-timeout": ("timeout-per-trial", "max-trial-time"),
    "--max-retries": ("retries", "retry"),
    "--pool": ("backend", "executor"),
    "--address": ("ray-address", "cluster", "ray"),
    "--checkpoint-dir": ("checkpoints", "ckpt-dir", "save-dir"),
    "--space": ("search-space",),
    "--units": ("core-units", "n-units"),
    "--limit": ("k", "top", "first", "head", "n"),
    "--format": ("fmt", "json", "csv", "yaml", "markdown", "out-format"),
    "--output": ("out", "file", "save", "outfile", "to-file"),
    "--force": ("overwrite", "replace", "f"),
    "--yes": ("y", "no-confirm", "assume-yes"),
    "--quiet": ("silent",),
    "--skip-if-exists": ("exist-ok", "load-if-exists", "continue", "resume-if-exists"),
    "--top": ("k", "limit", "best"),
    "--expression": ("function", "functions", "formula", "activation"),
    "--to": ("target", "language", "framework"),
    "--wide": ("full", "no-trunc", "whole", "all-columns"),
}
# What is meant by an option whose value is an argument of the command.
BARE = {"--study-name": "the name of the study is typed without an option"}


class Commands(TyperGroup):
    """The commands of the program. An option that a command does not have is answered with the one that is meant."""

    def invoke(self, ctx: Context) -> Any:
        from typer._click.exceptions import NoSuchOption

        try:
            return super().invoke(ctx)
        except NoSuchOption as error:
            if error.ctx is not None:
                error.message = f"No such option: {error.option_name}{hint(error.option_name, error.ctx)}"
                error.possibilities = None
            raise


def hint(typed: str, ctx: Context) -> str:
    """Return what follows `No such option: TYPED` in a message; empty if nothing is known.

    Args:
        typed: the option as it was typed.
        ctx: the context of the command that does not have it.
    """
    own, word = options(ctx.command, ctx), typed.lstrip("-").replace("_", "-").lower()
    meant = [f"--{word}", *(flag for flag, words in HABITS.items() if word in words)]
    for flag in meant:
        if flag in own:
            return f"; it is {flag}"
    for flag in meant:
        if flag in BARE and _takes_study(ctx.command):
            return f"; {BARE[flag]}"
    for flag in meant:
        if having := [name for name, there in _all_options(ctx) if flag in there and there is not own]:
            return f"; {', '.join(having[:3])} {'has' if len(having) == 1 else 'have'} {flag}"
    near = get_close_matches(f"--{word}", own, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _takes_study(command: Command) -> bool:
    """Return True if an argument of the command is the name of a study."""
    helps = [getattr(one, "help", None) or "" for one in command.params if one.param_type_name == "argument"]
    return any("study" in text or "confirmation" in text for text in helps)


def options(command: Command, ctx: Context) -> list[str]:
    """Return the options of a command as one types them."""
    return [name for one in command.get_params(ctx) for name in (*one.opts, *one.secondary_opts) if name[0] == "-"]


def _all_options(ctx: Context) -> Iterator[tuple[str, list[str]]]:
    """Yield each command below the root, as one types it, with its options."""
    yield from _below(ctx.find_root().command, ctx, ())


def _below(command: Command, ctx: Context, path: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    if isinstance(command, TyperGroup):
        for name, one in command.commands.items():
            yield from _below(one, ctx, (*path, name))
    else:
        yield " ".join(path), options(command, ctx)
