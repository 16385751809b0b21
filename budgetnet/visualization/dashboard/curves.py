"""Learning curves as a picture, drawn without a browser and without the state that pyplot keeps for a process."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from budgetnet.runs.records import RunRecord
from budgetnet.visualization.figures import Curves, collect_curves
from budgetnet.visualization.figures.style import BLACK, BLUE, FAINT, INK, ORANGE, RULE, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 20
"""Epochs of which each is marked."""


def curves_png(record: RunRecord) -> bytes:
    """Accuracy and loss of a run over its epochs, as a PNG of 1,440 x 576 pixels."""
    # What it says of fonts and folders of its own is of no use to who asks for a picture.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=144, facecolor="white")
    figure.suptitle(
        f"{shortened(record.identity.spec.label, 60)}, seed {record.identity.seed}",
        parse_math=False,
        fontsize=12,
        color=INK,
        x=0.01,
        ha="left",
    )
    left, right = figure.subplots(1, 2)
    _draw(left, collect_curves(record, measure="accuracy"))
    _draw(right, collect_curves(record, measure="loss"))
    # Laid out by hand, which takes half the time of having it worked out for the same few words.
    figure.subplots_adjust(left=0.07, right=0.985, top=0.88, bottom=0.235, wspace=0.2)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower left", ncols=4, frameon=False, fontsize=10, labelcolor=INK)
    stream = io.BytesIO()
    # Without the version of what drew it, a picture of the same run is the same file.
    with warnings.catch_warnings():
        # A name in letters that the font lacks is shown as boxes.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw(axes: Axes, curves: Curves) -> None:
    from matplotlib.ticker import MaxNLocator

    (run,) = curves.runs
    few = len(run.epochs) <= _FEW
    scale = 100 if curves.measure == "accuracy" else 1
    looks: tuple[tuple[str, Sequence[float], str, str, str], ...] = (
        ("training", run.training, ORANGE, "--", "s"),
        ("validation", run.validation, BLUE, "-", "o"),
    )
    for name, values, colour, line, mark in looks:
        marks: dict[str, Any] = {"marker": mark, "markersize": 4} if few else {}
        shown = [scale * value if math.isfinite(value) else math.nan for value in values]
        axes.plot(run.epochs, shown, color=colour, linestyle=line, linewidth=1.8, label=name, **marks)
    if run.best_epoch is not None:
        best = scale * run.validation[run.best_epoch - 1]
        look: dict[str, Any] = {
            "marker": "*",
            "markersize": 12,
            "color": BLACK,
            "markeredgecolor": "white",
            "linestyle": "none",
        }
        axes.plot([run.best_epoch], [best], label="best epoch", zorder=3, **look)
    for number, restart in enumerate(curves.restarts):
        name = "restart" if number == 0 else "_"
        axes.axvline(restart, color=FAINT, linewidth=1, linestyle=":", label=name, zorder=0)
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel("accuracy, %" if curves.measure == "accuracy" else "cross-entropy, nats", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(colors=INK)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
