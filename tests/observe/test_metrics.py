"""The endpoint for Prometheus: it says what the store holds, takes no port by itself, and goes with the search."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from searcher import __version__
from searcher.driver import leases, session
from searcher.observe.metrics import Metrics, MetricsUnavailable, endpoint
from searcher.records import TrialState
from searcher.store.store import Store
from tests.support import ROOT
from tests.support.commands import Cli
from tests.support.outages import through_an_outage
from tests.support.searches import FAST, SETTINGS, judge, never
from workers.contract import Health, Job, Outcome, Verdict
from workers.pools.base import InlinePool

pytestmark = pytest.mark.slow

NAME = 'a "study"\\ of\nmine'
Samples = dict[tuple[str, ...], float]


def scraped(url: str) -> Samples:
    """Samples by their name and the labels besides the study's."""
    with urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = {**sample.labels}
            if sample.name.startswith("searcher_"):
                assert labels.pop("study") == NAME
            found[sample.name, *labels.values()] = sample.value
    assert all(math.isfinite(value) for value in found.values())
    return found


def test_the_numbers_are_those_of_the_search(store: Store) -> None:
    """Seen to fail with retries that are not counted, and with the best trial of the other objective."""
    failing: set[int] = set()

    def unsteady(job: Job) -> Outcome:
        if job.number % 7 == 5 and job.number not in failing:
            failing.add(job.number)
            return Outcome(Verdict.FAILED, "the worker process died", health=Health.LOST)
        return judge(job)

    settings = SETTINGS.replace(study_name=NAME, max_retries=2)
    study = session.create_study(store, settings)
    pool = CountingLosses(run=unsteady)
    with endpoint("127.0.0.1", 0) as (registry, url), leases.held_lease(store, study) as lease:
        metrics = Metrics(registry, study, lease)
        assert scraped(url)["searcher_retries_total",] == 0, "a search that has not begun has numbers too"
        assert not [name for name, *_ in scraped(url) if name.endswith("_created")]
        for n, progress in enumerate(session.search(store, lease, study, settings, pool, never)):
            metrics.update(progress)
            if n == 10:
                half = scraped(url)
        whole = scraped(url)
    with pytest.raises(URLError, match="refused"):
        urlopen(url, timeout=5)
    trials = store.trials(study)
    for state in TrialState:
        assert whole["searcher_trials", state.lower()] == sum(t.state is state for t in trials)
    best = min((t for t in trials if t.state is TrialState.COMPLETE), key=lambda t: t.rank_key)
    assert (
        whole["searcher_best_val_loss",] == best.metrics["val_loss"]
        and whole["searcher_best_val_acc",] == best.metrics["val_acc"]
    )
    assert whole["searcher_retries_total",] == whole["searcher_worker_deaths_total",] == len(failing) > 2
    assert whole["searcher_driver_info", "1", __version__] == 1
    assert whole["searcher_trials_wanted",] == 40 and whole["searcher_session_seconds",] > 0
    assert whole["searcher_commit_seconds_count",] > half["searcher_commit_seconds_count",] > 5
    assert 0 < whole["searcher_commit_seconds_sum",] < 600
    assert whole["searcher_outages_total",] == whole["searcher_outage_seconds",] == whole["searcher_held_results",] == 0
    assert half["searcher_trials", "running"] + half["searcher_trials", "waiting"] > 0
    assert half["searcher_trials_per_hour",] > 1000
    assert whole["process_resident_memory_bytes",] > 10**7


class CountingLosses(InlinePool):
    """Goes on after a loss, as a pool of processes does."""

    def wait(self, timeout_seconds: float) -> list[tuple[Job, Outcome]]:
        ended = super().wait(timeout_seconds)
        self._lost = ""
        return ended


