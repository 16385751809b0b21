"""Forest plot of comparisons over several networks: pooled intervals, and a marker for each network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.statistics.intervals import Interval, points
from budgetnet.visualization.figures.forest import (
    BELOW,
    draw_background,
    interval_trace,
    lay_out_rows,
    write_text,
)
from budgetnet.visualization.figures.style import (
    BLACK,
    BLUE,
    FAINT,
    GREEN,
    INK,
    LEGEND_HEIGHT,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    blank_figure,
    literal,
    shortened,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class NetworkPoint(NamedTuple):
    """One network's own difference in a comparison."""

    network: str
    name: str
    """Title of the variant."""
    difference: float
    """Difference in accuracy: 0.01 is one point."""
    interval: Interval | None


class PooledRow(NamedTuple):
    """One comparison over all networks, and on each of them."""

    change: str
    comparison: str
    """Comparison of the change; empty if there is only one."""
    n: int
    """Total number of pairs on all networks."""
    difference: float | None
    """Pooled difference in accuracy; None if no network has a pair."""
    interval: Interval | None
    significant: bool | None
    """Whether the pooled difference is beyond noise; None if it was not tested."""
    networks: tuple[NetworkPoint, ...]
    """Networks with a difference."""

    @property
    def name(self) -> str:
        """Change and comparison."""
        return f"{self.change}, {self.comparison}" if self.comparison else self.change


_COLOURS = {True: VERMILLION, False: INK, None: FAINT}
"""Of the pooled interval, by whether it is beyond noise."""
_KINDS = {True: "all networks, beyond noise", False: "all networks, within noise", None: "all networks, no p-value"}
_MARKS = [
    (BLUE, "circle"),
    (ORANGE, "square"),
    (GREEN, "triangle-up"),
    (PURPLE, "x"),
    (SKY, "triangle-down"),
    (BLACK, "cross"),
]
"""Colours and markers of the networks."""
_HEIGHT = 50
"""Height of a row in pixels: text, and the interval below."""
_WORDS, _INTERVAL, _STEP = 13, 34, 5
"""Vertical positions in a row and distance between networks' markers, in pixels."""
_MOST_NAME = 20
"""Number of characters of a change that fit into 390 pixels with the comparison and the numbers."""


def pooled_forest(rows: Sequence[PooledRow], *, networks: Sequence[str], title: str, note: str = "") -> Figure:
    """Draw comparisons over several networks in points of accuracy, in the order given, with a line at zero.

    Args:
        rows: the comparisons; one without a difference is listed as such.
        networks: names of the networks, in the order of their markers.
        title: what the differences are.
        note: of what, at which confidence; stands below the title.
    """
    end = _HEIGHT * max(1, len(rows))
    lines = -(-(len(networks) + len({row.significant for row in rows})) // 3)
    figure = blank_figure(
        title=title, note=note, alt=_alt(rows), height=end + BELOW, above=LEGEND_HEIGHT + 20 * max(0, lines - 1)
    )
    for significant in (True, False, None):
        chosen = [(place, row) for place, row in enumerate(rows) if row.significant is significant]
        chosen = [(place, row) for place, row in chosen if row.difference is not None]
        if chosen:
            figure.add_traces(_pooled_traces(significant, chosen))
    for number, network in enumerate(networks):
        figure.add_trace(_network_trace(number, network, rows, count=len(networks)))
    for place, row in enumerate(rows):
        _write(figure, _HEIGHT * place, row, striped=place % 2 == 0)
    values = [value for row in rows for value in (*(row.interval or ()), row.difference)]
    lay_out_rows(figure, [*values, *(each.difference for row in rows for each in row.networks)], end=end)
    return figure


def _pooled_traces(significant: bool | None, chosen: Sequence[tuple[int, PooledRow]]) -> list[Any]:
    """Return the traces of the pooled intervals and differences."""
    from plotly.graph_objects import Scatter

    colour = _COLOURS[significant]
    intervals: dict[float, Interval | None] = {_HEIGHT * place + _INTERVAL: row.interval for place, row in chosen}
    line = {"mode": "lines", "line": {"width": 7, "color": colour}, "opacity": 0.45}
    differences = Scatter(
        x=[100 * row.difference for _, row in chosen if row.difference is not None],
        y=[_HEIGHT * place + _INTERVAL for place, _ in chosen],
        mode="markers",
        name=_KINDS[significant],
        marker={"symbol": "line-ns", "size": 18, "line": {"width": 4, "color": colour}},
        text=[f"{literal(row.name)}, all networks: {_number(row)}, {row.n} pairs" for _, row in chosen],
        hovertemplate="%{text}<extra></extra>",
    )
    return [interval_trace(intervals, **line), differences]


def _network_trace(number: int, network: str, rows: Sequence[PooledRow], *, count: int) -> Any:
    """Return the trace of one network's differences, offset vertically within each row."""
    from plotly.graph_objects import Scatter

    colour, symbol = _MARKS[number % len(_MARKS)]
    found = [(place, each) for place, row in enumerate(rows) for each in row.networks if each.network == network]
    shift = _STEP * (number - (count - 1) / 2) * min(1, 3 / max(1, count - 1))
    return Scatter(
        x=[100 * each.difference for _, each in found],
        y=[_HEIGHT * place + _INTERVAL + shift for place, _ in found],
        mode="markers",
        name=literal(network),
        marker={"color": colour, "symbol": symbol, "size": 8, "line": {"width": 1, "color": "white"}},
        text=[f"{literal(each.name)}: {points(each.difference, each.interval)}" for _, each in found],
        hovertemplate="%{text}<extra></extra>",
    )


def _write(figure: Figure, top: int, row: PooledRow, *, striped: bool) -> None:
    """Draw a row's background, zero line, name and numbers."""
    draw_background(figure, top, top + _HEIGHT, zero=top + 22, striped=striped)
    comparison = f", {literal(row.comparison)}" if row.comparison else ""
    write_text(figure, f"<b>{literal(shortened(row.change, _MOST_NAME))}</b>{comparison}", top + _WORDS)
    write_text(figure, _number(row), top + _WORDS, right=True)


def _number(row: PooledRow) -> str:
    return "no result" if row.difference is None else points(row.difference, row.interval)


def _alt(rows: Sequence[PooledRow]) -> str:
    beyond = [f"{row.name} {_number(row)}" for row in rows if row.significant]
    told = f"beyond noise: {', '.join(beyond)}" if beyond else "none is beyond noise"
    others = sum(not row.significant for row in rows)
    return f"Differences over all networks in {len(rows)} comparisons, in points of accuracy: {told}; {others} others."
