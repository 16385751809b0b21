"""Latencies in milliseconds, as people write and read them."""

from __future__ import annotations

import math
import numbers
import re

from budgetnet.common.errors import InputError

_LATENCY = re.compile(r"(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*(?P<unit>ms|us|µs|s)?", re.IGNORECASE)
_MILLISECONDS = {"ms": 1.0, "us": 1e-3, "µs": 1e-3, "s": 1e3}
_MOST = 1e6


def parse_latency(value: object, *, field: str) -> float:
    """Return a latency in milliseconds, as people write it: ``2``, ``2ms``, ``0.5ms``, ``500us``.

    Args:
        value: text, or a number of milliseconds.
        field: name of the field in error messages, for example ``--max-latency``.

    Raises:
        InputError: it is not a time, not above 0, or more than 1,000 seconds.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        latency = float(value)
    else:
        match = _LATENCY.fullmatch(value.strip()) if isinstance(value, str) else None
        latency = float(match["number"]) * _MILLISECONDS[(match["unit"] or "ms").lower()] if match else math.nan
    if not 0 < latency <= _MOST:
        raise InputError(field, value, "must be a time above 0 such as 2ms, 0.5ms or 2 (milliseconds)")
    return latency


def exact_latency(milliseconds: float) -> str:
    """Write a latency so that `parse_latency` reads the same: ``2ms``."""
    return f"{milliseconds!r}".removesuffix(".0") + "ms"


def short_latency(milliseconds: float) -> str:
    """Format a number of milliseconds with three significant digits: ``2.00 ms``, ``0.0312 ms``, ``-1.20 ms``."""
    size = abs(milliseconds)
    if size >= 999.5:
        return f"{milliseconds:,.0f} ms"
    return f"{milliseconds:#.3g}".rstrip(".") + " ms"
