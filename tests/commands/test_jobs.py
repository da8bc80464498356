"""`searcher jobs` on a real cluster that asks for a token: a head without CPUs and with the database, and a node where
trials run, as in deploy/."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from searcher.integrations.ray_jobs import BadJob, command_of
from searcher.integrations.ray_jobs import _shown as shown_text  # jobs of other people
from searcher.store.store import Store
from tests.support.clusters import Cluster, running_cluster
from tests.support.commands import Cli

pytestmark = pytest.mark.slow

PASSWORD = "canary"
SMALL = ["--n-trials", "6", "--sampler", "random", "--epochs", "1", "--baselines", "relu", "--workers", "1"]


@dataclass(frozen=True)
class Service:
    cluster: Cluster
    storage: str

    def jobs(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        address = {"RAY_ADDRESS": "http://127.0.0.1:1", "SEARCHER_JOBS_ADDRESS": self.cluster.job_server}
        return self.cluster.searcher("jobs", *arguments, **address, **environment)

    def status(self, job: str) -> Mapping[str, str]:
        found: list[Mapping[str, str]] = json.loads(self.jobs("status", job, "-f", "json").stdout)
        return found[0]


@pytest.fixture(scope="module")
def service(postgresql_server: str) -> Iterator[Service]:
    engine = sa.create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE jobs"))
    engine.dispose()
    url = sa.make_url(postgresql_server).set(database="jobs", password=PASSWORD)
    storage = url.render_as_string(hide_password=False)
    with running_cluster("--num-cpus 0", jobs=True, SEARCHER_STORAGE=storage) as cluster:
        cluster.join("--num-cpus 1", without="SEARCHER_STORAGE")
        yield Service(cluster, storage)


def test_a_search_is_submitted_followed_and_looked_at(service: Service) -> None:
    """With SEARCHER_JOBS_ADDRESS, which goes before RAY_ADDRESS. Seen to fail with Ray's client left to prefer that."""
    done = service.jobs("submit", "--env", "COLUMNS=99", "--", "launch", "--study-name", "followed", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "Best by val_loss" in done.stdout
    (job,) = [word.rstrip(";") for word in done.stderr.split() if word.startswith("raysubmit_")]
    store = Store(service.storage)
    trials = store.trials(store.study("followed"))
    store.close()
    assert len(trials) == 6 and all(trial.state.finished for trial in trials)
    (row,) = [row for row in json.loads(service.jobs("list", "-f", "json").stdout) if row["id"] == job]
    assert row["command"].startswith("searcher launch --study-name followed")
    assert row == service.status(job) and row["status"] == "SUCCEEDED" and row["ended"] >= row["started"]
    assert "Best by val_loss" in service.jobs("logs", job).stdout
    assert service.jobs("stop", job).stdout == f"job {job} had ended before: SUCCEEDED\n"
    assert PASSWORD not in done.stdout + done.stderr + json.dumps(row)


def test_a_job_is_stopped_cleanly_and_no_worker_has_had_the_password(service: Service) -> None:
    """Seen to fail with no time between SIGTERM and SIGKILL, with the job's SEARCHER_RAY_ADDRESS left out (it starts a
    Ray of its own, on the head), and with the node started with SEARCHER_STORAGE."""
    study = ["launch", "--study-name", "stopped", "--n-trials", "500", *SMALL[2:]]
    job = service.jobs("submit", "--no-follow", "--", *study).stdout.strip()
    assert job.startswith("raysubmit_")
    store = Store(service.storage, create=True)
    end = time.monotonic() + 300
    while not any(
        t.state.finished for s in store.studies() if s.study.name == "stopped" for t in store.trials(s.study)
    ):
        assert time.monotonic() < end, service.jobs("logs", job).stdout
        time.sleep(0.1)
    node = service.cluster.others[0].started()
    assert any("Worker" in process.name() for process in node), [process.name() for process in node]
    for process in node:
        assert PASSWORD not in str((process.environ(), process.cmdline())), process
    assert service.jobs("stop", job).stdout == f"job {job} is STOPPED\n"
    assert "Stopped; nothing is lost." in service.jobs("logs", job).stdout
    (summary,) = [summary for summary in store.studies() if summary.study.name == "stopped"]
    store.close()
    assert summary.holder == "", "the lease is given back"


def test_a_job_that_fails_is_told(service: Service) -> None:
    done = service.jobs("submit", "--", "searcher", "top", "nobody")
    assert done.returncode == 1
    assert "nobody" in done.stdout and done.stderr.splitlines()[-1].endswith("is FAILED")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "it asks for a token; set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": "beef" * 16}, "the token is not the cluster's"),
        ({"RAY_AUTH_TOKEN_PATH": "/no/such/file"}, "RAY_AUTH_TOKEN_PATH is set but file cannot be opened or is empty"),
    ],
    ids=["none", "wrong", "no file"],
)
def test_who_has_not_the_token_is_told_so_in_one_line(
    service: Service, environment: Mapping[str, str], said: str
) -> None:
    refused = service.jobs("list", **environment)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"searcher: the Ray job server at '{service.cluster.job_server}' denies access: ")
    assert said in line


