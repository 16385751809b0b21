"""Candidates of a study, as its sampler sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from budgetnet.model.cost import Cost
from budgetnet.study.sampling.domain import Pool
from budgetnet.study.settings import StudySettings
from budgetnet.study.space import SearchSpace, pool
from budgetnet.study.space.columns import sample_columns

MACS_EFFECT = 0.6
"""Expected effect of log MACs on accuracy, in standard deviations of each: within a parameter budget the accuracy of
networks trained on CIFAR-10 grows with their MACs (NAS-Bench-Macro: Kendall tau of 0.58 to 0.70)."""
PRIOR = np.array([MACS_EFFECT, *(0.0 for _ in pool.FEATURES[1:])])
"""Expected effect of each of `pool.FEATURES`."""


def features_of(trial: FrozenTrial) -> NDArray[np.float64]:
    """Return the closed-form features of a trial's network, as stored with the trial, `(features,)`."""
    known = trial.user_attrs
    return pool.features(Cost(known["params"], known["macs"], known["activations"]), known["blocks"])


class StudyDomain:
    """Candidates of a study's space within its budget; see `Domain`."""

    feature_names = pool.FEATURES
    prior = PRIOR

    def __init__(self, settings: StudySettings, image: pool.Image) -> None:
        """Describe the candidates of a study.

        Args:
            settings: space, budget and sizing.
            image: images of the data set.
        """
        self._settings, self._image = settings, image
        self.distributions = pool.distributions(settings.space, settings.config.sizing)

    def pool(self, *, count: int, generator: np.random.Generator) -> Pool:
        """Return random candidates, fitted to the budget; see `Domain.pool`."""
        settings, sizing = self._settings, self._settings.config.sizing
        found = pool.draw(settings.space, settings.budget, self._image, sizing=sizing, count=count, generator=generator)
        return Pool(*found)

    def random(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return a random sample; see `Domain.random`."""
        return SearchSpace.params_at(sample_columns(self.distributions, count=1, generator=generator), 0)

    def features_of(self, trial: FrozenTrial) -> NDArray[np.float64]:
        """Return the features of a trial's network; see `Domain.features_of`."""
        return features_of(trial)
