"""Forest plot of paired differences with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.statistics.intervals import Interval, points
from budgetnet.visualization.figures.style import (
    BLACK,
    BLUE,
    FAINT,
    INK,
    LEGEND_HEIGHT,
    VERMILLION,
    WASH,
    blank_figure,
    literal,
    shortened,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class ForestRow(NamedTuple):
    """A variant and the difference of its accuracy to that of the base, or of another variant."""

    name: str
    n: int
    """Number of pairs, that is, seeds that both were trained with."""
    difference: float | None
    """Accuracy of the variant minus that of the base: 0.01 is one point; None without a result."""
    low: float | None
    """Lower end of the interval; None with a single pair."""
    high: float | None
    """Upper end of the interval."""
    significant: bool | None
    """Whether the difference is beyond noise; None if it was not tested."""
    params: int | None
    """Parameters of the variant, frozen ones included."""
    remark: str
    """Reason for a missing result, such as ``over budget``, or another remark; may be empty."""
    compared_with: str = ""
    """Name of the variant compared with; empty if all rows are compared with the base."""


class _Kind(NamedTuple):
    """Colour and marker of one kind of point."""

    name: str
    colour: str
    symbol: str


_KINDS = {
    True: _Kind("beyond noise", VERMILLION, "diamond"),
    False: _Kind("within noise", BLUE, "circle"),
    None: _Kind("not tested", BLACK, "square"),
}


def forest(
    rows: Sequence[ForestRow], *, title: str = "Difference to the base", note: str = "", base: str = "the base"
) -> Figure:
    """Draw paired differences in points of accuracy with their intervals and a line at zero, in the order given.

    Args:
        rows: the variants; one without a difference is listed with its remark.
        title: what the differences are.
        note: of what, to which base, at which confidence; stands below the title.
        base: what rows without another name are compared with, for the text alternative.

    Raises:
        InputError: a row has one end of an interval alone, its ends the wrong way round, or no difference to them.
    """
    for row in rows:
        _check(row)
    tops = list(accumulate((_height(row) for row in rows), initial=0))
    end = tops.pop() or _NAME_HEIGHT
    figure = blank_figure(title=title, note=note, alt=_alt(rows, base), height=end + BELOW, above=LEGEND_HEIGHT)
    kinds = [_kind(row) for row in rows]
    for kind in dict.fromkeys(kind for kind in kinds if kind):
        chosen = [(top, row) for top, row, its in zip(tops, rows, kinds, strict=True) if its == kind]
        figure.add_traces(_traces(kind, chosen))
    for number, (top, row) in enumerate(zip(tops, rows, strict=True)):
        _write(figure, top, row, striped=number % 2 == 0)
    lay_out_rows(figure, [value for row in rows for value in (row.difference, row.low, row.high)], end=end)
    return figure


# Heights in pixels; a row's text is above its interval, so that both can use the full width.
_NAME_HEIGHT = 44
_REMARK_HEIGHT = 17
_INTERVAL_HEIGHT = 22
BELOW = 60
"""Height of the axis below the rows of a forest."""
_MOST_NAME, _MOST_REMARK = 44, 56
"""Numbers of characters that fit into 390 pixels."""


def _height(row: ForestRow) -> int:
    interval = 0 if row.difference is None else _INTERVAL_HEIGHT
    return _NAME_HEIGHT + interval + (_REMARK_HEIGHT if row.remark else 0)


def _traces(kind: _Kind, chosen: Sequence[tuple[int, ForestRow]]) -> list[Any]:
    """Return the traces of one kind of point, intervals first."""
    from plotly.graph_objects import Scatter

    places = [top + _height(row) - _INTERVAL_HEIGHT / 2 - 2 for top, row in chosen]
    marks = Scatter(
        x=[100 * row.difference for _, row in chosen if row.difference is not None],
        y=places,
        mode="markers",
        name=kind.name,
        marker={"color": kind.colour, "symbol": kind.symbol, "size": 12, "line": {"width": 2, "color": kind.colour}},
        text=[f"{literal(row.name)}: {_number(row)}" for _, row in chosen],
        hovertemplate="%{text}<extra></extra>",
    )
    intervals = {place: _interval(row) for place, (_, row) in zip(places, chosen, strict=True)}
    if not any(intervals.values()):
        return [marks]
    tips = {"symbol": "line-ns", "size": 9, "line": {"width": 2, "color": kind.colour}}
    look = {"mode": "lines+markers", "line": {"width": 2, "color": kind.colour}, "marker": tips}
    return [interval_trace(intervals, **look), marks]


def _check(row: ForestRow) -> None:
    ends = (row.low, row.high)
    if (row.low is None) != (row.high is None):
        raise InputError(f"rows[{row.name}]", ends, "must have both ends of an interval, or none")
    if row.low is not None and row.high is not None and (row.difference is None or row.low > row.high):
        raise InputError(f"rows[{row.name}]", ends, "must run from low to high, and belong to a difference")


def _kind(row: ForestRow) -> _Kind | None:
    """Return the kind of a row's point, with an open marker without an interval; None without a point."""
    if row.difference is None:
        return None
    kind = _KINDS[row.significant]
    return kind if row.low is not None else _Kind(f"{kind.name}, no interval", kind.colour, f"{kind.symbol}-open")


