"""The loop of a study: propose, submit, wait, record, tell.

One transaction records what has ended and what comes next; only then is the next submitted. So whatever is killed, the
store holds every acknowledged result and the row of everything that runs, and a search goes on from the store alone.
While the database does not answer, a journal on this machine takes its place (`searcher/driver/outage.py`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from search_space import breakdown, parse, preflight
from searcher import SearcherError
from searcher.driver.failures import Failures
from searcher.driver.jobs import job_of, pruner_of
from searcher.driver.keys import PresentKeys
from searcher.driver.mirrors import Mirrors
from searcher.driver.outage import Outage, Outbox
from searcher.driver.state import SearchState
from searcher.proposers import WAIT, Proposal, Proposer, Wait
from searcher.records import REFUSED, Kind, Study, StudyKind, StudyTask, Trial, TrialState
from searcher.samplers.contract import Pending, observation_of
from searcher.settings.config import Config
from searcher.store import replay
from searcher.store.lease import Lease
from searcher.store.rows import Batch
from searcher.store.store import Store
from workers.contract import Health, Job, Outcome, Point, Verdict
from workers.pools.base import Pool
from workers.validation import validated

log = logging.getLogger("searcher")

WAKE_SECONDS = 1.0  # the longest that the loop waits for children before it renews the lease and asks whether to stop
AT_ONCE = 100  # most trials placed in one transaction
MOST_ASKED = 100  # times that a sampler is asked for one trial, if it proposes what the study has already
AHEAD = 8  # most proposals made while children train, so that a free worker does not wait for the sampler


class StopAsked(SearcherError):
    """`searcher stop` has ended a session; the study is ready to go on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is, after a transaction.

    Counts include earlier sessions unless something else is said. In an outage the database has less than this.

    Attributes:
        total: trials that the study is to have.
        counts: trials that have ended, by state.
        proposed: rows of the study.
        unique: different functions among them.
        trained: trials that a worker trained.
        session_done: trials that ended in this session.
        seconds: length of this session.
        best: the best trained trial.
        ended: trials that have ended since the last progress.
        outage: set while the database does not answer.
        waiting, running: trials that have not ended.
        workers_lost: workers that died in this session.
        again: trials whose run failed since the last progress, and that run again.
        mirrors: trials that `--skip-mirrors` left untrained.
        commits: seconds that each transaction took since the last progress.
        study: the name of the study.
    """

    total: int
    counts: Counter[TrialState]
    proposed: int
    unique: int
    trained: int
    session_done: int
    seconds: float
    best: Trial | None
    ended: tuple[Trial, ...]
    outage: Outage | None = None
    waiting: int = 0
    running: int = 0
    workers_lost: int = 0
    again: tuple[Trial, ...] = ()
    mirrors: int = 0
    commits: tuple[float, ...] = ()
    study: str = ""

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return self.counts.total()


class Search:
    """One session of one study, from what the store holds to the study's total.

    Args:
        lease: the right to write, held by the caller and renewed here.
        proposer: a new one; it is told every judged trial of the study first.
        should_stop: asked about once a second; True ends the session with the study ready to go on.
        clock: returns seconds; only differences are used.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        study: Study,
        config: Config,
        proposer: Proposer,
        pool: Pool,
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._config, self._clock = store, config, clock
        self._outbox = Outbox(store, lease, study)
        self._proposer, self._pool, self._should_stop = proposer, pool, should_stop
        self._pruner = pruner_of(config, study.task)
        self._state = SearchState(study)
        self._mirrors = Mirrors(self._state, config.search.skip_mirrors)
        self._failures = Failures(config.run.max_retries)
        self._begun = self._marked = clock()
        self._proposals: deque[Trial] = deque()  # made ahead, not yet in the store
        self._exhausted = False  # whether the proposer has nothing more to propose
        self._settled = True  # whether the store, or the journal, has everything that was entered here
        self._more_to_place = False  # whether one transaction did not take all that could be placed
        self._most_deferred = max(AT_ONCE, pool.capacity)
        self._session_done = self._workers_lost = 0
        self._again: list[Trial] = []  # since the last progress
        self._data_digests: dict[int, str] = {}  # by task configuration; unknown until a worker has looked at the data

    def run(self) -> Generator[Progress, None, None]:
        """Run to the total, the time-out or a wish to stop. Yield after every transaction that changed something, and
        now and then while the database does not answer.

        Raises:
            LeaseLost: another driver has taken the study over.
            StopAsked: `searcher stop` was called before the study was done.
            EveryTrialFails: the first trainings all failed in the same way.
            StoreError: the database has failed. Everything written until then stands.
        """
        restored = self._restore()
        outage: Outage | None = None
        try:
            while restored and not self._stopping() and self._has_work():
                batch, submitted, ended = Batch(), list[Trial](), list[Trial]()
                ready = self._wait() if self._state.running else []
                self._settled = False
                self._collect(ready, batch, ended)
                if self._more() and self._outbox.has_room:
                    self._place(batch, submitted, ended)
                elif self._outbox.outage and not self._state.running:
                    self._outbox.wait(WAKE_SECONDS)
                self._settle_suspects(batch, ended)
                self._outbox.put(batch)
                self._settled = True
                self._pool.submit(*map(self._job, submitted))
                if outage or batch or self._outbox.outage:
                    progress = self._progress(ended)
                    outage = progress.outage
                    yield progress
                self._failures.check(self._store.typed(self._state.study.name))
                self._propose_ahead()
            if outage:
                yield self._progress([])
            if self._late():
                log.info(
                    "the time is up (%g s) with %d of %d trials decided", self._config.run.timeout, *self._so_far()
                )
            elif self._exhausted:
                log.warning("there is nothing more to propose: %d of %d trials are decided", *self._so_far())
        finally:
            with closing(self._outbox):
                self._reopen_running()
        done, total = self._so_far()
        if self._outbox.asked_to_stop and done < total:
            raise StopAsked("stopped, as `searcher stop` has asked")

    # Beginning and end ------------------------------------------------------------------------------------------------

    def _restore(self) -> bool:
        """Learn from the store what earlier sessions did; trials that they left running wait again. With a long study
        that takes a while, in which the lease is kept. Return False if a wish to stop cut it short."""
        self._outbox.open()
        study, batch = self._state.study, Batch()
        tasks = self._store.study(study.name).tasks  # a journal may have brought digests
        self._data_digests = {task.number: task.data_digest for task in tasks}
        keys = PresentKeys(study)
        for trial, curve in replay.ended(self._store, study, curves=self._pruner is not None):
            self._state.finish(trial, keys.of(trial))
            self._learn(trial, curve)
            if self._clock() - self._marked >= WAKE_SECONDS:
                self._marked = self._clock()
                self._outbox.put(Batch())
                if self._stopping():
                    return False
        for trial in replay.open_trials(self._store, study):
            waiting = replace(trial, state=TrialState.WAITING, key=keys.of(trial))
            self._state.functions.setdefault(self._state.identity(waiting))
            if trial.state is TrialState.RUNNING:
                batch.changed.append((TrialState.RUNNING, waiting))
            self._state.waiting.append(waiting)
            self._state.propose(waiting)
        self._state.proposed = self._store.size(study)
        self._outbox.put(batch)
        keys.say_what_changed(self._store.typed(study.name))
        return True

    def _reopen_running(self) -> None:
        """Set running trials back to WAITING, for the next session. It does that itself where this cannot be written,
        or where the session ended (a second Ctrl-C) before the store had heard of what runs."""
        if not self._settled:
            return
        batch = Batch()
        for trial in self._state.running.values():
            if trial.state is TrialState.RUNNING:
                batch.changed.append((TrialState.RUNNING, replace(trial, state=TrialState.WAITING)))
        self._outbox.put(batch)

    def _stopping(self) -> bool:
        return self._should_stop() or self._outbox.asked_to_stop

    def _has_work(self) -> bool:
        return bool(self._state.running or self._more() or self._outbox.outage or self._failures.suspects)

    def _more(self) -> bool:
        """Return True if there is something to begin, and time for it."""
        return not self._late() and (bool(self._state.waiting or self._proposals) or self._may_propose())

    def _late(self) -> bool:
        return 0 < self._config.run.timeout < self._clock() - self._begun

    def _so_far(self) -> tuple[int, int]:
        return self._state.counts.total(), self._state.study.n_trials

    def _may_propose(self) -> bool:
        return not self._exhausted and self._next_number() < self._state.study.n_trials

    def _next_number(self) -> int:
        return self._state.proposed + len(self._proposals)

    # One turn ---------------------------------------------------------------------------------------------------------

    def _wait(self) -> list[tuple[Job, Outcome]]:
        seconds, self._more_to_place = 0.0 if self._more_to_place else WAKE_SECONDS, False
        return [
            (job, validated(outcome, self._task(self._state.running[job.number]).declared))
            for job, outcome in self._pool.wait(seconds)
        ]

    def _task(self, trial: Trial) -> StudyTask:
        return self._state.study.tasks[trial.task_config]

    def _job(self, trial: Trial) -> Job:
        return job_of(trial, self._task(trial), self._data_digests[trial.task_config], self._config, self._pruner)

    def _collect(self, ready: Sequence[tuple[Job, Outcome]], batch: Batch, ended: list[Trial]) -> None:
        """Enter what the pool has given back."""
        for job, given in ready:
            trial = self._state.stop(job.number)
            self._workers_lost += given.health is not Health.SOUND
            outcome = self._on_our_data(trial, given, batch)
            if again := self._failures.retried(trial, outcome):
                batch.changed.append((trial.state, again))
                self._state.waiting.append(again)
                self._again.append(again)
            elif suspect := self._failures.suspected(trial, outcome):
                batch.changed.append((trial.state, suspect))
            else:
                self._end(trial, outcome, batch, ended)
        if self._clock() - self._marked >= WAKE_SECONDS:
            self._mark_running(batch)

    def _settle_suspects(self, batch: Batch, ended: list[Trial]) -> None:
        """End the trials whose failure is no longer in doubt."""
        for trial, outcome in self._failures.settled(nothing_left=not (self._state.running or self._more())):
            self._end(trial, outcome, batch, ended)

    def _end(self, trial: Trial, outcome: Outcome, batch: Batch, ended: list[Trial]) -> None:
        done = replace(
            self._task(trial).judged(trial, outcome.metrics),
            state=TrialState(outcome.verdict.value),
            reason=outcome.reason,
            parameters=outcome.parameters,
            seconds=outcome.seconds,
            worker=outcome.worker,
            finish_order=self._state.finished,
        )
        batch.changed.append((trial.state, done))
        if outcome.curve:
            batch.curves[trial.number] = outcome.curve
        self._enter(done, ended, outcome.curve)

    def _on_our_data(self, trial: Trial, outcome: Outcome, batch: Batch) -> Outcome:
        """Return the outcome; FAILED if it was trained on other data than the study's. The first outcome of a task
        configuration says which data these are."""
        known, found = self._data_digests[trial.task_config], outcome.data_digest
        if not known and found:
            self._data_digests[trial.task_config] = batch.data_digests[trial.task_config] = known = found
        if found in ("", known):
            return outcome
        reason = f"{outcome.worker} has other data (digest {found}) than the study ({known})"
        return Outcome(Verdict.FAILED, reason, seconds=outcome.seconds, worker=outcome.worker)

    def _mark_running(self, batch: Batch) -> None:
        """Write which trials run. This happens about once a second, so children of a few milliseconds go without."""
        self._marked = self._clock()
        for trial in self._state.running.values():
            if trial.state is TrialState.WAITING:
                running = replace(trial, state=TrialState.RUNNING)
                batch.changed.append((TrialState.WAITING, running))
                self._state.running[trial.number] = running

    def _place(self, batch: Batch, submitted: list[Trial], ended: list[Trial]) -> None:
        """Fill the pool: first with trials that wait, then with new proposals. A known function is cited, and what the
        pre-flight or `--skip-mirrors` refuses is recorded; neither is trained. A trial that a running training will
        decide is deferred until that ends."""
        state, begun = self._state, self._clock()
        before = state.deferred_trials
        for _ in range(AT_ONCE):
            new = not state.waiting
            if new and self._clock() - begun > WAKE_SECONDS:  # a slow sampler; the lease is to be renewed
                self._more_to_place = True
                break
            if len(state.running) >= self._pool.capacity or (new and state.deferred_trials >= self._most_deferred):
                break
            trial = self._next_proposal() if new else state.waiting.popleft()
            if trial is None:
                break
            placed = self._mirrors.decided(state.decided(trial))
            if new:
                batch.added.append(placed)
            elif placed.state.finished:
                batch.changed.append((TrialState.WAITING, placed))
            if placed.state.finished:
                self._enter(placed, ended)
            elif awaited := self._mirrors.awaited(trial):
                state.defer(trial, awaited)
            else:
                state.start(trial)
                submitted.append(trial)
        else:
            self._more_to_place = state.deferred_trials < before + AT_ONCE

    def _propose_ahead(self) -> None:
        """Propose while children train. With a pool of one job at a time proposals wait, so that they know all
        results."""
        wanted = min(AHEAD, self._pool.capacity + 1) if self._pool.capacity > 1 else 0
        end = self._clock() + WAKE_SECONDS
        while len(self._proposals) < wanted and self._clock() < end and (trial := self._propose()):
            self._proposals.append(trial)

    def _next_proposal(self) -> Trial | None:
        """Return the next new trial, which is a row of the study from here on."""
        trial = self._proposals.popleft() if self._proposals else self._propose()
        if trial:
            self._state.proposed += 1
            self._state.functions.setdefault(self._state.identity(trial))
        return trial

    def _propose(self) -> Trial | None:
        if not self._may_propose():
            return None
        number = self._next_number()
        proposal = self._ask(number)
        if proposal is WAIT:
            if not self._state.pending:
                raise SearcherError(
                    f"trial {number} of study {self._state.study.name!r} waits for a trial to end: none is open"
                )
            return None
        if proposal is None:
            self._exhausted = True
            return None
        trial = Trial(
            number,
            Kind.CANDIDATE,
            proposal.expression,
            proposal.key,
            proposal.seed,
            name=proposal.name,
            choices=proposal.choices,
            task_config=proposal.task_config,
        )
        self._state.propose(trial)
        refusal = self._refusal(trial)
        return replace(trial, state=TrialState.INFEASIBLE, reason=REFUSED + refusal) if refusal else trial

    def _ask(self, number: int) -> Proposal | Wait | None:
        """Return what the proposer answers. A sampler that proposes what the study has already is asked again, with
        that proposal among the pending ones, until it repeats itself or has been asked `MOST_ASKED` times. One that
        does not look at pending trials repeats itself at once, and its proposal becomes a citation."""
        pending, rejected = tuple(self._state.pending.values()), list[Pending]()
        for _ in range(MOST_ASKED):
            proposal = self._proposer.ask(number, (*pending, *rejected))
            if not isinstance(proposal, Proposal) or self._state.study.kind is StudyKind.DESIGN:
                break
            repeated = bool(rejected) and proposal.expression == rejected[-1].expression
            if repeated or proposal.key not in self._state.functions:
                break
            rejected.append(Pending(number, proposal.expression, proposal.choices, proposal.key))
        return proposal

    def _refusal(self, trial: Trial) -> str:
        """Say why a candidate of a search is not worth training; empty if it may be, or is known."""
        state = self._state
        if (
            not self._config.search.preflight
            or state.study.kind is StudyKind.DESIGN
            or state.functions.get(state.identity(trial))
        ):
            return ""
        expression = parse(trial.expression)
        return preflight(expression) or breakdown(expression) or ""

    def _enter(self, trial: Trial, ended: list[Trial], curve: Sequence[Point] = ()) -> None:
        self._state.finish(trial)
        self._session_done += 1
        if trial.trained and trial.state is not TrialState.FAILED:
            self._failures.worked()
        ended.append(trial)
        self._learn(trial, curve)

    def _learn(self, trial: Trial, curve: Sequence[Point]) -> None:
        if trial.state.judged:
            if told := self._mirrors.told(trial):
                self._proposer.tell(observation_of(told, self._task(told).objective))
            if self._pruner:
                self._pruner.tell(trial, curve)

    def _progress(self, ended: list[Trial]) -> Progress:
        state = self._state
        again, self._again = tuple(self._again), []
        return Progress(
            total=state.study.n_trials,
            counts=Counter(state.counts),
            proposed=state.proposed,
            unique=len(state.functions),
            trained=state.trained,
            session_done=self._session_done,
            seconds=self._clock() - self._begun,
            best=state.best,
            ended=tuple(ended),
            outage=self._outbox.outage,
            waiting=len(state.waiting) + state.deferred_trials + self._failures.suspects,
            running=len(state.running),
            workers_lost=self._workers_lost,
            again=again,
            mirrors=state.mirrors,
            commits=self._outbox.commits(),
            study=state.study.name,
        )
