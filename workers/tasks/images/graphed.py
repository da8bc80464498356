"""Run a training step as one CUDA graph: one call launches some hundred kernels, which saves most of the time of a step
with a small network."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

EAGER_STEPS = 3  # steps before the capture, in which libraries choose algorithms and the optimiser makes its buffers
_ONE_CAPTURE = threading.Lock()  # torch permits one capture at a time in a process

Step = Callable[[Tensor, Tensor], Tensor]


class Graphed:
    """Captures a training step after some normal calls, and replays it from then on.

    All batches must have the same shape. A step that cannot be captured, for example with a user's own network that
    reads values in its forward pass, is run normally.

    Args:
        step: trains on `(images, labels)`, returns the loss, and clears the gradients.
        optimizer: its learning rates must be tensors on the device, so that a replay uses their present values.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        self._step, self._optimizer = step, optimizer
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train on a batch and return its loss. The next call may overwrite that tensor."""
        self._calls += 1
        if self._calls == EAGER_STEPS + 1:
            self._graph = self._captured(images, labels)
        if self._graph is None:
            return self._run_step(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss

    def _run_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run a normal step, on the stream of the capture, because autograd ties its objects to a stream."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self._step(images, labels)
        current.wait_stream(self._stream)
        for tensor in (images, labels):
            tensor.record_stream(self._stream)
        return loss

    def _captured(self, images: Tensor, labels: Tensor) -> torch.cuda.CUDAGraph | None:
        """Return the graph of a step, or None if it cannot be captured. A capture records a step without running it."""
        self._images, self._labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                _ONE_CAPTURE,
                torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
            ):
                self._loss = self._step(self._images, self._labels)
        except RuntimeError as error:
            log.warning("a step that cannot be captured in a CUDA graph runs slower: %s", str(error).splitlines()[0])
            self._optimizer.zero_grad(set_to_none=True)
            return None
        return graph
