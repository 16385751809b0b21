"""Vectors of parameter values, whose inner products and distances are the kernels of the surrogate model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

_GRID = np.linspace(0.0, 1.0, 6)
"""Points that the kernel of a number is interpolated from (Nyström's method)."""
_NUMBER = 8.0
"""The kernel of two numbers, as shares of their range, is exp(-8 (difference)²)."""
_CHOICE = 2.0
"""The kernel of two different choices is exp(-2)."""


class Encoded(NamedTuple):
    """Vectors of some candidates."""

    single: NDArray[np.float64]
    """`(candidates, values)`: the inner product is the mean over the parameters of each one's own kernel."""
    joint: NDArray[np.float64]
    """`(candidates, values)`: the squared distance is the mean over the parameters of squared differences."""


class Encoder:
    """Encoder of parameter values."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        """Prepare the encoding of parameters with more than one value; others tell nothing.

        Args:
            distributions: distribution of each parameter.
        """
        self._distributions = {name: where for name, where in distributions.items() if not where.single()}
        kernel = np.exp(-_NUMBER * (_GRID[:, None] - _GRID[None]) ** 2)
        values, vectors = np.linalg.eigh(kernel + 1e-6 * np.eye(len(_GRID)))
        self._root = vectors / np.sqrt(values)

    def knows(self, sample: Mapping[str, Any]) -> bool:
        """Return whether a sample has a value for every parameter that is encoded."""
        return bool(sample) and self._distributions.keys() <= sample.keys()

    def rows(self, samples: Sequence[Mapping[str, Any]]) -> Encoded:
        """Encode samples, each a value for every parameter."""
        columns = {name: _as_column([sample[name] for sample in samples]) for name in self._distributions}
        return self.columns(columns, count=len(samples))

    def columns(self, columns: Mapping[str, NDArray[Any]], *, count: int) -> Encoded:
        """Encode samples given as columns: values as `(count,)` by the name of each parameter."""
        single: list[NDArray[np.float64]] = [np.zeros((count, 0))]
        joint: list[NDArray[np.float64]] = [np.zeros((count, 0))]
        for name, where in self._distributions.items():
            if isinstance(where, CategoricalDistribution):
                matches = np.stack([columns[name] == choice for choice in where.choices], axis=1).astype(np.float64)
                shared = math.exp(-_CHOICE)
                single += [math.sqrt(1 - shared) * matches, np.full((count, 1), math.sqrt(shared))]
                joint.append(matches / math.sqrt(2))
            else:
                place = _place(where, columns[name])
                single.append(np.exp(-_NUMBER * (place[:, None] - _GRID[None]) ** 2) @ self._root)
                joint.append(2 * place[:, None])
        scale = 1 / math.sqrt(max(1, len(self._distributions)))
        return Encoded(scale * np.concatenate(single, axis=1), scale * np.concatenate(joint, axis=1))


def _as_column(values: list[Any]) -> NDArray[Any]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _place(where: BaseDistribution, column: NDArray[Any]) -> NDArray[np.float64]:
    """Return values as shares of their range."""
    if not isinstance(where, (IntDistribution, FloatDistribution)):
        raise TypeError(f"a distribution of numbers, not {where}")
    values = column.astype(np.float64)
    low, high = float(where.low), float(where.high)
    if where.log:
        return np.asarray(np.log(values / low) / math.log(high / low))
    return np.asarray((values - low) / (high - low))
