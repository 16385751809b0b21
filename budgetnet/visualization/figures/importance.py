"""Importance of the sampled parameters for the accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from budgetnet.visualization.figures.style import BLUE, blank_figure, listed, literal

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


MOST_SHOWN = 10
"""Maximum number of parameters with their own bar; the others share one."""


def importance(shares: Mapping[str, float], *, note: str = "") -> Figure:
    """Draw the importance of each sampled parameter as bars, the most important first.

    Args:
        shares: importance by parameter, with sum 1, as returned by `parameter_importance` of `budgetnet.study`.
        note: text below the title, such as the method and the study.
    """
    from plotly.graph_objects import Bar

    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    alt, rest = _alt(ordered), ordered[MOST_SHOWN:]
    if len(rest) > 1:
        ordered = [*ordered[:MOST_SHOWN], (f"{len(rest)} others", sum(share for _, share in rest))]
    figure = blank_figure(title="Parameter importance", note=note, alt=alt, height=60 + 26 * max(1, len(ordered)))
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
        return "Too few candidates are fully trained to compute parameter importance."
    parts = [f"{name} {100 * share:.1f} %" for name, share in ordered[:5]]
    rest = "" if len(ordered) <= 5 else f"; the other {len(ordered) - 5} less"
    return f"Importance for the accuracy: {listed(parts)}{rest}."
