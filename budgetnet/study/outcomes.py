"""Reasons for which trials end, as stored with them, and predicates on trials."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

OVER_BUDGET = "over budget"
"""Rejected before training."""
OUT_OF_MEMORY = "out of memory"
"""Too large for the device."""
DUPLICATE = "duplicate"
"""The candidate was trained in an earlier trial."""
INTERRUPTED = "interrupted"
"""Training was interrupted; the candidate resumes in a new trial."""
IN_TRAINING_ELSEWHERE = "in training elsewhere"
"""Another command was training the same run, so the candidate was left before training."""
DAMAGED = "damaged"
"""The trial cannot be read from the storage."""
DAMAGE = "budgetnet:damage"
"""Attribute of a damaged trial, as it is read, that says which field is damaged."""


def accuracy_of(trial: FrozenTrial) -> float | None:
    """Return a trial's validation accuracy, the first of its values in every study; None without a value."""
    return trial.values[0] if trial.values else None


def is_trained(trial: FrozenTrial) -> bool:
    """Return whether the trial was trained and has ended, pruned and diverged ones included."""
    return trial.state.is_finished() and bool(trial.user_attrs.get("trained"))


def is_stopped(trial: FrozenTrial) -> bool:
    """Return whether the trial was pruned at the end of a cycle."""
    return is_trained(trial) and trial.user_attrs.get("status") == "stopped"


def is_over_budget(trial: FrozenTrial) -> bool:
    """Return whether the trial was rejected as over budget."""
    return trial.state == TrialState.PRUNED and any(value > 0 for value in trial.constraints.values())


def is_interrupted(trial: FrozenTrial) -> bool:
    """Return whether the trial's candidate is to be resumed; Optuna closes stale trials without a reason."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("ended", INTERRUPTED) == INTERRUPTED
