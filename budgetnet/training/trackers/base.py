"""What trackers have in common: runs told apart, told but once, and a failing store that costs no training."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from budgetnet.common.errors import InputError
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Announced, Callback

_log = logging.getLogger(__name__)

CURVES = {
    "train/loss": "train_loss",
    "train/accuracy": "train_accuracy",
    "validation/loss": "validation_loss",
    "validation/accuracy": "validation_accuracy",
    "learning_rate": "learning_rate",
}
"""What is drawn of every epoch: the names of the curves, and of the fields of `Epoch`."""

LENGTH = "epochs"
"""The final value that says for how many epochs a run is kept to its end."""

Kept = TypeVar("Kept")
"""What a tracker holds on to while a run trains."""


def require_package(module: str, *, extra: str) -> None:
    """Refuses a tracker whose package is not installed, before anything is trained.

    Raises:
        InputError: it is not.
    """
    if find_spec(module) is None:
        rule = f"needs a package that is not installed: pip install 'budgetnet[{extra}]'"
        raise InputError("tracker", extra, rule)


class Tracker(Callback, ABC):
    """A callback that keeps runs in a store of another program.

    Training must not die for a store being away: the first error is told as a warning, and the tracker is silent from
    then on. What it has missed it makes up for when the run is taken up again.
    """

    name: str
    """What the tracker is called in a warning."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        """Why the tracker has fallen silent; none while it has not."""

    def _try(self, action: Callable[[], None]) -> None:
        """Does something with the store, unless the tracker has fallen silent."""
        if self.failure is not None:
            return
        try:
            action()
        except Exception as error:
            self.failure = error
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            _log.warning("%s follows no more, training goes on: %s", self.name, first)


class RunTracker(Tracker, Generic[Kept]):
    """A tracker that keeps runs one by one, with every epoch once."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[int, tuple[Kept, set[int]]] = {}
        """The run of each worker, and the epochs that are kept of it."""

    @abstractmethod
    def _begin(self, run: Announced) -> tuple[Kept, set[int]]:
        """Opens a run, which may be known from an earlier start; gives the epochs that are kept of it already."""

    @abstractmethod
    def _keep(self, kept: Kept, epochs: Sequence[Epoch]) -> None:
        """Keeps epochs."""

    @abstractmethod
    def _end(self, kept: Kept, result: RunResult) -> None:
        """Keeps how a run ended, and closes it."""

    @abstractmethod
    def _break_off(self, kept: Kept, reason: str | None) -> None:
        """Closes a run that broke off, for a reason or to go on later."""

    def begun(self, run: Announced, *, worker: int) -> None:
        """Opens the run and makes up for epochs of earlier starts that were not kept."""

        def action() -> None:
            self._open[worker] = self._begin(run)
            self._keep_new(worker, run.curves)

        self._open.pop(worker, None)
        self._try(action)

    def epoch_ended(self, epoch: Epoch, *, worker: int) -> None:
        """Keeps the epoch."""
        self._try(lambda: self._keep_new(worker, [epoch]))

    def ended(self, result: RunResult, *, worker: int) -> None:
        """Keeps how the run ended."""
        self._close(worker, lambda kept: self._end(kept, result))

    def broken_off(self, reason: str | None, *, worker: int) -> None:
        """Closes the run."""
        self._close(worker, lambda kept: self._break_off(kept, reason))

    def _keep_new(self, worker: int, epochs: Sequence[Epoch]) -> None:
        kept, known = self._open[worker]
        new = [epoch for epoch in epochs if epoch.epoch not in known]
        if new:
            self._keep(kept, new)
            known |= {epoch.epoch for epoch in new}

    def _close(self, worker: int, close: Callable[[Kept], None]) -> None:
        kept = self._open.pop(worker, None)
        if kept is not None:
            self._try(lambda: close(kept[0]))


def describe(run: Announced) -> dict[str, Any]:
    """What is worth comparing runs by, as flat plain data: network, seed, recipe, and what the sampler drew."""
    identity = run.identity
    facts: dict[str, Any] = {"network": run.label, "params": run.params, "macs": run.macs, "seed": identity.seed}
    facts |= {"data": identity.data.name, "device": identity.device, "precision": identity.precision}
    facts |= _flat(identity.recipe.to_mapping(), "recipe")
    return facts | {f"drawn.{name}": value for name, value in run.occasion.drawn.items()}


def _flat(mapping: Mapping[str, Any], path: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, value in mapping.items():
        inner = f"{path}.{name}"
        facts |= _flat(value, inner) if isinstance(value, Mapping) else {inner: value}
    return facts


def curve_values(epoch: Epoch) -> dict[str, float]:
    """What is drawn of an epoch, by name."""
    return {name: getattr(epoch, field) for name, field in CURVES.items()}


def final_values(result: RunResult) -> dict[str, float]:
    """What a run came to, by name; without accuracy where it came to none."""
    values = {
        "best/validation_loss": result.validation_loss,
        "best/validation_accuracy": result.validation_accuracy,
        "best/epoch": result.best_epoch,
        LENGTH: result.epochs,
        "seconds": result.seconds,
        "train_flops": result.train_flops,
    }
    return {name: float(value) for name, value in values.items() if value is not None}
