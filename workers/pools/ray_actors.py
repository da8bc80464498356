"""A pool of Ray actors that live as long as the search and keep their data and compiled code.

An actor runs one job and may hold one more in its queue, so that it does not stand idle while the driver writes a
result down. Ray's own retries are all off: this pool replaces a dead actor and reports the job it was running as
FAILED, and the search, which keeps count in its store, decides whether to run it again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError

from workers.contract import Health, Job, Outcome, Verdict
from workers.pools.base import GRACE_SECONDS, Evaluate, evaluate, guarded, prepare, usable_cpus, warm_up
from workers.pools.ray_cluster import Pulse, check_gpus, connect, waited_for, watched, workers_that_fit
from workers.pools.ray_local import RayUnavailable, in_short, is_credential
from workers.validation import received

LINGER_SECONDS = 0.003  # how long a first result waits for others, so that one transaction can record them together
QUEUE = 2  # jobs an actor holds: one running, one waiting, so that a result is written down before the next but one
BRISK_SECONDS = 0.005  # about what a call costs: an actor whose jobs take less gets two a call, as joblib batches
MAX_FAILED_STARTS = 3  # actors in a row that die before they are ready, other than with their node
LEAK_BYTES = 1 << 30  # by which an actor may grow after its first job, before it is taken to leak
SENDING_SECONDS = 0.001  # next to nothing for jobs that are not brisk
PATIENCE_SECONDS = 10.0  # after which it is said what actors that have not begun are waiting for,
REPEAT_SECONDS = 60.0  # and how often it is said again

NODE_DIED = "its node has died"  # as Ray says it

log = logging.getLogger(__name__)


class Worker:
    """The actor. Ray calls nothing a second time: a job that was lost may have cost hours, and the search counts how
    often it runs. What leads into the database is taken out of its environment: its node may have been started from a
    shell that has it, and it runs a user's own modules."""

    def __init__(self, threads: int, run: Evaluate, leak_bytes: int = LEAK_BYTES, folder: str = "") -> None:
        from search_space.modules import look_into  # imports torch, which the driver's side does without

        if folder:
            look_into(folder)  # the driver's, for modules of the user's
        for name in filter(is_credential, tuple(os.environ)):
            del os.environ[name]
        prepare(threads)
        if run is evaluate:
            warm_up()
        self._run = run
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._sound = True
        self._leak_bytes, self._first_size = leak_bytes, 0
        self._latest_seconds = 0.0  # of the last job

    @ray.method(max_task_retries=0, retry_exceptions=False)
    def ready(self) -> str:
        return self._name

    @ray.method(max_task_retries=0, retry_exceptions=False)
    def run(self, *jobs: str) -> list[str]:
        """Their outcomes, up to the first that leaves this process unsound: what comes after it is not touched."""
        outcomes = []
        if self._latest_seconds >= BRISK_SECONDS:
            # The answer to the last call is being sent by another thread. A kill now would cost two runs, not one.
            time.sleep(SENDING_SECONDS)
        for job in jobs:
            if self._sound:
                outcome = guarded(self._run, Job.from_json(job))
                if outcome.health is Health.SOUND and self._leaks():
                    outcome = replace(outcome, health=Health.SPENT)
                self._sound, self._latest_seconds = outcome.health is Health.SOUND, outcome.seconds
                outcomes.append(replace(outcome, worker=self._name).to_json())
        return outcomes

    def _leaks(self) -> bool:
        """Whether more is kept than the first job has left. What is shared, as mapped data are, does not count."""
        memory = psutil.Process().memory_info()
        size = memory.rss - getattr(memory, "shared", 0)
        self._first_size = self._first_size or size
        return bool(size - self._first_size > self._leak_bytes)


