"""Which of the parameters that a sampler drew a study's accuracies hang on, by Optuna's evaluator."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from budgetnet.study.outcomes import is_trained

LEAST_TRIALS = 4
"""With fewer, no part of the trials would be the better one."""


def parameter_importance(study: optuna.Study) -> dict[str, float]:
    """The share of each drawn parameter in what tells good candidates from the others, by PED-ANOVA; they add up to 1.

    Looked at is what was trained to its end and drawn by the sampler. Empty where that is too little.

    Source:
        S. Watanabe, A. Bansal, F. Hutter (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
        Arbitrary Subspaces".
    """
    complete = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if is_trained(trial) and trial.params
    ]
    if len(complete) < LEAST_TRIALS:
        return {}
    # In memory, so that no evaluator takes what was pruned or answered from the record for a result of its own.
    mirror = optuna.create_study(direction="maximize")
    mirror.add_trials(
        [create_trial(value=trial.value, params=trial.params, distributions=trial.distributions) for trial in complete]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return get_param_importances(mirror, evaluator=PedAnovaImportanceEvaluator())
