"""Trials of a study as plain rows, for tables, figures and pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from budgetnet.common.errors import InputError
from budgetnet.model.cost import Cost
from budgetnet.study.objectives import COSTS, CostName, unbeaten

Outcome = Literal[
    "complete",
    "pruned",
    "over budget",
    "duplicate",
    "running",
    "interrupted",
    "resumed",
    "skipped",
    "no result",
]
"""Outcome of a trial: trained for all epochs, pruned at the end of a cycle, rejected before training, trained before in
another trial, in training, interrupted and to be resumed, interrupted and resumed in a later trial, left to another
command that is training it, or without a result (diverged, out of memory, failed)."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Trial(NamedTuple):
    """One trial of a study."""

    number: int
    outcome: Outcome
    architecture: str
    """Label of its network."""
    spec: str
    """Hexadecimal SHA-256 of its specification."""
    params: int
    """Parameters, frozen ones included."""
    macs: int
    """Multiply-accumulates for one image."""
    activations: int
    """Output elements of convolutions and the linear layer for one image."""
    budget_used: float
    """The largest share of a limit that it uses; above 1 it is over budget."""
    accuracy: float | None = None
    """Share of validation images classified correctly at the best epoch so far."""
    correct: int | None = None
    """Validation images classified correctly at the best epoch."""
    images: int | None = None
    """Validation images."""
    epochs: int | None = None
    """Epochs trained."""
    cycles: int | None = None
    """Cycles of the schedule completed."""
    seconds: float | None = None
    """Wall time of all epochs."""
    train_flops: int | None = None
    """Floating-point operations of all epochs trained (`budgetnet.runs.training_cost`); None if not trained."""
    trained: bool = False
    """Whether it was trained and has ended, pruned and diverged ones included."""
    ended: str | None = None
    """Reason why it ended."""
    seed: int | None = None
    """Seed of its run."""
    run: str | None = None
    """Name of its run folder."""
    enqueued: bool = False
    """Whether the user enqueued it."""
    reports: Mapping[int, float] = MappingProxyType({})
    """Validation accuracy at the end of each cycle, by that epoch."""
    sampled: Mapping[str, Any] = MappingProxyType({})
    """Sampled values by parameter; empty if enqueued."""
    began: datetime | None = None
    finished: datetime | None = None
    needs: Mapping[str, float] = MappingProxyType({})
    """What the deployed network needs of each limit on it, and of each cost, that the study has."""
    resumed_in: int | None = None
    """Number of the trial in which the candidate was resumed after this one was interrupted."""

    @property
    def name(self) -> str:
        """Name in tables and figures: ``#12``."""
        return f"#{self.number}"

    @property
    def cost(self) -> Cost:
        """Closed-form cost of its network."""
        return Cost(self.params, self.macs, self.activations)

    def amount(self, cost: CostName) -> float | None:
        """Return how much of a cost its network has; None if the study has not stored it."""
        attribute = COSTS[cost].attribute
        amount: float | None = self.needs.get(attribute, getattr(self.cost, attribute, None))
        return amount

    @property
    def fits(self) -> bool:
        """Whether every limit of the budget holds."""
        return self.outcome != "over budget"


def front(trials: Iterable[Trial], *, costs: Sequence[CostName] = ("params",)) -> list[Trial]:
    """Return the Pareto front of accuracy and costs, the trial of the lowest first cost first.

    Only complete trials are considered. Of trials with equal accuracy the cheapest is kept, of trials equal in all the
    first.

    Args:
        trials: trials of one study.
        costs: costs to minimise: ``params``, ``macs``, ``activations``, or one of the deployed network, ``weights``,
            ``peak_memory`` or ``latency``, that the study limits or minimises.

    Raises:
        InputError: no such cost, or the trials do not have it.
    """
    for cost in costs:
        if cost not in COSTS:
            raise InputError("cost", cost, f"must be one of {', '.join(COSTS)}")
    complete = [trial for trial in trials if trial.outcome == "complete" and trial.accuracy is not None]
    complete.sort(key=lambda trial: trial.number)
    amounts = [(trial, found) for trial in complete if (found := _amounts(trial, costs)) is not None]
    if complete and not amounts:
        raise InputError("cost", ", ".join(costs), "must be limited or minimised by the study")
    points = [(-(trial.accuracy or 0.0), *found) for trial, found in amounts]
    on_front = [amounts[place] for place in unbeaten(points)]
    return [trial for trial, _ in sorted(on_front, key=lambda each: each[1])]


def _amounts(trial: Trial, costs: Sequence[CostName]) -> tuple[float, ...] | None:
    """Return the amounts of costs; None if one is not stored."""
    found = [amount for cost in costs if (amount := trial.amount(cost)) is not None]
    return tuple(found) if len(found) == len(costs) else None


def one_per_candidate(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials without those whose candidate was resumed, whose reports pass to the trial that resumed it."""
    reports: dict[int, dict[int, float]] = {}
    kept = []
    for trial in sorted(trials, key=lambda each: each.number):
        found = {**reports.pop(trial.number, {}), **trial.reports}
        if trial.resumed_in is None:
            kept.append(trial._replace(reports=MappingProxyType(found)))
        else:
            reports[trial.resumed_in] = found
    return kept


def count_outcomes(trials: Iterable[Trial]) -> dict[str, int]:
    """Return the number of candidates by outcome; one that was interrupted and resumed is counted once.

    ``trained`` counts all trained ones, ``pruned`` those of them that were pruned at the end of a cycle,
    ``over_budget`` rejected ones, ``duplicate`` those trained before, ``no_result`` those that diverged, ran out of
    memory or failed, ``running`` those in training, ``interrupted`` those to be resumed, and ``skipped`` those that
    another command is training.
    """
    trials = list(trials)
    outcomes = Counter(trial.outcome for trial in trials)
    return {
        "trained": sum(trial.trained for trial in trials),
        "pruned": outcomes["pruned"],
        "over_budget": outcomes["over budget"],
        "duplicate": outcomes["duplicate"],
        "no_result": outcomes["no result"],
        "running": outcomes["running"],
        "interrupted": outcomes["interrupted"],
        "skipped": outcomes["skipped"],
    }


def outcome_text(counts: Mapping[str, int]) -> str:
    """Return the counts of `count_outcomes` as a sentence without a full stop."""
    others = {"running": "in training", "interrupted": "interrupted", "skipped": "trained by another command"}
    rest = "".join(f", {counts[key]:,} {words}" for key, words in others.items() if counts[key])
    return (
        f"{counts['trained']:,} trained, {counts['pruned']:,} of them pruned at the end of a cycle; "
        f"{counts['over_budget']:,} rejected before training (over budget), {counts['duplicate']:,} duplicates, "
        f"{counts['no_result']:,} without a result{rest}"
    )
