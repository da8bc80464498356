"""A search on a cluster: a real Ray head with its job server on loopback, token authentication on, and PostgreSQL."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
import pytest

from searcher.records import TrialState
from searcher.store.store import Store
from tests.support import ROOT, made
from tests.support.clusters import Cluster, http_status, plain_environment, running_cluster
from tests.support.made import image_job, measures
from workers.contract import Job, Outcome, Verdict
from workers.pools.ray_actors import RayPool
from workers.pools.ray_cluster import RayUnavailable, _on_gpus  # there are no GPUs here

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(jobs=True) as found:
        yield found


def _assert_complete(url: str, name: str, n_trials: int) -> None:
    store = Store(url)
    try:
        (summary,) = [summary for summary in store.studies() if summary.study.name == name]
        trials = store.trials(summary.study)
    finally:
        store.close()
    assert [trial.number for trial in trials] == list(range(n_trials))
    assert all(trial.state.finished for trial in trials)
    assert any(trial.state is TrialState.COMPLETE for trial in trials)
    assert summary.holder == ""
    assert re.fullmatch("[0-9a-f]{16}", summary.study.task.data_digest), "which a worker has told"


def test_a_ray_job_and_a_driver_outside_search_at_the_same_time(cluster: Cluster, postgresql_url: str) -> None:
    small = f"--n-trials 6 --sampler random --epochs 1 --workers 1 --storage {postgresql_url}".split()
    job = (sys.executable, "-m", "cli", "launch", "--address", "auto", "--study-name", "job", *small)
    outside = ("launch", "--address", cluster.address, "--study-name", "outside", *small)
    with ThreadPoolExecutor(2) as both:
        ends = both.submit(cluster.submit, *job), both.submit(cluster.searcher, *outside)
    for name, end in zip(("job", "outside"), ends, strict=True):
        done = end.result()
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Best by val_loss" in done.stdout
        _assert_complete(postgresql_url, name, 6)


def test_whoever_has_not_the_token_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    assert http_status(cluster, "") == 401
    assert http_status(cluster, "beef" * 16) == 403
    wrong = tmp_path / "token"
    wrong.write_text("beef" * 16)
    mark = tmp_path / "mark"
    job = cluster.submit("touch", str(mark), RAY_AUTH_TOKEN_PATH=str(wrong))
    assert job.returncode == 1
    assert "token" in job.stderr
    assert not mark.exists()


def test_gpus_that_a_cluster_has_not_are_missed_before_anything_is_written(cluster: Cluster, tmp_path: Path) -> None:
    database = tmp_path / "searcher.db"
    where = ("--address", cluster.address, "--storage", f"sqlite:///{database}")
    asked = cluster.searcher("launch", "--gpus-per-worker", "0.5", *where)
    assert asked.returncode == 1
    assert "searcher: 0.5 GPUs a worker were asked for, this Ray cluster has 0;" in asked.stderr
    assert not database.exists()


@pytest.mark.parametrize(
    ("gpus", "each", "workers"),
    [(2, 0.6, 2), (2, 0.5, 4), (1, 0.3, 3), (1, 0.1, 10), (2, 1, 2), (5, 2, 2), (0, 0.5, 0)],
)
def test_a_part_of_a_gpu_is_of_one_card(gpus: float, each: float, workers: int) -> None:
    """Seen to fail with GPUs divided as if they were one: Ray then never finds room for the third of (2, 0.6)."""
    assert _on_gpus(gpus, each) == workers


def test_a_closed_port_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(RayUnavailable, match=f"no Ray cluster answers at '{address}'"):
        RayPool(address=address)


def test_a_port_that_says_nothing_is_given_up() -> None:
    """In a process of its own, because the thread that Ray waits in cannot be ended."""
    give_up = "import sys; from workers.pools import ray_actors as p, ray_cluster as c; c.CONNECT_SECONDS = 2.0; "
    give_up += "p.RayPool(address=sys.argv[1])"
    with socket.create_server(("", 0)) as server:  # Ray looks for it at this machine's address, not on loopback
        address = f"127.0.0.1:{server.getsockname()[1]}"
        given_up = subprocess.run(
            [sys.executable, "-c", give_up, address],
            env=plain_environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert given_up.returncode == 1
    assert f"RayUnavailable: no Ray cluster answered at '{address}' within 2 s" in given_up.stderr.splitlines()[-1]


def look(job: Job) -> Outcome:
    """What a child sees of its environment."""
    return Outcome(Verdict.COMPLETE, " ".join(f"{name}={value}" for name, value in os.environ.items()), measures(0.5))


def test_workers_of_a_local_ray_have_no_way_into_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail with `ray.init` outside of `_local_environment`: every process of Ray's has the password."""
    from ray import cloudpickle

    for module in (sys.modules[__name__], made):  # workers cannot import a test
        cloudpickle.register_pickle_by_value(module)
    monkeypatch.setenv("SEARCHER_STORAGE", "postgresql://searcher:canary@host/searcher")
    monkeypatch.setenv("PGPASSWORD", "canary")
    pool = RayPool(1, 0, "local", 1, run=look)
    try:
        pool.submit(image_job(0, "sin(x)"))
        found: list[tuple[Job, Outcome]] = []
        while not found:
            found = pool.wait(10)
        processes = psutil.Process().children(recursive=True)
        assert any(process.name() == "raylet" for process in processes)
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # some of Ray's live for a moment
                assert "canary" not in str((process.environ(), process.cmdline())), process
    finally:
        pool.close()
    assert "canary" not in found[0][1].reason and "SEARCHER_STORAGE" not in found[0][1].reason
    assert "RAY_AUTH_MODE=token" in found[0][1].reason, "a local Ray listens on every interface"
    assert os.environ["PGPASSWORD"] == "canary", "the driver still has it"


