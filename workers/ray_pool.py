"""A pool of Ray actors that live as long as the search and keep their data and compiled code.

An actor runs one job and may hold one more in its queue, so that it does not stand idle while the driver writes a
result down. Ray's own retries are all off: this pool replaces a dead actor and reports the job it was running as
FAILED, and the search, which keeps count in its store, decides whether to run it again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from workers.job import Health, Job, Outcome, Verdict, WorkersError
from workers.pool import GRACE_SECONDS, Evaluate, evaluate, guarded, prepare, warm_up

CONNECT_SECONDS = 15.0  # how long an --address may take to answer
LINGER_SECONDS = 0.003  # how long a first result waits for others, so that one transaction can record them together
QUEUE = 2  # jobs an actor holds: one running, one waiting, so that a result is written down before the next but one
BRISK_SECONDS = 0.005  # about what a call costs: an actor whose jobs take less gets two a call, as joblib batches
MAX_FAILED_STARTS = 3  # actors in a row that die before they are ready


class RayUnavailable(WorkersError):
    """No Ray cluster, or not what was asked of it."""


class Worker:
    """The actor."""

    def __init__(self, threads: int, run: Evaluate) -> None:
        prepare(threads)
        if run is evaluate:
            warm_up()
        self._run = run
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._sound = True

    def ready(self) -> str:
        return self._name

    def run(self, *jobs: str) -> list[str]:
        """Their outcomes, up to the first that leaves this process unsound: what comes after it is not touched."""
        outcomes = []
        for job in jobs:
            if self._sound:
                outcome = guarded(self._run, Job.from_json(job))
                self._sound = outcome.health is Health.SOUND
                outcomes.append(replace(outcome, worker=self._name).to_json())
        return outcomes


@dataclass(slots=True)
class _Seat:
    """An actor and its calls, in order; the first is what it works on. No jobs: it is starting up."""

    actor: Any
    queue: deque[tuple[Any, tuple[Job, ...]]]
    ready: bool = False  # an actor that the cluster has no room for yet gets no jobs
    brisk: bool = False  # its last job took less time than the call that brought it
    since: float = 0.0  # when the first call began

    def room(self) -> int:
        return QUEUE - sum(len(jobs) for _, jobs in self.queue) if self.ready else 0


class RayPool:
    """`workers` actors of one CPU and `gpus_per_worker` GPUs each, on a cluster of their own or the one at `address`.

    Args:
        workers: how many; 0 takes as many as there are CPUs (or, with `gpus_per_worker`, as the GPUs allow).
        address: "local" starts Ray on this machine; else as in `ray.init`.
        threads: CPU threads a child; 0 shares this machine's cores among the workers, and is 1 on a cluster.
        run: what a worker does with a job.

    Raises:
        RayUnavailable: no answer from `address` within 15 s, GPUs that the cluster has not, workers that cannot start.
    """

    def __init__(
        self,
        workers: int = 0,
        gpus_per_worker: float = 0.0,
        address: str = "local",
        threads: int = 0,
        run: Evaluate = evaluate,
    ) -> None:
        self._seats: list[_Seat] = []
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            _connect(address, workers)
        try:
            self.workers = workers or _workers_that_fit(ray.cluster_resources(), gpus_per_worker)
            _check_gpus(ray.cluster_resources(), gpus_per_worker)
        except RayUnavailable:
            self.close()
            raise
        self._threads = threads or (max(1, (os.cpu_count() or 1) // self.workers) if address == "local" else 1)
        self._run = ray.put(run)
        self._gpus = gpus_per_worker
        self._failed_starts = 0
        self._backlog: deque[Job] = deque()
        self._pairs = True  # until an actor dies: then one job a call, so that the next death has one suspect
        self._seats = [self._seat() for _ in range(self.workers)]

    @property
    def capacity(self) -> int:
        return QUEUE * self.workers

    def submit(self, *jobs: Job) -> None:
        self._backlog.extend(jobs)
        self._deal()

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        ended: list[tuple[Job, Outcome]] = []
        end = time.monotonic() + timeout_seconds
        while True:
            self._deal()  # only here and in submit, when the caller has written down what it was given: see QUEUE
            seats = {ref: seat for seat in self._seats for ref, _ in seat.queue}
            left = max(0.0, end - time.monotonic())
            ready: list[Any] = []
            if seats and ray.wait(list(seats), num_returns=1, timeout=min(left, 1.0))[0]:
                ready, _ = ray.wait(list(seats), num_returns=len(seats), timeout=LINGER_SECONDS)
            for seat in {id(seats[ref]): seats[ref] for ref in ready}.values():
                ended += self._collect(seat, set(ready))
            ended += self._stop_overdue()
            if ended or not seats or not left:
                return ended

    def close(self) -> None:
        for seat in self._seats:
            ray.kill(seat.actor, no_restart=True)
        if self._started_ray:
            ray.shutdown()

    def _seat(self) -> _Seat:
        options = {
            "num_cpus": 1,
            "num_gpus": self._gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": 1,
        }
        actor: Any = ray.remote(Worker).options(**options).remote(self._threads, self._run)
        return _Seat(actor, deque([(actor.ready.remote(), ())]))

    def _deal(self) -> None:
        """Hands waiting jobs to the actors with the shortest queues: one a call, or all there is room for to an actor
        whose jobs are over sooner than the call."""
        while self._backlog:
            seat = max(self._seats, key=_Seat.room)
            if seat.room() <= 0:
                return
            count = min(seat.room(), len(self._backlog)) if seat.brisk and self._pairs else 1
            jobs = tuple(self._backlog.popleft() for _ in range(count))
            if not seat.queue:
                seat.since = time.monotonic()
            seat.queue.append((seat.actor.run.remote(*(job.to_json() for job in jobs)), jobs))

    def _collect(self, seat: _Seat, ready: set[Any]) -> list[tuple[Job, Outcome]]:
        ended: list[tuple[Job, Outcome]] = []
        while seat.queue and seat.queue[0][0] in ready:
            ref, jobs = seat.queue[0]
            try:
                outcomes = [Outcome.from_json(text) for text in ray.get(ref)] if jobs else []
            except (RayActorError, OutOfMemoryError) as error:
                return ended + self._bury(seat, _why_it_died(error))
            except RayError as error:
                outcomes = [Outcome(Verdict.FAILED, reason=f"Ray could not run it: {_in_short(error)}")] * len(jobs)
            seat.queue.popleft()
            seat.since = time.monotonic()
            ended += zip(jobs, outcomes, strict=False)
            if any(outcome.health is not Health.SOUND for outcome in outcomes):
                ray.kill(seat.actor, no_restart=True)
                self._replace(seat, jobs[len(outcomes) :])
                return ended
            if jobs:
                seat.brisk = all(o.verdict is Verdict.COMPLETE and o.seconds < BRISK_SECONDS for o in outcomes)
            else:
                seat.ready, self._failed_starts = True, 0
        return ended

    def _stop_overdue(self) -> list[tuple[Job, Outcome]]:
        """Kills actors whose job has run past its time-out without noticing: a hung child."""
        ended = []
        for seat in list(self._seats):
            limits = [job.timeout_seconds for job in seat.queue[0][1]] if seat.queue else []
            if limits and all(limits) and time.monotonic() - seat.since > sum(limits) + GRACE_SECONDS:
                ray.kill(seat.actor, no_restart=True)
                ended += self._bury(seat, f"timed out after {limits[0]:g} s and was killed")
        return ended

    def _bury(self, seat: _Seat, reason: str) -> list[tuple[Job, Outcome]]:
        """A new actor for a dead one. The job it was working on has failed, those behind it have not been touched."""
        self._pairs = False
        if not seat.ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RayUnavailable(f"{MAX_FAILED_STARTS} workers in a row could not start: {reason}")
        jobs = seat.queue.popleft()[1]
        self._replace(seat, jobs[1:])
        return [(job, Outcome(Verdict.FAILED, reason)) for job in jobs[:1]]

    def _replace(self, seat: _Seat, untouched: tuple[Job, ...]) -> None:
        """A new actor; jobs that the old one has not touched, of its last call and of those behind, go first."""
        held = [*untouched, *(job for _, jobs in seat.queue for job in jobs)]
        self._backlog.extendleft(reversed(held))
        self._seats[self._seats.index(seat)] = self._seat()


def _connect(address: str, workers: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        ray.init(address="local", num_cpus=max(workers, os.cpu_count() or 1), include_dashboard=False, **quiet)
        return
    _check_port(address)
    _within(CONNECT_SECONDS, lambda: ray.init(address=address, **quiet), address)


def _check_port(address: str) -> None:
    """A closed port is found at once, where Ray itself would go on trying."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = parts.port
    except ValueError as error:
        raise RayUnavailable(
            f"{address!r} is no Ray address: {error}; use HOST:PORT, ray://HOST:PORT or auto"
        ) from error
    if not parts.hostname or not port:
        return  # "auto", or something that Ray will judge itself
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS / 3).close()
    except OSError as error:
        raise RayUnavailable(
            f"no Ray cluster answers at {address!r} ({error}); start one with: ray start --head"
        ) from error


