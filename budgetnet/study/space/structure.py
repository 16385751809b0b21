"""Structure of sampled networks: widths divisible by groups, and strides for the image size."""

from __future__ import annotations

import math

from budgetnet.common.documents import MAX_CHANNELS
from budgetnet.model.spec import DEFAULT_BOTTLENECK_RATIO, BlockKind, Shortcut, ShortcutKind, Stem


def width_step(channel_step: int, kind: BlockKind, groups: int) -> int:
    """Return the number that widths must be multiples of, so that groups divide them or a bottleneck's inner width."""
    if groups == 1:
        return channel_step
    return math.lcm(channel_step, groups * round(1 / DEFAULT_BOTTLENECK_RATIO) if kind == "bottleneck" else groups)


def rounded_width(exact: float, step: int) -> int:
    """Return the multiple of the step nearest to a width: at least one step, and at most the maximum width."""
    return min(max(1, round(exact / step)), MAX_CHANNELS // step) * step


def strides_of(count: int, full_size_stages: int, side: int) -> list[int]:
    """Return strides: each stage after those at full size halves the map while its smaller side can be halved."""
    strides = []
    for index in range(count):
        stride = 2 if index >= full_size_stages and side >= 2 else 1
        side = -(-side // stride)
        strides.append(stride)
    return strides


def shortcut_area(kind: ShortcutKind) -> int:
    """Return the kernel area of a kind of shortcut; 0 without a kernel."""
    return Shortcut(kind=kind).kernel_area


def stem_of(input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the stem of every network of a space, for `stem_and_head_cost`."""
    image_channels, height, width = input_shape
    return {"image_channels": image_channels, "stem_kernel": Stem().kernel_size ** 2, "stem_pixels": height * width}
