"""`python -m benchmarks.gpu`, on a CPU and with tiny sizes: no figure here says anything about a machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.gpu import driving, measuring, mps
from benchmarks.gpu.__main__ import _parser, main  # its help lists what can be measured
from benchmarks.gpu.driving import MEASUREMENTS, Measurement
from benchmarks.gpu.loops import _extrapolated  # with times of a machine that is not here
from benchmarks.gpu.measuring import FULL, Run, Skip, interleaved
from benchmarks.gpu.results import append, read, spread
from tests.support import bare
from tests.support.pools import eventually

pytestmark = pytest.mark.slow

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
SMALL = ("--device", "cpu", "--small", "--minutes", "0.5")


def cases(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["record"] == "case"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a whole run where only torch and NumPy are installed."""
    folder = tmp_path_factory.mktemp("gpu")
    done = bare.run(bare.module("benchmarks.gpu", *SMALL, "--out", "gpu.jsonl"), folder)
    assert done.returncode == 0, done.stderr
    return folder / "gpu.jsonl"


def test_every_measurement_has_a_figure_or_a_reason(results: Path) -> None:
    header, *rest = read([results])
    assert header["record"] == "header"
    assert header["torch"] == torch.__version__ and header["device"] == "cpu" and header["small"] and header["date"]
    assert rest[-1]["record"] == "end"
    found = cases(rest)
    assert {record["measurement"] for record in found} == set(MEASUREMENTS)
    for record in found:
        assert bool(record.get("figures")) != bool(record.get("reason")), record
        assert record["status"] in (("measured",) if "figures" in record else ("skipped", "failed"))
    assert any(record["status"] == "measured" for record in found)


def test_what_needs_a_gpu_says_so(results: Path) -> None:
    reasons = {r["measurement"]: r["reason"] for r in cases(read([results])) if r["status"] == "skipped"}
    assert "need a GPU" in reasons["captured"] or "time is up" in reasons["captured"]
    assert "GPU" in reasons["mps"] or "time is up" in reasons["mps"]
    assert "GPU" in reasons["memory"] or "time is up" in reasons["memory"]


def test_a_kill_leaves_lines_that_can_be_read_and_no_processes(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    words = bare.module("benchmarks.gpu", *SMALL, "--only", "loop", "paper", "processes", "--out", str(path))
    driver = subprocess.Popen(words, cwd=tmp_path, env=bare.environment(tmp_path), stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: path.exists() and cases(read([path])))
        started = psutil.Process(driver.pid).children(recursive=True)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    records = read([path])
    assert records[0]["record"] == "header"
    assert cases(records)
    assert not psutil.wait_procs(started, timeout=30)[1]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    append(path, {"record": "end", "seconds": 1.0})
    with path.open("a") as file:
        file.write('{"record": "case", "measurem')
    assert read([path]) == [{"record": "end", "seconds": 1.0}]


@pytest.mark.parametrize("line", ["{", "[]", '{"a": 1}', "null"])
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpu.jsonl"
    path.write_text(line + "\n" + '{"record": "end"}\n')
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", "--plot", str(path), "-o", str(tmp_path / "out")])
    assert main() == 1
    assert f"{path}, line 1" in capsys.readouterr().err


def of_case(case: str, work: Callable[[], dict[str, Any]]) -> Callable[[Run], Iterator[Any]]:
    return lambda _: iter([(case, work)])


def failing() -> dict[str, Any]:
    raise ValueError("too bad")


def skipping() -> dict[str, Any]:
    raise Skip("not here")


def hanging() -> dict[str, Any]:
    time.sleep(600)
    return {}


def dying() -> dict[str, Any]:
    signal.raise_signal(signal.SIGKILL)
    return {}


def broken(_: Run) -> Iterator[Any]:
    raise RuntimeError("before any case")
    yield


def test_what_goes_wrong_is_recorded_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measurements = {
        "failing": of_case("one", failing),
        "skipping": of_case("one", skipping),
        "infinite": of_case("one", lambda: {"figure": float("inf")}),
        "broken": broken,
        "dying": of_case("one", dying),
        "hanging": of_case("one", hanging),
        "late": of_case("one", lambda: {"figure": 1}),
    }
    known = {name: Measurement(found, 0.1) for name, found in measurements.items()}
    monkeypatch.setattr(driving, "MEASUREMENTS", known)
    monkeypatch.setattr(driving, "GRACE_SECONDS", 0.0)
    path, soon = tmp_path / "gpu.jsonl", {"hanging": 0.3, "late": -1.0}
    for name in measurements:
        driving._in_own_process(name, Run("cpu", True, time.monotonic() + soon.get(name, 60.0)), path)
    found = {r["measurement"]: (r["status"], r.get("reason", "")) for r in read([path])}
    assert found["failing"] == ("failed", "ValueError: too bad")
    assert found["skipping"] == ("skipped", "not here")
    assert found["infinite"][0] == "failed" and "JSON" in found["infinite"][1]
    assert found["broken"] == ("failed", "RuntimeError: before any case")
    assert found["dying"] == ("failed", "its process died with status -9")
    assert found["hanging"][0] == "failed" and "was killed" in found["hanging"][1]
    assert found["late"][0] == "skipped" and "the time is up" in found["late"][1]


def test_time_that_one_measurement_leaves_goes_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str, float] = {}
    monkeypatch.setattr(driving, "_in_own_process", lambda name, run, path: limits.update({name: run.until}))
    begun = time.monotonic()
    driving.drive(list(MEASUREMENTS), "cpu", True, 10.0, "fork", tmp_path / "gpu.jsonl")
    assert list(limits) == list(MEASUREMENTS)
    assert sorted(limits.values()) == list(limits.values())
    assert 0.9 * 600 < limits["precision"] - begun < 600
    assert sum(row.share for row in MEASUREMENTS.values()) == pytest.approx(0.95)


