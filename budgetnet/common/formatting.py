"""Numbers as people read them: counts and times in three figures, shares in per cent, differences in points."""

from __future__ import annotations


def short_count(number: int) -> str:
    """A large count in three figures or so: ``793.4M``."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def short_petaflops(flops: float) -> str:
    """A count of floating-point operations in PFLOP, 1e15 of them, in three figures: ``0.190``, ``28.6``, ``1,260``."""
    number = flops / 1e15
    if number >= 999.5 or not flops:
        return f"{number:,.0f}"
    # The sign keeps zeros at the end, and leaves a point behind whole numbers.
    return f"{number:#.3g}".rstrip(".")


def short_seconds(seconds: float) -> str:
    """A time in three figures: ``7.12 µs``, ``16.6 ms``."""
    # A little below its size, three figures would be a thousand of the next smaller unit.
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
    size, unit = next((pair for pair in units if seconds >= 0.9995 * pair[0]), units[-1])
    number = seconds / size
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"


def duration(seconds: float) -> str:
    """A time in the two largest of its units."""
    whole_seconds = round(seconds)
    if whole_seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(whole_seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def percent(share: float) -> str:
    """A share in per cent, to a hundredth."""
    return f"{100 * share:.2f}"
