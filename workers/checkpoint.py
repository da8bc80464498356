"""Checkpoints of long trainings: one file for each job with weights, momentum, random generators and learning curve.

The file has safetensors' format: tensors and JSON, and no code. It is written at the end of an epoch, appears complete
or not at all, and is removed when the training is over. On a CPU, a training that continues from a checkpoint gives the
same bits as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import random
import time
from collections.abc import Mapping, Sequence
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

UNUSED_SECONDS = 30 * 86_400.0  # older checkpoints in the cache are removed
TENSOR = "tensor"  # the key of a reference to a tensor
FORMAT = 3  # increased when the meaning of the file's contents changes


class Trainable(Protocol):
    """A training that can be saved: its state is the generator `draw` and the tensors of `tensors()`.

    `load` takes over the tensors of an earlier training. It raises ValueError, and changes nothing, if they are not
    those of this training.
    """

    draw: torch.Generator

    def tensors(self) -> dict[str, Tensor]: ...

    def load(self, tensors: Mapping[str, Tensor]) -> None: ...


class _CheckpointFile:
    """The file of one job's checkpoint. It is in the job's `checkpoint_dir`, or else in the cache of the worker's
    machine."""

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
        """Bring a new network to the state of the checkpoint, and return its learning curve; empty if there is none."""
        if not (self._path.exists() and self._installed()):
            return []
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, framework="pt", device="cpu") as file:
                read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                curve = [Point(**point) for point in json.loads(file.metadata()["curve"])]
            generators = [read[f"draws.{name}"] for name in _states(child.draw, self._device)]
            child.load(read)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            log.warning("the checkpoint %s is not used: %s", self._path, error)
            return []
        _set_states(child.draw, self._device, generators)
        log.info("going on after epoch %d, from %s", len(curve), self._path)
        return curve

    def save_if_due(self, child: Trainable, curve: Sequence[Point]) -> None:
        """Write a checkpoint if the last one, or the beginning, was `checkpoint_seconds` ago."""
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
        _remove_unused(folder() / "checkpoints")

    def _installed(self) -> bool:
        """Return True if safetensors is installed. If not, log a warning and write no checkpoints of this job."""
        if find_spec("safetensors"):
            return True
        log.warning("no checkpoints are written or read: safetensors is not installed")
        self._every = math.inf
        return False


class SavedState(_CheckpointFile):
    """The checkpoint of a user's own task: a state from the task, the curve, and the random generators of torch, numpy
    and Python.

    If it cannot be written or read, a warning is logged and the training begins anew.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        super().__init__(job, "", device)
        self._checked = False  # True once a state was checked for the types of its values

    def save_if_due(self, state: object, curve: Sequence[Point]) -> None:
        """Write a checkpoint if the last one, or the beginning, was `checkpoint_seconds` ago.

        Raises:
            WorkersError: the state contains something other than tensors and plain values.
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
            _remove_unused(folder() / "checkpoints")

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
        """Return the state, with tensors on the CPU, and the curve. Return None and an empty curve if there is none."""
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
            raise TypeError(f"{wrong[0]!r} is not a key")
        # The states of optimisers have integers as keys, which JSON does not support.
        return {"pairs": [[key, _without_tensors(inner, tensors)] for key, inner in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(inner, tensors) for inner in value]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Reverse `_without_tensors`."""
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors[value[TENSOR]]
        return {key: _with_tensors(inner, tensors) for key, inner in value["pairs"]}
    return [_with_tensors(inner, tensors) for inner in value] if isinstance(value, list) else value


def _digest(job: Job, data_digest: str, device: torch.device) -> str:
    """Return a digest of everything that decides the result of a training."""
    measured = Job(0, job.expression, job.seed, job.task, data_digest=data_digest)
    own = code_name(str(job.task.parameters.get("model", "")))
    code = [source_digest(name) for name in (*job.task.primitives, *([own.module] if own else []))]
    facts = [FORMAT, torch.__version__, device.type, torch.get_num_threads(), measured.to_json(), code]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _states(draw: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """Return the states of the training's own generator, and of torch's generators, which dropout uses."""
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
    """Reverse `_plain_generators`."""
    states = json.loads(text)
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(states["numpy"]))


def _remove_unused(place: Path) -> None:
    """Remove old checkpoints, which trainings left that failed or were never resumed."""
    for file in place.glob("*"):
        with suppress(OSError):  # another worker has removed it
            if time.time() - file.stat().st_mtime > UNUSED_SECONDS:
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
