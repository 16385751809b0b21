"""Gaussian process of accuracy: a linear model of closed-form features, plus smooth effects of the parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from budgetnet.study.sampling.encoding import Encoded

Array = NDArray[np.float64]

LINEAR = 2.0
"""Prior variance of the closed-form features' joint effect, in units of the accuracies' variance."""
SINGLE = 0.5
"""Prior variance of the sum of the parameters' own effects."""
JOINT = 0.3
"""Prior variance of the effect of all parameters together."""
NOISE = 0.4
"""Prior standard deviation of training noise."""
_CONSTANT = 1.0
_DISTANCE = 2.0
"""The joint kernel is exp(-2 distance²)."""
_NO_DIFFERENCE = 1e-9
"""Standard deviation of a feature below which all candidates have the same value: equal values have one by rounding."""
_CLIP = -2.0, 4.0
"""Accuracies further from the median, in standard deviations, are taken as this far: some trainings fail."""


class Inputs(NamedTuple):
    """What the model knows of candidates."""

    features: Array
    """Standardised closed-form features, `(candidates, features)`."""
    encoded: Encoded
    """Encoded parameters."""
    known: NDArray[np.bool_]
    """Whether a candidate has parameters, `(candidates,)`: a network that was enqueued has none."""


class Weights(NamedTuple):
    """Effect of the closed-form features on accuracy."""

    mean: Array
    """Expected effect, `(features,)`: standard deviations of accuracy for one of the feature."""
    deviation: Array
    """Posterior standard deviation of each, `(features,)`."""


class Posterior:
    """The model after some observations."""

    def __init__(self, inputs: Inputs, accuracies: Array, *, prior: Array) -> None:
        """Learn from trained candidates.

        Args:
            inputs: the candidates, `(observed + running)`; those in training come last.
            accuracies: accuracy of each observed candidate, `(observed,)`.
            prior: expected effect of each feature, `(features,)`.
        """
        self._inputs, self._prior = inputs, prior
        self._observed = len(accuracies)
        count = len(inputs.features)
        kernel = _kernel(inputs, inputs) + np.diag(NOISE**2 + np.where(inputs.known, 0.0, SINGLE + JOINT))
        self._factor: Array = np.asarray(np.linalg.cholesky(kernel)) if count else np.zeros((0, 0))
        residual = scaled(accuracies) - inputs.features[: self._observed] @ prior
        self._leading: Array = self._factor[: self._observed, : self._observed]
        self._solved = _solve(self._leading, residual)

    def predict(self, inputs: Inputs) -> tuple[Array, Array]:
        """Return the expected accuracy of candidates and its standard deviation, `(candidates,)` each.

        In standard deviations of the observed accuracies, from their median. Candidates in training reduce the
        deviation of those that are like them.
        """
        mean = inputs.features @ self._prior
        features = inputs.features
        variance = _CONSTANT + _each(features) * np.square(features).sum(axis=1) + SINGLE + JOINT
        if len(self._factor):
            cross = _solve(self._factor, _kernel(self._inputs, inputs))
            mean = mean + cross[: self._observed].T @ self._solved
            variance = variance - np.square(cross).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-9))

    @property
    def weights(self) -> Weights:
        """Effect of each closed-form feature."""
        each = _each(self._inputs.features)
        cross = _solve(self._leading, each * self._inputs.features[: self._observed])
        mean = self._prior + cross.T @ self._solved
        return Weights(mean, np.sqrt(np.maximum(each - np.square(cross).sum(axis=0), 0.0)))


def scaled(accuracies: Array) -> Array:
    """Return accuracies in standard deviations from their median; the deviation is robust, and the result clipped."""
    if not len(accuracies):
        return accuracies
    from_median = accuracies - np.median(accuracies)
    deviation = max(1.4826 * float(np.median(np.abs(from_median))), 0.3 * float(accuracies.std()), 1e-6)
    return np.clip(from_median / deviation, *_CLIP)


def deviations(features: Array) -> Array:
    """Return the standard deviation of each feature, `(features,)`; 0 if all candidates have the same value."""
    if not len(features):
        return np.zeros(features.shape[1])
    found = features.std(axis=0)
    return np.where(found > _NO_DIFFERENCE, found, 0.0)


def _kernel(first: Inputs, second: Inputs) -> Array:
    """Return the prior covariance of candidates, `(first, second)`."""
    squares = np.square(first.encoded.joint).sum(axis=1)[:, None] + np.square(second.encoded.joint).sum(axis=1)
    distance = squares - 2 * first.encoded.joint @ second.encoded.joint.T
    linear = _each(first.features) * (first.features @ second.features.T)
    smooth = SINGLE * (first.encoded.single @ second.encoded.single.T) + JOINT * np.exp(-_DISTANCE * distance)
    if not (first.known.all() and second.known.all()):
        smooth *= np.outer(first.known, second.known)
    return np.asarray(_CONSTANT + linear + smooth)


def _each(features: Array) -> float:
    """Return the prior variance of the effect of one feature."""
    return float(LINEAR / max(1, features.shape[1]))


def _solve(factor: Array, right: Array) -> Array:
    return np.asarray(solve_triangular(factor, right, lower=True, check_finite=False)) if len(factor) else right[:0]
