"""Callbacks: the events of training runs and searches that progress bars, trackers and user code can receive.

For every run, `on_run_start` comes first, then steps and epochs, and finally `on_run_end` or `on_run_interrupted`. With
several workers the runs overlap; those of one worker follow one another, so the worker's number identifies the run. All
events are delivered in the process that started the search, whichever process trains.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from budgetnet.runs.records import Epoch, RunIdentity, RunResult

_log = logging.getLogger(__name__)


class RunContext(NamedTuple):
    """The search or batch that a run belongs to; all defaults for a run trained alone."""

    worker: int = 0
    """Number of the worker that trains the run."""
    trained: int = 0
    """Number of runs of the search or batch trained before this one."""
    study: str | None = None
    """Name of the study."""
    trial: int | None = None
    """Number of the run's trial in the study."""
    sampled: Mapping[str, Any] = MappingProxyType({})
    """Sampled parameters by name; empty for an enqueued network."""


class RunInfo(NamedTuple):
    """A run that starts or resumes."""

    identity: RunIdentity
    """Everything that determines the run: network, recipe, data, seed and device."""
    run: str
    """Name of the run folder."""
    context: RunContext = RunContext()
    """Search or batch that the run belongs to."""
    curves: tuple[Epoch, ...] = ()
    """Epochs trained before this start, for which no further events come; all epochs if the run is already complete."""

    @property
    def label(self) -> str:
        """Name of the network, or a short description."""
        return self.identity.spec.label

    @property
    def params(self) -> int:
        """Number of parameters, frozen ones included."""
        return self.identity.spec.params

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations for one image."""
        return self.identity.spec.macs

    @property
    def epochs(self) -> int:
        """Maximum number of epochs."""
        return self.identity.recipe.epochs

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "identity": self.identity.to_mapping(),
            "run": self.run,
            "context": self.context._replace(sampled=dict(self.context.sampled))._asdict(),
            "curves": [list(epoch) for epoch in self.curves],
        }

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> RunInfo:
        """Create the object from the output of `to_mapping`."""
        return cls(
            RunIdentity.from_mapping(mapping["identity"]),
            mapping["run"],
            RunContext(**mapping["context"]),
            tuple(Epoch(*row) for row in mapping["curves"]),
        )


class Callback:
    """Base class of callbacks: override the methods for the events of interest.

    An exception raised by a callback interrupts training and ends the search, as Ctrl-C does. No finished epoch is
    lost: calling the search again resumes the interrupted trial.

        >>> class Printer(Callback):
        ...     def on_epoch_end(self, epoch, *, worker):
        ...         print(epoch.epoch, epoch.validation_accuracy)
    """

    def on_trial_rejected(self, *, worker: int) -> None:
        """A trial is over budget and was rejected without training."""

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Training of a run starts or resumes, or the run is already complete."""

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
        """A training step ended; ``share`` of the epoch (counted from 1) is done. Workers skip some steps."""

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        """An epoch ended and was saved: a run killed now resumes after it."""

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        """A run ended, complete or stopped by the search, and its result was saved."""

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        """A run ended without a result: it failed for ``reason``, or can be resumed if that is None."""


class Callbacks(Callback):
    """A list of callbacks, called in order; after an exception the remaining ones are not called."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)
        self.raised: BaseException | None = None
        """Last exception raised by a callback, if any."""

    def on_trial_rejected(self, *, worker: int) -> None:
        """Call every callback."""
        self._call_each(lambda each: each.on_trial_rejected(worker=worker))

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Call every callback."""
        self._call_each(lambda each: each.on_run_start(run, worker=worker))

    def on_step_end(self, epoch: int, share: float, *, worker: int) -> None:
        """Call every callback."""
        self._call_each(lambda each: each.on_step_end(epoch, share, worker=worker))

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        """Call every callback."""
        self._call_each(lambda each: each.on_epoch_end(epoch, worker=worker))

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        """Call every callback."""
        self._call_each(lambda each: each.on_run_end(result, worker=worker))

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        """Call every callback; further exceptions are only logged, so that the first one is raised."""
        for callback in self._callbacks:
            try:
                callback.on_run_interrupted(reason, worker=worker)
            except Exception as error:
                _log.warning("a callback also failed when the run was interrupted: %r", error)

    def _call_each(self, event: Callable[[Callback], None]) -> None:
        try:
            for callback in self._callbacks:
                event(callback)
        except BaseException as error:
            self.raised = error
            raise


class CallbackRunner:
    """Calls an optional callback with the events of one run."""

    def __init__(self, callback: Callback | None, info: RunInfo) -> None:
        self._callbacks = Callbacks([callback] if callback else [])
        self._info, self._worker = info, info.context.worker

    @contextmanager
    def training(self, curves: Sequence[Epoch]) -> Iterator[None]:
        """Report the start of the run after these epochs and, if the block raises, its interruption."""
        try:
            self._callbacks.on_run_start(self._info._replace(curves=tuple(curves)), worker=self._worker)
            yield
        except BaseException as error:
            # Errors of callbacks and of the file system, and Ctrl-C, are no failures of the run: it can be resumed.
            resumable = (
                error is self._callbacks.raised or not isinstance(error, Exception) or isinstance(error, OSError)
            )
            reason = None if resumable else f"{type(error).__name__}: {error}"
            self._callbacks.on_run_interrupted(reason, worker=self._worker)
            raise

    def on_step_end(self, epoch: int, share: float) -> None:
        """Report the end of a step."""
        self._callbacks.on_step_end(epoch, share, worker=self._worker)

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Report the end of an epoch."""
        self._callbacks.on_epoch_end(epoch, worker=self._worker)

    def on_run_end(self, result: RunResult) -> None:
        """Report the end of the run."""
        self._callbacks.on_run_end(result, worker=self._worker)