# Ends as the CLI does, but says soon what it waits for.
IMPATIENT = "from workers.pools import ray_actors; ray_actors.MISSING_SECONDS = 0.5; import cli; cli.main()"


def impatient(cluster: Cluster, directory: Path, *flags: str) -> AbstractContextManager[subprocess.Popen[str]]:
    small = ["--study-name", "s", "--n-trials", "6", "--sampler", "random", "--epochs", "1", "--baselines", "relu"]
    where = ("--address", cluster.address, "--storage", f"sqlite:///{directory}/searcher.db")
    return cluster.driver("-c", IMPATIENT, "launch", *small, *where, *flags)


def test_more_workers_than_there_is_room_for_wait_and_say_so(cluster: Cluster, tmp_path: Path) -> None:
    """Seen to fail with `_report_missing_workers` never called."""
    with impatient(cluster, tmp_path, "--workers", "4") as driver:
        _, said = driver.communicate(timeout=300)
    assert driver.returncode == 0, said
    room = "waiting for room for 2 of 4 workers (1 CPU each; the cluster has 2 CPUs in all); start nodes, or stop"
    assert said.count(room) == 1
    _assert_complete(f"sqlite:///{tmp_path}/searcher.db", "s", 6)


def test_a_gpu_that_the_cluster_does_not_have_is_waited_for_until_a_node_brings_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Seen to fail with `check_gpus` called whatever --workers says."""
    with impatient(cluster, tmp_path, "--workers", "1", "--gpus-per-worker", "0.5") as driver:
        assert driver.stderr
        said = ""
        while "waiting for a GPU that the cluster does not have (1 of 1 workers, 1 CPU and 0.5 GPUs each)" not in said:
            line = driver.stderr.readline()
            assert line, said
            said += line
        node = cluster.join("--num-cpus 1 --num-gpus 1")
        _, rest = driver.communicate(timeout=300)
    node.end()
    assert driver.returncode == 0, said + rest
    _assert_complete(f"sqlite:///{tmp_path}/searcher.db", "s", 6)


SENT = """
import shutil, sys
from pathlib import Path
from search_space.modules import portable_files
from workers.contract import Job, TaskConfig
from workers.pools.ray_actors import RayPool

folder = Path(sys.argv[2])
task = TaskConfig(f"{folder}/mine.py:train")
pool = RayPool(1, 0, sys.argv[1], 1, code=portable_files(f"{folder}/mine.py"))
shutil.move(folder, f"{folder}-moved")  # stands for a node that does not have the folder
try:
    for job in (Job(0, "", task=task, describe=True), Job(1, "tanh(x)", task=task)):
        pool.submit(job)
        while not (ended := pool.wait(1)):
            pass
        print(ended[0][1].verdict, ended[0][1].metrics, ended[0][1].reason[:500])
finally:
    pool.close()
"""


def test_the_files_of_a_task_travel_to_nodes_that_do_not_have_them(cluster: Cluster, tmp_path: Path) -> None:
    """The file, a neighbour and a package. A neighbour with the name of a module of Python's stays where it is."""
    folder = tmp_path / "mine"
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "__init__.py").write_text("OFFSET = 0.25\n")
    (folder / "neighbour.py").write_text(
        "import torch\n\ndef value(module):\n    return module(torch.zeros(1, 4)).sum()\n"
    )
    (folder / "colorsys.py").write_text("raise RuntimeError('a file hides a module of Python')\n")
    (folder / "mine.py").write_text(
        "import colorsys\nfrom neighbour import value\nfrom parts import OFFSET\n\n"
        "def train(activation, report):\n    return {'val_mse': float(value(activation(4))) + OFFSET}\n"
        "train.metrics = {'val_mse': 'minimize'}\n"
    )
    sent = tmp_path / "sent.py"
    sent.write_text(SENT)
    with cluster.driver(str(sent), cluster.address, str(folder), PYTHONPATH=str(ROOT)) as process:
        out, errors = process.communicate(timeout=300)
    assert out.splitlines()[-2:] == ["COMPLETE {} ", "COMPLETE {'val_mse': 0.25} "], errors
