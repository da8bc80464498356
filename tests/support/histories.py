"""Compare a store with a model of it, by random histories."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from searcher.records import Kind, Study, Trial, TrialState
from searcher.store import schema
from searcher.store.database import StoreError
from searcher.store.lease import Lease, LeaseLost, NotDriven, Position, StudyBusy
from searcher.store.rows import Batch
from searcher.store.store import Store
from tests.support.harness import Tell
from tests.support.made import create, point, result
from workers.contract import Point

losses = st.floats(-10, 10, width=16)
_OPEN: dict[str, tuple[Store, Store]] = {}
OPEN = (TrialState.WAITING, TrialState.RUNNING)
CLOSED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE, TrialState.FAILED)


@dataclass
class Model:
    """What a study is, as plain values."""

    trials: dict[int, Trial] = field(default_factory=dict)
    curves: dict[int, list[Point]] = field(default_factory=dict)
    generation: int = 0
    holder: str = ""
    live: bool = False  # from being taken to being given back
    asked: int = -1  # the generation that was asked to stop
    position: Position = Position(0, 0)
    total: int = 10

    def allows(self, lease: Lease, batch: Batch) -> bool:
        numbers = [trial.number for trial in batch.added]
        orders = [t.finish_order for t in self.trials.values() if t.finish_order is not None]
        ending = [t.finish_order for t in (*batch.added, *(t for _, t in batch.changed)) if t.finish_order is not None]
        return (
            lease.generation == self.generation
            and self.live
            and not self.trials.keys() & set(numbers)
            and len(set(numbers)) == len(numbers)
            and len(set(orders + ending)) == len(orders) + len(ending)
            and all(t.number in self.trials and self.trials[t.number].state is old for old, t in batch.changed)
        )

    def apply(self, lease: Lease, batch: Batch) -> None:
        self.trials |= {trial.number: trial for trial in batch.added}
        self.trials |= {trial.number: trial for _, trial in batch.changed}
        self.curves |= {number: list(curve) for number, curve in batch.curves.items()}
        if batch.serial:
            self.position = Position(batch.serial, lease.writer)

    def board(self) -> list[tuple[int, str, int, float]]:
        """Rank, key, trainings and mean loss of each function."""
        by_key: dict[str, list[Trial]] = {}
        for trial in sorted(self.trials.values(), key=lambda t: t.number):
            if trial.state is TrialState.COMPLETE and trial.cites is None:
                by_key.setdefault(trial.key, []).append(trial)
        means = {key: sum(t.metrics["val_loss"] for t in ts) / len(ts) for key, ts in by_key.items()}
        accs = {key: sum(t.metrics["val_acc"] for t in ts) / len(ts) for key, ts in by_key.items()}
        ranked = sorted(by_key, key=lambda key: (means[key], -accs[key], by_key[key][0].number))
        return [(rank, key, len(by_key[key]), means[key]) for rank, key in enumerate(ranked, 1)]


class StoreMachine(RuleBasedStateMachine):
    """Two drivers in turn, or at once, as far as the store lets them."""

    url: str
    histories: ClassVar[int]  # that have ended
    tell: ClassVar[Tell]

    def __init__(self) -> None:
        super().__init__()
        self.store, self.reader = shared(self.url)
        name = uuid.uuid4().hex
        self.study: Study = create(self.store, name, 10, "val_loss", {"sampler": "random"}, {})
        self.model = Model()
        self.leases: list[Lease] = []
        self.serial = 0

    def teardown(self) -> None:
        """Thousands of histories share a database: what one leaves makes the next ones slower."""
        with self.store._writer.begin() as connection:
            for table in (schema.point, schema.trial, schema.tally, schema.lease, schema.task_config):
                connection.execute(sa.delete(table).where(table.c.study_id == self.study.id))
            connection.execute(sa.delete(schema.study).where(schema.study.c.id == self.study.id))
        machine = type(self)
        machine.histories += 1
        machine.tell(machine.histories)

    # Drivers

    @rule(holder=st.sampled_from("AB"), evict=st.booleans())
    def acquire(self, holder: str, evict: bool) -> None:
        generation = self.model.generation if evict else None
        if self.model.live and not evict:
            with pytest.raises(StudyBusy, match=f"driven by {self.model.holder}"):
                self.store.acquire(self.study, holder)
            return
        lease = self.store.acquire(self.study, holder, evict=generation)
        self.model.generation += 1
        self.model.holder, self.model.live = holder, True
        assert lease.generation == self.model.generation
        self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.store.release(lease)
        if lease.generation == self.model.generation:
            self.model.live = False

    @rule()
    def ask_to_stop(self) -> None:
        if not self.model.live:
            with pytest.raises(NotDriven):
                self.store.request_stop(self.study)
            return
        assert self.store.request_stop(self.study).asked_to_stop
        self.model.asked = self.model.generation

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), more=st.integers(0, 5))
    def extend(self, data: st.DataObject, more: int) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        total = self.model.total + more
        if lease.generation != self.model.generation or not self.model.live:
            with pytest.raises(LeaseLost):
                self.store.extend(lease, total)
            return
        self.store.extend(lease, total)
        self.model.total = total

    # Batches

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), numbered=st.booleans())
    def commit(self, data: st.DataObject, numbered: bool) -> None:
        lease = data.draw(st.sampled_from(self.leases[-3:]))
        self.serial += numbered
        batch = Batch(serial=self.serial if numbered else 0)
        taken = {t.finish_order for t in self.model.trials.values()}
        orders = (order for order in range(10**6) if order not in taken)
        first = len(self.model.trials)
        for number in range(first, first + data.draw(st.integers(0, 3))):
            batch.added.append(self.ended(data, self.fresh(data, number), orders))
        waiting = [t for t in self.model.trials.values() if t.state in OPEN]
        for trial in data.draw(st.lists(st.sampled_from(waiting), max_size=3, unique=True)) if waiting else []:
            batch.changed.append((trial.state, self.ended(data, trial, orders)))
        for trial in (*batch.added, *(t for _, t in batch.changed)):
            if trial.state is TrialState.COMPLETE and trial.cites is None:
                batch.curves[trial.number] = [
                    point(1, 2.0, 1.5, 0.25),
                    point(2, 1.0, trial.metrics["val_loss"], 0.5),
                ]
        self.spoil(data, batch)
        self.offer(lease, batch)

    def fresh(self, data: st.DataObject, number: int) -> Trial:
        key = data.draw(st.sampled_from("pqrst"))
        return Trial(number, Kind.CANDIDATE, f"x + {key}", key, 0, choices=(number, 1))

    def ended(self, data: st.DataObject, trial: Trial, orders: Iterator[int]) -> Trial:
        """In another state, finished or not."""
        state = data.draw(st.sampled_from((*OPEN, *CLOSED)))
        if state in OPEN:
            return replace(trial, state=state, retries=trial.retries + 1)
        done = replace(trial, state=state, finish_order=next(orders), reason="a reason", seconds=1.0)
        if state is TrialState.COMPLETE:
            cited = data.draw(st.sampled_from([None, None, 0]))
            return result(done, data.draw(losses), state=done.state, parameters=7, cites=cited)
        return done

    def spoil(self, data: st.DataObject, batch: Batch) -> None:
        """Now and then something that must not be written: then none of it may be."""
        how = data.draw(st.sampled_from(["not"] * 6 + ["number", "state", "order"]))
        present = list(self.model.trials.values())
        if how == "number" and present:
            batch.added.append(
                replace(data.draw(st.sampled_from(present)), state=TrialState.WAITING, finish_order=None)
            )
        if how == "state" and present:
            trial = data.draw(st.sampled_from(present))
            wrong = data.draw(st.sampled_from([state for state in TrialState if state is not trial.state]))
            batch.changed.append((wrong, replace(trial, reason="from the wrong state")))
        finished = [t for t in present if t.finish_order is not None]
        if how == "order" and finished and batch.added:
            twin = data.draw(st.sampled_from(finished))
            batch.added[-1] = replace(batch.added[-1], state=TrialState.FAILED, finish_order=twin.finish_order)

    def offer(self, lease: Lease, batch: Batch) -> None:
        twice = {t.number for _, t in batch.changed}
        if len(twice) < len(batch.changed):
            return  # one trial twice in a batch: no driver does that
        if self.model.allows(lease, batch):
            asked = self.store.commit(lease, batch)
            self.model.apply(lease, batch)
            assert asked == (self.model.asked == lease.generation)
            return
        with pytest.raises((LeaseLost, StoreError)):
            self.store.commit(lease, batch)

    # Readers, on a connection of their own

    @invariant()
    def trials_are_those_of_the_model(self) -> None:
        assert self.reader.trials(self.study) == [self.model.trials[n] for n in sorted(self.model.trials)]
        assert self.reader.curves(self.study) == self.model.curves

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        (summary,) = [s for s in self.reader.studies() if s.study.id == self.study.id]
        counts = Counter(trial.state for trial in self.model.trials.values())
        assert {state: n for state, n in summary.counts.items() if n} == dict(counts)
        assert summary.study.n_trials == self.model.total
        assert summary.holder == (self.model.holder if self.model.live else "")

    @invariant()
    def the_ranking_is_that_of_the_model(self) -> None:
        found = [(r["rank"], r["key"], r["n_trials"], r["val_loss"]) for r in self.reader.leaderboard(self.study)]
        expected = self.model.board()
        assert [row[:3] for row in found] == [row[:3] for row in expected]
        assert [row[3] for row in found] == pytest.approx([row[3] for row in expected])

    @invariant()
    def the_lease_is_that_of_the_model(self) -> None:
        driver = self.reader.driver(self.study)
        assert (driver.generation, driver.live) == (self.model.generation, self.model.live)
        assert driver.asked_to_stop == (self.model.asked == self.model.generation)
        for lease in self.leases[-2:]:
            if lease.generation == self.model.generation:
                assert self.store.position(lease) == self.model.position
            else:
                with pytest.raises(LeaseLost):
                    self.store.position(lease)


def shared(url: str) -> tuple[Store, Store]:
    """A store that writes and one that reads, the same for all histories."""
    if url not in _OPEN:
        _OPEN[url] = Store(url, create=True), Store(url)
    return _OPEN[url]


@contextmanager
def machine(url: str, tell: Tell) -> Iterator[type[StoreMachine]]:
    yield type("Machine", (StoreMachine,), {"url": url, "histories": 0, "tell": staticmethod(tell)})
    for store in _OPEN.pop(url, ()):
        store.close()


def explore(url: str, examples: int, steps: int, tell: Tell = lambda _: None, **more: Any) -> None:
    """Raises what Hypothesis raises, with the shortest history that it has found, where store and model differ."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    how = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks, **more
    )
    with machine(url, tell) as made:
        run_state_machine_as_test(made, settings=how)
