"""Numbers as people read them: counts and times in three figures, shares in per cent, differences in points."""

from __future__ import annotations

from budgetnet.stats import Interval


def short_count(number: int) -> str:
    """A large count in three figures or so: ``793.4M``."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def short_seconds(seconds: float) -> str:
    """A time in three figures: ``7.12 µs``, ``16.6 ms``."""
    # A little below its size, three figures would be a thousand of the next smaller unit.
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
    size, unit = next((pair for pair in units if seconds >= 0.9995 * pair[0]), units[-1])
    number = seconds / size
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"


def percent(share: float) -> str:
    """A share in per cent, to a hundredth."""
    return f"{100 * share:.2f}"


def with_interval(share: float, interval: Interval) -> str:
    """A share with its interval, both in per cent: ``91.41 [90.84, 91.94]``."""
    return f"{percent(share)} [{percent(interval.low)}, {percent(interval.high)}]"


def points(difference: float, interval: Interval | None = None) -> str:
    """A difference of shares in points, with its interval: ``+0.53 [+0.08, +0.98]``."""
    text = f"{100 * difference:+.2f}"
    return text if interval is None else f"{text} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