def test_an_outage_shows(sqlite_url: str) -> None:
    def slow(job: Job) -> Outcome:
        time.sleep(0.05)
        return judge(job)

    store = Store(sqlite_url, create=True)
    settings = SETTINGS.replace(study_name=NAME, n_trials=60)
    study = session.create_study(store, settings)
    pool = InlinePool(run=slow)
    seen = []
    with endpoint("127.0.0.1", 0) as (registry, url), leases.held_lease(store, study) as lease:
        metrics = Metrics(registry, study, lease)
        searching = session.search(store, lease, study, settings, pool, never)
        for progress in through_an_outage(sqlite_url, searching):
            metrics.update(progress)
            seen.append(scraped(url))
    pool.close()
    store.close()
    assert max(numbers["searcher_outage_seconds",] for numbers in seen) > 1
    assert max(numbers["searcher_held_results",] for numbers in seen) > 10
    assert seen[-1]["searcher_outage_seconds",] == seen[-1]["searcher_held_results",] == 0
    assert seen[-1]["searcher_outages_total",] == 1


def test_a_port_that_is_taken_is_said_before_anything_is_written(cli: Cli, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli("launch", *FAST, "--n-trials", "2", "--metrics-port", port)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"127.0.0.1:{port} (Address already in use)" in done.stderr
    assert list(tmp_path.iterdir()) == []
    nowhere = cli("launch", *FAST, "--metrics-port", "0", "--metrics-host", "no.such.host.invalid")
    assert nowhere.returncode == 1 and nowhere.stderr.count("\n") == 1 and "--metrics-host" in nowhere.stderr
    useless = cli("launch", *FAST, "--metrics-host", "127.0.0.1")
    assert useless.returncode == 2 and useless.stderr.count("\n") == 1 and "--metrics-port" in useless.stderr
    with pytest.raises(MetricsUnavailable), endpoint("192.0.2.1", 0):
        pass


def test_a_free_port_is_said_and_the_endpoint_ends_with_the_search(cli: Cli) -> None:
    done = cli("launch", "--study-name", "s", *FAST, "--n-trials", "2", "--metrics-port", "0")
    assert done.returncode == 0
    (url,) = [line.removeprefix("metrics: ") for line in done.stderr.splitlines() if line.startswith("metrics: ")]
    assert url.startswith("http://127.0.0.1:") and url.endswith("/metrics")
    with pytest.raises(URLError):
        urlopen(url, timeout=5)


def descriptors() -> int:
    return psutil.Process().num_fds()


@pytest.mark.parametrize("half", [b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nHost: a\r\n", b"\xff" * 1000])
def test_half_sent_requests_do_not_take_the_descriptors(half: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """Row R8: 254 half-sent requests. Covers connections without a word, without the last line, and nonsense."""
    with endpoint("127.0.0.1", 0) as (_, url), ExitStack() as clients:
        port = int(url.split(":")[2].partition("/")[0])
        before = descriptors()
        for _ in range(100):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            client.sendall(half)
        with urlopen(url, timeout=20) as answer:
            assert answer.status == 200, "others are answered meanwhile"
        assert descriptors() - before - 100 <= 16, "each client is a descriptor of this process too"
    assert capfd.readouterr().err == ""


def test_a_client_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row R8: a time-out, and one for a client that does not read its answer."""
    monkeypatch.setattr("searcher.observe.metrics._Handler.timeout", 0.2)
    with endpoint("127.0.0.1", 0) as (_, url):
        port = int(url.split(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
            assert client.recv(1) == b"", "it is closed from the other side"


def test_a_search_outlives_half_sent_requests(tmp_path: Path) -> None:
    """Row R8: as a process with 256 descriptors."""
    command = [sys.executable, "-m", "cli", "launch", "--study-name", "s", *FAST, "--n-trials", "100"]
    limited = ["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh", *command, "--metrics-port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        subprocess.Popen(limited, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process,
        ExitStack() as clients,
    ):
        assert process.stderr
        url = next(line for line in process.stderr if line.startswith("metrics: "))
        port = int(url.split(":")[3].partition("/")[0])
        for _ in range(254):
            with suppress(OSError):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                client.sendall(b"GET /metrics HTTP/1.1\r\n")
        said = process.stderr.read()
        assert process.wait(300) == 0, said


def test_nothing_of_it_is_imported_unless_asked_for() -> None:
    code = "import sys, cli, searcher.driver.session, searcher.observe.progress; "
    code += "sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
