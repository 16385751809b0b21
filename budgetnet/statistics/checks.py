"""What every test asks of what it is given."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from budgetnet.common.errors import InputError


def numbers(field: str, values: Sequence[float]) -> npt.NDArray[np.float64]:
    """The numbers as an array (count,); an error unless there is one at least, and each is finite."""
    try:
        array = np.asarray(values)
    except ValueError:  # a list of lists of different lengths
        raise InputError(field, values, "must be a list of numbers") from None
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iuf":
        raise InputError(field, values, "must be a list of numbers, at least one")
    # The bound keeps squares and cubes within the range of floating point numbers; no measure here comes near it.
    if not (np.abs(array) < 1e100).all():
        raise InputError(field, values, "must be finite, and smaller than 1e100")
    return array.astype(np.float64)


def rounding_of(*arrays: npt.NDArray[np.float64]) -> float:
    """How far apart numbers may come out that are equal but for rounding: a few units in the last place."""
    return 8 * float(np.finfo(np.float64).eps) * max(float(np.abs(array).max()) for array in arrays)


def whole(field: str, value: int, *, least: int) -> int:
    """The number as a plain integer; an error unless it is a whole one of at least ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(field, value, "must be a whole number") from None
    if number < least:
        raise InputError(field, value, f"must be at least {least}")
    return number


def check_confidence(confidence: float) -> None:
    """An error unless the level lies between 0 and 1."""
    if not 0 < confidence < 1:
        raise InputError("confidence", confidence, "must lie between 0 and 1")
