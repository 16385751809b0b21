"""Figure of search quality: regret after a number of trainings, a panel for each table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from budgetnet.visualization.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    LEGEND_HEIGHT,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    blank_figure,
    literal,
    style_axes,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hexagon")
_PANEL = 260


class RegretLine(NamedTuple):
    """Mean regret of one strategy on one table."""

    table: str
    strategy: str
    trainings: tuple[int, ...]
    regret: tuple[float, ...]
    """Points below the best candidate, after each number of trainings."""
    low: tuple[float, ...]
    """Lower ends of the 95 % intervals."""
    high: tuple[float, ...]
    """Upper ends of the 95 % intervals."""


def regret_lines(lines: list[RegretLine], *, note: str) -> Figure:
    """Draw mean regret by number of trainings, with intervals; regret is on a logarithmic axis.

    Args:
        lines: at least one line; lines of a table share a panel.
        note: what else has to be known to read the numbers.
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    tables = list(dict.fromkeys(line.table for line in lines))
    strategies = list(dict.fromkeys(line.strategy for line in lines))
    last = "; ".join(
        f"{line.table}, {line.strategy}: {line.regret[-1]:.2f} points after {line.trainings[-1]} trainings"
        for line in lines
    )
    legend = LEGEND_HEIGHT * (1 + len(strategies) // 4)
    figure = blank_figure(
        title="Regret of a search by number of trainings",
        note=note,
        alt=f"Mean regret of {len(strategies)} strategies. {last}.",
        height=_PANEL * len(tables),
        above=legend,
    )
    panels = make_subplots(rows=len(tables), cols=1, shared_xaxes=True, figure=figure, vertical_spacing=0.06)
    for line in lines:
        place = strategies.index(line.strategy)
        above = [high - value for high, value in zip(line.high, line.regret, strict=True)]
        below = [value - low for low, value in zip(line.low, line.regret, strict=True)]
        panels.add_trace(
            Scatter(
                x=line.trainings,
                y=line.regret,
                error_y={"array": above, "arrayminus": below, "thickness": 1, "width": 3},
                mode="lines+markers",
                line={"color": _COLOURS[place % len(_COLOURS)], "width": 2},
                marker={"symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 8},
                name=literal(line.strategy),
                legendgroup=line.strategy,
                showlegend=line.table == tables[0],
                hovertemplate=f"{literal(line.strategy)}, %{{x}} trainings: %{{y:.3f}} points<extra></extra>",
            ),
            row=tables.index(line.table) + 1,
            col=1,
        )
    trainings = sorted({count for line in lines for count in line.trainings})
    style_axes(panels)
    for row, table in enumerate(tables, 1):
        panels.update_yaxes(title_text=f"{table}: regret, points", type="log", dtick="D2", row=row, col=1)
        panels.update_xaxes(type="log", tickvals=trainings, row=row, col=1)
    panels.update_xaxes(title_text="trainings", row=len(tables), col=1)
    return panels
