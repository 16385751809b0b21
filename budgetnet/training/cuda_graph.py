"""CUDA graphs: device work that is captured once and replayed, or called directly where capture is not possible."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

_log = logging.getLogger(__name__)

_WARMUP_CALLS = 3
"""Calls before the capture, in which libraries choose their algorithms and allocate their workspaces."""


def _released() -> None:
    """Replace the work after `Replay.release`."""


class GraphedCallable:
    """A function on device tensors that is replayed as a CUDA graph after a few calls.

    On a CUDA device the first calls run the function itself; the next one captures it, and every later call is a single
    launch of the graph. On other devices every call runs the function.
    """

    def __init__(self, work: Callable[[], None], *, device: torch.device, record: bool = True) -> None:
        """Wrap a function.

        Args:
            work: reads and writes tensors at fixed addresses and never synchronises with the device.
            device: device of the tensors.
            record: whether to capture a CUDA graph.
        """
        self.work = work
        self.fallback_reason = "" if record and device.type == "cuda" else "disabled"
        """Why no graph is used; empty if one is used."""
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        if not self.fallback_reason:
            self._side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @property
    def captured(self) -> bool:
        """Whether the graph has been captured."""
        return self._graph is not None

    def __call__(self) -> None:
        """Run the function once."""
        if self._graph is None and not self.fallback_reason:
            self._warm_up_or_capture()
        if self._graph is not None:
            self._graph.replay()
        elif self.fallback_reason:
            self.work()

    def release(self) -> None:
        """Drop the function and its graph, so that their memory can be freed at once."""
        self.work, self._graph, self.fallback_reason = _released, None, "released"

    def _warm_up_or_capture(self) -> None:
        """Run the function on a side stream, as a capture requires, or capture it without running it."""
        self._calls += 1
        if self._calls <= _WARMUP_CALLS:
            self._side_stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side_stream):
                self.work()
            torch.cuda.current_stream().wait_stream(self._side_stream)
            return
        stream = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as the one that updates progress bars, may use CUDA during the capture.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.work()
        except RuntimeError as error:
            # A capture runs nothing, so the function can still be called directly; also if memory ran out, as a graph
            # has its own memory pool. Some versions of torch do not restore the stream after a failed capture.
            torch.cuda.set_stream(stream)
            del graph
            torch.cuda.empty_cache()
            self.fallback_reason = " ".join(str(error).split())
            _log.warning("CUDA graph capture failed, kernels are launched one by one: %s", self.fallback_reason)
            return
        self._graph = graph
