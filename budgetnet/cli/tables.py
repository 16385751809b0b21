"""Terminal tables of verdicts, leaderboards and finalists."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from budgetnet.common.byte_sizes import short_bytes
from budgetnet.common.formatting import percent, share_of_limit, short_count, short_petaflops
from budgetnet.model.deployed.limits import limit_text, limit_words
from budgetnet.model.verdict import Verdict
from budgetnet.statistics.intervals import format_with_interval, points, wilson_interval
from budgetnet.study.finalists import FinalResult, final_gaps
from budgetnet.study.leaderboard import PUBLISHED, LeaderboardRow, gap_text, noise_word, rows_needs
from budgetnet.study.objectives import COSTS, CostName, shown_costs
from budgetnet.study.trials import Trial

_PLAIN_WIDTH = 120
"""Width in characters if the output is not a terminal."""
_SHORT = 12
"""Most characters of a name that a heading has room for."""
_DEPLOYED_WIDTH = 12
"""Width of a column of bytes or times of the deployed network."""
_VERY_WIDE = 140
"""Width from which tables also show the intervals of gaps."""


class Architecture:
    """Label of a network in a table: broken after hyphens, never within a stage."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._parts = re.findall(r"[^-]*-|[^-]+$", label)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines that fit into the column."""
        line = ""
        for part in self._parts:
            if line and len(line) + len(part) > options.max_width:
                yield Text(line)
                line = ""
            line += part
        yield Text(line)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width of the longest part, and that of the whole label."""
        return Measurement(max(map(len, self._parts), default=0), len(self._label))


def console() -> Console:
    """Return a console for standard output; markup is off because names and paths may contain brackets."""
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False, markup=False, emoji=False)


def is_wide(width: int, rows: Sequence[LeaderboardRow] = ()) -> bool:
    """Return whether a table of this width has every column; a leaderboard also depends on its rows.

    Args:
        width: width of the terminal in characters.
        rows: rows of the leaderboard; more than one number of the deployed network need more room.
    """
    return width - _DEPLOYED_WIDTH * max(0, len(rows_needs(rows)) - 1) >= _PLAIN_WIDTH - 10


def explain(text: str) -> None:
    """Print a sentence below a table: in a terminal broken between words, elsewhere as one line."""
    if sys.stdout.isatty():
        console().print(text)
    else:
        typer.echo(text)


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
    title = f"{verdict.name}: {verdict.word}"
    look: dict[str, Any] = {"caption": verdict.note or None, "caption_justify": "left"}
    table = titled_table(title, "limit", "used", "allowed", "headroom", "", **look)
    table.columns[-1].justify = "left"
    for limit in verdict.limits:
        share = limit.used / limit.allowed
        bar = "█" * min(20, round(20 * share)) + "░" * (20 - min(20, round(20 * share)))
        colour = "green" if limit.headroom >= 0 else "red"
        table.add_row(
            limit.words,
            limit.text(limit.used),
            limit.text(limit.allowed),
            Text(limit.text(limit.headroom), colour),
            Text(f"{bar} {share_of_limit(share)}", colour),
        )
    if not verdict.limits:
        for name, used in verdict.cost._asdict().items():
            table.add_row(name, f"{used:,}", "-", "", "")
        for words, size in verdict.deployed.items():
            table.add_row(words, short_bytes(size), "-", "", "")
    return table


def image_line(data: str, *, input_shape: tuple[int, int, int], num_classes: int) -> str:
    """Return a line on the data set whose images and classes were counted."""
    return f"counted for {data}: images of {'x'.join(map(str, input_shape))}, {num_classes:,} classes"


def edits_table(verdict: Verdict) -> Table:
    """Return a numbered table of the smallest edits that bring the network within the budget."""
    title = "smallest edits that fit the budget, with their exact costs"
    needs = verdict.budget.deployed
    table = titled_table(title, "", "edit", "params", "MACs", "activations", *map(limit_words, needs))
    table.columns[1].justify = "left"
    for number, edit in enumerate(verdict.edits, 1):
        deployed = (limit_text(name, edit.needs[name]) for name in needs)
        table.add_row(str(number), edit.description, *(f"{cost:,}" for cost in edit.cost), *deployed)
    return table


def leaderboard_table(rows: Sequence[LeaderboardRow], *, title: str, width: int) -> Table:
    """Return a table of candidates, best first, with the published result where it is comparable.

    Narrow terminals get counts with suffixes, no gaps, and accuracies without intervals; only very wide ones get the
    intervals of gaps beside what they mean.
    """
    wide = is_wide(width, rows)
    against = rows[0].compared_with if rows else ""
    tested = wide and against != PUBLISHED
    table = Table(title=title, title_justify="left", expand=False)
    table.add_column("rank", justify="right", no_wrap=True)
    # Names of trials are short; those of runs are broken like architectures.
    table.add_column("candidate", min_width=9)
    table.add_column("architecture", min_width=12)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("MACs", justify="right", no_wrap=True)
    deployed = rows_needs(rows)
    for name in deployed:
        table.add_column(limit_words(name).replace(" ", "\n"), justify="right", no_wrap=True)
    if wide:
        table.add_column("PFLOP", justify="right", no_wrap=True)
    table.add_column("accuracy % [95 %]" if wide else "accuracy %", justify="right", no_wrap=True)
    if wide:
        is_short = 0 < len(against) <= _SHORT
        table.add_column(f"gap to {against}" if is_short else "gap", justify="right", no_wrap=True)
    if tested:
        table.add_column("beyond noise?", no_wrap=True)
    has_front = any(row.on_front is not None for row in rows)
    if has_front:
        table.add_column("front", no_wrap=True)
    for row in rows:
        params = f"{row.params:,}" if wide else short_count(row.params)
        cells: list[str | Text | Architecture] = ["-" if row.rank is None else str(row.rank)]
        cells += [Architecture(row.name), Architecture(row.architecture), params]
        cells.append(short_count(row.macs))
        cells += ["-" if name not in row.needs else limit_text(name, row.needs[name]) for name in deployed]
        if wide:
            cells.append("" if row.train_flops is None else short_petaflops(row.train_flops))
        images = row.images
        accuracy = format_with_interval(row.accuracy, row.interval, images=images)
        cells.append(accuracy if wide else percent(row.accuracy, images=images))
        if wide:
            cells.append(gap_text(row, with_interval=not tested or width >= _VERY_WIDE))
        if tested:
            cells.append(_noise_text(row.exceeds_noise, row.gap))
        if has_front:
            cells.append("yes" if row.on_front else "")
        table.add_row(*cells, style="bold" if row.rank == 1 else "cyan" if row.is_reference else None)
    return table


def front_table(trials: Sequence[Trial], *, costs: Sequence[CostName], width: int) -> Table:
    """Return a table of the trials on a front, as given, with every objective, parameters and MACs."""
    wide = is_wide(width)
    shown = shown_costs(costs)
    title = f"front: accuracy against {' and '.join(COSTS[name].words for name in costs)}"
    accuracy = "accuracy % [95 %]" if wide else "accuracy %"
    table = titled_table(title, "trial", "architecture", *(COSTS[name].heading for name in shown), accuracy)
    table.columns[1].justify = "left"
    for trial in trials:
        cells = [COSTS[name].text(trial.amount(name) or 0, short=not wide) for name in shown]
        interval = wilson_interval(trial.correct, trial.images) if trial.correct is not None and trial.images else None
        share = trial.accuracy or 0.0
        reached = format_with_interval(share, interval, images=trial.images) if wide and interval else None
        cells.append(reached or percent(share, images=trial.images))
        table.add_row(trial.name, Architecture(trial.architecture), *cells)
    return table


def finals_table(results: Sequence[FinalResult], *, comparable: bool, width: int) -> Table:
    """Return a table of finalists by mean validation accuracy, with their test accuracy.

    Args:
        results: the finalists, the best first.
        comparable: whether the data are original CIFAR-10, so that they are compared with the published result.
        width: width of the terminal in characters; narrow ones get fewer columns.
    """
    wide, very_wide = is_wide(width), width >= _VERY_WIDE
    gaps = final_gaps(results, comparable=comparable)
    against = next((gap.compared_with for gap in gaps if gap is not None), "")
    table = Table(title="finalists", title_justify="left", expand=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("finalist", overflow="fold", min_width=9)
    table.add_column("architecture", min_width=12)
    table.add_column("params", justify="right", no_wrap=True)
    if wide:
        table.add_column("PFLOP", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    table.add_column("validation %" if very_wide else "val. %", justify="right", no_wrap=True)
    table.add_column("test % [95 %]" if wide else "test %", justify="right", no_wrap=True)
    timed = any(result.latency is not None for result in results)
    if timed:
        table.add_column("latency", justify="right")
    if wide:
        table.add_column(f"gap to {against}" if against and very_wide else "gap", justify="right", no_wrap=True)
        table.add_column("beyond noise?" if very_wide else "beyond\nnoise?", no_wrap=True)
    for place, (result, gap) in enumerate(zip(results, gaps, strict=True), 1):
        params = result.finalist.spec.params
        cells: list[str | Text | Architecture] = [str(place), result.finalist.name]
        cells.append(Architecture(result.finalist.spec.label))
        cells.append(f"{params:,}" if wide else short_count(params))
        if wide:
            cells.append(short_petaflops(fmean(result.train_flops)) if result.records else "")
        validation = (
            percent(fmean(result.validation), images=result.validation_images) if result.records else "no result"
        )
        cells += [str(len(result.records)), validation]
        interval, images = result.test_interval, result.test_images
        tested = "-" if interval is None else percent(fmean(result.test), images=images)
        with_interval = format_with_interval(fmean(result.test), interval, images=images) if interval else tested
        cells.append(with_interval if wide else tested)
        if timed:
            cells.append("" if result.latency is None else str(result.latency))
        if wide:
            cells.append(points(gap.difference, gap.interval if very_wide else None) if gap else "")
            cells.append(_noise_text(gap.exceeds_noise, gap.difference) if gap else "")
        table.add_row(*cells, style="bold" if place == 1 else None)
    return table


def _noise_text(exceeds: bool | None, difference: float) -> Text:
    colour = "" if exceeds is None else ("green" if difference > 0 else "red") if exceeds else "yellow"
    return Text(noise_word(exceeds), colour)
