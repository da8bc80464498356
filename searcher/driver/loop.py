"""The loop: propose -> submit -> wait -> record -> tell. The only module that knows everyone.

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

from search_space import breakdown, key, preflight
from searcher import SearcherError
from searcher.driver.keys import PresentKeys
from searcher.driver.mirrors import Mirrors
from searcher.driver.outage import Outage, Outbox
from searcher.driver.state import Book
from searcher.pruners import PRUNERS, Pruner
from searcher.records import REFUSED, Kind, Study, Trial, TrialState
from searcher.samplers.base import Sampler
from searcher.settings.config import Config
from searcher.settings.plan import grammar_of
from searcher.store import replay
from searcher.store.lease import Lease
from searcher.store.rows import Batch
from searcher.store.store import Store
from workers.contract import Epoch, Health, Job, Outcome, Verdict
from workers.pools.base import Pool
from workers.validation import validated

log = logging.getLogger("searcher")

WAKE_SECONDS = 1.0  # how often the loop looks up while children train: renews the lease, hears a wish to stop
AT_ONCE = 100  # most trials placed in one transaction
AHEAD = 8  # most proposals thought of while children train, so that a free worker does not wait for the sampler
HOPELESS = 3  # trainings that fail in the same way, with none that does not, before a session gives up
# Settings of the study that every job has unchanged.
OF_ALL_JOBS = (
    *("dataset", "data_dir", "limit_train", "limit_val", "standardise", "split_seed"),
    *("model", "width", "model_kwargs", "match", "recipe", "primitives", "compile"),
    *("checkpoint_dir", "checkpoint_seconds"),
)


class EveryTrialFails(SearcherError):
    """All trainings of a session have failed in the same way: it lies not with the functions."""


class StopAsked(SearcherError):
    """`searcher stop` has ended a session; the study is ready to go on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is, after a transaction.

    `counts` are of finished trials by state; `proposed` of all rows; `unique` of different functions among them;
    `trained` of those that a worker trained; `mirrors` of those that `--skip-mirrors` left untrained. All include
    earlier sessions, except `session_done`, the trials that ended in the `seconds` of this one, and `workers_lost`.
    `waiting` and `running` trials have not ended. New since the last progress: the trials that have `ended`, those
    whose run failed and that run `again`, and the seconds that each of the `commits` took. In an `outage` the database
    is behind all this.
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

    @property
    def done(self) -> int:
        return self.counts.total()


