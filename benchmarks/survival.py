"""One search through three faults, as its terminal shows them: the transcript in docs/guarantees.md.

    python -m benchmarks.survival --trials 400

A real PostgreSQL server, a real Ray with two workers, digits. A worker is killed (`kill -9`), PostgreSQL is stopped at
once and started again 30 s later, the driver is killed, and the study is resumed to its total. At the end the database
is asked whether anything is missing or there twice.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from searcher.store.database import masked
from searcher.store.store import Store
from tests.support.postgres import Server

AWAY_SECONDS = 30
COUNTS = (
    "SELECT COUNT(*) AS trials, COUNT(DISTINCT number) AS numbers, COUNT(DISTINCT finish_order) AS finished, "
    "SUM(retries) AS run_again FROM searcher_trial"
)


def say(text: str, begun: float) -> None:
    print(f"[{time.monotonic() - begun:5.1f} s] {text}", flush=True)


def searcher(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli", *arguments]


def shown(*arguments: str) -> None:
    """A command and what it prints."""
    print(f"$ searcher {' '.join(map(_quoted, arguments))}", flush=True)
    subprocess.run(searcher(*arguments), check=True)


def _quoted(argument: str) -> str:
    return f'"{argument}"' if " " in argument else argument


class Driver:
    """A search in a process of its own; what it says is passed on with the time."""

    def __init__(self, begun: float, *arguments: str) -> None:
        print(f"$ searcher {' '.join(arguments)}", flush=True)
        self._process = subprocess.Popen(
            searcher(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self._reading = threading.Thread(target=self._read, args=(begun,), daemon=True)
        self._reading.start()

    def _read(self, begun: float) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            say(line.rstrip(), begun)

    def kill_a_worker(self) -> int:
        """The process of one of its Ray workers."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        victim = next(child for child in children if " ".join(child.cmdline()).startswith("ray::Worker"))
        victim.kill()
        return int(victim.pid)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._reading.join(5)

    def wait(self) -> int:
        status = self._process.wait()
        self._reading.join(5)
        return status


def done(url: str, name: str) -> int:
    """Trials that have ended, as the database knows."""
    store = Store(url)
    try:
        return sum(n for state, n in store.studies()[-1].counts.items() if state.finished)
    finally:
        store.close()


def wait_for(url: str, name: str, trials: int) -> None:
    while done(url, name) < trials:
        time.sleep(0.5)


def main() -> None:
    reader = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    reader.add_argument("--trials", type=int, default=400)
    trials = reader.parse_args().trials
    with tempfile.TemporaryDirectory(prefix="survival") as folder:
        server = Server(Path(folder) / "pg")
        os.environ |= {"SEARCHER_STORAGE": server.url, "SEARCHER_STATE": f"{folder}/state"}
        begun = time.monotonic()
        print(f"# the database is {masked(server.url).partition('?')[0]}")
        Store(server.url, create=True).close()
        run = ("--study-name", "faults", "--sampler", "random", "--workers", "2", "--epochs", "2")
        driver = Driver(begun, "launch", *run, "--n-trials", str(trials))
        while not Store(server.url).studies():
            time.sleep(0.5)
        wait_for(server.url, "faults", trials // 8)
        say(f"# kill -9 {driver.kill_a_worker()} (a worker)", begun)
        wait_for(server.url, "faults", trials // 4)
        say("# PostgreSQL is stopped at once", begun)
        with server.stopped():
            time.sleep(AWAY_SECONDS)
        say("# PostgreSQL is started again", begun)
        wait_for(server.url, "faults", trials // 2)
        driver.kill()
        say("# kill -9 of the driver", begun)
        status = Driver(begun, "resume", "faults").wait()
        say(f"# ended with status {status}", begun)
        shown("status", "faults")
        shown("query", COUNTS)
        shown("db", "check")
        server.close()


if __name__ == "__main__":
    main()