def test_a_measured_share_of_the_steps_is_extrapolated_and_marked() -> None:
    begun = [5.0 + step * 0.5 for step in range(10)] + [10.0 + step * 0.01 for step in range(100)]
    found = _extrapolated(begun, started=4.0, settled=10, wanted=1000)
    assert found["extrapolated"] is True and found["steps_measured"] == 109
    assert found["seconds"] == pytest.approx(6.0 + 990 * 0.01)
    with pytest.raises(Skip, match="only 15 steps"):
        _extrapolated(begun[:16], 4.0, 10, 1000)


def test_sides_take_turns_and_a_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    sides = {"one": lambda: calls.append("one"), "other": lambda: calls.append("other")}
    times = interleaved(sides, Run("cpu", True, time.monotonic() + 60), 60)
    assert {len(taken) for taken in times.values()} == {measuring.SMALL.rounds}
    turns = [set(calls[at : at + 2]) for at in range(0, len(calls), 2)]
    assert turns == [{"one", "other"}] * (measuring.SMALL.rounds + 1)


def test_a_comparison_that_does_not_fit_is_left_out() -> None:
    with pytest.raises(Skip, match="3 rounds do not fit"):
        interleaved({"slow": lambda: time.sleep(0.05)}, Run("cpu", True, time.monotonic() + 60), 0.01)


