"""Candidates by rung: how many continued and how many were pruned after each cycle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.study.trials import Trial, one_per_candidate
from budgetnet.visualization.figures.style import BLUE, LEGEND_HEIGHT, ORANGE, blank_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


_FEW = 10
"""Maximum number of candidates with every whole number on the axis."""


class RungRow(NamedTuple):
    """The end of a cycle, at which candidates are compared."""

    epoch: int
    """Last epoch of the cycle."""
    reached: int
    """Number of candidates that completed the cycle."""
    pruned: int
    """Number of candidates that were pruned after the cycle."""
    best: float
    """Best validation accuracy after the cycle, from 0 to 1."""
    median: float
    """Median validation accuracy after the cycle (the lower of two), from 0 to 1."""


def rung_rows(trials: Sequence[Trial]) -> list[RungRow]:
    """Return the ends of cycles that candidates of a study reached; duplicates are not counted."""
    own = [trial for trial in one_per_candidate(trials) if trial.reports and trial.outcome != "duplicate"]
    rows = []
    for epoch in sorted({epoch for trial in own for epoch in trial.reports}):
        there = [trial for trial in own if epoch in trial.reports]
        reports = sorted(trial.reports[epoch] for trial in there)
        pruned = sum(trial.outcome == "pruned" and max(trial.reports) == epoch for trial in there)
        rows.append(RungRow(epoch, len(there), pruned, reports[-1], reports[(len(reports) - 1) // 2]))
    return rows


def rungs(trials: Sequence[Trial], *, note: str = "") -> Figure:
    """Draw how many candidates completed each cycle, and how many of them were pruned after it.

    Args:
        trials: trials of one study.
        note: text below the title, such as the name of the study.
    """
    from plotly.graph_objects import Bar

    rows = rung_rows(trials)
    figure = blank_figure(title="Candidates by rung", note=note, alt=_alt(rows), height=320, above=LEGEND_HEIGHT)
    # Categories instead of numbers, for evenly spaced bars although the cycles grow.
    epochs = [str(row.epoch) for row in rows]
    figure.add_traces(
        [
            Bar(
                x=epochs,
                y=[row.reached - row.pruned for row in rows],
                name="continued or complete",
                marker={"color": BLUE},
                text=[row.reached - row.pruned or "" for row in rows],
                customdata=[(100 * row.best, 100 * row.median) for row in rows],
                hovertemplate=(
                    "after epoch %{x}: %{y} went on<br>best there %{customdata[0]:.2f} %, median %{customdata[1]:.2f} %"
                    "<extra></extra>"
                ),
            ),
            Bar(
                x=epochs,
                y=[row.pruned for row in rows],
                name="pruned there",
                marker={"color": ORANGE, "pattern": {"shape": "/", "fgcolor": "#FFFFFF", "size": 6}},
                # A background, so that the hatching does not cross the digits.
                text=[row.pruned or "" for row in rows],
                textposition="outside",
                hovertemplate="after epoch %{x}: %{y} pruned<extra></extra>",
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
    parts = (f"after epoch {row.epoch}: {row.reached} reached, {row.pruned} pruned" for row in rows)
    return f"Candidates by rung: {'; '.join(parts)}."
