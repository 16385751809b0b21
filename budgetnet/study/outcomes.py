"""How trials end, in the words that the storage keeps."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

OVER_BUDGET = "over budget"
"""Turned away before any training."""
OUT_OF_MEMORY = "out of memory"
"""Too large for the device."""
REPEATED = "answered from the record"
"""The candidate had been trained before."""
INTERRUPTED = "interrupted"
"""Training was broken off; the candidate is taken up again."""
TAKEN = "taken by another worker"
"""Another worker had begun the candidate an instant before."""
SURPLUS = "enough are in training"
"""Others had begun as many candidates as were wanted an instant before."""
GAVE_WAY = (TAKEN, SURPLUS)
"""Ends of candidates that were left to others before any training."""


def is_trained(trial: FrozenTrial) -> bool:
    """Whether training time went into the trial and it came to an end."""
    return trial.state.is_finished() and bool(trial.user_attrs.get("trained"))


def is_stopped(trial: FrozenTrial) -> bool:
    """Whether the trial was pruned at a restart."""
    return is_trained(trial) and trial.user_attrs.get("status") == "stopped"


def is_over_budget(trial: FrozenTrial) -> bool:
    """Whether the trial was turned away before training."""
    return trial.state == TrialState.PRUNED and any(value > 0 for value in trial.constraints.values())


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial's candidate was to be taken up again; Optuna closes what fell silent without a word."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("ended", INTERRUPTED) == INTERRUPTED
