"""Work on a device that is done again and again: recorded once as a CUDA graph and replayed, or simply called."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

_log = logging.getLogger(__name__)

_CALLS_BEFORE_RECORDING = 3
"""Calls in which libraries choose their algorithms and allocate what they keep, which a recording must not see."""


def _nothing() -> None:
    """Work that has been released."""


class Replay:
    """A piece of device work that depends only on what lies on the device, and so is the same at every call.

    On a CUDA device the first calls do the work as it stands; the next one records it, and from there on each call is a
    single launch of the recording. Everywhere else each call does the work as it stands.
    """

    def __init__(self, work: Callable[[], None], *, device: torch.device, record: bool = True) -> None:
        """Nothing is done yet.

        Args:
            work: reads and writes tensors that stay where they are, and never waits for the device.
            device: where they lie.
            record: whether to record at all.
        """
        self.work = work
        self.refused = "" if record and device.type == "cuda" else "not asked for"
        """Why calls are not replayed; empty where they are."""
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        if not self.refused:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    @property
    def replays(self) -> bool:
        """Whether the work has been recorded."""
        return self._graph is not None

    def __call__(self) -> None:
        """Does the work once."""
        if self._graph is None and not self.refused:
            self._prepare()
        if self._graph is not None:
            self._graph.replay()
        elif self.refused:
            self.work()

    def release(self) -> None:
        """Lets go of the work and of what was recorded of it; whoever owns both is then free to go at once."""
        self.work, self._graph, self.refused = _nothing, None, "released"

    def _prepare(self) -> None:
        """Does the work on another stream, as a recording needs it, or records it without doing it."""
        self._calls += 1
        if self._calls <= _CALLS_BEFORE_RECORDING:
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                self.work()
            torch.cuda.current_stream().wait_stream(self._side)
            return
        stream = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as one that draws progress bars, may go on meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.work()
        except RuntimeError as error:
            # Nothing was done while recording, so the work can go on as it stands; also where memory did not suffice,
            # as a recording keeps its own. Some versions of torch stay on the stream that they recorded on.
            torch.cuda.set_stream(stream)
            del graph
            torch.cuda.empty_cache()
            self.refused = " ".join(str(error).split())
            _log.warning("work cannot be recorded as a CUDA graph, and is launched piece by piece: %s", self.refused)
            return
        self._graph = graph
