"""A training step as one CUDA graph: some hundred kernels are launched by one call, which for small networks saves most
of a step's time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

EAGER_STEPS = 3  # before the capture: libraries choose their algorithms, the optimiser makes its buffers
_ONE_CAPTURE = threading.Lock()  # torch allows one at a time in a process

Step = Callable[[Tensor, Tensor], Tensor]


class Graphed:
    """`step(images, labels)`, which trains on a batch and returns its loss, captured after some calls and replayed
    from then on. The steps before are steps like any others.

    All batches must be of one shape. A step that cannot be captured, such as that of a network of the user's own which
    reads values in its forward pass, goes on uncaptured.

    Args:
        step: leaves no gradients behind.
        optimizer: its learning rates are tensors on the device, so that a replay sees them change.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer) -> None:
        self._step, self._optimizer = step, optimizer
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss, which the next call may overwrite."""
        self._calls += 1
        if self._calls == EAGER_STEPS + 1:
            self._graph = self._captured(images, labels)
        if self._graph is None:
            return self._aside(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss

    def _aside(self, images: Tensor, labels: Tensor) -> Tensor:
        """An ordinary step, on the stream of the capture, to which autograd binds what it makes."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            loss = self._step(images, labels)
        current.wait_stream(self._stream)
        for tensor in (images, labels):
            tensor.record_stream(self._stream)
        return loss

    def _captured(self, images: Tensor, labels: Tensor) -> torch.cuda.CUDAGraph | None:
        """The graph of a step, which a capture records and does not run."""
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
