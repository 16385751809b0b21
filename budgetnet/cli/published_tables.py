"""Terminal tables of published results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from budgetnet.common.formatting import short_count
from budgetnet.model.published import PublishedResult
from budgetnet.model.published.contradiction import Contradiction, Statement
from budgetnet.visualization.published import stated_accuracy

_WIDE = 110
"""Terminal width, in characters, from which all columns are shown."""
_UNKNOWN = "-"


def print_results(output: Console, results: Sequence[PublishedResult]) -> None:
    """Print published results, the facts inferred by us, caveats, and sources."""
    wide = output.width >= _WIDE
    table = Table(title="published results", title_justify="left")
    table.add_column("name", no_wrap=True, style="bold")
    table.add_column("accuracy", no_wrap=True)
    for heading in ("%", "images", "params", *(["loss", "runs"] if wide else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("stated in")
    if wide:
        table.add_column("inferred")
    for result in results:
        cells = [result.name, result.claim.removesuffix("-accuracy"), stated_accuracy(result)]
        cells += [_count(result.images), _params(result)]
        cells += [_UNKNOWN if result.loss is None else f"{result.loss:g}", _count(result.runs)] if wide else []
        cells += [result.stated["accuracy"]]
        cells += [", ".join(result.inferred)] if wide else []
        table.add_row(*cells)
    output.print(table)
    reasons = {each.name: [f"{fact}: {how}" for fact, how in each.inferred.items()] for each in results}
    _print_notes(output, "inferred, not stated in the source", reasons)
    _print_notes(output, "caveats", {each.name: [each.caveat] if each.caveat else [] for each in results})
    output.print(f"~ approximate; {_UNKNOWN} unknown; stated in: where the accuracy is stated (--json: for every fact)")
    for source in dict.fromkeys(result.source for result in results):
        output.print(f"source: {source}")


def print_contradictions(output: Console, points: Sequence[Contradiction]) -> None:
    """Print where the publication contradicts itself, and which statement budgetnet follows."""
    table = Table(title="where the publication contradicts itself", title_justify="left", show_lines=True, expand=True)
    table.add_column("point", ratio=3)
    table.add_column("statements", ratio=6)
    table.add_column("followed by budgetnet", ratio=5)
    for point in points:
        table.add_row(point.point, "\n".join(map(_statement, point.statements)), point.followed)
    output.print(table)


def _print_notes(output: Console, title: str, notes: Mapping[str, Sequence[str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=max(map(len, notes)) + 2)
    grid.add_column()
    for name, texts in notes.items():
        for position, text in enumerate(texts):
            grid.add_row(f"  {name}" if position == 0 else "", text)
    output.print(f"{title}:")
    output.print(grid)


def _statement(statement: Statement) -> str:
    counted = f" ({statement.layout.params:,} params)" if statement.layout else ""
    return f"{statement.where}: {statement.says}{counted}"


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _params(result: PublishedResult) -> str:
    if result.params is None or result.params_rounded_to == 1:
        return _count(result.params)
    return f"~{short_count(result.params)}"
