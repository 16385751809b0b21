"""Input validation shared by the statistical tests."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import InputError


def check_numbers(field: str, values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Convert numbers to an array (count,).

    Raises:
        InputError: the list is empty, or a number is not finite or not below 1e100.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # A list of lists of different lengths.
        raise InputError(field, values, "must be a list of numbers") from None
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iuf":
        raise InputError(field, values, "must be a list of numbers, at least one")
    # With this bound, squares and cubes do not overflow.
    if not (np.abs(array) < 1e100).all():
        raise InputError(field, values, "must be finite, and smaller than 1e100")
    return array.astype(np.float64)


def rounding_error(*arrays: npt.NDArray[np.float64]) -> float:
    """Return the tolerance below which differences of these numbers are only rounding errors."""
    return 8 * float(np.finfo(np.float64).eps) * max(float(np.abs(array).max()) for array in arrays)


def check_integer(field: str, value: int, *, least: int | None = None) -> int:
    """Convert a whole number of any integer type to `int`.

    Raises:
        InputError: the value is not an integer or is below ``least``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(field, value, "must be a whole number") from None
    if least is not None and number < least:
        raise InputError(field, value, f"must be at least {least}")
    return number


def check_confidence(confidence: float) -> None:
    """Raise InputError unless the confidence level is between 0 and 1."""
    if not 0 < confidence < 1:
        raise InputError("confidence", confidence, "must be between 0 and 1")
