"""Unranked candidates of a report, with the reasons and counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from budgetnet.common.formatting import percent
from budgetnet.model.budget import Budget
from budgetnet.study.outcomes import OUT_OF_MEMORY
from budgetnet.study.trials import Trial
from budgetnet.visualization.report.content import Rejection, RejectionCount, RejectionKind
from budgetnet.visualization.report.formatting import LIMIT_NAMES


def is_ranked(trial: Trial, budget: Budget) -> bool:
    """Return whether a candidate is fully trained, evaluated and within the budget."""
    complete = trial.outcome == "complete" and trial.correct is not None and bool(trial.images)
    return complete and budget.allows(trial.cost, trial.needs)


def rejections(trials: Sequence[Trial], budget: Budget) -> list[Rejection]:
    """Return the finished candidates that are not ranked, in the order given.

    Args:
        trials: trials of one study.
        budget: budget of the study.
    """
    first: dict[str, Trial] = {}
    for trial in trials:
        if trial.trained:
            first.setdefault(trial.spec, trial)
    return [
        _rejection(trial, budget, first.get(trial.spec))
        for trial in trials
        if trial.outcome != "running" and not is_ranked(trial, budget)
    ]


def counted(rejected: Iterable[Rejection]) -> list[RejectionCount]:
    """Count candidates by kind, pruned ones by cycle, with their training cost."""
    groups: dict[tuple[RejectionKind, str], list[Trial]] = {}
    for each in rejected:
        detail = f"after cycle {each.trial.cycles}" if each.kind == "pruned" else ""
        groups.setdefault((each.kind, detail), []).append(each.trial)
    order = get_args(RejectionKind)
    return [
        RejectionCount(
            kind,
            detail,
            len(group),
            sum(trial.epochs or 0 for trial in group if trial.trained),
            sum(trial.seconds or 0.0 for trial in group if trial.trained),
        )
        for (kind, detail), group in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]


def _rejection(trial: Trial, budget: Budget, earlier: Trial | None) -> Rejection:
    if trial.outcome == "over budget" or not budget.allows(trial.cost, trial.needs):
        return Rejection(trial, "over budget", _excess(trial, budget))
    reached = "" if trial.accuracy is None else f", at {percent(trial.accuracy, images=trial.images)} %"
    known = f", as {earlier.name}" if earlier is not None and earlier.number != trial.number else ""
    reasons: dict[str, tuple[RejectionKind, str]] = {
        "pruned": ("pruned", f"after cycle {trial.cycles}{reached}: other candidates were better"),
        "duplicate": ("duplicate", f"already trained{known}; the stored result was used"),
        "interrupted": ("interrupted", "interrupted, to be resumed"),
        "skipped": ("skipped", trial.ended or "trained by another worker"),
    }
    if trial.outcome in reasons:
        return Rejection(trial, *reasons[trial.outcome])
    if trial.ended == OUT_OF_MEMORY:
        return Rejection(trial, "out of memory", "too large for the device, even with half the batch size")
    return Rejection(trial, "diverged" if trial.trained else "no result", trial.ended or "no reason recorded")


def _excess(trial: Trial, budget: Budget) -> str:
    """Return by how much a candidate exceeds each limit."""
    over = (limit for limit in budget.limits(trial.cost, trial.needs) if limit.headroom < 0)
    return "; ".join(
        f"unknown {limit.words}: the device's file lacks one of its operations"
        if limit.is_unknown
        else f"{limit.text(-limit.headroom)} {LIMIT_NAMES.get(limit.limit) or limit.words} over the "
        f"{limit.text(limit.allowed)} allowed: {limit.used / limit.allowed:,.2f} times as "
        f"{'much' if limit.limit in budget.deployed else 'many'}"
        for limit in over
    )
