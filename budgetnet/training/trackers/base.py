"""Base classes of trackers: each epoch of a run is logged once, and errors of the backend do not stop training."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from budgetnet.common.passwords import hide_passwords
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback, RunInfo

_log = logging.getLogger(__name__)

CURVES = {
    "train/loss": "train_loss",
    "train/accuracy": "train_accuracy",
    "validation/loss": "validation_loss",
    "validation/accuracy": "validation_accuracy",
    "learning_rate": "learning_rate",
}
"""Metrics logged for every epoch: their names, and the fields of `Epoch`."""

LENGTH = "epochs"
"""Final metric with the number of epochs; it is present if the end of the run was logged."""

OpenRun = TypeVar("OpenRun")
"""State of a tracker for a run in training."""


class Tracker(Callback, ABC):
    """A callback that logs runs to another program.

    An error of the backend does not stop training: it is logged as a warning and disables the tracker. Missed
    epochs are logged when the run is resumed or loaded again.
    """

    name: str
    """Name of the tracker in warnings."""
    location = ""
    """Where it logs to; its passwords are hidden in warnings."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        """Error that disabled the tracker, if any."""

    def _try(self, action: Callable[[], None]) -> None:
        """Call a function that uses the backend, unless the tracker is disabled; an error disables it."""
        if self.failure is not None:
            return
        try:
            action()
        except Exception as error:
            self.failure = error
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            _log.warning(
                "%s logging is disabled after an error, training continues: %s",
                self.name,
                hide_passwords(first, self.location),
            )


class RunTracker(Tracker, Generic[OpenRun]):
    """A tracker that logs each run separately, and each epoch once."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[int, tuple[OpenRun, set[int]]] = {}
        """Run of each worker, and its epochs that have been logged."""

    @abstractmethod
    def _begin(self, run: RunInfo) -> tuple[OpenRun, set[int]]:
        """Open a run, new or logged before; return it and the epochs that have already been logged."""

    @abstractmethod
    def _log_epochs(self, open_run: OpenRun, epochs: Sequence[Epoch]) -> None:
        """Log epochs."""

    @abstractmethod
    def _end(self, open_run: OpenRun, result: RunResult) -> None:
        """Log the result of a run and close it."""

    @abstractmethod
    def _interrupt(self, open_run: OpenRun, reason: str | None) -> None:
        """Close a run that failed for ``reason``, or that can be resumed if that is None."""

    def on_run_start(self, run: RunInfo, *, worker: int) -> None:
        """Open the run and log earlier epochs that are missing."""

        def action() -> None:
            self._open[worker] = self._begin(run)
            self._log_new(worker, run.curves)

        self._open.pop(worker, None)
        self._try(action)

    def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
        """Log the epoch."""
        self._try(lambda: self._log_new(worker, [epoch]))

    def on_run_end(self, result: RunResult, *, worker: int) -> None:
        """Log the result and close the run."""
        self._close(worker, lambda open_run: self._end(open_run, result))

    def on_run_interrupted(self, reason: str | None, *, worker: int) -> None:
        """Close the run."""
        self._close(worker, lambda open_run: self._interrupt(open_run, reason))

    def _log_new(self, worker: int, epochs: Sequence[Epoch]) -> None:
        open_run, logged = self._open[worker]
        new = [epoch for epoch in epochs if epoch.epoch not in logged]
        if new:
            self._log_epochs(open_run, new)
            logged |= {epoch.epoch for epoch in new}

    def _close(self, worker: int, close: Callable[[OpenRun], None]) -> None:
        entry = self._open.pop(worker, None)
        if entry is not None:
            self._try(lambda: close(entry[0]))


def hyperparameters(run: RunInfo) -> dict[str, Any]:
    """Return network, seed, recipe and sampled parameters of a run as a flat dict."""
    identity = run.identity
    values: dict[str, Any] = {"network": run.label, "params": run.params, "macs": run.macs, "seed": identity.seed}
    values |= {"data": identity.data.name, "device": identity.device, "precision": identity.precision}
    values |= _flatten(identity.recipe.to_mapping(), "recipe")
    return values | {f"sampled.{name}": value for name, value in run.context.sampled.items()}


def _flatten(mapping: Mapping[str, Any], path: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in mapping.items():
        inner = f"{path}.{name}"
        values |= _flatten(value, inner) if isinstance(value, Mapping) else {inner: value}
    return values


def epoch_metrics(epoch: Epoch) -> dict[str, float]:
    """Return the metrics of an epoch by name."""
    return {name: getattr(epoch, field) for name, field in CURVES.items()}


def final_metrics(result: RunResult) -> dict[str, float]:
    """Return the final metrics of a run by name; without accuracy if the run has none."""
    values = {
        "best/validation_loss": result.validation_loss,
        "best/validation_accuracy": result.validation_accuracy,
        "best/epoch": result.best_epoch,
        LENGTH: result.epochs,
        "seconds": result.seconds,
        "train_flops": result.train_flops,
    }
    return {name: float(value) for name, value in values.items() if value is not None}
