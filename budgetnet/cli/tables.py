"""Terminal tables of verdicts, leaderboards and finalists."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from budgetnet.common.formatting import percent, short_count, short_petaflops
from budgetnet.model.budget import Verdict
from budgetnet.statistics.intervals import format_with_interval
from budgetnet.study.finalists import FinalResult
from budgetnet.study.leaderboard import LeaderboardRow

_PLAIN_WIDTH = 120
"""Width in characters if the output is not a terminal."""


def console() -> Console:
    """Return a console for standard output; markup is off because names and paths may contain brackets."""
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False, markup=False, emoji=False)


def titled_table(title: str, *headings: str, no_wrap: bool = False, **look: Any) -> Table:
    """Make an empty table whose first column holds names and whose other columns hold numbers.

    Args:
        title: title above the table.
        headings: column headings.
        no_wrap: whether cells are truncated instead of wrapped.
        look: further arguments of rich's `Table`.
    """
    table = Table(title=title, title_justify="left", **look)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=no_wrap)
    return table


def verdict_table(verdict: Verdict) -> Table:
    """Return a table of the limits: used, allowed, headroom."""
    title = f"{verdict.name}: {'fits' if verdict.fits else 'over budget'}"
    look: dict[str, Any] = {"caption": verdict.note or None, "caption_justify": "left"}
    table = titled_table(title, "limit", "used", "allowed", "headroom", "", **look)
    table.columns[-1].justify = "left"
    for limit in verdict.limits:
        share = limit.used / limit.allowed
        bar = "█" * min(20, round(20 * share)) + "░" * (20 - min(20, round(20 * share)))
        colour = "green" if limit.headroom >= 0 else "red"
        table.add_row(
            limit.limit,
            f"{limit.used:,}",
            f"{limit.allowed:,}",
            Text(f"{limit.headroom:,}", colour),
            Text(f"{bar} {100 * share:.1f} %", colour),
        )
    if not verdict.limits:
        for name, used in verdict.cost._asdict().items():
            table.add_row(name, f"{used:,}", "no limit", "", "")
    return table


def edits_table(verdict: Verdict) -> Table:
    """Return a table of the smallest edits that bring the network within the budget."""
    table = titled_table(
        "smallest edits that fit the budget, with their exact costs", "edit", "params", "MACs", "activations"
    )
    for edit in verdict.edits:
        table.add_row(edit.description, *(f"{number:,}" for number in edit.cost))
    return table


def leaderboard_table(rows: Sequence[LeaderboardRow], *, title: str, width: int) -> Table:
    """Return a table of candidates and the published reference, best first; narrow terminals get fewer columns."""
    wide = width >= _PLAIN_WIDTH - 10
    table = Table(title=title, title_justify="left", expand=False)
    table.add_column("rank", justify="right", no_wrap=True)
    if wide:
        table.add_column("candidate", no_wrap=True)
    table.add_column("architecture", overflow="fold", min_width=12)
    table.add_column("params", justify="right", no_wrap=True)
    if wide:
        table.add_column("MACs", justify="right", no_wrap=True)
        table.add_column("PFLOP", justify="right", no_wrap=True)
    table.add_column("accuracy % [95 %]", justify="right", no_wrap=wide)
    table.add_column("gap", justify="right", no_wrap=True)
    table.add_column("beyond noise?" if wide else "noise?", no_wrap=wide)
    for row in rows:
        cells: list[str | Text] = ["-" if row.rank is None else str(row.rank)]
        cells += [row.name] if wide else []
        cells += [row.name if row.is_reference and not wide else row.architecture, f"{row.params:,}"]
        if wide:
            cells += [short_count(row.macs), "" if row.train_flops is None else short_petaflops(row.train_flops)]
        cells += [format_with_interval(row.accuracy, row.interval), "" if row.is_reference else f"{100 * row.gap:+.2f}"]
        table.add_row(
            *cells, _verdict_text(row), style="bold" if row.rank == 1 else "cyan" if row.is_reference else None
        )
    return table


def finals_table(results: Sequence[FinalResult], *, width: int) -> Table:
    """Return a table of finalists by mean validation accuracy, with their test accuracy."""
    wide = width >= _PLAIN_WIDTH - 10
    table = Table(title="finalists", title_justify="left", expand=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("finalist", overflow="fold", min_width=9)
    if wide:
        table.add_column("architecture", overflow="fold", min_width=12)
        table.add_column("params", justify="right", no_wrap=True)
        table.add_column("PFLOP", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("validation %", justify="right")
    table.add_column("test % [95 %]", justify="right", no_wrap=wide)
    table.add_column("gap", justify="right", no_wrap=True)
    for place, result in enumerate(results, 1):
        cells = [str(place), result.finalist.name]
        if wide:
            cells += [result.finalist.spec.label, f"{result.finalist.spec.params:,}"]
            cells.append(short_petaflops(fmean(result.train_flops)) if result.records else "")
        cells += [str(len(result.records)), percent(fmean(result.validation)) if result.records else "no result"]
        interval, gap = result.test_interval, result.gap
        cells.append(format_with_interval(fmean(result.test), interval) if interval else "-")
        cells.append(f"{100 * gap[0]:+.2f}" if gap else "")
        table.add_row(*cells, style="bold" if place == 1 else None)
    return table


def _verdict_text(row: LeaderboardRow) -> Text:
    text = {"beyond noise": "yes", "within noise": "no"}.get(row.verdict, row.verdict)
    colour = "" if row.exceeds_noise is None else ("green" if row.gap > 0 else "red") if row.exceeds_noise else "yellow"
    return Text(text, colour)