def _interval(row: ForestRow) -> Interval | None:
    return None if row.low is None or row.high is None else Interval(row.low, row.high)


def _write(figure: Figure, top: int, row: ForestRow, *, striped: bool) -> None:
    """Draw a row's background, zero line, name, numbers and remark."""
    bottom = top + _height(row)
    zero = bottom if row.difference is None else bottom - _INTERVAL_HEIGHT
    draw_background(figure, top, bottom, zero=zero, striped=striped)
    facts = [] if row.difference is None else ["1 seed" if row.n == 1 else f"{row.n} seeds"]
    facts += [] if row.params is None else [f"{row.params:,} parameters"]
    facts += [f"to {literal(row.compared_with)}"] if row.compared_with else []
    small = {"size": 12, "color": FAINT}
    write_text(figure, f"<b>{literal(shortened(row.name, _MOST_NAME))}</b>", top + 14)
    write_text(figure, ", ".join(facts), top + 32, font=small)
    write_text(figure, _number(row), top + 32, right=True)
    if row.remark:
        write_text(figure, literal(shortened(row.remark, _MOST_REMARK)), top + 49, font=small)


def _number(row: ForestRow) -> str:
    return "no result" if row.difference is None else points(row.difference, _interval(row))


def _alt(rows: Sequence[ForestRow], base: str) -> str:
    beyond = [f"{row.name} {_number(row)}" for row in rows if row.difference is not None and row.significant]
    others = Counter(kind.name for row in rows if (kind := _kind(row)) and not row.significant)
    nothing = [f"{row.name}{f' ({row.remark})' if row.remark else ''}" for row in rows if row.difference is None]
    parts = [f"beyond noise: {', '.join(beyond)}" if beyond else "none is beyond noise"]
    parts += [f"{count} {name}" for name, count in others.items()]
    parts += [f"no result: {', '.join(nothing)}"] if nothing else []
    variants = "1 variant" if len(rows) == 1 else f"{len(rows)} variants"
    other = "the variant compared with" if any(row.compared_with for row in rows) else base
    return f"Differences of {variants} to {other}, in points of accuracy: {'; '.join(parts)}."


def lay_out_rows(figure: Figure, values: Iterable[float | None], *, end: int) -> None:
    """Set the axes of a forest: horizontally all values and zero, with a margin; vertically pixels.

    Args:
        figure: the forest.
        values: all that is drawn, as shares.
        end: lower end of the last row.
    """
    reach = [0.0, *(100 * value for value in values if value is not None)]
    margin = (max(reach) - min(reach)) * 0.08 or 1.0
    figure.update_layout(margin={"l": 2, "r": 2, "b": BELOW})
    title = "difference in accuracy, points"
    figure.update_xaxes(title_text=title, range=[min(reach) - margin, max(reach) + margin])
    # One unit is one pixel, so that every row has enough height for its text.
    figure.update_yaxes(range=[end, 0], visible=False, fixedrange=True)


def interval_trace(intervals: Mapping[float, Interval | None], **look: Any) -> Any:
    """Return one trace of intervals, given by their vertical positions."""
    from plotly.graph_objects import Scatter

    found = [(place, interval) for place, interval in intervals.items() if interval is not None]
    return Scatter(
        x=[end for _, interval in found for end in (100 * interval.low, 100 * interval.high, None)],
        y=[end for place, _ in found for end in (place, place, None)],
        name="interval",
        showlegend=False,
        hoverinfo="skip",
        **look,
    )


def draw_background(figure: Figure, top: int, bottom: int, *, zero: int, striped: bool) -> None:
    """Draw a row's background, and its part of the zero line from `zero` down, which does not cross text."""
    if striped:
        at = {"xref": "paper", "x0": 0, "x1": 1, "y0": top, "y1": bottom}
        figure.add_shape(type="rect", **at, layer="below", fillcolor=WASH, line={"width": 0})
    if zero < bottom:
        at = {"x0": 0, "x1": 0, "y0": zero, "y1": bottom}
        figure.add_shape(type="line", **at, layer="between", line={"color": INK, "width": 1.5}, name="zero")


def write_text(figure: Figure, text: str, y: int, *, font: dict[str, Any] | None = None, right: bool = False) -> None:
    """Write text into a row at the left or right edge, vertically centred at `y`."""
    side: dict[str, Any] = {"x": 1, "xanchor": "right", "xshift": -6} if right else {"x": 0, "xanchor": "left"}
    at = {"xref": "paper", "xshift": 6, **side, "y": y, "yanchor": "middle"}
    figure.add_annotation(text=text, showarrow=False, font=font or {"size": 13}, **at)
