"""The loop's knowledge of its study, in memory."""

from __future__ import annotations

import sys
from collections import Counter, deque
from dataclasses import dataclass, field, replace

from searcher.records import Study, StudyKind, Trial, TrialState
from searcher.samplers.contract import Pending
from workers.contract import Metric


@dataclass(frozen=True, slots=True)
class Known:
    """The result of a function, which trials that cite it repeat.

    Attributes:
        number: the trial that has the result.
        key: the key of that trial in the store. In a study with keys of older rules, the function's key by today's
            rules may differ (searcher/driver/keys.py).
        state, reason, parameters: as in the trial.
        values: the values of the metrics that the task declares, in that order. A study has many results, so the names
            are not repeated here.
    """

    number: int
    key: str
    state: TrialState
    reason: str
    values: tuple[float | None, ...]
    parameters: int | None


@dataclass(slots=True)
class SearchState:
    """The loop's knowledge of its study.

    Trials that have ended are kept as counts and as `functions`, which later trials cite. Trials that have not ended
    are kept whole, in `waiting`, `running` or `deferred`.

    Attributes:
        functions: results by `identity`; None for a function that has not been judged yet.
        waiting: trials that can begin now.
        running: trials that were given to the pool, by number.
        deferred: trials that wait until a running training ends, by the identity of that training.
        deferred_trials: number of trials in `deferred`.
        pending: the trials that have not ended, as samplers get them; by number, in ascending order.
        counts: number of trials that have ended, by state.
        proposed: number of the study's rows, which is the number of the next trial.
        finished: the next `finish_order`.
        trained: number of trials that a worker trained.
        mirrors: number of trials left untrained as mirrors of others.
        best: the best trained trial, by the study's objective.
        training_seed: the seed of all trainings of a search, except where leaders are trained again.
        replicates: number of such trainings.
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
    training_seed: int = 0
    replicates: int = 0

    def identity(self, trial: Trial, key: str = "") -> str:
        """Return a text that is the same for equal trainings only: it has the function's key, the seed and the task
        configuration. In a search the last two are the same for nearly all trials, and then left out.

        Args:
            key: the function's key by today's rules, if the trial has one of older rules.
        """
        return self.identity_of(key or trial.key, trial.seed, trial.task_config)

    def identity_of(self, key: str, seed: int, task_config: int) -> str:
        """Return the identity of a training of the function with this key."""
        usual = self.study.kind is StudyKind.SEARCH and seed == self.training_seed
        return key if usual else f"{key}/{seed}/{task_config}"

    @property
    def unique(self) -> int:
        """Number of different functions among the proposed trials of a search; of different trainings in a design."""
        return len(self.functions) - self.replicates

    def finish(self, trial: Trial, key: str = "") -> None:
        """Enter a finished trial. `key` is its function's key by today's rules, if the store has another one."""
        self.pending.pop(trial.number, None)
        self.finished = max(self.finished, (trial.finish_order or 0) + 1)
        self.counts[trial.state] += 1
        self.trained += trial.trained and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        self.mirrors += trial.left_untrained
        if trial.cites is None:  # otherwise the cited trial has entered the function
            self._know(trial, self.identity(trial, key))
        if trial.state is TrialState.COMPLETE and (self.best is None or trial.rank_key[:2] < self.best.rank_key[:2]):
            self.best = trial

    def _know(self, trial: Trial, identity: str) -> None:
        known = self.functions.setdefault(identity)
        # A trial that was not trained does not decide another expression of the same function.
        untried = trial.left_untrained or trial.refused
        if known is None and trial.state.judged and not untried:
            reason = sys.intern(trial.reason)  # thousands of trials may have the same reason
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
        """Enter a trial that was proposed and is not judged yet."""
        self.replicates += self.study.kind is StudyKind.SEARCH and trial.seed != self.training_seed
        self.pending[trial.number] = Pending(
            trial.number, trial.expression, trial.choices, trial.key, trial.seed, trial.task_config
        )

    def start(self, trial: Trial) -> None:
        """Enter a trial that goes to the pool."""
        self.running[trial.number] = trial
        self.deferred[self.identity(trial)] = []

    def defer(self, trial: Trial, running: str) -> None:
        """Enter a trial that waits for the end of a running training; `running` is that training's identity."""
        self.deferred[running].append(trial)
        self.deferred_trials += 1

    def decided(self, trial: Trial) -> Trial:
        """Return a new or waiting trial as it will be stored. If its function was judged before, the trial cites that
        result. If the pre-flight refused it, it gets its `finish_order`."""
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
        """Remove a trial that the pool has returned from `running`, and return it. Trials that were deferred until its
        end can begin now."""
        trial = self.running.pop(number)
        released = self.deferred.pop(self.identity(trial))
        self.deferred_trials -= len(released)
        self.waiting.extend(released)
        return trial
