"""Runs each measurement in a process of its own: one that hangs, or that loses the GPU, costs its own time only."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import children, kernels, loops
from benchmarks.gpu.measuring import Cases, Run, Skip
from benchmarks.gpu.processes import end, start
from benchmarks.gpu.results import append

GRACE_SECONDS = 5.0  # after its time, for a measurement to finish a round, before it is killed
HEADER_SECONDS = 60.0
LONGEST_REASON = 400


@dataclass(frozen=True, slots=True)
class Measurement:
    """`share`: the part of all minutes that it may take; what earlier ones leave is added."""

    cases: Callable[[Run], Cases]
    share: float


# Most valuable first. The rest of the shares, 5 %, is for starting and ending processes.
MEASUREMENTS: Mapping[str, Measurement] = {
    "loop": Measurement(loops.loop, 0.14),
    "paper": Measurement(loops.paper, 0.16),
    "captured": Measurement(loops.captured, 0.08),
    "streams": Measurement(children.streams, 0.09),
    "processes": Measurement(children.processes, 0.10),
    "mps": Measurement(children.processes_with_mps, 0.10),
    "activations": Measurement(kernels.activations, 0.08),
    "compile": Measurement(kernels.compiled, 0.10),
    "memory": Measurement(loops.memory, 0.04),
    "precision": Measurement(loops.precision, 0.06),
}


class NoDevice(RuntimeError):
    """The device that was asked for is not here."""


def drive(names: Sequence[str], device: str, small: bool, minutes: float, method: str, path: Path) -> None:
    """Write the header, every case of the measurements, and the end.

    Raises:
        NoDevice: there is no GPU; nothing is written.
    """
    begun = time.monotonic()
    method, machine = _machine(device, method)
    append(path, {"record": "header", **_header(minutes, small, method), **machine})
    total = sum(MEASUREMENTS[name].share for name in names) / 0.95
    share = 0.0
    for name in names:
        share += MEASUREMENTS[name].share / total
        run = Run(device, small, begun + minutes * 60 * share, method)
        print(f"{name}: {run.left():.0f} s", flush=True)
        _in_own_process(name, run, path)
    append(path, {"record": "end", "seconds": time.monotonic() - begun})


def _in_own_process(name: str, run: Run, path: Path) -> None:
    if run.left() < run.sizes.least:
        record(path, name, "", "skipped", reason=f"the time is up: {max(0.0, run.left()):.1f} s were left for it")
        return
    process = start(run.start_method, perform, name, run, path)
    try:
        if not end(process, run.left() + GRACE_SECONDS):
            record(
                path, name, "", "failed", reason="it did not end in its time and was killed; other cases are missing"
            )
        elif process.exitcode:
            record(path, name, "", "failed", reason=f"its process died with status {process.exitcode}")
    finally:
        process.kill()  # where this process is interrupted


def perform(name: str, run: Run, path: Path) -> None:
    """Measure and record every case, an error in one of them too."""
    try:
        for case, measure in MEASUREMENTS[name].cases(run):
            _perform_case(name, case, measure, run, path)
    except Skip as reason:
        record(path, name, "", "skipped", reason=str(reason))
    except Exception as error:
        record(path, name, "", "failed", reason=_told(error))


def _perform_case(name: str, case: str, measure: Callable[[], dict[str, Any]], run: Run, path: Path) -> None:
    begun = time.monotonic()
    if run.left() < run.sizes.least:
        record(path, name, case, "skipped", reason=f"the time is up: {max(0.0, run.left()):.1f} s were left for it")
        return
    try:
        record(path, name, case, "measured", figures=measure(), seconds=time.monotonic() - begun)
    except Skip as reason:
        record(path, name, case, "skipped", reason=str(reason), seconds=time.monotonic() - begun)
    except Exception as error:
        record(path, name, case, "failed", reason=_told(error), seconds=time.monotonic() - begun)


def record(path: Path, name: str, case: str, status: str, **rest: Any) -> None:
    append(path, {"record": "case", "measurement": name, "case": case, "status": status, **rest})
    said = rest.get("reason", "")
    print("  " + ": ".join(filter(None, [case, status, said])), flush=True)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:LONGEST_REASON]


def _machine(device: str, method: str) -> tuple[str, dict[str, Any]]:
    """What the device is, found out by a process that then ends, and how processes must be started to use it: a forked
    one cannot open the GPU if something that was imported here has done so already."""
    for way in dict.fromkeys((method, "spawn")):
        ours, theirs = Pipe()
        process = start(way, _describe, theirs, device)
        theirs.close()
        try:
            found = ours.recv() if ours.poll(HEADER_SECONDS) else None
        except EOFError:  # it has died; the traceback is on stderr
            found = None
        end(process, 1.0)
        if found:
            return way, found
    raise NoDevice("torch finds no GPU here that it can open; with --device cpu the CPU is measured")


def _describe(pipe: Connection, device: str) -> None:
    if device == "cpu":
        pipe.send({"device": "cpu"})
        return
    if not torch.cuda.is_available():
        pipe.send(None)
        return
    properties = torch.cuda.get_device_properties(0)
    torch.zeros(1, device="cuda")  # whether it really opens
    pipe.send(
        {
            "device": "cuda",
            "gpu": properties.name,
            "gpu_memory_mib": properties.total_memory / 2**20,
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    )


def _header(minutes: float, small: bool, method: str) -> dict[str, Any]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "minutes": minutes,
        "small": small,
        "start_method": method,
        "commit": _output("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }


def _output(program: str, *arguments: str) -> str | None:
    """The first line that a program prints; None if it is not here, or fails."""
    if shutil.which(program) is None:
        return None
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else None
