"""Serve the metrics of a running search for Prometheus, over HTTP. Only a search with `--metrics-port` imports this
module, because it needs the extra `metrics`."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from searcher import SearcherError, __version__
from searcher.driver.loop import Progress
from searcher.records import Study, TrialState
from searcher.store.lease import Lease

try:
    from prometheus_client import (
        CollectorRegistry,
        Counter,
        Histogram,
        ProcessCollector,
        disable_created_metrics,
        make_wsgi_app,
    )
    from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError:
    raise SearcherError("--metrics-port needs prometheus-client: pip install 'activation-searcher[metrics]'") from None

COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
MAX_CONNECTIONS = 8  # at the same time; they must not use up the descriptors and threads that the search needs
CLIENT_SECONDS = 5.0  # how long a client may take for each read or write

log = logging.getLogger(__name__)


class MetricsUnavailable(SearcherError):
    """The metrics cannot be served at the address."""


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name in the standard library)
        """Log nothing: stderr has the progress of the search."""


class _Server(ThreadingMixIn, WSGIServer):
    """An HTTP server with a limited number of connections. If there are too many, the oldest is closed. So clients that
    never finish a request cannot use up the process's descriptors or block other clients."""

    daemon_threads = True
    request_queue_size = 128  # with the default of 5, some of many simultaneous clients must try again after a second

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        self._open: dict[Any, None] = {}  # oldest first
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            with self._lock, suppress(OSError, StopIteration):
                next(iter(self._open)).shutdown(socket.SHUT_RDWR)  # the connection's thread then closes it
            if not self._free.acquire(timeout=CLIENT_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            counted = request in self._open
            self._open.pop(request, None)
        super().shutdown_request(request)
        if counted:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 (as its base calls it)
        log.debug("a request for metrics from %s was not finished", client_address, exc_info=True)


@contextmanager
def endpoint(host: str, port: int) -> Iterator[tuple[CollectorRegistry, str]]:
    """Serve a registry of metrics for the length of the block. Yield the registry and the URL.

    Args:
        host: a name or an address of this machine.
        port: the port; 0 takes a free one.

    Raises:
        MetricsUnavailable: the address cannot be used.
    """
    # By default there is a gauge for each counter, with the time at which the counter was created.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    try:
        server = make_server(host, port, make_wsgi_app(registry), _Server, handler_class=_Handler)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a name of a machine"
        raise MetricsUnavailable(
            f"metrics cannot be served at {host}:{port} ({why}); give another --metrics-port, 0 for a free "
            "one, or an address of this machine as --metrics-host"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="searcher-metrics", daemon=True)
    thread.start()
    try:
        yield registry, f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Metrics(Collector):
    """The metrics of one search. Gauges are computed from the latest progress at each request."""

    def __init__(self, registry: CollectorRegistry, study: Study, lease: Lease) -> None:
        self._study, self._lease = study, lease
        self._latest: tuple[Progress, float] | None = None

        def counter(name: str, meaning: str) -> Counter:
            return Counter(f"searcher_{name}", meaning, ["study"], registry=registry).labels(study.name)

        self._outages = counter("outages", "Times the database stopped answering.")
        self._retries = counter("retries", "Runs that failed and are repeated.")
        self._deaths = counter("worker_deaths", "Workers that were lost and replaced.")
        meaning = "Time of a transaction that was written."
        self._commits = Histogram(
            "searcher_commit_seconds", meaning, ["study"], registry=registry, buckets=COMMIT_BUCKETS
        ).labels(study.name)
        registry.register(self)

    def update(self, progress: Progress) -> None:
        """Take the next progress of the search."""
        before = self._latest[0] if self._latest else None
        for seconds in progress.commits:
            self._commits.observe(seconds)
        if progress.outage and not (before and before.outage):
            self._outages.inc()
        self._retries.inc(len(progress.again))
        self._deaths.inc(progress.workers_lost - (before.workers_lost if before else 0))
        self._latest = progress, time.monotonic()

    def collect(self) -> Iterator[Metric]:
        driver = InfoMetricFamily("searcher_driver", "The process that drives the study.", labels=["study"])
        driver.add_metric([self._study.name], {"generation": str(self._lease.generation), "version": __version__})
        yield driver
        if self._latest is None:
            return
        progress, at = self._latest
        counts = {**progress.counts, TrialState.WAITING: progress.waiting, TrialState.RUNNING: progress.running}
        trials = GaugeMetricFamily("searcher_trials", "Trials by state.", labels=["study", "state"])
        for state in TrialState:
            trials.add_metric([self._study.name, state.lower()], counts.get(state, 0))
        yield trials
        for name, meaning, value in _gauges(progress, time.monotonic() - at, self._study):
            if value is not None:
                gauge = GaugeMetricFamily(f"searcher_{name}", meaning, labels=["study"])
                gauge.add_metric([self._study.name], value)
                yield gauge


def _gauges(progress: Progress, since: float, study: Study) -> Iterator[tuple[str, str, float | None]]:
    """Yield name, meaning and value of each gauge.

    Args:
        progress: the latest progress.
        since: seconds since that progress, during which no trial has ended.
    """
    seconds = progress.seconds + since
    outage, best = progress.outage, progress.best
    rate = 3600 * progress.session_done / max(seconds, 1e-9)
    yield "trials_wanted", "The study's total of trials.", progress.total
    yield "trials_per_hour", "Trials decided per hour, in this session.", rate
    yield "session_seconds", "Length of this session.", seconds
    yield (
        "outage_seconds",
        "How long the database has not answered; 0 if it does.",
        outage.seconds + since if outage else 0,
    )
    yield "held_results", "Results that are not in the database yet.", outage.held if outage else 0
    for metric in study.task.shown:
        name = f"best_{metric.name}"
        yield name, "Value of the best trial by the study's objective.", best.metrics.get(metric.name) if best else None
