"""What the verbs that measure share: how they show progress, goals and the machine, and which times they refuse."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from budgetnet.common.documents import parse_count
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from budgetnet.bench.measure import Goal


def require_seconds(seconds: float) -> None:
    """Refuses what is no length of time to measure for.

    Raises:
        InputError: not above 0 and at most an hour.
    """
    # What is no number compares as false.
    if not 0 < seconds <= 3600:
        raise InputError("--seconds", seconds, "must be more than 0 and at most 3600")


def read_counts(text: str, *, field: str, least: int = 1, most: int) -> list[int]:
    """Whole numbers from a list with commas, each as `read_count` reads it.

    Raises:
        InputError: one of them is no whole number, or out of bounds.
    """
    return [read_count(part, field=field, least=least, most=most) for part in text.split(",")]


def read_count(text: str, *, field: str, least: int = 1, most: int) -> int:
    """A whole number, as `parse_count` reads it.

    Raises:
        InputError: it is no whole number, or out of bounds.
    """
    count = parse_count(text, field=field)
    if not least <= count <= most:
        raise InputError(field, count, f"must be from {least:,} to {most:,}")
    return count


@contextmanager
def told(first: str) -> Iterator[Callable[[str], None]]:
    """Shows what is being done on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bars:
        task = bars.add_task(first, total=None)
        yield lambda what: bars.update(task, description=what)


def memory(size: int | None) -> str:
    """Bytes in GB, fewer than a tenth of one in MB, or that they are not known."""
    if size is None:
        return "unknown"
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def print_goals(output: Console, goals: Sequence[Goal]) -> None:
    """Prints what was to be shown, and whether it was met."""
    from rich.text import Text

    for goal in goals:
        word = Text("met    ", "green") if goal.met else Text("not met", "red")
        value, limit = (_quantity(number, unit=goal.unit) for number in (goal.measured, goal.limit))
        output.print(Text.assemble(word, f"  {goal.goal}: {value} (goal {limit})"))


def _quantity(number: float, *, unit: str) -> str:
    from budgetnet.common.formatting import short_seconds

    if unit == "seconds":
        return short_seconds(number)
    return memory(int(number)) if unit == "bytes" else f"{number:,.0f}" if number >= 100 else f"{number:.2f}"


def print_machine(output: Console, machine: dict[str, Any], *, packages: Sequence[str] = ("torch",)) -> None:
    """Prints what was measured on, and by which versions."""
    output.print(f"{machine['processor']}, {machine['cores']} cores; torch on threads: {machine['threads']}")
    if "gpu" in machine:
        output.print(f"{machine['gpu']['name']}, CUDA {machine['gpu']['cuda']}, cuDNN {machine['gpu']['cudnn']}")
    versions = machine["packages"]
    others = "".join(f", {name} {versions[name]}" for name in packages)
    output.print(f"budgetnet {versions['budgetnet']}, Python {machine['python']}{others}")
