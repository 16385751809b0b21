"""What a search, or any other batch of runs, tells of its progress, and to whom."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from budgetnet.records import Epoch, RunResult


class Announced(NamedTuple):
    """A candidate whose training begins."""

    label: str
    params: int
    """Trainable parameters."""
    trained: int
    """Candidates of the study trained so far."""
    epochs: int | None = None
    """Most epochs of its recipe, where runs have recipes of their own."""


class Observer(Protocol):
    """What a search tells of its progress; ``worker`` is the number of the worker that tells."""

    def turned_away(self, *, worker: int) -> None:
        """A candidate did not fit and was closed without training."""

    def begun(self, candidate: Announced, *, worker: int) -> None:
        """Training of a candidate begins."""

    def stepped(self, epoch: int, share: float, *, worker: int) -> None:
        """A step of training ended; ``share`` of the epoch is done."""

    def epoch_ended(self, epoch: Epoch, *, worker: int) -> None:
        """An epoch of training ended."""

    def ended(self, result: RunResult | None, *, worker: int) -> None:
        """Training of a candidate ended, with its result unless it broke down."""
