"""What a search or batch has trained so far, for what shows progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from budgetnet.common.formatting import percent
from budgetnet.training.callbacks import RunInfo


@dataclass
class Work:
    """What is to be trained, and how far it is; by default one run."""

    noun: str = ""
    """What the runs are: ``trials``, ``runs`` or ``trainings of finalists``; empty for one run."""
    total: int = 1
    """Number of runs to train, earlier ones included."""
    trained: int = 0
    """Number of runs trained, earlier ones included."""
    pruned: int = 0
    """Number of trained runs that were pruned."""
    rejected: int = 0
    """Number of trials rejected as over budget."""
    best: float | None = None
    """Highest validation accuracy of a complete run, as a share."""
    images: int | None = None
    """Number of its validation images."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Name of a run in messages by that of its folder, such as ``finalist 1/2, seed 2/2``."""

    def name_of(self, run: RunInfo) -> str:
        """Return a run's name: that of its trial, or the one given, or nothing."""
        trial = run.context.trial
        return f"#{trial}" if trial is not None else self.names.get(run.run, "")

    def label_of(self, run: RunInfo) -> str:
        """Return a run's name and its network: ``#3 basic-64x2``, ``finalist 1/2, seed 2/2: basic-64x2``."""
        name = self.name_of(run)
        between = "" if not name else " " if run.context.trial is not None else ": "
        return f"{name}{between}{run.label}"

    def summary(self) -> str:
        """Return the state of the search or batch in a few words."""
        best = "" if self.best is None else f" · best {percent(self.best, images=self.images)} %"
        if self.noun != "trials":
            return f"{self.noun}{best}"
        return f"{self.noun}{best} · {self.pruned} pruned · {self.rejected} over budget"
