"""Deaths of worker processes in training one run: after three in the same epoch, the run is not tried again."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

_MOST = 3


class Ending(NamedTuple):
    """How a worker's process ended."""

    status: int | None = None
    """Its exit code, or the negative number of the signal that killed it; None if it is unknown."""

    def __str__(self) -> str:
        if self.status is None:
            return "died"
        return f"ended with exit code {self.status}" if self.status >= 0 else f"was killed by signal {self._signal}"

    @property
    def last(self) -> str:
        """Addition to a message about several deaths; empty if nothing more is known."""
        return "" if self.status is None else f"; the last time it {self}"

    @property
    def killed(self) -> bool:
        """Whether it was killed by the signal that a system sends when its memory runs out, among other reasons."""
        return self.status is not None and self.status < 0 and self._signal == "SIGKILL"

    @property
    def _signal(self) -> str:
        number = -(self.status or 0)
        try:
            return signal.Signals(number).name
        except ValueError:  # A real-time signal has no name.
            return str(number)


class Deaths(NamedTuple):
    """Worker processes that died in the same epoch of a run, the last ones."""

    number: int = 0
    epochs: int = 0
    """Number of epochs of the run that had ended by then."""

    def with_one(self, epochs: int) -> Deaths:
        """Return these and one more.

        Args:
            epochs: number of epochs of the run that had ended; more than at the deaths before make it the first again.
        """
        if self.number and epochs <= self.epochs:
            return self._replace(number=self.number + 1)
        return Deaths(1, epochs)

    @property
    def too_many(self) -> str:
        """Reason not to try the run again; empty if it can be tried."""
        return f"its worker process died {self.number} times in the same epoch" if self.number >= _MOST else ""

    @property
    def resumed(self) -> str:
        """What is said of a run that is tried again."""
        return f"is resumed ({self.number} of at most {_MOST} deaths in one epoch)"

    def to_attributes(self) -> dict[str, int]:
        """Return attributes of a trial, none without a death."""
        return {"deaths": self.number, "epochs_at_death": self.epochs} if self.number else {}

    @classmethod
    def of_attributes(cls, attributes: Mapping[str, Any]) -> Deaths:
        """Read the attributes of a trial."""
        return cls(attributes.get("deaths", 0), attributes.get("epochs_at_death", 0))
