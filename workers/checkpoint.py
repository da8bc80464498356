"""Checkpoints of long trainings: weights, momentum, generators and learning curve in one file a job.

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
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from search_space.activation import beta_names
from search_space.modules import code_name, source_digest
from workers.contract import Epoch, Job
from workers.tasks.images.cache import folder

log = logging.getLogger(__name__)

FORGOTTEN_SECONDS = 30 * 86_400.0  # after which what lies below the cache is removed
FORMAT = 1  # goes up when a training means something else by what is written


class Trainable(Protocol):
    """What is saved: `draw`, a generator, and `tensors()`, in which all other state is."""

    draw: torch.Generator

    def tensors(self) -> dict[str, Tensor]: ...


class Checkpoint:
    """That of one job, in its `checkpoint_dir`, or else below the cache's folder on the worker's machine.

    A checkpoint that cannot be written or read costs a warning and the time that it would have saved.
    """

    def __init__(self, job: Job, data_digest: str, device: torch.device) -> None:
        place = Path(job.checkpoint_dir) if job.checkpoint_dir else folder() / "checkpoints"
        self._path = place / f"{_digest(job, data_digest, device)}.safetensors"
        self._device, self._every = device, job.checkpoint_seconds
        self._last = time.monotonic()

    def restore(self, child: Trainable) -> list[Epoch]:
        """Brings a new child to where the checkpoint is; its curve so far, empty if there is none."""
        if not (self._path.exists() and self._installed()):
            return []
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, framework="pt", device="cpu") as file:
                read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
                curve = [Epoch(**point) for point in json.loads(file.metadata()["curve"])]
            tensors = child.tensors()
            _split_parameters(read, tensors)
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

    def save_if_due(self, child: Trainable, curve: Sequence[Epoch]) -> None:
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

    def remove(self) -> None:
        """The training is over."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the checkpoint %s cannot be removed: %s", self._path, error)


def _split_parameters(read: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Change `read` from the older form to the present one, in which each parameter of an activation is a vector.

    The older form has all of them in one matrix (parameters, channels), and one momentum buffer for it.
    """

    def is_older(name: str, value: Tensor) -> bool:
        return value.dim() == 2 and (name not in wanted or wanted[name].shape != value.shape)

    for name in [n for n, value in read.items() if n.endswith(".beta") and is_older(n, value)]:
        rows = read.pop(name)
        read |= {name.removesuffix("beta") + new: row for new, row in zip(beta_names(len(rows)), rows, strict=True)}
    buffers: list[Tensor] = []
    for number in range(sum(n.startswith("momentum.") for n in read)):
        value = read.pop(f"momentum.{number}")
        buffers += value.unbind() if is_older(f"momentum.{len(buffers)}", value) else [value]
    read |= {f"momentum.{number}": buffer for number, buffer in enumerate(buffers)}


def _digest(job: Job, data_digest: str, device: torch.device) -> str:
    """Of all that decides what a training computes."""
    own = code_name(job.model)
    measured = replace(
        job,
        number=0,
        data_digest=data_digest,
        timeout_seconds=0.0,
        cutoffs=(),
        guess_epoch=0,
        checkpoint_dir="",
        checkpoint_seconds=0,
    )
    code = [source_digest(name) for name in (*job.primitives, *([own.module] if own else []))]
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
