"""Figures from records: each is first computed as a plain table, then drawn; none of it needs torch or trains.

Every figure is a Plotly one with a sentence that says the same, in ``figure.layout.meta["alt"]``; `write_figure` writes
it as a page that needs no network, as SVG, as PNG or as Plotly's JSON.
"""

from budgetnet.visualization.figures.ablation import ablation_forest, ablation_rows, pooled_rows
from budgetnet.visualization.figures.budget_use import BudgetUseRow, budget_use, budget_use_rows
from budgetnet.visualization.figures.confusion import ConfusionCell, confusion, confusion_cells
from budgetnet.visualization.figures.curves import Curve, Curves, accuracy_curves, collect_curves, loss_curves
from budgetnet.visualization.figures.effects import effects
from budgetnet.visualization.figures.forest import ForestRow, forest
from budgetnet.visualization.figures.front import FrontRow, accuracy_front, front_rows
from budgetnet.visualization.figures.hypervolume import Hypervolume, HypervolumeRow, hypervolume, hypervolume_rows
from budgetnet.visualization.figures.importance import importance
from budgetnet.visualization.figures.outline import OutlineRow, outline, outline_rows
from budgetnet.visualization.figures.pooled_forest import NetworkPoint, PooledRow, pooled_forest
from budgetnet.visualization.figures.reliability import reliability
from budgetnet.visualization.figures.rungs import RungRow, rung_rows, rungs
from budgetnet.visualization.figures.svg import outline_svg, silhouette_svg
from budgetnet.visualization.figures.write import SUFFIXES, bare, require_writable, write_figure

__all__ = [
    "SUFFIXES",
    "BudgetUseRow",
    "ConfusionCell",
    "Curve",
    "Curves",
    "ForestRow",
    "FrontRow",
    "Hypervolume",
    "HypervolumeRow",
    "NetworkPoint",
    "OutlineRow",
    "PooledRow",
    "RungRow",
    "ablation_forest",
    "ablation_rows",
    "accuracy_curves",
    "accuracy_front",
    "bare",
    "budget_use",
    "budget_use_rows",
    "collect_curves",
    "confusion",
    "confusion_cells",
    "effects",
    "forest",
    "front_rows",
    "hypervolume",
    "hypervolume_rows",
    "importance",
    "loss_curves",
    "outline",
    "outline_rows",
    "outline_svg",
    "pooled_forest",
    "pooled_rows",
    "reliability",
    "require_writable",
    "rung_rows",
    "rungs",
    "silhouette_svg",
    "write_figure",
]