@pytest.mark.parametrize(
    "command", [["status", "none"], ["logs", "none"], ["logs", "none", "--follow"], ["stop", "none"]]
)
def test_a_job_that_is_not_there(service: Service, command: list[str]) -> None:
    missed = service.jobs(*command)
    assert (missed.returncode, missed.stdout) == (1, "")
    assert missed.stderr == (
        f"searcher: there is no job 'none' at {service.cluster.job_server}; see: searcher jobs list\n"
    )


def test_an_address_where_no_job_server_is(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEARCHER_JOBS_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("searcher.integrations.ray_jobs.ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        asked = cli("jobs", "list", "--address", f"http://127.0.0.1:{port}")
        assert asked.returncode == 1 and "does not answer within 0.5 s" in asked.stderr
    closed = cli("jobs", "list", "--address", f"http://127.0.0.1:{port}")
    assert closed.returncode == 1
    assert closed.stderr.startswith(f"searcher: no Ray cluster answers at 'http://127.0.0.1:{port}'")
    odd = cli("jobs", "list", "--address", "ftp://127.0.0.1")
    assert odd.returncode == 2 and "is not the address of a job server" in odd.stderr
    assert all(len(done.stderr.splitlines()) == 1 for done in (asked, closed, odd))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no command to submit"),
        (["--", "searcher"], "no command to submit"),
        (["--env", "X", "--", "studies"], "--env 'X' is not NAME=VALUE"),
        (["--", "launch", "--storage", "postgresql://u:hunter2@h/d"], "the command holds a password"),
        (["--", "launch", "--storage=postgresql://h/d?user=u&password=hunter2"], "the command holds a password"),
        (["--", "launch", "--storage=postgresql://u:hunter2/s@h/d"], "the command holds a password"),
        (["--", "launch", "--storage", "postgresql://u:p hunter2@h/d"], "the command holds a password"),
        (["--", "launch", "--storage", "postgresql://h/d?sslpassword=hunter2"], "the command holds a password"),
    ],
)
def test_what_is_asked_for_wrongly(cli: Cli, arguments: list[str], said: str) -> None:
    """Before anyone is asked for it: there is no server here."""
    refused = cli("jobs", "submit", "--address", "http://127.0.0.1:1", *arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("searcher: ") and said in refused.stderr and "hunter2" not in refused.stderr


def test_secrets_are_refused_in_the_environment(service: Service) -> None:
    for pair in ("PGPASSWORD=hunter2", "SEARCHER_STORAGE=postgresql://u:hunter2@h/d", "MY_TOKEN=hunter2"):
        refused = service.jobs("submit", "--env", pair, "--", "studies")
        assert refused.returncode == 2 and "looks like a secret" in refused.stderr and "hunter2" not in refused.stderr


def test_passwords_of_others_are_not_shown() -> None:
    for hidden in ("://u:hun/ter2@h/d", "://u:hun ter2@h/d", "://h/d?sslpassword=hun_ter2", "://h/d?password=hun_ter2"):
        shown = shown_text(f"searcher launch --storage 'postgresql{hidden}&x=1' --units 2")
        assert "hun" not in shown and "***" in shown and shown.startswith("searcher launch --storage 'postgresql://")
    assert shown_text("launch --address ray://head:10001 --units 2") == "launch --address ray://head:10001 --units 2"


def test_a_command_is_quoted_for_the_shell_that_runs_it() -> None:
    assert command_of(["searcher", "query", "SELECT '1'; rm"]) == "searcher query 'SELECT '\"'\"'1'\"'\"'; rm'"
    assert command_of(["launch", "--storage", "postgresql://u@h/d?passfile=/p"]).endswith(
        "'postgresql://u@h/d?passfile=/p'"
    )
    with pytest.raises(BadJob):
        command_of([])
