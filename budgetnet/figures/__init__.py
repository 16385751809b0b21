"""Figures from records: each is first computed as a plain table, then drawn; none of it needs torch or trains.

Every figure is a Plotly one with a sentence that says the same, in ``figure.layout.meta["alt"]``; `write_figure` writes
it as a page that needs no network, as SVG, as PNG or as Plotly's JSON.
"""

from budgetnet.figures.confusion import ConfusionCell, confusion, confusion_cells
from budgetnet.figures.curves import Curve, Curves, accuracy_curves, collect_curves, loss_curves
from budgetnet.figures.forest import ForestRow, forest
from budgetnet.figures.outline import OutlineRow, outline, outline_rows
from budgetnet.figures.reliability import reliability
from budgetnet.figures.write import SUFFIXES, require_writable, write_figure

__all__ = [
    "SUFFIXES",
    "ConfusionCell",
    "Curve",
    "Curves",
    "ForestRow",
    "OutlineRow",
    "accuracy_curves",
    "collect_curves",
    "confusion",
    "confusion_cells",
    "forest",
    "loss_curves",
    "outline",
    "outline_rows",
    "reliability",
    "require_writable",
    "write_figure",
]
