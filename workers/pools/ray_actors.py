"""A pool of Ray actors that live as long as the search and keep their data and compiled code.

An actor runs one job and may hold one more in its queue, so that it does not stand idle while the driver records a
result. All of Ray's own retries are off: this pool replaces a dead actor and reports the job that it was running as
FAILED. The search, which counts retries in its store, decides whether to run that job again.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError

from workers.contract import Health, Job, Outcome, Verdict
from workers.pools.base import GRACE_SECONDS, Evaluate, evaluate, guarded, prepare, usable_cpus, warm_up
from workers.pools.ray_cluster import (
    ClusterMonitor,
    check_gpus,
    connect,
    connection_errors,
    describe_missing_workers,
    workers_that_fit,
)
from workers.pools.ray_local import RayUnavailable, is_credential, short_message
from workers.validation import received

GATHER_SECONDS = 0.003  # how long `wait` gathers more results after the first: one transaction records them together
JOBS_PER_ACTOR = 2  # one that runs and one that waits: a result is recorded before the actor runs out of work
QUICK_SECONDS = 0.005  # about what a call costs; an actor whose jobs take less gets two jobs a call
SEND_SECONDS = 0.001  # how long the answer of a call takes to leave the process
MAX_FAILED_STARTS = 3  # actors in a row that may die before they are ready, other than with their node
LEAK_BYTES = 1 << 30  # an actor that has grown by more since its first job is taken to leak memory
MISSING_SECONDS = 10.0  # an actor that has not started after this time is reported as missing,
REPEAT_SECONDS = 60.0  # and the same report is repeated this often

NODE_DIED = "its node has died"  # Ray's own words

log = logging.getLogger(__name__)


class Worker:
    """The class of the actors.

    Ray never repeats a call: a lost job may have cost hours, and the search counts how often a job runs. The actor
    removes the database's credentials from its environment: somebody may have started its node from a shell that has
    them, and the actor runs a user's own modules.

    Args:
        threads: CPU threads of a training.
        run: what the actor does with a job.
        leak_bytes: the actor reports its health as SPENT when it has grown by more since its first job.
        folder: the driver's current directory, in which a user's own modules are looked up.
    """

    def __init__(self, threads: int, run: Evaluate, leak_bytes: int = LEAK_BYTES, folder: str = "") -> None:
        from search_space.modules import look_into  # imports torch, which the driver does not need

        if folder:
            look_into(folder)
        for name in filter(is_credential, tuple(os.environ)):
            del os.environ[name]
        prepare(threads)
        if run is evaluate:
            warm_up()
        self._run = run
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._healthy = True
        self._leak_bytes, self._first_size = leak_bytes, 0
        self._last_job_seconds = 0.0

    @ray.method(max_task_retries=0, retry_exceptions=False)
    def ready(self) -> str:
        """Return the actor's name, which is HOST:PROCESS."""
        return self._name

    @ray.method(max_task_retries=0, retry_exceptions=False)
    def run(self, *jobs: str) -> list[str]:
        """Run jobs in order and return their outcomes, both as JSON. Stop after the first job that leaves this process
        in bad health; the later jobs are not begun and have no outcome."""
        outcomes = []
        if self._last_job_seconds >= QUICK_SECONDS:
            # Another thread still sends the answer of the last call. If this process died now, two runs would be lost.
            time.sleep(SEND_SECONDS)
        for job in jobs:
            if self._healthy:
                outcome = guarded(self._run, Job.from_json(job))
                if outcome.health is Health.SOUND and self._leaks():
                    outcome = replace(outcome, health=Health.SPENT)
                self._healthy, self._last_job_seconds = outcome.health is Health.SOUND, outcome.seconds
                outcomes.append(replace(outcome, worker=self._name).to_json())
        return outcomes

    def _leaks(self) -> bool:
        """Return True if the process holds much more memory than after its first job. Shared memory, such as mapped
        data, does not count."""
        memory = psutil.Process().memory_info()
        size = memory.rss - getattr(memory, "shared", 0)
        self._first_size = self._first_size or size
        return bool(size - self._first_size > self._leak_bytes)


@dataclass(slots=True)
class _Actor:
    """An actor as the pool sees it.

    Attributes:
        handle: Ray's handle.
        calls: calls without an answer yet, in order, each with its jobs; the actor works on the first. The first call
            of all waits for the start and has no jobs.
        ready: True once the actor has started; before that it gets no jobs.
        quick: True if its last jobs took less time than the call that brought them.
        since: when the first of `calls` began, by the monotonic clock.
    """

    handle: Any
    calls: deque[tuple[Any, tuple[Job, ...]]]
    ready: bool = False
    quick: bool = False
    since: float = field(default_factory=time.monotonic)

    def room(self) -> int:
        """Return how many more jobs the actor may hold."""
        return JOBS_PER_ACTOR - sum(len(jobs) for _, jobs in self.calls) if self.ready else 0


