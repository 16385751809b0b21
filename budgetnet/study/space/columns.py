"""Samples as columns: an array with one entry per sample for each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Columns = Mapping[str, NDArray[Any]]
"""Values as `(samples,)` by each name of `SearchSpace.distributions`."""


def sample_columns(
    distributions: Mapping[str, BaseDistribution], *, count: int, generator: np.random.Generator
) -> dict[str, NDArray[Any]]:
    """Sample every parameter independently from its distribution, as columns."""
    return {name: _column(where, count, generator) for name, where in distributions.items()}


def _column(where: BaseDistribution, count: int, generator: np.random.Generator) -> NDArray[Any]:
    if isinstance(where, CategoricalDistribution):
        values = choices_of(where)
        return values[generator.integers(len(values), size=count)]
    if isinstance(where, IntDistribution) and not where.log:
        return choices_of(where)[generator.integers((where.high - where.low) // where.step + 1, size=count)]
    assert isinstance(where, (FloatDistribution, IntDistribution))  # noqa: S101 - tells the type
    # An integer has the interval from half below it to half above, as in Optuna's samplers.
    margin = 0.5 if isinstance(where, IntDistribution) else 0.0
    low, high = where.low - margin, where.high + margin
    if where.log:
        values = np.exp(generator.uniform(math.log(low), math.log(high), count))
    else:
        values = generator.uniform(low, high, count)
    if isinstance(where, IntDistribution):
        values = np.rint(values).astype(np.int64)
    return np.clip(values, where.low, where.high)


def choices_of(where: BaseDistribution) -> NDArray[Any]:
    """Return all values of a distribution of choices or integers, in order."""
    if isinstance(where, IntDistribution):
        return np.arange(where.low, where.high + 1, where.step)
    assert isinstance(where, CategoricalDistribution)  # noqa: S101 - tells the type
    # An array of numbers has no None.
    return np.asarray(where.choices, dtype=object if None in where.choices else None)


def enumerated(distributions: Mapping[str, BaseDistribution], start: int, stop: int) -> dict[str, NDArray[Any]]:
    """Return the combinations of choices in a range of indexes, as columns; the last parameter changes fastest."""
    choices = {name: choices_of(where) for name, where in distributions.items()}
    places = np.unravel_index(np.arange(start, stop), [len(values) for values in choices.values()])
    return {name: values[place] for (name, values), place in zip(choices.items(), places, strict=True)}


def combinations(distributions: Mapping[str, BaseDistribution]) -> int:
    """Return the number of combinations of choices."""
    return math.prod(
        (where.high - where.low) // where.step + 1 if isinstance(where, IntDistribution) else len(where.choices)
        for where in distributions.values()
        if isinstance(where, (IntDistribution, CategoricalDistribution))
    )
