"""Effects of closed-form features that a study's trials teach the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from support import TINY_SPACE, prepare

from budgetnet.data import DataSet
from budgetnet.model.cost import Cost
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import make_settings
from budgetnet.study.feature_effects import LEAST_TRIALS, feature_effects
from budgetnet.study.settings import StudySettings


@pytest.fixture(scope="module")
def settings(digits: DataSet) -> StudySettings:
    config = SearchConfig(space=TINY_SPACE, sizing="fit")
    return make_settings(prepare(digits, config.candidate_recipe), config)


def trained(macs: int, accuracy: float, *, blocks: int) -> FrozenTrial:
    """A trial whose accuracy and MACs are given; its number of parameters is unrelated to them."""
    cost = Cost(params=1000 + (macs // 10_000 * 7919) % 1000, macs=macs, activations=500)
    facts: dict[str, Any] = {"architecture": "a", "candidate": "c", "spec": "s", "run": "r", "budget_used": 0.5}
    facts |= {**cost._asdict(), "blocks": blocks, "trained": True}
    return create_trial(state=TrialState.COMPLETE, value=accuracy, user_attrs=facts)


def study_of(trials: list[FrozenTrial]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


@pytest.mark.parametrize("blocks", [1, 5, 6, 10])
@pytest.mark.parametrize("count", range(LEAST_TRIALS, 12))
def test_a_feature_that_is_equal_in_all_trials_is_left_out(settings: StudySettings, blocks: int, count: int) -> None:
    # The mean of equal logarithms differs from them by rounding for some of these numbers.
    trials = [trained(10_000 * (place + 1), 0.5 + place / 100, blocks=blocks) for place in range(count)]
    found = feature_effects(study_of(trials), settings)
    assert [each.feature for each in found] == ["log MACs", "log parameters"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_effect_has_the_sign_that_the_trials_show(settings: StudySettings, sign: int) -> None:
    macs = np.random.default_rng(0).permutation(40)
    trials = [trained(10_000 * (2 + each), 0.5 + sign * each / 100, blocks=1) for each in macs.tolist()]
    effect = feature_effects(study_of(trials), settings)[0]
    assert effect.feature == "log MACs"
    assert effect.effect * sign > 0.3
    assert effect.interval.low < effect.effect < effect.interval.high
    assert effect.expected == 0.6


def test_few_complete_trials_teach_nothing(settings: StudySettings) -> None:
    trials = [trained(10_000 * (each + 1), 0.5, blocks=1) for each in range(LEAST_TRIALS - 1)]
    assert feature_effects(study_of(trials), settings) == []
