"""Trials of a study as rows, read from its storage."""

from __future__ import annotations

import logging
from collections import Counter
from types import MappingProxyType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from budgetnet.common.formatting import count_of
from budgetnet.model.deployed.limits import DEPLOYED
from budgetnet.study.damage import damage_of, is_ours
from budgetnet.study.lock import is_searched
from budgetnet.study.outcomes import (
    DUPLICATE,
    IN_TRAINING_ELSEWHERE,
    INTERRUPTED,
    accuracy_of,
    is_interrupted,
    is_over_budget,
    is_stopped,
    is_trained,
)
from budgetnet.study.trials import Outcome, Trial

_log = logging.getLogger(__name__)


def read_trials(study: optuna.Study) -> list[Trial]:
    """Return the trials of a study in order, without those that budgetnet did not write.

    Trials that a killed search left unfinished count as interrupted once no search of the study is running.
    Damaged trials are left out, each with a warning that says which field is damaged.
    """
    kept, count = [], len(study.directions)
    for trial in study.get_trials(deepcopy=False):
        if damage := damage_of(trial, objectives=count):
            _log.warning("study %s: trial #%d is damaged and left out: %s", study.study_name, trial.number, damage)
        elif is_ours(trial):
            kept.append(trial)
    resumed = {trial.user_attrs["retry_of"]: trial.number for trial in kept if "retry_of" in trial.user_attrs}
    is_left = any(not trial.state.is_finished() for trial in kept) and not is_searched(study)
    return [_row(trial, resumed.get(trial.number), is_left=is_left) for trial in kept]


def failures(study: optuna.Study) -> str:
    """Return why trials have no result, with their numbers, or nothing if a trial has one or none has ended."""
    trials = read_trials(study)
    if any(trial.outcome in ("complete", "pruned") for trial in trials):
        return ""
    reasons = Counter(trial.ended or "no reason" for trial in trials if trial.outcome == "no result")
    return "; ".join(f"{count_of(count, 'trial')}: {reason}" for reason, count in reasons.most_common(3))


def _row(trial: FrozenTrial, resumed_in: int | None, *, is_left: bool) -> Trial:
    """Return a trial as a row.

    Args:
        trial: one of budgetnet's trials.
        resumed_in: number of the trial that resumed its candidate.
        is_left: whether no search is running that could finish it.
    """
    facts: dict[str, Any] = trial.user_attrs
    correct, images = facts.get("validation_correct"), facts.get("validation_images")
    is_complete = trial.state == TrialState.COMPLETE
    outcome = _outcome(trial, is_left=is_left) if resumed_in is None else "resumed"
    kept: dict[str, Any] = {key: facts[key] for key in _ALWAYS} | {key: facts.get(key) for key in _TRAINED}
    if outcome == "interrupted":
        kept["ended"] = INTERRUPTED
    return Trial(
        number=trial.number,
        outcome=outcome,
        # A duplicate of a trial may have only a value.
        accuracy=accuracy_of(trial) if correct is None and is_complete else _share(correct, images),
        correct=correct,
        images=images,
        trained=is_trained(trial),
        enqueued="enqueued" in facts,
        reports=MappingProxyType(trial.intermediate_values),
        sampled=MappingProxyType(trial.params),
        began=trial.datetime_start,
        finished=trial.datetime_complete,
        needs=MappingProxyType({name: facts[name] for name in DEPLOYED if name in facts}),
        resumed_in=resumed_in,
        **kept,
    )


_ALWAYS = ("architecture", "spec", "params", "macs", "activations", "budget_used")
_TRAINED = ("epochs", "cycles", "seconds", "train_flops", "ended", "seed", "run")


def _share(correct: int | None, images: int | None) -> float | None:
    return None if correct is None or not images else correct / images


def _outcome(trial: FrozenTrial, *, is_left: bool) -> Outcome:
    ended = trial.user_attrs.get("ended")
    outcomes: tuple[tuple[bool, Outcome], ...] = (
        (not trial.state.is_finished(), "interrupted" if is_left else "running"),
        (is_over_budget(trial), "over budget"),
        (ended == DUPLICATE, "duplicate"),
        (ended == IN_TRAINING_ELSEWHERE, "skipped"),
        (is_interrupted(trial), "interrupted"),
        (is_stopped(trial), "pruned"),
        (trial.state == TrialState.COMPLETE, "complete"),
    )
    return next((outcome for holds, outcome in outcomes if holds), "no result")
