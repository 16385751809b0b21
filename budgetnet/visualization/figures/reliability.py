"""Reliability diagram: accuracy by confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budgetnet.runs.metrics import Calibration
from budgetnet.visualization.figures.style import BLACK, BLUE, LEGEND_HEIGHT, SKY, VERMILLION, blank_figure, style_axes

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def reliability(calibration: Calibration, *, note: str = "") -> Figure:
    """Draw accuracy by confidence with a bar for each bin and the diagonal; below, the number of images.

    Args:
        calibration: the bins, of which an empty one leaves a gap, and the expected calibration error.
        note: text below the title, such as the network and the images.
    """
    from plotly.graph_objects import Bar, Scatter

    bins = calibration.bins
    middles = [50 * (part.low + part.high) for part in bins]
    widths = [100 * (part.high - part.low) for part in bins]
    accuracies = [None if part.accuracy is None else 100 * part.accuracy for part in bins]
    confidences = [None if part.confidence is None else 100 * part.confidence for part in bins]
    figure = blank_figure(title="Reliability", note=note, alt=_alt(calibration), height=480, above=LEGEND_HEIGHT)
    bars = {"color": SKY, "line": {"color": BLUE, "width": 1.5}}
    dots = {"symbol": "diamond", "size": 9, "color": VERMILLION}
    equal = {"color": BLACK, "width": 1.5, "dash": "dash"}
    figure.add_traces(
        [
            Bar(
                x=middles,
                y=accuracies,
                width=widths,
                name="accuracy",
                marker=bars,
                hovertemplate="accuracy %{y:.2f} %<extra></extra>",
            ),
            Scatter(
                x=confidences,
                y=accuracies,
                mode="markers",
                name="mean confidence",
                marker=dots,
                cliponaxis=False,
                hovertemplate="accuracy %{y:.2f} % at a mean confidence of %{x:.2f} %<extra></extra>",
            ),
            Scatter(x=[0, 100], y=[0, 100], mode="lines", name="calibrated", line=equal, hoverinfo="skip"),
            Bar(
                x=middles,
                y=[part.count for part in bins],
                width=widths,
                name="images",
                yaxis="y2",
                marker={"color": BLUE},
                showlegend=False,
                hovertemplate="%{y} images<extra></extra>",
            ),
        ]
    )
    figure.update_layout(
        xaxis={"title": {"text": "confidence, %"}, "range": [0, 100], "anchor": "y2"},
        yaxis={"title": {"text": "accuracy, %"}, "range": [0, 100], "domain": [0.34, 1]},
        yaxis2={"title": {"text": "images"}, "domain": [0, 0.24], "rangemode": "tozero"},
    )
    style_axes(figure)
    return figure


def _alt(calibration: Calibration) -> str:
    filled = [part for part in calibration.bins if part.count]
    total = sum(part.count for part in filled)
    if not total:
        return "No image was evaluated."
    sure = sum(part.count * (part.confidence or 0.0) for part in filled) / total
    right = sum(part.count * (part.accuracy or 0.0) for part in filled) / total
    word = "too sure" if sure > right else "not sure enough" if sure < right else "neither too sure nor too careful"
    return (
        f"Over {total:,} images in {len(calibration.bins)} bins the mean confidence is {100 * sure:.2f} % and the "
        f"accuracy {100 * right:.2f} %: on the whole {word}; within bins they differ by {100 * calibration.ece:.2f} "
        "points on average."
    )