class Search:
    """One session of one study, from what the store holds to the study's total.

    Args:
        lease: the right to write, held by the caller and renewed here.
        sampler: fresh; it is told every judged trial of the study first.
        should_stop: asked about once a second; true ends the session with the study ready to go on.
        clock: seconds, of which the search only takes differences.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        study: Study,
        config: Config,
        sampler: Sampler,
        pool: Pool,
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._config, self._clock = store, config, clock
        self._outbox = Outbox(store, lease, study)
        self._sampler, self._pool, self._should_stop = sampler, pool, should_stop
        rule = PRUNERS[config.pruner]
        self._pruner = Pruner(rule, study.objective) if rule else None
        self._grammar = grammar_of(config)
        self._book = Book(study)
        self._mirrors = Mirrors(self._book, config.skip_mirrors)
        self._begun = self._marked = clock()
        self._ahead: deque[Trial] = deque()  # proposed, not yet in the store
        self._exhausted = False
        self._settled = True  # whether the store, or the journal, has all that was entered here
        self._hurry = False  # whether there is more to place than one transaction takes
        self._most_postponed = max(AT_ONCE, pool.capacity)
        self._session_done = self._workers_lost = 0
        self._again: list[Trial] = []  # since the last progress
        self._worked = False  # whether any training of this session has come to a verdict
        self._failures: Counter[str] = Counter()  # of this session, by the first line of their reason
        self._suspects: list[tuple[Trial, Outcome]] = []  # failed, still open in the store: see `_is_suspect`
        self._data_digest = ""  # of the study's data; not known before a worker of a cluster has looked at them

    def run(self) -> Generator[Progress, None, None]:
        """Runs to the total, the time-out or a wish to stop; yields after every transaction that changed something, and
        now and then while the database does not answer.

        Raises:
            LeaseLost: another driver has taken the study over.
            StopAsked: `searcher stop` was called before the study was done.
            EveryTrialFails: so many trainings failed, and in such a way, that going on makes no sense.
            StoreError: the database has failed. Everything written until then stands.
        """
        restored = self._restore()
        behind: Outage | None = None
        try:
            while restored and not self._stopping() and self._has_work():
                batch, submitted, ended = Batch(), list[Trial](), list[Trial]()
                ready = self._wait() if self._book.flying else []
                self._settled = False
                self._collect(ready, batch, ended)
                if self._more() and self._outbox.has_room:
                    self._place(batch, submitted, ended)
                elif self._outbox.outage and not self._book.flying:
                    self._outbox.wait(WAKE_SECONDS)
                self._judge_suspects(batch, ended)
                self._outbox.put(batch)
                self._settled = True
                self._pool.submit(*map(self._job, submitted))
                if behind or batch or self._outbox.outage:
                    progress = self._progress(ended)
                    behind = progress.outage
                    yield progress
                self._give_up_if_hopeless()
                self._think_ahead()
            if behind:
                yield self._progress([])
            if self._late():
                log.info("the time is up (%g s) with %d of %d trials decided", self._config.timeout, *self._so_far())
            elif self._exhausted:
                log.warning("the sampler has nothing more to propose: %d of %d trials are decided", *self._so_far())
        finally:
            with closing(self._outbox):
                self._give_up_flying()
        done, total = self._so_far()
        if self._outbox.asked_to_stop and done < total:
            raise StopAsked("stopped, as `searcher stop` has asked")

    # Beginning and end ------------------------------------------------------------------------------------------------

    def _restore(self) -> bool:
        """Learns from the store what earlier sessions did; trials that they left running wait again. Of a long study
        that takes a while, in which the lease is kept; false if it was cut short by a wish to stop."""
        self._outbox.open()
        study, batch = self._book.study, Batch()
        self._data_digest = self._store.study(study.name).versions.get("data", "")  # a journal may have brought it
        keys = PresentKeys(study)
        for trial, curve in replay.ended(self._store, study, curves=self._pruner is not None):
            self._book.finish(trial, keys.of(trial))
            self._learn(trial, curve)
            if self._clock() - self._marked >= WAKE_SECONDS:
                self._marked = self._clock()
                self._outbox.put(Batch())
                if self._stopping():
                    return False
        for trial in replay.open_trials(self._store, study):
            waiting = replace(trial, state=TrialState.WAITING, key=keys.of(trial))
            self._book.functions.setdefault(waiting.key)
            if trial.state is TrialState.RUNNING:
                batch.changed.append((TrialState.RUNNING, waiting))
            self._book.queue.append(waiting)
        self._book.proposed = self._store.size(study)
        self._outbox.put(batch)
        keys.say_what_changed(self._store.typed(study.name))
        return True

    def _give_up_flying(self) -> None:
        """What was still running waits for the next session, which sees to it itself where this cannot be written, or
        where the end came (a second Ctrl-C) before the store had heard of what runs."""
        if not self._settled:
            return
        batch = Batch()
        for trial in self._book.flying.values():
            if trial.state is TrialState.RUNNING:
                batch.changed.append((TrialState.RUNNING, replace(trial, state=TrialState.WAITING)))
        self._outbox.put(batch)

    def _stopping(self) -> bool:
        return self._should_stop() or self._outbox.asked_to_stop

    def _has_work(self) -> bool:
        return bool(self._book.flying or self._more() or self._outbox.outage or self._suspects)

    def _more(self) -> bool:
        """Whether there is something to begin, and time for it."""
        return not self._late() and (bool(self._book.queue or self._ahead) or self._may_propose())

    def _late(self) -> bool:
        return 0 < self._config.timeout < self._clock() - self._begun

    def _so_far(self) -> tuple[int, int]:
        return self._book.counts.total(), self._book.study.n_trials

    def _may_propose(self) -> bool:
        return not self._exhausted and self._next_number() < self._book.study.n_trials

    def _next_number(self) -> int:
        return self._book.proposed + len(self._ahead)

    def _give_up_if_hopeless(self) -> None:
        if len(self._suspects) >= HOPELESS:
            (reason,) = self._failures
            typed, (first, _) = self._store.typed(self._book.study.name), self._suspects[0]
            raise EveryTrialFails(
                f"the first {len(self._suspects)} trials of this session all failed, in the same way: {reason}; "
                f"see: searcher trial {typed} {first.number}. They run again when the study goes on"
            )

    # One turn ---------------------------------------------------------------------------------------------------------

    def _wait(self) -> list[tuple[Job, Outcome]]:
        seconds, self._hurry = 0.0 if self._hurry else WAKE_SECONDS, False
        return [(job, validated(outcome)) for job, outcome in self._pool.wait(seconds)]

    def _collect(self, ready: Sequence[tuple[Job, Outcome]], batch: Batch, ended: list[Trial]) -> None:
        """Enters what the pool has given back."""
        for job, given in ready:
            trial = self._book.end(job.number)
            self._workers_lost += given.health is not Health.SOUND
            outcome = self._on_our_data(given, batch)
            if outcome.verdict is Verdict.FAILED and trial.retries < self._config.max_retries:
                again = replace(trial, state=TrialState.WAITING, retries=trial.retries + 1, reason=outcome.reason)
                batch.changed.append((trial.state, again))
                self._book.queue.append(again)
                self._again.append(again)
            elif self._is_suspect(outcome):
                still_open = replace(trial, state=TrialState.WAITING, reason=outcome.reason)
                batch.changed.append((trial.state, still_open))
                self._suspects.append((still_open, outcome))
            else:
                self._end(trial, outcome, batch, ended)
        if self._clock() - self._marked >= WAKE_SECONDS:
            self._mark_running(batch)

    def _is_suspect(self, outcome: Outcome) -> bool:
        """Whether it has failed in a way that may have nothing to do with the function: nothing has worked in this
        session, and all has failed alike. (A worker that died says nothing about the next one.)"""
        if outcome.verdict is not Verdict.FAILED or outcome.health is Health.LOST:
            return False
        self._failures[outcome.reason.partition("\n")[0][:500]] += 1
        return not self._worked and len(self._failures) == 1

    def _judge_suspects(self, batch: Batch, ended: list[Trial]) -> None:
        """Fail the suspects once something has worked or failed in another way, or nothing is left to try."""
        nothing_left = len(self._suspects) < HOPELESS and not (self._book.flying or self._more())
        if self._worked or len(self._failures) > 1 or nothing_left:
            for trial, outcome in self._suspects:
                self._end(trial, outcome, batch, ended)
            self._suspects.clear()

    def _end(self, trial: Trial, outcome: Outcome, batch: Batch, ended: list[Trial]) -> None:
        done = self._finished(trial, outcome)
        batch.changed.append((trial.state, done))
        if outcome.curve:
            batch.curves[trial.number] = outcome.curve
        self._enter(done, ended, outcome.curve)

    def _on_our_data(self, outcome: Outcome, batch: Batch) -> Outcome:
        """What was trained on other data than the study's has failed; the study's are those of its first outcome."""
        if not self._data_digest and outcome.data_digest:
            self._data_digest = batch.data_digest = outcome.data_digest
        if outcome.data_digest in ("", self._data_digest):
            return outcome
        reason = f"{outcome.worker} has other data (digest {outcome.data_digest}) than the study ({self._data_digest})"
        return Outcome(Verdict.FAILED, reason, seconds=outcome.seconds, worker=outcome.worker)

    def _mark_running(self, batch: Batch) -> None:
        """Says in the store what runs. About once a second: children of a few milliseconds go without."""
        self._marked = self._clock()
        for trial in self._book.flying.values():
            if trial.state is TrialState.WAITING:
                running = replace(trial, state=TrialState.RUNNING)
                batch.changed.append((TrialState.WAITING, running))
                self._book.flying[trial.number] = running

    def _place(self, batch: Batch, submitted: list[Trial], ended: list[Trial]) -> None:
        """Fill the pool: first with trials that wait, then with new proposals. A known function is cited, and what the
        pre-flight or `--skip-mirrors` refuses is recorded; neither is trained. A trial that a running training will
        decide is postponed until that ends."""
        book, begun = self._book, self._clock()
        before = book.postponed
        for _ in range(AT_ONCE):
            new = not book.queue
            if new and self._clock() - begun > WAKE_SECONDS:  # a slow sampler; the lease is to be renewed
                self._hurry = True
                break
            if len(book.flying) >= self._pool.capacity or (new and book.postponed >= self._most_postponed):
                break
            trial = self._next_proposal() if new else book.queue.popleft()
            if trial is None:
                break
            placed = self._mirrors.decided(book.decided(trial))
            if new:
                batch.added.append(placed)
            elif placed.state.finished:
                batch.changed.append((TrialState.WAITING, placed))
            if placed.state.finished:
                self._enter(placed, ended)
            elif awaited := self._mirrors.awaited(trial):
                book.postpone(trial, awaited)
            else:
                book.begin(trial)
                submitted.append(trial)
        else:
            self._hurry = book.postponed < before + AT_ONCE

    def _think_ahead(self) -> None:
        """Proposes while children train. With a pool of one job at a time proposals wait, to know all results."""
        wanted = min(AHEAD, self._pool.capacity + 1) if self._pool.capacity > 1 else 0
        end = self._clock() + WAKE_SECONDS
        while len(self._ahead) < wanted and self._clock() < end and (trial := self._propose()):
            self._ahead.append(trial)

    def _next_proposal(self) -> Trial | None:
        """The next new trial, from here on a row of the study."""
        trial = self._ahead.popleft() if self._ahead else self._propose()
        if trial:
            self._book.proposed += 1
            self._book.functions.setdefault(trial.key)
        return trial

    def _propose(self) -> Trial | None:
        if not self._may_propose():
            return None
        number = self._next_number()
        choices = self._sampler.ask(number)
        if choices is None:
            self._exhausted = True
            return None
        expression = self._grammar.decode(choices)
        trial = Trial(number, Kind.CANDIDATE, str(expression), key(expression), self._config.seed, choices=choices)
        untested = self._config.preflight and not self._book.functions.get(trial.key)
        if untested and (refusal := preflight(expression) or breakdown(expression)):
            return replace(trial, state=TrialState.INFEASIBLE, reason=REFUSED + refusal)
        return trial

    # Small things -----------------------------------------------------------------------------------------------------

    def _finished(self, trial: Trial, outcome: Outcome) -> Trial:
        return replace(
            trial,
            state=TrialState(outcome.verdict.value),
            reason=outcome.reason,
            val_loss=outcome.val_loss,
            val_acc=outcome.val_acc,
            parameters=outcome.parameters,
            seconds=outcome.seconds,
            worker=outcome.worker,
            finish_order=self._book.finished,
        )

    def _enter(self, trial: Trial, ended: list[Trial], curve: Sequence[Epoch] = ()) -> None:
        self._book.finish(trial)
        self._session_done += 1
        self._worked |= trial.trained and trial.state is not TrialState.FAILED
        ended.append(trial)
        self._learn(trial, curve)

    def _learn(self, trial: Trial, curve: Sequence[Epoch]) -> None:
        if trial.state.judged:
            if told := self._mirrors.told(trial):
                self._sampler.tell(told)
            if self._pruner:
                self._pruner.tell(trial, curve)

    def _job(self, trial: Trial) -> Job:
        config = self._config
        pruner = self._pruner if trial.kind is Kind.CANDIDATE else None  # baselines are there to be compared with
        return Job(
            number=trial.number,
            expression=trial.expression,
            seed=trial.seed,
            data_digest=self._data_digest,
            timeout_seconds=config.trial_timeout,
            cutoffs=pruner.cutoffs() if pruner else (),
            guess_epoch=pruner.first_rung if pruner else 0,
            **{name: getattr(config, name) for name in OF_ALL_JOBS},
        )

    def _progress(self, ended: list[Trial]) -> Progress:
        book = self._book
        again, self._again = tuple(self._again), []
        return Progress(
            total=book.study.n_trials,
            counts=Counter(book.counts),
            proposed=book.proposed,
            unique=len(book.functions),
            trained=book.trained,
            session_done=self._session_done,
            seconds=self._clock() - self._begun,
            best=book.best,
            ended=tuple(ended),
            outage=self._outbox.outage,
            waiting=len(book.queue) + book.postponed + len(self._suspects),
            running=len(book.flying),
            workers_lost=self._workers_lost,
            again=again,
            mirrors=book.mirrors,
            commits=self._outbox.commits(),
        )
