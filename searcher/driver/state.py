"""What the loop knows of its study, in memory."""

from __future__ import annotations

import sys
from collections import Counter, deque
from dataclasses import dataclass, field, replace

from searcher.records import Study, StudyKind, Trial, TrialState
from searcher.samplers.contract import Pending
from workers.contract import Metric


@dataclass(frozen=True, slots=True)
class Known:
    """The result of a function, as trials that cite it repeat it. A study has many of these, so `values` has no names:
    they are those of the metrics that the task declares, in order.

    `key` is the trial's key in the store. In a study that older rules keyed, today's key of the function is another one
    (searcher/driver/keys.py).
    """

    number: int
    key: str
    state: TrialState
    reason: str
    values: tuple[float | None, ...]
    parameters: int | None


@dataclass(slots=True)
class SearchState:
    """What the loop knows of its study.

    Trials that have ended are kept as counts and as `functions`, which later trials cite. Trials that have not ended
    are kept whole, in `waiting`, `running` or `deferred`.

    Attributes:
        functions: results by `identity`; None for a function that has not been judged yet.
        waiting: trials in the state WAITING that nothing stands in the way of.
        running: trials that were given to the pool, by number.
        deferred: trials that wait until the training of a function ends, by the identity of that training.
        deferred_trials: how many these are.
        pending: what samplers are told of trials that have not ended, by number; in the order of the numbers.
        counts: trials that have ended, by state.
        proposed: rows of the study, and so the number of the next trial.
        finished: the next `finish_order`.
        trained: trials that a worker trained.
        mirrors: trials left untrained as mirrors of others.
        best: the best trained trial, by the study's objective.
    """

    study: Study
    functions: dict[str, Known | None] = field(default_factory=dict)
    waiting: deque[Trial] = field(default_factory=deque)
    running: dict[int, Trial] = field(default_factory=dict)
    deferred: dict[str, list[Trial]] = field(default_factory=dict)
    deferred_trials: int = 0
    pending: dict[int, Pending] = field(default_factory=dict)
    counts: Counter[TrialState] = field(default_factory=Counter)
    proposed: int = 0
    finished: int = 0
    trained: int = 0
    mirrors: int = 0
    best: Trial | None = None

    def identity(self, trial: Trial, key: str = "") -> str:
        """Return what equal trainings have in common: the function, the seed and the task configuration. In a search
        the last two are the same for all trials. `key` is the function's key where the trial has an older one."""
        key = key or trial.key
        return key if self.study.kind is StudyKind.SEARCH else f"{key}/{trial.seed}/{trial.task_config}"

    def finish(self, trial: Trial, key: str = "") -> None:
        """Enter a finished trial. `key` is its function's key by today's rules, where the store has another one."""
        self.pending.pop(trial.number, None)
        self.finished = max(self.finished, (trial.finish_order or 0) + 1)
        self.counts[trial.state] += 1
        self.trained += trial.trained and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        self.mirrors += trial.left_untrained
        if trial.cites is None:  # else the function is known by the trial that it cites
            self._know(trial, self.identity(trial, key))
        if trial.state is TrialState.COMPLETE and (self.best is None or trial.rank_key[:2] < self.best.rank_key[:2]):
            self.best = trial

    def _know(self, trial: Trial, identity: str) -> None:
        known = self.functions.setdefault(identity)
        # A trial that was not trained says nothing about another way of writing its function.
        untried = trial.left_untrained or trial.refused
        if known is None and trial.state.judged and not untried:
            reason = sys.intern(trial.reason)  # thousands have the same
            values = tuple(trial.metrics.get(metric.name) for metric in self._metrics(trial))
            self.functions[identity] = Known(
                trial.number, trial.key, trial.state, reason, values if trial.metrics else (), trial.parameters
            )

    def result(self, trial: Trial, known: Known) -> Trial:
        """Return the trial with the state and the values of a known function."""
        metrics = self._metrics(trial)
        found = {m.name: value for m, value in zip(metrics, known.values, strict=False) if value is not None}
        return self.study.tasks[trial.task_config].judged(replace(trial, state=known.state), found)

    def _metrics(self, trial: Trial) -> tuple[Metric, ...]:
        return self.study.tasks[trial.task_config].declared.metrics

    def propose(self, trial: Trial) -> None:
        """Enter a trial that has been proposed and not judged."""
        self.pending[trial.number] = Pending(trial.number, trial.expression, trial.choices, trial.key)

    def start(self, trial: Trial) -> None:
        """Enter a trial that is given to the pool."""
        self.running[trial.number] = trial
        self.deferred[self.identity(trial)] = []

    def defer(self, trial: Trial, running: str) -> None:
        """Enter a trial that waits for the end of a running training; `running` is that training's identity."""
        self.deferred[running].append(trial)
        self.deferred_trials += 1

    def decided(self, trial: Trial) -> Trial:
        """Return a new or waiting trial as the store is to hold it. If its function was judged before, the trial cites
        that result. If the pre-flight refused it, it gets its `finish_order`."""
        known = self.functions.get(self.identity(trial))
        if known is None:
            return replace(trial, finish_order=self.finished) if trial.state.finished else trial
        return replace(
            self.result(trial, known),
            key=known.key,
            reason=known.reason,
            cites=known.number,
            parameters=known.parameters,
            finish_order=self.finished,
        )

    def stop(self, number: int) -> Trial:
        """Return the trial of that number, which the pool has given back. Trials that waited for its end wait to be
        placed now."""
        trial = self.running.pop(number)
        released = self.deferred.pop(self.identity(trial))
        self.deferred_trials -= len(released)
        self.waiting.extend(released)
        return trial
