"""Who is told of training and of searches, and what: the one protocol of bars, of trackers and of whoever else asks.

Of every run `begun` is told first and then, behind steps and epochs, either `ended` or `broken_off`. With several
workers runs overlap: those of one worker follow one another, so its number says of which run an event tells. All
events are told in the process that began the search, whichever process trains.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from budgetnet.runs.records import Epoch, RunIdentity, RunResult

_log = logging.getLogger(__name__)


class Occasion(NamedTuple):
    """What a run is trained for; a run on its own has none of it."""

    worker: int = 0
    """Number of the worker that trains it."""
    trained: int = 0
    """Runs of the search or batch trained before it."""
    study: str | None = None
    """Name of the search's study."""
    trial: int | None = None
    """Number of its trial in the study."""
    drawn: Mapping[str, Any] = MappingProxyType({})
    """What the sampler drew for it, by name; nothing for a network made by hand."""


class Announced(NamedTuple):
    """A run whose training begins or goes on."""

    identity: RunIdentity
    """Everything that determines it: network, recipe, data, seed and device."""
    run: str
    """Name of its folder."""
    occasion: Occasion = Occasion()
    """What it is trained for."""
    curves: tuple[Epoch, ...] = ()
    """Epochs of earlier starts, which are not told again: all of them where the run is answered from its record."""

    @property
    def label(self) -> str:
        """The network in a few words, or its name."""
        return self.identity.spec.label

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return self.identity.spec.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.identity.spec.macs

    @property
    def epochs(self) -> int:
        """Most epochs of its recipe."""
        return self.identity.recipe.epochs

    def to_mapping(self) -> dict[str, Any]:
        """The announcement as plain data, ready for JSON."""
        return {
            "identity": self.identity.to_mapping(),
            "run": self.run,
            "occasion": {**self.occasion._asdict(), "drawn": dict(self.occasion.drawn)},
            "curves": [list(epoch) for epoch in self.curves],
        }

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Announced:
        """The announcement that `to_mapping` wrote down."""
        return cls(
            RunIdentity.from_mapping(mapping["identity"]),
            mapping["run"],
            Occasion(**mapping["occasion"]),
            tuple(Epoch(*row) for row in mapping["curves"]),
        )


class Callback:
    """Is told of training and of searches: override what you want to hear of.

    What a callback raises breaks training off and comes out of the search, as an interrupt does: nothing is lost, and
    the same call takes the candidate up again.

        >>> class Printer(Callback):
        ...     def epoch_ended(self, epoch, *, worker):
        ...         print(epoch.epoch, epoch.validation_accuracy)
    """

    def turned_away(self, *, worker: int) -> None:
        """A candidate did not fit and was closed without training."""

    def begun(self, run: Announced, *, worker: int) -> None:
        """Training of a run begins, goes on after its last epoch, or is answered from its record."""

    def stepped(self, epoch: int, share: float, *, worker: int) -> None:
        """A step of training ended; ``share`` of the epoch, counted from 1, is done. Workers leave some steps out."""

    def epoch_ended(self, epoch: Epoch, *, worker: int) -> None:
        """An epoch of training ended and is kept: a run that is killed now goes on behind it."""

    def ended(self, result: RunResult, *, worker: int) -> None:
        """Training of a run ended, of its own accord or stopped by a search, and its result is kept."""

    def broken_off(self, reason: str | None, *, worker: int) -> None:
        """Training of a run broke off without a result: it failed for this reason, or may go on where there is none."""


class Callbacks(Callback):
    """Tells several, in their order; the first that raises keeps an event from those behind it."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)
        self.raised: BaseException | None = None
        """What one of them raised last; none while none has."""

    def turned_away(self, *, worker: int) -> None:
        """Tells all."""
        self._tell(lambda each: each.turned_away(worker=worker))

    def begun(self, run: Announced, *, worker: int) -> None:
        """Tells all."""
        self._tell(lambda each: each.begun(run, worker=worker))

    def stepped(self, epoch: int, share: float, *, worker: int) -> None:
        """Tells all."""
        self._tell(lambda each: each.stepped(epoch, share, worker=worker))

    def epoch_ended(self, epoch: Epoch, *, worker: int) -> None:
        """Tells all."""
        self._tell(lambda each: each.epoch_ended(epoch, worker=worker))

    def ended(self, result: RunResult, *, worker: int) -> None:
        """Tells all."""
        self._tell(lambda each: each.ended(result, worker=worker))

    def broken_off(self, reason: str | None, *, worker: int) -> None:
        """Tells all, whatever any of them raises: what broke training off is on its way already, and is what counts."""
        for callback in self._callbacks:
            try:
                callback.broken_off(reason, worker=worker)
            except Exception as error:
                _log.warning("a callback that was told of a run broken off failed as well: %r", error)

    def _tell(self, event: Callable[[Callback], None]) -> None:
        try:
            for callback in self._callbacks:
                event(callback)
        except BaseException as error:
            self.raised = error
            raise


class Teller:
    """Tells a callback, or nobody, of one run."""

    def __init__(self, callback: Callback | None, announced: Announced) -> None:
        self._callbacks = Callbacks([callback] if callback else [])
        self._announced, self._worker = announced, announced.occasion.worker

    @contextmanager
    def training(self, curves: Sequence[Epoch]) -> Iterator[None]:
        """Says that the run begins behind these epochs and, if it does not come to its end, that it broke off."""
        try:
            self._callbacks.begun(self._announced._replace(curves=tuple(curves)), worker=self._worker)
            yield
        except BaseException as error:
            # What passes is no failure: the run can go on where it stopped.
            passing = error is self._callbacks.raised or not isinstance(error, Exception) or isinstance(error, OSError)
            reason = None if passing else f"{type(error).__name__}: {error}"
            self._callbacks.broken_off(reason, worker=self._worker)
            raise

    def stepped(self, epoch: int, share: float) -> None:
        """A step ended."""
        self._callbacks.stepped(epoch, share, worker=self._worker)

    def epoch_ended(self, epoch: Epoch) -> None:
        """An epoch is kept."""
        self._callbacks.epoch_ended(epoch, worker=self._worker)

    def ended(self, result: RunResult) -> None:
        """The run's result is kept."""
        self._callbacks.ended(result, worker=self._worker)
