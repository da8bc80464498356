"""The loop: propose -> submit -> wait -> record -> tell. The only module that knows everyone.

One transaction records what has ended and what comes next; only then is the next submitted. So whatever is killed, the
store holds every acknowledged result and the row of everything that runs, and a search goes on from the store alone.
While the database does not answer, a journal on this machine takes its place (`searcher/outbox.py`).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from search_space import BASELINES, Grammar, baseline, extended, key, load_primitives, parse, preflight, space
from searcher import SearcherError
from searcher.config import Config
from searcher.outbox import Outage, Outbox
from searcher.pruners import PRUNERS, Pruner
from searcher.samplers.base import Sampler
from searcher.store import Batch, Lease, Store
from searcher.trial import Kind, Study, Trial, TrialState
from workers.job import Epoch, Job, Outcome, Verdict
from workers.pool import Pool

WAKE_SECONDS = 1.0  # how often the loop looks up while children train: renews the lease, hears a wish to stop
CITED_AT_ONCE = 100  # most trials answered from the store in one transaction
AHEAD = 8  # most proposals thought of while children train, so that a free worker does not wait for the sampler


HOPELESS = 3  # trainings that fail in the same way, with none that does not, before a session gives up


class EveryTrialFails(SearcherError):
    """All trainings of a session have failed in the same way: it lies not with the functions."""


class StopAsked(SearcherError):
    """`searcher stop` has ended a session; the study is ready to go on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is, after a transaction.

    `counts` are of finished trials by state; `proposed` of all rows; `unique` of different functions among them;
    `trained` of those that a worker trained. All include earlier sessions, except `session_done`, the trials that ended
    in the `seconds` of this one. In an `outage` the database is behind them.
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

    @property
    def done(self) -> int:
        return self.counts.total()


@dataclass(slots=True)
class _Book:
    """What the loop knows of its study, in memory: every row is in it, unfinished ones in `queue` or `flying`."""

    study: Study
    judged: dict[str, Trial] = field(default_factory=dict)  # by key: the trial that others cite
    queue: deque[Trial] = field(default_factory=deque)  # WAITING, to be placed
    flying: dict[int, Trial] = field(default_factory=dict)  # handed to the pool
    counts: Counter[TrialState] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    proposed: int = 0  # rows; the next number
    finished: int = 0  # the next finish_order
    trained: int = 0
    best: Trial | None = None

    def finish(self, trial: Trial) -> None:
        """Enters a finished trial."""
        self.finished = max(self.finished, (trial.finish_order or 0) + 1)
        self.counts[trial.state] += 1
        self.trained += trial.trained
        if trial.state.judged and trial.cites is None:
            self.judged.setdefault(trial.key, trial)
        if trial.state is TrialState.COMPLETE and (self.best is None or self._better(trial, self.best)):
            self.best = trial

    def _better(self, one: Trial, other: Trial) -> bool:
        name = self.study.objective
        gain = (getattr(other, name) or 0.0) - (getattr(one, name) or 0.0)
        return gain > 0 if name == "val_loss" else gain < 0