def _within(seconds: float, connect: Callable[[], object], address: str) -> None:
    """Calls `connect`, which cannot be told when to give up, in a thread that is left behind if it is late."""
    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            connect()
        except BaseException as error:  # handed to the caller's thread below
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True, name="ray-connect")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise RayUnavailable(
            f"no Ray cluster answered at {address!r} within {seconds:g} s; is it a Ray head's GCS port, "
            "and is its token ours (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)?"
        )
    if failures:
        raise RayUnavailable(f"cannot join the Ray cluster at {address!r}: {_in_short(failures[0])}") from failures[0]


def _workers_that_fit(total: dict[str, float], gpus_per_worker: float) -> int:
    fit = total.get("CPU", 0.0)
    if fit < 1:
        raise RayUnavailable(
            "this Ray cluster has no CPUs yet; start its nodes, or say with --workers how many to wait for"
        )
    if gpus_per_worker:
        fit = min(fit, total.get("GPU", 0.0) / gpus_per_worker)
    return max(1, int(fit))


def _check_gpus(total: dict[str, float], gpus_per_worker: float) -> None:
    if gpus_per_worker > total.get("GPU", 0.0):
        raise RayUnavailable(
            f"{gpus_per_worker:g} GPUs a worker were asked for, this Ray cluster has {total.get('GPU', 0):g}; "
            "use --gpus-per-worker 0 to train on CPUs"
        )


def _why_it_died(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):
        return f"out of memory: Ray killed the worker process ({_in_short(error)})"
    if "SYSTEM_ERROR" in str(error):  # Ray has seen a connection end
        return "the worker process died: killed, perhaps by the system for want of memory, or crashed"
    return f"the worker process died ({_in_short(error)})"


def _in_short(error: BaseException) -> str:
    """What an exception says in short: the first line, or, if it quotes a traceback, the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1 if any(line.startswith("File ") for line in lines) else 0][:300]
