"""Structure of sampled networks: widths divisible by groups, and strides for the image size."""

from __future__ import annotations

import math
from fractions import Fraction

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.model.block_settings import DEFAULT_BOTTLENECK_RATIO
from budgetnet.model.parts import BlockKind


def width_step(
    channel_step: int,
    kind: BlockKind,
    groups: int,
    *,
    group_width: int | None = None,
    ratio: float = DEFAULT_BOTTLENECK_RATIO,
) -> int:
    """Return the number that widths must be multiples of, so that groups divide them or a bottleneck's inner width."""
    bottleneck = kind.endswith("bottleneck")
    divisor = group_width if bottleneck and group_width is not None else groups
    if divisor == 1:
        return channel_step
    if not bottleneck:
        return math.lcm(channel_step, divisor)
    # The inner width is the same share of every width, so it is exact at multiples of the ratio's denominator.
    share = Fraction(ratio).limit_denominator(1000)
    whole = share.denominator * divisor
    return math.lcm(channel_step, whole // math.gcd(share.numerator, whole))


def rounded_width(exact: float, step: int) -> int:
    """Return the multiple of the step nearest to a width: at least one step, and at most the maximum width."""
    return min(max(1, round(exact / step)), MAX_CHANNELS // step) * step


def strides_of(count: int, full_size_stages: int, side: int) -> list[int]:
    """Return strides: each stage after those at full size halves the map while its smaller side can be halved.

    Args:
        count: number of stages.
        full_size_stages: number of stages at the size of the stem's output.
        side: smaller side of the stem's output, in pixels.
    """
    strides = []
    for index in range(count):
        stride = 2 if index >= full_size_stages and side >= 2 else 1
        side = -(-side // stride)
        strides.append(stride)
    return strides
