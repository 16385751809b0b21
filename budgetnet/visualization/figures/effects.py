"""Effects of closed-form features on accuracy, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from budgetnet.visualization.figures.style import BLUE, FAINT, INK, LEGEND_HEIGHT, blank_figure, listed, literal

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from budgetnet.study.feature_effects import FeatureEffect


def effects(found: Sequence[FeatureEffect], *, note: str = "") -> Figure:
    """Draw the effect of each closed-form feature with its interval, and the effect that was expected.

    Args:
        found: effects, as returned by `feature_effects` of `budgetnet.study`.
        note: text below the title, such as the study.
    """
    from plotly.graph_objects import Scatter

    parts = [
        f"{each.feature} {each.effect:+.2f} [{each.interval.low:+.2f}, {each.interval.high:+.2f}]" for each in found
    ]
    alt = f"Learned effect on accuracy, in standard deviations: {listed(parts)}." if found else "Too few candidates."
    figure = blank_figure(
        title="Effects of closed-form features",
        note=note,
        alt=alt,
        height=90 + 34 * max(1, len(found)),
        above=LEGEND_HEIGHT,
    )
    names = [literal(each.feature) for each in found]
    figure.add_trace(
        Scatter(
            x=[each.effect for each in found],
            y=names,
            error_x={
                "array": [each.interval.high - each.effect for each in found],
                "arrayminus": [each.effect - each.interval.low for each in found],
                "color": BLUE,
            },
            mode="markers",
            marker={"color": BLUE, "size": 10},
            name="learned, 95 % interval",
            hovertemplate="%{y}: %{x:+.2f}<extra></extra>",
        )
    )
    figure.add_trace(
        Scatter(
            x=[each.expected for each in found],
            y=names,
            mode="markers",
            marker={"color": FAINT, "size": 9, "symbol": "diamond-open"},
            name="expected before training",
            hovertemplate="%{y}: %{x:+.2f} expected<extra></extra>",
        )
    )
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_xaxes(title_text="effect, standard deviations")
    figure.update_yaxes(autorange="reversed", ticks="")
    return figure
