"""What a sampler needs to know of a search: its parameters, and the closed-form features of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

MACS = "log MACs"
"""Name of the feature that says what a training costs."""


class Pool(NamedTuple):
    """Candidates to choose from."""

    columns: Mapping[str, NDArray[Any]]
    """Values as `(candidates,)` by the name of each parameter."""
    features: NDArray[np.float64]
    """Closed-form features, `(candidates, features)`."""

    def params_at(self, row: int) -> dict[str, Any]:
        """Return the parameters of one candidate."""
        cells = {name: column[row] for name, column in self.columns.items()}
        return {name: cell.item() if isinstance(cell, np.generic) else cell for name, cell in cells.items()}


class Domain(Protocol):
    """Parameters and candidates of a search."""

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Distribution of each parameter."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the closed-form features."""

    @property
    def prior(self) -> NDArray[np.float64]:
        """Expected effect of each feature, `(features,)`: standard deviations of accuracy for one of the feature."""

    def pool(self, *, count: int, generator: np.random.Generator) -> Pool:
        """Return random candidates within the budget, at most `count`."""

    def random(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return the parameters of a random candidate, which may be over budget."""

    def features_of(self, trial: FrozenTrial) -> NDArray[np.float64]:
        """Return the closed-form features of a trial's candidate, `(features,)`."""


class Sample(NamedTuple):
    """A sampled candidate."""

    params: dict[str, Any]
    """Value of each parameter."""
    distributions: Mapping[str, BaseDistribution]
    """Distribution of each of `params`."""
    system_attrs: Mapping[str, Any] = {}
    """The sampler's attributes of the trial."""
    token: int | None = None
    """Its trial in the sampler's memory; None if it has none."""


class Sampler(Protocol):
    """Sampler of candidates that learns from their trials."""

    def ask(self, number: int) -> Sample:
        """Return the sample of a proposal, by the number of the proposal; equal for an equal past."""

    def constrain(self, sample: Sample, violations: Mapping[str, float]) -> None:
        """Take note of how far a sample is beyond each limit; at most 0 is within it."""

    def stored(self, sample: Sample, trial: FrozenTrial) -> None:
        """Take note of the trial of a sample, which is in training or has ended."""

    def dropped(self, sample: Sample) -> None:
        """Take note that a sample has no trial."""

    def update(self, ended: list[FrozenTrial], running: list[FrozenTrial]) -> None:
        """Learn from trials that have ended since the last call, and take note of those in training."""
