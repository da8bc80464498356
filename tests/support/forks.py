"""Run commands in processes of their own that start at once: they are forked from one that has imported everything.

The process that forks computes with one thread, because a child has none of its parent's other threads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 120.0  # seconds that are waited for an outcome
ENDED = "ended.txt"  # a line for each training of which a driver got the outcome


class Forks:
    """Forks commands in a directory, one at a time."""

    def __init__(self, directory: Path, process: subprocess.Popen[str]) -> None:
        self.directory, self._process = directory, process

    def run(self, *args: str, kill_at: int | None = None, seconds: float = 0.0) -> int:
        """Return the exit status of a command. It is negative if the command was killed: `seconds` after `ended` has
        come to `kill_at`."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(args) + "\n")
        self._process.stdin.flush()
        child = int(self._answer())
        if kill_at is not None:
            end = time.monotonic() + LONGEST
            while self.ended < kill_at and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)  # its parent waits for it after this, so the number is still its own
        assert self._process.stdin
        self._process.stdin.write("wait\n")
        self._process.stdin.flush()
        return int(self._answer())

    @property
    def ended(self) -> int:
        """The number of trainings of which a driver got the outcome."""
        path = self.directory / ENDED
        return len(path.read_text().splitlines()) if path.exists() else 0

    def _answer(self) -> str:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise RuntimeError((self.directory / "output.txt").read_text()[-2000:])
        return line


@contextmanager
def forking(directory: Path, *first: str) -> Iterator[Forks]:
    """Start a process that forks commands. It runs the command `first` itself, which warms it up."""
    command = [sys.executable, "-m", "tests.support.forks", str(directory), *first]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        try:
            found = Forks(directory, process)
            assert found._answer() == "ready\n"
            yield found
        finally:
            process.kill()


def main(directory: Path, first: list[str]) -> None:
    """Run `first`, then fork a child for each line of standard input: a command as JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.chdir(directory)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _call(first)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _note_outcomes()
            os._exit(_call(json.loads(line)))
        print(child, file=answers, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def _call(args: list[str]) -> int:
    import torch

    import cli

    torch.set_num_threads(1)
    sys.argv = ["searcher", *args]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _note_outcomes() -> None:
    from workers.pools.base import InlinePool

    wait = InlinePool.wait

    def noting(pool: InlinePool, timeout_seconds: float) -> object:
        found = wait(pool, timeout_seconds)
        with Path(ENDED).open("a") as file:
            file.write("".join(f"{job.number}\n" for job, outcome in found if not job.describe))
        return found

    InlinePool.wait = noting  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
