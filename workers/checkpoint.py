"""Checkpoints of long trainings: weights, momentum, generators and learning curve in one file for each job.

The file is in safetensors' format: plain tensors and JSON, nothing that could be run. It appears whole or not at all,
at the end of an epoch, and goes when the training is over. What is read back brings a training on a CPU to the same
bits as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from search_space.modules import code_name, source_digest
from workers.contract import Job, Point, WorkersError
from workers.tasks.images.cache import folder

log = logging.getLogger(__name__)

FORGOTTEN_SECONDS = 30 * 86_400.0  # after which what lies below the cache is removed
TENSOR = "tensor"  # the key of a reference to a tensor
FORMAT = 2  # goes up when a training means something else by what is written


class Trainable(Protocol):
    """What is saved: `draw`, a generator, and `tensors()`, in which all other state is."""

    draw: torch.Generator

    def tensors(self) -> dict[str, Tensor]: ...


class _CheckpointFile:
    """The file of one job's checkpoint. It lies in the job's `checkpoint_dir`, or else below the cache's folder on the
    worker's machine."""

    def __init__(self, job: Job, data_digest: str, device: torch.device) -> None:
        place = Path(job.checkpoint_dir) if job.checkpoint_dir else folder() / "checkpoints"
        self._path = place / f"{_digest(job, data_digest, device)}.safetensors"
        self._device, self._every = device, job.checkpoint_seconds
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove the file, because the training is over."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the checkpoint %s cannot be removed: %s", self._path, error)


class Checkpoint(_CheckpointFile):
    """The checkpoint of an image training.

    If it cannot be written or read, a warning is logged and the training begins anew.
    """

    def restore(self, child: Trainable) -> list[Point]:
        """Bring a new network to the state of the checkpoint. Return its learning curve, empty if there is none."""
        if not (self._path.exists() and self._installed()):
            return []
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, framework="pt", device="cpu") as file:
                read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                curve = [Point(**point) for point in json.loads(file.metadata()["curve"])]
            tensors = child.tensors()
            if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in read.items() if n in tensors}:
                raise ValueError("its tensors are not those of this network")
            generators = [read[f"draws.{name}"] for name in _states(child.draw, self._device)]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning("the checkpoint %s is not used: %s", self._path, error)
            return []
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(read[name])
        _set_states(child.draw, self._device, generators)
        log.info("going on after epoch %d, from %s", len(curve), self._path)
        return curve

    def save_if_due(self, child: Trainable, curve: Sequence[Point]) -> None:
        """Writes if the last time, or the beginning, is `checkpoint_seconds` ago."""
        if time.monotonic() - self._last < self._every or not self._installed():
            return
        from safetensors import SafetensorError
        from safetensors.torch import save

        draws = {f"draws.{name}": state for name, state in _states(child.draw, self._device).items()}
        tensors = {name: tensor.detach().to("cpu") for name, tensor in (child.tensors() | draws).items()}
        plain = {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}
        curve_json = json.dumps([asdict(point) for point in curve])
        try:
            _write(self._path, save(plain, {"curve": curve_json}))
        except (OSError, SafetensorError) as error:
            log.warning("no checkpoint could be written to %s: %s", self._path, error)
        self._last = time.monotonic()
        _sweep(folder() / "checkpoints")

    def _installed(self) -> bool:
        """Return whether safetensors is installed. If not, log a warning and write no checkpoint of this job."""
        if find_spec("safetensors"):
            return True
        log.warning("no checkpoints are written or read: safetensors is not installed")
        self._every = math.inf
        return False


