"""Sizes of memory in bytes, as people write and read them: K is 1024."""

from __future__ import annotations

import re
from fractions import Fraction

from budgetnet.common.errors import InputError

_SIZE = re.compile(
    r"(?P<number>\d{1,20}(?:[_,]\d{3}){,6}(?:\.\d{1,20})?(?:[eE]\+?\d{1,2})?)\s*(?P<unit>[KMG]?)(?:I?B)?", re.IGNORECASE
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_MOST = 2**60
_RULE = "must be a whole number of bytes of at least 1, such as 524288, 512K or 1.5M, where K is 1024 bytes"


def parse_bytes(value: object, *, field: str) -> int:
    """Parse a number of bytes: ``524288``, ``512K``, ``512KB``, ``512KiB`` or ``0.5M``, which are all the same.

    Memories are sized in powers of two, so K is 1024 bytes and M 1024 K, other than in counts of parameters.

    Args:
        value: text or a number.
        field: name of the field in error messages, for example ``--max-weights``.

    Raises:
        InputError: the value is not a whole number of bytes, of at least 1 and at most 2^60.
    """
    match = None if isinstance(value, bool) else _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise InputError(field, value, _RULE)
    size = Fraction(re.sub("[_,]", "", match["number"])) * _UNITS[match["unit"].upper()]
    if size < 1 or size.denominator != 1:
        raise InputError(field, value, _RULE)
    if size > _MOST:
        raise InputError(field, value, "must be at most 2^60 bytes")
    return int(size)


def exact_bytes(size: int) -> str:
    """Write a number of bytes so that `parse_bytes` reads the same: ``512K``, ``524289``."""
    for unit in ("G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def short_bytes(size: float) -> str:
    """Format a number of bytes with four significant digits: ``536.0 KiB``, ``17.79 MiB``; ``-96 B``."""
    for unit in ("G", "M", "K"):
        number = size / _UNITS[unit]
        # Just below, it would round to 1,024.0 of the next smaller unit.
        if abs(number) >= 1 - 0.05 / 1024:
            decimals = 3 if abs(number) < 9.9995 else 2 if abs(number) < 99.995 else 1
            return f"{number:,.{decimals}f} {unit}iB"
    return f"{size:,.0f} B"
