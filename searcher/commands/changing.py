"""`searcher delete`, `rename` and `retry` change a study that nobody drives."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from searcher import DEFAULT_STORAGE, UsageError
from searcher.commands.console import Storage, StudyName, loading, opened, print_text
from searcher.commands.running import say_waiting

if TYPE_CHECKING:
    from searcher.records import Study
    from searcher.store.store import Store

app = typer.Typer()

NUMBERS = 20  # trials that a message names


@app.command()
def delete(
    name: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a study with all its trials and learning curves, after asking."""
    with loading():
        from searcher.driver import changing

    with opened(storage) as store:
        study = _undriven(store, name)
        if not yes:
            _confirm(store, study)
        changing.delete(store, study)
    print_text(f"study {name!r} is deleted")


def _undriven(store: Store, name: str) -> Study:
    """Return a study that nobody drives. Say so if the lease of a process that may be dead is waited for."""
    from searcher.driver import changing

    study = store.study(name)
    changing.check_undriven(store, study, say_waiting)
    return study


def _confirm(store: Store, study: Study) -> None:
    """Say what would be lost, and ask. Exit with 1 if the answer is no."""
    from searcher.store.changing import confirmations_of

    lost = f"study {study.name!r} with its {store.size(study)} trials, of {study.created_at:%Y-%m-%d}"
    stays = ", ".join(map(repr, confirmations_of(store, study)))
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise UsageError(f"this would delete {lost}; to do it without being asked: --yes")
    print_text(f"This deletes {lost}." + (f" Its confirmations stay: {stays}." if stays else ""), error=True)
    if not typer.confirm("Delete it?", err=True):
        raise typer.Exit(1)


@app.command()
def rename(
    old: StudyName,
    new: Annotated[str, typer.Argument(help="Its new name.")],
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Give a study another name."""
    with loading():
        from searcher.driver import changing

    with opened(storage) as store:
        changing.rename(store, _undriven(store, old), new)
        print_text(f"study {old!r} is now {new!r}. Next: searcher status {store.typed(new)}")


@app.command()
def retry(name: StudyName, storage: Storage = DEFAULT_STORAGE) -> None:
    """Let the FAILED trials of a study wait again; a resume then trains them."""
    with loading():
        from searcher.driver import changing

    with opened(storage) as store:
        typed = store.typed(name)
        found = changing.retry(store, _undriven(store, name))
        if found.kept:
            print_text(
                f"{_trials([trial.number for trial in found.kept])} stay FAILED: the confirmation has chosen learning "
                "rates or dropped functions without them. To train them, make another confirmation"
            )
        if found.waiting:
            print_text(
                f"{_trials([trial.number for trial in found.waiting])} wait to run once more. Next: searcher resume "
                f"{typed}"
            )
        elif not found.kept:
            print_text(f"no trial of study {name!r} has failed; nothing was changed. See: searcher status {typed}")


def _trials(numbers: list[int]) -> str:
    more = f" and {len(numbers) - NUMBERS} more" if len(numbers) > NUMBERS else ""
    return f"{len(numbers)} trial{'s' * (len(numbers) != 1)} ({', '.join(map(str, numbers[:NUMBERS]))}{more})"
