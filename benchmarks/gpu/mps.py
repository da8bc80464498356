"""NVIDIA's Multi-Process Service, for as long as one measurement lasts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.gpu.measuring import Skip
from benchmarks.gpu.processes import follow_parent

CONTROL = "nvidia-cuda-mps-control"
PATIENCE = 10.0  # seconds for the daemon to answer, and to end


@contextmanager
def service() -> Iterator[dict[str, str]]:
    """Run a control daemon of our own, in folders of its own; nothing of the GPU's settings is changed.

    Yields:
        The environment that makes a process a client of this daemon.

    Raises:
        Skip: there is no such program here, or it does not start.
    """
    control = shutil.which(CONTROL)
    if control is None:
        raise Skip(f"{CONTROL} is not installed")
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        environment = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for place in environment.values():
            Path(place).mkdir()
        said = Path(folder) / "said"
        with said.open("wb") as out:
            daemon = subprocess.Popen(
                [control, "-f"],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=partial(follow_parent, signal.SIGTERM),  # noqa: PLW1509 - Python has no other thread here
            )
        try:
            _wait_for_answer(control, environment, daemon, said)
            yield environment
        finally:
            _quit(control, environment, daemon)


def servers(environment: dict[str, str]) -> list[str]:
    """The process ids of the daemon's servers; it starts one for its first client."""
    return _ask(str(shutil.which(CONTROL)), environment, "get_server_list").split()


def _ask(control: str, environment: dict[str, str], command: str) -> str:
    done = subprocess.run(
        [control],
        input=command + "\n",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout


def _wait_for_answer(control: str, environment: dict[str, str], daemon: subprocess.Popen[bytes], said: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if daemon.poll() is not None:
            lines = said.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
            raise Skip(f"{CONTROL} ended at once with status {daemon.returncode}: {lines[-1]}")
        try:
            _ask(control, environment, "get_server_list")
            return
        except (subprocess.SubprocessError, OSError):
            time.sleep(0.2)
    raise Skip(f"{CONTROL} did not answer within {PATIENCE:g} s")


def _quit(control: str, environment: dict[str, str], daemon: subprocess.Popen[bytes]) -> None:
    """End the daemon by its own command, or, if it does not obey, as a process."""
    try:
        if daemon.poll() is None:
            _ask(control, environment, "quit -t 5")
        daemon.wait(PATIENCE)
    except (subprocess.SubprocessError, OSError):
        daemon.terminate()
        try:
            daemon.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
