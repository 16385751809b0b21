"""A search problem on a table: the candidates, what they cost, and how accurate they are."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution

from budgetnet.runs.recipe import Recipe
from budgetnet.study.sampling.encoding import Encoder


class Curves(NamedTuple):
    """Accuracy during training."""

    recipe: Recipe
    """Recipe of all trainings; at the ends of its cycles a search may stop them."""
    accuracy: NDArray[np.float64]
    """Accuracy in percent, `(candidates, seeds, epochs)`."""


@dataclass(frozen=True)
class Problem:
    """A table with a limit: the candidates, what they cost and how accurate they are."""

    table: str
    """Name of the table."""
    name: str
    """Name of the problem within the table: data set and limit."""
    distributions: dict[str, BaseDistribution]
    """Parameters of a candidate; of numbers the index of their value."""
    indexes: NDArray[np.int64]
    """Value of each parameter, as its index: `(candidates, parameters)`."""
    accuracy: NDArray[np.float64]
    """Accuracy in percent by training seed, `(candidates, seeds)`; of a regression the explained variance."""
    size: NDArray[np.float64]
    """Number of parameters, or what stands for it, `(candidates,)`."""
    limit: float
    """Largest size; infinite for none."""
    macs: NDArray[np.float64] | None
    """MACs, if the table has them."""
    cost: NDArray[np.float64]
    """Cost of a training: MACs if the table has them, else seconds."""
    features: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Further counts that are known in closed form, `(candidates,)`, by the name of the feature, their logarithm."""
    curves: Curves | None = None
    """Accuracy after each epoch, if the table has it."""
    is_sample: bool = False
    """Whether the candidates are a random sample, so that most combinations of values are of no candidate."""

    @functools.cached_property
    def within(self) -> NDArray[np.int64]:
        """Candidates within the limit."""
        return np.flatnonzero(self.size <= self.limit)

    @functools.cached_property
    def mean_accuracy(self) -> NDArray[np.float64]:
        """Mean over the seeds, which stands for the true accuracy."""
        return np.asarray(self.accuracy.mean(axis=1))

    @functools.cached_property
    def best(self) -> float:
        """Mean accuracy of the best candidate within the limit."""
        return float(self.mean_accuracy[self.within].max())

    @functools.cached_property
    def places(self) -> dict[tuple[int, ...], int]:
        """Index of each candidate by the indexes of its parameters' values."""
        return {tuple(row): place for place, row in enumerate(self.indexes.tolist())}

    def regret(self, judge: NDArray[np.float64], chosen: Sequence[int]) -> float:
        """Return the points by which the best of some candidates, as a judge sees them, is truly below the best."""
        best = max(chosen, key=lambda candidate: judge[candidate])
        return self.best - float(self.mean_accuracy[best])

    def nearest(self, values: Mapping[str, int], *, trained: Collection[int]) -> int:
        """Return the candidate with these values; of a sample, else the nearest one that was not trained yet.

        Args:
            values: index of each parameter's value.
            trained: candidates that were trained.
        """
        key = tuple(values[name] for name in self.distributions)
        if not self.is_sample or key in self.places:
            return self.places[key]
        left = [candidate for candidate in self.within.tolist() if candidate not in trained] or self.within.tolist()
        rows = self._encoder.rows([values]).joint
        return int(left[np.argmin(((self._encoded[left] - rows) ** 2).sum(axis=1))])

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.distributions)

    @functools.cached_property
    def _encoded(self) -> NDArray[np.float64]:
        columns = {name: self.indexes[:, place] for place, name in enumerate(self.distributions)}
        return self._encoder.columns(columns, count=len(self.indexes)).joint
