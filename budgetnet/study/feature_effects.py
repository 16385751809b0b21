"""Effects of closed-form features on accuracy, as the surrogate model learns them from a study's trials."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState

from budgetnet.statistics.intervals import Interval
from budgetnet.study.damage import undamaged
from budgetnet.study.sampling.encoding import Encoder
from budgetnet.study.sampling.process import Posterior, deviations
from budgetnet.study.sampling.study_domain import PRIOR, features_of
from budgetnet.study.sampling.surrogate import accuracies_of, inputs_of
from budgetnet.study.settings import StudySettings
from budgetnet.study.space import pool

LEAST_TRIALS = 4
"""Least number of complete trials: with fewer the effects are what was expected before."""
_NORMAL = 1.959964
"""Quantile of the normal distribution for 95 %."""


class FeatureEffect(NamedTuple):
    """Effect of one feature, all others and the sampled parameters being equal."""

    feature: str
    effect: float
    """Standard deviations of accuracy for one standard deviation of the feature among the trained candidates."""
    interval: Interval
    """95 % interval of the model's posterior."""
    expected: float
    """Effect that the model starts with."""


def feature_effects(study: optuna.Study, settings: StudySettings) -> list[FeatureEffect]:
    """Return the effect of each closed-form feature, learned from all trained trials, whatever sampled them.

    Damaged trials, and features that do not vary, are left out. Empty with fewer than `LEAST_TRIALS` complete trials.

    Args:
        study: the study.
        settings: its settings.
    """
    trials = undamaged(study, TrialState.COMPLETE, TrialState.PRUNED)
    if sum(trial.state == TrialState.COMPLETE for trial in trials) < LEAST_TRIALS:
        return []
    features = np.array([features_of(trial) for trial in trials])
    deviation = deviations(features)
    standardised = (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    sizing = settings.config.sizing
    has_share = any("budget_share" in trial.params for trial in trials)
    sampled = pool.distributions(settings.space, sizing) if has_share else settings.space.proposed(sizing)
    posterior = Posterior(inputs_of(trials, standardised, Encoder(sampled)), accuracies_of(trials), prior=PRIOR)
    rows = zip(pool.FEATURES, *posterior.weights, PRIOR, deviation, strict=True)
    return [
        FeatureEffect(name, float(mean), _interval(float(mean), float(error)), float(expected))
        for name, mean, error, expected, varies in rows
        if varies > 0
    ]


def _interval(mean: float, deviation: float) -> Interval:
    return Interval(mean - _NORMAL * deviation, mean + _NORMAL * deviation)
