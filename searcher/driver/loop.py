"""The loop of a study: propose, submit, wait, record, tell.

One transaction records the trials that have ended and the next ones; only then are the next ones submitted. So if any
process is killed, the store has every acknowledged result and a row for every trial that runs, and the next session
needs nothing but the store. While the database does not answer, a journal on this machine takes its place
(`searcher/driver/outage.py`).
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
from searcher.driver.outage import Outage, ResultWriter
from searcher.driver.state import SearchState
from searcher.proposers import WAIT, Proposal, Proposer, Wait
from searcher.records import REFUSED, Kind, Study, StudyKind, StudyTask, Trial, TrialState
from searcher.samplers.contract import Pending, observation_of
from searcher.settings.config import Config
from searcher.settings.plan import training_seed
from searcher.store import replay
from searcher.store.lease import Lease
from searcher.store.rows import Batch
from searcher.store.store import Store
from workers.contract import Health, Job, Outcome, Point, Verdict
from workers.pools.base import Pool
from workers.validation import validated

log = logging.getLogger("searcher")

WAKE_SECONDS = 1.0  # the longest wait for results before the loop renews the lease and asks whether to stop
MAX_PLACED = 100  # trials that one transaction begins, cites or refuses
MAX_ASKED = 100  # times that a sampler is asked for one trial if it proposes functions that the study has already
MAX_AHEAD = 8  # proposals made while workers train, so that a free worker does not wait for the sampler


class StopAsked(SearcherError):
    """`searcher stop` ended a session; the study can be resumed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a search after a transaction.

    Counts include earlier sessions unless stated otherwise. In an outage they include results that the database does
    not have yet.

    Attributes:
        total: number of trials that the study will have.
        counts: trials that have ended, by state.
        proposed: number of trials proposed so far, which is the number of the study's rows.
        unique: number of different functions among them.
        trained: number of trials that a worker trained.
        session_done: number of trials that ended in this session.
        seconds: length of this session.
        best: the best trained trial; None if there is none yet.
        ended: trials that ended since the last progress.
        outage: the outage, while the database does not answer.
        waiting, running: numbers of trials that have not ended.
        workers_lost: number of workers that died in this session.
        again: trials whose run failed since the last progress and that will run again.
        mirrors: number of trials that `--skip-mirrors` left untrained.
        commits: how many seconds each transaction since the last progress took.
        study: the name of the study.
        design: whether the study is a design, which compares functions over all its seeds. Its best trial says nothing.
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
    design: bool = False

    @property
    def done(self) -> int:
        """Trials that have ended."""
        return self.counts.total()


