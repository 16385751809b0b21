"""Confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from budgetnet.common.errors import InputError
from budgetnet.common.formatting import count_of, percent
from budgetnet.visualization.figures.style import WIDTH, blank_figure, literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

_MOST_WRITTEN = 20
"""Number of classes above which counts and names do not fit."""


class ConfusionCell(NamedTuple):
    """A cell of a confusion matrix."""

    true: str
    predicted: str
    images: int
    """Number of images of the true class that were classified as the predicted one."""
    share: float
    """Share of the images of the true class; 0 if there are none."""


def confusion_cells(matrix: NDArray[np.integer] | Sequence[Sequence[int]], names: Sequence[str]) -> list[ConfusionCell]:
    """Return the cells of a confusion matrix, row by row.

    Args:
        matrix: counts as (true class, predicted class).
        names: of the classes.

    Raises:
        InputError: the matrix is not square, not as large as there are names, or holds what is no count.
    """
    rows = [list(row) for row in matrix]
    sizes = sorted({len(rows), *(len(row) for row in rows)})
    if sizes != [len(names)]:
        raise InputError("matrix", sizes, f"must have a row and a column for each of {len(names)} classes")
    if any(count < 0 or int(count) != count for row in rows for count in row):
        raise InputError("matrix", rows, "must hold counts")
    return [
        ConfusionCell(true, predicted, int(count), int(count) / max(1, sum(map(int, row))))
        for true, row in zip(names, rows, strict=True)
        for predicted, count in zip(names, row, strict=True)
    ]


def confusion(matrix: NDArray[np.integer] | Sequence[Sequence[int]], names: Sequence[str], *, note: str = "") -> Figure:
    """Draw a confusion matrix as a heat map: counts in the cells, shares of the true class as colours.

    Args:
        matrix: counts as (true class, predicted class).
        names: of the classes.
        note: text below the title, such as the network and the images.

    Raises:
        InputError: as `confusion_cells`.
    """
    from plotly.graph_objects import Heatmap

    cells, size = confusion_cells(matrix, names), len(names)
    rows = [cells[start : start + size] for start in range(0, len(cells), size)]
    written = size <= _MOST_WRITTEN
    # The figure grows with the number of classes, so that counts fit into cells.
    height, width = 100 + max(240, 34 * min(size, 30)), 720 if written else WIDTH
    note = f"{f'{note}; ' if note else ''}counts of images, colours by their share of the true class"
    figure = blank_figure(title="Confusion matrix", note=note, alt=_alt(cells), height=height, width=width)
    figure.add_trace(
        Heatmap(
            z=[[100 * cell.share for cell in row] for row in rows],
            text=[[cell.images for cell in row] for row in rows],
            texttemplate="%{text}" if written else None,
            textfont={"size": 11},
            hovertemplate="%{y} taken for %{x}: %{text} images, %{z:.1f} %<extra></extra>",
            colorscale="Blues",
            zmin=0,
            zmax=100,
            xgap=int(written),
            ygap=int(written),
            showscale=not written,
            colorbar={"thickness": 10, "ticksuffix": " %"},
        )
    )
    # More than about twenty names would overlap.
    named = range(0, size, -(-size // _MOST_WRITTEN))
    ticks = {"tickvals": list(named), "ticktext": [literal(names[place]) for place in named]}
    figure.update_layout(margin={"r": 8})
    figure.update_xaxes(title_text="predicted class", tickangle=-45, ticks="", **ticks)
    figure.update_yaxes(title_text="true class", autorange="reversed", showgrid=False, zeroline=False, **ticks)
    return figure


def _alt(cells: Sequence[ConfusionCell]) -> str:
    total = sum(cell.images for cell in cells)
    right = sum(cell.images for cell in cells if cell.true == cell.predicted)
    wrong = max((cell for cell in cells if cell.true != cell.predicted), key=lambda cell: cell.images, default=None)
    most = ""
    if wrong and wrong.images:
        most = f"; most often, {count_of(wrong.images, 'time')}, {wrong.true} is taken for {wrong.predicted}"
    share = f", {percent(right / total, images=total)} %," if total else ""
    return f"Of {total:,} images {right:,}{share} are on the diagonal, taken for what they are{most}."
