"""What a study's storage says of each of its trials, as plain rows: what tables, figures and pages are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from budgetnet.common.errors import InputError

Outcome = Literal[
    "complete",
    "pruned",
    "over budget",
    "repeated",
    "running",
    "interrupted",
    "left to another",
    "no result",
]
"""What became of a trial: trained to its end, given up at a restart, turned away before any training, answered from the
record, in training, broken off and to be taken up again, left to another worker before any training, or trained to no
result (diverged, too large for the device, broken down)."""
FATES: tuple[Outcome, ...] = get_args(Outcome)

CostName = Literal["params", "macs", "activations"]


class Trial(NamedTuple):
    """One trial of a study."""

    number: int
    fate: Outcome
    architecture: str
    """What its network is called."""
    spec: str
    """Hexadecimal SHA-256 of its specification."""
    params: int
    """Trainable parameters."""
    macs: int
    """Multiply-accumulates for one image."""
    activations: int
    """Output elements of convolutions and the linear layer for one image."""
    budget_used: float
    """The largest share of a limit that it uses; above 1 it is over budget."""
    accuracy: float | None = None
    """Share of validation images classified rightly at the best epoch; of a pruned one as far as it was trained."""
    correct: int | None = None
    """Validation images classified rightly at the best epoch."""
    images: int | None = None
    """Validation images."""
    gap: float | None = None
    """Accuracy less the published one, as a share."""
    epochs: int | None = None
    """Epochs trained."""
    cycles: int | None = None
    """Cycles of the schedule completed."""
    seconds: float | None = None
    """Wall time of all epochs."""
    train_flops: int | None = None
    """Operations of all epochs trained (`budgetnet.runs.training_cost`); none where it was not trained."""
    trained: bool = False
    """Whether training time went into it and it came to an end, diverged ones included."""
    ended: str | None = None
    """Why it ended, in words."""
    seed: int | None = None
    """Of its run."""
    run: str | None = None
    """Name of its run folder."""
    by_hand: bool = False
    """Whether a person named it."""
    reports: Mapping[int, float] = MappingProxyType({})
    """Validation accuracy at the end of each cycle, by the epoch that ends it."""
    drawn: Mapping[str, Any] = MappingProxyType({})
    """What the sampler drew; empty for one made by hand."""
    began: datetime | None = None
    finished: datetime | None = None

    @property
    def name(self) -> str:
        """For people: ``#12``."""
        return f"#{self.number}"

    @property
    def fits(self) -> bool:
        """Whether every limit of the budget holds."""
        return self.fate != "over budget"


def front(trials: Iterable[Trial], *, cost: CostName = "params") -> list[Trial]:
    """The trials that no other beats: whoever is more accurate costs more. The cheapest first.

    Only trials that were trained to their end within the budget are looked at. Of several with one accuracy the
    cheapest stays, of several alike in both the first.

    Args:
        trials: of one study.
        cost: what shall be small: ``params``, ``macs`` or ``activations``.

    Raises:
        InputError: no such cost.
    """
    if cost not in get_args(CostName):
        raise InputError("cost", cost, f"must be one of {', '.join(get_args(CostName))}")
    complete = [trial for trial in trials if trial.fate == "complete" and trial.accuracy is not None]
    ordered = sorted(complete, key=lambda trial: (getattr(trial, cost), -_accuracy(trial), trial.number))
    found: list[Trial] = []
    for trial in ordered:
        if not found or _accuracy(trial) > _accuracy(found[-1]):
            found.append(trial)
    return found


def _accuracy(trial: Trial) -> float:
    return trial.accuracy or 0.0


def count_outcomes(trials: Sequence[Trial]) -> dict[str, int]:
    """How many candidates met which fate.

    ``trained`` counts what training time went into, ``pruned`` those of them that ended at a restart, ``over_budget``
    what was turned away, ``repeated`` what was answered from the record, and ``no_result`` what came to none: diverged,
    too large for the device, or broken down.
    """
    fates = Counter(trial.fate for trial in trials)
    return {
        "trained": sum(trial.trained for trial in trials),
        "pruned": fates["pruned"],
        "over_budget": fates["over budget"],
        "repeated": fates["repeated"],
        "no_result": fates["no result"],
    }