class RayPool:
    """`workers` actors with one CPU and `gpus_per_worker` GPUs each, on a cluster of their own or the one at `address`.

    Args:
        workers: number of actors; those that the cluster has no room for yet wait. 0 takes as many as there are CPUs
            now (or, with `gpus_per_worker`, as the GPUs allow).
        gpus_per_worker: GPUs of an actor; a fraction shares one GPU among actors.
        address: "local" starts Ray on this machine; other values are passed to `ray.init`.
        threads: CPU threads of a training. 0 divides this machine's cores among the workers; on a cluster it means 1.
        run: what a worker does with a job.
        leak_bytes: a worker that has grown by more since its first job is replaced between two jobs.
        code: Python files and folders of packages that a cluster's workers import and that its nodes may not have.

    Raises:
        RayUnavailable: `address` does not answer within 30 s; the Ray on this machine has too few GPUs; `workers` is 0
            and the cluster is empty. `submit` and `wait` raise it too: workers cannot start, or the cluster has not
            answered for 15 s.
    """

    def __init__(
        self,
        workers: int = 0,
        gpus_per_worker: float = 0.0,
        address: str = "local",
        threads: int = 0,
        run: Evaluate = evaluate,
        leak_bytes: int = LEAK_BYTES,
        code: Sequence[Path] = (),
    ) -> None:
        self._actors: list[_Actor] = []
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            connect(address, workers, code)
        self._cluster = ClusterMonitor(address)
        try:
            if workers and address == "local":  # nobody can add GPUs to it
                check_gpus(gpus_per_worker)
            self.workers = workers or workers_that_fit(gpus_per_worker)
        except RayUnavailable:
            self.close()
            raise
        self._threads = threads or (max(1, usable_cpus() // self.workers) if address == "local" else 1)
        self._run, self._gpus, self._leak_bytes = run, gpus_per_worker, leak_bytes
        self._actor_class: Any = ray.remote(Worker).options(
            num_cpus=1,
            num_gpus=gpus_per_worker,
            max_restarts=0,  # `_replace` starts a new actor once the jobs of the old one have been accounted for
            max_task_retries=0,
            max_concurrency=1,
            lifetime=None,  # an actor ends when this process ends, whatever ends it
        )
        self._failed_starts = 0
        self._backlog: deque[Job] = deque()
        self._pairs = True  # after an actor's death each call has one job, so that the next death has one suspect
        self._last_look = self._last_report = 0.0
        self._report = ""  # the last report of missing workers
        self._actors = [self._start_actor() for _ in range(self.workers)]

    @property
    def capacity(self) -> int:
        return JOBS_PER_ACTOR * self.workers

    def submit(self, *jobs: Job) -> None:
        self._backlog.extend(jobs)
        with connection_errors(self._cluster):
            self._assign_jobs()

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        end = time.monotonic() + timeout_seconds
        with connection_errors(self._cluster):
            while True:
                left = max(0.0, end - time.monotonic())
                if self._cluster.answers():
                    ended = self._assign_and_collect(min(left, 1.0))
                else:  # nothing can be replaced now, and what seems dead may be alive
                    ended = []
                    time.sleep(min(left, 0.1))
                if ended or not left or not any(actor.calls for actor in self._actors):
                    return ended

    def close(self) -> None:
        for actor in self._actors if not self._cluster.lost else ():
            ray.kill(actor.handle, no_restart=True)
        if self._started_ray:
            ray.shutdown()

    def _assign_and_collect(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Assign waiting jobs, wait up to `seconds` for results, and return the jobs that have ended."""
        self._assign_jobs()  # only here and in submit: by then the caller has recorded the results that it was given
        actors = {ref: actor for actor in self._actors for ref, _ in actor.calls}
        ready: list[Any] = []
        if actors and ray.wait(list(actors), num_returns=1, timeout=seconds)[0]:
            ready, _ = ray.wait(list(actors), num_returns=len(actors), timeout=GATHER_SECONDS)
        ended: list[tuple[Job, Outcome]] = []
        for actor in {id(actors[ref]): actors[ref] for ref in ready}.values():
            ended += self._collect(actor, set(ready))
        ended += self._stop_overdue()
        self._report_missing_workers()
        return ended

    def _report_missing_workers(self) -> None:
        """Log what missing workers wait for, if it changed or was last logged more than `REPEAT_SECONDS` ago."""
        now = time.monotonic()
        missing = sum(not actor.ready and now - actor.since > MISSING_SECONDS for actor in self._actors)
        if missing and now - self._last_look > MISSING_SECONDS and self._cluster.answers():
            self._last_look = now
            report = describe_missing_workers(missing, self.workers, self._gpus, shared=not self._started_ray)
            if report != self._report or now - self._last_report > REPEAT_SECONDS:
                self._report, self._last_report = report, now
                log.warning("%s", report)

    def _start_actor(self) -> _Actor:
        handle = self._actor_class.remote(self._threads, self._run, self._leak_bytes, str(Path.cwd()))
        return _Actor(handle, deque([(handle.ready.remote(), ())]))

    def _assign_jobs(self) -> None:
        """Give waiting jobs to the actors with the most room. A call brings one job, or as many as there is room for
        if the actor's jobs are quick."""
        while self._backlog and self._cluster.answers():
            actor = max(self._actors, key=_Actor.room)
            if actor.room() <= 0:
                return
            count = min(actor.room(), len(self._backlog)) if actor.quick and self._pairs else 1
            jobs = tuple(self._backlog.popleft() for _ in range(count))
            if not actor.calls:
                actor.since = time.monotonic()
            actor.calls.append((actor.handle.run.remote(*(job.to_json() for job in jobs)), jobs))

    def _collect(self, actor: _Actor, ready: set[Any]) -> list[tuple[Job, Outcome]]:
        """Return the jobs that the actor has ended; replace the actor if it is dead or in bad health."""
        ended: list[tuple[Job, Outcome]] = []
        while actor.calls and actor.calls[0][0] in ready:
            ref, jobs = actor.calls[0]
            try:
                outcomes = [received(text) for text in ray.get(ref)] if jobs else []
            except (RayActorError, OutOfMemoryError) as error:
                if not self._cluster.answers(now=True):
                    return ended  # the cluster is gone, or may come back with this actor
                return ended + self._replace_dead(actor, _cause_of_death(error), with_node=NODE_DIED in str(error))
            except RayError as error:
                if not jobs:
                    return ended + self._replace_dead(actor, f"Ray could not start it: {short_message(error)}")
                outcomes = [Outcome(Verdict.FAILED, reason=f"Ray could not run it: {short_message(error)}")] * len(jobs)
            actor.calls.popleft()
            actor.since = time.monotonic()
            ended += zip(jobs, outcomes, strict=False)
            if any(outcome.health is not Health.SOUND for outcome in outcomes):
                self._replace(actor, jobs[len(outcomes) :])
                return ended
            if jobs:
                actor.quick = all(o.verdict is Verdict.COMPLETE and o.seconds < QUICK_SECONDS for o in outcomes)
            else:
                actor.ready, self._failed_starts = True, 0
        return ended

    def _stop_overdue(self) -> list[tuple[Job, Outcome]]:
        """Kill the actors whose job has passed its time-out without noticing, and return these jobs as FAILED."""
        ended = []
        for actor in list(self._actors):
            limits = [job.timeout_seconds for job in actor.calls[0][1]] if actor.calls else []
            overdue = limits and all(limits) and time.monotonic() - actor.since > sum(limits) + GRACE_SECONDS
            if overdue and not ray.wait([actor.calls[0][0]], timeout=0)[0]:  # an answer: this process was late, not it
                ended += self._replace_dead(actor, f"timed out after {limits[0]:g} s and was killed")
        return ended

    def _replace_dead(self, actor: _Actor, reason: str, *, with_node: bool = False) -> list[tuple[Job, Outcome]]:
        """Replace a dead actor. Return the job that it was running as FAILED; its later jobs were never begun and wait
        for other actors.

        Raises:
            RayUnavailable: several actors in a row died before they were ready.
        """
        self._pairs = False
        if not actor.ready and not with_node:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RayUnavailable(f"{MAX_FAILED_STARTS} workers in a row could not start: {reason}")
        jobs = actor.calls.popleft()[1]
        self._replace(actor, jobs[1:])
        return [(job, Outcome(Verdict.FAILED, reason, health=Health.LOST)) for job in jobs[:1]]

    def _replace(self, actor: _Actor, not_begun: tuple[Job, ...]) -> None:
        """Kill an actor and start a new one. Its jobs that have not begun (`not_begun` and the jobs of its other calls)
        are the next to be assigned. The kill matters: the old actor may live out of reach and still use its CPU."""
        ray.kill(actor.handle, no_restart=True)
        waiting = [*not_begun, *(job for _, jobs in actor.calls for job in jobs)]
        self._backlog.extendleft(reversed(waiting))
        self._actors[self._actors.index(actor)] = self._start_actor()


def _cause_of_death(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):
        return f"out of memory: Ray killed the worker process ({short_message(error)})"
    if NODE_DIED in str(error):
        return "the worker process died with its node"
    if isinstance(error, ActorUnavailableError):
        return "the worker process died or is out of reach: its connection has ended"
    if "SYSTEM_ERROR" in str(error):  # Ray has seen a connection end
        return "the worker process died: killed, perhaps by the system for want of memory, or crashed"
    return f"the worker process died ({short_message(error)})"
