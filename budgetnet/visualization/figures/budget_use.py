"""Share of the budget that each candidate of a study uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.study.trials import OUTCOMES, Outcome, Trial, one_per_candidate
from budgetnet.visualization.figures.style import (
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
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

OUTCOME_MARKS: dict[Outcome, tuple[str, str]] = {
    "complete": (BLUE, "circle"),
    "pruned": (SKY, "x-thin-open"),
    "over budget": (VERMILLION, "triangle-up"),
    "duplicate": (FAINT, "circle-open"),
    "running": (GREEN, "diamond-open"),
    "interrupted": (ORANGE, "square-open"),
    "skipped": (FAINT, "cross-thin-open"),
    "no result": (PURPLE, "square"),
}
"""Colour and marker of each outcome of a candidate; markers differ for readers who cannot tell colours apart."""


class BudgetUseRow(NamedTuple):
    """A candidate and its share of the budget."""

    number: int
    """Number of the trial."""
    architecture: str
    outcome: Outcome
    used: float
    """Largest used share of a limit; above 1 it is over budget."""


_FEW = 10
"""Maximum number of trials that are all labelled on the axis."""
_FAR_OVER = 2.5
"""Share of the budget from which the axis is logarithmic."""


def budget_use_rows(trials: Sequence[Trial]) -> list[BudgetUseRow]:
    """Return every candidate of a study with its share of the budget, in order."""
    return [
        BudgetUseRow(trial.number, trial.architecture, trial.outcome, trial.budget_used)
        for trial in one_per_candidate(trials)
    ]


def budget_use(trials: Sequence[Trial], *, note: str = "") -> Figure:
    """Draw the share of the budget that each trial uses, in per cent, with a line at 100 %.

    Args:
        trials: trials of one study.
        note: text below the title, such as the name of the study.
    """
    from plotly.graph_objects import Scatter

    rows = budget_use_rows(trials)
    figure = blank_figure(
        title="Share of the budget used", note=note, alt=_alt(rows), height=360, above=2 * LEGEND_HEIGHT
    )
    for outcome in OUTCOMES:
        chosen = [row for row in rows if row.outcome == outcome]
        if not chosen:
            continue
        colour, symbol = OUTCOME_MARKS[outcome]
        figure.add_trace(
            Scatter(
                x=[row.number for row in chosen],
                y=[100 * row.used for row in chosen],
                mode="markers",
                name=outcome,
                marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.5, "color": colour}},
                text=[literal(row.architecture) for row in chosen],
                hovertemplate=f"#%{{x}} %{{text}}<br>{outcome}: %{{y:.2f}} % of the budget<extra></extra>",
            )
        )
    line = {"color": INK, "width": 1.5, "dash": "dash"}
    figure.add_shape(type="line", x0=0, x1=1, xref="paper", y0=100, y1=100, line=line, name="budget")
    figure.update_xaxes(title_text="trial", tickformat=",d", dtick=1 if len(rows) <= _FEW else None)
    # Rejected candidates can be a hundred times too large; a linear axis would hide all others.
    if any(row.used > _FAR_OVER for row in rows):
        ticks = {
            "type": "log",
            "dtick": "D2",
            "tickformat": "~s",
            "title_text": "of the tightest limit, % (logarithmic)",
        }
        figure.update_yaxes(**ticks)
    else:
        figure.update_yaxes(title_text="of the tightest limit, %", rangemode="tozero")
    return figure


def _alt(rows: Sequence[BudgetUseRow]) -> str:
    if not rows:
        return "Nothing was proposed yet."
    fitting = sorted(row.used for row in rows if row.used <= 1)
    outcomes = Counter(row.outcome for row in rows)
    count = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in OUTCOMES if outcomes[outcome])
    if not fitting:
        return f"Of {len(rows)} proposals none fits the budget ({count})."
    shares = f"{100 * fitting[0]:.1f} to {100 * fitting[-1]:.1f} %, half of them at least "
    return (
        f"Of {len(rows)} proposals {len(fitting)} fit and use {shares}{100 * fitting[len(fitting) // 2]:.1f} % "
        f"of the budget ({count})."
    )