class Search:
    """One session of one study: it begins with the trials in the store and ends at the study's total.

    Args:
        lease: the right to write; the caller holds it, and the session renews it.
        config: says how the search is run.
        proposer: a new proposer; the session first tells it every judged trial of the study.
        pool: runs the jobs.
        should_stop: called about once a second; if it returns True the session ends, and the study can be resumed.
        clock: returns seconds; only differences are used.

    Attributes:
        exhausted: True once the proposer has nothing more to propose.
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
        self._writer = ResultWriter(store, lease, study)
        self._proposer, self._pool, self._should_stop = proposer, pool, should_stop
        self._pruner = pruner_of(config, study.task)
        self._state = SearchState(study, training_seed=training_seed(config))
        self._mirrors = Mirrors(self._state, config.search.skip_mirrors)
        self._failures = Failures(config.run.max_retries)
        self._started = self._last_marked = clock()
        self._proposals: deque[Trial] = deque()  # made ahead, not yet in the store
        self.exhausted = False
        self._recorded = True  # False while this object knows something that neither store nor journal has
        self._more_to_place = False  # True if the last transaction had no room for all trials that could begin
        self._most_deferred = max(MAX_PLACED, pool.capacity)
        self._session_done = self._workers_lost = 0
        self._again: list[Trial] = []  # as in Progress
        self._data_digests: dict[int, str] = {}  # by task configuration; empty until a worker has read the data

    def run(self) -> Generator[Progress, None, None]:
        """Run until the total, the time-out or a request to stop. Yield after every transaction that changed something,
        and about once a second in an outage.

        Raises:
            LeaseLost: another driver has taken the study over.
            StopAsked: `searcher stop` was called before the study was complete.
            EveryTrialFails: the first trainings all failed in the same way.
            StoreError: the database has failed; everything written before is kept.
        """
        restored = self._restore()
        outage: Outage | None = None
        try:
            while restored and not self._stopping() and self._has_work():
                batch, submitted, ended = Batch(), list[Trial](), list[Trial]()
                ready = self._wait() if self._state.running else []
                self._recorded = False
                self._collect(ready, batch, ended)
                if self._can_begin() and self._writer.has_room:
                    self._fill_pool(batch, submitted, ended)
                elif self._writer.outage and not self._state.running:
                    self._writer.wait(WAKE_SECONDS)
                self._settle_suspects(batch, ended)
                self._writer.put(batch)
                self._recorded = True
                self._pool.submit(*map(self._job, submitted))
                if outage or batch or self._writer.outage:
                    progress = self._progress(ended)
                    outage = progress.outage
                    yield progress
                self._failures.check(self._store.typed(self._state.study.name))
                self._propose_ahead()
            if outage:
                yield self._progress([])
            if self._time_is_up():
                log.info(
                    "the time is up (%g s) with %d of %d trials decided",
                    self._config.run.timeout,
                    *self._ended_and_total(),
                )
            elif self.exhausted and self._state.study.kind is StudyKind.DESIGN:
                log.info("every function is decided, after %d of at most %d trainings", *self._ended_and_total())
            elif self.exhausted:
                log.warning("there is nothing more to propose: %d of %d trials are decided", *self._ended_and_total())
        finally:
            with closing(self._writer):
                self._reopen_running()
        done, total = self._ended_and_total()
        if self._writer.asked_to_stop and done < total:
            raise StopAsked("stopped, as `searcher stop` has asked")

    # Beginning and end ------------------------------------------------------------------------------------------------

    def _restore(self) -> bool:
        """Read the trials of earlier sessions from the store; trials that were left running wait again. For a long
        study this takes a while, and the lease is renewed meanwhile. Return False if a request to stop came first."""
        self._writer.open()
        study, batch = self._state.study, Batch()
        tasks = self._store.study(study.name).tasks  # read again: a journal may have added digests
        self._data_digests = {task.number: task.data_digest for task in tasks}
        keys = PresentKeys(study)
        for trial, curve in replay.ended(self._store, study, curves=self._pruner is not None):
            self._state.finish(trial, keys.of(trial))
            self._tell(trial, curve)
            if self._clock() - self._last_marked >= WAKE_SECONDS:
                self._last_marked = self._clock()
                self._writer.put(Batch())
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
        self._writer.put(batch)
        keys.log_changes(self._store.typed(study.name))
        return True

    def _reopen_running(self) -> None:
        """Set running trials back to WAITING. This is not needed for correctness: the next session does the same, for
        example after a second Ctrl-C, where the store does not know yet which trials run."""
        if not self._recorded:
            return
        batch = Batch()
        for trial in self._state.running.values():
            if trial.state is TrialState.RUNNING:
                batch.changed.append((TrialState.RUNNING, replace(trial, state=TrialState.WAITING)))
        self._writer.put(batch)

    def _stopping(self) -> bool:
        return self._should_stop() or self._writer.asked_to_stop

    def _has_work(self) -> bool:
        return bool(self._state.running or self._can_begin() or self._writer.outage or self._failures.suspects)

    def _can_begin(self) -> bool:
        """Return True if there are trials to begin and the time is not up."""
        return not self._time_is_up() and (bool(self._state.waiting or self._proposals) or self._may_propose())

    def _time_is_up(self) -> bool:
        return 0 < self._config.run.timeout < self._clock() - self._started

    def _ended_and_total(self) -> tuple[int, int]:
        return self._state.counts.total(), self._state.study.n_trials

    def _may_propose(self) -> bool:
        return not self.exhausted and self._next_number() < self._state.study.n_trials

    def _next_number(self) -> int:
        return self._state.proposed + len(self._proposals)

    # One turn ---------------------------------------------------------------------------------------------------------

    def _wait(self) -> list[tuple[Job, Outcome]]:
        seconds, self._more_to_place = 0.0 if self._more_to_place else WAKE_SECONDS, False
        return [(job, self._validated(job, outcome)) for job, outcome in self._pool.wait(seconds)]

    def _validated(self, job: Job, outcome: Outcome) -> Outcome:
        task = self._task(self._state.running[job.number])
        return validated(outcome, task.declared, task.objective.name)

    def _task(self, trial: Trial) -> StudyTask:
        return self._state.study.tasks[trial.task_config]

    def _job(self, trial: Trial) -> Job:
        return job_of(trial, self._task(trial), self._data_digests[trial.task_config], self._config, self._pruner)

    def _collect(self, ready: Sequence[tuple[Job, Outcome]], batch: Batch, ended: list[Trial]) -> None:
        """Record the outcomes that the pool returned."""
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
        if self._clock() - self._last_marked >= WAKE_SECONDS:
            self._mark_running(batch)

    def _settle_suspects(self, batch: Batch, ended: list[Trial]) -> None:
        """End the suspects whose failure is now final."""
        for trial, outcome in self._failures.settled(nothing_left=not (self._state.running or self._can_begin())):
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
        if outcome.learned:
            batch.learned[trial.number] = outcome.learned
        self._record_end(done, ended, outcome.curve)

    def _on_our_data(self, trial: Trial, outcome: Outcome, batch: Batch) -> Outcome:
        """Return the outcome, or FAILED if its data differ from the study's. The first outcome of a task configuration
        decides which data these are."""
        known, found = self._data_digests[trial.task_config], outcome.data_digest
        if not known and found:
            self._data_digests[trial.task_config] = batch.data_digests[trial.task_config] = known = found
        if found in ("", known):
            return outcome
        reason = f"{outcome.worker} has other data (digest {found}) than the study ({known})"
        return Outcome(Verdict.FAILED, reason, seconds=outcome.seconds, worker=outcome.worker)

    def _mark_running(self, batch: Batch) -> None:
        """Set the trials that run to RUNNING. It happens about once a second, so trainings of a few milliseconds are
        never marked."""
        self._last_marked = self._clock()
        for trial in self._state.running.values():
            if trial.state is TrialState.WAITING:
                running = replace(trial, state=TrialState.RUNNING)
                batch.changed.append((TrialState.WAITING, running))
                self._state.running[trial.number] = running

    def _fill_pool(self, batch: Batch, submitted: list[Trial], ended: list[Trial]) -> None:
        """Fill the pool, first with trials that wait, then with new proposals. Known functions are cited and trials
        that the pre-flight or `--skip-mirrors` refuses are recorded; neither are trained. A trial that a running
        training will decide is deferred until that training ends."""
        state, begun = self._state, self._clock()
        before = state.deferred_trials
        for _ in range(MAX_PLACED):
            new = not state.waiting
            if new and self._clock() - begun > WAKE_SECONDS:  # the sampler is slow, and the lease must be renewed
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
                self._record_end(placed, ended)
            elif awaited := self._mirrors.awaited(trial):
                state.defer(trial, awaited)
            else:
                state.start(trial)
                submitted.append(trial)
        else:
            self._more_to_place = state.deferred_trials < before + MAX_PLACED

    def _propose_ahead(self) -> None:
        """Make proposals while workers train. With a pool of one job at a time none are made ahead, so that each
        proposal is made with all earlier results known."""
        wanted = min(MAX_AHEAD, self._pool.capacity + 1) if self._pool.capacity > 1 else 0
        end = self._clock() + WAKE_SECONDS
        while len(self._proposals) < wanted and self._clock() < end and (trial := self._propose()):
            self._proposals.append(trial)

    def _next_proposal(self) -> Trial | None:
        """Return the next new trial and count it as a row of the study."""
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
            self.exhausted = True
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
        """Return the proposer's answer. If a sampler proposes a function that the study has already, ask it again with
        that proposal among the pending trials, until it repeats itself or was asked `MAX_ASKED` times. A sampler that
        ignores pending trials repeats itself at once, and its proposal becomes a citation."""
        pending, rejected = tuple(self._state.pending.values()), list[Pending]()
        for _ in range(MAX_ASKED):
            proposal = self._proposer.ask(number, (*pending, *rejected))
            if not isinstance(proposal, Proposal) or self._state.study.kind is StudyKind.DESIGN:
                break
            repeated = bool(rejected) and proposal.expression == rejected[-1].expression
            training = proposal.key, proposal.seed, proposal.task_config
            if repeated or self._state.identity_of(*training) not in self._state.functions:
                break
            rejected.append(Pending(number, proposal.expression, proposal.choices, *training))
        return proposal

    def _refusal(self, trial: Trial) -> str:
        """Say why the pre-flight refuses a candidate of a search; empty if it does not, or if the result is known."""
        state = self._state
        if (
            not self._config.search.preflight
            or state.study.kind is StudyKind.DESIGN
            or state.functions.get(state.identity(trial))
        ):
            return ""
        expression = parse(trial.expression)
        return preflight(expression) or breakdown(expression) or ""

    def _record_end(self, trial: Trial, ended: list[Trial], curve: Sequence[Point] = ()) -> None:
        self._state.finish(trial)
        self._session_done += 1
        if trial.trained and trial.state is not TrialState.FAILED:
            self._failures.worked()
        ended.append(trial)
        self._tell(trial, curve)

    def _tell(self, trial: Trial, curve: Sequence[Point]) -> None:
        if self._state.study.kind is StudyKind.DESIGN:
            self._proposer.tell(observation_of(trial, self._task(trial).objective))
        elif trial.state.judged:
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
            unique=state.unique,
            trained=state.trained,
            session_done=self._session_done,
            seconds=self._clock() - self._started,
            best=state.best,
            ended=tuple(ended),
            outage=self._writer.outage,
            waiting=len(state.waiting) + state.deferred_trials + self._failures.suspects,
            running=len(state.running),
            workers_lost=self._workers_lost,
            again=again,
            mirrors=state.mirrors,
            commits=self._writer.commits(),
            study=state.study.name,
            design=state.study.kind is StudyKind.DESIGN,
        )
