"""How far candidates came: at the end of each cycle, how many continued and how many were pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.study.trials import Trial
from budgetnet.visualization.figures.style import BLUE, LEGEND_HEIGHT, ORANGE, blank_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


_FEW = 10
"""Candidates up to which every whole number stands on the axis."""


class RungRow(NamedTuple):
    """The end of a cycle, at which candidates are compared."""

    epoch: int
    """The epoch that ends the cycle."""
    reached: int
    """Candidates that came to its end."""
    given_up: int
    """Those of them that were pruned there."""
    best: float
    """The best validation accuracy at its end, as a share."""
    median: float
    """The median validation accuracy at its end (the lower one of two), as a share."""


def rung_rows(trials: Sequence[Trial]) -> list[RungRow]:
    """The ends of cycles that candidates of a study came to; duplicates are not counted."""
    own = [trial for trial in trials if trial.reports and trial.outcome != "duplicate"]
    rows = []
    for epoch in sorted({epoch for trial in own for epoch in trial.reports}):
        there = [trial for trial in own if epoch in trial.reports]
        reports = sorted(trial.reports[epoch] for trial in there)
        given_up = sum(trial.outcome == "pruned" and max(trial.reports) == epoch for trial in there)
        rows.append(RungRow(epoch, len(there), given_up, reports[-1], reports[(len(reports) - 1) // 2]))
    return rows


def rungs(trials: Sequence[Trial], *, note: str = "") -> Figure:
    """How many candidates came to the end of each cycle, and how many of them were given up there.

    Args:
        trials: of one study.
        note: of which study; stands below the title.
    """
    from plotly.graph_objects import Bar

    rows = rung_rows(trials)
    figure = blank_figure(title="Candidates by rung", note=note, alt=_alt(rows), height=320, above=LEGEND_HEIGHT)
    # Names rather than numbers, so that the bars stand evenly although the cycles grow.
    epochs = [str(row.epoch) for row in rows]
    figure.add_traces(
        [
            Bar(
                x=epochs,
                y=[row.reached - row.given_up for row in rows],
                name="went on, or came to the end",
                marker={"color": BLUE},
                text=[row.reached - row.given_up or "" for row in rows],
                customdata=[(100 * row.best, 100 * row.median) for row in rows],
                hovertemplate=(
                    "after epoch %{x}: %{y} went on<br>best there %{customdata[0]:.2f} %, median %{customdata[1]:.2f} %"
                    "<extra></extra>"
                ),
            ),
            Bar(
                x=epochs,
                y=[row.given_up for row in rows],
                name="given up there",
                marker={"color": ORANGE, "pattern": {"shape": "/", "fgcolor": "#FFFFFF", "size": 6}},
                # Of its own ground, or the hatching would lie across the digits.
                text=[row.given_up or "" for row in rows],
                textposition="outside",
                hovertemplate="after epoch %{x}: %{y} given up<extra></extra>",
            ),
        ]
    )
    figure.update_layout(barmode="stack", bargap=0.35)
    most = max((row.reached for row in rows), default=1)
    figure.update_xaxes(title_text="epoch", type="category", range=[-0.6, max(len(rows), 1) - 0.4])
    figure.update_yaxes(title_text="candidates", rangemode="tozero", dtick=1 if most <= _FEW else None, tickformat=",d")
    return figure


def _alt(rows: Sequence[RungRow]) -> str:
    if not rows:
        return "No candidate has come to the end of a cycle yet."
    parts = (f"after epoch {row.epoch}: {row.reached} reached, {row.given_up} given up" for row in rows)
    return f"Candidates by rung: {'; '.join(parts)}."
