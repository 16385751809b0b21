"""Number formatting: counts, FLOPs and times with three significant digits, shares in per cent."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Context


def short_count(number: int) -> str:
    """Format a large count with a suffix: ``793.4M``."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        # Just below, it would round to 1000.0 of the next smaller unit.
        if number >= 0.99995 * size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def short_petaflops(flops: float) -> str:
    """Format a number of floating-point operations in PFLOPs (1e15): ``0.190``, ``28.6``, ``1,260``."""
    number = flops / 1e15
    if number >= 999.5 or not flops:
        return f"{number:,.0f}"
    # "#" keeps trailing zeros, but also a trailing decimal point.
    return f"{number:#.3g}".rstrip(".")


def enough_petaflops(flops: int) -> str:
    """Format a number of floating-point operations in PFLOPs, rounded up: a limit of that many allows them."""
    return f"{float(Context(prec=3, rounding=ROUND_CEILING).create_decimal(flops).scaleb(-15)):g}"


def short_seconds(seconds: float) -> str:
    """Format a time in seconds with three significant digits: ``7.12 µs``, ``16.6 ms``."""
    # 0.9995 of a unit and more would round to 1,000 of the next smaller one.
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
    size, unit = next((pair for pair in units if seconds >= 0.9995 * pair[0]), units[-1])
    number = seconds / size
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"


def duration(seconds: float) -> str:
    """Format a duration in seconds: ``4.2 s``, ``3 min 07 s``, ``2 h 05 min``."""
    whole_seconds = round(seconds)
    if whole_seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole_seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def count_of(number: int, thing: str) -> str:
    """Format a number of things: ``1 run``, ``2 runs``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def percent(share: float, *, images: int | None = None) -> str:
    """Format a share in per cent, with no more decimals than its number of images supports.

    Two decimals, or one below 1,000 images and none below 100: 0.9141 becomes ``91.41``, ``91.4`` or ``91``.

    Args:
        share: the share.
        images: number of images that it is a share of, such as of one run for a mean accuracy. Default: many.
    """
    decimals = 2 if images is None or images >= 1_000 else 1 if images >= 100 else 0
    return f"{100 * share:.{decimals}f}"


def short_p_value(p_value: float) -> str:
    """Format a p-value with three decimals, or as ``< 0.001``."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def share_of_limit(share: float) -> str:
    """Format a used share of a limit: ``98.4 %``, and from ten times the limit on ``4,662 x``."""
    # From 9.9995 on, it would round to 1000.0 %.
    return f"{100 * share:.1f} %" if share < 9.9995 else f"{share:,.0f} x"


def named_few(names: Sequence[str], *, most: int = 3, separator: str = ", ") -> str:
    """Name the first things of many: ``a, b, c and 7 more``."""
    shown, others = separator.join(names[:most]), len(names) - most
    return f"{shown} and {others:,} more" if others > 0 else shown
