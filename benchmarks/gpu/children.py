"""Several children at once on one device: threads with streams, processes, processes under MPS."""

from __future__ import annotations

import os
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import torch

from benchmarks.gpu import mps
from benchmarks.gpu.loops import SWISH_BETA
from benchmarks.gpu.measuring import Cases, Run, Skip, steps
from benchmarks.gpu.processes import end, start
from benchmarks.gpu.results import Figures
from workers.tasks.images.train import _Child

Trained = tuple[int, float]  # steps, and the seconds that they took
PAPER_STEPS = 10_000
END_SECONDS = 3.0  # for processes to end by themselves


def streams(run: Run) -> Cases:
    """Children in the threads of one process, each on a CUDA stream of its own."""
    children: list[tuple[_Child, torch.cuda.Stream | None]] = []
    for number in run.sizes.children:
        yield f"{number} at once", partial(_in_threads, run, children, number)


def _in_threads(run: Run, children: list[tuple[_Child, torch.cuda.Stream | None]], number: int) -> Figures:
    while len(children) < number:
        stream = torch.cuda.Stream() if run.on_gpu else None
        with _on(stream):
            children.append((run.child(run.job(SWISH_BETA)), stream))
    found: list[Trained | Exception] = []

    def work(child: _Child, stream: torch.cuda.Stream | None) -> None:
        try:
            torch.set_num_threads(1)
            with _on(stream):
                found.append(train_for(child, run.sizes.window, run.sizes.chunk))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=work, args=each) for each in children[:number]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _together(found, run)


def _on(stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
    return torch.cuda.stream(stream) if stream else nullcontext()


def train_for(child: _Child, seconds: float, chunk: int) -> Trained:
    """Train for about so many seconds, `chunk` steps at a time."""
    begun, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - begun) < seconds:
        steps(child, chunk)
        count += chunk
    return count, taken


def _together(found: list[Trained | Exception], run: Run) -> Figures:
    """The speed of all children together.

    Raises:
        Exception: what one of them has raised.
    """
    for one in found:
        if isinstance(one, Exception):
            raise one
    rates = [count / taken for count, taken in found]
    return {
        "children": len(rates),
        "steps_per_s": sum(rates),
        "slowest_steps_per_s": min(rates),
        "children_per_hour": sum(rates) * 3600 / PAPER_STEPS,
        "seconds": max(taken for _, taken in found),
        "batch": run.sizes.batch,
    }


def processes(run: Run) -> Cases:
    """Children in processes of their own. All processes are there from the start; those that have nothing to do hold
    memory, but do not use the device."""
    yield from _in_processes(run, {})


def processes_with_mps(run: Run) -> Cases:
    """The same, as clients of NVIDIA's Multi-Process Service, which lets their kernels run at the same time."""
    if not run.on_gpu:
        raise Skip("MPS serves GPUs only")
    with mps.service() as environment:
        yield from _in_processes(run, environment)


def _in_processes(run: Run, environment: dict[str, str]) -> Cases:
    with Workers(max(run.sizes.children), run, environment) as workers:
        for number in run.sizes.children:
            yield f"{number} at once", partial(_measure, workers, number, run, environment)


def _measure(workers: Workers, number: int, run: Run, environment: dict[str, str]) -> Figures:
    found = _together(list(workers.train(number)), run)
    if environment:
        found["mps_servers"] = len(mps.servers(environment))
        if not found["mps_servers"]:
            raise RuntimeError("the processes did not become clients of MPS")
    return found


class Workers:
    """Processes with a child each, ready to train.

    Raises:
        Skip: they are not ready when the run's time is up.
    """

    def __init__(self, count: int, run: Run, environment: dict[str, str]) -> None:
        self._run = run
        self._workers = []
        for _ in range(count):
            ours, theirs = Pipe()
            self._workers.append((start(run.start_method, _worker, theirs, run, environment), ours))
            theirs.close()

    def __enter__(self) -> Workers:
        try:
            for _, pipe in self._workers:
                self._answer(pipe)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for _, pipe in self._workers:
            with suppress(OSError):  # it has died
                pipe.send(None)
        until = time.monotonic() + END_SECONDS
        for process, pipe in self._workers:
            end(process, until - time.monotonic())
            pipe.close()

    def train(self, number: int) -> list[Trained]:
        """Let so many of them train at the same time."""
        pipes = [pipe for _, pipe in self._workers[:number]]
        for pipe in pipes:
            pipe.send(self._run.sizes.window)
        return [self._answer(pipe) for pipe in pipes]

    def _answer(self, pipe: Connection) -> Trained:
        if not pipe.poll(max(0.0, self._run.left() - END_SECONDS)):
            raise Skip("a process did not answer before the time was up")
        try:
            answer = pipe.recv()
        except EOFError as error:
            raise RuntimeError("a process has died") from error
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer


def _worker(pipe: Connection, run: Run, environment: dict[str, str]) -> None:
    """Say when the child is ready, then train for as many seconds as is asked, until None is."""
    try:
        os.environ.update(environment)
        torch.set_num_threads(1)
        child = run.child(run.job(SWISH_BETA))
        pipe.send((0, 0.0))
        while (seconds := pipe.recv()) is not None:
            pipe.send(train_for(child, seconds, run.sizes.chunk))
    except (EOFError, BrokenPipeError):  # the measurement was ended
        return
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