FAKE_MPS = """#!/bin/sh
echo "$@" >> "$CUDA_MPS_LOG_DIRECTORY/../../calls"
if [ "$1" = -f ]; then
    while [ ! -e "$CUDA_MPS_PIPE_DIRECTORY/quit" ]; do sleep 0.05; done
    exit 0
fi
read command
echo "$command" >> "$CUDA_MPS_LOG_DIRECTORY/../../calls"
case "$command" in
    get_server_list) echo 4711 ;;
    quit*) touch "$CUDA_MPS_PIPE_DIRECTORY/quit" ;;
esac
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a stand-in for NVIDIA's program goes, on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / mps.CONTROL


def test_mps_is_started_in_folders_of_its_own_and_ended_by_its_own_command(program: Path, tmp_path: Path) -> None:
    program.write_text(FAKE_MPS)
    program.chmod(0o755)
    with mps.service() as environment:
        assert set(environment) == {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"}
        assert mps.servers(environment) == ["4711"]
    assert (tmp_path / "calls").read_text().split("\n")[-2] == "quit -t 5"
    assert not list(tmp_path.glob("mps-*"))
    assert not [p for p in psutil.Process().children() if mps.CONTROL in " ".join(p.cmdline())]


def test_without_mps_there_is_a_reason(program: Path) -> None:
    with pytest.raises(Skip, match="nvidia-cuda-mps-control is not installed"), mps.service():
        pass
    program.write_text("#!/bin/sh\necho this user may not >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(Skip, match="ended at once with status 3: this user may not"), mps.service():
        pass


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *arguments])
    try:
        return main()
    except SystemExit as stop:
        return int(stop.code or 0)


@no_gpu
def test_without_a_gpu_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--out", str(tmp_path / "gpu.jsonl")) == 1
    assert "torch finds no GPU here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there.jsonl"
    there.write_text("")
    for arguments, said in (
        (("--out", str(there)), "is there already"),
        (("--out", str(tmp_path / "no" / "file")), "there is no folder"),
        (("--minutes", "0"), "must be above 0, not 0"),
        (("--minutes", "nan"), "must be above 0, not nan"),
        (("--only", "speed", "--out", str(tmp_path / "new")), "no measurement 'speed'; there are loop, paper"),
    ):
        assert called(monkeypatch, *arguments) == 2
        assert said in capsys.readouterr().err
    assert there.read_text() == ""


def test_the_help_names_every_measurement() -> None:
    assert str(_parser().epilog).removeprefix("Measurements: ").rstrip(".").split(", ") == list(MEASUREMENTS)


def invented() -> Iterator[dict[str, Any]]:
    """A record of each kind that a GPU gives; the numbers are made up."""
    header = {"device": "cuda", "gpu": "an invented GPU", "driver": "1.2", "date": "-", "minutes": 8, "small": False}
    yield {"record": "header", **header, "commit": None, "torch": "-", "python": "-", "cpu": "-", "cores": 1}

    def case(name: str, case: str, **figures: Any) -> dict[str, Any]:
        return {"record": "case", "measurement": name, "case": case, "status": "measured", "figures": figures}

    some = spread([3.0, 4.0, 6.0])
    rates = dict.fromkeys((f"{side}_steps_per_s" for side in ("searcher", "eager", "eager_by_hand")), some)
    yield case("loop", "resnet20, max(x, 0)", **rates, ratio_to_eager=some, ratio_to_eager_by_hand=some, batch=128)
    yield case("paper", "resnet20, 10000 steps", seconds=31.4, extrapolated=True, steps_measured=2000)
    yield case("captured", "speed", captured_steps_per_s=some, eager_steps_per_s=some, ratio=some, batch=128)
    yield case("captured", "losses", steps=30, equal_losses=30, largest_relative_difference=0.0)
    for name in ("streams", "processes", "mps"):
        for number in FULL.children:
            rates = dict.fromkeys(("steps_per_s", "slowest_steps_per_s", "children_per_hour"), 10.0 * number)
            yield case(name, f"{number} at once", children=number, **rates)
    for name, way in (("activations", "ours"), ("compile", "compiled")):
        figures = {f"{way}_{kind}_{what}": some for kind in ("forward", "both") for what in ("ns", "of_copy")}
        yield case(name, "gelu, float32", **figures, **({"compile_seconds": 4.2} if way == "compiled" else {}))
    sizes = ("allocated_mib", "reserved_mib", "process_mib", "data_mib", "images_per_s")
    yield case("memory", "resnet20, batch 128", **dict.fromkeys(sizes, 100.0))
    precisions = {
        f"{way}_{what}": some for way in ("bfloat16", "tf32", "float32") for what in ("steps_per_s", "ratio_to_float32")
    }
    yield case("precision", "resnet20, batch 128", **precisions, batch=128)
    yield {"record": "case", "measurement": "x", "case": "", "status": "skipped", "reason": "one | other\nline"}


def plotted(monkeypatch: pytest.MonkeyPatch, folder: Path, *files: Path) -> str:
    """The page, once every picture that it was written with has been looked at."""
    assert called(monkeypatch, "--plot", *map(str, files), "-o", str(folder)) == 0
    for picture in folder.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5_000
    return (folder / "gpu.md").read_text()


def test_results_are_drawn_and_put_into_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gpu.jsonl"
    for record in invented():
        append(path, record)
    page = plotted(monkeypatch, tmp_path / "out", path)
    pictures = {picture.stem for picture in (tmp_path / "out").glob("*.png")}
    assert pictures == {"loop", "children", "activations", "steps", "memory"}
    assert "an invented GPU, driver 1.2" in page and "commit unknown" in page
    assert "| resnet20, 10000 steps | 31.4 | extrapolated from 2,000 steps |" in page
    assert "| 30 of 30 losses are equal |" in page
    assert "| gelu, float32 | 4,000 (400%) / 4,000 (400%) | - | - | 4,000 (400%) / 4,000 (400%) | 4.2 s |" in page
    assert "| x | all | skipped | one \\| other line |" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) > 25


def test_the_results_of_a_real_run_are_drawn(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = plotted(monkeypatch, tmp_path, results)
    assert "no figures of a machine" in page
    for record in cases(read([results])):
        if record["status"] == "measured" and record["measurement"] in ("streams", "processes"):
            assert f"| {record['case'].split()[0]} |" in page
        else:
            assert (record["case"] or record["measurement"]) in page


def test_of_two_files_the_later_figures_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for record in invented():
        append(first, record)
        if record.get("measurement") == "paper":
            figures = {**record["figures"], "seconds": 27.2, "extrapolated": False}
            append(second, json.loads(json.dumps({**record, "figures": figures})))
    page = plotted(monkeypatch, tmp_path / "out", first, second)
    assert "| 27.2 | measured |" in page and "31.4" not in page
