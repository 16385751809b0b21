"""Central times of samples, and how well they are known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

PRECISE = 0.02
"""Half width of an interval, as a share of the time, that is good enough."""
_RESOLUTION = 3e-7
"""Half width in seconds that is good enough for any kernel: clocks tick every microsecond, and the mean of several is
taken."""


class Estimate(NamedTuple):
    """How long something takes."""

    seconds: float
    half_width: float
    """Half the width of the 95 % interval of the time, in seconds."""

    @property
    def precise(self) -> bool:
        """Whether it is known well enough."""
        return self.half_width <= max(PRECISE * self.seconds, _RESOLUTION)


def estimate(times: Sequence[float]) -> Estimate:
    """Return the mean of the faster half of samples, as other load on a machine only ever makes some of them slower.

    It is a mean and no median, because a clock may tick only every microsecond. The half width is 1.96 standard errors
    of the mean of this half.
    """
    ordered = sorted(times)
    kept = ordered[: (len(ordered) + 1) // 2]
    if len(kept) < 2:
        return Estimate(kept[0], math.inf)
    return Estimate(statistics.fmean(kept), 1.96 * statistics.stdev(kept) / math.sqrt(len(kept)))
