"""Which of the parameters that a sampler drew the accuracy hangs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from budgetnet.visualization.figures.style import BLUE, blank_figure, listed, literal

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


MOST_SHOWN = 10
"""Parameters with a bar of their own; the others share one."""


def importance(shares: Mapping[str, float], *, note: str = "") -> Figure:
    """How much each drawn parameter tells of who is accurate, as bars, the most telling on top.

    Args:
        shares: importance by parameter, adding up to 1, such as `parameter_importance` of `budgetnet.study` gives.
        note: how they were computed, and of which study; stands below the title.
    """
    from plotly.graph_objects import Bar

    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    alt, rest = _alt(ordered), ordered[MOST_SHOWN:]
    if len(rest) > 1:
        ordered = [*ordered[:MOST_SHOWN], (f"{len(rest)} others", sum(share for _, share in rest))]
    figure = blank_figure(
        title="Importance of what was drawn", note=note, alt=alt, height=60 + 26 * max(1, len(ordered))
    )
    figure.add_trace(
        Bar(
            x=[100 * share for _, share in ordered],
            y=[literal(name) for name, _ in ordered],
            orientation="h",
            marker={"color": BLUE},
            text=[f"{100 * share:.1f}" for _, share in ordered],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_layout(bargap=0.3, margin={"r": 48})
    figure.update_xaxes(title_text="importance, %", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", ticks="")
    return figure


def _alt(ordered: list[tuple[str, float]]) -> str:
    if not ordered:
        return "Too few candidates were trained to their end to tell which parameter matters."
    parts = [f"{name} {100 * share:.1f} %" for name, share in ordered[:5]]
    rest = "" if len(ordered) <= 5 else f"; the other {len(ordered) - 5} less"
    return f"Importance for the accuracy: {listed(parts)}{rest}."