class SavedState(_CheckpointFile):
    """The checkpoint of a task of a person's own: a state that the task gives, the curve, and the generators of torch,
    numpy and Python.

    If it cannot be written or read, a warning is logged and the training begins anew.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        super().__init__(job, "", device)
        self._checked = False  # whether one state has been found to be of the right kind

    def save_if_due(self, state: object, curve: Sequence[Point]) -> None:
        """Write, if the last time, or the beginning, is `checkpoint_seconds` ago.

        Raises:
            WorkersError: The state holds something else than tensors and plain values.
        """
        due = time.monotonic() - self._last >= self._every and find_spec("safetensors")
        if self._checked and not due:
            return
        tensors: dict[str, Tensor] = {}
        try:
            text = json.dumps(_without_tensors(state, tensors))
        except (TypeError, ValueError, RecursionError) as error:
            raise WorkersError(
                f"report.save takes nested dictionaries with texts as keys, lists, tensors, numbers and texts: {error}"
            ) from error
        self._checked = True
        if due:
            self._write(text, tensors, curve)
            self._last = time.monotonic()
            _sweep(folder() / "checkpoints")

    def _write(self, state: str, tensors: dict[str, Tensor], curve: Sequence[Point]) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save

        generators = _states(torch.Generator(), self._device)
        kept = tensors | {f"generator.{name}": value for name, value in generators.items()}
        plain = {name: value.detach().to("cpu").contiguous().clone() for name, value in kept.items()}
        points = json.dumps([asdict(point) for point in curve])
        try:
            _write(self._path, save(plain, {"state": state, "curve": points, "generators": _plain_generators()}))
        except (OSError, SafetensorError) as error:
            log.warning("no checkpoint could be written to %s: %s", self._path, error)

    def restore(self) -> tuple[Any, list[Point]]:
        """Return the state, whose tensors are on the CPU, and the curve; None and an empty curve if there is none."""
        if not (self._path.exists() and find_spec("safetensors")):
            return None, []
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, framework="pt", device="cpu") as file:
                read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                facts = file.metadata()
            state = _with_tensors(json.loads(facts["state"]), read)
            curve = [Point(**point) for point in json.loads(facts["curve"])]
            generator = torch.Generator()
            _set_states(generator, self._device, [read[f"generator.{n}"] for n in _states(generator, self._device)])
            _set_plain_generators(facts["generators"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning("the checkpoint %s is not used: %s", self._path, error)
            return None, []
        log.info("going on after step %d, from %s", curve[-1].step if curve else 0, self._path)
        return state, curve


def _without_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value with a reference in place of each tensor, and put the tensors into `tensors`."""
    if isinstance(value, Tensor):
        name = f"tensor.{len(tensors)}"
        tensors[name] = value
        return {TENSOR: name}
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, (str, int))]:
            raise TypeError(f"{wrong[0]!r} is no key")
        # Optimizers have whole numbers as keys, which JSON has not.
        return {"pairs": [[key, _without_tensors(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(inner, tensors) for inner in value]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Do the reverse of `_without_tensors`."""
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]]
        return {key: _with_tensors(inner, tensors) for key, inner in value["pairs"]}
    return [_with_tensors(inner, tensors) for inner in value] if isinstance(value, list) else value


def _digest(job: Job, data_digest: str, device: torch.device) -> str:
    """Return a digest of all that decides what a training computes."""
    measured = Job(0, job.expression, job.seed, job.task, data_digest=data_digest)
    own = code_name(str(job.task.parameters.get("model", "")))
    code = [source_digest(name) for name in (*job.task.primitives, *([own.module] if own else []))]
    facts = [FORMAT, torch.__version__, device.type, torch.get_num_threads(), measured.to_json(), code]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _states(draw: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """Of the training's own generator and of torch's, from which dropout draws."""
    states = {"own": draw.get_state(), "cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_states(draw: torch.Generator, device: torch.device, states: Sequence[Tensor]) -> None:
    draw.set_state(states[0])
    torch.set_rng_state(states[1])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[2], device)


def _plain_generators() -> str:
    """Return the states of the generators of Python and numpy as JSON."""
    algorithm, keys, *rest = np.random.get_state(legacy=True)
    return json.dumps({"python": random.getstate(), "numpy": [str(algorithm), np.asarray(keys).tolist(), *rest]})


def _set_plain_generators(text: str) -> None:
    """Do the reverse of `_plain_generators`."""
    states = json.loads(text)
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(states["numpy"]))


def _sweep(place: Path) -> None:
    """Removes what trainings have left that nobody has gone on with: those that failed for good, or were forgotten."""
    for file in place.glob("*"):
        with suppress(OSError):  # another worker has removed it
            if time.time() - file.stat().st_mtime > FORGOTTEN_SECONDS:
                file.unlink()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
