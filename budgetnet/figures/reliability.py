"""Whether a network is as often right as it is sure: a calibration diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.errors import InputError
from budgetnet.figures.look import BLACK, BLUE, LEGEND_HEIGHT, SKY, VERMILLION, blank_figure, style_axes

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class ReliabilityBin(NamedTuple):
    """The images of which a network is about equally sure."""

    low: float
    """Lower edge of the bin's confidences, from 0."""
    high: float
    """Upper edge, up to 1."""
    confidence: float
    """Mean probability of the class that it decides for; of no meaning where the bin is empty."""
    accuracy: float
    """Share of the images that it classifies rightly; of no meaning where the bin is empty."""
    images: int
    """How many there are in the bin."""


def calibration_gap(bins: Sequence[ReliabilityBin]) -> float:
    """How far accuracy lies from confidence, as a mean over all images: the expected calibration error.

    Source: C. Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 3. 0 where there is no image.
    """
    total = sum(part.images for part in bins)
    return sum(part.images * abs(part.accuracy - part.confidence) for part in bins if part.images) / max(1, total)


def reliability(bins: Sequence[ReliabilityBin], *, note: str = "") -> Figure:
    """Accuracy over confidence, a bar a bin, beside the line on which they are equal; below, how many images.

    Args:
        bins: side by side, the lowest first; an empty one leaves a gap.
        note: of which network on which images; stands below the title.

    Raises:
        InputError: no bin, or bins that overlap or leave the range from 0 to 1.
    """
    from plotly.graph_objects import Bar, Scatter

    edges = [edge for part in bins for edge in (part.low, part.high)]
    if not edges or edges != sorted(edges) or edges[0] < 0 or edges[-1] > 1:
        raise InputError("bins", edges, "must be at least one, side by side, from 0 to 1")
    figure = blank_figure(title="Reliability", note=note, alt=_alt(bins), height=480, above=LEGEND_HEIGHT)
    filled = [part for part in bins if part.images]
    figure.add_trace(
        Bar(
            x=[50 * (part.low + part.high) for part in filled],
            y=[100 * part.accuracy for part in filled],
            width=[100 * (part.high - part.low) for part in filled],
            name="accuracy",
            marker={"color": SKY, "line": {"color": BLUE, "width": 1.5}},
            hovertemplate="accuracy %{y:.2f} %<extra></extra>",
        )
    )
    figure.add_trace(
        Scatter(
            x=[100 * part.confidence for part in filled],
            y=[100 * part.accuracy for part in filled],
            mode="markers",
            name="mean confidence",
            marker={"symbol": "diamond", "size": 9, "color": VERMILLION},
            hovertemplate="accuracy %{y:.2f} % at a mean confidence of %{x:.2f} %<extra></extra>",
        )
    )
    line = {"color": BLACK, "width": 1.5, "dash": "dash"}
    figure.add_trace(Scatter(x=[0, 100], y=[0, 100], mode="lines", name="calibrated", line=line, hoverinfo="skip"))
    figure.add_trace(
        Bar(
            x=[50 * (part.low + part.high) for part in bins],
            y=[part.images for part in bins],
            width=[100 * (part.high - part.low) for part in bins],
            name="images",
            yaxis="y2",
            marker={"color": BLUE},
            showlegend=False,
            hovertemplate="%{y} images<extra></extra>",
        )
    )
    figure.update_layout(
        xaxis={"title": {"text": "confidence, %"}, "range": [0, 100], "anchor": "y2"},
        yaxis={"title": {"text": "accuracy, %"}, "range": [0, 100], "domain": [0.34, 1]},
        yaxis2={"title": {"text": "images"}, "domain": [0, 0.24], "rangemode": "tozero"},
    )
    style_axes(figure)
    return figure


def _alt(bins: Sequence[ReliabilityBin]) -> str:
    total = sum(part.images for part in bins)
    if not total:
        return "No image was judged."
    sure = sum(part.images * part.confidence for part in bins if part.images) / total
    right = sum(part.images * part.accuracy for part in bins if part.images) / total
    word = "too sure" if sure > right else "not sure enough" if sure < right else "neither too sure nor too careful"
    return (
        f"Over {total:,} images in {len(bins)} bins the mean confidence is {100 * sure:.2f} % and the accuracy "
        f"{100 * right:.2f} %: on the whole {word}; within bins they differ by {100 * calibration_gap(bins):.2f} "
        "points on average."
    )
