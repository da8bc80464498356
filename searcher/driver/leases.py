"""Take and hold the lease of a study: only its holder may drive the study."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from searcher.driver.process import holder, identity, is_dead
from searcher.observe import logs
from searcher.records import Study
from searcher.store.database import StoreUnavailable
from searcher.store.lease import Lease, LeaseLost, StudyBusy, in_words
from searcher.store.rows import Batch, edited
from searcher.store.store import LEASE_SECONDS, Store

MAX_EXPIRY = 86_400.0  # seconds; a lease that lasts longer was edited, even if the database's clock was set back

log = logging.getLogger("searcher")


@contextmanager
def held_lease(
    store: Store,
    study: Study,
    before_waiting: Callable[[StudyBusy], None] | None = None,
    *,
    wait: bool = False,
    drives: bool = True,
) -> Iterator[Lease]:
    """Hold the study's lease for the length of the block. The lease of a dead process is taken over: at once if it ran
    on this machine, otherwise when it expires.

    Args:
        before_waiting: called before the wait for a lease whose holder may be dead.
        wait: wait for a live holder too, until it has ended.
        drives: the holder runs trials. Otherwise it only changes the study, and its lease is not announced.

    Raises:
        StudyBusy: a live process holds the lease.
    """
    lease = _acquire(store, study, before_waiting, wait)
    first = lease.generation == 1  # a new study is announced elsewhere
    try:
        with logs.about(study.name):
            log.log(
                logging.INFO if drives and not first else logging.DEBUG,
                "this process drives study %s from here on, its driver number %d",
                study.name,
                lease.generation,
            )
            yield lease
    finally:
        try:
            store.release(lease)
        except StoreUnavailable as error:  # must not hide an exception of the block
            log.warning("%s; the study's lease expires by itself in %.0f s", error, LEASE_SECONDS)


@contextmanager
def renewed(store: Store, lease: Lease) -> Iterator[None]:
    """Renew the lease during a block that writes nothing: Ray, for example, can take longer to start than a lease
    lasts."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(LEASE_SECONDS / 3):
            with suppress(StoreUnavailable, LeaseLost):  # the search gets the same error, and reports it
                store.commit(lease, Batch())

    thread = threading.Thread(target=renew, name="searcher-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _acquire(store: Store, study: Study, before_waiting: Callable[[StudyBusy], None] | None, wait: bool) -> Lease:
    try:
        return _take(store, study)
    except StudyBusy as busy:
        first = busy
    if first.expires_in > MAX_EXPIRY:
        raise edited(study.name, f"its lease is to last {first.expires_in:.3g} s more, not {LEASE_SECONDS:.0f} s")
    if before_waiting:
        before_waiting(first)
    end = time.monotonic() + first.expires_in
    said = False
    while True:
        try:
            return _take(store, study)
        except StudyBusy as busy:
            renewed = time.monotonic() + busy.expires_in > end + 0.5
            lives = renewed or busy.generation != first.generation
            if lives and not wait:
                raise
            if lives and not said:
                log.warning("%s drives the study; this process goes on with it after that", in_words(busy.holder))
            said |= lives
            time.sleep(min(0.5, max(0.05, busy.expires_in)))


def _take(store: Store, study: Study) -> Lease:
    """Take the lease if it is free or its holder is known to be dead."""
    try:
        return store.acquire(study, holder(), identity())
    except StudyBusy as busy:
        if busy.process is None or not is_dead(busy.process):
            raise
        return store.acquire(study, holder(), identity(), evict=busy.generation)