@dataclass(slots=True)
class _Seat:
    """An actor and its calls, in order; the first is what it works on. No jobs: it is starting up."""

    actor: Any
    queue: deque[tuple[Any, tuple[Job, ...]]]
    ready: bool = False  # an actor that the cluster has no room for yet gets no jobs
    brisk: bool = False  # its last job took less time than the call that brought it
    since: float = field(default_factory=time.monotonic)  # when the first call began

    def room(self) -> int:
        return QUEUE - sum(len(jobs) for _, jobs in self.queue) if self.ready else 0


class RayPool:
    """`workers` actors of one CPU and `gpus_per_worker` GPUs each, on a cluster of their own or the one at `address`.

    Args:
        workers: how many; those that the cluster has no room for yet wait for it. 0 takes as many as there are CPUs now
            (or, with `gpus_per_worker`, as the GPUs allow).
        address: "local" starts Ray on this machine; else as in `ray.init`.
        threads: CPU threads a child; 0 shares this machine's cores among the workers, and is 1 on a cluster.
        run: what a worker does with a job.
        leak_bytes: a worker that has grown by more since its first job is replaced between two jobs.

    Raises:
        RayUnavailable: no answer from `address` within 15 s, GPUs that a Ray on this machine has not, or a cluster of
            which no number of workers was asked; later, from `submit` and `wait`: workers that cannot start, a cluster
            that has not answered for 15 s.
    """

    def __init__(
        self,
        workers: int = 0,
        gpus_per_worker: float = 0.0,
        address: str = "local",
        threads: int = 0,
        run: Evaluate = evaluate,
        leak_bytes: int = LEAK_BYTES,
    ) -> None:
        self._seats: list[_Seat] = []
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            connect(address, workers)
        self._pulse = Pulse(address)
        try:
            if workers and address == "local":  # nobody can add GPUs to it
                check_gpus(gpus_per_worker)
            self.workers = workers or workers_that_fit(gpus_per_worker)
        except RayUnavailable:
            self.close()
            raise
        self._threads = threads or (max(1, usable_cpus() // self.workers) if address == "local" else 1)
        self._run, self._gpus, self._leak_bytes = run, gpus_per_worker, leak_bytes
        self._actor: Any = ray.remote(Worker).options(
            num_cpus=1,
            num_gpus=gpus_per_worker,
            max_restarts=0,  # `_replace` starts a new one, when what the old one held has been accounted for
            max_task_retries=0,
            max_concurrency=1,
            lifetime=None,  # until this process ends, however it does
        )
        self._failed_starts = 0
        self._backlog: deque[Job] = deque()
        self._pairs = True  # until an actor dies: then one job a call, so that the next death has one suspect
        self._asked = self._told = 0.0
        self._said = ""  # of what is waited for
        self._seats = [self._seat() for _ in range(self.workers)]

    @property
    def capacity(self) -> int:
        return QUEUE * self.workers

    def submit(self, *jobs: Job) -> None:
        self._backlog.extend(jobs)
        with watched(self._pulse):
            self._deal()

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        end = time.monotonic() + timeout_seconds
        with watched(self._pulse):
            while True:
                left = max(0.0, end - time.monotonic())
                if self._pulse.beats():
                    ended = self._turn(min(left, 1.0))
                else:  # what has died cannot be replaced, and may not have died
                    ended = []
                    time.sleep(min(left, 0.1))
                if ended or not left or not any(seat.queue for seat in self._seats):
                    return ended

    def close(self) -> None:
        for seat in self._seats if not self._pulse.lost else ():
            ray.kill(seat.actor, no_restart=True)
        if self._started_ray:
            ray.shutdown()

    def _turn(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Hands out and collects, waiting so long at most."""
        self._deal()  # only here and in submit, when the caller has written down what it was given: see QUEUE
        seats = {ref: seat for seat in self._seats for ref, _ in seat.queue}
        ready: list[Any] = []
        if seats and ray.wait(list(seats), num_returns=1, timeout=seconds)[0]:
            ready, _ = ray.wait(list(seats), num_returns=len(seats), timeout=LINGER_SECONDS)
        ended: list[tuple[Job, Outcome]] = []
        for seat in {id(seats[ref]): seats[ref] for ref in ready}.values():
            ended += self._collect(seat, set(ready))
        ended += self._stop_overdue()
        self._say_what_is_waited_for()
        return ended

    def _say_what_is_waited_for(self) -> None:
        """If it is something else than before, or has not been said for a while."""
        now = time.monotonic()
        missing = sum(not seat.ready and now - seat.since > PATIENCE_SECONDS for seat in self._seats)
        if missing and now - self._asked > PATIENCE_SECONDS and self._pulse.beats():
            self._asked = now
            text = waited_for(missing, self.workers, self._gpus, shared=not self._started_ray)
            if text != self._said or now - self._told > REPEAT_SECONDS:
                self._said, self._told = text, now
                log.warning("%s", text)

    def _seat(self) -> _Seat:
        actor = self._actor.remote(self._threads, self._run, self._leak_bytes, str(Path.cwd()))
        return _Seat(actor, deque([(actor.ready.remote(), ())]))

    def _deal(self) -> None:
        """Hands waiting jobs to the actors with the shortest queues: one a call, or all there is room for to an actor
        whose jobs are over sooner than the call."""
        while self._backlog and self._pulse.beats():
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
                outcomes = [received(text) for text in ray.get(ref)] if jobs else []
            except (RayActorError, OutOfMemoryError) as error:
                if not self._pulse.beats(now=True):
                    return ended  # the cluster has died first, or is about to come back
                return ended + self._bury(seat, _why_it_died(error), with_node=NODE_DIED in str(error))
            except RayError as error:
                if not jobs:
                    return ended + self._bury(seat, f"Ray could not start it: {in_short(error)}")
                outcomes = [Outcome(Verdict.FAILED, reason=f"Ray could not run it: {in_short(error)}")] * len(jobs)
            seat.queue.popleft()
            seat.since = time.monotonic()
            ended += zip(jobs, outcomes, strict=False)
            if any(outcome.health is not Health.SOUND for outcome in outcomes):
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
            overdue = limits and all(limits) and time.monotonic() - seat.since > sum(limits) + GRACE_SECONDS
            if overdue and not ray.wait([seat.queue[0][0]], timeout=0)[0]:  # or it is this process that was late
                ended += self._bury(seat, f"timed out after {limits[0]:g} s and was killed")
        return ended

    def _bury(self, seat: _Seat, reason: str, *, with_node: bool = False) -> list[tuple[Job, Outcome]]:
        """A new actor for a dead one. The job it was working on has failed, those behind it have not been touched."""
        self._pairs = False
        if not seat.ready and not with_node:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RayUnavailable(f"{MAX_FAILED_STARTS} workers in a row could not start: {reason}")
        jobs = seat.queue.popleft()[1]
        self._replace(seat, jobs[1:])
        return [(job, Outcome(Verdict.FAILED, reason, health=Health.LOST)) for job in jobs[:1]]

    def _replace(self, seat: _Seat, untouched: tuple[Job, ...]) -> None:
        """A new actor; jobs that the old one has not touched, of its last call and of those behind, go first. The old
        one is killed: it may be alive, out of reach, and would hold its place."""
        ray.kill(seat.actor, no_restart=True)
        held = [*untouched, *(job for _, jobs in seat.queue for job in jobs)]
        self._backlog.extendleft(reversed(held))
        self._seats[self._seats.index(seat)] = self._seat()


def _why_it_died(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):
        return f"out of memory: Ray killed the worker process ({in_short(error)})"
    if NODE_DIED in str(error):
        return "the worker process died with its node"
    if isinstance(error, ActorUnavailableError):
        return "the worker process died or is out of reach: its connection has ended"
    if "SYSTEM_ERROR" in str(error):  # Ray has seen a connection end
        return "the worker process died: killed, perhaps by the system for want of memory, or crashed"
    return f"the worker process died ({in_short(error)})"