class Search:
    """One session of one study, from what the store holds to the study's total.

    Args:
        lease: the right to write, held by the caller and renewed here.
        sampler: fresh; it is told every judged trial of the study first.
        should_stop: asked about once a second; true ends the session with the study ready to go on.
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
    ) -> None:
        self._store, self._config = store, config
        self._outbox = Outbox(store, lease, study)
        self._sampler, self._pool, self._should_stop = sampler, pool, should_stop
        rule = PRUNERS[config.pruner]
        self._pruner = Pruner(rule, study.objective) if rule else None
        self._grammar = grammar_of(config)
        self._book = _Book(study)
        self._begun = self._marked = time.monotonic()
        self._ahead: deque[Trial] = deque()  # proposed, not yet in the store
        self._exhausted = False
        self._session_done = 0
        self._worked = False  # whether any training of this session has come to a verdict
        self._failures: Counter[str] = Counter()  # by the first line of their reason

    def run(self) -> Iterator[Progress]:
        """Runs to the total, the time-out or a wish to stop; yields after every transaction that changed something, and
        now and then while the database does not answer.

        Raises:
            LeaseLost: another driver has taken the study over.
            StopAsked: `searcher stop` was called before the study was done.
            EveryTrialFails: so many trainings failed, and in such a way, that going on makes no sense.
            StoreError: the database has failed. Everything written until then stands.
        """
        self._restore()
        behind: Outage | None = None
        try:
            while not self._stopping() and (self._book.flying or self._more() or self._outbox.outage):
                batch = Batch()
                submitted: list[Trial] = []
                ended: list[Trial] = []
                if self._book.flying:
                    self._collect(batch, ended)
                if self._more() and self._outbox.has_room:
                    self._place(batch, submitted, ended)
                elif self._outbox.outage and not self._book.flying:
                    self._outbox.wait(WAKE_SECONDS)
                self._outbox.put(batch)
                self._pool.submit(*map(self._job, submitted))
                if behind or batch or self._outbox.outage:
                    progress = self._progress(ended)
                    behind = progress.outage
                    yield progress
                self._give_up_if_hopeless()
                self._think_ahead()
            if behind:
                yield self._progress([])
        finally:
            self._give_up_flying()
            self._outbox.close()
        if self._outbox.asked_to_stop and self._book.counts.total() < self._book.study.n_trials:
            raise StopAsked("stopped, as `searcher stop` has asked")

    # Beginning and end ------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        """Learns from the store what earlier sessions did; trials that they left running wait again."""
        self._outbox.open()
        batch = Batch()
        trials = self._store.trials(self._book.study)
        curves = self._store.curves(self._book.study) if self._pruner else {}
        for trial in sorted((t for t in trials if t.state.finished), key=lambda t: t.finish_order or 0):
            self._book.finish(trial)
            self._learn(trial, curves.get(trial.number, ()))
        for trial in trials:
            self._book.keys.add(trial.key)
            if trial.state.finished:
                continue
            waiting = replace(trial, state=TrialState.WAITING)
            if trial.state is TrialState.RUNNING:
                batch.changed.append((TrialState.RUNNING, waiting))
            self._book.queue.append(waiting)
        self._book.proposed = len(trials)
        self._outbox.put(batch)

    def _give_up_flying(self) -> None:
        """What was still running waits for the next session (which sees to it itself if the store is out of reach)."""
        batch = Batch()
        for trial in self._book.flying.values():
            if trial.state is TrialState.RUNNING:
                batch.changed.append((TrialState.RUNNING, replace(trial, state=TrialState.WAITING)))
        self._outbox.put(batch)

    def _stopping(self) -> bool:
        return self._should_stop() or self._outbox.asked_to_stop

    def _more(self) -> bool:
        """Whether there is something to begin, and time for it."""
        late = self._config.timeout and time.monotonic() - self._begun > self._config.timeout
        return not late and (bool(self._book.queue or self._ahead) or self._may_propose())

    def _may_propose(self) -> bool:
        return not self._exhausted and self._next_number() < self._book.study.n_trials

    def _next_number(self) -> int:
        return self._book.proposed + len(self._ahead)

    def _give_up_if_hopeless(self) -> None:
        if not self._worked and len(self._failures) == 1 and self._failures.total() >= HOPELESS:
            (reason,) = self._failures
            raise EveryTrialFails(
                f"the first {self._failures.total()} trials of this session all failed, in the same way: {reason}; "
                f"see: searcher trial {self._book.study.name} NUMBER"
            )

    # One turn ---------------------------------------------------------------------------------------------------------

    def _collect(self, batch: Batch, ended: list[Trial]) -> None:
        """Waits for the pool, and enters what it gives back."""
        for job, outcome in self._pool.wait(WAKE_SECONDS):
            trial = self._book.flying.pop(job.number)
            if outcome.verdict is Verdict.FAILED and trial.retries < self._config.max_retries:
                again = replace(trial, state=TrialState.WAITING, retries=trial.retries + 1, reason=outcome.reason)
                batch.changed.append((trial.state, again))
                self._book.queue.append(again)
                continue
            done = self._finished(trial, outcome)
            batch.changed.append((trial.state, done))
            if outcome.curve:
                batch.curves[trial.number] = outcome.curve
            self._enter(done, ended, outcome.curve)
        if time.monotonic() - self._marked >= WAKE_SECONDS:
            self._mark_running(batch)

    def _mark_running(self, batch: Batch) -> None:
        """Says in the store what runs. About once a second: children of a few milliseconds go without."""
        self._marked = time.monotonic()
        for trial in self._book.flying.values():
            if trial.state is TrialState.WAITING:
                running = replace(trial, state=TrialState.RUNNING)
                batch.changed.append((TrialState.WAITING, running))
                self._book.flying[trial.number] = running

    def _place(self, batch: Batch, submitted: list[Trial], ended: list[Trial]) -> None:
        """Fills the pool: first with trials that wait, then with new proposals. What is known is cited and what the
        pre-flight refuses is recorded, neither is trained."""
        postponed: deque[Trial] = deque()
        for _ in range(CITED_AT_ONCE):
            if len(self._book.flying) >= self._pool.capacity:
                break
            new = not self._book.queue
            trial = self._next_proposal() if new else self._book.queue.popleft()
            if trial is None:
                break
            placed = self._decided(trial)
            if new:
                batch.added.append(placed)
            elif placed.state.finished:
                batch.changed.append((TrialState.WAITING, placed))
            if placed.state.finished:
                self._enter(placed, ended)
            elif any(trial.key == other.key for other in self._book.flying.values()):
                postponed.append(trial)  # the same function is being trained: its result will be cited
            else:
                self._book.flying[trial.number] = trial
                submitted.append(trial)
        self._book.queue.extend(postponed)

    def _think_ahead(self) -> None:
        """Proposes while children train. With a pool of one job at a time proposals wait, to know all results."""
        wanted = min(AHEAD, self._pool.capacity + 1) if self._pool.capacity > 1 else 0
        while len(self._ahead) < wanted and (trial := self._propose()):
            self._ahead.append(trial)

    def _next_proposal(self) -> Trial | None:
        """The next new trial, from here on a row of the study."""
        trial = self._ahead.popleft() if self._ahead else self._propose()
        if trial:
            self._book.proposed += 1
            self._book.keys.add(trial.key)
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
        if self._config.preflight and trial.key not in self._book.judged and (refusal := preflight(expression)):
            return replace(trial, state=TrialState.INFEASIBLE, reason=f"not trained: {refusal}")
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

    def _decided(self, trial: Trial) -> Trial:
        """A trial as it is entered: that of a function judged before cites it, one that was refused stands as it is."""
        known = self._book.judged.get(trial.key)
        if known is None:
            return replace(trial, finish_order=self._book.finished) if trial.state.finished else trial
        return replace(
            trial,
            state=known.state,
            reason=known.reason,
            cites=known.number,
            val_loss=known.val_loss,
            val_acc=known.val_acc,
            parameters=known.parameters,
            finish_order=self._book.finished,
        )

    def _enter(self, trial: Trial, ended: list[Trial], curve: Sequence[Epoch] = ()) -> None:
        self._book.finish(trial)
        self._session_done += 1
        if trial.state is TrialState.FAILED and trial.trained:  # a worker that died says nothing about the next one
            self._failures[trial.reason.partition("\n")[0]] += 1
        self._worked |= trial.trained and trial.state is not TrialState.FAILED
        ended.append(trial)
        self._learn(trial, curve)

    def _learn(self, trial: Trial, curve: Sequence[Epoch]) -> None:
        if trial.state.judged:
            self._sampler.tell(trial)
            if self._pruner:
                self._pruner.tell(trial, curve)

    def _job(self, trial: Trial) -> Job:
        config = self._config
        pruner = self._pruner if trial.kind is Kind.CANDIDATE else None  # baselines are there to be compared with
        return Job(
            number=trial.number,
            expression=trial.expression,
            dataset=config.dataset,
            data_dir=config.data_dir,
            limit_train=config.limit_train,
            model=config.model,
            width=config.width,
            model_kwargs=config.model_kwargs,
            recipe=config.recipe,
            seed=trial.seed,
            split_seed=config.split_seed,
            primitives=config.primitives,
            compile=config.compile,
            timeout_seconds=config.trial_timeout,
            cutoffs=pruner.cutoffs() if pruner else (),
            guess_epoch=pruner.first_rung if pruner else 0,
            checkpoint_dir=config.checkpoint_dir,
            checkpoint_seconds=config.checkpoint_seconds,
        )

    def _progress(self, ended: list[Trial]) -> Progress:
        book = self._book
        return Progress(
            total=book.study.n_trials,
            counts=Counter(book.counts),
            proposed=book.proposed,
            unique=len(book.keys),
            trained=book.trained,
            session_done=self._session_done,
            seconds=time.monotonic() - self._begun,
            best=book.best,
            ended=tuple(ended),
            outage=self._outbox.outage,
        )


def grammar_of(config: Config) -> Grammar:
    """The search space of a study.

    Raises:
        SpaceError: an unknown space, units that it has not, an unknown primitive, a module that registers none.
    """
    whole = extended(space(config.space, config.units), load_primitives(config.primitives))
    return replace(whole, unary=config.unary or whole.unary, binary=config.binary or whole.binary)


def baseline_trials(config: Config) -> list[Trial]:
    """A new study's first trials: as many of the chosen functions, known by name or written out, as fit into half of
    its total.

    Raises:
        SpaceError: an unknown baseline. ParseError: one written out that is no expression.
    """
    load_primitives(config.primitives)
    names = tuple(BASELINES) if config.baselines == ("all",) else config.baselines
    chosen = [name for name in names if name != "none"][: config.n_trials // 2]
    return [_baseline_trial(number, name, config.seed) for number, name in enumerate(chosen)]


def _baseline_trial(number: int, name: str, seed: int) -> Trial:
    """`x` and names of known functions stand for these, anything else for itself. Maxout is no expression."""
    if name == "maxout":
        text, found = "maxout(2)", "maxout(2)"
    else:
        tree = parse(baseline(name).expression if name.isidentifier() and name != "x" else name)
        text, found = str(tree), key(tree)
    return Trial(number, Kind.BASELINE, text, found, seed, name=name if name.isidentifier() else "own")
