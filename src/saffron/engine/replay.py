"""Recorded steps: on a GPU a forward of fixed shapes is captured once as a CUDA graph and replayed.

A step of an 8 B model at batch 1 is some thousand small kernels, and launching them one by one from Python takes several times
as long as reading the weights does. A recording launches them all at once. It is of one set of shapes and of the very tensors
that the step reads and writes, so it is made anew when storage has moved. The very first step runs as it is: what libraries set
up at their first call must not be part of a recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

Step = Callable[..., Tensor]
#: (step, inputs that every replay reads, the recording before or None) -> replay, which gives the step's output
Record = Callable[[Step, Sequence[Tensor], Any], Callable[[], Tensor]]


class Replays:
    """Records the last step that was asked for, and replays it while that stays the same.

    Args:
        record: how a step is recorded.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._warm = False
        self._of: Hashable = None
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], Tensor] | None = None

    def __call__(self, step: Step, inputs: Sequence[Tensor], of: Hashable) -> Tensor:
        """What ``step(*inputs)`` gives.

        Args:
            step: does the same operations on the same memory whenever ``of`` is the same.
            inputs: tensors whose contents change from call to call.
            of: all else that the step depends on, such as which storage it writes to; the inputs' shapes count by themselves.
        """
        if not self._warm:
            self._warm = True
            return step(*inputs)
        of = (of, *((x.shape, x.dtype) for x in inputs))
        if of != self._of:
            self._inputs = [x.clone() for x in inputs]
            self._replay = self._record(step, self._inputs, self._replay)
            self._of = of
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        assert self._replay is not None
        return self._replay().clone()  # the next replay writes to the same place


def recorder(device: torch.device) -> Record | None:
    """How steps on this device are recorded; None if that saves nothing there."""
    return CudaGraph if device.type == "cuda" else None


class CudaGraph:
    """A :data:`Record` on a GPU.

    Args:
        step: what is captured; nothing in it may wait for the device.
        inputs: its inputs, at the addresses that replays read.
        before: the recording that this one takes the place of; its memory is used again.
    """

    def __init__(self, step: Step, inputs: Sequence[Tensor], before: CudaGraph | None) -> None:
        device = inputs[0].device
        stream, here = _stream(device), torch.cuda.current_stream(device)
        self._graph = torch.cuda.CUDAGraph()
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            self._graph.capture_begin(None if before is None else before._graph.pool(), capture_error_mode="thread_local")
            try:
                self._output = step(*inputs)
            finally:
                self._graph.capture_end()
        here.wait_stream(stream)

    def __call__(self) -> Tensor:
        """Run it on the current stream."""
        self._graph.replay()
        return self._output


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Captures need a stream that is not the default one; one for all, since cuBLAS keeps a workspace per stream.

    It is given that workspace here: what is allocated during a capture belongs to the graph.
    """
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        torch.ones(16, 16, device=device) @ torch.ones(16, 16, device=device)
    return stream
