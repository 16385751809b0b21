"""Shared by the `bench` commands: progress, tables, goals and the description of the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from budgetnet.cli.options import print_json
from budgetnet.common.documents import parse_count
from budgetnet.common.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from budgetnet.bench.measure import Goal


class Benchmark(Protocol):
    """Result of a benchmark."""

    @property
    def environment(self) -> dict[str, Any]:
        """Machine and versions."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the results as plain data."""


Result = TypeVar("Result", bound=Benchmark)


def require_seconds(seconds: float) -> None:
    """Check the option ``--seconds``.

    Raises:
        InputError: it is not above 0 and at most an hour.
    """
    # NaN compares as false.
    if not 0 < seconds <= 3600:
        raise InputError("--seconds", seconds, "must be more than 0 and at most 3600")


def read_counts(text: str, *, field: str, least: int = 1, most: int) -> list[int]:
    """Read a comma-separated list of whole numbers, each as `read_count` does."""
    return [read_count(part, field=field, least=least, most=most) for part in text.split(",")]


def read_count(text: str, *, field: str, least: int = 1, most: int) -> int:
    """Read a whole number as `parse_count` does.

    Raises:
        InputError: it is not a whole number, or out of range.
    """
    count = parse_count(text, field=field)
    if not least <= count <= most:
        raise InputError(field, count, f"must be from {least:,} to {most:,}")
    return count


def read_batch(text: str | None) -> int | None:
    """Read the option ``--batch``."""
    return None if text is None else read_count(text, field="--batch", least=2, most=65_536)


@contextmanager
def show_progress() -> Iterator[Callable[[str], None]]:
    """Show the current step on standard error, if that is a terminal; the block gets a function that sets it."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bars:
        task = bars.add_task("loading torch", total=None)
        yield lambda description: bars.update(task, description=description)


def print_result(
    result: Result,
    print_tables: Callable[[Console, Result], None],
    *,
    as_json: bool,
    packages: Sequence[str] = ("torch",),
) -> None:
    """Print a benchmark as JSON, or as tables followed by machine and package versions."""
    if as_json:
        print_json(result.to_mapping())
        return
    from budgetnet.cli.tables import console

    output = console()
    print_tables(output, result)
    machine = result.environment
    output.print(f"{machine['processor']}, {machine['cores']} cores; torch on threads: {machine['threads']}")
    if "gpu" in machine:
        output.print(f"{machine['gpu']['name']}, CUDA {machine['gpu']['cuda']}, cuDNN {machine['gpu']['cudnn']}")
    versions = machine["packages"]
    others = "".join(f", {name} {versions[name]}" for name in packages)
    output.print(f"budgetnet {versions['budgetnet']}, Python {machine['python']}{others}")


def make_table(title: str, *, text: Sequence[str] = (), numbers: Sequence[str]) -> Table:
    """Create a table with left-aligned text columns followed by right-aligned numbers."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for heading in text:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def memory(size: int | None) -> str:
    """Format bytes as GB, or as MB below 0.1 GB; ``unknown`` for None."""
    if size is None:
        return "unknown"
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def print_goals(output: Console, goals: Sequence[Goal]) -> None:
    """Print each goal and whether it is met."""
    from rich.text import Text

    for goal in goals:
        status = Text("met    ", "green") if goal.met else Text("not met", "red")
        measured, limit = (_quantity(number, unit=goal.unit) for number in (goal.measured, goal.limit))
        output.print(Text.assemble(status, f"  {goal.goal}: {measured} (goal {limit})"))


def _quantity(number: float, *, unit: str) -> str:
    from budgetnet.common.formatting import short_seconds

    if unit == "seconds":
        return short_seconds(number)
    return memory(int(number)) if unit == "bytes" else f"{number:,.0f}" if number >= 100 else f"{number:.2f}"
