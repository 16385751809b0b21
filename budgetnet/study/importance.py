"""Importance of the sampled parameters of a study."""

from __future__ import annotations

import warnings

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from budgetnet.study.damage import undamaged
from budgetnet.study.outcomes import accuracy_of

LEAST_TRIALS = 4
"""Least number of complete trials: with fewer there is no best quantile to compare."""


def parameter_importance(study: optuna.Study) -> dict[str, float]:
    """Return the PED-ANOVA importance of each sampled parameter for accuracy; the importances add up to 1.

    Only complete trials with sampled parameters are used, without damaged ones. Empty with fewer than `LEAST_TRIALS`
    of them.

    Source:
        S. Watanabe, A. Bansal, F. Hutter (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
        Arbitrary Subspaces".
    """
    complete = [trial for trial in undamaged(study, TrialState.COMPLETE) if trial.params]
    if len(complete) < LEAST_TRIALS:
        return {}
    # A copy in memory, without pruned trials and duplicates.
    mirror = optuna.create_study(direction="maximize")
    mirror.add_trials(
        [
            create_trial(value=accuracy_of(trial), params=trial.params, distributions=trial.distributions)
            for trial in complete
        ]
    )
    with warnings.catch_warnings():
        # The evaluator is experimental, and warns of parameters with few values.
        warnings.simplefilter("ignore")
        return get_param_importances(mirror, evaluator=PedAnovaImportanceEvaluator())
